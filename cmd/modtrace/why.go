package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/modtrace/modtrace/holders"
	"github.com/modtrace/modtrace/object"
	"github.com/modtrace/modtrace/unload"
)

func (c *cli) whyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "why [flags] MODULE...",
		Short: "Say who holds a module now, without unloading it",
		Long: `Say who holds each module now: other modules, and the processes that have its
files, mappings, mounts, sockets, terminals or disks in use, in every container.
Every reference that the kernel counts is accounted for; what is not found is said
to be unexplained. Nothing is unloaded, and no reference is taken. A path to a .ko
file stands for the module in it, and "-" and "_" are the same.

The exit status is that of the first module that cannot be unloaded:
   0  each can be unloaded now
  10  in use
  11  not loaded
  12  can never be unloaded: built in, no exit function, or unloading disabled
  13  being loaded or unloaded right now`,
		Example: `  sudo modtrace why tun
  sudo modtrace why --json kvm_intel | jq -r '.holders[] | [.pid, .comm, .path] | @tsv'
  sudo modtrace why loop || echo "still in use"`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("why needs the name of a module")
			}
			return nil
		},
		RunE:              func(_ *cobra.Command, args []string) error { return c.why(args) },
		ValidArgsFunction: loadedModules,
	}
}

// loadedModules completes names.
func loadedModules(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	b, err := os.ReadFile("/proc/modules")
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for line := range strings.Lines(string(b)) {
		name, _, _ := strings.Cut(line, " ")
		names = append(names, name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func (c *cli) why(words []string) (err error) {
	for _, word := range words {
		if err := holders.CheckName(word); err != nil {
			return &status{exitUsage, err}
		}
	}
	if err := object.HasModules(); err != nil {
		return err
	}
	f, err := holders.Open(c.btf)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	list, err := f.Why(words)
	if err != nil {
		return err
	}
	r := c.report()
	code := 0
	for _, w := range list {
		if err := r.Why(w); err != nil {
			return unwritable(err)
		}
		if code == 0 {
			code = codeOf(w.Reason)
		}
	}
	if f.Unable != nil && (code == 0 || code == exitInUse) {
		return fmt.Errorf("who holds it cannot be seen: %w", f.Unable)
	}
	if code != 0 {
		return &status{code: code}
	}
	return nil
}

// codeOf is the exit status that stands for a reason.
func codeOf(r unload.Reason) int {
	switch r {
	case unload.ReasonNone:
		return 0
	case unload.ReasonNotFound:
		return exitNotLoaded
	case unload.ReasonBuiltIn, unload.ReasonNoExit, unload.ReasonNoUnload, unload.ReasonModulesDisabled:
		return exitNever
	case unload.ReasonLoading, unload.ReasonUnloading:
		return exitChanging
	}
	return exitInUse
}
