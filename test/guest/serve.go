// SPDX-License-Identifier: MIT

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/modtrace/modtrace/test/lab/wire"
)

// byeTimeout bounds the wait for a host that never says that it got everything.
const byeTimeout = 30 * time.Second

// line is the framed channel; frames from several goroutines must not mix.
type line struct {
	mu sync.Mutex
	f  *os.File
}

func openLine(path string) (*line, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, fmt.Errorf("opening the control line: %w", err)
	}
	t := unix.Termios{
		Cflag: unix.CS8 | unix.CREAD | unix.CLOCAL | unix.B115200,
	}
	t.Cc[unix.VMIN] = 1
	if err := unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, &t); err != nil {
		return nil, fmt.Errorf("making the control line raw: %w", err)
	}
	return &line{f: f}, nil
}

func (l *line) send(kind wire.Kind, payload []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return wire.Write(l.f, kind, payload)
}

// stream sends what r yields until it ends.
func (l *line) stream(kind wire.Kind, r io.Reader) error {
	buf := make([]byte, wire.MaxPayload)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if err := l.send(kind, buf[:n]); err != nil {
				return err
			}
		}
		if err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, os.ErrClosed) {
				return nil
			}
			return err
		}
	}
}

func serve(job *wire.Job) error {
	l, err := openLine(job.Control)
	if err != nil {
		return err
	}
	if err := l.send(wire.Hello, []byte(kernelRelease())); err != nil {
		return fmt.Errorf("greeting the host: %w", err)
	}
	bye := make(chan struct{})
	in := newInput(l, bye)
	go in.receive()

	status := runCommand(job, l, in)
	for _, path := range job.Collect {
		if err := l.collect(path); err != nil {
			fmt.Fprintf(os.Stderr, "guest: collecting %s: %v\n", path, err)
		}
	}
	data, err := json.Marshal(status)
	if err != nil {
		return err
	}
	if err := l.send(wire.Exit, data); err != nil {
		return fmt.Errorf("sending the exit status: %w", err)
	}
	select {
	case <-bye:
	case <-time.After(byeTimeout):
	}
	return nil
}

func (l *line) collect(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := l.send(wire.File, []byte(path)); err != nil {
		return err
	}
	return l.stream(wire.FileData, f)
}

func runCommand(job *wire.Job, l *line, in *input) wire.ExitStatus {
	if len(job.Args) == 0 {
		return wire.ExitStatus{Code: 125, Error: "the job has no command"}
	}
	cmd := exec.Command(job.Args[0], job.Args[1:]...)
	cmd.Dir = job.Dir
	if cmd.Dir == "" {
		cmd.Dir = "/"
	}
	cmd.Env = append([]string{"PATH=" + guestPath, "HOME=/root", "USER=root", "TERM=dumb", "LANG=C.UTF-8"}, job.Env...)
	var err error
	if job.Interactive {
		err = startOnConsole(cmd, job, in)
	} else {
		err = startOnLine(cmd, l, in)
	}
	if err != nil {
		// What the host sends for the command still wants to be taken.
		in.attach(nopCloser{io.Discard}, nil, nil)
		return startFailure(err)
	}
	go reapOrphans(cmd.Process.Pid)
	return wait(cmd)
}

func startFailure(err error) wire.ExitStatus {
	code := 126
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		code = 127
	}
	return wire.ExitStatus{Code: code, Error: err.Error()}
}

func startOnLine(cmd *exec.Cmd, l *line, in *input) error {
	cmd.Stdout = frameWriter{l, wire.Stdout}
	cmd.Stderr = frameWriter{l, wire.Stderr}
	// A background child of the command may hold the pipes open for ever.
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	in.attach(stdin, cmd.Process, nil)
	return nil
}

func startOnConsole(cmd *exec.Cmd, job *wire.Job, in *input) error {
	console, err := os.OpenFile(job.Console, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return fmt.Errorf("opening the console: %w", err)
	}
	setSize(console, job.Size)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = console, console, console
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	if err := cmd.Start(); err != nil {
		console.Close()
		return err
	}
	in.attach(nopCloser{io.Discard}, cmd.Process, console)
	return nil
}

// setSize tells the terminal its size; a serial line cannot find out by itself.
func setSize(console *os.File, size wire.Size) {
	if console == nil || size.Rows == 0 || size.Cols == 0 {
		return
	}
	ws := &unix.Winsize{Row: size.Rows, Col: size.Cols}
	_ = unix.IoctlSetWinsize(int(console.Fd()), unix.TIOCSWINSZ, ws)
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

func wait(cmd *exec.Cmd) wire.ExitStatus {
	err := cmd.Wait()
	state := cmd.ProcessState
	if state == nil {
		return wire.ExitStatus{Code: 125, Error: err.Error()}
	}
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return wire.ExitStatus{Code: 128 + int(ws.Signal()), Signal: int(ws.Signal())}
	}
	return wire.ExitStatus{Code: state.ExitCode()}
}

// reapOrphans does init's duty to processes whose parents are gone; the command
// itself is left to its own Wait.
func reapOrphans(command int) {
	children := make(chan os.Signal, 1)
	signal.Notify(children, unix.SIGCHLD)
	for {
		pid := nextZombie()
		if pid > 0 && pid != command {
			_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
			continue
		}
		select {
		case <-children:
		case <-time.After(time.Second):
		}
	}
}

// nextZombie returns a child that has ended, without reaping it, or 0.
func nextZombie() int {
	var info struct {
		signo, errno, code int32
		_                  int32
		pid                int32
		_                  [108]byte
	}
	_, _, errno := unix.Syscall6(unix.SYS_WAITID, unix.P_ALL, 0, uintptr(unsafe.Pointer(&info)),
		unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, 0, 0)
	if errno != 0 {
		return 0
	}
	return int(info.pid)
}

type frameWriter struct {
	l    *line
	kind wire.Kind
}

func (w frameWriter) Write(p []byte) (int, error) {
	for done := 0; done < len(p); {
		n := min(len(p)-done, wire.MaxPayload)
		if err := w.l.send(w.kind, p[done:done+n]); err != nil {
			return done, err
		}
		done += n
	}
	return len(p), nil
}

// input is what comes from the host.
type input struct {
	l     *line
	bye   chan struct{}
	ready chan struct{} // closed when the command has started

	stdin   io.WriteCloser
	proc    *os.Process
	console *os.File // nil unless the command runs on it
}

func newInput(l *line, bye chan struct{}) *input {
	return &input{l: l, bye: bye, ready: make(chan struct{})}
}

func (in *input) attach(stdin io.WriteCloser, proc *os.Process, console *os.File) {
	in.stdin, in.proc, in.console = stdin, proc, console
	close(in.ready)
}

// receive serves frames until the host says good-bye. Stdin frames are
// acknowledged once the command took them: that is all the flow control there
// is, and the terminal layer's buffers are small.
func (in *input) receive() {
	r := wire.NewReader(bufio.NewReader(in.l.f))
	for {
		f, err := r.Next()
		if err != nil {
			fmt.Fprintf(os.Stderr, "guest: reading the control line: %v\n", err)
			return
		}
		switch f.Kind {
		case wire.Bye:
			close(in.bye)
			return
		case wire.Stdin:
			<-in.ready
			// A command that ended or closed its stdin is no error here.
			_, _ = in.stdin.Write(f.Payload)
			_ = in.l.send(wire.StdinAck, nil)
		case wire.StdinEOF:
			<-in.ready
			_ = in.stdin.Close()
		case wire.Signal:
			<-in.ready
			if len(f.Payload) == 1 && in.proc != nil {
				// The command leads a session: its children are to hear it too.
				_ = unix.Kill(-in.proc.Pid, syscall.Signal(f.Payload[0]))
			}
		case wire.Resize:
			<-in.ready
			var size wire.Size
			if json.Unmarshal(f.Payload, &size) == nil {
				setSize(in.console, size)
			}
		}
	}
}

func kernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}
