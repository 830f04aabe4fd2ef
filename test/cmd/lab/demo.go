// SPDX-License-Identifier: MIT

package main

import (
	"context"
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
show modtrace why $COLOR busy
show modtrace run $COLOR -- busybox rmmod busy
kill $!
`

func newDemo(a *app) *cobra.Command {
	return withImage(a, demo, &cobra.Command{
		Use:   "demo [KERNEL]",
		Short: "boot a kernel and unload modules in it under modtrace",
		Example: `  lab demo
  lab demo arm64-6.12`,
	})
}

func demo(ctx context.Context, l *lab.Lab, m *lab.Machine) error {
	m.Stdout, m.Stderr = os.Stdout, os.Stderr
	m.Args = []string{"sh", "-c", demoScript}
	out := &lab.Terminal{In: os.Stdin, Out: os.Stdout}
	if cols := out.Columns(); cols > 0 {
		m.Env = append(m.Env, "COLUMNS="+strconv.Itoa(cols))
		if os.Getenv("NO_COLOR") == "" {
			m.Env = append(m.Env, "COLOR=--color=always")
		}
	}
	res, err := l.Run(ctx, m)
	if err != nil {
		return err
	}
	if res.ExitCode != 0 {
		return exitStatus(res.ExitCode)
	}
	return nil
}
