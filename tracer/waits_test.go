package tracer

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/modtrace/modtrace/bpf"
	"github.com/modtrace/modtrace/unload"
)

// symbols are the addresses of the tests below.
var symbols = map[uint64]string{
	1:  "bpf_prog_0123_go_off+0x1",
	2:  "__schedule+0x100",
	3:  "schedule+0x20",
	4:  "schedule_timeout+0x30",
	5:  "wait_for_completion+0x40",
	6:  "__flush_work+0x50",
	7:  "slow_exit+0x10 [slow]",
	8:  "__do_sys_delete_module+0x10",
	9:  "do_syscall_64+0x10",
	10: "msleep+0x10",
	11: "try_to_wake_up+0x10",
	12: "complete+0x10",
	13: "process_one_work+0x10",
	14: "asm_sysvec_apic_timer_interrupt+0x1a",
	15: "default_idle+0x1",
	16: "__mutex_lock.constprop.0+0x1",
	17: "kthread_stop+0x5",
	18: "bpf_trampoline_42+0x5",
	19: "slow_spin+0x5 [slow]",
	20: "slow_exit+0x5 [slow]",
	21: "hrtimer_interrupt+0x1",
	31: "work_fn+0x1 [slow]",
}

func symbolic() *assembler {
	a := newAssembler(wholePlan())
	a.names = newNames(func(addresses []uint64) []string {
		var list []string
		for _, x := range addresses {
			list = append(list, symbols[x])
		}
		return list
	})
	return a
}

// waited is a wait of so many ns in the exit function.
func waited(ns uint64, stack ...uint64) *bpf.UnloadWait {
	e := &bpf.UnloadWait{Since: begun + 100, Until: begun + 100 + ns, Boundary: uint32(bpf.UnloadBoundaryAT_EXIT)}
	e.Header.Begin, e.Header.Tid, e.Header.Kind = begun, 7, uint32(bpf.UnloadKindKIND_WAIT)
	e.Depth = uint32(copy(e.Stack[:], stack))
	return e
}

func woken(e *bpf.UnloadWait, comm string, stack ...uint64) *bpf.UnloadWait {
	e.Woken, e.WakerPid = 1, 77
	copy(e.WakerComm[:], comm)
	e.WakerDepth = uint32(copy(e.WakerStack[:], stack))
	return e
}

func blocked(e *bpf.UnloadWait, kind bpf.UnloadBlockerKind) *bpf.UnloadWait {
	e.Blocker.Kind, e.Blocker.Pid, e.Blocker.Function = uint32(kind), 55, 30
	copy(e.Blocker.Comm[:], "owner")
	copy(e.Blocker.Detail[:], "name")
	return e
}

func flushing(ns uint64) *bpf.UnloadWait { return waited(ns, 1, 2, 3, 4, 5, 6, 18, 7, 8, 9) }

// TestWait tells from one wait's stack, note and waker what it was for.
func TestWait(t *testing.T) {
	stack := []string{
		"schedule+0x20", "schedule_timeout+0x30", "wait_for_completion+0x40", "__flush_work+0x50",
		"slow_exit+0x10 [slow]", "__do_sys_delete_module+0x10",
	}
	lock := []string{"schedule+0x20", "__mutex_lock.constprop.0+0x1", "slow_exit+0x10 [slow]", "__do_sys_delete_module+0x10"}
	worker := unload.Blocker{Kind: "task", PID: 77, Comm: "kworker/0:1", Stack: []string{"complete+0x10", "process_one_work+0x10"}}
	for name, tt := range map[string]struct {
		event *bpf.UnloadWait
		want  unload.Wait
	}{
		"a work item": {
			woken(blocked(flushing(9), bpf.UnloadBlockerKindBLOCKER_WORK), "kworker/0:1", 1, 11, 12, 13),
			unload.Wait{Cause: unload.CauseWorkqueue, Waker: worker, Stack: stack, Blocker: unload.Blocker{
				Kind: "work", PID: 77, Comm: "kworker/0:1", Function: "work_fn", Module: "slow"}},
		},
		"a work item, let go by somebody else": {
			woken(blocked(flushing(9), bpf.UnloadBlockerKindBLOCKER_WORK), "rmmod"),
			unload.Wait{Cause: unload.CauseWorkqueue, Waker: unload.Blocker{Kind: "task", PID: 77, Comm: "rmmod", Stack: []string{}},
				Stack: stack, Blocker: unload.Blocker{Kind: "work", Function: "work_fn", Module: "slow"}},
		},
		"a note of something else": {
			blocked(flushing(9), bpf.UnloadBlockerKindBLOCKER_KTHREAD),
			unload.Wait{Cause: unload.CauseWorkqueue, Stack: stack},
		},
		"a workqueue": {
			blocked(flushing(9), bpf.UnloadBlockerKindBLOCKER_WORKQUEUE),
			unload.Wait{Cause: unload.CauseWorkqueue, Stack: stack, Blocker: unload.Blocker{Kind: "workqueue", Detail: "name"}},
		},
		"a lock": {
			blocked(waited(9, 2, 3, 16, 7, 8), bpf.UnloadBlockerKindBLOCKER_LOCK),
			unload.Wait{Cause: unload.CauseMutex, Stack: lock, Blocker: unload.Blocker{Kind: "task", PID: 55, Comm: "owner"}},
		},
		"an interrupt": {
			woken(waited(9, 2, 3, 10, 7, 8), "swapper/1", 11, 12, 14, 15),
			unload.Wait{Cause: unload.CauseSleep, Stack: []string{"schedule+0x20", "msleep+0x10", "slow_exit+0x10 [slow]", "__do_sys_delete_module+0x10"},
				Waker: unload.Blocker{Kind: "interrupt", Stack: []string{"complete+0x10", "asm_sysvec_apic_timer_interrupt+0x1a"}}},
		},
		"preempted": {
			func() *bpf.UnloadWait { e := flushing(9); e.Preempted = 1; return e }(),
			unload.Wait{Cause: unload.CausePreempted, Stack: []string{}},
		},
		"no stack": {waited(9), unload.Wait{Cause: unload.CauseOther, Stack: []string{}}},
	} {
		tt.want.Count, tt.want.Duration, tt.want.Longest = 1, 9, 9
		if diff := cmp.Diff(tt.want, symbolic().wait(tt.event)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// TestFolding adds up waits that are alike, and gives them to the phase that
// their time is in, also when that is merged into another.
func TestFolding(t *testing.T) {
	a := symbolic()
	for _, e := range []*bpf.UnloadWait{
		woken(flushing(5), "early"), woken(flushing(20), "late"), woken(flushing(5), "other"),
		waited(100, 2, 3, 10, 7, 8),
	} {
		a.add(e)
	}
	elsewhere := flushing(7)
	elsewhere.Boundary = uint32(bpf.UnloadBoundaryAT_NOTIFY)
	a.add(elsewhere)
	for i := range 3 {
		s := &bpf.UnloadSample{Boundary: uint32(bpf.UnloadBoundaryAT_EXIT), Time: begun + 1}
		s.Header.Begin, s.Header.Tid, s.Header.Kind = begun, 7, uint32(bpf.UnloadKindKIND_SAMPLE)
		s.Depth = uint32(copy(s.Stack[:], []uint64{1, 21, 14, []uint64{19, 19, 20}[i], 7, 8, 9}))
		a.add(s)
	}
	boundaries := all()
	u, ok := a.add(passed(0, append(boundaries[:2:2], boundaries[3:]...)...)) // notify was not seen
	if !ok {
		t.Fatal("no unload")
	}
	exit := u.Phases[2]
	if exit.Name != unload.Exit || len(exit.Merged) != 1 || exit.Merged[0] != unload.Notify {
		t.Fatalf("the third phase is %s with %v", exit.Name, exit.Merged)
	}
	type sum struct {
		Cause                    unload.Cause
		Count, Duration, Longest int64
		Waker                    string
	}
	var got []sum
	for _, w := range exit.Waits {
		got = append(got, sum{w.Cause, w.Count, w.Duration, w.Longest, w.Waker.Comm})
	}
	want := []sum{{unload.CauseSleep, 1, 100, 100, ""}, {unload.CauseWorkqueue, 3, 30, 20, "late"}, {unload.CauseWorkqueue, 1, 7, 7, ""}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("waits (-want +got):\n%s", diff)
	}
	hot := []unload.Hot{
		{Samples: 2, Stack: []string{"slow_spin+0x5 [slow]", "slow_exit+0x10 [slow]", "__do_sys_delete_module+0x10"}},
		{Samples: 1, Stack: []string{"slow_exit+0x5 [slow]", "slow_exit+0x10 [slow]", "__do_sys_delete_module+0x10"}},
	}
	if diff := cmp.Diff(hot, exit.Hot); diff != "" {
		t.Errorf("samples (-want +got):\n%s", diff)
	}
}

// TestFoldsAreBounded keeps an unload with endless kinds of waits from taking
// endless memory, and loses no time of theirs.
func TestFoldsAreBounded(t *testing.T) {
	a := symbolic()
	const n = 3 * maxFolds
	for i := range n {
		a.add(blocked(waited(1+uint64(i), 2, 3, 16, 7, 8), bpf.UnloadBlockerKindBLOCKER_LOCK))
		e := blocked(waited(1, 2, 3, 16, 7, 8), bpf.UnloadBlockerKindBLOCKER_LOCK)
		e.Blocker.Pid = uint32(i + 1)
		a.add(e)
	}
	u, _ := a.add(passed(0, all()...))
	var count int64
	for _, w := range u.Phases[2].Waits {
		count += w.Count
	}
	if len(u.Phases[2].Waits) > maxFolds+1 || count != 2*n {
		t.Errorf("%d waits in %d kinds, of %d", count, len(u.Phases[2].Waits), 2*n)
	}
}
