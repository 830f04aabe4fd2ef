// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/modtrace/modtrace/test/lab"
)

// image is what the user wants a machine to have; run and shell share it.
type image struct {
	add     []string
	modules []string
	program []string
	kmod    bool
	machine lab.Machine
}

func (i *image) flags(f *pflag.FlagSet) {
	f.StringArrayVar(&i.add, "add", nil, "copy a file into the guest, `FILE:/path/in/guest`")
	f.StringSliceVar(&i.modules, "module", nil, "give the guest this module of the kernel, with all that it needs")
	f.StringArrayVar(&i.program, "program", nil, "give the guest a program of Debian's, `PACKAGE:/path`")
	f.BoolVar(&i.kmod, "kmod", i.kmod, "give the guest Debian's modprobe and rmmod instead of busybox's")
	f.StringArrayVar(&i.machine.KernelArgs, "append", nil, "add an argument to the kernel's command line")
	f.IntVar(&i.machine.MemoryMB, "memory", 0, "memory in megabytes (default 1024)")
	f.IntVar(&i.machine.CPUs, "cpus", 0, "number of processors (default 2)")
	f.BoolVar(&i.machine.CountInstructions, "icount", false, "let the guest's clock count instructions, on one processor")
}

// build makes the guest's file system.
func (i *image) build(ctx context.Context, l *lab.Lab, k *lab.Kernel) (*lab.Initrd, error) {
	a, err := l.Initrd(ctx, k)
	if err != nil {
		return nil, err
	}
	if i.kmod {
		if err := l.AddKmod(ctx, a, k); err != nil {
			return nil, err
		}
	}
	if len(i.modules) > 0 {
		if err := l.AddModules(ctx, a, k, i.modules...); err != nil {
			return nil, err
		}
	}
	for _, spec := range i.program {
		name, path, _ := strings.Cut(spec, ":")
		if err := l.AddTools(ctx, a, k, name, path); err != nil {
			return nil, fmt.Errorf("--program %s: %w", spec, err)
		}
	}
	for _, spec := range i.add {
		host, guest, ok := strings.Cut(spec, ":")
		if !ok || !strings.HasPrefix(guest, "/") {
			return nil, fmt.Errorf("--add %s: want FILE:/path/in/guest", spec)
		}
		if err := a.AddHostFile(guest, host); err != nil {
			return nil, fmt.Errorf("--add %s: %w", spec, err)
		}
	}
	return a, nil
}

// withImage makes a command of do, which is given a machine with modtrace, the
// fixture modules and Debian's kmod in it, on the kernel that its argument names.
func withImage(a *app, do func(context.Context, *lab.Lab, *lab.Machine) error, cmd *cobra.Command) *cobra.Command {
	i := &image{kmod: true}
	cmd.Args = cobra.MaximumNArgs(1)
	cmd.ValidArgsFunction = completeSeries
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		name := defaultKernel
		if len(args) > 0 {
			name = args[0]
		}
		l, err := a.open()
		if err != nil {
			return err
		}
		m := i.machine
		if m.Kernel, err = a.kernel(cmd.Context(), l, name); err != nil {
			return err
		}
		if m.Initrd, err = i.build(cmd.Context(), l, m.Kernel); err != nil {
			return err
		}
		if err := l.AddModtrace(cmd.Context(), m.Initrd, m.Kernel); err != nil {
			return err
		}
		return do(cmd.Context(), l, &m)
	}
	i.flags(cmd.Flags())
	return cmd
}
