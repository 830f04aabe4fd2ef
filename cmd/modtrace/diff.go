package main

import (
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/modtrace/modtrace/capture"
	"github.com/modtrace/modtrace/diff"
	"github.com/modtrace/modtrace/output"
	"github.com/modtrace/modtrace/stats"
)

// diffOptions say what is compared, and what counts as a change.
type diffOptions struct {
	filter capture.Filter
	least  float64 // in percent
	leastD time.Duration
	strict bool
}

func (c *cli) diffCommand() *cobra.Command {
	o := &diffOptions{}
	cmd := &cobra.Command{
		Use:   "diff [flags] OLD NEW",
		Short: "Say what became slower or began to fail between two captures",
		Long: `Compare two captures: for each module and phase, whether unloads became slower or
faster, began to be refused or no longer are, with the numbers behind it. What chance
alone may have done is not called a change: durations are compared by a rank test (of
Mann and Whitney), refusals by Fisher's exact test, both corrected for how many
comparisons there are; and where there are too few unloads to tell, that is said.
In unloads of less than 20 ms, a change counts from a twentieth of that on.

The exit status is 21 if something certainly became slower or began to fail.`,
		Example: `  modtrace diff monday.ndjson.zst tuesday.ndjson.zst
  modtrace diff --module 'mlx5*' --least 5 --least-duration 100us old.ndjson new.ndjson
  modtrace diff --json old.ndjson new.ndjson | jq '.changes[] | select(.verdict == "significant")'`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return errors.New("diff needs two captures: modtrace diff OLD NEW")
			}
			if o.least < 0 || o.leastD < 0 {
				return errors.New("--least and --least-duration take nothing below 0")
			}
			return checkGlobs(o.filter.Modules)
		},
		RunE: func(_ *cobra.Command, args []string) error { return c.diff(args[0], args[1], *o) },
	}
	flags := cmd.Flags()
	flags.StringSliceVar(&o.filter.Modules, "module", nil, "only modules of this `NAME` or glob, may be repeated")
	flags.Float64Var(&o.least, "least", 10, "a change of less than `PERCENT` is none")
	flags.DurationVar(&o.leastD, "least-duration", time.Millisecond, "a change of less than `DURATION` is none")
	flags.BoolVar(&o.strict, "strict", false, "exit with 4 when a capture is not complete")
	return cmd
}

func (c *cli) diff(old, now string, o diffOptions) error {
	var sides [2]*stats.Stats
	incomplete := false
	for i, name := range []string{old, now} {
		s, err := stats.New()
		if err != nil {
			return err
		}
		read, err := c.readCapture(name, o.filter, func(record any) error { s.Take(record); return nil })
		if err != nil {
			return err
		}
		for _, text := range missingFrom(name, read) {
			c.note("%s", text)
			incomplete = true
		}
		sides[i] = s
	}
	d := diff.Compare(sides[0], sides[1], diff.Options{Relative: o.least / 100, Absolute: int64(o.leastD)})
	var err error
	if c.json {
		err = output.DiffJSON(c.stdout, d)
	} else {
		err = output.Diff(c.stdout, d, c.tableOptions())
	}
	switch {
	case err != nil:
		return unwritable(err)
	case d.Worse():
		return &status{code: exitWorse}
	case o.strict && incomplete:
		return &status{exitIncomplete, errors.New("incomplete: see above")}
	}
	return nil
}
