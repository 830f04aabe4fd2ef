// SPDX-License-Identifier: MIT

package lab

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/modtrace/modtrace/test/lab/wire"
)

// session is one running machine.
type session struct {
	m       *Machine
	cmd     *exec.Cmd
	started time.Time
	console *tailBuffer
	serial  *os.File // the console's line
	qemuErr *tailBuffer
	control *os.File
	acks    chan struct{} // one for each Stdin frame that the guest took
	frames  chan error    // the control line's end
	ended   chan error    // QEMU's end
	stopped chan error    // somebody's wish to end it

	mu      sync.Mutex // guards writes to control
	result  Result
	status  *wire.ExitStatus
	collect *os.File
}

func startSession(m *Machine, p platform, emulator []string, initrd string) (*session, error) {
	consoleHost, consoleGuest, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer consoleGuest.Close()
	controlHost, controlGuest, err := socketPair()
	if err != nil {
		consoleHost.Close()
		return nil, err
	}
	defer controlGuest.Close()
	s := &session{
		m: m, control: controlHost, serial: consoleHost, started: time.Now(),
		console: &tailBuffer{limit: 64 << 10, also: m.Console},
		qemuErr: &tailBuffer{limit: 16 << 10},
		acks:    make(chan struct{}, 1),
		frames:  make(chan error, 1),
		ended:   make(chan error, 1),
		stopped: make(chan error, 1),
	}
	s.cmd = exec.Command(emulator[0], append(emulator[1:], m.commandLine(p, initrd)...)...)
	s.cmd.ExtraFiles = []*os.File{consoleGuest, controlGuest}
	s.cmd.Stderr = s.qemuErr
	// The terminal's Ctrl-C is for the command in the guest, not for QEMU; a lab
	// that dies must not leave a machine behind.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		consoleHost.Close()
		controlHost.Close()
		return nil, fmt.Errorf("starting %s: %w", p.program, err)
	}
	var consoleDone sync.WaitGroup
	consoleDone.Add(1)
	go func() {
		defer consoleDone.Done()
		_, _ = io.Copy(s.console, consoleHost)
		consoleHost.Close()
	}()
	go func() { s.frames <- s.serve() }()
	go func() {
		err := s.cmd.Wait()
		consoleDone.Wait()
		s.ended <- err
	}()
	return s, nil
}

// wait returns when the machine has ended, one way or another.
func (s *session) wait(ctx context.Context) (*Result, error) {
	defer s.control.Close()
	var framesErr error
	done := ctx.Done()
	cause := error(nil)
	frames := s.frames
	for {
		select {
		case framesErr = <-frames:
			frames = nil
			// The guest has said everything; powering off takes a moment.
			time.AfterFunc(5*time.Second, s.kill)
		case <-done:
			done, cause = nil, context.Cause(ctx)
			s.kill()
		case cause = <-s.stopped:
			s.kill()
		case qemuErr := <-s.ended:
			if frames != nil {
				framesErr = <-frames
			}
			return s.finish(cause, framesErr, qemuErr)
		}
	}
}

func (s *session) finish(cause, framesErr, qemuErr error) (*Result, error) {
	s.result.Took = time.Since(s.started)
	s.result.Console = s.console.String()
	if s.status == nil {
		reason := "the machine ended before its command did"
		switch {
		case cause != nil:
			reason = "the machine was stopped: " + cause.Error()
		case framesErr != nil && !errors.Is(framesErr, io.EOF):
			reason = "the machine's control line failed: " + framesErr.Error()
		case qemuErr != nil:
			reason = fmt.Sprintf("the emulator failed: %v: %s", qemuErr, strings.TrimSpace(s.qemuErr.String()))
		}
		if errors.Is(cause, ErrEscaped) {
			return &s.result, cause
		}
		return &s.result, &BootError{Reason: reason, Console: tail(s.result.Console, 60)}
	}
	s.result.ExitCode, s.result.Signal = s.status.Code, s.status.Signal
	if s.status.Error != "" {
		return &s.result, fmt.Errorf("running %s in the guest: %s", strings.Join(s.m.Args, " "), s.status.Error)
	}
	return &s.result, framesErr
}

// stop ends the machine, for a reason.
func (s *session) stop(why error) {
	select {
	case s.stopped <- why:
	default:
	}
}

func (s *session) kill() { _ = s.cmd.Process.Kill() }

// serve takes the guest's frames until it has told how its command ended.
func (s *session) serve() error {
	r := wire.NewReader(bufio.NewReaderSize(s.control, 64<<10))
	for {
		f, err := r.Next()
		if err != nil {
			return err
		}
		if err := s.take(f); err != nil {
			return err
		}
		if f.Kind == wire.Exit {
			return s.send(wire.Bye, nil)
		}
	}
}

func (s *session) take(f wire.Frame) error {
	switch f.Kind {
	case wire.Hello:
		s.result.Release = string(f.Payload)
		s.result.Booted = time.Since(s.started)
		s.begin()
	case wire.Stdout:
		return writeTo(s.m.Stdout, f.Payload)
	case wire.Stderr:
		return writeTo(s.m.Stderr, f.Payload)
	case wire.StdinAck:
		select {
		case s.acks <- struct{}{}:
		default:
		}
	case wire.File:
		return s.beginFile(string(f.Payload))
	case wire.FileData:
		if s.collect != nil {
			_, err := s.collect.Write(f.Payload)
			return err
		}
	case wire.Exit:
		// What comes now is about powering off, and nobody's business.
		if s.m.Terminal != nil {
			s.console.tee(nil)
		}
		if s.collect != nil {
			if err := s.collect.Close(); err != nil {
				return err
			}
		}
		s.status = &wire.ExitStatus{}
		if err := json.Unmarshal(f.Payload, s.status); err != nil {
			return fmt.Errorf("decoding the exit status: %w", err)
		}
	}
	return nil
}

func (s *session) beginFile(name string) error {
	if s.collect != nil {
		if err := s.collect.Close(); err != nil {
			return err
		}
		s.collect = nil
	}
	to, ok := s.m.Collect[name]
	if !ok {
		return fmt.Errorf("the guest sent %s, which nobody asked for", name)
	}
	f, err := os.Create(to)
	s.collect = f
	return err
}

// begin starts what goes on while the command runs.
func (s *session) begin() {
	if s.m.Signals != nil {
		go s.passSignals()
	}
	if s.m.Terminal == nil {
		go s.feed()
		return
	}
	s.console.tee(s.m.Terminal.Out)
	go s.m.Terminal.attach(s)
}

// passSignals ends with the process: whoever made the channel keeps it.
func (s *session) passSignals() {
	for sig := range s.m.Signals {
		if n, ok := sig.(syscall.Signal); ok {
			_ = s.send(wire.Signal, []byte{byte(n)})
		}
	}
}

// feed carries the host's stdin to the command, one frame at a time.
func (s *session) feed() {
	buf := make([]byte, 1024)
	for s.m.Stdin != nil {
		n, err := s.m.Stdin.Read(buf)
		if n > 0 {
			if s.send(wire.Stdin, buf[:n]) != nil {
				return
			}
			<-s.acks
		}
		if err != nil {
			break
		}
	}
	_ = s.send(wire.StdinEOF, nil)
}

func (s *session) send(kind wire.Kind, payload []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return wire.Write(s.control, kind, payload)
}

func writeTo(w io.Writer, p []byte) error {
	if w == nil {
		return nil
	}
	_, err := w.Write(p)
	return err
}

func socketPair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("making a line to the machine: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "lab"), os.NewFile(uintptr(fds[1]), "guest"), nil
}

// tailBuffer keeps the end of what is written to it, and passes all of it on.
type tailBuffer struct {
	limit int
	also  io.Writer

	mu  sync.Mutex
	buf []byte
}

// tee passes on to w what is written from now on.
func (b *tailBuffer) tee(w io.Writer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.also = w
}

func (b *tailBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	b.buf = append(b.buf, p...)
	if over := len(b.buf) - b.limit; over > 0 {
		b.buf = append(b.buf[:0], b.buf[over:]...)
	}
	also := b.also
	b.mu.Unlock()
	if also != nil {
		return also.Write(p)
	}
	return len(p), nil
}

func (b *tailBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return string(b.buf)
}
