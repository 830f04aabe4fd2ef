package tracer

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/modtrace/modtrace/bpf"
	"github.com/modtrace/modtrace/unload"
)

// wholePlan is a plan in which every hook is attached.
func wholePlan() Plan {
	var plan Plan
	for _, h := range hooks() {
		p := planned(h)
		settle(&p, h, 0, "")
		plan = append(plan, p)
	}
	return plan
}

// without marks the hooks of the named phases.
func (p Plan) without(status unload.Status, phases ...unload.PhaseName) Plan {
	for i := range p {
		for _, name := range phases {
			if p[i].Phase == name {
				p[i].Status = status
			}
		}
	}
	return p
}

const begun = 1000

// passed makes the end record of an unload that came to each of the given
// boundaries, 10 ns apart, and returned result.
func passed(result int64, boundaries ...bpf.UnloadBoundary) *bpf.UnloadEnd {
	e := &bpf.UnloadEnd{Result: result, Module: 0xffff, HasInit: 1, HasExit: 1, Refcnt: 1}
	e.Header.Begin, e.Header.Tid = begun, 7
	e.Header.Kind = uint32(bpf.UnloadKindKIND_END)
	copy(e.Name[:], "mod")
	e.At[0] = begun
	for i, b := range boundaries {
		e.At[b] = begun + 10*uint64(i+1)
		e.Stage = uint32(b)
	}
	e.At[bpf.UnloadBoundaryAT_END] = begun + 10*uint64(len(boundaries)+1)
	return e
}

// all lists the boundaries between the system call's beginning and its end,
// less those named.
func all(but ...bpf.UnloadBoundary) []bpf.UnloadBoundary {
	var list []bpf.UnloadBoundary
boundaries:
	for b := bpf.UnloadBoundaryAT_CHECK; b <= bpf.UnloadBoundaryAT_RETURN; b++ {
		for _, x := range but {
			if b == x {
				continue boundaries
			}
		}
		list = append(list, b)
	}
	return list
}

// shape is what matters of a phase in these tests.
type shape struct {
	Name     unload.PhaseName
	Duration int64
	Merged   string
}

func shapes(phases []unload.Phase) []shape {
	var list []shape
	for _, p := range phases {
		merged := ""
		for _, m := range p.Merged {
			merged += string(m) + " "
		}
		list = append(list, shape{p.Name, p.Duration, merged})
	}
	return list
}

func conserved(t *testing.T, u unload.Unload) {
	t.Helper()
	var sum int64
	for i, p := range u.Phases {
		if p.Offset != sum {
			t.Errorf("phase %s begins at %d ns, the one before it ends at %d", p.Name, p.Offset, sum)
		}
		if p.OnCPU+p.OffCPU != p.Duration || p.OnCPU < 0 {
			t.Errorf("phase %d: %d on and %d off the CPU are not %d", i, p.OnCPU, p.OffCPU, p.Duration)
		}
		if p.Exact != (len(p.Merged) == 0) {
			t.Errorf("phase %s: exact is %v, merged %v", p.Name, p.Exact, p.Merged)
		}
		sum += p.Duration
	}
	if sum != u.Duration || u.Unaccounted != 0 {
		t.Errorf("phases are %d ns of %d, %d unaccounted", sum, u.Duration, u.Unaccounted)
	}
}

func TestPhases(t *testing.T) {
	ten := func(names ...unload.PhaseName) []shape {
		var list []shape
		for _, n := range names {
			list = append(list, shape{n, 10, ""})
		}
		return list
	}
	names := unload.PhaseNames()
	tests := map[string]struct {
		plan     Plan
		end      *bpf.UnloadEnd
		want     []shape
		complete bool
	}{
		"all seen": {wholePlan(), passed(0, all()...), ten(names...), true},
		"a hook missing": {
			wholePlan().without(unload.StatusMissing, unload.FreeUnlink),
			passed(0, all(bpf.UnloadBoundaryAT_FREE_UNLINK)...),
			append(append(ten(names[:10]...), shape{unload.FreeParams, 10, "free.unlink "}), ten(names[12:]...)...),
			true,
		},
		"a boundary not seen": {
			wholePlan(),
			passed(0, all(bpf.UnloadBoundaryAT_FREE_UNLINK)...),
			append(append(ten(names[:10]...), shape{unload.FreeParams, 10, "free.unlink "}), ten(names[12:]...)...),
			false,
		},
		"not done on this kernel": {
			wholePlan().without(unload.StatusAbsent, unload.Livepatch),
			passed(0, all(bpf.UnloadBoundaryAT_LIVEPATCH)...),
			append(append(ten(names[:4]...), shape{unload.Livepatch, 0, ""}), ten(names[5:]...)...),
			true,
		},
		"not done, and what follows not seen": {
			wholePlan().without(unload.StatusAbsent, unload.Livepatch).without(unload.StatusMissing, unload.Ftrace),
			passed(0, all(bpf.UnloadBoundaryAT_LIVEPATCH, bpf.UnloadBoundaryAT_FTRACE)...),
			append(append(ten(names[:3]...), shape{unload.Notify, 10, "livepatch ftrace "}), ten(names[6:]...)...),
			true,
		},
		"nothing but the call seen": {
			wholePlan().without(unload.StatusMissing, names[1:]...),
			passed(0),
			[]shape{{unload.Enter, 10, "check exit notify livepatch ftrace async free.sysfs free.arch free.deps free.params free.unlink free.memory return "}},
			true,
		},
		"refused after the look-up": {
			wholePlan(),
			passed(-int64(unix.EWOULDBLOCK), bpf.UnloadBoundaryAT_CHECK, bpf.UnloadBoundaryAT_EXIT),
			[]shape{{unload.Enter, 10, ""}, {unload.Check, 20, "return "}},
			true,
		},
		"refused before it": {
			wholePlan(),
			passed(-int64(unix.EPERM)),
			[]shape{{unload.Enter, 10, "return "}},
			true,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			a := newAssembler(test.plan)
			a.add(&bpf.UnloadBegin{Header: test.end.Header})
			u, ok := a.add(test.end)
			if !ok {
				t.Fatal("the end gives no unload")
			}
			if diff := cmp.Diff(test.want, shapes(u.Phases)); diff != "" {
				t.Errorf("phases (-want +got):\n%s", diff)
			}
			if u.Complete != test.complete {
				t.Errorf("complete is %v, missing %q", u.Complete, u.Missing)
			}
			conserved(t, u)
		})
	}
}

func TestOffCPUStaysInItsPhase(t *testing.T) {
	e := passed(0, all(bpf.UnloadBoundaryAT_FREE_UNLINK)...)
	e.OffCpu[bpf.UnloadBoundaryAT_EXIT] = 4
	e.OffCpu[bpf.UnloadBoundaryAT_FREE_PARAMS] = 3
	u, _ := newAssembler(wholePlan()).add(e)
	conserved(t, u)
	for _, p := range u.Phases {
		want := map[unload.PhaseName]int64{unload.Exit: 4, unload.FreeParams: 3}[p.Name]
		if p.OffCPU != want {
			t.Errorf("%s: %d ns off the CPU, want %d", p.Name, p.OffCPU, want)
		}
	}
}

func TestDied(t *testing.T) {
	e := passed(0, bpf.UnloadBoundaryAT_CHECK, bpf.UnloadBoundaryAT_EXIT)
	e.Died = 1
	u, _ := newAssembler(wholePlan()).add(e)
	conserved(t, u)
	if u.Complete || u.Result.OK || u.Result.Reason != unload.ReasonUnknown {
		t.Errorf("complete %v, result %+v", u.Complete, u.Result)
	}
	if last := u.Phases[len(u.Phases)-1].Name; last != unload.Exit {
		t.Errorf("the last phase is %s, want exit", last)
	}
}

// TestReturnUnseen takes a task that ends when all of the module is freed for one
// that has returned.
func TestReturnUnseen(t *testing.T) {
	e := passed(0, all()...)
	e.Died = 1
	u, _ := newAssembler(wholePlan()).add(e)
	conserved(t, u)
	if u.Outcome != unload.Returned || !u.Result.OK || u.Complete || len(u.Missing) != 2 {
		t.Errorf("outcome %s, result %+v, missing %q", u.Outcome, u.Result, u.Missing)
	}
}

func TestInFlightAtTheEnd(t *testing.T) {
	e := passed(0, bpf.UnloadBoundaryAT_CHECK, bpf.UnloadBoundaryAT_EXIT)
	e.At[bpf.UnloadBoundaryAT_END] = 0
	e.OffSince = begun + 25
	rest := newAssembler(wholePlan()).rest([]*bpf.UnloadSlot{{End: *e}}, begun+500)
	if len(rest) != 1 {
		t.Fatalf("%d unloads, want 1", len(rest))
	}
	u := rest[0]
	conserved(t, u)
	if u.Duration != 500 || u.Complete || u.Result.Errno != "" {
		t.Errorf("duration %d, complete %v, result %+v", u.Duration, u.Complete, u.Result)
	}
	last := u.Phases[len(u.Phases)-1]
	if last.Name != unload.Exit || last.OffCPU != 475 || len(last.Waits) != 1 || last.Waits[0].Duration != 475 {
		t.Errorf("last phase %+v", last)
	}
}

func TestLostEndIsReported(t *testing.T) {
	a := newAssembler(wholePlan())
	b := &bpf.UnloadBegin{}
	b.Header.Begin, b.Header.Tid = begun, 7
	copy(b.Name[:], "gone")
	a.add(b)
	rest := a.rest(nil, begun+500)
	if len(rest) != 1 || rest[0].Module != "gone" || rest[0].Complete {
		t.Errorf("reported %+v", rest)
	}
	if again := a.rest(nil, begun+500); len(again) != 0 {
		t.Errorf("reported twice: %+v", again)
	}
}

func TestPendingIsBounded(t *testing.T) {
	a := newAssembler(wholePlan())
	reported := 0
	for i := range 3 * maxPending {
		b := &bpf.UnloadBegin{}
		b.Header.Begin, b.Header.Tid = uint64(i+1), 7
		if _, ok := a.add(b); ok {
			reported++
		}
	}
	if len(a.pending) > maxPending || reported != 2*maxPending {
		t.Errorf("%d pending, %d reported", len(a.pending), reported)
	}
}

func TestReason(t *testing.T) {
	type state struct {
		found, users         bool
		state                uint32
		hasExit, noCap, disb bool
	}
	live := state{found: true, hasExit: true}
	tests := []struct {
		errno unix.Errno
		state state
		want  unload.Reason
	}{
		{0, live, unload.ReasonNone},
		{unix.ENOENT, state{}, unload.ReasonNotFound},
		{unix.EINTR, state{}, unload.ReasonInterrupted},
		{unix.EFAULT, state{}, unload.ReasonBadAddress},
		{unix.EWOULDBLOCK, state{found: true, hasExit: true, users: true}, unload.ReasonDependents},
		{unix.EWOULDBLOCK, live, unload.ReasonReferenced},
		{unix.EWOULDBLOCK, state{}, unload.ReasonUnknown},
		{unix.EBUSY, state{found: true, hasExit: true, state: stateComing}, unload.ReasonLoading},
		{unix.EBUSY, state{found: true, hasExit: true, state: stateGoing}, unload.ReasonUnloading},
		{unix.EBUSY, state{found: true}, unload.ReasonNoExit},
		{unix.EBUSY, live, unload.ReasonUnknown},
		{unix.EPERM, state{noCap: true, disb: true}, unload.ReasonNoCapability},
		{unix.EPERM, state{disb: true}, unload.ReasonModulesDisabled},
		{unix.EPERM, state{}, unload.ReasonDenied},
		{unix.ENOMEM, live, unload.ReasonUnknown},
	}
	bit := func(b bool) uint8 {
		if b {
			return 1
		}
		return 0
	}
	for _, test := range tests {
		e := &bpf.UnloadEnd{Result: -int64(test.errno), State: test.state.state, HasInit: 1,
			HasExit: bit(test.state.hasExit), HasUsers: bit(test.state.users), NoCapability: bit(test.state.noCap)}
		if test.state.found {
			e.Module = 1
		}
		got := result(e, func() bool { return test.state.disb })
		if got.Reason != test.want || got.OK != (test.errno == 0) || got.By != unload.ByKernel {
			t.Errorf("%v with %+v: %+v, want %s", test.errno, test.state, got, test.want)
		}
	}
}
