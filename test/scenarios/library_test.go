package scenarios

import (
	"context"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/modtrace/modtrace/test/lab/inguest"
	"github.com/modtrace/modtrace/tracer"
	"github.com/modtrace/modtrace/unload"
)

// start traces in this process, as a program does that uses the package.
func start(ctx context.Context, t *testing.T) *tracer.Tracer {
	t.Helper()
	tr, err := tracer.Start(ctx, tracer.Options{Below: 0})
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func closed(t *testing.T, tr *tracer.Tracer) {
	t.Helper()
	if err := tr.Close(); err != nil {
		t.Errorf("closing: %v", err)
	}
}

// gone waits until the kernel holds what it held before. The variables shared
// with the kernel side are in memory that Go's garbage collector gives back, and
// the maps behind them with it; it need not come by in a test that is idle.
func gone(t *testing.T, before kernelState) {
	t.Helper()
	var diff string
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		runtime.GC()
		if diff = cmp.Diff(before, observe(t)); diff == "" {
			return
		}
	}
	t.Errorf("left in the kernel (-before +after):\n%s", diff)
}

// collected is what a trace yielded before its loop ended.
type collected chan []unload.Unload

// collect reads a trace to its end in the background.
func collect(tr *tracer.Tracer) collected {
	c := make(collected, 1)
	go func() {
		var all []unload.Unload
		for u := range tr.Unloads() {
			all = append(all, u)
		}
		c <- all
	}()
	return c
}

// all waits for the end of the loop.
func (c collected) all(t *testing.T) []unload.Unload {
	t.Helper()
	select {
	case all := <-c:
		return all
	case <-time.After(30 * time.Second):
		t.Fatal("the loop over the unloads does not end")
		return nil
	}
}

// names lists the modules of unloads.
func names(all []unload.Unload) []string {
	list := []string{}
	for _, u := range all {
		list = append(list, u.Module)
	}
	return list
}

// yielded fails unless the unloads are those of just these modules, each by
// this process, seen whole.
func yielded(t *testing.T, all []unload.Unload, want ...string) {
	t.Helper()
	if diff := cmp.Diff(append([]string{}, want...), names(all)); diff != "" {
		t.Errorf("unloads (-want +got):\n%s", diff)
	}
	for _, u := range all {
		conserved(t, u)
		if !u.Result.OK || !u.Complete || u.Caller.PID != os.Getpid() {
			t.Errorf("%s by %d: %+v, missing %q", u.Module, u.Caller.PID, u.Result, u.Missing)
		}
	}
}

// balanced fails unless every event that the kernel side made was read or is
// counted as lost, and there were some.
func balanced(t *testing.T, s tracer.Stats, records int) {
	t.Helper()
	for kind, n := range s.Produced {
		if n != s.Read[kind]+s.Lost[kind] {
			t.Errorf("%s: %d produced, %d read, %d lost", kind, n, s.Read[kind], s.Lost[kind])
		}
	}
	if s.Records != int64(records) || s.Produced["begin"] != int64(records) || s.Produced["end"] != int64(records) {
		t.Errorf("%d unloads: %+v", records, s)
	}
	if s.Damaged != 0 || s.Missed != 0 || s.Incomplete != 0 {
		t.Errorf("not all is well: %+v", s)
	}
}

// TestLibrary uses the tracer the way that another program would, twice in one
// process: nothing of the first time may be in the way of the second.
func TestLibrary(t *testing.T) {
	guest(t)
	before := settled(t)
	for range 2 {
		ctx, cancel := context.WithCancel(t.Context())
		tr := start(ctx, t)
		seen := collect(tr)
		fixture(t, "empty")
		deleted(t, "empty")
		cancel()
		yielded(t, seen.all(t), "empty")
		if err := tr.Err(); err != nil {
			t.Error(err)
		}
		balanced(t, tr.Stats(), 1)
		if during := observe(t); during.Programs <= before.Programs {
			t.Errorf("the test sees nothing of the tracer: before %+v, during %+v", before, during)
		}
		closed(t, tr)
		gone(t, before)
	}
}

// TestLibraryBrokenOff leaves the loop with unloads still to come, which must
// keep neither Close from returning nor the next tracer from working.
func TestLibraryBrokenOff(t *testing.T) {
	guest(t)
	before := settled(t)
	tr := start(t.Context(), t)
	for range 3 {
		fixture(t, "empty")
		deleted(t, "empty")
	}
	var seen []unload.Unload
	for u := range tr.Unloads() {
		seen = append(seen, u)
		break
	}
	yielded(t, seen, "empty")
	if err := tr.Err(); err != nil {
		t.Error(err)
	}
	closed(t, tr)
	gone(t, before)

	again := start(t.Context(), t)
	rest := collect(again)
	fixture(t, "leak")
	deleted(t, "leak")
	if err := again.Stop(); err != nil {
		t.Error(err)
	}
	yielded(t, rest.all(t), "leak")
	closed(t, again)
}

// TestLibraryStopped stops the trace from another goroutine than the one that
// reads it, more than once: unloads from before are seen, later ones are not.
func TestLibraryStopped(t *testing.T) {
	guest(t)
	tr := start(t.Context(), t)
	seen := collect(tr)
	fixture(t, "empty")
	deleted(t, "empty")
	for range 2 {
		if err := tr.Stop(); err != nil {
			t.Error(err)
		}
	}
	fixture(t, "leak")
	deleted(t, "leak")
	yielded(t, seen.all(t), "empty")
	balanced(t, tr.Stats(), 1)
	closed(t, tr)
}

// TestLibraryTooLate starts a trace that is over already, and one whose
// unload began before it and ends under it.
func TestLibraryTooLate(t *testing.T) {
	guest(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	tr := start(ctx, t)
	yielded(t, collect(tr).all(t))
	balanced(t, tr.Stats(), 0)
	closed(t, tr)

	setToHang(t, "completion")
	gone := make(chan error, 1)
	go func() { gone <- inguest.Unload("hang") }()
	awaitState(t, "hang", "going")
	late := start(t.Context(), t)
	seen := collect(late)
	inguest.SetParam(t, "release", "go", "1")
	if err := <-gone; err != nil {
		t.Error(err)
	}
	if err := late.Stop(); err != nil {
		t.Error(err)
	}
	yielded(t, seen.all(t))
	balanced(t, late.Stats(), 0)
	closed(t, late)
}

// TestLibraryBelow sees the unloads of children only, not of this process.
func TestLibraryBelow(t *testing.T) {
	guest(t)
	tr, err := tracer.Start(t.Context(), tracer.Options{Below: os.Getpid()})
	if err != nil {
		t.Fatal(err)
	}
	seen := collect(tr)
	fixture(t, "empty")
	fixture(t, "leak")
	deleted(t, "leak")
	child := busybox(t, "rmmod", "empty")
	if err := tr.Stop(); err != nil {
		t.Error(err)
	}
	all := seen.all(t)
	if diff := cmp.Diff([]string{"empty"}, names(all)); diff != "" {
		t.Errorf("unloads (-want +got):\n%s", diff)
	}
	for _, u := range all {
		if u.Caller.PID != child || u.Caller.PPID != os.Getpid() {
			t.Errorf("caller %+v, want %d, child of %d", u.Caller, child, os.Getpid())
		}
	}
	closed(t, tr)
}

// busybox runs an applet, which does without asking what other tools look up
// first, and gives its process's number.
func busybox(t *testing.T, args ...string) int {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "busybox", args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %v: %s", cmd.Args, err, out)
	}
	return cmd.Process.Pid
}
