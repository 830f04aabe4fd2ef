// SPDX-License-Identifier: MIT

package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/modtrace/modtrace/test/lab"
)

func newRun(a *app) *cobra.Command {
	var (
		kernel     string
		add        []string
		kernelArgs []string
		m          lab.Machine
		console    bool
		times      bool
	)
	cmd := &cobra.Command{
		Use:   "run [flags] -- CMD [ARG...]",
		Short: "boot a kernel, run one command in it and exit with its status",
		Example: `  lab run --kernel amd64-6.12 -- uname -a
  lab run --add ./modtrace:/usr/bin/modtrace -- sh -c 'insmod /fixtures/empty.ko; rmmod empty'`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			l, err := a.open()
			if err != nil {
				return err
			}
			series, err := lab.FindSeries(kernel)
			if err != nil {
				return err
			}
			k, err := l.Kernel(ctx, series)
			if err != nil {
				return err
			}
			initrd, err := l.Initrd(ctx, k)
			if err != nil {
				return err
			}
			for _, spec := range add {
				host, guest, ok := strings.Cut(spec, ":")
				if !ok {
					return fmt.Errorf("--add %s: want FILE:/path/in/guest", spec)
				}
				if err := initrd.AddHostFile(guest, host); err != nil {
					return fmt.Errorf("--add %s: %w", spec, err)
				}
			}
			m.Kernel, m.Initrd, m.Args, m.KernelArgs = k, initrd, args, kernelArgs
			m.Stdin, m.Stdout, m.Stderr = os.Stdin, os.Stdout, os.Stderr
			if console {
				m.Console = os.Stderr
			}
			res, err := l.Run(ctx, &m)
			if err != nil {
				return err
			}
			if times {
				fmt.Fprintf(os.Stderr, "lab: %s booted in %.2fs, done after %.2fs\n", res.Release, res.Booted.Seconds(), res.Took.Seconds())
			}
			if res.ExitCode != 0 {
				return exitStatus(res.ExitCode)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&kernel, "kernel", "amd64-6.12", "kernel series")
	f.StringArrayVar(&add, "add", nil, "copy a file into the guest, FILE:/path/in/guest")
	f.StringArrayVar(&kernelArgs, "append", nil, "add an argument to the kernel's command line")
	f.IntVar(&m.MemoryMB, "memory", 1024, "memory in megabytes")
	f.IntVar(&m.CPUs, "cpus", 2, "number of processors")
	f.BoolVar(&m.CountInstructions, "icount", false, "let the guest's clock count instructions, on one processor")
	f.DurationVar(&m.Timeout, "timeout", 5*time.Minute, "end the machine after this time")
	f.BoolVar(&console, "console", false, "show the kernel's console on stderr")
	f.BoolVar(&times, "times", false, "say how long booting and all took")
	return cmd
}
