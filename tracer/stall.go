package tracer

import (
	"maps"
	"slices"
	"time"

	"github.com/modtrace/modtrace/bpf"
	"github.com/modtrace/modtrace/unload"
)

// watch looks after unloads that hang.
type watch struct {
	after time.Duration // in one phase, until it is a stall
	tell  func(unload.Stall)
	pause time.Duration // between looks
	last  time.Time
	told  map[taskKey]stalled
}

// stalled is what was told last of an unload.
type stalled struct {
	stage   uint32
	elapsed uint64
}

func newWatch(after time.Duration, tell func(unload.Stall)) *watch {
	w := &watch{after: after, tell: tell, pause: time.Hour}
	if tell != nil && after > 0 {
		w.pause = min(max(after/8, 10*time.Millisecond), time.Second)
	}
	return w
}

// due says whether it is time to look.
func (w *watch) due() bool {
	if w.tell == nil || w.after <= 0 || time.Since(w.last) < w.pause {
		return false
	}
	w.last = time.Now()
	return true
}

// look tells of each unload in flight that is due to be told of at time now.
func (w *watch) look(a *assembler, open []*bpf.UnloadSlot, now uint64) {
	told := map[taskKey]stalled{}
	for _, s := range open {
		key := taskKey{s.End.Header.Begin, s.End.Header.Tid}
		since := s.End.At[s.End.Stage]
		if now < since {
			continue
		}
		elapsed := now - since
		before, again := w.told[key]
		again = again && before.stage == s.End.Stage
		if again {
			told[key] = before
		}
		if elapsed < uint64(w.after) || again && elapsed < 2*before.elapsed {
			continue
		}
		told[key] = stalled{s.End.Stage, elapsed}
		w.tell(a.stall(s, now))
	}
	w.told = told
}

// stall is what is known at time now of an unload in flight.
func (a *assembler) stall(s *bpf.UnloadSlot, now uint64) unload.Stall {
	key := taskKey{s.End.Header.Begin, s.End.Header.Tid}
	p := newPending()
	if known := a.pending[key]; known != nil {
		p = known.clone()
	}
	st := unload.Stall{
		Unload:  a.soFar(p, s, now),
		Phase:   stageName(s.End.Stage),
		Elapsed: int64(now - s.End.At[s.End.Stage]),
	}
	st.Type = unload.TypeStall
	st.Wait = unload.Wait{Stack: []string{}}
	if w := currentWait(s); w != nil && now >= w.Since {
		st.Wait = a.begun(w).wait
		st.Wait.Duration = int64(now - w.Since)
		st.Wait.Longest = st.Wait.Duration
		lookAt(&st.Wait, st.Module, st.Caller.TID, procTasks)
	}
	return st
}

// soFar makes the report of an unload that is still in flight at time now; the
// wait that it is in counts up to then.
func (a *assembler) soFar(p *pending, s *bpf.UnloadSlot, now uint64) unload.Unload {
	e := s.End
	if w := currentWait(s); w != nil && now >= w.Since {
		p.waiting, p.waker = a.begun(w), nil // nobody has ended it yet
		e.OffCpu[w.Boundary] += now - w.Since
		e.Until = now
	}
	e.At[bpf.UnloadBoundaryAT_END] = max(now, e.At[e.Stage])
	e.Result = inFlight
	u := a.report(p, &e)
	u.Outcome = unload.InFlight
	u.Complete = false
	return u
}

// currentWait is the wait that an unload is in, or nil.
func currentWait(s *bpf.UnloadSlot) *bpf.UnloadWait {
	w := s.Wait
	if s.End.OffSince == 0 {
		return nil
	}
	w.Since, w.Number, w.Boundary = s.End.OffSince, s.End.Waits, s.End.Stage
	w.Depth = min(w.Depth, uint32(len(w.Stack)))
	return &w
}

// clone copies what must not change when a wait is added.
func (p *pending) clone() *pending {
	c := *p
	c.hot, c.waits, c.devices = maps.Clone(p.hot), map[string]*fold{}, slices.Clone(p.devices)
	for key, f := range p.waits {
		again := *f
		c.waits[key] = &again
	}
	return &c
}
