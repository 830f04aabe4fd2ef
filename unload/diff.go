package unload

import (
	"slices"
	"time"
)

// Diff is what changed between two captures, or two sets of them.
type Diff struct {
	Type string `json:"type"`
	Old  Source `json:"old"`
	New  Source `json:"new"`
	// Alpha bounds the chance that any change is called significant when nothing has
	// changed. One in durations counts if the quantile differs by the part Relative at
	// least, and by Absolute or a twentieth of the whole unload, whichever is less.
	Alpha    float64 `json:"alpha"`
	Relative float64 `json:"least_relative"`
	Absolute int64   `json:"least_absolute_ns"`
	// Compared is how many series of durations and rates of failure were; TooFew how many
	// of them have too few unloads to tell anything. Small are phases that were not, for
	// the longest of either side differs from the shortest by less than counts.
	Compared int64 `json:"compared"`
	TooFew   int64 `json:"too_few"`
	Small    int64 `json:"small"`
	// Changes has those that are certain first, for the worse before for the better.
	Changes []Change `json:"changes"`
	Notes   []string `json:"notes"` // what could not be compared, in words
}

// Worse says that something certainly became slower or began to fail.
func (d *Diff) Worse() bool {
	return slices.ContainsFunc(d.Changes, func(c Change) bool {
		return c.Verdict == Significant && (c.Kind == Slower || c.Kind == Fails)
	})
}

// Source is what was compared.
type Source struct {
	Captures int64     `json:"captures"`
	Hosts    []string  `json:"hosts"`
	Kernels  []string  `json:"kernels"`
	First    time.Time `json:"first"`
	Last     time.Time `json:"last"`
	Attempts int64     `json:"attempts"`
	Unloaded int64     `json:"unloaded"`
}

// Change is one thing that changed, or may have.
type Change struct {
	Module string `json:"module"`
	// Phase is "" for the whole unload, and in changes that are none of durations.
	Phase  PhaseName   `json:"phase"`
	Merged []PhaseName `json:"merged"`
	Kind   ChangeKind  `json:"kind"`
	// Quantile is the one that changed, [Median] or [Tail]; "" where none did. A tail is
	// told of where the median stays as it was.
	Quantile Quantile `json:"quantile"`
	Reason   Reason   `json:"reason"` // why it is refused, if that is what changed; see [NoAnswer]
	Old      Measured `json:"old"`
	New      Measured `json:"new"`
	// Ratio is that of the quantiles, or of the rates of failure: new by old, 0 if old is 0.
	Ratio float64 `json:"ratio"`
	// P is the chance of a difference like this one or greater when nothing has changed,
	// 1 where none was computed; AdjustedP is that of any among all that was compared.
	P         float64 `json:"p"`
	AdjustedP float64 `json:"p_adjusted"`
	Verdict   Verdict `json:"verdict"`
}

// NoAnswer stands for the reason of an attempt whose end was not seen.
const NoAnswer Reason = "unanswered"

// Place names the phase and those merged into it, "" for the whole.
func (c *Change) Place() string { return Place(c.Phase, c.Merged) }

// Quantile is a part of the unloads: half, or all but the slowest twentieth.
type Quantile string

// The quantiles that are compared.
const (
	Median Quantile = "p50"
	Tail   Quantile = "p95"
)

// Measured is one side of a change.
type Measured struct {
	Count  int64 `json:"count"`  // unloads, or attempts where failures are counted
	Failed int64 `json:"failed"` // of those, for the reason
	Min    int64 `json:"min_ns"`
	Max    int64 `json:"max_ns"`
	P50    int64 `json:"p50_ns"`
	P95    int64 `json:"p95_ns"`
}

// At gives a quantile, the median if it is none.
func (m *Measured) At(q Quantile) int64 {
	if q == Tail {
		return m.P95
	}
	return m.P50
}

// ChangeKind says what changed.
type ChangeKind string

// The kinds of change.
const (
	Slower    ChangeKind = "slower"
	Faster    ChangeKind = "faster"
	Fails     ChangeKind = "fails"     // it did not before, or less often
	Recovered ChangeKind = "recovered" // it does not fail any more, or less often
	Appeared  ChangeKind = "appeared"  // no attempt was made before
	Gone      ChangeKind = "gone"      // none is made now
	Unclear   ChangeKind = "unclear"   // the medians differ by less than counts
)

// Verdict says how certain a change is.
type Verdict string

// The verdicts.
const (
	Significant Verdict = "significant"
	// TooFew: whatever had been measured, it could have been chance.
	TooFew Verdict = "too_few"
	// NotTested: there is nothing to test, as a module that was never unloaded before.
	NotTested Verdict = "not_tested"
)
