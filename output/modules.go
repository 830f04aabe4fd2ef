package output

import (
	"fmt"
	"slices"
	"strings"

	"github.com/modtrace/modtrace/unload"
)

// mostModules is how many modules are shown.
const mostModules = 20

// modules lays out the modules, those with the longest attempts first.
func (s screen) modules(all []unload.Tally) ([]string, error) {
	if len(all) == 0 {
		return nil, nil
	}
	shown := all
	if !s.verbose && len(all) > mostModules {
		shown = all[:mostModules]
	}
	rows := make([]row, len(shown))
	for i, t := range shown {
		rows[i] = s.moduleRow(t)
	}
	cols := []column{
		{head: "module"}, {"unloads", true}, {"refused", true},
		{"p50", true}, {"p95", true}, {"max", true}, {head: "the longest"},
	}
	const colRefused, colP50, colP95, colMax = 2, 3, 4, 5
	lines, err := s.told(cols, rows, []int{colP95}, []int{colRefused}, []int{colMax}, []int{colP50})
	if err != nil {
		return nil, err
	}
	if rest := len(all) - len(shown); rest > 0 {
		lines = append(lines, s.aside(fmt.Sprintf("and %s more (--json has all)", thousands(int64(rest))))...)
	}
	return lines, nil
}

func (s screen) moduleRow(t unload.Tally) row {
	cells := append([]string{s.name(t.Module, 32), thousands(t.Attempts), dash(t.Refused)}, s.quantiles(t.Duration)...)
	c := plain
	if t.Refused+t.Unanswered+t.Stalls > 0 {
		c = red
	}
	return row{append(cells, s.fate(t)), c}
}

// quantiles are the cells that say how long something took. Each has its own unit: one
// unload that hung would make all others 0.0 s.
func (s screen) quantiles(t unload.Times) []string {
	if t.Count == 0 {
		return []string{"", "", ""}
	}
	return []string{s.duration(t.P50), s.duration(t.P95), s.duration(t.Max)}
}

// fate says what the longest attempt was about, and what else became of a module.
func (s screen) fate(t unload.Tally) string {
	var parts []string
	add := func(text string) {
		if text != "" {
			parts = append(parts, text)
		}
	}
	if w := t.Worst; w.Duration > 0 && (w.Kind != unload.Refused || w.Duration >= noticeable) {
		add(s.blame(w))
	}
	add(suffix("refused: ", s.reasons(t.Reasons)))
	if t.Unanswered > 0 {
		add(thousands(t.Unanswered) + " unanswered")
	}
	if t.Stalls > 0 {
		add(numbered(t.Stalls, "report of a stall", "reports of stalls"))
	}
	if t.Reloads > 0 {
		add("loaded again " + numbered(t.Reloads, "time", "times"))
	}
	return strings.Join(parts, "; ")
}

// allPhases lays out how long each phase took over all modules, and what for.
func (s screen) allPhases(all unload.Tally) ([]string, error) {
	var total int64
	for _, p := range all.Phases {
		total = max(total, total+p.Total)
	}
	var rows []row
	for _, p := range all.Phases {
		if !s.verbose && p.Total < total/1000 && p.Max < noticeable {
			continue
		}
		cells := append([]string{s.place(unload.Phase{Name: p.Name, Merged: p.Merged}), thousands(p.Count), share(p.Total, total)}, s.quantiles(p.Times)...)
		rows = append(rows, row{append(cells, s.pastime(p)), plain})
	}
	if rows == nil {
		return nil, nil
	}
	cols := []column{
		{head: "phase"}, {"unloads", true}, {"share", true},
		{"p50", true}, {"p95", true}, {"max", true}, {head: "where its time went"},
	}
	const colUnloads, colP50, colP95, colMax = 1, 3, 4, 5
	lines, err := s.told(cols, rows, []int{colUnloads}, []int{colP95}, []int{colMax}, []int{colP50})
	if rest := int64(len(all.Phases) - len(rows)); rest > 0 && err == nil {
		lines = append(lines, s.aside("and "+count(rest, "phase", "phases")+" of less than 0.1%")...)
	}
	return lines, err
}

// pastime says what a phase did over all unloads: how much of it ran, and what the rest
// was waited for.
func (s screen) pastime(p unload.PhaseTimes) string {
	var parts []string
	add := func(ns int64, doing string) {
		if p.Total > 0 && ns >= p.Total/100 && ns > 0 {
			parts = append(parts, percent(min(ns, p.Total), p.Total)+" "+doing)
		}
	}
	add(p.OnCPU, "running")
	if len(p.Waits) == 0 {
		add(p.OffCPU, "asleep")
	}
	const most = 2
	for _, w := range p.Waits[:min(most, len(p.Waits))] {
		add(w.Duration, s.waitedFor(w.Cause))
	}
	return strings.Join(parts, ", ")
}

// waitedFor names what is waited for where there is no one to name.
func (s screen) waitedFor(c unload.Cause) string {
	switch c {
	case unload.CausePreempted:
		return "waiting for a CPU"
	case unload.CauseSleep:
		return "asleep as the code asks"
	case unload.CauseOther, "":
		return "asleep"
	case unload.CauseRCU:
		return "waiting for RCU grace periods"
	case unload.CauseSRCU:
		return "waiting for SRCU grace periods"
	}
	return "waiting for " + s.target(c, unload.Blocker{})
}

// told lays out a table whose last column is text. Columns are left out if nothing is in
// them, and in the order that is given until there is room for the text.
func (s screen) told(cols []column, rows []row, drops ...[]int) ([]string, error) {
	const least = 24
	last := len(cols) - 1
	var keep []int
	for i := range cols {
		if i == last || slices.ContainsFunc(rows, func(r row) bool { return r.cells[i] != "" }) {
			keep = append(keep, i)
		}
	}
	room := func() int {
		left := s.width - gap
		for _, i := range keep[:len(keep)-1] {
			left -= widest(rows, i, cols[i].head) + gap
		}
		return left
	}
	for _, drop := range drops {
		if room() >= min(least, widest(rows, last, cols[last].head)) {
			break
		}
		keep = slices.DeleteFunc(keep, func(i int) bool { return slices.Contains(drop, i) })
	}
	width := max(room(), 1)
	var kept []column
	for _, i := range keep {
		kept = append(kept, cols[i])
	}
	kept[len(kept)-1].head = s.cut(cols[last].head, width)
	all := make([]row, len(rows))
	for n, r := range rows {
		all[n].color = r.color
		for _, i := range keep[:len(keep)-1] {
			all[n].cells = append(all[n].cells, r.cells[i])
		}
		text := s.clip(wrap(r.cells[last], width, ""), 3, width)
		all[n].cells = append(all[n].cells, strings.Join(text, "\n"))
	}
	return s.grid(kept, all)
}

// sources says where a summary is from.
func (s screen) sources(sum unload.Summary) []string {
	text := "no header"
	if sum.Captures > 0 {
		text = numbered(sum.Captures, "capture", "captures")
	}
	text += suffix(" of ", s.few(sum.Hosts)) + suffix(", on ", s.few(sum.Kernels))
	if !sum.First.IsZero() {
		text += ", " + sum.First.UTC().Format("2006-01-02 15:04:05Z") + " to " + sum.Last.UTC().Format("2006-01-02 15:04:05Z")
	}
	if sum.Captures == 0 && sum.First.IsZero() {
		return nil
	}
	return s.aside(text)
}

// few lists names, unless there are too many.
func (s screen) few(names []string) string {
	const most = 5
	if len(names) > most && !s.verbose {
		return s.list(names[:most-1]) + fmt.Sprintf(" and %d more", len(names)-most+1)
	}
	return s.list(names)
}
