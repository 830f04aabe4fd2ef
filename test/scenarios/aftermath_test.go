package scenarios

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/modtrace/modtrace/unload"
)

// TestNotifiers names the callback that holds an unload up, and its module.
func TestNotifiers(t *testing.T) {
	guest(t)
	fixture(t, "notifier", "sleep_ms=150")
	removed(t, "notifier")
	for how, flags := range mechanisms() {
		t.Run(how, func(t *testing.T) {
			const tries = 3 // as in TestCausesTakeTheirTime
			agree := false
			for i := 0; i < tries && !agree; i++ {
				agree = compareNotifier(t, flags)
			}
			if !agree {
				t.Errorf("in none of %d unloads was it near what the module measured", tries)
			}
		})
	}
}

// compareNotifier says whether a callback took as long as its module measured.
func compareNotifier(t *testing.T, flags []string) bool {
	t.Helper()
	fixture(t, "empty")
	args := append([]string{"run", "--json", "--linger=0"}, flags...)
	u := run(t, append(args, "--", "busybox", "rmmod", "empty")...).only(t)
	conserved(t, u)
	notify := phase(t, u, unload.Notify)
	notifiersAddUp(t, u.Notifiers, notify)
	slow := slowest(u.Notifiers)
	if slow.Callback != "slow_going" || slow.Module != "notifier" || !slow.Exact {
		t.Errorf("the slowest is %+v of %+v", slow, u.Notifiers)
	}
	var preempted int64
	for _, w := range notify.Waits {
		if w.Cause == unload.CausePreempted {
			preempted += w.Duration
		}
	}
	took := measured(t, "notifier: slow_ns=")["slow"]
	return near(t, "slow_going", slow.Duration, took) || near(t, "slow_going, less the waits for a CPU", slow.Duration-preempted, took)
}

// TestLateNotifier has a callback that comes on the chain after modtrace: it is seen,
// or said not to be. The kprobe that modtrace has on one in a module does not hold
// that module.
func TestLateNotifier(t *testing.T) {
	_, byAddress := expected(t, guest(t))["the callbacks on the notifier chain, one by one"]
	script := "insmod /fixtures/notifier.ko sleep_ms=50 && insmod /fixtures/empty.ko && busybox rmmod empty"
	u := run(t, "run", "--json", "--linger=0", "--", "sh", "-c", script).only(t)
	conserved(t, u)
	notifiersAddUp(t, u.Notifiers, phase(t, u, unload.Notify))
	slow := slowest(u.Notifiers)
	said := slices.Contains(u.Missing, "1 callback on the notifier chain counts into the one before it")
	if byAddress == slow.Exact || byAddress != said || u.Complete == byAddress {
		t.Errorf("the slowest is %+v, missing %q, complete %v", slow, u.Missing, u.Complete)
	}
	deleted(t, "notifier")
	fixture(t, "notifier", "sleep_ms=1")
	tr := trace(t)
	deleted(t, "notifier")
	if u = tr.stop().only(t); !u.Result.OK || !u.Complete {
		t.Errorf("%+v, missing %q", u.Result, u.Missing)
	}
}

// notifiersAddUp checks that all are named and take no longer than their phase, and
// that one of the kernel's own is among them.
func notifiersAddUp(t *testing.T, all []unload.Notifier, notify unload.Phase) {
	t.Helper()
	var sum int64
	kprobes := false
	for _, n := range all {
		sum += n.Duration
		kprobes = kprobes || n.Callback == "kprobes_module_callback" && n.Module == ""
		if n.Callback == "" || n.Duration < 0 {
			t.Errorf("notifier %+v", n)
		}
	}
	if sum > notify.Duration || !kprobes || len(all) < 5 {
		t.Errorf("notifiers take %d of %d ns: %+v", sum, notify.Duration, all)
	}
}

func slowest(all []unload.Notifier) (slow unload.Notifier) {
	for _, n := range all {
		if n.Duration > slow.Duration {
			slow = n
		}
	}
	return slow
}

// again starts a loop that loads a module as soon as it can be, which ends when it
// has succeeded so many times.
func again(t *testing.T, name string, times string) {
	t.Helper()
	script := "n=0; while [ $n -lt " + times + " ]; do insmod /fixtures/" + name + ".ko 2>/dev/null && n=$((n+1)); done"
	loop := exec.Command("sh", "-c", script)
	if err := loop.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := loop.Wait(); err != nil {
			t.Errorf("loading %s again and again: %v", name, err)
		}
	})
}

// TestReload has somebody load a module again at once (S12).
func TestReload(t *testing.T) {
	guest(t)
	t.Cleanup(func() { deleted(t, "empty") })
	fixture(t, "empty")
	again(t, "empty", "1")
	r := run(t, "run", "--json", "--linger=10s", "--", "busybox", "rmmod", "empty")
	if u := r.only(t); !u.Result.OK || r.code != 0 {
		t.Errorf("exit %d, %+v", r.code, u.Result)
	}
	comesBack(t, r, 1)
}

// comesBack checks who is said to have loaded the fixture again.
func comesBack(t *testing.T, r ran, times int) {
	t.Helper()
	if len(r.reloads) != times {
		t.Fatalf("%d reloads told of, want %d:\n%s", len(r.reloads), times, r.stdout)
	}
	for _, l := range r.reloads {
		if l.Module != "empty" || l.After < 0 || l.After > int64(5*time.Second) {
			t.Errorf("%s came back %d ns later", l.Module, l.After)
		}
		if l.Loader.PID == 0 || l.Loader.Comm != "insmod" || strings.Join(l.Loader.Cmdline, " ") != "insmod /fixtures/empty.ko" {
			t.Errorf("loaded by %+v", l.Loader)
		}
		if len(l.Loader.Ancestors) == 0 || l.Loader.Ancestors[0].Comm != "sh" || l.Loader.Ancestors[0].PID != l.Loader.PPID {
			t.Errorf("loaded below %+v", l.Loader.Ancestors)
		}
	}
}

// TestReloadIsToldAtOnce while tracing goes on, each time, and only of modules that
// were asked for.
func TestReloadIsToldAtOnce(t *testing.T) {
	guest(t)
	capture := filepath.Join(t.TempDir(), "capture")
	tr, others := trace(t, "-o", capture, "empty"), trace(t, "other")
	fixture(t, "empty")
	again(t, "empty", "3")
	for range 3 {
		deleted(t, "empty")
		await(t, "empty to be back", func() bool { _, ok := loaded(t, "empty"); return ok })
		awaitUnused(t, "empty")
	}
	await(t, "the reloads to be told of", func() bool { return strings.Count(readFile(t, capture), `"type":"reload"`) == 3 })
	r := tr.stop()
	deleted(t, "empty")
	comesBack(t, r, 3)
	if r := others.stop(); len(r.reloads)+len(r.unloads) != 0 {
		t.Errorf("told of others: %s", r.stdout)
	}
}

// TestLinger looks on for as long as it is told, where there is reason to, and goes
// by the command's exit status whatever comes.
func TestLinger(t *testing.T) {
	guest(t)
	tests := []struct {
		name, script string
		linger       string
		load         bool
		least, most  time.Duration
		code         int
	}{
		{"nothing to wait for", "exit 3", "20s", false, 0, 15 * time.Second, 3},
		{"a refusal", "busybox rmmod nosuch", "20s", false, 0, 15 * time.Second, 1},
		{"not wanted", "busybox rmmod empty", "0", true, 0, 15 * time.Second, 0},
		{"in vain", "busybox rmmod empty; exit 4", "2s", true, 2 * time.Second, 20 * time.Second, 4},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if test.load {
				fixture(t, "empty")
			}
			began := time.Now()
			r := run(t, "run", "--json", "--linger", test.linger, "--", "sh", "-c", test.script)
			if took := time.Since(began); took < test.least || took > test.most {
				t.Errorf("took %v", took)
			}
			if r.code != test.code || len(r.reloads) != 0 || r.trailer == nil {
				t.Errorf("exit %d, want %d; %s", r.code, test.code, r.stdout)
			}
		})
	}
}

// TestLingerIsCutShort by a signal, which the command's exit status outlives.
func TestLingerIsCutShort(t *testing.T) {
	guest(t)
	fixture(t, "empty")
	cmd := command(t, "run", "--json", "--linger=60s", "--", "sh", "-c", "busybox rmmod empty; exit 5")
	done := make(chan ran, 1)
	go func() { done <- finish(t, cmd) }()
	await(t, "empty to be gone", func() bool { _, ok := loaded(t, "empty"); return !ok })
	time.Sleep(time.Second)
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if r := <-done; r.code != 5 || len(r.unloads) != 1 || r.trailer == nil {
		t.Errorf("exit %d, want 5; %s", r.code, r.stdout)
	}
}

// TestResidue names what a module leaves. What it leaves stays for good, so this
// comes last.
func TestResidue(t *testing.T) {
	guest(t)
	for _, test := range []struct{ kind, begins, ends string }{
		{"none", "", ""},
		{"driver", "driver left_driver on bus platform still points to it", ""},
		{"thread", "kernel thread left-thread (pid ", ") still runs in its memory"},
		{"work", "worker kworker/", ") still runs a work item in its memory"},
	} {
		t.Run(test.kind, func(t *testing.T) {
			fixture(t, "residue", "kind="+test.kind)
			u := run(t, "run", "--json", "--linger=1s", "--", "busybox", "rmmod", "residue").only(t)
			if !u.Result.OK || !u.ResidueKnown {
				t.Fatalf("known %v, result %+v", u.ResidueKnown, u.Result)
			}
			if test.kind == "none" {
				if diff := cmp.Diff([]string{}, u.Residue); diff != "" {
					t.Errorf("residue (-want +got):\n%s", diff)
				}
				return
			}
			for _, r := range u.Residue {
				if strings.HasPrefix(r, test.begins) && strings.HasSuffix(r, test.ends) {
					return
				}
			}
			t.Errorf("residue %q", u.Residue)
		})
	}
}
