package stats

import (
	"cmp"
	"slices"

	"github.com/DataDog/sketches-go/ddsketch/mapping"

	"github.com/modtrace/modtrace/unload"
)

// tally is what became of the attempts to unload a module.
type tally struct {
	counts unload.Tally // all but what is in the fields below
	whole  series
	phases []*phase // by the number of their place, nil for those that were not seen
}

// phase is how long a phase took, and what for.
type phase struct {
	series
	on, off int64
	waits   []unload.CauseTime
}

// most of what comes as a reason or a cause is known.
const (
	maxReasons = 32
	maxCauses  = 24
)

func compare(a, b int64) int { return cmp.Compare(a, b) }

func (t *tally) add(u *unload.Unload, whole reading, times []spent, m mapping.IndexMapping) {
	c := &t.counts
	c.Attempts++
	c.LostEvents = unload.Plus(c.LostEvents, u.LostEvents)
	if !u.Complete {
		c.Incomplete++
	}
	t.look(u)
	switch u.Result.Kind() {
	case unload.Refused:
		c.Refused++
		t.refuse(u.Result.Reason)
		return
	case unload.Unanswered:
		c.Unanswered++
		return
	}
	c.Unloaded++
	t.whole.add(whole, m)
	for i := range times {
		if times[i].seen {
			t.phase(i).add(&times[i], m)
		}
	}
}

// look keeps an attempt if it is the longest.
func (t *tally) look(u *unload.Unload) {
	if u.Duration > t.counts.Worst.Duration {
		t.counts.Worst = worst(u)
	}
}

func (t *tally) refuse(why unload.Reason) {
	if why == "" {
		why = unload.ReasonUnknown
	}
	if t.counts.Reasons == nil {
		t.counts.Reasons = map[unload.Reason]int64{}
	}
	if _, ok := t.counts.Reasons[why]; !ok {
		if len(t.counts.Reasons) >= maxReasons {
			why = unload.Others
		}
		why = unload.Reason(kept(string(why)))
	}
	t.counts.Reasons[why]++
}

func (t *tally) phase(n int) *phase {
	if n >= len(t.phases) {
		t.phases = append(t.phases, make([]*phase, n+1-len(t.phases))...)
	}
	if t.phases[n] == nil {
		t.phases[n] = &phase{}
	}
	return t.phases[n]
}

func (p *phase) add(s *spent, m mapping.IndexMapping) {
	p.series.add(s.reading, m)
	p.on, p.off = unload.Plus(p.on, s.on), unload.Plus(p.off, s.off)
	for _, part := range s.parts {
		for i := range part.Waits {
			p.wait(&part.Waits[i])
		}
	}
}

func (p *phase) wait(w *unload.Wait) {
	i := slices.IndexFunc(p.waits, func(c unload.CauseTime) bool { return c.Cause == w.Cause })
	if i < 0 {
		if i = len(p.waits); i >= maxCauses {
			return
		}
		p.waits = append(p.waits, unload.CauseTime{Cause: unload.Cause(kept(string(w.Cause)))})
	}
	p.waits[i].Count = unload.Plus(p.waits[i].Count, max(w.Count, 1))
	p.waits[i].Duration = unload.Plus(p.waits[i].Duration, w.Duration)
}

// summary gives what there is to say of it.
func (t *tally) summary(where *places, m mapping.IndexMapping) unload.Tally {
	s := t.counts
	s.Reasons = map[unload.Reason]int64{}
	for why, n := range t.counts.Reasons {
		s.Reasons[why] = n
	}
	s.Duration = t.whole.times(m)
	s.Phases = []unload.PhaseTimes{}
	for _, n := range where.inOrder() {
		if n >= len(t.phases) || t.phases[n] == nil {
			continue
		}
		p := t.phases[n]
		s.Phases = append(s.Phases, unload.PhaseTimes{
			Name: where.all[n].name, Merged: slices.Clone(where.all[n].merged),
			Times: p.times(m), OnCPU: p.on, OffCPU: p.off,
			Waits: slices.SortedStableFunc(slices.Values(p.waits), func(a, b unload.CauseTime) int { return compare(b.Duration, a.Duration) }),
		})
	}
	return s
}
