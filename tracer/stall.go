package tracer

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
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
		a.lookAt(&st.Wait, st.Module, st.Caller.TID)
	}
	a.recordStall(s, now, st.Wait.Blocker)
	return st
}

// stallRecord is in a recording what a stall was told from: the state of the unload
// at a time, and what could be seen of its blocker.
type stallRecord struct {
	now     uint64
	slot    bpf.UnloadSlot
	blocker unload.Blocker
}

// encodeStall makes the raw record of a stall.
func encodeStall(s *bpf.UnloadSlot, now uint64, b unload.Blocker) ([]byte, error) {
	header := s.End.Header
	header.Kind = uint32(bpf.UnloadKindKIND_STALL)
	raw, err := binary.Append(nil, binary.NativeEndian, header)
	if err != nil {
		return nil, err
	}
	raw = binary.NativeEndian.AppendUint64(raw, now)
	if raw, err = binary.Append(raw, binary.NativeEndian, s); err != nil {
		return nil, err
	}
	text, err := json.Marshal(b)
	return append(raw, text...), err
}

func decodeStall(raw []byte) (any, error) {
	e := &stallRecord{}
	from := headerSize + 8
	to := from + binary.Size(&e.slot)
	if len(raw) < to {
		return nil, fmt.Errorf("%w: %d bytes for a %T", errDamaged, len(raw), e)
	}
	e.now = binary.NativeEndian.Uint64(raw[headerSize:])
	if _, err := binary.Decode(raw[from:to], binary.NativeEndian, &e.slot); err != nil {
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	if err := json.Unmarshal(raw[to:], &e.blocker); err != nil {
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	if s := &e.slot.End; !stampsAreSound(s) || s.Stage >= uint32(bpf.UnloadBoundaryAT_END) || e.now < s.Last || e.now-s.Header.Begin >= 1<<62 || !callbacksAreSound(s) {
		return nil, fmt.Errorf("%w: a %T that contradicts itself", errDamaged, e)
	}
	return e, nil
}

// again tells of a stall that was recorded.
func (a *assembler) again(e *stallRecord) {
	live := a.lookAt
	a.lookAt = func(w *unload.Wait, _ string, _ int) { w.Blocker = e.blocker }
	a.stalled(a.stall(&e.slot, e.now))
	a.lookAt = live
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
