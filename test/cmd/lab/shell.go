// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/modtrace/modtrace/test/lab"
)

func newShell(a *app) *cobra.Command {
	return withImage(a, shell, &cobra.Command{
		Use:   "shell [KERNEL]",
		Short: "boot a kernel and give a prompt in it",
		Long: `Shell boots a kernel and gives a prompt in it, with modtrace built from this
repository, the fixture modules and Debian's kmod. Leave with exit or Ctrl-D;
Ctrl-] ends the machine whatever it does.`,
		Example: `  lab shell
  lab shell amd64-7 --module tun,veth --append lockdown=integrity`,
	})
}

func shell(ctx context.Context, l *lab.Lab, m *lab.Machine) error {
	terminal := &lab.Terminal{In: os.Stdin, Out: os.Stdout}
	m.Terminal, m.Timeout = terminal, -1
	k := m.Kernel
	term := os.Getenv("TERM")
	if err := l.AddInteractive(ctx, m.Initrd, k, term); err != nil {
		return err
	}
	m.Initrd.AddFile("etc/motd", 0o644, []byte(motd(k)))
	m.Initrd.AddFile("etc/profile", 0o644, []byte("cat /etc/motd\nPS1='"+k.Series.Name+":\\w# '\n"))
	m.Args = []string{"bash", "--login"}
	m.Env = append(m.Env, "TERM="+term)
	fmt.Fprintf(os.Stderr, "lab: booting %s; Ctrl-] ends the machine\n", k.Release)
	restore, err := terminal.Raw()
	if err != nil {
		return err
	}
	defer restore()
	res, err := l.Run(ctx, m)
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

func motd(k *lab.Kernel) string {
	return fmt.Sprintf(`
Debian's kernel %s (%s). The fixture modules lie in /fixtures; try

  modtrace check
  modprobe slow sleep_ms=200 work_ms=100 && modtrace run -- rmmod slow
  modprobe user && modtrace run -- busybox rmmod busy
  modprobe hang kind=work && modtrace run -- rmmod hang    # Ctrl-C says how far it came
  echo 1 >/sys/module/release/parameters/go                # lets hang go

exit, or Ctrl-D, powers the machine off.

`, k.Release, k.Suite)
}
