package output

import (
	"cmp"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/modtrace/modtrace/unload"
)

// Summary writes what many unloads have in common as tables for people: all of it in one
// line, the modules with the longest attempts, and the phases over all. It is a single
// Write.
func Summary(w io.Writer, s unload.Summary, o TableOptions) error {
	t := &table{screen: o.screen(), w: w}
	lines := t.sentence(t.summaryColor(s), t.summed(s))
	lines = append(lines, t.gaps(s)...)
	modules, err := t.modules(s.Modules)
	if err != nil {
		return err
	}
	phases, err := t.allPhases(s.All)
	if err != nil {
		return err
	}
	return t.print(slices.Concat(lines, modules, phases, t.sources(s)))
}

// SummaryJSON writes a summary as a record, in a single Write.
func SummaryJSON(w io.Writer, s unload.Summary) error {
	s.Type = unload.TypeSummary
	s.Modules = slices.Clone(s.Modules)
	return jsonReport{w}.write(&s)
}

func (s screen) summaryColor(sum unload.Summary) color {
	switch {
	case sum.All.Attempts == 0:
		return plain
	case sum.All.Refused+sum.All.Unanswered > 0 || sum.All.Stalls > 0:
		return red
	}
	return green
}

// summed answers in one line.
func (s screen) summed(sum unload.Summary) string {
	all := sum.All
	if all.Attempts == 0 {
		if all.Stalls > 0 {
			return "no unload ended; " + s.slowest(all.Worst)
		}
		return "no module was unloaded, and none refused"
	}
	text := numbered(all.Attempts, "unload", "unloads") + " of " + s.modulesOf(sum)
	if span := sum.Last.Sub(sum.First).Nanoseconds(); span > 0 {
		text += " in " + s.duration(span)
	}
	var parts []string
	if all.Unloaded > 0 {
		parts = append(parts, thousands(all.Unloaded)+" unloaded")
	}
	if all.Refused > 0 {
		parts = append(parts, thousands(all.Refused)+" refused"+parenthesis(s.reasons(all.Reasons)))
	}
	if all.Unanswered > 0 {
		parts = append(parts, thousands(all.Unanswered)+" unanswered")
	}
	text += ": " + strings.Join(parts, ", ")
	if w := all.Worst; w.Kind == unload.Refused && w.Duration < noticeable {
		return text // nobody waits for a refusal
	}
	return text + suffix("; ", s.slowest(all.Worst))
}

// modulesOf says of how many modules, or of which.
func (s screen) modulesOf(sum unload.Summary) string {
	n := int64(len(sum.Modules))
	if n == 1 && sum.Modules[0].Module != unload.Others {
		return s.name(sum.Modules[0].Module, longestName)
	}
	if slices.ContainsFunc(sum.Modules, func(t unload.Tally) bool { return t.Module == unload.Others }) {
		return "more than " + numbered(n-1, "module", "modules")
	}
	return numbered(n, "module", "modules")
}

// reasons says how many were refused for what, the most frequent first.
func (s screen) reasons(all map[unload.Reason]int64) string {
	names := slices.SortedFunc(maps.Keys(all), func(a, b unload.Reason) int {
		return cmp.Or(cmp.Compare(all[b], all[a]), cmp.Compare(a, b))
	})
	const most = 4
	var parts []string
	for i, why := range names {
		if i == most && !s.verbose {
			parts = append(parts, count(int64(len(names)-i), "other reason", "other reasons"))
			break
		}
		parts = append(parts, thousands(all[why])+" "+s.name(string(why), 24))
	}
	return strings.Join(parts, ", ")
}

// slowest tells of the longest attempt, "" if there is none.
func (s screen) slowest(w unload.Worst) string {
	if w.Duration <= 0 {
		return ""
	}
	return "slowest " + s.name(w.Module, longestName) + ", " + s.duration(w.Duration) + suffix(", ", s.blame(w))
}

// blame says where the longest attempt was, and how it ended if it did not well.
func (s screen) blame(w unload.Worst) string {
	var parts []string
	if p := w.Phase; p.Duration > 0 {
		part := percent(min(p.Duration, w.Duration), w.Duration)
		parts = append(parts, part+" in "+s.place(p)+" "+s.spentOn(p))
	}
	switch w.Kind {
	case unload.Refused:
		parts = append(parts, "then refused: "+s.name(string(w.Reason), 24))
	case unload.Unanswered:
		parts = append(parts, "no end seen")
	}
	return strings.Join(parts, ", ")
}

// spentOn is what the task did in a phase; the time of one wait that is most of it goes
// without saying.
func (s screen) spentOn(p unload.Phase) string {
	if waits := p.Waits; len(waits) == 1 && waits[0].Duration >= p.Duration/2 {
		p.Waits = []unload.Wait{{Cause: waits[0].Cause, Blocker: waits[0].Blocker, Count: waits[0].Count}}
		p.OffCPU, p.OnCPU = 1, 0
	}
	return s.activity(p)
}

// gaps says what of the captures is not there.
func (s screen) gaps(sum unload.Summary) []string {
	var lines []string
	add := func(text string) { lines = append(lines, s.sentence(red, "incomplete: "+text)...) }
	if n := sum.CutShort; n > 0 {
		add(count(n, "capture was", "captures were") + " cut short")
	}
	if text := s.lost(sum.LostEvents); text != "" {
		add(text)
	} else if n := sum.All.LostEvents; n > 0 {
		add(count(n, "event was lost", "events were lost"))
	}
	if n := sum.MissedProbes; n > 0 {
		add(count(n, "probe hit was missed", "probe hits were missed"))
	}
	if n := sum.All.Incomplete; n > 0 {
		add(numbered(n, "record is", "records are") + " not complete")
	}
	return lines
}

// thousands writes a number so that it can be read at a glance: 1,204.
func thousands(n int64) string {
	text := strconv.FormatInt(n, 10)
	digits := strings.TrimPrefix(text, "-")
	sign := text[:len(text)-len(digits)]
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return sign + digits
}

// numbered writes a number that may be large, with its noun.
func numbered(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return thousands(n) + " " + many
}

// dash is a number for a column, where none is nothing to look at.
func dash(n int64) string {
	if n == 0 {
		return "-"
	}
	return thousands(n)
}

// parenthesis puts what is not empty in brackets.
func parenthesis(text string) string {
	if text == "" {
		return ""
	}
	return " (" + text + ")"
}
