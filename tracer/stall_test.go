package tracer

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/modtrace/modtrace/bpf"
	"github.com/modtrace/modtrace/unload"
)

// hanging is an unload that has been in its exit function since begun+20, and
// waits there for a mutex since begun+25.
func hanging() *bpf.UnloadSlot {
	e := passed(0, bpf.UnloadBoundaryAT_CHECK, bpf.UnloadBoundaryAT_EXIT)
	e.At[bpf.UnloadBoundaryAT_END] = 0
	e.OffSince, e.Waits = begun+25, 2
	w := blocked(off(2, 3, 16, 7, 8), bpf.UnloadBlockerKindBLOCKER_LOCK)
	w.Blocker.Pid = 1 << 30 // nobody's, so that nobody is looked at
	return &bpf.UnloadSlot{Owners: 1, Tid: 7, End: *e, Wait: *w}
}

// TestStallIsToldInTime looks at an unload that hangs every 100 ns: it is told
// once it has hung for long enough, then at doubling intervals, and anew in
// another phase.
func TestStallIsToldInTime(t *testing.T) {
	var told []int64
	var phases []unload.PhaseName
	w := newWatch(1000, func(s unload.Stall) {
		told = append(told, s.Elapsed)
		phases = append(phases, s.Phase)
	})
	a, s := symbolic(), hanging()
	for now := uint64(begun + 20); now < begun+9000; now += 100 {
		w.look(a, []*bpf.UnloadSlot{s}, now)
	}
	s.End.Stage, s.End.OffSince = uint32(bpf.UnloadBoundaryAT_NOTIFY), 0
	s.End.At[bpf.UnloadBoundaryAT_NOTIFY] = begun + 9000
	for now := uint64(begun + 9000); now < begun+10500; now += 100 {
		w.look(a, []*bpf.UnloadSlot{s}, now)
	}
	if diff := cmp.Diff([]int64{1000, 2000, 4000, 8000, 1000}, told); diff != "" {
		t.Errorf("told after (-want +got):\n%s", diff)
	}
	if phases[3] != unload.Exit || phases[4] != unload.Notify {
		t.Errorf("told in %v", phases)
	}
	w.look(a, nil, begun+11000)
	if len(w.told) != 0 {
		t.Errorf("still minds %d unloads that have ended", len(w.told))
	}
}

// TestStall tells all that is known so far, without taking it from the report
// that comes at the end.
func TestStall(t *testing.T) {
	a, s := newStory(), hanging()
	a.now = begun + 21
	a.waits(3, off(2, 3, 10, 7, 8), nil)
	again := s.Wait
	a.waits(500, &again, nil)
	st := a.stall(s, begun+500)
	if st.Type != unload.TypeStall || st.Module != "mod" || st.Phase != unload.Exit || st.Elapsed != 480 || st.Duration != 500 {
		t.Errorf("stall %+v", st)
	}
	if w := st.Wait; w.Cause != unload.CauseMutex || w.Duration != 475 || w.Blocker.Comm != "owner" || w.Waker.Kind != "" {
		t.Errorf("wait %+v", w)
	}
	last := st.Phases[len(st.Phases)-1]
	if len(last.Waits) != 2 || last.OffCPU != 475 {
		t.Errorf("last phase %+v", last)
	}
	u, _ := a.end(passed(0, all()...))
	if waits := u.Phases[2].Waits; len(waits) != 2 || waits[0].Duration != 500 || waits[1].Duration != 3 {
		t.Errorf("waits at the end: %+v", waits)
	}
	s.End.OffSince = 0
	if st := a.stall(s, begun+500); st.Wait.Count != 0 {
		t.Errorf("a task that runs waits: %+v", st.Wait)
	}
}

// TestNoStallWanted keeps quiet without a time or somebody to tell.
func TestNoStallWanted(t *testing.T) {
	for name, w := range map[string]*watch{
		"no time":  newWatch(0, func(unload.Stall) { t.Error("told") }),
		"nobody":   newWatch(time.Second, nil),
		"negative": newWatch(-time.Second, func(unload.Stall) { t.Error("told") }),
	} {
		if w.due() {
			t.Errorf("%s: due", name)
		}
	}
}
