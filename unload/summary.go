package unload

import (
	"strings"
	"time"
)

// Summary is what many unloads have in common, over all and for each module.
type Summary struct {
	Type string `json:"type"`
	// Captures is how many headers came, CutShort how many of them no trailer followed.
	Captures int64     `json:"captures"`
	CutShort int64     `json:"cut_short"`
	Hosts    []string  `json:"hosts"`
	Kernels  []string  `json:"kernels"`
	First    time.Time `json:"first"` // when the first attempt began
	Last     time.Time `json:"last"`  // and the last one
	// LostEvents, by kind, and MissedProbes are of whole captures, as their trailers
	// have them. Those of records that are not complete are in the tallies.
	LostEvents   map[string]int64 `json:"lost_events"`
	MissedProbes int64            `json:"missed_probes"`
	All          Tally            `json:"all"`
	// Modules has the one with the longest attempt first. Of too many, those that came
	// last are together under the name [Others].
	Modules []Tally `json:"modules"`
}

// Others stands for all that there is no room to tell apart.
const Others = "(others)"

// Tally is what became of the attempts to unload a module.
type Tally struct {
	Module     string `json:"module"` // "" for all
	Attempts   int64  `json:"attempts"`
	Unloaded   int64  `json:"unloaded"`
	Refused    int64  `json:"refused"`
	Unanswered int64  `json:"unanswered"` // their end was not seen
	// Reasons has how many were refused, by why.
	Reasons map[Reason]int64 `json:"reasons"`
	Stalls  int64            `json:"stalls"`
	Reloads int64            `json:"reloads"`
	// LostEvents are those lost within records, Incomplete the records that lack
	// something.
	LostEvents int64 `json:"lost_events"`
	Incomplete int64 `json:"incomplete"`
	// Duration and Phases are of those that were unloaded alone: how soon somebody is
	// refused says nothing of how long an unload takes.
	Duration Times        `json:"duration"`
	Phases   []PhaseTimes `json:"phases"` // in the kernel's order
	Worst    Worst        `json:"worst"`
}

// Times describe how long something took each time, in ns. The quantiles are those of
// Hyndman and Fan's definition 7 ("Sample Quantiles in Statistical Packages", The American
// Statistician 50, 1996) when Exact; otherwise they are within 0.5% of a value that was
// measured, at that rank. All else is exact always, but for a total that exceeds an int64
// and stays at its limit.
type Times struct {
	Count int64 `json:"count"`
	Min   int64 `json:"min_ns"`
	Max   int64 `json:"max_ns"`
	P50   int64 `json:"p50_ns"`
	P95   int64 `json:"p95_ns"`
	Total int64 `json:"total_ns"`
	Exact bool  `json:"exact"`
}

// PhaseTimes is how long a phase took in each unload that had it, with the phases that
// were merged into it there. The same phase with others merged into it is another one.
type PhaseTimes struct {
	Name   PhaseName   `json:"name"`
	Merged []PhaseName `json:"merged"`
	Times
	OnCPU  int64       `json:"on_cpu_ns"` // in all
	OffCPU int64       `json:"off_cpu_ns"`
	Waits  []CauseTime `json:"waits"` // longest in all first
}

// Place names the phase and those merged into it.
func (p *PhaseTimes) Place() string { return Place(p.Name, p.Merged) }

// Place names a phase and those merged into it: exit+notify.
func Place(name PhaseName, merged []PhaseName) string {
	var b strings.Builder
	b.WriteString(string(name))
	for _, m := range merged {
		b.WriteString("+" + string(m))
	}
	return b.String()
}

// CauseTime is how long was waited for one cause, in all.
type CauseTime struct {
	Cause    Cause `json:"cause"`
	Count    int64 `json:"count"`
	Duration int64 `json:"duration_ns"`
}

// Worst is the longest attempt of all, whatever became of it; one that hung when it was
// last heard of counts with the time until then. Its Duration is 0 when there is none.
type Worst struct {
	Module   string    `json:"module"`
	Start    time.Time `json:"start"`
	Duration int64     `json:"duration_ns"`
	Kind     Kind      `json:"kind"`
	Reason   Reason    `json:"reason"`
	// Phase is the one that took longest, with what was waited for longest in it, and
	// where it ran most.
	Phase Phase `json:"phase"`
}
