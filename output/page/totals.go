package page

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/modtrace/modtrace/output"
	"github.com/modtrace/modtrace/unload"
)

// totals are kept of all attempts, also of those that are left out of the page.
type totals struct {
	states     map[state]int64
	reasons    map[unload.Reason]*tally // of refusals
	causes     map[unload.Cause]int64   // ns
	running    int64                    // ns on the CPU
	duration   int64                    // ns of all attempts
	incomplete int64
	complaints int64 // attempts during which the kernel logged an oops or a warning
	first      time.Time
	last       time.Time
}

// tally counts by module.
type tally struct {
	count   int64
	modules map[string]int64
	others  int64 // attempts on modules that there was no room for
}

func newTotals() totals {
	return totals{states: map[state]int64{}, reasons: map[unload.Reason]*tally{}, causes: map[unload.Cause]int64{}}
}

func (t *totals) add(u unload.Unload) {
	s := stateOf(u)
	t.states[s]++
	if s == stateRefused {
		t.refuse(u)
	}
	if !u.Complete || u.LostEvents != 0 {
		t.incomplete++
	}
	if slices.ContainsFunc(u.Log, func(l unload.LogLine) bool {
		c := output.Complaint(l)
		return c == "oops" || c == "warning"
	}) {
		t.complaints++
	}
	t.duration = unload.Plus(t.duration, u.Duration)
	for _, p := range u.Phases {
		t.running = unload.Plus(t.running, p.OnCPU)
		for _, w := range p.Waits {
			t.causes[known(w.Cause)] = unload.Plus(t.causes[known(w.Cause)], w.Duration)
		}
	}
	if u.Start.IsZero() {
		return
	}
	if end := u.Start.Add(time.Duration(max(u.Duration, 0))); end.After(t.last) {
		t.last = end
	}
	if t.first.IsZero() || u.Start.Before(t.first) {
		t.first = u.Start
	}
}

// known is a cause that there is a colour for.
func known(c unload.Cause) unload.Cause {
	if slices.Contains(unload.Causes(), c) {
		return c
	}
	return unload.CauseOther
}

func (t *totals) refuse(u unload.Unload) {
	const mostReasons, mostModules = 20, 200
	reason := unload.Reason(cutTo(string(u.Result.Reason), 40))
	r := t.reasons[reason]
	if r == nil {
		if len(t.reasons) >= mostReasons {
			reason = unload.ReasonUnknown
		}
		if r = t.reasons[reason]; r == nil {
			r = &tally{modules: map[string]int64{}}
			t.reasons[reason] = r
		}
	}
	r.count++
	module := cut(u.Module)
	if _, ok := r.modules[module]; !ok && len(r.modules) >= mostModules {
		r.others++
		return
	}
	r.modules[module]++
}

func (t *totals) all() (n int64) {
	for _, k := range t.states {
		n += k
	}
	return n
}

// most gives the keys of a map by a number, the highest first.
func most[K cmp.Ordered, V any](m map[K]V, n func(V) int64) []K {
	return slices.SortedFunc(maps.Keys(m), func(a, b K) int {
		return cmp.Or(cmp.Compare(n(m[b]), n(m[a])), cmp.Compare(a, b))
	})
}
