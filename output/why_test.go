package output

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/modtrace/modtrace/unload"
)

func TestTarget(t *testing.T) {
	worker := unload.Blocker{Kind: unload.KindWork, PID: 31, Comm: "kworker/1:2", Function: "wfn", Module: "slow"}
	tests := []struct {
		c    unload.Cause
		b    unload.Blocker
		want string
	}{
		{unload.CauseMutex, unload.Blocker{}, "a mutex"},
		{unload.CauseMutex, unload.Blocker{Kind: unload.KindTask, PID: 123, Comm: "foo"}, "a mutex held by foo (pid 123)"},
		{unload.CauseMutex, unload.Blocker{PID: 123}, "a mutex held by pid 123"},
		{unload.CauseMutex, unload.Blocker{Comm: "foo", Detail: "module_mutex"}, "mutex module_mutex held by foo"},
		{unload.CauseMutex, worker, "a mutex held by work item wfn [slow], run by kworker/1:2 (pid 31)"},
		{unload.CauseRWSem, unload.Blocker{}, "a read-write semaphore"},
		{unload.CauseWorkqueue, unload.Blocker{}, "a work item"},
		{unload.CauseWorkqueue, worker, "work item wfn [slow], run by kworker/1:2 (pid 31)"},
		{unload.CauseWorkqueue, unload.Blocker{PID: 31, Comm: "kworker/1:2"}, "a work item, run by kworker/1:2 (pid 31)"},
		{unload.CauseWorkqueue, unload.Blocker{Detail: "events"}, "a work item of workqueue events"},
		{unload.CauseWorkqueue, unload.Blocker{Kind: unload.KindWorkqueue, Detail: "wq"}, "all work of workqueue wq"},
		{unload.CauseWorkqueue, unload.Blocker{Kind: unload.KindWorkqueue, Detail: "wq", Function: "wfn"}, "all work of workqueue wq, among it wfn"},
		{unload.CauseKthreadStop, unload.Blocker{}, "a kernel thread to stop"},
		{unload.CauseKthreadStop, unload.Blocker{PID: 77, Comm: "hang-helper"}, "kernel thread hang-helper (pid 77) to stop"},
		{unload.CauseKthreadStop, unload.Blocker{PID: 77}, "the kernel thread with pid 77 to stop"},
		{unload.CauseKernfsDrain, unload.Blocker{}, "users of a sysfs file"},
		{unload.CauseKernfsDrain, unload.Blocker{Detail: "/sys/x"}, "users of /sys/x"},
		{unload.CauseKernfsDrain, unload.Blocker{PID: 99, Comm: "cat", Detail: "/sys/x"}, "cat (pid 99), which uses /sys/x"},
		{unload.CauseNetdevUsers, unload.Blocker{Detail: "dummy0, 2 references"}, "users of interface dummy0, 2 references"},
		{unload.CauseTimer, unload.Blocker{Function: "tick", Module: "m"}, "timer callback tick [m]"},
		{unload.CauseBlockFreeze, unload.Blocker{Detail: "sda"}, "requests of block device sda"},
		{unload.CauseRCU, unload.Blocker{}, "an RCU grace period"},
		{unload.CauseOther, unload.Blocker{}, "something unknown"},
		{unload.CauseOther, unload.Blocker{PID: 3, Comm: "foo"}, "foo (pid 3)"},
	}
	for _, tt := range tests {
		if got := (screen{}).target(tt.c, tt.b); got != tt.want {
			t.Errorf("%s, %+v:\n got %q\nwant %q", tt.c, tt.b, got, tt.want)
		}
	}
}

// blockers are all kinds, with every part known and unknown.
func blockers() (all []unload.Blocker) {
	kinds := []string{"", "new", unload.KindTask, unload.KindWork, unload.KindWorkqueue, unload.KindInterface, unload.KindFile, unload.KindInterrupt}
	for _, kind := range kinds {
		for known := range 1 << 5 {
			part := func(bit int, text string) string { return strings.Repeat(text, known>>bit&1) }
			all = append(all, unload.Blocker{
				Kind: kind, PID: 42 * (known & 1), Comm: part(1, "COMM"), Function: part(2, "FUNC"), Module: part(3, "MOD"), Detail: part(4, "DETAIL"),
			})
		}
	}
	return all
}

// TestNothingDangles tries every cause with every blocker: no word is left
// waiting for a name, no name is made up, and no task that is known is hidden.
func TestNothingDangles(t *testing.T) {
	dangling := regexp.MustCompile(`\b(by|of|in|for|uses|from)([,;]|$| (by|of|in|to|for)\b)|  |^ | $|\(\)|unnamed| ,`)
	for _, c := range append(unload.Causes(), "", "brand_new") {
		for _, b := range blockers() {
			waits := screen{}.waiting(unload.Wait{Cause: c, Count: 3, Duration: 1e9, Blocker: b})
			for _, text := range []string{
				waits, screen{}.agent(b),
				screen{}.waitBranch(unload.Wait{Cause: c, Count: 1, Waker: b}, "was").text,
			} {
				if dangling.MatchString(text) {
					t.Errorf("%s, %+v: %q", c, b, text)
				}
			}
			task := b.Kind == unload.KindTask && b.Comm != "" && c != unload.CauseSleep // which waits for nobody
			if task && !strings.Contains(waits, b.Comm) {
				t.Errorf("%s, %+v: no name in %q", c, b, waits)
			}
		}
	}
}

func TestWaiting(t *testing.T) {
	tests := []struct {
		w    unload.Wait
		want string
	}{
		{unload.Wait{Cause: unload.CauseRCU, Count: 1000, Duration: 10e9}, "waiting 10.0 s for 1000 RCU grace periods"},
		{unload.Wait{Cause: unload.CauseMutex, Count: 5, Duration: 2.1e9}, "waiting 2.1 s (5 times) for a mutex"},
		{unload.Wait{Cause: unload.CauseSleep, Count: 2, Duration: 2e9}, "asleep 2.0 s (2 times) as the code asks"},
		{unload.Wait{Cause: unload.CauseOther, Count: 1, Duration: 2e9}, "asleep 2.0 s"},
		{unload.Wait{Cause: unload.CausePreempted, Count: 1, Duration: 2e9, Blocker: unload.Blocker{Comm: "hog", PID: 3}},
			"waiting 2.0 s for its turn on a CPU, taken by hog (pid 3)"},
	}
	for _, tt := range tests {
		if got := (screen{}).waiting(tt.w); got != tt.want {
			t.Errorf("\n got %q\nwant %q", got, tt.want)
		}
	}
}

// TestActivityFolds adds up waits for the same from many places, and says so
// when that is the smaller part.
func TestActivityFolds(t *testing.T) {
	mutex := func(pid int, ns int64, from string) unload.Wait {
		return unload.Wait{Cause: unload.CauseMutex, Count: 1, Duration: ns, Blocker: unload.Blocker{PID: pid}, Stack: []string{from}}
	}
	p := unload.Phase{OffCPU: 10e9, Waits: []unload.Wait{mutex(1, 3e9, "a"), mutex(2, 4e9, "b"), mutex(1, 3e9, "c")}}
	if got, want := (screen{}).activity(p), "waiting 6.0 s (2 times) for a mutex held by pid 1"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	p.Waits[2].Blocker.PID = 3
	if got, want := (screen{}).activity(p), "waiting 4.0 s for a mutex held by pid 2, among others"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if p.Waits[0].Duration != 3e9 || p.Waits[0].Blocker.PID != 1 {
		t.Error("the record was changed")
	}
}

func TestRunning(t *testing.T) {
	at := func(n int64, stack ...string) unload.Hot { return unload.Hot{Samples: n, Stack: stack} }
	tests := []struct {
		hot  []unload.Hot
		want string
	}{
		{nil, "running"},
		{[]unload.Hot{at(3)}, "running"},
		{[]unload.Hot{at(9, "delay_tsc+0x1", "spin+0x2 [hang]"), at(1, "x+0x1")}, "running, mostly in spin [hang]"},
		{[]unload.Hot{at(9, "fib_flush+0x1", "exit+0x2 [dummy]"), at(1, "x+0x1")}, "running, mostly in fib_flush from exit [dummy]"},
		{[]unload.Hot{at(4, "a+0x1", "exit+0x2 [m]"), at(3, "b+0x1", "exit+0x8 [m]"), at(3, "c+0x1")}, "running, mostly in exit [m]"},
		{[]unload.Hot{at(2, "a+0x1"), at(4, "b+0x1"), at(3, "c+0x1"), at(1)}, "running, most often in b"},
	}
	for _, tt := range tests {
		if got := (screen{}).running(tt.hot); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}

func TestSite(t *testing.T) {
	for want, stack := range map[string][]string{
		"":                            {"__schedule+0x3", "schedule+0x2b"},
		"slow_exit+0x10 [slow]":       {"__schedule+0x3", "schedule_timeout+0x1", "__wait_for_common+0x2", "__flush_work.isra.0+0x1", "slow_exit+0x10 [slow]"},
		"unregister_netdev+0x12":      {"schedule_preempt_disabled+0x1", "__mutex_lock.constprop.0+0x1d", "unregister_netdev+0x12", "x [y]"},
		"schedule_work_on_things+0x1": {"schedule_work_on_things+0x1"},
	} {
		if got := site(stack); got != want {
			t.Errorf("%q: %q, want %q", stack, got, want)
		}
	}
}

// drawn gives what is printed of an unload.
func drawn(t *testing.T, u unload.Unload, o TableOptions) string {
	t.Helper()
	var b bytes.Buffer
	if err := NewTable(&b, o).Unload(u); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestAlikeWaitsAreOne: what would read the same, though the kernel came there by
// other ways, is one line unless all is wanted.
func TestAlikeWaitsAreOne(t *testing.T) {
	u := work()
	for i, how := range []string{"rcu_barrier", "kvfree_rcu_barrier", "rcu_barrier_tasks"} {
		u.Phases[2].Waits = append(u.Phases[2].Waits, unload.Wait{
			Cause: unload.CauseRCUBarrier, Count: 1, Duration: int64(i+1) * 20e6, Longest: int64(i+1) * 20e6,
			Stack: []string{"schedule+0x27", how + "+0x1", "kmem_cache_destroy+0x3", "slow_exit+0x3 [slow]"},
		})
	}
	want := "120 ms  ×3 RCU callbacks, the longest 60.0 ms; in kmem_cache_destroy from slow_exit [slow]"
	if text := drawn(t, u, TableOptions{Width: 200}); !strings.Contains(text, want) || strings.Count(text, "kmem_cache_destroy") != 1 {
		t.Errorf("no %q, or more, in:\n%s", want, text)
	}
	if text := drawn(t, u, TableOptions{Width: 200, Verbose: true}); strings.Count(text, "in kmem_cache_destroy from") != 3 {
		t.Errorf("they are not told apart:\n%s", text)
	}
}

func TestShortWaitsAreSummedUp(t *testing.T) {
	u := work()
	text := drawn(t, u, TableOptions{Width: 200})
	for _, want := range []string{"└ 64.0 µs  3 shorter waits\n", "\n  1 short wait elsewhere, 12.0 µs in all\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	for i := range 10 {
		w := unload.Wait{Cause: unload.CauseRWSem, Count: 1, Duration: 20e6 + int64(i)}
		w.Stack = []string{"schedule+0x27", "down_write+0x1", fmt.Sprintf("slow_exit%d+0x3 [slow]", i)}
		u.Phases[2].Waits = append(u.Phases[2].Waits, w)
	}
	if text := drawn(t, u, TableOptions{Width: 200}); strings.Count(text, "a read-write semaphore") != maxLines-1 {
		t.Errorf("not cut short:\n%s", text)
	}
	text = drawn(t, u, TableOptions{Width: 200, Verbose: true})
	if strings.Contains(text, "short") || strings.Count(text, "a read-write semaphore") != 10 || !strings.Contains(text, "__flush_work.isra.0+0x168") {
		t.Errorf("something is left out:\n%s", text)
	}
}

// TestUnseenWaits: what the waits do not account for is said, not hidden.
func TestUnseenWaits(t *testing.T) {
	u := work()
	u.Phases[2].Waits = u.Phases[2].Waits[:1]
	if text := drawn(t, u, TableOptions{}); !strings.Contains(text, "└ 601 ms  waits that were not seen\n") {
		t.Errorf("not said:\n%s", text)
	}
}

func TestQuickRefusalHasNoTree(t *testing.T) {
	u := refusal("EAGAIN", unload.ReasonReferenced, nil)
	u.Phases[0].Waits = []unload.Wait{{Cause: unload.CauseMutex, Count: 1, Duration: 10e3}}
	if text := drawn(t, u, TableOptions{}); strings.Contains(text, "mutex") {
		t.Errorf("a tree of what nobody noticed:\n%s", text)
	}
	u.Duration = 2e9
	u.Phases[0].Duration, u.Phases[0].OffCPU, u.Phases[0].Waits[0].Duration = 2e9, 2e9, 2e9
	if text := drawn(t, u, TableOptions{}); !strings.Contains(text, "└ 2.0 s  a mutex") {
		t.Errorf("no tree:\n%s", text)
	}
}

func TestWakerWhereItInforms(t *testing.T) {
	foo, bar := unload.Blocker{PID: 1, Comm: "foo"}, unload.Blocker{PID: 2, Comm: "bar"}
	for _, tt := range []struct {
		cause          unload.Cause
		blocker, waker unload.Blocker
		want           bool
	}{
		{unload.CauseMutex, foo, bar, true},
		{unload.CauseMutex, foo, foo, false},
		{unload.CauseMutex, foo, unload.Blocker{Comm: "foo"}, false},
		{unload.CauseMutex, foo, unload.Blocker{}, false},
		{unload.CauseMutex, unload.Blocker{}, bar, true},
		{unload.CauseRCU, unload.Blocker{}, bar, false},
		{unload.CauseIO, unload.Blocker{}, unload.Blocker{Kind: unload.KindInterrupt}, false},
	} {
		w := unload.Wait{Cause: tt.cause, Count: 1, Blocker: tt.blocker, Waker: tt.waker}
		if got := strings.Contains(screen{}.waitBranch(w, "was").text, "woken by"); got != tt.want {
			t.Errorf("%s, %+v woken by %+v: %v, want %v", tt.cause, tt.blocker, tt.waker, got, tt.want)
		}
	}
}

func TestStuck(t *testing.T) {
	want := map[string]string{
		"stall-kthread": "hang is stuck: in exit() for 4.0 s, waiting for kernel thread hang-helper (pid 77) to stop",
		"stall-netdev":  "hang is stuck: in exit() for 4.0 s, waiting for users of interface dummy0",
		"stall-running": "hang is stuck: in exit() for 4.0 s, running, mostly in spin_exit [spin]",
		"stall-rcu":     "can_bcm is slow: in exit() for 10.9 s, waiting for 1000 RCU grace periods",
		"stall-bare":    "(unnamed) is stuck for 0 ns, running",
	}
	for _, st := range stalls() {
		if text, ok := want[st.name]; ok && (screen{}).stuck(st.Stall) != text {
			t.Errorf("%s:\n got %q\nwant %q", st.name, screen{}.stuck(st.Stall), text)
		}
	}
	late := stalled(unload.Wait{Cause: unload.CauseCompletion, Count: 1, Duration: 3e9})
	if got, want := (screen{}).stuck(late), "hang is stuck: in exit() for 4.0 s, waiting 3.0 s for a completion"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	between := stalled(unload.Wait{Cause: unload.CauseCompletion, Count: 1, Duration: 3e6})
	between.Phases[2].Waits = nil
	if got, want := (screen{}).stuck(between), "hang is slow: in exit() for 4.0 s, now waiting 3.0 ms for a completion"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestRemedies: each is for a cause there is, has room for a pid or not, and
// comes once.
func TestRemedies(t *testing.T) {
	var seen []unload.Cause
	for _, a := range remedies() {
		if !slices.Contains(unload.Causes(), a.cause) || slices.Contains(seen, a.cause) {
			t.Errorf("%s: unknown, or twice", a.cause)
		}
		seen = append(seen, a.cause)
		if a.known != "" && strings.Count(a.known, "%d") != 1 || strings.Contains(a.unknown, "%") || a.unknown == "" {
			t.Errorf("%s: %q, %q", a.cause, a.known, a.unknown)
		}
	}
	for cause, want := range map[unload.Cause]string{
		unload.CauseKthreadStop: "the thread has to see that it is to stop, and end: cat /proc/77/stack shows what it does",
		unload.CauseCompletion:  "",
	} {
		st := stalled(unload.Wait{Cause: cause, Count: 1, Duration: 4e9, Blocker: unload.Blocker{PID: 77}})
		if got := (screen{}).remedy(st); got != want {
			t.Errorf("%s: %q, want %q", cause, got, want)
		}
	}
	if got := (screen{}).remedy(busyStall()); got != "" {
		t.Errorf("a remedy for one that gets on: %q", got)
	}
}

// TestStallTellsEachWaitOnce: whether or not the phase's waits hold the
// present one.
func TestStallTellsEachWaitOnce(t *testing.T) {
	with, without := stalls()[0].Stall, stalls()[0].Stall
	without.Phases[2].Waits = without.Phases[2].Waits[1:]
	for _, st := range []unload.Stall{with, without} {
		var b bytes.Buffer
		if err := NewTable(&b, TableOptions{Width: 200}).Stall(st); err != nil {
			t.Fatal(err)
		}
		_, tree, _ := strings.Cut(b.String(), "\n")
		if strings.Count(tree, "kernel thread hang-helper") != 1 || strings.Contains(tree, "not seen") {
			t.Errorf("the present wait is not told once:\n%s", tree)
		}
	}
}

func TestRanking(t *testing.T) {
	items := []timed{{1e6, "c"}, {50e6, "b"}, {1e3, "d"}, {900e6, "a"}}
	want := []string{" 900 ms  a", "50.0 ms  b", " 1.0 ms  2 other things"}
	if got := (screen{}).ranking(items, 1e9, "thing", "things"); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := (screen{verbose: true}).ranking(items, 1e9, "thing", "things"); len(got) != 4 || got[3] != " 1.0 µs  d" {
		t.Errorf("%q", got)
	}
	if items[0].text != "c" {
		t.Error("the record was changed")
	}
}

func TestConvoy(t *testing.T) {
	one := []unload.Waiter{{PID: 55, Comm: "insmod", Lock: "module_mutex", Duration: 2.1e9}}
	for _, tt := range []struct {
		all  []unload.Waiter
		want []string
	}{
		{nil, nil},
		{one, []string{"1 task waited 2.1 s for module_mutex behind it: insmod (pid 55)"}},
		{append([]unload.Waiter{{Comm: "modprobe", Lock: "module_mutex", Duration: 1}}, one...), []string{"2 tasks waited for module_mutex behind it, the longest 2.1 s: insmod (pid 55)"}},
		{append([]unload.Waiter{{Comm: "ip", Lock: "rtnl_mutex", Duration: 1}}, one...), []string{"2 tasks waited for locks behind it, the longest 2.1 s: insmod (pid 55)"}},
		{[]unload.Waiter{{PID: 1, Comm: "ip", Duration: 1000}}, []string{"1 task waited 1.0 µs for a lock behind it: ip (pid 1)"}},
	} {
		if got := (screen{}).convoy(tt.all); !slices.Equal(got, tt.want) {
			t.Errorf("%q, want %q", got, tt.want)
		}
	}
}

func TestLogKeepsTheGravest(t *testing.T) {
	var all []unload.LogLine
	for range 50 {
		all = append(all, unload.LogLine{Phase: unload.Exit, Level: 6, Text: "chatter"})
	}
	all = append(all, unload.LogLine{Phase: unload.Exit, Level: 1, Text: "BUG: kernel NULL pointer dereference"},
		unload.LogLine{Phase: unload.FreeMemory, Level: 4, Text: "leaked"}, unload.LogLine{Level: -1, Text: "no level"})
	facts := screen{}.log(all)
	if n := len(facts); n != maxLog+1 || facts[n-1].lines[0] != "45 more lines" || facts[0].key != "log" {
		t.Fatalf("%d facts: %+v", n, facts)
	}
	if f := facts[maxLog-2]; f.lines[0] != "exit(): oops: BUG: kernel NULL pointer dereference" || f.color != red {
		t.Errorf("%+v", f)
	}
	if f := facts[maxLog-1]; f.lines[0] != "free.memory: warning: leaked" || f.color != red {
		t.Errorf("%+v", f)
	}
	if n := len(screen{verbose: true}.log(all)); n != len(all) {
		t.Errorf("%d lines of %d", n, len(all))
	}
}

func TestWordsStayTogether(t *testing.T) {
	got := wrap("run by kworker (pid 31), wfn [slow] too", 14, "")
	if want := []string{"run by kworker", "(pid 31),", "wfn [slow] too"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestBytes(t *testing.T) {
	for n, want := range map[int64]string{1: "1 byte", 1023: "1023 bytes", 98304: "96.0 KiB (98304 bytes)", 1 << 20: "1.0 MiB (1048576 bytes)"} {
		if got := bytesOf(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

// TestWorking skips how time is passed, and where samples fall that were due
// while interrupts were off.
func TestWorking(t *testing.T) {
	for _, innermost := range []string{"delay_tsc+0x1", "__const_udelay+0x3", "_raw_spin_unlock_irqrestore+0x1b", "_raw_spin_unlock_irq+0x1"} {
		stack := []string{innermost, "slow_spin+0x1f [slow]", "slow_exit+0x3 [slow]"}
		if got := (screen{}).runs(stack); got != "slow_spin [slow]" {
			t.Errorf("%s: runs in %q", innermost, got)
		}
	}
}

// TestByProcess brings together what a process holds, and leaves the kernel's where it is.
func TestByProcess(t *testing.T) {
	var got []int
	for _, h := range byProcess([]unload.Holder{{PID: 2, FD: 1}, {FD: 2}, {PID: 1, FD: 3}, {PID: 2, FD: 4}, {FD: 5}, {PID: 1, FD: 6}}) {
		got = append(got, h.FD)
	}
	if want := []int{1, 4, 2, 3, 6, 5}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
