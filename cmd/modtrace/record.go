//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/modtrace/modtrace/capture"
	"github.com/modtrace/modtrace/confine"
	"github.com/modtrace/modtrace/recording"
	"github.com/modtrace/modtrace/unload"
)

// recordOptions say what is recorded, and how much of it is kept.
type recordOptions struct {
	to       string
	maxSize  string
	keep     int
	duration time.Duration
	only     string
	filter   capture.Filter

	bytes int64 // of maxSize
}

// What --only takes.
const (
	onlyAll     = "all"
	onlyRefused = "refused"
	onlySlow    = "slow"
)

// slow is what --only slow takes for slow, unless --min-duration says otherwise.
const slow = 100 * time.Millisecond

func (c *cli) recordCommand() *cobra.Command {
	o := &recordOptions{}
	cmd := &cobra.Command{
		Use:   "record [flags] -o FILE",
		Short: "Record the unloads of this machine, unattended",
		Long: `Record every attempt to unload a module on this machine in a file of bounded size,
for as long as it runs; modtrace report reads it, anywhere. A record is in the file
before the next is taken, so that nothing is lost when modtrace is killed, and on the
disk within a second. What an earlier recorder has left in FILE is kept as FILE.1,
and a file that is full likewise. Where nothing can be written, on a full disk, the
tracing goes on; it is said, the records are counted, and once there is room the file
goes on with what was lost. A file that is moved away is begun anew. Slow are unloads of
100 ms and more, unless --min-duration says otherwise.

Under systemd it says when it is ready, and feeds the watchdog. HUP is ignored.`,
		Example: `  sudo modtrace record -o /var/log/modtrace/unloads.ndjson.zst
  sudo modtrace record --only slow --min-duration 1s -o slow.ndjson
  sudo modtrace record --max-size 10MB --rotate 9 --duration 24h -o day.ndjson
  modtrace report /var/log/modtrace/unloads.ndjson.zst*`,
		Args: func(cmd *cobra.Command, args []string) error {
			if err := noArguments(cmd, args); err != nil {
				return err
			}
			return o.check()
		},
		RunE: func(*cobra.Command, []string) error { return c.record(*o) },
	}
	flags := cmd.Flags()
	flags.StringVarP(&o.to, "output", "o", "", "write to `FILE`, compressed if its name ends in .zst")
	flags.StringVar(&o.maxSize, "max-size", "100MB", "begin a new file at `SIZE`, 0: never")
	flags.IntVar(&o.keep, "rotate", 4, "keep `N` older files: FILE.1 is the newest")
	flags.DurationVar(&o.duration, "duration", 0, "end after `DURATION`, 0: at INT or TERM")
	flags.StringSliceVar(&o.filter.Modules, "module", nil, "only modules of this `NAME` or glob, may be repeated")
	flags.DurationVar(&o.filter.Least, "min-duration", 0, "only unloads that took at least `DURATION`")
	flags.StringVar(&o.only, "only", onlyAll, "only these unloads: refused, slow or `all`")
	flags.DurationVar(&c.stall, "stall", 2*time.Second, "record unloads that hang for `DURATION`, 0: never")
	flags.BoolVar(&c.strict, "strict", false, "exit with 4 when anything was lost or not seen")
	_ = cmd.RegisterFlagCompletionFunc("only", cobra.FixedCompletions([]string{onlyAll, onlyRefused, onlySlow}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// leastSize is the least that a file has room for: a header, a record and a trailer.
const leastSize = 64 << 10

// check says what is wrong with the options, and works out what they mean.
func (o *recordOptions) check() error {
	if o.to == "" || o.to == "-" {
		return errors.New("record needs a file: -o FILE; for stdout there is modtrace trace --json")
	}
	bytes, err := humanize.ParseBytes(o.maxSize)
	if err != nil || bytes != 0 && bytes < leastSize || bytes > 1<<62 {
		return fmt.Errorf("--max-size is %q: it takes a size of at least 64KiB such as 10MB, or 0 for no bound", o.maxSize)
	}
	o.bytes = int64(bytes)
	if o.keep < 0 || o.keep > 1000 {
		return fmt.Errorf("--rotate is %d: it takes a number from 0 to 1000", o.keep)
	}
	if o.duration < 0 || o.filter.Least < 0 {
		return errors.New("--duration and --min-duration take a duration that is not less than 0")
	}
	switch o.only {
	case onlyAll:
	case onlyRefused:
		o.filter.Results = []string{string(unload.Refused)}
	case onlySlow:
		if o.filter.Least == 0 {
			o.filter.Least = slow
		}
	default:
		return fmt.Errorf("--only is %q: it takes refused, slow or all", o.only)
	}
	return checkGlobs(o.filter.Modules)
}

func (c *cli) record(o recordOptions) error {
	signal.Ignore(syscall.SIGHUP) // what rotates files sends it; the file is looked for anyway
	ctx, _ := interruptible()
	if o.duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.duration)
		defer cancel()
	}
	options := c.options()
	options.Tick = watchdog()
	s, err := c.open(ctx, options, o.filter, func(s *session) error { return s.unattended(o) })
	if err != nil {
		return err
	}
	err = c.confine(filepath.Dir(o.to))
	if err == nil {
		c.note("recording to %s; INT ends it", o.to)
		tellManager(daemon.SdNotifyReady)
		err = s.follow()
		tellManager(daemon.SdNotifyStopping)
	}
	if err := errors.Join(err, s.close()); err != nil {
		return err
	}
	return s.verdict()
}

// confine drops what is not needed once everything is attached. What stays is for naming
// functions and callers, and for finding holders, each as it comes up.
func (c *cli) confine(dir string) error {
	err := confine.Capabilities("CAP_BPF", "CAP_PERFMON", "CAP_SYSLOG", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH")
	if err != nil {
		return err
	}
	if err := unix.Faccessat(unix.AT_FDCWD, dir, unix.W_OK, unix.AT_EACCESS); err != nil {
		c.note("no new file can be begun in %s (%v): only its owner may, and privileges to do more than that are dropped", dir, err)
	}
	return nil
}

// unattended opens the capture that nobody looks at for now.
func (s *session) unattended(o recordOptions) error {
	w, err := recording.Record(o.to, recording.Options{
		MaxSize: o.bytes, Keep: o.keep, Trailer: s.trailer,
		Note: func(text string) {
			s.cli.note("%s", text)
			tellManager("STATUS=" + text)
		},
	})
	if err != nil {
		return err
	}
	s.writeTo(w)
	return nil
}

// tellManager tells systemd, if it has started this (sd_notify(3)).
func tellManager(state string) {
	_, _ = daemon.SdNotify(false, state) // it is told for its own good
}

// watchdog gives what is to be called as long as everything goes well: it tells systemd,
// twice as often as that wants to hear of it (sd_watchdog_enabled(3)).
func watchdog() func() {
	every, err := daemon.SdWatchdogEnabled(false)
	if err != nil || every == 0 {
		return nil
	}
	var next time.Time
	return func() {
		if now := time.Now(); now.After(next) {
			next = now.Add(every / 2)
			tellManager(daemon.SdNotifyWatchdog)
		}
	}
}
