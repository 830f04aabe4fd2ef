//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/modtrace/modtrace/capture"
	"github.com/modtrace/modtrace/output"
	"github.com/modtrace/modtrace/recording"
	"github.com/modtrace/modtrace/tracer"
	"github.com/modtrace/modtrace/unload"
)

// recorder has the reports that records go to.
type recorder struct {
	cli     *cli
	reports []output.Report
	files   []io.Closer
}

// session is a trace and the reports that its unloads go to.
type session struct {
	recorder
	tracer  *tracer.Tracer
	holders explainer
	slowest unload.Unload
	wanted  capture.Filter
	err     error // of reporting a stall or a reload

	told atomic.Int64 // unloads by the kernel that were reported, or not wanted
	gone atomic.Int64 // modules that were unloaded and have not come back

	lingers atomic.Bool // the command is done with, tracing goes on
}

// interruptible gives a context that the first INT or TERM ends. The second
// finds the default in place and ends the process. caught says which it was.
func interruptible() (ctx context.Context, caught func() os.Signal) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	ctx, cancel := context.WithCancel(context.Background())
	var first os.Signal
	go func() {
		first = <-signals
		signal.Reset(syscall.SIGINT, syscall.SIGTERM)
		cancel()
	}()
	return ctx, func() os.Signal {
		if ctx.Err() == nil {
			return nil
		}
		return first
	}
}

// open starts tracing, and has the reports on what is wanted begin.
func (c *cli) open(ctx context.Context, o tracer.Options, wanted capture.Filter, begin func(*session) error) (_ *session, err error) {
	// A reader that goes away is reported by the write that fails.
	signal.Ignore(syscall.SIGPIPE)
	s := &session{recorder: recorder{c, nil, nil}, wanted: wanted, holders: explainer{btf: c.btf}}
	o.Stalled, o.Reloaded = s.stalled, s.reloaded
	defer func() {
		if err != nil {
			err = errors.Join(err, s.closeFiles())
		}
	}()
	if c.rawFile != "" {
		f, err := os.OpenFile(c.rawFile, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
		if err != nil {
			return nil, fmt.Errorf("writing raw events: %w", err)
		}
		s.files = append(s.files, f)
		o.Tap = rawWriter(f)
	}
	// Collecting garbage meanwhile would take a tenth of the time: see settle.
	debug.SetGCPercent(-1)
	if s.tracer, err = tracer.Start(ctx, o); err != nil {
		return nil, err
	}
	if err = begin(s); err == nil {
		err = s.begun(s.tracer.Plan())
	}
	if err != nil {
		return nil, errors.Join(err, s.tracer.Close())
	}
	return s, nil
}

// attended opens the reports that somebody looks at. An older capture is overwritten
// only now: where tracing cannot even start, it stays.
func (s *recorder) attended() error {
	s.reports = append(s.reports, s.cli.onStdout())
	if s.cli.capture == "" {
		return nil
	}
	w, err := recording.Create(s.cli.capture)
	if err != nil {
		return err
	}
	s.writeTo(w)
	return nil
}

// writeTo has a capture written too.
func (s *recorder) writeTo(w *recording.Writer) {
	s.files, s.reports = append(s.files, w), append(s.reports, w)
}

// begun says in the reports on what they are made, and to whoever waits that all is seen
// from now on.
func (s *recorder) begun(plan []unload.Hook) error {
	if err := s.header(plan); err != nil {
		return err
	}
	return s.ready()
}

// settle collects garbage again, gives back the memory that starting took, and
// forbids the kernel to collapse that into huge pages again, some seconds later
// (khugepaged). The command that is run would inherit the latter (prctl(2)), so it
// must have been started; a kernel without huge pages has nothing to forbid.
func settle() {
	debug.SetGCPercent(100)
	debug.FreeOSMemory()
	_ = unix.Prctl(unix.PR_SET_THP_DISABLE, 1, 0, 0, 0)
}

// onStdout is the report that goes there.
func (c *cli) onStdout() output.Report {
	if c.json {
		return output.NewJSON(c.stdout)
	}
	return output.NewTable(c.stdout, c.tableOptions())
}

// header opens every report.
func (s *recorder) header(plan []unload.Hook) error {
	h, err := machine()
	if err != nil {
		return err
	}
	h.Plan = plan
	return s.each(func(r output.Report) error { return r.Header(h) })
}

// machine describes where the trace is made.
func machine() (unload.Header, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return unload.Header{}, fmt.Errorf("asking for the kernel's name: %w", err)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return unload.Header{}, fmt.Errorf("reading the boot's id: %w", err)
	}
	return unload.Header{
		Type:    unload.TypeHeader,
		Schema:  unload.Schema,
		Tool:    version(),
		Kernel:  unix.ByteSliceToString(u.Release[:]),
		Arch:    unix.ByteSliceToString(u.Machine[:]),
		Host:    unix.ByteSliceToString(u.Nodename[:]),
		BootID:  strings.TrimSpace(string(boot)),
		Started: time.Now().UTC(),
		Plan:    []unload.Hook{},
	}, nil
}

// ready tells whoever waits that all is seen from now on.
func (s *recorder) ready() error {
	if s.cli.readyFile == "" {
		return nil
	}
	if err := os.WriteFile(s.cli.readyFile, nil, 0o600); err != nil {
		return fmt.Errorf("saying that tracing has begun: %w", err)
	}
	return nil
}

// stalled reports an unload that hangs.
func (s *session) stalled(st unload.Stall) {
	if s.err == nil && s.wanted.Wants(&st) {
		s.err = s.each(func(r output.Report) error { return r.Stall(st) })
	}
}

// reloaded reports a module that is back.
func (s *session) reloaded(l unload.Reload) {
	if s.err == nil && s.wanted.Wants(&l) {
		s.err = s.each(func(r output.Report) error { return r.Reload(l) })
		s.gone.Add(-1)
	}
}

// follow reports every unload that is wanted, until tracing has stopped.
func (s *session) follow() error {
	settle()
	for u := range s.tracer.Unloads() {
		if s.err != nil {
			return s.err
		}
		if s.wanted.Wants(&u) {
			if err := s.unloaded(u); err != nil {
				return err
			}
		}
		if u.Result.By == unload.ByKernel {
			s.told.Add(1)
		}
	}
	if err := s.tracer.Err(); err != nil {
		return err
	}
	t := s.trailer()
	return s.each(func(r output.Report) error { return r.Trailer(t) })
}

// unloaded reports an unload that has ended.
func (s *session) unloaded(u unload.Unload) error {
	if u.Duration > s.slowest.Duration {
		s.slowest = u
	}
	if u.Result.OK {
		s.gone.Add(1)
	}
	s.holders.explain(&u)
	return s.report(u)
}

func (s *session) report(u unload.Unload) error {
	return s.each(func(r output.Report) error { return r.Unload(u) })
}

// trailer is how the trace stands.
func (s *session) trailer() unload.Trailer {
	stats := s.tracer.Stats()
	return unload.Trailer{
		Type:         unload.TypeTrailer,
		Records:      stats.Records,
		LostEvents:   stats.Lost,
		MissedProbes: stats.Missed,
		Incomplete:   stats.Incomplete,
		Ended:        time.Now().UTC(),
	}
}

func (s *recorder) each(write func(output.Report) error) error {
	for _, r := range s.reports {
		if err := write(r); err != nil {
			return unwritable(err)
		}
	}
	return nil
}

// verdict is the exit status for what was seen, by --strict.
func (s *session) verdict() error {
	stats := s.tracer.Stats()
	var lost int64
	for _, n := range stats.Lost {
		lost += n
	}
	if !s.cli.strict || lost+stats.Incomplete+stats.Missed+stats.Damaged == 0 {
		return nil
	}
	return &status{exitIncomplete, fmt.Errorf("incomplete: %d unloads not seen whole, %d events lost, %d probes missed, %d records damaged",
		stats.Incomplete, lost, stats.Missed, stats.Damaged)}
}

func (s *session) close() error {
	return errors.Join(s.tracer.Close(), s.holders.close(), s.closeFiles())
}

func (s *recorder) closeFiles() error {
	var errs []error
	for _, f := range s.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}
