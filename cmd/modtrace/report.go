package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/modtrace/modtrace/capture"
	"github.com/modtrace/modtrace/output"
)

// reportOptions say what of captures is shown, and how.
type reportOptions struct {
	format, to   string
	filter       capture.Filter
	since, until string
	sort         string
	limit        int
	full         bool
	summary      bool
	strict       bool
}

func (c *cli) reportCommand() *cobra.Command {
	o := &reportOptions{}
	cmd := &cobra.Command{
		Use:   "report [flags] FILE...",
		Short: "Read captures, on any machine",
		Long: `Read captures that run, trace, refs or record have written, on any machine and
without privileges. A few unloads are reported as they were live, many by a summary;
--full reports each. FILE may be compressed by zstd or gzip, and - is stdin. A capture
that was cut short is read as far as it goes, and what is missing is said.

TIME is 2026-01-31, "2026-01-31 22:00", RFC 3339, or 2h for so long ago.`,
		Example: `  modtrace report night.ndjson.zst
  modtrace report --result refused --since 2h night.ndjson
  modtrace report --sort duration --limit 5 --full *.ndjson
  modtrace report --format csv -o unloads.csv night.ndjson
  modtrace report --json --module 'snd*' night.ndjson | jq -r .module`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("report needs a capture: modtrace report FILE")
			}
			return c.checkReport(o)
		},
		RunE: func(_ *cobra.Command, args []string) error { return c.report(args, *o) },
	}
	flags := cmd.Flags()
	flags.StringVar(&o.format, "format", formatTable, "`AS`: "+strings.Join(formats(), ", "))
	flags.StringVarP(&o.to, "output", "o", "", "write to `FILE` instead of stdout")
	flags.StringSliceVar(&o.filter.Modules, "module", nil, "only modules of this `NAME` or glob, may be repeated")
	flags.StringSliceVar(&o.filter.Results, "result", nil, "only this `RESULT`: ok, refused, unanswered, or a reason")
	flags.DurationVar(&o.filter.Least, "min-duration", 0, "only unloads that took at least `DURATION`")
	flags.DurationVar(&o.filter.Most, "max-duration", 0, "only unloads that took at most `DURATION`")
	flags.StringVar(&o.since, "since", "", "only from `TIME` on")
	flags.StringVar(&o.until, "until", "", "only before `TIME`")
	flags.StringVar(&o.sort, "sort", "", "report unloads by `KEY`: start, duration (longest first) or module")
	flags.IntVar(&o.limit, "limit", 0, "report at most `N` unloads (default 1000 with --sort)")
	flags.BoolVar(&o.full, "full", false, "report each unload, however many there are")
	flags.BoolVar(&o.summary, "summary", false, "report only what the unloads have in common")
	flags.BoolVar(&o.strict, "strict", false, "exit with 4 when a capture is not complete")
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(formats(), cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("sort", cobra.FixedCompletions(output.SortKeys(), cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("result", cobra.FixedCompletions(capture.Results(), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (c *cli) checkReport(o *reportOptions) error {
	if err := c.checkFormat(o); err != nil {
		return err
	}
	if o.sort != "" && !slices.Contains(output.SortKeys(), o.sort) {
		return fmt.Errorf("--sort is %q: it takes one of %s", o.sort, strings.Join(output.SortKeys(), ", "))
	}
	if o.limit < 0 || o.filter.Least < 0 || o.filter.Most < 0 {
		return errors.New("--limit, --min-duration and --max-duration take nothing below 0")
	}
	if err := checkGlobs(o.filter.Modules); err != nil {
		return err
	}
	var err error
	now := time.Now()
	if o.filter.Since, err = pointInTime("--since", o.since, now); err != nil {
		return err
	}
	if o.filter.Until, err = pointInTime("--until", o.until, now); err != nil {
		return err
	}
	return o.filter.Check()
}

// checkFormat says which flags do not go together.
func (c *cli) checkFormat(o *reportOptions) error {
	if !slices.Contains(formats(), o.format) {
		return fmt.Errorf("--format is %q: it takes one of %s", o.format, strings.Join(formats(), ", "))
	}
	if c.json {
		if o.format != formatTable && o.format != formatJSON {
			return fmt.Errorf("--json and --format %s contradict each other", o.format)
		}
		o.format = formatJSON
	}
	c.json = o.format == formatJSON
	inOrder := o.format == formatTable || o.format == formatJSON || o.format == formatCSV
	switch {
	case o.summary && o.format != formatTable && o.format != formatJSON:
		return fmt.Errorf("--summary is for tables and JSON: %s has all records", o.format)
	case o.summary && (o.full || o.sort != "" || o.limit != 0):
		return errors.New("--summary reports no unload by itself, so that it takes no --full, --sort or --limit")
	case o.sort != "" && !inOrder:
		return fmt.Errorf("--sort is not for --format %s, which has an order of its own", o.format)
	case o.limit != 0 && !inOrder && o.format != formatHTML:
		return fmt.Errorf("--limit is not for --format %s", o.format)
	case o.to == "" && o.format == formatProfile && isTerminal(c.stdout):
		return errors.New("a profile is not for terminals: give -o FILE, and read that by go tool pprof FILE")
	}
	return nil
}

// pointInTime reads a time as users write it: "" is none.
func pointInTime(flag, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339Nano, time.DateOnly, time.DateTime, "2006-01-02 15:04"} {
		if t, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%s is %q: it takes a time such as 2026-01-31, \"2026-01-31 22:00\", or 2h for so long ago", flag, text)
}

func (c *cli) report(files []string, o reportOptions) (err error) {
	to := io.Writer(c.stdout)
	if o.to != "" {
		if err := apart(o.to, files); err != nil {
			return err
		}
		f, err := os.OpenFile(o.to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
		if err != nil {
			return fmt.Errorf("writing the report: %w", err)
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		to = f
	}
	var missing []string
	doc, err := c.document(to, o, func() []string { return missing })
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range files {
		stats, err := c.readCapture(name, o.filter, doc.take)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, text := range missingFrom(name, stats) {
			c.note("%s", text)
			missing = append(missing, text)
		}
	}
	if err := doc.close(); err != nil {
		errs = append(errs, unwritable(err))
	}
	if err := errors.Join(errs...); err != nil || !o.strict || missing == nil {
		return err
	}
	return &status{exitIncomplete, errors.New("incomplete: see above")}
}

// apart makes sure that a report does not replace what it is made of.
func apart(to string, files []string) error {
	info, err := os.Stat(to)
	if err != nil {
		return nil // nothing is there
	}
	for _, name := range files {
		if of, err := os.Stat(name); err == nil && os.SameFile(info, of) && info.Mode().IsRegular() {
			return fmt.Errorf("the report on %s would replace that: write it elsewhere", name)
		}
	}
	return nil
}

// readCapture gives the wanted records of a file to take.
func (c *cli) readCapture(name string, wanted capture.Filter, take func(record any) error) (capture.Stats, error) {
	f := os.Stdin
	if name != "-" {
		var err error
		if f, err = os.Open(name); err != nil {
			return capture.Stats{}, fmt.Errorf("reading a capture: %w", err)
		}
		defer f.Close()
	}
	in, done := c.watched(f, name)
	defer done()
	r, err := capture.NewReader(in)
	if err != nil {
		return capture.Stats{}, fmt.Errorf("%s: %w", name, err)
	}
	defer r.Close()
	for {
		record, err := r.Next()
		if errors.Is(err, io.EOF) {
			return r.Stats(), nil
		}
		if err != nil {
			return r.Stats(), fmt.Errorf("%s: %w", name, err)
		}
		if !wanted.Wants(record) {
			continue
		}
		if err := take(record); err != nil {
			return r.Stats(), unwritable(err)
		}
	}
}

// missingFrom says what a capture lacks, if anything.
func missingFrom(name string, s capture.Stats) (texts []string) {
	add := func(format string, args ...any) { texts = append(texts, name+fmt.Sprintf(format, args...)) }
	if s.Damage != "" {
		add(" cannot be read to its end (%s); %d records before that can", s.Damage, s.Records)
	}
	switch {
	case s.CutShort == 1 && s.Damage == "":
		add(" was cut short: it has no trailer, so the recorder was killed or is still at work; all that is there is reported")
	case s.CutShort > 1:
		add(" was cut short %d times: the recorder was killed, or started anew", s.CutShort)
	}
	for _, why := range []capture.Skip{capture.SkipGarbage, capture.SkipUnknown, capture.SkipLong, capture.SkipTorn} {
		if n := s.Skipped[why]; n > 0 {
			add(": left out %d lines (%s)", n, why)
		}
	}
	return texts
}
