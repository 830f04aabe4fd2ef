// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/modtrace/modtrace/test/lab"
)

// app is what the subcommands share.
type app struct {
	cache        string
	refresh      bool
	allowMissing []string
}

func newRoot() *cobra.Command {
	a := &app{}
	root := &cobra.Command{
		Use:   "lab",
		Short: "boot real Debian kernels under emulation and run things in them",
		Long: `Lab boots real Debian kernels under emulation and runs things in them.

Kernels, compilers and tools come from the Debian archive that this machine's apt
uses. They are kept in a cache: only the first run needs the network, and every
run after that only with --refresh.`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	f := root.PersistentFlags()
	f.StringVar(&a.cache, "cache", "", "directory of the cache (default $MODTRACE_LAB_CACHE, or modtrace-lab in the user's cache directory)")
	f.BoolVar(&a.refresh, "refresh", false, "ask the archive for newer versions of what is cached")
	f.StringSliceVar(&a.allowMissing, "allow-missing", nil, "do not fail when the archive lacks this kernel series")
	root.AddCommand(newKernels(a), newFetch(a), newRun(a), newShell(a), newDemo(a), newClean(a))
	return root
}

func (a *app) open() (*lab.Lab, error) {
	return lab.New(lab.Options{Dir: a.cache, Refresh: a.refresh, Log: os.Stderr})
}

// kernel returns a kernel ready to boot.
func (a *app) kernel(ctx context.Context, l *lab.Lab, name string) (*lab.Kernel, error) {
	s, err := lab.FindSeries(name)
	if err != nil {
		return nil, err
	}
	return l.Kernel(ctx, s)
}

// excused says whether an error is only that the archive lacks a series which is
// allowed to be missing.
func (a *app) excused(s lab.Series, err error) bool {
	if !errors.Is(err, lab.ErrMissing) || !slices.Contains(a.allowMissing, s.Name) {
		return false
	}
	fmt.Fprintf(os.Stderr, "lab: %s: %v; allowed to be missing\n", s.Name, err)
	return true
}

// chosen returns the series of the names, or the default ones.
func chosen(names []string, all bool) ([]lab.Series, error) {
	if len(names) == 0 {
		if all {
			return lab.AllSeries(), nil
		}
		return lab.Matrix(), nil
	}
	var series []lab.Series
	for _, name := range names {
		s, err := lab.FindSeries(name)
		if err != nil {
			return nil, err
		}
		series = append(series, s)
	}
	return series, nil
}

// completeSeries helps the shell with the names of kernel series.
func completeSeries(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	var names []string
	for _, s := range lab.AllSeries() {
		names = append(names, s.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
