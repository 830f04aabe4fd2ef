// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

type runOptions struct {
	image
	kernel  string
	get     []string
	console bool
	times   bool
}

func newRun(a *app) *cobra.Command {
	o := &runOptions{}
	cmd := &cobra.Command{
		Use:   "run [flags] -- CMD [ARG...]",
		Short: "boot a kernel, run one command in it and exit with the command's status",
		Long: `Run boots a kernel, runs one command in it and exits with the command's status;
125 means that the lab failed, 126 and 127 that the command could not be run.

The guest has busybox and the fixture modules in /fixtures. An interrupt is passed
on to the command; a second one ends the machine.`,
		Example: `  lab run -- uname -a
  lab run --kernel arm64-6.12 --add ./modtrace:/usr/bin/modtrace -- modtrace check
  lab run --kmod --module veth -- sh -c 'modprobe veth; rmmod veth'
  lab run --get /tmp/out:out.json -- sh -c 'date > /tmp/out'`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.run(cmd.Context(), a, args)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.kernel, "kernel", defaultKernel, "kernel series")
	o.flags(f)
	f.StringArrayVar(&o.get, "get", nil, "copy a file out of the guest when the command has ended, `/path/in/guest:FILE`")
	f.DurationVar(&o.machine.Timeout, "timeout", 5*time.Minute, "end the machine after this time")
	f.BoolVar(&o.console, "console", false, "show the kernel's console on stderr")
	f.BoolVar(&o.times, "times", false, "say how long booting and all took")
	f.StringArrayVar(&o.machine.Devices, "device", nil, "give the guest a `device` more, as QEMU takes it")
	// A command's own flags are not ours, with or without the two dashes.
	f.SetInterspersed(false)
	_ = cmd.RegisterFlagCompletionFunc("kernel", completeSeries)
	return cmd
}

// defaultKernel is the series of most servers today.
const defaultKernel = "amd64-6.12"

func (o *runOptions) run(ctx context.Context, a *app, args []string) error {
	l, err := a.open()
	if err != nil {
		return err
	}
	k, err := a.kernel(ctx, l, o.kernel)
	if err != nil {
		return err
	}
	m := o.machine
	m.Kernel, m.Args = k, args
	if m.Initrd, err = o.build(ctx, l, k); err != nil {
		return err
	}
	m.Collect = map[string]string{}
	for _, spec := range o.get {
		guest, host, ok := strings.Cut(spec, ":")
		if !ok {
			return fmt.Errorf("--get %s: want /path/in/guest:FILE", spec)
		}
		m.Collect[guest] = host
	}
	m.Stdin, m.Stdout, m.Stderr = os.Stdin, os.Stdout, os.Stderr
	if o.console {
		m.Console = os.Stderr
	}
	ctx, m.Signals = passFirst(ctx)
	res, err := l.Run(ctx, &m)
	if err != nil {
		return err
	}
	if o.times {
		fmt.Fprintf(os.Stderr, "lab: %s booted in %.2fs, done after %.2fs\n", res.Release, res.Booted.Seconds(), res.Took.Seconds())
	}
	if res.ExitCode != 0 {
		return exitStatus(res.ExitCode)
	}
	return nil
}

// passFirst takes over the signals that end us: the first goes to the command in
// the guest, the second ends the machine.
func passFirst(ctx context.Context) (context.Context, <-chan os.Signal) {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	got := make(chan os.Signal, 2)
	signal.Notify(got, os.Interrupt, syscall.SIGTERM)
	pass := make(chan os.Signal, 1)
	go func() {
		pass <- <-got
		sig := <-got
		cancel(fmt.Errorf("%s, twice", sig))
	}()
	return ctx, pass
}
