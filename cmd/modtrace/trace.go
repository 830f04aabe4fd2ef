//go:build linux

package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/modtrace/modtrace/capture"
)

func (c *cli) traceCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "trace [flags] [MODULE...]",
		Short: "Report every unload attempt on this machine as it ends",
		Long: `Report each attempt to unload a module on this machine as it ends, until INT or
TERM. Names or globs narrow it; "-" and "_" are the same in them.`,
		Example: `  sudo modtrace trace
  sudo modtrace trace 'snd-*' tun
  sudo modtrace trace --json | jq -r '[.module, .duration_ns] | @tsv'`,
		Args: func(_ *cobra.Command, args []string) error { return checkGlobs(args) },
		RunE: func(_ *cobra.Command, args []string) error { return c.trace(args) },
	}
	c.traceFlags(cmd)
	return cmd
}

func (c *cli) trace(patterns []string) error {
	ctx, _ := interruptible()
	s, err := c.open(ctx, c.options(), capture.Filter{Modules: patterns}, func(s *session) error { return s.attended() })
	if err != nil {
		return err
	}
	c.note("tracing; INT ends it")
	if err := errors.Join(s.follow(), s.close()); err != nil {
		return err
	}
	return s.verdict()
}
