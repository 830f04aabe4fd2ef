// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"errors"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/modtrace/modtrace/test/lab"
)

// demoScript shows each command before it runs it. A refusal is part of the show,
// so only the first unload has to succeed. kmod's rmmod would look at the count in
// sysfs and refuse by itself; busybox's asks the kernel.
const demoScript = `
show() { printf '\n# %s\n' "$*"; "$@"; }
show modprobe slow sleep_ms=120 work_ms=80 sync_rcu=3
show modtrace run $COLOR -- rmmod slow || exit
show modprobe user
sleep 1000 </dev/busy &
show modtrace run $COLOR -- busybox rmmod busy
kill $!
`

func newDemo(a *app) *cobra.Command {
	i := &image{kmod: true}
	cmd := &cobra.Command{
		Use:   "demo [KERNEL]",
		Short: "boot a kernel and unload modules in it under modtrace",
		Example: `  lab demo
  lab demo arm64-6.12`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeSeries,
		RunE: func(cmd *cobra.Command, args []string) error {
			name := defaultKernel
			if len(args) > 0 {
				name = args[0]
			}
			return demo(cmd.Context(), a, i, name)
		},
	}
	i.flags(cmd.Flags())
	return cmd
}

func demo(ctx context.Context, a *app, i *image, name string) error {
	l, err := a.open()
	if err != nil {
		return err
	}
	k, err := a.kernel(ctx, l, name)
	if err != nil {
		return err
	}
	m := i.machine
	m.Kernel, m.Stdout, m.Stderr = k, os.Stdout, os.Stderr
	m.Args = []string{"sh", "-c", demoScript}
	if m.Initrd, err = i.build(ctx, l, k); err != nil {
		return err
	}
	hasTool, err := addModtrace(ctx, l, k, m.Initrd)
	if err != nil {
		return err
	}
	if !hasTool {
		return errors.New("there is no cmd/modtrace to show")
	}
	out := &lab.Terminal{In: os.Stdin, Out: os.Stdout}
	if cols := out.Columns(); cols > 0 {
		m.Env = append(m.Env, "COLUMNS="+strconv.Itoa(cols))
		if os.Getenv("NO_COLOR") == "" {
			m.Env = append(m.Env, "COLOR=--color=always")
		}
	}
	res, err := l.Run(ctx, &m)
	if err != nil {
		return err
	}
	if res.ExitCode != 0 {
		return exitStatus(res.ExitCode)
	}
	return nil
}
