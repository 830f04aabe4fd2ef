package scenarios

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/modtrace/modtrace/test/lab/inguest"
	"github.com/modtrace/modtrace/unload"
)

// attempt is a way to be refused: set up, try, clean up. The try gives the
// error number that the caller got.
type attempt struct {
	name  string
	setUp func(t *testing.T)
	try   func(t *testing.T) error
	after func(t *testing.T)

	errno      syscall.Errno
	reason     unload.Reason
	module     string
	count      int64
	dependents []string
	flags      []string
}

func deleteModule(name string, flags int) func(*testing.T) error {
	return func(*testing.T) error { return unix.DeleteModule(name, flags) }
}

func attempts() []attempt {
	nonblock := []string{"O_NONBLOCK"}
	var open *os.File
	return []attempt{
		{name: "dependents",
			setUp:  func(t *testing.T) { fixture(t, "busy"); fixture(t, "user") },
			try:    deleteModule("busy", unix.O_NONBLOCK),
			after:  func(t *testing.T) { deleted(t, "user", "busy") },
			errno:  unix.EWOULDBLOCK,
			reason: unload.ReasonDependents, module: "busy", count: 1, dependents: []string{"user"}, flags: nonblock},
		{name: "referenced",
			setUp: func(t *testing.T) {
				fixture(t, "busy")
				var err error
				if open, err = os.Open("/dev/busy"); err != nil {
					t.Fatal(err)
				}
			},
			try:    deleteModule("busy", unix.O_NONBLOCK),
			after:  func(t *testing.T) { open.Close(); deleted(t, "busy") },
			errno:  unix.EWOULDBLOCK,
			reason: unload.ReasonReferenced, module: "busy", count: 1, flags: nonblock},
		{name: "leaked",
			setUp:  func(t *testing.T) { fixture(t, "leak", "take_at_init=1") },
			try:    deleteModule("leak", unix.O_NONBLOCK),
			after:  func(t *testing.T) { setParameter(t, "leak", "take", "0"); deleted(t, "leak") },
			errno:  unix.EWOULDBLOCK,
			reason: unload.ReasonReferenced, module: "leak", count: 1, flags: nonblock},
		{name: "loading",
			setUp:  func(t *testing.T) { startInsert(t, "slow", "init_sleep_ms=1500"); awaitState(t, "slow", "coming") },
			try:    deleteModule("slow", unix.O_NONBLOCK),
			after:  func(t *testing.T) { awaitUnused(t, "slow"); deleted(t, "slow") },
			errno:  unix.EBUSY,
			reason: unload.ReasonLoading, module: "slow", count: 1, flags: nonblock},
		{name: "not found",
			try:    deleteModule("nosuch", 0),
			errno:  unix.ENOENT,
			reason: unload.ReasonNotFound, module: "nosuch", flags: []string{}},
		{name: "odd bytes",
			try:    deleteModule("a\x1b[31m\xff\n\"b", unix.O_NONBLOCK),
			errno:  unix.ENOENT,
			reason: unload.ReasonNotFound, module: "a\x1b[31m\ufffd\n\"b", flags: nonblock},
		{name: "bad address",
			try: func(*testing.T) error {
				_, _, errno := unix.Syscall(unix.SYS_DELETE_MODULE, 8, uintptr(unix.O_NONBLOCK), 0)
				return errno
			},
			errno:  unix.EFAULT,
			reason: unload.ReasonBadAddress, flags: nonblock},
		{name: "no capability",
			setUp:  func(t *testing.T) { fixture(t, "empty") },
			try:    func(t *testing.T) error { return asNobody(t, "empty") },
			after:  func(t *testing.T) { deleted(t, "empty") },
			errno:  unix.EPERM,
			reason: unload.ReasonNoCapability, module: "empty", flags: nonblock},
	}
}

func deleted(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := inguest.Unload(name); err != nil {
			t.Error(err)
		}
	}
}

// startInsert loads a fixture in the background.
func startInsert(t *testing.T, name string, params ...string) {
	t.Helper()
	cmd := exec.Command("insmod", append([]string{"/fixtures/" + name + ".ko"}, params...)...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Wait() })
}

func awaitState(t *testing.T, name, state string) {
	t.Helper()
	await(t, name+" to be "+state, func() bool {
		b, err := os.ReadFile("/sys/module/" + name + "/initstate")
		return err == nil && strings.TrimSpace(string(b)) == state
	})
}

// awaitUnused waits for a module to be loaded and let go of by its loader, which
// happens in this order.
func awaitUnused(t *testing.T, name string) {
	t.Helper()
	awaitState(t, name, "live")
	await(t, name+" to be let go of", func() bool { n, ok := loaded(t, name); return ok && n == 0 })
}

// asNobody tries to unload as a thread without any capability.
func asNobody(t *testing.T, name string) error {
	t.Helper()
	result := make(chan error, 1)
	go func() {
		// The thread is never unlocked, so it ends with the goroutine.
		runtime.LockOSThread()
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil {
			result <- err
			return
		}
		result <- unix.DeleteModule(name, unix.O_NONBLOCK)
	}()
	return <-result
}

// TestRefusals makes the kernel refuse for each reason, with and without
// modtrace attached: the answer and the count are the same, and modtrace
// names the reason.
func TestRefusals(t *testing.T) {
	guest(t)
	for _, a := range attempts() {
		t.Run(a.name, func(t *testing.T) {
			without := a.once(t)
			tr := trace(t)
			with := a.once(t)
			r := tr.stop()
			if diff := cmp.Diff(without, with); diff != "" {
				t.Errorf("modtrace changes it (-without +with):\n%s", diff)
			}
			a.check(t, r)
		})
	}
}

// outcome is what an attempt came to, as its caller and the machine see it.
type outcome struct {
	Errno  syscall.Errno
	Count  int
	Loaded bool
	Before int
}

func (a attempt) once(t *testing.T) outcome {
	t.Helper()
	if a.setUp != nil {
		a.setUp(t)
	}
	var o outcome
	o.Before, _ = loaded(t, a.module)
	err := a.try(t)
	if err != nil && !errors.As(err, &o.Errno) {
		t.Fatalf("trying: %v", err)
	}
	o.Count, o.Loaded = loaded(t, a.module)
	if a.after != nil {
		a.after(t)
	}
	if o.Errno != a.errno {
		t.Errorf("the kernel answered %v, want %v", o.Errno, a.errno)
	}
	return o
}

// check looks for the attempt's report among those of the trace, in which the
// cleaning up is reported too.
func (a attempt) check(t *testing.T, r ran) {
	t.Helper()
	for _, u := range r.unloads {
		if u.Result.OK {
			continue
		}
		conserved(t, u)
		if !u.Complete || u.Result.Reason != a.reason || u.Result.Errno != unix.ErrnoName(a.errno) || u.Result.By != unload.ByKernel {
			t.Errorf("complete %v, missing %q, result %+v, want %s", u.Complete, u.Missing, u.Result, a.reason)
		}
		if u.Module != a.module || u.Refcount.Before != a.count {
			t.Errorf("module %q with %d references, want %q with %d", u.Module, u.Refcount.Before, a.module, a.count)
		}
		if diff := cmp.Diff(append([]string{}, a.dependents...), u.Dependents); diff != "" {
			t.Errorf("dependents (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(a.flags, u.Flags); diff != "" {
			t.Errorf("flags (-want +got):\n%s", diff)
		}
		return
	}
	t.Errorf("no refusal among %+v\n%s", r.unloads, r.stderr)
}

// TestUnloading tries to unload a module that is on its way out already.
func TestUnloading(t *testing.T) {
	guest(t)
	fixture(t, "slow", "sleep_ms=1500")
	tr := trace(t)
	first := exec.Command("rmmod", "slow")
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	awaitState(t, "slow", "going")
	if err := unix.DeleteModule("slow", unix.O_NONBLOCK); !errors.Is(err, unix.EBUSY) {
		t.Errorf("the kernel answered %v, want EBUSY", err)
	}
	if err := first.Wait(); err != nil {
		t.Errorf("rmmod: %v", err)
	}
	r := tr.stop()
	if len(r.unloads) != 2 {
		t.Fatalf("%d unloads, want 2", len(r.unloads))
	}
	if got := r.unloads[0].Result.Reason; got != unload.ReasonUnloading {
		t.Errorf("refused for %s, want unloading", got)
	}
	if u := r.unloads[1]; !u.Result.OK || !u.Complete {
		t.Errorf("the first unload: %+v, missing %q", u.Result, u.Missing)
	}
}

// TestInterrupted sends a signal to an unload that waits for module_mutex,
// which another unload holds for as long as a grace period takes.
func TestInterrupted(t *testing.T) {
	guest(t)
	fixture(t, "rcuhog")
	removed(t, "rcuhog")
	fixture(t, "empty")
	fixture(t, "leak")
	removed(t, "leak")
	tr := trace(t)
	setParameter(t, "rcuhog", "hold_ms", "3000")
	await(t, "rcuhog to hold", func() bool {
		b, err := os.ReadFile("/sys/module/rcuhog/parameters/holding")
		return err == nil && b[0] == 'Y'
	})
	holder := exec.Command("rmmod", "empty")
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(500 * time.Millisecond)
	// busybox asks the kernel at once; kmod would wait for a lock of its own
	// where the kernel's is held, reading the count.
	waiter := exec.Command("busybox", "rmmod", "leak")
	if err := waiter.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(500 * time.Millisecond)
	if err := waiter.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = waiter.Wait()
	if err := holder.Wait(); err != nil {
		t.Errorf("rmmod empty: %v", err)
	}
	r := tr.stop()
	for _, u := range r.unloads {
		conserved(t, u)
		if u.Module == "leak" {
			if u.Result.Reason != unload.ReasonInterrupted || u.Result.Errno != "EINTR" {
				t.Errorf("result %+v, want interrupted", u.Result)
			}
			return
		}
	}
	t.Errorf("no interrupted unload among %+v", r.unloads)
}

// TestNoExit is apart from the other refusals because such a module stays
// loaded until the machine goes down.
func TestNoExit(t *testing.T) {
	guest(t)
	if _, ok := loaded(t, "noexit"); !ok {
		fixture(t, "noexit")
	}
	r := run(t, "run", "--json", "--", "busybox", "rmmod", "noexit")
	u := r.only(t)
	conserved(t, u)
	if u.Result.Reason != unload.ReasonNoExit || u.Result.Errno != "EBUSY" || r.code != 1 {
		t.Errorf("result %+v, exit %d", u.Result, r.code)
	}
}

// TestForced unloads a held module by force, which the kernel allows where it
// is built to.
func TestForced(t *testing.T) {
	guest(t)
	fixture(t, "leak", "take_at_init=1")
	r := run(t, "run", "--json", "--", "busybox", "rmmod", "-f", "leak")
	u := r.only(t)
	conserved(t, u)
	if !u.Forced || !cmp.Equal(u.Flags, []string{"O_NONBLOCK", "O_TRUNC"}) {
		t.Errorf("forced %v, flags %v", u.Forced, u.Flags)
	}
	if !u.Result.OK || u.Refcount.Before != 1 {
		t.Errorf("result %+v with %d references", u.Result, u.Refcount.Before)
	}
}
