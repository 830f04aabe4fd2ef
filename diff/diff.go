// Package diff compares the statistics of two captures: which phase of which module became
// slower, and what began to fail. What it calls a change is hardly ever chance: all
// comparisons together are wrong in no more than one run of twenty, and a change has to be
// of some size. What has too few measurements to tell is said to have.
package diff

import (
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/modtrace/modtrace/stats"
	"github.com/modtrace/modtrace/unload"
)

// Options say what counts as a change. Zero values stand for the defaults.
type Options struct {
	Alpha    float64 // chance of a false alarm, 0.05
	Relative float64 // least change of a median, as a part of it, 0.1
	// Absolute is the least change of a median in ns, 1 ms; in a module that is unloaded
	// in less than 20 ms it is a twentieth of that. One ms in a phase of an unload that
	// takes a second matters to nobody, but it does where all takes two; and a phase of
	// some µs may double without anybody being the worse for it.
	Absolute int64
}

// The defaults, and what is not measured any more.
const (
	alpha     = 0.05
	relative  = 0.1
	absolute  = 1e6 // ns
	twentieth = 20
	noise     = 1000 // ns that tracing itself takes, more or less
	// leastRate is by how much a rate of failure has to change, unless it is by half.
	leastRate = 0.01
)

func (o Options) filled() Options {
	if o.Alpha <= 0 || o.Alpha >= 1 {
		o.Alpha = alpha
	}
	if o.Relative <= 0 {
		o.Relative = relative
	}
	if o.Absolute <= 0 {
		o.Absolute = absolute
	}
	return o
}

// Compare says what changed from old to now.
func Compare(old, now *stats.Stats, o Options) unload.Diff {
	c := comparison{Options: o.filled(), old: old, now: now, split: map[string]bool{}}
	before, after := old.Summary(), now.Summary()
	c.diff = unload.Diff{
		Type: unload.TypeDiff, Old: source(before), New: source(after),
		Alpha: c.Alpha, Relative: c.Relative, Absolute: c.Absolute, Changes: []unload.Change{}, Notes: []string{},
	}
	for _, m := range pairs(before.Modules, after.Modules) {
		c.module(m)
	}
	c.judge()
	c.note()
	slices.SortStableFunc(c.diff.Changes, order(c.diff.Changes))
	return c.diff
}

func source(s unload.Summary) unload.Source {
	return unload.Source{
		Captures: s.Captures, Hosts: s.Hosts, Kernels: s.Kernels, First: s.First, Last: s.Last,
		Attempts: s.All.Attempts, Unloaded: s.All.Unloaded,
	}
}

// pair is a module on both sides.
type pair struct{ old, now unload.Tally }

// pairs brings the tallies of each module together, by name.
func pairs(old, now []unload.Tally) []pair {
	all := map[string]*pair{}
	get := func(name string) *pair {
		if all[name] == nil {
			all[name] = &pair{}
		}
		return all[name]
	}
	for _, t := range old {
		get(t.Module).old = t
	}
	for _, t := range now {
		get(t.Module).now = t
	}
	list := make([]pair, 0, len(all))
	for _, name := range slices.Sorted(maps.Keys(all)) {
		list = append(list, *all[name])
	}
	return list
}

// comparison is one under way.
type comparison struct {
	Options
	old, now *stats.Stats
	diff     unload.Diff
	trials   []trial
	split    map[string]bool // phases that one side alone has
	others   bool
}

// trial is a test, and what it would tell of.
type trial struct {
	tested
	change unload.Change
	large  bool // it would count, were it certain
}

func (c *comparison) module(m pair) {
	name := m.old.Module
	if name == "" {
		name = m.now.Module
	}
	if name == unload.Others {
		c.others = true
		return
	}
	if m.old.Attempts == 0 || m.now.Attempts == 0 {
		c.oneSided(name, m)
		return
	}
	least := c.durations(name, "", nil, m.old.Duration, m.now.Duration, c.Absolute)
	for i := range m.old.Phases {
		p := &m.old.Phases[i]
		if q := find(m.now.Phases, p.Place()); q != nil {
			c.durations(name, p.Name, p.Merged, p.Times, q.Times, least)
		} else if m.now.Unloaded > 0 {
			c.split[p.Place()] = true
		}
	}
	for i := range m.now.Phases {
		if place := m.now.Phases[i].Place(); m.old.Unloaded > 0 && find(m.old.Phases, place) == nil {
			c.split[place] = true
		}
	}
	c.failures(name, m)
}

func find(phases []unload.PhaseTimes, place string) *unload.PhaseTimes {
	for i := range phases {
		if phases[i].Place() == place {
			return &phases[i]
		}
	}
	return nil
}

// oneSided notes a module of which there was no attempt before, or is none now.
func (c *comparison) oneSided(name string, m pair) {
	if m.old.Attempts == m.now.Attempts {
		return // it was only seen to be loaded again, or to hang
	}
	kind := unload.Appeared
	if m.now.Attempts == 0 {
		kind = unload.Gone
	}
	c.diff.Changes = append(c.diff.Changes, unload.Change{
		Module: name, Kind: kind, Old: measured(m.old.Duration), New: measured(m.now.Duration), P: 1, AdjustedP: 1, Verdict: unload.NotTested,
		Merged: []unload.PhaseName{},
	})
}

func measured(t unload.Times) unload.Measured {
	return unload.Measured{Count: t.Count, Min: t.Min, Max: t.Max, P50: t.P50, P95: t.P95}
}

// durations compares how long something took. For the whole of an unload it gives the
// least difference that counts in its phases.
func (c *comparison) durations(module string, phase unload.PhaseName, merged []unload.PhaseName, old, now unload.Times, least int64) int64 {
	if old.Count == 0 && now.Count == 0 {
		return least
	}
	change := unload.Change{Module: module, Phase: phase, Merged: append([]unload.PhaseName{}, merged...), Old: measured(old), New: measured(now)}
	place := change.Place()
	rounded := !old.Exact || !now.Exact
	before, after := c.old.Samples(module, place, rounded), c.now.Samples(module, place, rounded)
	if place == "" {
		least = c.least(before, after)
	}
	if place != "" && max(old.Max, now.Max)-min(old.Min, now.Min) < least {
		c.diff.Small++ // no difference in there can count, whichever side it is of
		return least
	}
	c.diff.Compared++
	all := merge(before, after)
	c.put(c.directed(change, unload.Median, least), uTest(all))
	c.put(c.directed(change, unload.Tail, least), tailTest(all))
	return least
}

// directed says how a quantile differs, if there is one on both sides.
func (c *comparison) directed(change unload.Change, q unload.Quantile, least int64) unload.Change {
	change.Kind, change.Quantile = unload.Unclear, q
	if change.Old.Count > 0 && change.New.Count > 0 {
		change.Kind, change.Ratio = c.direction(change.Old.At(q), change.New.At(q), least)
	}
	return change
}

// least is the least difference that counts in a module: the phases of one that is
// unloaded fast have a finer measure. It is made from both sides alike, for what is left
// out by it must not depend on which side is which (Bourgon, Gentleman and Huber,
// "Independent filtering increases detection power", PNAS 107, 2010).
func (c *comparison) least(before, after []stats.Sample) int64 {
	all := merge(before, after)
	var n, seen int64
	for _, t := range all {
		n += t.size()
	}
	for _, t := range all {
		if seen += t.size(); 2*seen >= n {
			return max(min(c.Absolute, t.ns/twentieth), noise)
		}
	}
	return c.Absolute
}

// direction says how two durations differ, if it is by so much as counts.
func (c *comparison) direction(old, now, least int64) (unload.ChangeKind, float64) {
	ratio := 0.0
	if old > 0 {
		ratio = float64(now) / float64(old)
	}
	by := math.Abs(float64(now) - float64(old))
	switch {
	case by < float64(least) || by < c.Relative*float64(min(old, now)):
		return unload.Unclear, ratio
	case now > old:
		return unload.Slower, ratio
	}
	return unload.Faster, ratio
}

// failures compares how often a module was refused, for each reason, and how often no
// answer was seen. It takes attempts to be independent of each other, and those of a tool
// that tries again until it succeeds are not.
func (c *comparison) failures(module string, m pair) {
	reasons := map[unload.Reason]bool{}
	for _, side := range []unload.Tally{m.old, m.now} {
		for why := range side.Reasons {
			reasons[why] = true
		}
		if side.Unanswered > 0 {
			reasons[unload.NoAnswer] = true
		}
	}
	for _, why := range slices.Sorted(maps.Keys(reasons)) {
		old, now := failed(m.old, why), failed(m.now, why)
		t := fisher(old.Failed, old.Count, now.Failed, now.Count)
		change := unload.Change{Module: module, Merged: []unload.PhaseName{}, Kind: unload.Fails, Reason: why, Old: old, New: now}
		before, after := float64(old.Failed)/float64(old.Count), float64(now.Failed)/float64(now.Count)
		if after < before {
			change.Kind = unload.Recovered
		}
		if before > 0 {
			change.Ratio = after / before
		}
		c.diff.Compared++
		by := math.Abs(after - before)
		large := by > 0 && (by >= leastRate || by >= max(before, after)/2)
		c.trials = append(c.trials, trial{t, change, large})
	}
}

func failed(t unload.Tally, why unload.Reason) unload.Measured {
	n := t.Reasons[why]
	if why == unload.NoAnswer {
		n += t.Unanswered
	}
	return unload.Measured{Count: t.Attempts, Failed: n}
}

// put keeps a test of durations for when all are known.
func (c *comparison) put(change unload.Change, t tested) {
	c.trials = append(c.trials, trial{t, change, change.Kind != unload.Unclear})
}

// judge says what is certain, and what cannot be. The trial of a tail stands behind that
// of its median.
func (c *comparison) judge() {
	tests := make([]tested, len(c.trials))
	for i, t := range c.trials {
		tests[i] = t.tested
	}
	adjusted, able := adjust(tests, c.Alpha)
	told := false
	for i, t := range c.trials {
		change := t.change
		change.P, change.AdjustedP = t.p, adjusted[i]
		tail := change.Quantile == unload.Tail
		whole := change.Phase == "" && change.Reason == ""
		sure := able[i] && t.large && adjusted[i] <= c.Alpha && agrees(change, t.tested)
		switch {
		case sure && tail && told:
			continue
		case sure:
			change.Verdict = unload.Significant
		case able[i] || tail:
			told = false
			continue
		default:
			c.diff.TooFew++
			change.Verdict = unload.TooFew
			if !t.large && !whole {
				continue
			}
		}
		told = sure
		c.diff.Changes = append(c.diff.Changes, change)
	}
}

// agrees says that the test and the quantiles see the same: of distributions that cross, one
// can have the greater median and yet tend to be less.
func agrees(change unload.Change, t tested) bool {
	return (change.Kind == unload.Slower || change.Kind == unload.Fails) == (t.shift > 0)
}

// note says what was not compared.
func (c *comparison) note() {
	if len(c.split) > 0 {
		const most = 6
		names := slices.Sorted(maps.Keys(c.split))
		text := fmt.Sprintf("%d phases are on one side alone, for the two split an unload in other places: ", len(names))
		if len(names) == 1 {
			text = "a phase is on one side alone, for the two split an unload in other places: "
		}
		for i, name := range names[:min(len(names), most)] {
			if i > 0 {
				text += ", "
			}
			text += name
		}
		if len(names) > most {
			text += fmt.Sprintf(" and %d more", len(names)-most)
		}
		c.diff.Notes = append(c.diff.Notes, text)
	}
	if c.others {
		c.diff.Notes = append(c.diff.Notes, fmt.Sprintf("more than %d modules: those that came last are not compared", stats.MaxModules))
	}
}
