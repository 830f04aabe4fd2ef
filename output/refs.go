package output

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/modtrace/modtrace/unload"
)

// Ledger prints who takes and drops references on a module: the balance in one line,
// who held how many for how long, and how those came about that are outstanding.
func (t *table) Ledger(l unload.Ledger) error {
	b := l.Balance
	lines := t.sentence(t.balanceColor(b), t.balance(l))
	for _, text := range t.doubts(b) {
		lines = append(lines, t.sentence(red, text)...)
	}
	rows, err := t.entries(l)
	if err != nil {
		return err
	}
	return t.print(append(append(lines, rows...), t.takings(l.Entries)...))
}

// doubts lists what of a balance is not known.
func (s screen) doubts(b unload.Balance) (texts []string) {
	for _, m := range b.Missing {
		texts = append(texts, "not seen: "+s.clean(m))
	}
	if b.Unexplained != 0 {
		texts = append(texts, s.unexplained(b.Unexplained))
	}
	if b.Unseen != 0 {
		texts = append(texts, "not seen: how "+count(b.Unseen, "reference was", "references were")+" dropped")
	}
	if b.Unsettled != 0 {
		texts = append(texts, s.unsettled(b.Unsettled))
	}
	return texts
}

func (s screen) balanceColor(b unload.Balance) color {
	if b.Refcount == 0 {
		return green
	}
	return plain
}

// balance says in one line where the count comes from.
func (s screen) balance(l unload.Ledger) string {
	b := l.Balance
	name := s.name(b.Module, longestName)
	took := s.duration(b.Time.Sub(b.Start).Nanoseconds())
	switch {
	case b.Refcount == 0 && b.Gets == 0 && b.Puts == 0 && b.State == "":
		return name + " is not loaded, and was not in " + took
	case b.Refcount == 0 && b.Gets == 0 && b.Puts == 0:
		return name + " has no references, and none was taken in " + took
	case b.Refcount == 0:
		has := " has no references"
		if b.State == "" {
			has = " is not loaded any more"
		}
		return name + has + ": " + s.takenAndDropped(b) + " in " + took + s.chief(l.Entries)
	}
	var parts []string
	if b.Before != 0 {
		parts = append(parts, fmt.Sprintf("%d taken before", b.Before))
	}
	switch {
	case b.Gets == 0:
		parts = append(parts, "none taken since")
	case b.Outstanding == 0:
		parts = append(parts, fmt.Sprintf("none outstanding of %d taken since", b.Gets))
	default:
		parts = append(parts, fmt.Sprintf("%d outstanding of %d taken since", b.Outstanding, b.Gets))
	}
	if b.Unexplained > 0 {
		parts = append(parts, fmt.Sprintf("%d unexplained", b.Unexplained))
	}
	return fmt.Sprintf("%s has %s: %s", name, count(b.Refcount, "reference", "references"), strings.Join(parts, ", ")) + s.firstHolder(l.Entries)
}

func (s screen) takenAndDropped(b unload.Balance) string {
	text := count(b.Gets, "was", "were") + " taken and dropped"
	if b.Initial == 0 {
		return text
	}
	text = fmt.Sprintf("%d of before %s dropped", b.Initial, wasOrWere(b.Initial))
	if b.Gets > 0 {
		text += ", and " + count(b.Gets, "was", "were") + " taken and dropped"
	}
	return text
}

func wasOrWere(n int64) string {
	if n == 1 {
		return "was"
	}
	return "were"
}

// chief names who took most of the references that all were dropped.
func (s screen) chief(entries []unload.Refs) string {
	for _, r := range entries {
		if r.Gets > 0 {
			text := "; " + s.taker(r)
			if r.Gets > 1 {
				text += fmt.Sprintf(" took %d of them and held one for %s at most", r.Gets, s.duration(r.HeldMax))
			} else {
				text += " held one for " + s.duration(r.HeldMax)
			}
			return text
		}
	}
	return ""
}

// firstHolder names who holds what was taken first.
func (s screen) firstHolder(entries []unload.Refs) string {
	if len(entries) == 0 || entries[0].Outstanding == 0 {
		return ""
	}
	r := entries[0]
	text := "; " + s.taker(r) + " took "
	if r.Outstanding > 1 {
		text += strconv.FormatInt(r.Outstanding, 10)
	} else {
		text += "one"
	}
	return text + " in " + s.places(r, entries) + ", " + s.duration(r.HeldMax) + " ago"
}

func (s screen) unexplained(n int64) string {
	if n > 0 {
		return fmt.Sprintf("unexplained: the kernel counts %d more than were seen", n)
	}
	return fmt.Sprintf("unexplained: the kernel counts %d fewer than were seen", -n)
}

func (s screen) unsettled(n int64) string {
	return "not certain: " + count(n, "reference was", "references were") +
		" dropped by processes that had taken none; which ones is not known, and the oldest are taken to be those"
}

// taker names who took references.
func (s screen) taker(r unload.Refs) string {
	comm := s.name(r.Comm, 24)
	switch {
	case r.Processes > 1:
		return fmt.Sprintf("%d processes (%s)", r.Processes, comm)
	case r.Gone:
		return fmt.Sprintf("process %d (%s), which has ended,", r.PID, comm)
	}
	return fmt.Sprintf("process %d (%s)", r.PID, comm)
}

// places names where references were taken that are outstanding, all that come into
// question.
func (s screen) places(r unload.Refs, all []unload.Refs) string {
	text := s.frame(r.Site)
	if r.Ambiguous == 0 || r.Outstanding == 0 {
		return text
	}
	const most = 3
	others := 0
	for _, o := range all {
		if o.PID != r.PID || o.Load != r.Load || o.Gets == 0 || o.Site == r.Site {
			continue
		}
		if others++; others == most {
			return text + " or elsewhere"
		}
		text += " or " + s.frame(o.Site)
	}
	return text
}

// mostEntries is how many are shown.
const mostEntries = 20

// entries lays out who took how many.
func (s screen) entries(l unload.Ledger) ([]string, error) {
	const narrow = 60
	cols := []column{{head: "now", right: true}, {head: "taken", right: true}, {head: "longest", right: true}, {head: "mean", right: true}, {head: "by"}}
	rows := s.before(l.Balance)
	for i, r := range l.Entries {
		if i == mostEntries && !s.verbose {
			rows = append(rows, row{[]string{"", "", "", "", fmt.Sprintf("%d more; -v shows them", len(l.Entries)-i)}, plain})
			break
		}
		rows = append(rows, s.entry(r, l.Entries))
	}
	if len(rows) == 0 {
		return nil, nil
	}
	if s.width < narrow {
		const mean = 3
		cols = slices.Delete(cols, mean, mean+1)
		for i := range rows {
			rows[i].cells = slices.Delete(rows[i].cells, mean, mean+1)
		}
	}
	last := len(cols) - 1
	room := s.width - gap
	for i, c := range cols[:last] {
		room -= widest(rows, i, c.head) + gap
	}
	for _, r := range rows {
		r.cells[last] = strings.Join(wrap(r.cells[last], max(room, 10), ""), "\n")
	}
	return s.grid(cols, rows)
}

// before lays out what is left of the references that there were already.
func (s screen) before(b unload.Balance) (rows []row) {
	left := b.Before
	add := func(refs int64, who string) {
		rows = append(rows, row{[]string{strconv.FormatInt(refs, 10), "before", "", "", who}, plain})
	}
	for _, h := range b.Holders {
		left -= h.Refs
		add(h.Refs, s.holder(h)+": "+s.what(h))
	}
	if left > 0 {
		add(left, "by whom is not known")
	}
	return rows
}

// entry lays out what one process did in one place.
func (s screen) entry(r unload.Refs, all []unload.Refs) row {
	if r.Gets == 0 {
		return row{[]string{"", "", "", "", fmt.Sprintf("%s dropped %d that others took, in %s", s.taker(r), r.Puts, s.frame(r.Site))}, dim}
	}
	what := s.taker(r) + " in " + s.places(r, all)
	if r.Dropped != "" {
		what += ", until " + s.frame(r.Dropped)
	}
	if r.HandedOver > 0 {
		what += fmt.Sprintf("; %d dropped by others", r.HandedOver)
	}
	c, now := plain, ""
	if r.Outstanding > 0 {
		now = strconv.FormatInt(r.Outstanding, 10)
		if r.Gone {
			c = red
		}
	}
	return row{[]string{now, strconv.FormatInt(r.Gets, 10), s.duration(r.HeldMax), s.duration(r.Held / r.Gets), what}, c}
}

// Stacks that are shown, and frames of each.
const (
	mostTakings = 3
	mostFrames  = 8
)

// takings shows the stacks by which those were taken that are outstanding; -v all.
func (s screen) takings(entries []unload.Refs) (lines []string) {
	shown := 0
	for _, r := range entries {
		if len(r.Stack) == 0 || !s.verbose && (r.Outstanding == 0 || shown == mostTakings) {
			continue
		}
		shown++
		did, it := "took", "it"
		switch {
		case r.Gets == 0:
			did = "dropped"
		case r.Ambiguous > 0 && r.Gets == 1:
			did = "may have taken"
		}
		if r.Gets+r.Puts > 1 {
			it = "the first"
		}
		lines = append(lines, s.sentence(plain, fmt.Sprintf("%s %s %s by", s.taker(r), did, it))...)
		for i, f := range r.Stack {
			if i == mostFrames && !s.verbose {
				lines = append(lines, s.sentence(dim, "  "+count(int64(len(r.Stack)-i), "more frame", "more frames")+"; -v shows them")...)
				break
			}
			lines = append(lines, s.fit("  "+s.clean(f)))
		}
	}
	return lines
}

// Ref prints one reference taken or dropped, as a line.
func (t *table) Ref(r unload.Ref) error {
	text := fmt.Sprintf("%s %-3s %s in %s", r.Time.UTC().Format("15:04:05.000000Z"), t.name(r.Op, 8), t.process(r), t.frame(r.Site))
	switch {
	case r.Op == "put" && r.Taken == "":
		text += ", taken by another or before"
	case r.Op == "put" && r.Held >= 0:
		text += ", held " + t.duration(r.Held) + " since " + t.frame(r.Taken)
	case r.Op == "put":
		text += ", taken in " + t.frame(r.Taken)
	}
	t.begun = true
	if err := writeAll(t.w, []byte(strings.Join(t.sentence(plain, text), "\n")+"\n")); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	return nil
}

func (s screen) process(r unload.Ref) string {
	return fmt.Sprintf("%s (pid %d)", s.name(r.Comm, 24), r.PID)
}
