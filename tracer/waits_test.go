package tracer

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/modtrace/modtrace/bpf"
	"github.com/modtrace/modtrace/symbols"
	"github.com/modtrace/modtrace/unload"
)

// named are the addresses of the tests below.
var named = map[uint64]string{
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
	22: "kernfs_drain+0x10",
	31: "work_fn+0x1 [slow]",
	41: "rtnl_mutex+0x1",
}

func symbolic() *assembler {
	a := newAssembler(wholePlan())
	a.names = symbols.New(func(addresses []uint64) []string {
		var list []string
		for _, x := range addresses {
			list = append(list, named[x])
		}
		return list
	})
	return a
}

// story tells an assembler of one unload's waits, one after another.
type story struct {
	*assembler
	number     uint32
	until, now uint64
}

func newStory() *story { return &story{assembler: symbolic(), now: begun + 100} }

// waits has a wait last for so many ns, until by ends it.
func (s *story) waits(ns uint64, e *bpf.UnloadWait, by *bpf.UnloadWaking) {
	s.number++
	e.Number, e.Since, e.Until = s.number, s.now, s.until
	s.add(e)
	if by != nil {
		by.Number = s.number
		s.add(by)
	}
	s.until = s.now + ns
	s.now = s.until + 1
}

func (s *story) end(e *bpf.UnloadEnd) (unload.Unload, bool) {
	e.Waits, e.Until = s.number, s.until
	return s.add(e)
}

// off is a task that leaves the CPU in its exit function.
func off(stack ...uint64) *bpf.UnloadWait {
	e := &bpf.UnloadWait{Number: 1, Since: begun + 100, Boundary: uint32(bpf.UnloadBoundaryAT_EXIT)}
	e.Header.Begin, e.Header.Tid, e.Header.Kind = begun, 7, uint32(bpf.UnloadKindKIND_WAIT)
	e.Depth = uint32(copy(e.Stack[:], stack))
	return e
}

func by(comm string, stack ...uint64) *bpf.UnloadWaking {
	e := &bpf.UnloadWaking{Pid: 77}
	e.Header.Begin, e.Header.Tid, e.Header.Kind = begun, 7, uint32(bpf.UnloadKindKIND_WAKING)
	copy(e.Comm[:], comm)
	e.Depth = uint32(copy(e.Stack[:], stack))
	return e
}

func blocked(e *bpf.UnloadWait, kind bpf.UnloadBlockerKind) *bpf.UnloadWait {
	e.Blocker.Kind, e.Blocker.Pid, e.Blocker.Function, e.Blocker.Object = uint32(kind), 55, 30, 40
	copy(e.Blocker.Comm[:], "owner")
	copy(e.Blocker.Detail[:], "name")
	return e
}

func flushing() *bpf.UnloadWait { return off(1, 2, 3, 4, 5, 6, 18, 7, 8, 9) }

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
		by    *bpf.UnloadWaking
		want  unload.Wait
	}{
		"a work item": {
			blocked(flushing(), bpf.UnloadBlockerKindBLOCKER_WORK), by("kworker/0:1", 1, 11, 12, 13),
			unload.Wait{Cause: unload.CauseWorkqueue, Waker: worker, Stack: stack, Blocker: unload.Blocker{
				Kind: "work", PID: 77, Comm: "kworker/0:1", Function: "work_fn", Module: "slow"}},
		},
		"a work item, let go by somebody else": {
			blocked(flushing(), bpf.UnloadBlockerKindBLOCKER_WORK), by("rmmod"),
			unload.Wait{Cause: unload.CauseWorkqueue, Waker: unload.Blocker{Kind: "task", PID: 77, Comm: "rmmod", Stack: []string{}},
				Stack: stack, Blocker: unload.Blocker{Kind: "work", Function: "work_fn", Module: "slow"}},
		},
		"a note of something else": {
			blocked(flushing(), bpf.UnloadBlockerKindBLOCKER_KTHREAD), nil,
			unload.Wait{Cause: unload.CauseWorkqueue, Stack: stack},
		},
		"a workqueue": {
			blocked(flushing(), bpf.UnloadBlockerKindBLOCKER_WORKQUEUE), nil,
			unload.Wait{Cause: unload.CauseWorkqueue, Stack: stack, Blocker: unload.Blocker{Kind: "workqueue", Detail: "name"}},
		},
		"a lock": {
			blocked(off(2, 3, 16, 7, 8), bpf.UnloadBlockerKindBLOCKER_LOCK), nil,
			unload.Wait{Cause: unload.CauseMutex, Stack: lock, Blocker: unload.Blocker{Kind: "task", PID: 55, Comm: "owner", Detail: "rtnl_mutex"}},
		},
		"an interrupt": {
			off(2, 3, 10, 7, 8), by("swapper/1", 11, 12, 14, 15),
			unload.Wait{Cause: unload.CauseSleep, Stack: []string{"schedule+0x20", "msleep+0x10", "slow_exit+0x10 [slow]", "__do_sys_delete_module+0x10"},
				Waker: unload.Blocker{Kind: "interrupt", Stack: []string{"complete+0x10", "asm_sysvec_apic_timer_interrupt+0x1a"}}},
		},
		"preempted": {
			func() *bpf.UnloadWait { e := flushing(); e.Preempted = 1; return e }(), nil,
			unload.Wait{Cause: unload.CausePreempted, Stack: []string{}},
		},
		"a file in sysfs": {
			off(2, 3, 22, 7, 8), by("cat", 11, 12),
			unload.Wait{Cause: unload.CauseKernfsDrain, Stack: []string{"schedule+0x20", "kernfs_drain+0x10", "slow_exit+0x10 [slow]", "__do_sys_delete_module+0x10"},
				Waker:   unload.Blocker{Kind: "task", PID: 77, Comm: "cat", Stack: []string{"complete+0x10"}},
				Blocker: unload.Blocker{Kind: "file", PID: 77, Comm: "cat"}},
		},
		"no stack": {off(), nil, unload.Wait{Cause: unload.CauseOther, Stack: []string{}}},
	} {
		tt.want.Count, tt.want.Duration, tt.want.Longest = 1, 9, 9
		s := newStory()
		s.waits(9, tt.event, tt.by)
		u, _ := s.end(passed(0, all()...))
		if diff := cmp.Diff([]unload.Wait{tt.want}, u.Phases[2].Waits); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// TestFolding adds up waits that are alike, and gives them to the phase that
// their time is in, also when that is merged into another.
func TestFolding(t *testing.T) {
	a := newStory()
	a.waits(5, flushing(), by("early"))
	a.waits(20, flushing(), by("late"))
	a.waits(5, flushing(), by("other"))
	a.waits(100, off(2, 3, 10, 7, 8), nil)
	elsewhere := flushing()
	elsewhere.Boundary = uint32(bpf.UnloadBoundaryAT_NOTIFY)
	a.waits(7, elsewhere, nil)
	for i := range 3 {
		s := &bpf.UnloadSample{Boundary: uint32(bpf.UnloadBoundaryAT_EXIT), Time: begun + 1}
		s.Header.Begin, s.Header.Tid, s.Header.Kind = begun, 7, uint32(bpf.UnloadKindKIND_SAMPLE)
		s.Depth = uint32(copy(s.Stack[:], []uint64{1, 21, 14, []uint64{19, 19, 20}[i], 7, 8, 9}))
		a.add(s)
	}
	boundaries := all()
	u, ok := a.end(passed(0, append(boundaries[:2:2], boundaries[3:]...)...)) // notify was not seen
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
	a := newStory()
	const n = 3 * maxFolds
	for i := range n {
		a.waits(1, blocked(off(2, 3, 16, 7, 8), bpf.UnloadBlockerKindBLOCKER_LOCK), nil)
		e := blocked(off(2, 3, 16, 7, 8), bpf.UnloadBlockerKindBLOCKER_LOCK)
		e.Blocker.Pid = uint32(i + 1)
		a.waits(1, e, nil)
	}
	u, _ := a.end(passed(0, all()...))
	var count int64
	for _, w := range u.Phases[2].Waits {
		count += w.Count
	}
	if len(u.Phases[2].Waits) > maxFolds+1 || count != 2*n {
		t.Errorf("%d waits in %d kinds, of %d", count, len(u.Phases[2].Waits), 2*n)
	}
}

// TestLostWaits tells nothing of a wait of which it is not known how long it was:
// the record of the next one, or of its own beginning, was lost.
func TestLostWaits(t *testing.T) {
	a := newStory()
	a.waits(5, off(2, 3, 10, 7, 8), nil)
	a.number++ // lost
	a.waits(7, off(2, 3, 10, 7, 8), nil)
	a.waits(11, off(2, 3, 10, 7, 8), nil)
	a.number++ // lost
	u, _ := a.end(passed(0, all()...))
	want := unload.Wait{Cause: unload.CauseSleep, Count: 1, Duration: 7, Longest: 7, Stack: u.Phases[2].Waits[0].Stack}
	if diff := cmp.Diff([]unload.Wait{want}, u.Phases[2].Waits); diff != "" {
		t.Errorf("waits (-want +got):\n%s", diff)
	}
}

// TestWakerOfAnotherWait does not take who ended one wait for who ended another.
func TestWakerOfAnotherWait(t *testing.T) {
	a := newStory()
	a.waits(5, off(2, 3, 10, 7, 8), by("somebody"))
	a.waits(5, off(2, 3, 7, 8), nil)
	u, _ := a.end(passed(0, all()...))
	for _, w := range u.Phases[2].Waits {
		if known := w.Waker.Comm == "somebody"; known != (w.Cause == unload.CauseSleep) {
			t.Errorf("%s was ended by %+v", w.Cause, w.Waker)
		}
	}
}
