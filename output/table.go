package output

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/modtrace/modtrace/unload"
)

// TableOptions say what a table is drawn for.
type TableOptions struct {
	// Width is how many columns there are; 0 is 80.
	Width int
	// Color allows colours, which stand for what is said in words too.
	Color bool
	// ASCII keeps to ASCII, for terminals that do not speak UTF-8 or draw
	// some of it wider than Unicode says.
	ASCII bool
	// Verbose leaves nothing out and says what the report was made on.
	Verbose bool
}

func (o TableOptions) screen() screen {
	s := screen{width: o.Width, color: o.Color, ascii: o.ASCII, verbose: o.Verbose}
	if s.width <= 0 {
		s.width = 80
	}
	return s
}

// NewTable reports to w as tables for people: for each unload its verdict,
// where the time went, who asked for it, and what is not known of it. Names
// can be anything; what is printed of them is harmless. Each record is a
// single Write.
func NewTable(w io.Writer, o TableOptions) Report {
	return &table{screen: o.screen(), w: w, ends: map[unload.Kind]int64{}}
}

type table struct {
	screen
	w      io.Writer
	absent map[unload.PhaseName]bool
	begun  bool // something was printed
	ends   map[unload.Kind]int64
}

// Header prints something only if all is wanted: the first line of a report
// is its answer.
func (t *table) Header(h unload.Header) error {
	t.absent = map[unload.PhaseName]bool{}
	for _, hook := range h.Plan {
		if hook.Status == unload.StatusAbsent {
			t.absent[hook.Phase] = true
		}
	}
	if !t.verbose {
		return nil
	}
	text := "modtrace"
	for _, part := range [][2]string{
		{" ", h.Tool}, {" on Linux ", h.Kernel}, {" ", h.Arch}, {", host ", h.Host}, {", boot ", h.BootID},
	} {
		if part[1] != "" {
			text += part[0] + t.clean(part[1])
		}
	}
	return t.print(t.sentence(dim, text))
}

// Unload prints one unload.
func (t *table) Unload(u unload.Unload) error {
	t.ends[u.Result.Kind()]++
	phases, err := t.phases(u, t.absent)
	if err != nil {
		return err
	}
	facts, err := t.facts(u)
	if err != nil {
		return err
	}
	holders, err := t.refusedFor(u)
	if err != nil {
		return err
	}
	return t.print(slices.Concat(t.answer(u), t.unknowns(u), holders, phases, t.tree(u), facts))
}

// answer is the verdict, coloured by how it went.
func (t *table) answer(u unload.Unload) []string {
	c := red
	if u.Result.Kind() == unload.Unloaded {
		c = green
	}
	return t.sentence(c, t.verdict(u))
}

// unknowns says, right below the verdict, what of the record is not known.
func (s screen) unknowns(u unload.Unload) []string {
	var lines []string
	for _, text := range s.lacks(u) {
		lines = append(lines, s.sentence(red, "incomplete: "+text)...)
	}
	return lines
}

// lacks lists what of a record is not known.
func (s screen) lacks(u unload.Unload) []string {
	var texts []string
	told := false
	for _, m := range u.Missing {
		texts = append(texts, s.clean(m))
		told = told || strings.HasPrefix(m, strconv.FormatInt(u.LostEvents, 10)+" event")
	}
	if u.LostEvents != 0 && !told {
		texts = append(texts, count(u.LostEvents, "event was lost", "events were lost"))
	}
	if u.Unaccounted != 0 {
		texts = append(texts, s.duration(u.Unaccounted)+" are in no phase")
	}
	if !u.Complete && texts == nil {
		texts = append(texts, "the record does not say why")
	}
	return texts
}

// Trailer prints what the stream as a whole did not see, and a count if there
// was more than one unload.
func (t *table) Trailer(tr unload.Trailer) error {
	var lines []string
	add := func(c color, text string) { lines = append(lines, t.sentence(c, text)...) }
	if text := t.lost(tr.LostEvents); text != "" {
		add(red, "incomplete: "+text)
	}
	if tr.MissedProbes != 0 {
		add(red, "incomplete: "+count(tr.MissedProbes, "probe hit was missed", "probe hits were missed"))
	}
	if tr.Incomplete != 0 {
		add(red, "incomplete: "+count(tr.Incomplete, "record is", "records are")+" not complete")
	}
	if text := t.summary(); text != "" {
		add(plain, text)
	}
	return t.print(lines)
}

// lost tells how many events of each kind were lost.
func (s screen) lost(kinds map[string]int64) string {
	var parts []string
	var total int64
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		if n := kinds[kind]; n != 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, s.name(kind, 24)))
			total += n
		}
	}
	if parts == nil {
		return ""
	}
	return fmt.Sprintf("%s (%s)", count(total, "event was lost", "events were lost"), strings.Join(parts, ", "))
}

func (t *table) summary() string {
	n := t.ends[unload.Unloaded] + t.ends[unload.Refused] + t.ends[unload.Unanswered]
	if n < 2 {
		return ""
	}
	text := fmt.Sprintf("%d unload attempts:", n)
	separator := " "
	for _, part := range []struct {
		outcome unload.Kind
		words   string
	}{{unload.Unloaded, "unloaded"}, {unload.Refused, "refused"}, {unload.Unanswered, "unanswered"}} {
		if k := t.ends[part.outcome]; k > 0 {
			text += fmt.Sprintf("%s%d %s", separator, k, part.words)
			separator = ", "
		}
	}
	return text
}

// sentence wraps text to the screen and colours it.
func (s screen) sentence(c color, text string) []string {
	lines := wrap(text, s.width, strings.Repeat(" ", gap))
	for i, line := range lines {
		lines[i] = s.paint(c, s.fit(line))
	}
	return lines
}

// print writes lines, with a blank one before them if they are not the first.
func (t *table) print(lines []string) error {
	if len(lines) == 0 {
		return nil
	}
	text := strings.Join(lines, "\n") + "\n"
	if t.begun {
		text = "\n" + text
	}
	t.begun = true
	if err := writeAll(t.w, []byte(text)); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	return nil
}
