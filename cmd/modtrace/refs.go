//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/modtrace/modtrace/holders"
	"github.com/modtrace/modtrace/ledger"
	"github.com/modtrace/modtrace/object"
	"github.com/modtrace/modtrace/output"
	"github.com/modtrace/modtrace/unload"
)

func (c *cli) refsCommand() *cobra.Command {
	o := &refsOptions{}
	cmd := &cobra.Command{
		Use:   "refs [flags] MODULE",
		Short: "Watch references on a module being taken and dropped",
		Long: `Watch references on a module being taken and dropped, until INT or TERM: which
process, where in the kernel, how often, for how long, and what is outstanding, each
with the stack by which it was taken first. The first line sets that against the
kernel's own count. The module need not be loaded yet, and may go and come back.
Nothing is held, and nothing but this module's references is noted.

A reference has no name: which one is dropped is told by the process, which drops the
last that it took. One that has taken none drops the oldest of others', which is said.`,
		Example: `  sudo modtrace refs tun
  sudo modtrace refs --duration 10s --raw loop
  sudo modtrace refs --every 1s --json tun | jq -c 'select(.outstanding > 0)'`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errors.New("refs needs the name of one module")
			}
			if o.duration < 0 || o.every < 0 {
				return errors.New("--duration and --every take a duration that is not less than 0")
			}
			_, err := holders.Name(args[0])
			return err
		},
		RunE:              func(_ *cobra.Command, args []string) error { return c.refs(args[0], *o) },
		ValidArgsFunction: loadedModules,
	}
	cmd.Flags().BoolVar(&o.raw, "raw", false, "also report each reference as it is taken or dropped")
	cmd.Flags().DurationVar(&o.duration, "duration", 0, "end after `DURATION`, 0: at INT or TERM")
	cmd.Flags().DurationVar(&o.every, "every", 0, "also report each `DURATION` meanwhile, if something has changed")
	cmd.Flags().StringVarP(&c.capture, "output", "o", "", "also write a capture to `FILE`")
	cmd.Flags().BoolVar(&c.strict, "strict", false, "exit with 4 when anything was lost or not seen")
	return cmd
}

// refsOptions say how to watch.
type refsOptions struct {
	raw             bool
	duration, every time.Duration
}

// watching is a ledger and the reports that it goes to.
type watching struct {
	recorder
	ledger  *ledger.Ledger
	stats   ledger.Stats
	records int64
	told    int64 // gets and puts that the last report had
}

func (c *cli) refs(word string, o refsOptions) (err error) {
	signal.Ignore(syscall.SIGPIPE) // a reader that goes away is reported by the write that fails
	name, err := holders.Name(word)
	if err != nil {
		return err
	}
	loaded, err := c.countable(name)
	if err != nil {
		return err
	}
	ctx, _ := interruptible()
	w := &watching{recorder: recorder{c, nil, nil}}
	options := ledger.Options{BTF: c.btf, RingBytes: c.ringBytes, Mechanisms: c.hooks, Raw: o.raw}
	if w.ledger, err = ledger.Start(name, options, func() ([]unload.Holder, error) { return c.holdersOf(name) }); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.closeFiles()) }()
	if !loaded {
		c.note("%s is not loaded; it is waited for", name)
	}
	err = errors.Join(w.watch(ctx, name, o), w.ledger.Close())
	if err != nil {
		return err
	}
	return w.verdict()
}

// countable says whether a module is loaded. The error says that its references are
// not counted.
func (c *cli) countable(name string) (loaded bool, err error) {
	dir := filepath.Join("/sys/module", name)
	if _, err := os.Stat(dir); err != nil {
		return false, nil
	}
	if _, err := os.Stat(filepath.Join(dir, "refcnt")); err == nil {
		return true, nil
	}
	w, err := c.whyOne(name)
	if err == nil && w.Reason == unload.ReasonBuiltIn {
		err = &object.Unable{
			What: "nobody counts the references on " + name, Why: "it is built into the kernel",
			Remedy: "name a module that can be loaded: lsmod lists those that are",
		}
	}
	return err == nil, err
}

// holdersOf finds who holds a module now.
func (c *cli) holdersOf(name string) ([]unload.Holder, error) {
	w, err := c.whyOne(name)
	return w.Holders, err
}

// whyOne says who holds one module now.
func (c *cli) whyOne(name string) (_ unload.Why, err error) {
	f, err := holders.Open(c.btf)
	if err != nil {
		return unload.Why{}, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	list, err := f.Why([]string{name})
	if err != nil {
		return unload.Why{}, err
	}
	return list[0], nil
}

func (w *watching) watch(ctx context.Context, name string, o refsOptions) error {
	if err := w.attended(); err != nil {
		return err
	}
	if err := w.begun(w.ledger.Plan()); err != nil {
		return err
	}
	w.cli.note("watching references on %s; INT ends it", name)
	if o.duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.duration)
		defer cancel()
	}
	if err := w.ledger.Follow(ctx, o.every, w.again, w.ref); err != nil {
		return err
	}
	last, err := w.ledger.Ledger()
	if err = errors.Join(err, w.ledger.Stop(w.ref)); err != nil {
		return err
	}
	if err := w.tell(last); err != nil {
		return err
	}
	return w.trailer()
}

// again reports if something has changed since it did so last.
func (w *watching) again() error {
	now, err := w.ledger.Ledger()
	if err != nil || now.Balance.Gets+now.Balance.Puts == w.told {
		return err
	}
	return w.tell(now)
}

func (w *watching) tell(l unload.Ledger) error {
	w.told = l.Balance.Gets + l.Balance.Puts
	w.records += 1 + int64(len(l.Entries))
	return w.each(func(r output.Report) error { return r.Ledger(l) })
}

func (w *watching) ref(ref unload.Ref) error {
	w.records++
	return w.each(func(r output.Report) error { return r.Ref(ref) })
}

func (w *watching) trailer() error {
	w.stats = w.ledger.Stats()
	t := unload.Trailer{
		Type: unload.TypeTrailer, Records: w.records, LostEvents: w.stats.Lost, MissedProbes: w.stats.Missed, Ended: time.Now().UTC(),
	}
	return w.each(func(r output.Report) error { return r.Trailer(t) })
}

// verdict is the exit status for what was seen, by --strict.
func (w *watching) verdict() error {
	var lost int64
	for _, n := range w.stats.Lost {
		lost += n
	}
	if !w.cli.strict || lost+w.stats.Missed+w.stats.Damaged == 0 {
		return nil
	}
	return &status{exitIncomplete, fmt.Errorf("incomplete: %d events lost, %d probes missed, %d records damaged", lost, w.stats.Missed, w.stats.Damaged)}
}
