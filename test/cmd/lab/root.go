// SPDX-License-Identifier: MIT

package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/modtrace/modtrace/test/lab"
)

// app is what the subcommands share.
type app struct {
	cache   string
	refresh bool
}

func (a *app) open() (*lab.Lab, error) {
	return lab.New(lab.Options{Dir: a.cache, Refresh: a.refresh, Log: os.Stderr})
}

func newRoot() *cobra.Command {
	a := &app{}
	root := &cobra.Command{
		Use:           "lab",
		Short:         "boot real Debian kernels under emulation and run things in them",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.PersistentFlags().StringVar(&a.cache, "cache", "", "directory of the cache (default $MODTRACE_LAB_CACHE or the user's cache directory)")
	root.PersistentFlags().BoolVar(&a.refresh, "refresh", false, "ask the archive for newer versions of what is cached")
	root.AddCommand(newRun(a))
	return root
}
