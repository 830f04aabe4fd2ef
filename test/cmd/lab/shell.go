// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/modtrace/modtrace/test/lab"
)

func newShell(a *app) *cobra.Command {
	i := &image{kmod: true}
	cmd := &cobra.Command{
		Use:   "shell [KERNEL]",
		Short: "boot a kernel and give a prompt in it",
		Long: `Shell boots a kernel and gives a prompt in it, with modtrace built from this
repository, the fixture modules and Debian's kmod. Leave with exit or Ctrl-D;
Ctrl-] ends the machine whatever it does.`,
		Example: `  lab shell
  lab shell amd64-7 --module tun,veth --append lockdown=integrity`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeSeries,
		RunE: func(cmd *cobra.Command, args []string) error {
			name := defaultKernel
			if len(args) > 0 {
				name = args[0]
			}
			return shell(cmd.Context(), a, i, name)
		},
	}
	i.flags(cmd.Flags())
	return cmd
}

func shell(ctx context.Context, a *app, i *image, name string) error {
	terminal := &lab.Terminal{In: os.Stdin, Out: os.Stdout}
	l, err := a.open()
	if err != nil {
		return err
	}
	k, err := a.kernel(ctx, l, name)
	if err != nil {
		return err
	}
	m := i.machine
	m.Kernel, m.Terminal, m.Timeout = k, terminal, -1
	if m.Initrd, err = i.build(ctx, l, k); err != nil {
		return err
	}
	hasTool, err := addModtrace(ctx, l, k, m.Initrd)
	if err != nil {
		return err
	}
	term := os.Getenv("TERM")
	if err := l.AddInteractive(ctx, m.Initrd, k, term); err != nil {
		return err
	}
	m.Initrd.AddFile("etc/motd", 0o644, []byte(motd(k, hasTool)))
	m.Initrd.AddFile("etc/profile", 0o644, []byte("cat /etc/motd\nPS1='"+name+":\\w# '\n"))
	m.Args = []string{"bash", "--login"}
	m.Env = append(m.Env, "TERM="+term)
	fmt.Fprintf(os.Stderr, "lab: booting %s; Ctrl-] ends the machine\n", k.Release)
	restore, err := terminal.Raw()
	if err != nil {
		return err
	}
	defer restore()
	res, err := l.Run(ctx, &m)
	switch {
	case errors.Is(err, lab.ErrEscaped):
		return nil
	case err != nil:
		return err
	case res.ExitCode != 0:
		return exitStatus(res.ExitCode)
	}
	return nil
}

// addModtrace builds the tool for the guest, once there is one to build.
func addModtrace(ctx context.Context, l *lab.Lab, k *lab.Kernel, image *lab.Initrd) (bool, error) {
	root, err := lab.ModuleRoot(ctx)
	if err != nil {
		return false, err
	}
	if _, err := os.Stat(filepath.Join(root, "cmd", "modtrace")); err != nil {
		return false, nil
	}
	dir, err := os.MkdirTemp("", "modtrace-lab-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "modtrace")
	if err := l.GoBuild(ctx, k.Series.Arch, "./cmd/modtrace", file); err != nil {
		return false, err
	}
	return true, image.AddHostFile("usr/bin/modtrace", file)
}

func motd(k *lab.Kernel, hasTool bool) string {
	text := fmt.Sprintf("\nDebian's kernel %s (%s). The fixture modules lie in /fixtures; try\n\n", k.Release, k.Suite)
	if hasTool {
		text += `  modtrace check
  modprobe slow sleep_ms=200 work_ms=100 && modtrace run -- rmmod slow
  modprobe user && modtrace run -- busybox rmmod busy
  modprobe hang kind=work && modtrace run -- rmmod hang    # Ctrl-C says how far it came
  echo 1 >/sys/module/release/parameters/go                # lets hang go
`
	} else {
		text += `  modprobe slow sleep_ms=200 && time rmmod slow && dmesg | tail -n 1
  modprobe busy && sleep 1000 </dev/busy & rmmod busy
  modprobe hang kind=work && (rmmod hang &)
  echo 1 >/sys/module/release/parameters/go    # lets hang go
`
	}
	return text + "\nexit, or Ctrl-D, powers the machine off.\n\n"
}
