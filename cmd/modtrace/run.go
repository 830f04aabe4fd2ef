//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/modtrace/modtrace/capture"
)

func (c *cli) runCommand() *cobra.Command {
	var failOver, linger time.Duration
	cmd := &cobra.Command{
		Use:   "run [flags] -- CMD [ARG...]",
		Short: "Run a command and report every unload it attempts",
		Long: `Run a command and report every attempt to unload a module that it or one of its
descendants makes. The command's own output goes to stderr, so that stdout
carries the report alone. When a module is gone, modtrace looks on for a moment,
to name who loads it again. The exit status is the command's own; 125 when
modtrace failed, 126 and 127 when the command cannot be run.`,
		Example: `  sudo modtrace run -- rmmod tun
  sudo modtrace run --fail-over 2s -- modprobe -r mlx5_core
  sudo modtrace run --json -o tun.ndjson -- rmmod tun | jq .result`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("run needs a command: modtrace run -- rmmod MODULE")
			}
			if failOver < 0 {
				return fmt.Errorf("--fail-over is %v: it takes a duration above 0", failOver)
			}
			if linger < 0 {
				return fmt.Errorf("--linger is %v: it takes a duration, or 0 for none", linger)
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error { return c.run(args, failOver, linger) },
	}
	c.traceFlags(cmd)
	cmd.Flags().SetInterspersed(false)
	cmd.Flags().DurationVar(&failOver, "fail-over", 0, "exit with 20 when an unload takes longer than `DURATION`")
	cmd.Flags().DurationVar(&linger, "linger", time.Second, "after an unload, see for `DURATION` who loads it again")
	return cmd
}

func (c *cli) run(args []string, failOver, linger time.Duration) error {
	child, err := c.child(args)
	if err != nil {
		return err
	}
	// Descendants whose parent dies become modtrace's children, so that all
	// of them are found below it, however they were started.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return &status{exitRunFailed, fmt.Errorf("adopting the command's descendants: %w", err)}
	}
	ctx, caught := interruptible()
	o := c.options()
	o.Below = os.Getpid()
	s, err := c.open(ctx, o, capture.Filter{}, func(s *session) error { return s.attended() })
	if err != nil {
		return failedRun(err)
	}
	ended, err := s.start(ctx, child, caught, linger)
	if err != nil {
		return errors.Join(err, s.close())
	}
	err = errors.Join(s.follow(), s.close())
	if err != nil {
		return failedRun(err)
	}
	if failOver > 0 && s.slowest.Duration > int64(failOver) {
		return &status{exitTooSlow, fmt.Errorf("unloading %q took %v, longer than --fail-over %v",
			s.slowest.Module, time.Duration(s.slowest.Duration), failOver)}
	}
	if err := s.verdict(); err != nil {
		return err
	}
	if sig := caught(); sig != nil && !s.lingers.Load() {
		return &status{code: 128 + int(sig.(syscall.Signal))}
	}
	err = childStatus(<-ended)
	if err != nil && s.tracer.Stats().Records == 0 {
		c.note("the command failed without asking the kernel to unload anything, and not because a module is in use")
	}
	return err
}

// failedRun gives modtrace's own failures the code that tells them from the
// command's; what the machine lacks keeps its own.
func failedRun(err error) error {
	if isUnable(err) {
		return err
	}
	return &status{exitRunFailed, err}
}

// child prepares the command, without starting it.
func (c *cli) child(args []string) (*exec.Cmd, error) {
	path, err := exec.LookPath(args[0])
	switch {
	case errors.Is(err, exec.ErrDot):
		// Like a shell, take what was asked for.
	case errors.Is(err, os.ErrPermission), errors.Is(err, syscall.EISDIR):
		return nil, &status{exitNotExec, fmt.Errorf("%q cannot be executed: check its mode, and that it is no directory", args[0])}
	case err != nil:
		return nil, &status{exitNotFound, fmt.Errorf("there is no command %q; check its name and PATH", args[0])}
	}
	child := exec.Command(path, args[1:]...)
	child.Args[0] = args[0]
	child.Stdin, child.Stdout, child.Stderr = os.Stdin, c.stderr, c.stderr
	return child, nil
}

// start starts the command. When it has ended, and the unloads of what it left
// running have too, tracing goes on for as long as it is to linger, and stops;
// ended then gives the command's result.
func (s *session) start(ctx context.Context, child *exec.Cmd, caught func() os.Signal, linger time.Duration) (ended chan error, err error) {
	if err := child.Start(); err != nil {
		return nil, &status{exitNotExec, fmt.Errorf("%q cannot be executed: %w", child.Args[0], errors.Unwrap(err))}
	}
	context.AfterFunc(ctx, func() {
		// A terminal sends INT to the command as well; what one process was
		// sent is passed on.
		if sig := caught(); sig != syscall.SIGINT || !isTerminal(os.Stdin) {
			_ = child.Process.Signal(sig)
		}
	})
	ended = make(chan error, 1)
	go func() {
		ended <- child.Wait()
		s.awaitDescendants(ctx)
		s.lingers.Store(ctx.Err() == nil) // a signal from here on does not concern the command
		s.awaitReloads(ctx, linger)
		_ = s.tracer.Stop() // its error comes again from Close
	}()
	return ended, nil
}

// awaitDescendants waits for the unloads that the command's descendants are in
// when the command itself has ended.
func (s *session) awaitDescendants(ctx context.Context) {
	const patience = time.Second
	began, said := time.Now(), false
	for ctx.Err() == nil {
		n := s.tracer.InFlight()
		if n == 0 {
			return
		}
		if !said && time.Since(began) > patience {
			s.cli.note("the command has ended; waiting for %d unload(s) that it left behind (INT ends the wait)", n)
			said = true
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// awaitReloads waits until what has ended is reported, while the kernel side still
// tells what comes of it; and then for as long as it is to linger, for modules that
// were unloaded to be loaded again. It need not when none was, or all are back.
func (s *session) awaitReloads(ctx context.Context, linger time.Duration) {
	const patience = time.Second
	end := time.Now().Add(linger)
	for ctx.Err() == nil && time.Now().Before(end.Add(patience)) {
		if s.told.Load() >= s.tracer.Ended() && (s.gone.Load() <= 0 || !time.Now().Before(end)) {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// childStatus passes the command's own status on.
func childStatus(err error) error {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		if err != nil {
			return &status{exitRunFailed, fmt.Errorf("waiting for the command: %w", err)}
		}
		return nil
	}
	w := exit.Sys().(syscall.WaitStatus)
	if w.Signaled() {
		return &status{code: 128 + int(w.Signal())}
	}
	return &status{code: w.ExitStatus()}
}
