//go:build linux

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/modtrace/modtrace/tracer"
)

func (c *cli) stuckCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "stuck",
		Short: "Report the unloads in flight now, also those that began before",
		Long: `Report every unload that is in flight now, whenever it began: how far it has come,
what it waits for and on whom; and modules whose unload can never end because the
task that unloaded them died. Nothing is traced: all is read from the kernel's
state. Without --json it says so when there is none.`,
		Example: `  sudo modtrace stuck
  sudo modtrace stuck --json | jq -r '[.module, .phase, .wait.cause] | @tsv'`,
		Args: noArguments,
		RunE: func(*cobra.Command, []string) error { return c.stuck() },
	}
}

func (c *cli) stuck() error {
	found, err := tracer.Stuck(c.options())
	if err != nil {
		return err
	}
	for _, lack := range found.Lacks {
		c.note("%s", lack)
	}
	r := c.onStdout()
	for _, st := range found.Stalls {
		if err := r.Stall(st); err != nil {
			return unwritable(err)
		}
	}
	if len(found.Stalls) == 0 && !c.json {
		if _, err := fmt.Fprintln(c.stdout, "no unload is in flight"); err != nil {
			return unwritable(err)
		}
	}
	return nil
}
