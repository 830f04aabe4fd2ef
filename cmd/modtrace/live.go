//go:build linux

package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/modtrace/modtrace/tracer"
)

// live is what the commands share that look at the kernel.
type live struct {
	btf     string
	capture string
	strict  bool
	stall   time.Duration

	hooks     []string
	ringBytes int
	readyFile string
	rawFile   string
}

func (c *cli) liveCommands() []*cobra.Command {
	return []*cobra.Command{
		c.runCommand(), c.traceCommand(), c.whyCommand(), c.refsCommand(), c.stuckCommand(), c.recordCommand(), c.checkCommand(),
	}
}

func (c *cli) liveFlags(flags *pflag.FlagSet) {
	flags.StringVar(&c.btf, "btf", "", "take the kernel's types from `FILE`, for kernels without BTF")
	flags.StringSliceVar(&c.hooks, "hooks", nil, "limit how functions are hooked to these: "+strings.Join(tracer.Mechanisms(), ", "))
	flags.IntVar(&c.ringBytes, "ring-bytes", 0, "size of the ring buffer, a power of two (default 1 MiB)")
	flags.StringVar(&c.readyFile, "ready-file", "", "create this file once tracing has begun")
	flags.StringVar(&c.rawFile, "raw-file", "", "write the raw events to this file, for replay in tests")
	for _, hidden := range []string{"hooks", "ring-bytes", "ready-file", "raw-file"} {
		_ = flags.MarkHidden(hidden)
	}
}

// checkLive says what is wrong with the values of those flags.
func (c *cli) checkLive() error {
	if c.ringBytes < 0 || c.ringBytes&(c.ringBytes-1) != 0 || c.ringBytes != 0 && c.ringBytes < os.Getpagesize() {
		return fmt.Errorf("--ring-bytes is %d: it takes a power of two of at least %d", c.ringBytes, os.Getpagesize())
	}
	if c.stall < 0 {
		return fmt.Errorf("--stall is %v: it takes a duration, or 0 for never", c.stall)
	}
	for _, name := range c.hooks {
		if !slices.Contains(tracer.Mechanisms(), name) {
			return fmt.Errorf("--hooks names %q: it takes some of %s", name, strings.Join(tracer.Mechanisms(), ", "))
		}
	}
	return nil
}

// traceFlags adds the flags of the commands that trace.
func (c *cli) traceFlags(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&c.capture, "output", "o", "", "also write a capture to `FILE`")
	cmd.Flags().DurationVar(&c.stall, "stall", 2*time.Second, "report unloads that hang for `DURATION`, 0: never")
	cmd.Flags().BoolVar(&c.strict, "strict", false, "exit with 4 when anything was lost or not seen")
}

func (c *cli) options() tracer.Options {
	return tracer.Options{BTF: c.btf, RingBytes: c.ringBytes, Mechanisms: c.hooks, Stall: c.stall}
}
