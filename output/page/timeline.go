package page

import (
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/modtrace/modtrace/output"
	"github.com/modtrace/modtrace/unload"
)

// percent is a coordinate of a drawing, as SVG takes it.
type percent float64

func (p percent) String() string {
	x := float64(p)
	if math.IsNaN(x) || x < 0 {
		x = 0
	}
	return strconv.FormatFloat(math.Round(min(x, 100)*100)/100, 'f', -1, 64) + "%"
}

// part is how much ns are of whole.
func part(ns, whole int64) percent {
	if whole <= 0 {
		return 0
	}
	return percent(100 * float64(ns) / float64(whole))
}

// segment is a stretch of a bar.
type segment struct {
	X, W percent
	Ink  ink
	Tip  string
}

// timeline draws the phases of an attempt to one scale.
type timeline struct {
	ID     int64
	Ticks  []tick
	Rows   []phaseRow
	Legend []ink
	Marks  []mark // lines of the kernel's log
	Off    string // the part of the time that no phase covers, "" if there is none
	Merged bool   // some phase is not told apart from that before it
	Folded bool   // some phase has more than one stretch
	Total  phaseRow
}

// narrowBar is how much of the time a phase takes at least to be drawn in segments.
const narrowBar = 0.4

type tick struct {
	X    percent
	Text string
	End  bool // its text ends at X

	// Left out where there is little room: every second one, and all but the first and
	// the last.
	Odd, Inner bool
}

type phaseRow struct {
	Name, Merged         string
	Time, Share, On, Off string
	Segments             []segment
	X                    percent // where it begins
	Short                bool    // too short to be drawn as more than a mark
	Absent, Longest      bool
}

type mark struct {
	X    percent
	Kind string
	Tip  string
}

// drawn is the time that a timeline has to have room for.
func drawn(u unload.Unload) int64 {
	end := u.Duration
	for _, p := range u.Phases {
		end = max(end, unload.Plus(p.Offset, p.Duration))
	}
	return end
}

func newTimeline(e *entry) timeline {
	u := e.record
	whole := drawn(u)
	t := timeline{ID: e.seq, Ticks: ticks(whole)}
	var on, off, top int64
	for _, p := range u.Phases {
		on, off, top = unload.Plus(on, p.OnCPU), unload.Plus(off, p.OffCPU), max(top, p.Duration)
	}
	used := map[ink]bool{}
	for _, p := range u.Phases {
		r := phaseRow{
			Name: phaseName(p.Name), Merged: mergedText(p),
			Time: output.Duration(p.Duration), Share: output.Share(p.Duration, u.Duration),
			On: dash(p.OnCPU), Off: dash(p.OffCPU),
			Segments: segments(p, whole), X: part(p.Offset, whole),
			Longest: p.Duration == top && top > 0, Absent: e.capture.absent[p.Name],
		}
		if part(p.Duration, whole) < narrowBar {
			r.Short, r.Segments = true, nil
		}
		t.Merged = t.Merged || r.Merged != ""
		t.Folded = t.Folded || len(r.Segments) > 1
		for _, s := range r.Segments {
			used[s.Ink] = true
		}
		t.Rows = append(t.Rows, r)
	}
	t.Legend = legend(used)
	if u.Unaccounted != 0 {
		t.Off = output.Duration(u.Unaccounted)
	}
	t.Total = phaseRow{Time: output.Duration(u.Duration), On: dash(on), Off: dash(off)}
	for _, l := range u.Log {
		kind := output.Complaint(l)
		if kind == "" {
			kind = "info"
		}
		t.Marks = append(t.Marks, mark{part(max(l.Offset, 0), whole), kind, output.Duration(max(l.Offset, 0)) + ": " + output.Clean(l.Text)})
	}
	return t
}

func dash(ns int64) string {
	if ns == 0 {
		return "–"
	}
	return output.Duration(ns)
}

// phaseName bounds the name of a phase that no kernel has.
func phaseName(name unload.PhaseName) string { return cutTo(output.Clean(string(name)), 24) }

// mergedText names the phases whose time is in that of another. A refusal has no boundary
// before its return: that goes without saying.
func mergedText(p unload.Phase) string {
	if len(p.Merged) == 1 && p.Merged[0] == unload.Return {
		return ""
	}
	text := ""
	for i, m := range p.Merged {
		if i > 0 {
			text += ", "
		}
		text += phaseName(m)
	}
	return text
}

// segments parts a phase by what the task did: it ran, or waited for one cause or another.
// When in the phase it did that is not recorded, so that they stand in a fixed order.
func segments(p unload.Phase, whole int64) []segment {
	var all []segment
	x := part(p.Offset, whole)
	add := func(ns int64, i ink, what string) {
		if ns <= 0 {
			return
		}
		w := part(ns, whole)
		all = append(all, segment{x, w, i, fmt.Sprintf("%s: %s %s", phaseName(p.Name), what, output.Duration(ns))})
		x += w
	}
	add(p.OnCPU, running(), "ran")
	causes, sums := byCause(p.Waits)
	left := p.OffCPU
	for _, c := range causes {
		add(sums[c], inkOf(c), "waited for "+words(c))
		left -= sums[c]
	}
	add(left, unseen(), "off the CPU, not seen why,")
	return all
}

// byCause adds up waits, and gives the causes with the most time first.
func byCause(waits []unload.Wait) ([]unload.Cause, map[unload.Cause]int64) {
	sums := map[unload.Cause]int64{}
	for _, w := range waits {
		sums[known(w.Cause)] = unload.Plus(sums[known(w.Cause)], w.Duration)
	}
	return most(sums, func(ns int64) int64 { return ns }), sums
}

// legend lists the inks that were used, in one order everywhere.
func legend(used map[ink]bool) []ink {
	var all []ink
	for _, i := range inks() {
		if used[i] {
			all = append(all, i)
		}
	}
	return all
}

func inks() []ink {
	all := []ink{running()}
	for _, c := range unload.Causes() {
		all = append(all, inkOf(c))
	}
	return append(all, unseen())
}

// ticks parts a time into no more than six round pieces.
func ticks(whole int64) []tick {
	if whole <= 0 {
		return nil
	}
	step := round(float64(whole) / 5)
	all := []tick{{Text: "0"}}
	for n := 1; float64(n)*step <= float64(whole) && n <= 6; n++ {
		ns := float64(n) * step
		x := percent(100 * ns / float64(whole))
		all = append(all, tick{X: x, Text: tickText(ns), End: x > 90})
	}
	for i := range all[1 : len(all)-1] {
		all[i+1].Inner = true
	}
	return all
}

// Class is what the style sheet knows a tick by.
func (t tick) Class() string {
	switch {
	case t.End && !t.Inner:
		return "end"
	case t.Inner:
		return "mid"
	}
	return ""
}

// round gives the next higher number of 1, 2 or 5 with zeros behind it.
func round(x float64) float64 {
	if x < 1 {
		return 1
	}
	ten := math.Pow(10, math.Floor(math.Log10(x)))
	for _, n := range []float64{1, 2, 5} {
		if x <= n*ten {
			return n * ten
		}
	}
	return 10 * ten
}

// tickText writes a round number of ns in the unit that leaves it shortest.
func tickText(ns float64) string {
	for _, u := range []struct {
		ns   float64
		name string
	}{{1e9, "s"}, {1e6, "ms"}, {1e3, "µs"}} {
		if ns >= u.ns {
			return strconv.FormatFloat(math.Round(ns/u.ns), 'f', -1, 64) + " " + u.name
		}
	}
	return strconv.FormatFloat(ns, 'f', -1, 64) + " ns"
}

// strip draws a whole attempt as one bar, for the list: what ran, what was waited for.
func strip(u unload.Unload) []segment {
	whole := drawn(u)
	sums := map[ink]int64{}
	for _, p := range u.Phases {
		for _, s := range segments(p, whole) {
			sums[s.Ink] = unload.Plus(sums[s.Ink], int64(float64(s.W)*1e6))
		}
	}
	var all []segment
	var x percent
	for _, i := range inks() {
		w := percent(float64(sums[i]) / 1e6)
		if w < 0.5 {
			continue
		}
		all = append(all, segment{X: x, W: w, Ink: i})
		x += w
	}
	return slices.Clip(all)
}
