//go:build !linux

package main

import (
	"runtime"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// live is nothing where there is no Linux.
type live struct{}

func (c *cli) liveFlags(*pflag.FlagSet) {}

func (c *cli) checkLive() error { return nil }

// liveCommands stand for those that look at the kernel, and say that there is none.
func (c *cli) liveCommands() (all []*cobra.Command) {
	for _, name := range []string{"run", "trace", "why", "refs", "stuck", "record", "serve", "check"} {
		all = append(all, &cobra.Command{
			Use:                name,
			Short:              "Only on Linux",
			Hidden:             true,
			DisableFlagParsing: true,
			RunE:               func(*cobra.Command, []string) error { return notLinux{name} },
		})
	}
	return all
}

// notLinux says that a command needs another system.
type notLinux struct{ command string }

func (e notLinux) Error() string { return e.command + " needs Linux" }

func (e notLinux) Explain() (what, why, remedy string) {
	return e.Error(), "it looks at the Linux kernel, and this is " + runtime.GOOS,
		"run it on the machine in question with -o FILE, and read the capture here: modtrace report FILE"
}
