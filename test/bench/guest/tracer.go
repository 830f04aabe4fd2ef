// SPDX-License-Identifier: MIT

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/modtrace/modtrace/test/bench/figure"
)

// scratch is a directory in memory. What tracers write goes there.
const scratch = "/tmp/bench"

func inScratch(name string) string { return filepath.Join(scratch, name) }

// patience is how long a tracer may take to become ready or to end.
const patience = 2 * time.Minute

// tracer is a program that watches unloads.
type tracer struct {
	name string
	args []string // none: nobody watches
	env  []string
	// ready says whether it has attached; it is asked whenever something in
	// the scratch directory changes, or every poll if that is not 0.
	ready func() bool
	poll  time.Duration
	// saw counts the unloads that it reported until now, in its output.
	saw func() (int, error)
	// idle says that nothing is unloaded while it watches.
	idle bool
}

func (t *tracer) output() string { return inScratch(t.name + ".out") }

// modtrace traces with every boundary on; its report goes to a file. What is
// to be found in that once for each unload is given.
func modtrace(name, each string, flags ...string) tracer {
	ready := inScratch("modtrace.ready")
	t := tracer{
		name: name,
		args: append([]string{"/usr/bin/modtrace", "trace", "--ready-file", ready}, flags...),
	}
	t.ready = func() bool { _, err := os.Stat(ready); return err == nil }
	t.saw = func() (int, error) { return count(t.output(), each) }
	return t
}

// modtraceJSON is what runs unattended, modtraceTable what people look at.
func modtraceJSON() tracer {
	return modtrace(figure.Modtrace, `"module":"`+subject+`"`, "--json")
}

func modtraceTable() tracer {
	return modtrace(figure.ModtraceTable, "\n"+subject+" ")
}

// bpftrace runs a script.
func bpftrace(name, script string) tracer {
	// Documented nowhere, but it is what bpftrace's own tests wait for; a printf
	// in BEGIN comes before anything else is attached.
	const attached = "__BPFTRACE_NOTIFY_PROBES_ATTACHED"
	t := tracer{
		name: name,
		args: []string{"/usr/bin/bpftrace", script},
		env:  []string{attached + "=1"},
	}
	t.ready = func() bool { n, err := count(t.output(), attached); return err == nil && n > 0 }
	t.saw = func() (int, error) { return count(t.output(), unloadLine) }
	return t
}

// functionGraph records the call graph of the system call.
func functionGraph(call string) tracer {
	const tracing = "/sys/kernel/tracing/"
	return tracer{
		name: figure.FunctionGraph,
		args: []string{"/usr/bin/trace-cmd", "record", "-p", "function_graph", "-g", call, "-o", inScratch("trace.dat")},
		ready: func() bool {
			// It switches tracing off, sets everything up, and switches it on.
			return contains(tracing+"current_tracer", "function_graph") && contains(tracing+"tracing_on", "1")
		},
		poll: time.Millisecond,
		saw: func() (int, error) {
			// Its recording is binary; the kernel's count of calls is good
			// for whether it recorded at all.
			return field(tracing+"per_cpu/cpu0/stats", "read events:", "entries:")
		},
	}
}

func contains(file, text string) bool {
	b, err := os.ReadFile(file)
	return err == nil && bytes.Contains(b, []byte(text))
}

func count(file, text string) (int, error) {
	b, err := os.ReadFile(file)
	return bytes.Count(b, []byte(text)), err
}

// field sums the numbers behind labels, one on a line.
func field(file string, labels ...string) (sum int, err error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		for _, label := range labels {
			rest, ok := strings.CutPrefix(line, label)
			if !ok {
				continue
			}
			n, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(rest), " kB"))
			if err != nil {
				return 0, fmt.Errorf("%s: %q", file, line)
			}
			sum += n
		}
	}
	return sum, nil
}

// start starts a tracer, does something while it watches, and ends it.
func (b *bench) start(t tracer, cold bool, during ...func() error) (_ figure.Start, err error) {
	s := figure.Start{Tracer: t.name, Modules: b.modules, Cold: cold}
	defer func() {
		if err != nil {
			s.Error = err.Error()
		}
	}()
	if len(t.args) == 0 {
		return s, all(during)
	}
	w, err := newWatch()
	if err != nil {
		return s, err
	}
	out, err := os.Create(t.output())
	if err != nil {
		return s, err
	}
	defer out.Close()
	_ = os.Remove(inScratch("modtrace.ready"))
	cmd := exec.Command(t.args[0], t.args[1:]...)
	cmd.Env = append(os.Environ(), t.env...)
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = out, &stderr
	began := monotonic()
	if err := cmd.Start(); err != nil {
		w.close()
		return s, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	err = w.until(&t, ended)
	s.Ready = monotonic() - began
	// From here on it would be woken by all that the tracer writes.
	w.close()
	if err == nil {
		err = b.watched(&t, during)
	}
	s.Peak = peak(cmd.Process.Pid)
	if err = errors.Join(err, stop(cmd, ended)); err != nil {
		return s, fmt.Errorf("%w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	return s, nil
}

// watched does things under a tracer that is ready, and makes sure that it saw
// them: one that sees nothing costs nothing.
func (b *bench) watched(t *tracer, during []func() error) error {
	// Let what starting left behind come to rest.
	time.Sleep(time.Second)
	before, err := t.saw()
	if err != nil {
		return err
	}
	if err := all(during); err != nil || len(during) == 0 || t.idle {
		return err
	}
	time.Sleep(time.Second)
	after, err := t.saw()
	if err != nil {
		return err
	}
	// A table's first line has no other before it.
	if want := 2*(b.report.Warmup+b.report.Rounds) - 1; after-before < want {
		return fmt.Errorf("it saw %d unloads of %d", after-before, want)
	}
	return nil
}

func all(during []func() error) error {
	for _, f := range during {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

// stop ends a tracer as a user does.
func stop(cmd *exec.Cmd, ended <-chan error) error {
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case err := <-ended:
		return err
	case <-time.After(patience):
		_ = cmd.Process.Kill()
		return fmt.Errorf("did not end within %v", patience)
	}
}

// peak is the most memory that a process and its children had resident, in kB.
func peak(pid int) (kb int64) {
	n, _ := field(fmt.Sprintf("/proc/%d/status", pid), "VmHWM:")
	kb = int64(n)
	children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	for _, child := range strings.Fields(string(children)) {
		if pid, err := strconv.Atoi(child); err == nil {
			kb += peak(pid)
		}
	}
	return kb
}

// watch waits for changes in the scratch directory: looking again and again
// would take time from the one that is waited for.
type watch struct{ f *os.File }

func newWatch() (*watch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "inotify")
	if _, err := unix.InotifyAddWatch(fd, scratch, unix.IN_CREATE|unix.IN_MODIFY); err != nil {
		f.Close()
		return nil, err
	}
	return &watch{f}, nil
}

func (w *watch) close() { w.f.Close() }

// until waits until a tracer is ready. It is an error if it ends instead.
func (w *watch) until(t *tracer, ended chan error) error {
	changed := make(chan struct{}, 1)
	if t.poll == 0 {
		go func() {
			buf := make([]byte, 4096)
			for {
				if _, err := w.f.Read(buf); err != nil {
					return
				}
				changed <- struct{}{}
			}
		}()
	}
	deadline := time.After(patience)
	for !t.ready() {
		var again <-chan time.Time
		if t.poll != 0 {
			again = time.After(t.poll)
		}
		select {
		case <-changed:
		case <-again:
		case err := <-ended:
			ended <- err
			return errors.New("ended before it was ready")
		case <-deadline:
			return fmt.Errorf("not ready after %v", patience)
		}
	}
	go func() {
		// Nobody listens any more, and the reader must not hang on that.
		for range changed {
		}
	}()
	return nil
}
