package output

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/modtrace/modtrace/unload"
)

// Diff writes what changed between two captures as a table for people: the answer in one
// line, each change with what was measured on both sides, and what was not compared. It is
// a single Write.
func Diff(w io.Writer, d unload.Diff, o TableOptions) error {
	t := &table{screen: o.screen(), w: w}
	c := green
	if len(regressions(d)) > 0 {
		c = red
	}
	lines := t.sentence(c, t.changed(d))
	for _, n := range d.Notes {
		lines = append(lines, t.sentence(red, "not compared: "+t.clean(n))...)
	}
	changes, err := t.changes(d.Changes)
	if err != nil {
		return err
	}
	lines = append(lines, changes...)
	return t.print(append(lines, t.compared(d)...))
}

// DiffJSON writes what changed as a record, in a single Write.
func DiffJSON(w io.Writer, d unload.Diff) error {
	d.Type = unload.TypeDiff
	return jsonReport{w}.write(&d)
}

// regressions are the changes for the worse that are certain.
func regressions(d unload.Diff) []unload.Change {
	return news(d, unload.Significant, unload.Slower, unload.Fails)
}

// news gives the changes of some kinds. Of a module that became slower as a whole and in a
// phase, the phase tells more, and stands alone.
func news(d unload.Diff, as unload.Verdict, kinds ...unload.ChangeKind) (all []unload.Change) {
	phases := map[string]bool{}
	key := func(c unload.Change) string { return string(c.Kind) + " " + c.Module }
	for _, c := range d.Changes {
		if c.Phase != "" && c.Verdict == as {
			phases[key(c)] = true
		}
	}
	for _, c := range d.Changes {
		whole := c.Phase == "" && !failing(c)
		if c.Verdict == as && slices.Contains(kinds, c.Kind) && (!whole || !phases[key(c)]) {
			all = append(all, c)
		}
	}
	return all
}

// changed answers in one line.
func (s screen) changed(d unload.Diff) string {
	if d.Compared == 0 {
		return "there is nothing to compare: no attempt was made on a module in both"
	}
	worse, better := regressions(d), news(d, unload.Significant, unload.Faster, unload.Recovered)
	text := "nothing became slower or began to fail"
	switch {
	case len(worse) > 0:
		text = count(int64(len(worse)), "regression", "regressions") + ": " + s.first(worse)
	case d.TooFew == d.Compared:
		text = "too few unloads to tell whether anything changed"
	}
	if maybe := news(d, unload.TooFew, unload.Slower, unload.Fails); len(maybe) > 0 {
		text += "; perhaps, of too few to tell: " + s.first(maybe)
	}
	if len(better) > 0 {
		text += "; better: " + s.first(better)
	}
	text += " (" + thousands(d.Compared) + " compared"
	if d.TooFew > 0 {
		text += ", " + thousands(d.TooFew) + " too few to tell"
	}
	return text + ")"
}

// first tells of the first few changes.
func (s screen) first(all []unload.Change) string {
	const most = 3
	var parts []string
	for i, c := range all {
		if i == most {
			parts = append(parts, fmt.Sprintf("and %d more", len(all)-i))
			break
		}
		parts = append(parts, s.change(c))
	}
	return strings.Join(parts, "; ")
}

// change tells of one in a sentence.
func (s screen) change(c unload.Change) string {
	text := s.name(c.Module, longestName)
	if failing(c) {
		return text + " " + s.refusing(c) + " " + s.became(ofAll(c.Old), ofAll(c.New))
	}
	if c.Phase != "" {
		text += " " + s.place(unload.Phase{Name: c.Phase, Merged: c.Merged})
	}
	facts := fmt.Sprintf("%s and %s unloads", thousands(c.Old.Count), thousands(c.New.Count))
	if c.Ratio > 0 {
		facts = factor(c.Ratio) + ", " + facts
	}
	return text + " " + quantile(c) + " " + s.became(s.duration(c.Old.At(c.Quantile)), s.duration(c.New.At(c.Quantile))) + " (" + facts + ")"
}

// quantile names what changed in the durations.
func quantile(c unload.Change) string {
	if c.Quantile == unload.Tail {
		return string(unload.Tail)
	}
	return string(unload.Median)
}

// failing says that a change is one of how often something fails.
func failing(c unload.Change) bool { return c.Reason != "" }

// refusing says what happens more or less often.
func (s screen) refusing(c unload.Change) string {
	if c.Reason == unload.NoAnswer {
		return "unanswered"
	}
	return "refused (" + s.name(string(c.Reason), 24) + ")"
}

func (s screen) became(old, now string) string {
	arrow := " → "
	if s.ascii {
		arrow = " -> "
	}
	return old + arrow + now
}

// ofAll is how many attempts failed.
func ofAll(m unload.Measured) string { return thousands(m.Failed) + " of " + thousands(m.Count) }

// factor writes a ratio.
func factor(ratio float64) string {
	switch {
	case ratio >= 100:
		return strconv.FormatFloat(math.Min(ratio, 1e9), 'f', 0, 64) + "x"
	case ratio >= 1.995 || ratio == 0:
		return strconv.FormatFloat(ratio, 'f', 1, 64) + "x"
	}
	return strconv.FormatFloat(ratio, 'f', 2, 64) + "x"
}

// mostChanges is how many are shown.
const mostChanges = 20

// changes lays out what changed, or may have.
func (s screen) changes(all []unload.Change) ([]string, error) {
	if len(all) == 0 {
		return nil, nil
	}
	shown := all
	if !s.verbose && len(all) > mostChanges {
		shown = all[:mostChanges]
	}
	lines, err := s.changeTable(shown)
	if err != nil {
		return nil, err
	}
	if rest := len(all) - len(shown); rest > 0 {
		lines = append(lines, s.aside(fmt.Sprintf("and %s more (--json has all)", thousands(int64(rest))))...)
	}
	return lines, nil
}

func (s screen) changeTable(shown []unload.Change) ([]string, error) {
	const narrow = 64
	if s.width < narrow {
		return s.changeList(shown), nil
	}
	rows := make([]row, len(shown))
	for i, c := range shown {
		rows[i] = s.changeRow(c)
	}
	cols := []column{
		{head: "module"}, {head: "what"}, {"old", true}, {"new", true}, {"ratio", true},
		{"old p95", true}, {"new p95", true}, {"p", true}, {head: "verdict"},
	}
	const colRatio, colOld95, colNew95, colP = 4, 5, 6, 7
	return s.told(cols, rows, []int{colOld95, colNew95}, []int{colP}, []int{colRatio})
}

// changeList tells of each change in a sentence, where there is no room for a table.
func (s screen) changeList(shown []unload.Change) (lines []string) {
	indent := strings.Repeat(" ", gap)
	for _, c := range shown {
		text := s.name(c.Module, longestName) + ": " + s.judged(c)
		if c.Old.Count > 0 && c.New.Count > 0 {
			text = s.change(c) + ": " + s.judged(c)
		}
		for _, line := range wrap(text, max(s.width-gap, 1), indent) {
			lines = append(lines, s.paint(changeColor(c), s.fit(indent+line)))
		}
	}
	return lines
}

func (s screen) changeRow(c unload.Change) row {
	what := "whole"
	if c.Phase != "" {
		what = s.place(unload.Phase{Name: c.Phase, Merged: c.Merged})
	}
	what += " " + quantile(c)
	cells := []string{s.name(c.Module, max(s.width/4, 16)), s.cut(what, max(s.width/3, 16)), "", "", "", "", "", "", s.judged(c)}
	switch {
	case failing(c):
		cells[1], cells[2], cells[3] = s.cut(s.refusing(c), max(s.width/3, 16)), ofAll(c.Old), ofAll(c.New)
	default:
		for i, m := range []unload.Measured{c.Old, c.New} {
			if m.Count > 0 {
				cells[2+i], cells[5+i] = s.duration(m.At(c.Quantile)), s.duration(m.P95)
			}
		}
	}
	if c.Ratio > 0 {
		cells[4] = factor(c.Ratio)
	}
	if c.Verdict == unload.Significant {
		cells[7] = chance(c.AdjustedP)
	}
	return row{cells, changeColor(c)}
}

func changeColor(c unload.Change) color {
	switch {
	case c.Verdict != unload.Significant:
		return dim
	case c.Kind == unload.Slower || c.Kind == unload.Fails:
		return red
	}
	return green
}

// judged says what to make of a change.
func (s screen) judged(c unload.Change) string {
	n := fmt.Sprintf("%s and %s unloads", thousands(c.Old.Count), thousands(c.New.Count))
	switch {
	case c.Verdict == unload.TooFew && failing(c):
		return "too few to tell: " + n
	case c.Verdict == unload.TooFew && c.Kind == unload.Unclear:
		return "too few to tell: " + n
	case c.Verdict == unload.TooFew:
		return s.name(string(c.Kind), 16) + ", but too few to tell: " + n
	case c.Kind == unload.Appeared:
		return "no attempt in the old capture"
	case c.Kind == unload.Gone:
		return "no attempt in the new capture"
	case c.Kind == unload.Fails:
		return "fails more often"
	case c.Kind == unload.Recovered:
		return "fails less often"
	}
	if c.Quantile == unload.Tail {
		return "its slowest are " + s.name(string(c.Kind), 16) + ", " + n
	}
	return s.name(string(c.Kind), 16) + ", " + n
}

// chance writes a p value.
func chance(p float64) string {
	if p < 0.0001 {
		return "<0.0001"
	}
	return strconv.FormatFloat(p, 'f', 4, 64)
}

// compared says what was compared, and what counts as a change.
func (s screen) compared(d unload.Diff) []string {
	side := func(name string, c unload.Source) string {
		text := name + ": " + numbered(c.Attempts, "attempt", "attempts") + ", " + thousands(c.Unloaded) + " unloaded"
		return text + suffix(", on ", s.few(c.Kernels)) + suffix(", host ", s.few(c.Hosts))
	}
	lines := s.aside(side("old", d.Old))
	lines = append(lines, s.aside(side("new", d.New))...)
	if d.Compared == 0 {
		return lines
	}
	part := func(x float64) string { return strconv.FormatFloat(math.Round(1000*x)/10, 'f', -1, 64) + "%" }
	return append(lines, s.aside(fmt.Sprintf("p is the chance to find any change like it, of %s at least, where there is none; less than %s counts",
		part(d.Relative), part(d.Alpha)))...)
}
