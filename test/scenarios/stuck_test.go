package scenarios

import (
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/modtrace/modtrace/cause"
	"github.com/modtrace/modtrace/unload"
)

// unwatched begins an unload that hangs until the test ends, and is seen by nobody.
func unwatched(t *testing.T, kind string) (rmmod *exec.Cmd) {
	t.Helper()
	fixture(t, "release")
	removed(t, "release")
	fixture(t, "hang", "kind="+kind)
	if kind == "sysfs" {
		readBlock(t)
	}
	rmmod = exec.Command("busybox", "rmmod", "hang")
	if err := rmmod.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		setParameter(t, "release", "go", "1")
		if err := rmmod.Wait(); err != nil {
			t.Errorf("rmmod: %v", err)
		}
	})
	await(t, "the unload to begin", func() bool { return strings.Contains(readFile(t, "/sys/module/hang/initstate"), "going") })
	time.Sleep(300 * time.Millisecond)
	return rmmod
}

// stuckIn gives what modtrace stuck says of one module, or fails. A module that an
// earlier test has left behind may be told of as well.
func stuckIn(t *testing.T, module string) unload.Stall {
	t.Helper()
	r := run(t, "stuck", "--json")
	// A task may go on while it is looked at; then it is said that its stack could
	// not be followed.
	for range 2 {
		if r.stderr == "" {
			break
		}
		t.Log(r.stderr)
		r = run(t, "stuck", "--json")
	}
	if r.code != 0 || r.stderr != "" {
		t.Errorf("exit %d, stderr %q", r.code, r.stderr)
	}
	for _, st := range r.stalls {
		if st.Module == module {
			return st
		}
	}
	t.Fatalf("nothing of %s in:\n%s", module, r.stdout)
	return unload.Stall{}
}

// byState is what the kernel's state tells of each kind of hang, where that is
// not what is told of one that was watched.
func byState(h hang) hang {
	h.lacks = nil
	switch h.kind {
	case "work":
		h.blocker.Detail = "events"
	case "workqueue":
		h.blocker.Comm, h.blocker.Function, h.blocker.Module = "kworker", "hang_work_fn", "hang"
	case "srcu":
		h.blocker = unload.Blocker{Kind: unload.KindTask, Comm: "hang-helper", Detail: "the only task in the module's code"}
		h.doing = "srcu_reader"
	case "netdev":
		h.blocker.Users = 1 // at least
	case "async":
		h.blocker.Comm, h.doing = "kworker", "hang_async_fn"
	}
	return h
}

// TestStuck finds unloads that hung before modtrace was started: for what, and on
// whom (S8).
func TestStuck(t *testing.T) {
	series := guest(t)
	for _, h := range hangs() {
		h := byState(h)
		t.Run(h.kind, func(t *testing.T) {
			complainSoon(t)
			complaints := func() int { return strings.Count(dmesg(t), "waiting for hang0") }
			before := complaints()
			rmmod := unwatched(t, h.kind)
			if h.kind == "netdev" {
				await(t, "the kernel to complain", func() bool { return complaints() > before })
			}
			begun := time.Now()
			st := stuckIn(t, "hang")
			h.check(t, series, "as found", atLeastOneUser(st.Wait))
			if st.Phase != unload.Exit || st.Outcome != unload.InFlight || !st.Found {
				t.Errorf("phase %q, outcome %q", st.Phase, st.Outcome)
			}
			if st.Elapsed <= 0 || st.Elapsed > int64(time.Since(begun)+time.Minute) || st.Start.After(begun) {
				t.Errorf("since %v, for %d ns", st.Start, st.Elapsed)
			}
			if h.doing != "" && !slices.ContainsFunc(st.Wait.Blocker.Stack, func(f string) bool { return cause.Function(f) == h.doing }) {
				t.Errorf("the blocker is not in %s: %q", h.doing, st.Wait.Blocker.Stack)
			}
			calledByRmmod(t, st.Caller, rmmod.Process.Pid)
			if diff := cmp.Diff([]string{"O_NONBLOCK"}, st.Flags); diff != "" {
				t.Errorf("flags (-want +got):\n%s", diff)
			}
			told(t, h)
		})
	}
}

// atLeastOneUser folds the count of an interface's users, which the test does not
// know.
func atLeastOneUser(w unload.Wait) unload.Wait {
	w.Blocker.Users = min(w.Blocker.Users, 1)
	return w
}

func calledByRmmod(t *testing.T, c unload.Caller, pid int) {
	t.Helper()
	if c.PID != pid || c.TID != pid || c.UID != 0 || c.PPID != os.Getpid() || !strings.HasSuffix(c.Exe, "busybox") ||
		strings.Join(c.Cmdline, " ") != "busybox rmmod hang" || len(c.Ancestors) == 0 {
		t.Errorf("caller %+v", c)
	}
}

// told wants the table to begin with the answer.
func told(t *testing.T, h hang) {
	t.Helper()
	r := run(t, "stuck")
	text := strings.Join(strings.Fields(r.stdout), " ")
	for _, want := range []string{"hang is stuck: in exit() for at least ", ", waiting for ", h.blocker.Function, h.blocker.Comm, h.blocker.Detail} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%s", want, r.stdout)
		}
	}
}

// complainSoon has the kernel complain of interfaces in use every second, where
// it can be told to (5.13).
func complainSoon(t *testing.T) {
	t.Helper()
	const file = "/proc/sys/net/core/netdev_unregister_timeout_secs"
	before, err := os.ReadFile(file)
	if err != nil {
		return
	}
	if err := os.WriteFile(file, []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(file, before, 0); err != nil {
			t.Error(err)
		}
	})
}

func dmesg(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("dmesg").Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// TestStuckSpinning finds an unload that runs, in the only place where that shows:
// it waits for nobody (S10).
func TestStuckSpinning(t *testing.T) {
	guest(t)
	unwatched(t, "spin")
	st := stuckIn(t, "hang")
	if st.Wait.Count != 0 && st.Wait.Cause != unload.CausePreempted || st.Phase != unload.Exit && st.Phase != "" {
		t.Errorf("phase %q, wait %+v", st.Phase, st.Wait)
	}
}

// TestStuckTwice finds an unload that waits for a grace period with module_mutex
// held, and one that waits for that mutex (S13).
func TestStuckTwice(t *testing.T) {
	guest(t)
	fixture(t, "rcuhog")
	removed(t, "rcuhog")
	fixture(t, "empty")
	fixture(t, "busy")
	const hold = 12 * time.Second
	setParameter(t, "rcuhog", "hold_ms", strconv.Itoa(int(hold.Milliseconds())))
	await(t, "grace periods to be held up", func() bool {
		return strings.HasPrefix(readFile(t, "/sys/module/rcuhog/parameters/holding"), "Y")
	})
	for _, name := range []string{"empty", "busy"} {
		cmd := exec.Command("busybox", "rmmod", name)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := cmd.Wait(); err != nil {
				t.Errorf("rmmod %s: %v", name, err)
			}
		})
		if name == "empty" {
			await(t, "the first to be off the list", func() bool {
				_, err := os.Stat("/sys/module/" + name) // /proc/modules would wait for it
				return err != nil
			})
		}
	}
	time.Sleep(300 * time.Millisecond)
	r := run(t, "stuck", "--json")
	if !strings.HasPrefix(readFile(t, "/sys/module/rcuhog/parameters/holding"), "Y") {
		t.Skip("the machine is too slow: grace periods are not held up any more")
	}
	got := map[string][2]string{}
	for _, st := range r.stalls {
		if st.Outcome == unload.InFlight {
			got[st.Module] = [2]string{string(st.Phase), string(st.Wait.Cause)}
		}
	}
	want := map[string][2]string{
		"empty": {string(unload.FreeUnlink), string(unload.CauseRCU)},
		"busy":  {string(unload.Enter), string(unload.CauseMutex)},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("phases and causes (-want +got):\n%s\n%s", diff, r.stdout)
	}
}

// TestNothingStuck says so, in one line, and nothing in JSON.
func TestNothingStuck(t *testing.T) {
	guest(t)
	r := run(t, "stuck", "--json")
	if r.code != 0 || r.stderr != "" || slices.ContainsFunc(r.stalls, func(st unload.Stall) bool { return st.Outcome != unload.Died }) {
		t.Errorf("exit %d, stderr %q, stdout:\n%s", r.code, r.stderr, r.stdout)
	}
	if len(r.stalls) > 0 {
		return // what earlier tests have left behind
	}
	if r := run(t, "stuck"); r.code != 0 || r.stdout != "no unload is in flight\n" || r.stderr != "" {
		t.Errorf("exit %d, stdout %q, stderr %q", r.code, r.stdout, r.stderr)
	}
}

// TestStuckForEver finds a module whose exit function killed the task that
// unloads it (S11).
func TestStuckForEver(t *testing.T) {
	guest(t)
	const module = "oopt"
	insertAs(t, "oops", module)
	rmmod := exec.Command("busybox", "rmmod", module)
	if err := rmmod.Run(); err == nil {
		t.Fatal("the task that unloads survives")
	}
	await(t, "the oops to be logged", func() bool { return strings.Contains(dmesg(t), "end trace") })
	st := stuckIn(t, module)
	if st.Outcome != unload.Died || st.Phase != unload.Exit || !st.Found || st.Wait.Count != 0 {
		t.Errorf("outcome %q, phase %q, wait %+v", st.Outcome, st.Phase, st.Wait)
	}
	if st.Caller.PID != rmmod.Process.Pid || st.Caller.Comm != "busybox" {
		t.Errorf("caller %+v, want busybox (%d)", st.Caller, rmmod.Process.Pid)
	}
	if age := time.Since(st.Start); st.Elapsed <= 0 || st.Elapsed > int64(time.Minute) || age < 0 || age > time.Minute {
		t.Errorf("since %v, for %d ns", st.Start, st.Elapsed)
	}
	if len(st.Wait.Stack) == 0 || cause.Function(st.Wait.Stack[0]) != "bad_exit" || len(st.Log) == 0 {
		t.Errorf("died in %q, log %+v", st.Wait.Stack, st.Log)
	}
	text := strings.Join(strings.Fields(run(t, "stuck").stdout), " ")
	for _, want := range []string{module + " is half unloaded until reboot: the task that unloaded it, busybox (pid ", "died in exit()", "to do reboot"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
}

func TestStuckWithoutPrivileges(t *testing.T) {
	guest(t)
	oneMessage(t, withCapabilities(t, nil, "stuck"), 3, "not permitted", "CAP_BPF", "root")
}
