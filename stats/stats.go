// Package stats says what many unloads have in common: for all and for each module how
// many were refused and why, how long the others took and in which phases. It needs memory
// for each module and phase, whatever the number of records.
package stats

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/DataDog/sketches-go/ddsketch/mapping"

	"github.com/modtrace/modtrace/unload"
)

// MaxModules is how many modules are told apart; those that come later are counted
// together as [unload.Others].
const MaxModules = 1000

// Stats takes the records of captures, in any order. It is used by one goroutine. What it
// is given stays the caller's.
type Stats struct {
	mapping  mapping.IndexMapping
	sum      unload.Summary // all but the tallies
	trailers int64
	hosts    names
	kernels  names
	where    places
	times    []spent // of the record at hand, by place
	all      tally
	modules  map[string]*tally
}

// spent is how long the phases of one place took in one unload.
type spent struct {
	seen bool
	reading
	on, off int64
	parts   []*unload.Phase
}

// New makes statistics of nothing yet.
func New() (*Stats, error) {
	bins, err := newBins()
	if err != nil {
		return nil, fmt.Errorf("preparing to count durations: %w", err)
	}
	return &Stats{mapping: bins, modules: map[string]*tally{}}, nil
}

// Take counts a record of a capture, given as a pointer to it. What is no attempt to
// unload a module, nor about one, says nothing here.
func (s *Stats) Take(record any) {
	switch v := record.(type) {
	case *unload.Header:
		s.Header(v)
	case *unload.Unload:
		s.Add(v)
	case *unload.Stall:
		s.Stall(v)
	case *unload.Reload:
		s.Reload(v)
	case *unload.Trailer:
		s.Trailer(v)
	}
}

// Header notes where a capture is from.
func (s *Stats) Header(h *unload.Header) {
	s.sum.Captures++
	s.hosts.see(h.Host)
	s.kernels.see(h.Kernel)
}

// Trailer notes what a capture as a whole has lost.
func (s *Stats) Trailer(t *unload.Trailer) {
	s.trailers++
	s.sum.MissedProbes = unload.Plus(s.sum.MissedProbes, t.MissedProbes)
	if s.sum.LostEvents == nil {
		s.sum.LostEvents = map[string]int64{}
	}
	for kind, n := range t.LostEvents {
		if _, ok := s.sum.LostEvents[kind]; !ok {
			if kind = kept(kind); len(s.sum.LostEvents) >= maxNames {
				kind = unload.Others
			}
		}
		s.sum.LostEvents[kind] = unload.Plus(s.sum.LostEvents[kind], n)
	}
}

// Add counts an attempt.
func (s *Stats) Add(u *unload.Unload) {
	s.began(u.Start)
	var whole reading
	if u.Result.Kind() == unload.Unloaded {
		whole = read(u.Duration, s.mapping)
		s.spend(u.Phases)
	}
	s.all.add(u, whole, s.times, s.mapping)
	s.module(u.Module).add(u, whole, s.times, s.mapping)
}

// Stall counts that an attempt hangs. How long it does so far is the longest of its
// module, if none took longer: its end may never be seen.
func (s *Stats) Stall(st *unload.Stall) {
	s.began(st.Start)
	for _, t := range []*tally{&s.all, s.module(st.Module)} {
		t.counts.Stalls++
		if !st.Found { // else it is not known how long
			t.look(&st.Unload)
		}
	}
}

// Reload counts that a module came back.
func (s *Stats) Reload(r *unload.Reload) {
	s.all.counts.Reloads++
	s.module(r.Module).counts.Reloads++
}

// began notes when an attempt was made.
func (s *Stats) began(at time.Time) {
	if at.IsZero() {
		return
	}
	if s.sum.First.IsZero() || at.Before(s.sum.First) {
		s.sum.First = at
	}
	if at.After(s.sum.Last) {
		s.sum.Last = at
	}
}

// spend sorts the phases of a record by their places. A phase that comes twice counts
// once, with the sum of both: durations are told by unload.
func (s *Stats) spend(phases []unload.Phase) {
	for i := range s.times {
		s.times[i].seen, s.times[i].ns, s.times[i].on, s.times[i].off = false, 0, 0, 0
		clear(s.times[i].parts)
		s.times[i].parts = s.times[i].parts[:0]
	}
	for i := range phases {
		p := &phases[i]
		n := s.where.number(p.Name, p.Merged)
		if n >= len(s.times) {
			s.times = append(s.times, make([]spent, n+1-len(s.times))...)
		}
		t := &s.times[n]
		t.seen = true
		t.ns, t.on, t.off = unload.Plus(t.ns, p.Duration), unload.Plus(t.on, p.OnCPU), unload.Plus(t.off, p.OffCPU)
		t.parts = append(t.parts, p)
	}
	for i := range s.times {
		if s.times[i].seen {
			s.times[i].reading = read(s.times[i].ns, s.mapping)
		}
	}
}

// module gives the tally of a module.
func (s *Stats) module(name string) *tally {
	if len(name) > longestKept {
		name = kept(name)
	}
	name = unload.Underscored(name)
	t, ok := s.modules[name]
	if ok {
		return t
	}
	if len(s.modules) >= MaxModules {
		name = unload.Others
		if t, ok = s.modules[name]; ok {
			return t
		}
	}
	t = &tally{}
	t.counts.Module = kept(name)
	s.modules[t.counts.Module] = t
	return t
}

// Summary says what is known so far.
func (s *Stats) Summary() unload.Summary {
	sum := s.sum
	sum.Type = unload.TypeSummary
	sum.CutShort = max(sum.Captures-s.trailers, 0)
	sum.Hosts, sum.Kernels = slices.Clone(s.hosts), slices.Clone(s.kernels)
	sum.LostEvents = map[string]int64{}
	for kind, n := range s.sum.LostEvents {
		sum.LostEvents[kind] = n
	}
	sum.All = s.all.summary(&s.where, s.mapping)
	sum.Modules = make([]unload.Tally, 0, len(s.modules))
	for _, t := range s.modules {
		sum.Modules = append(sum.Modules, t.summary(&s.where, s.mapping))
	}
	slices.SortFunc(sum.Modules, worstFirst)
	return sum
}

func worstFirst(a, b unload.Tally) int {
	return cmp.Or(
		cmp.Compare(b.Worst.Duration, a.Worst.Duration),
		cmp.Compare(b.Refused+b.Unanswered, a.Refused+a.Unanswered),
		cmp.Compare(a.Module, b.Module),
	)
}

// Samples gives how long the unloads of a module took, shortest first, or a phase of
// them, by [unload.Place] ("" is the whole). Rounded asks for what a sketch would have
// kept: durations of which more were seen than are kept are rounded in any case.
func (s *Stats) Samples(module, phase string, rounded bool) []Sample {
	t, ok := s.modules[unload.Underscored(module)]
	if !ok {
		return nil
	}
	if phase == "" {
		return t.whole.samples(s.mapping, rounded)
	}
	for n, p := range t.phases {
		if p != nil && unload.Place(s.where.all[n].name, s.where.all[n].merged) == phase {
			return p.samples(s.mapping, rounded)
		}
	}
	return nil
}
