package output

import (
	"math"
	"slices"
	"strings"

	"github.com/modtrace/modtrace/unload"
)

// Columns of the table of phases, in order. Which of them there is room for
// depends on the screen.
const (
	colPhase = iota
	colTime
	colShare
	colOn
	colOff
	colBar
	colDoing
)

// view is a choice of columns, with the least width that their bars are
// worth drawing in.
type view struct {
	cols   []int
	minBar int
}

// views lists the choices, best first. Numbers come before pictures, but for
// the split of each time into on and off the CPU, which the bar shows too.
func views() []view {
	return []view{
		{[]int{colPhase, colTime, colShare, colOn, colOff, colBar, colDoing}, 20},
		{[]int{colPhase, colTime, colShare, colOn, colOff, colBar}, 10},
		{[]int{colPhase, colTime, colShare, colOn, colOff}, 0},
		{[]int{colPhase, colTime, colShare, colBar}, 6},
		{[]int{colPhase, colTime, colShare}, 0},
		{[]int{colPhase, colTime}, 0},
	}
}

// maxBar bounds the bars: longer ones say no more.
const maxBar = 40

// phaseTable is what the table of phases is made from.
type phaseTable struct {
	screen
	u      unload.Unload
	unit   unit
	absent map[unload.PhaseName]bool // by the header's plan: nothing to be seen
	merged bool                      // some phase's time is in that of another
}

// phases lays out where the time went.
func (s screen) phases(u unload.Unload, absent map[unload.PhaseName]bool) ([]string, error) {
	if len(u.Phases) == 0 {
		return nil, nil
	}
	t := phaseTable{screen: s, u: u, unit: s.unitFor(u.Duration), absent: absent}
	all := t.rows()
	chosen, bar := t.choose(all)
	cols, rows := t.project(all, chosen, bar)
	lines, err := s.grid(cols, rows)
	if err != nil {
		return nil, err
	}
	return append(lines, t.notes(chosen)...), nil
}

// rows makes every cell but the bars.
func (t *phaseTable) rows() []row {
	var rows []row
	for _, p := range t.u.Phases {
		rows = append(rows, t.row(p))
		for _, m := range below(p) {
			t.merged = true
			cells := []string{"+ " + t.label(m), "^", "", "", "", "", t.doing(m)}
			rows = append(rows, row{cells, dim})
		}
	}
	if ns := t.u.Unaccounted; ns != 0 {
		rows = append(rows, row{[]string{"in no phase", t.unit.time(ns), share(ns, t.u.Duration), "", "", "", ""}, red})
	}
	return append(rows, t.total())
}

// below lists the merged phases that get a row of their own. A refusal has no
// boundary before its return: that goes without saying.
func below(p unload.Phase) []unload.PhaseName {
	if turnsBack(p) {
		return nil
	}
	return p.Merged
}

func turnsBack(p unload.Phase) bool {
	return len(p.Merged) == 1 && p.Merged[0] == unload.Return
}

func (t *phaseTable) row(p unload.Phase) row {
	c, label := plain, t.label(p.Name)
	if p.Duration == 0 {
		c = dim
	}
	if turnsBack(p) {
		label += " + " + t.label(unload.Return)
	}
	return row{[]string{
		label,
		t.unit.time(p.Duration),
		share(p.Duration, t.u.Duration),
		t.unit.time(p.OnCPU),
		t.unit.time(p.OffCPU),
		"",
		t.doing(p.Name),
	}, c}
}

func (t *phaseTable) total() row {
	var on, off int64
	for _, p := range t.u.Phases {
		on += p.OnCPU
		off += p.OffCPU
	}
	return row{[]string{"total", t.unit.time(t.u.Duration), "", t.unit.time(on), t.unit.time(off), "", ""}, plain}
}

func (t *phaseTable) label(name unload.PhaseName) string {
	return t.cut(t.clean(string(name)), 16)
}

func (t *phaseTable) doing(name unload.PhaseName) string {
	if t.absent[name] {
		return "not done by this kernel"
	}
	return doing(name)
}

// choose picks the columns, and the width of the bars.
func (t *phaseTable) choose(all []row) (chosen []int, bar int) {
	for _, v := range views() {
		if !times(t.u) {
			v.cols = slices.DeleteFunc(v.cols, func(c int) bool { return c == colBar })
			v.minBar = 0
		}
		used := gap
		for i, c := range v.cols {
			if i > 0 {
				used += gap
			}
			if c != colBar {
				used += widest(all, c, t.head(c, 0))
			}
		}
		chosen = v.cols
		if bar = min(t.width-used, maxBar); bar >= v.minBar {
			return chosen, bar
		}
	}
	return chosen, 0
}

func (t *phaseTable) head(col, bar int) string {
	switch col {
	case colPhase:
		return "phase"
	case colTime:
		return "time " + t.unit.name
	case colShare:
		return "share"
	case colOn:
		return "on CPU"
	case colOff:
		return "off CPU"
	case colBar:
		return t.legend(bar)
	}
	return "the kernel's work"
}

// legend explains the bars in as many words as fit above them.
func (t *phaseTable) legend(bar int) string {
	on, off := t.inks()
	for _, text := range []string{on + " on CPU  " + off + " off CPU", on + " on  " + off + " off", on + "on " + off + "off"} {
		if columns(text) <= bar {
			return text
		}
	}
	return ""
}

// inks are what bars are drawn with, for time on and off the CPU.
func (s screen) inks() (on, off string) {
	if s.ascii {
		return "#", "."
	}
	return "█", "░"
}

// project reduces the rows to the chosen columns and draws the bars.
func (t *phaseTable) project(all []row, chosen []int, bar int) ([]column, []row) {
	var cols []column
	for _, c := range chosen {
		cols = append(cols, column{head: t.head(c, bar), right: c >= colTime && c <= colOff})
	}
	bars := t.bars(bar)
	rows := make([]row, len(all))
	for n, r := range all {
		rows[n].color = r.color
		r.cells[colBar] = bars[n]
		for _, c := range chosen {
			rows[n].cells = append(rows[n].cells, r.cells[c])
		}
	}
	return cols, rows
}

// bars draws one bar for each row, the longest phase's over the whole width.
// A merged phase has none.
func (t *phaseTable) bars(width int) map[int]string {
	bars := map[int]string{}
	top, ok := longest(t.u.Phases)
	n := 0
	for _, p := range t.u.Phases {
		if ok {
			bars[n] = t.bar(p, top.Duration, width)
		}
		n += 1 + len(below(p))
	}
	return bars
}

// bar draws a phase to the scale of full ns for width columns: the time on
// the CPU first, then the rest.
func (t *phaseTable) bar(p unload.Phase, full int64, width int) string {
	scale := func(ns int64) int {
		x := math.Round(float64(ns) / float64(full) * float64(width))
		return int(math.Max(0, math.Min(x, float64(width))))
	}
	on, off := t.inks()
	length := scale(p.Duration)
	running := min(scale(p.OnCPU), length)
	return strings.Repeat(on, running) + strings.Repeat(off, length-running)
}

// notes explains what the table cannot.
func (t *phaseTable) notes(chosen []int) []string {
	var lines []string
	note := func(text string) { lines = append(lines, t.aside(text)...) }
	if t.merged {
		note("^ where this begins was not seen: its time is in the phase above")
	}
	if p, ok := longest(t.u.Phases); ok && t.obscure(p) && chosen[len(chosen)-1] != colDoing {
		note(t.label(p.Name) + ": " + doing(p.Name))
	}
	return lines
}

// obscure says that most of the time went into a phase whose name tells
// little to somebody who does not know the kernel's source.
func (t *phaseTable) obscure(p unload.Phase) bool {
	return times(t.u) && dominates(p, t.u, 2) && len(p.Merged) == 0 && p.Name != unload.Exit && doing(p.Name) != ""
}
