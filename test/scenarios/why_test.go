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

// hang is a way in which an exit function hangs, and what must be said of it.
type hang struct {
	kind  string
	cause unload.Cause
	// blocker is who holds it up, less its number; lacks names the kernels
	// that do not let that be seen.
	blocker unload.Blocker
	lacks   []string
	// doing is a function that the blocker is in meanwhile.
	doing string
}

func hangs() []hang {
	helper := unload.Blocker{Kind: unload.KindTask, Comm: "hang-helper"}
	return []hang{
		{kind: "completion", cause: unload.CauseCompletion},
		{kind: "work", cause: unload.CauseWorkqueue,
			blocker: unload.Blocker{Kind: unload.KindWork, Comm: "kworker", Function: "hang_work_fn", Module: "hang"}, doing: "process_one_work"},
		{kind: "workqueue", cause: unload.CauseWorkqueue, blocker: unload.Blocker{Kind: unload.KindWorkqueue, Detail: "hang_wq"}},
		{kind: "kthread", cause: unload.CauseKthreadStop, blocker: helper, doing: "deaf_thread"},
		{kind: "mutex", cause: unload.CauseMutex, blocker: helper, lacks: []string{"amd64-5.10"}, doing: "mutex_holder"},
		{kind: "rwsem", cause: unload.CauseRWSem, blocker: helper, lacks: []string{"amd64-5.10"}, doing: "rwsem_holder"},
		{kind: "srcu", cause: unload.CauseSRCU},
		{kind: "sysfs", cause: unload.CauseKernfsDrain, lacks: []string{"amd64-5.10"},
			blocker: unload.Blocker{Kind: unload.KindFile, Comm: "cat", Detail: "/sys/kernel/hang/block"}, doing: "block_show"},
		{kind: "netdev", cause: unload.CauseNetdevUsers, blocker: unload.Blocker{Kind: unload.KindInterface, Detail: "hang0"}},
	}
}

// hung has an unload hang for a while under modtrace, which is told to speak
// after a quarter of a second.
func hung(t *testing.T, kind string) ran {
	t.Helper()
	fixture(t, "release")
	fixture(t, "hang", "kind="+kind)
	removed(t, "release")
	if kind == "sysfs" {
		reader := exec.Command("cat", "/sys/kernel/hang/block")
		if err := reader.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = reader.Wait() })
		await(t, "somebody to read", func() bool {
			b, err := os.ReadFile("/proc/" + strconv.Itoa(reader.Process.Pid) + "/stack")
			return err == nil && strings.Contains(string(b), "block_show")
		})
	}
	go func() {
		for {
			if b, err := os.ReadFile("/sys/module/hang/initstate"); err != nil || strings.Contains(string(b), "going") {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(1200 * time.Millisecond)
		_ = os.WriteFile("/sys/module/release/parameters/go", []byte("1"), 0)
	}()
	return run(t, "run", "--json", "--stall", "250ms", "--", "busybox", "rmmod", "hang")
}

// TestHangs has exit functions hang in the ways that they do in the wild: while
// it lasts, and at the end, modtrace says for what, and on whom (S8).
func TestHangs(t *testing.T) {
	series := guest(t)
	for _, h := range hangs() {
		t.Run(h.kind, func(t *testing.T) {
			r := hung(t, h.kind)
			u := r.only(t)
			conserved(t, u)
			exit := phase(t, u, unload.Exit)
			if exit.Duration < int64(time.Second) || len(exit.Waits) == 0 {
				t.Fatalf("exit %+v", exit)
			}
			r.stalls = slices.DeleteFunc(r.stalls, func(st unload.Stall) bool { return st.Phase != unload.Exit })
			if len(r.stalls) < 1 || len(r.stalls) > 4 {
				t.Fatalf("%d stalls told of", len(r.stalls))
			}
			for _, st := range r.stalls {
				if st.Module != "hang" || st.Elapsed < int64(250*time.Millisecond) {
					t.Errorf("stall of %s for %d ns", st.Module, st.Elapsed)
				}
			}
			if first := r.stalls[0].Elapsed; first > int64(1250*time.Millisecond) {
				t.Errorf("the first stall is told of after %d ns", first)
			}
			h.check(t, series, "at the end", exit.Waits[0])
			h.check(t, series, "in the stall", r.stalls[0].Wait)
			doing := slices.ContainsFunc(r.stalls[0].Wait.Blocker.Stack, func(f string) bool { return cause.Function(f) == h.doing })
			if h.doing != "" && !slices.Contains(h.lacks, series) && !doing {
				t.Errorf("the blocker is not in %s: %q", h.doing, r.stalls[0].Wait.Blocker.Stack)
			}
		})
	}
}

// check holds a wait against what it must be.
func (h hang) check(t *testing.T, series, when string, w unload.Wait) {
	t.Helper()
	want, got := h.blocker, w.Blocker
	if slices.Contains(h.lacks, series) {
		want = unload.Blocker{}
	}
	if h.kind == "sysfs" && when == "at the end" {
		want.Comm, want.Detail = "", "block" // the reader has gone by then
	}
	if want.Comm != "" && got.PID == 0 {
		t.Errorf("%s: no process number: %+v", when, got)
	}
	got.PID, got.Stack = 0, nil
	if want.Comm == "kworker" && strings.HasPrefix(got.Comm, want.Comm) {
		got.Comm = want.Comm
	}
	if w.Cause != h.cause {
		t.Errorf("%s: cause %s, want %s; stack %q", when, w.Cause, h.cause, w.Stack)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s: blocker (-want +got):\n%s", when, diff)
	}
}

// TestSpinning is told from blocked by its time on the CPU and the function that
// it is spent in, also when the module has gone (S10).
func TestSpinning(t *testing.T) {
	guest(t)
	r := hung(t, "spin")
	u := r.only(t)
	conserved(t, u)
	exit := phase(t, u, unload.Exit)
	if exit.OnCPU < exit.Duration/2 || len(exit.Hot) == 0 {
		t.Fatalf("exit ran %d of %d ns; hot %+v", exit.OnCPU, exit.Duration, exit.Hot)
	}
	var all, mine int64
	for _, h := range exit.Hot {
		all += h.Samples
		if slices.ContainsFunc(h.Stack, func(f string) bool { return cause.Function(f) == "hang_spin" && cause.Module(f) == "hang" }) {
			mine += h.Samples
		}
	}
	if mine < all*8/10 || all < 20 {
		t.Errorf("%d of %d samples are in hang_spin [hang]: %+v", mine, all, exit.Hot)
	}
	if len(r.stalls) == 0 || r.stalls[0].Wait.Count != 0 && r.stalls[0].Wait.Cause != unload.CausePreempted {
		t.Errorf("stalls %+v", r.stalls)
	}
}

// TestCausesTakeTheirTime compares each cause of a slow exit with what the
// module measured by itself.
func TestCausesTakeTheirTime(t *testing.T) {
	guest(t)
	fixture(t, "slow", "sleep_ms=150", "spin_ms=100", "work_ms=120", "rcu_barrier=2", "sync_rcu=3")
	r := run(t, "run", "--json", "--", "busybox", "rmmod", "slow")
	u := r.only(t)
	conserved(t, u)
	exit := phase(t, u, unload.Exit)
	sum, count := map[unload.Cause]int64{}, map[unload.Cause]int64{}
	for _, w := range exit.Waits {
		sum[w.Cause] += w.Duration
		count[w.Cause] += w.Count
	}
	took := measured(t, "slow: exit_ns=")
	for part, c := range map[string]unload.Cause{
		"sleep": unload.CauseSleep, "work": unload.CauseWorkqueue,
		"rcu_barrier": unload.CauseRCUBarrier, "sync_rcu": unload.CauseRCU,
	} {
		// The module's measure has the way there and back in it, and what the
		// task then waited for a CPU.
		slack := max(took[part]/20, int64(2*time.Millisecond)) + sum[unload.CausePreempted]
		if d := took[part] - sum[c]; d < -slack || d > slack {
			t.Errorf("%s: %d ns by the module, %d waiting for %s", part, took[part], sum[c], c)
		}
	}
	if count[unload.CauseRCU] != 3 || count[unload.CauseRCUBarrier] != 2 {
		t.Errorf("counts %v, want 3 grace periods and 2 barriers", count)
	}
	slack := max(took["spin"]/20, int64(2*time.Millisecond)) + sum[unload.CausePreempted] + int64(5*time.Millisecond)
	if d := exit.OnCPU - took["spin"]; d < -slack || d > slack {
		t.Errorf("spun %d ns by the module, ran %d", took["spin"], exit.OnCPU)
	}
}

// measured reads what a module logged last of its own times, in ns a part, in a
// line that begins so.
func measured(t *testing.T, begins string) map[string]int64 {
	t.Helper()
	log, err := exec.Command("dmesg").Output()
	if err != nil {
		t.Fatal(err)
	}
	at := strings.LastIndex(string(log), begins)
	if at < 0 {
		t.Fatalf("nothing was logged that begins with %q", begins)
	}
	took := map[string]int64{}
	line, _, _ := strings.Cut(string(log)[at:], "\n")
	for _, field := range strings.Fields(line) {
		if name, value, ok := strings.Cut(field, "_ns="); ok {
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			took[name] = n
		}
	}
	return took
}
