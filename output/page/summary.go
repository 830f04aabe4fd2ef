package page

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/modtrace/modtrace/output"
	"github.com/modtrace/modtrace/unload"
)

// summary is the top of the page: what a reader has to know who reads nothing else.
type summary struct {
	Headline string
	Where    []string // host, kernel, time
	Warnings []string
	States   []stateRow
	Worst    []worstRow
	Reasons  []reasonRow
	Causes   []causeRow
	Overview *overview
	Shown    int
	Left     int64 // attempts that are not shown
	Hosts    []string
	Nav      []link
}

type link struct{ ID, Text string }

type stateRow struct {
	State state
	Count int64
	X, W  percent
}

type worstRow struct {
	ID           int64
	State        state
	Module, Rest string
	Duration     string
	Bar          []segment
}

type reasonRow struct {
	Count      int64
	Text, Code string
	Modules    string
}

type causeRow struct {
	Ink         ink
	Text        string
	Time, Share string
	W           percent
}

func (d *document) summary(kept []*entry) summary {
	s := summary{
		Headline: d.headline(kept), Where: d.where(), Warnings: d.warnings(), States: d.stateRows(),
		Worst: worst(kept), Reasons: d.reasonRows(), Causes: d.causeRows(), Overview: newOverview(kept),
		Shown: len(kept), Left: d.kept.left,
	}
	if len(d.hosts) > 1 || len(d.kernels) > 1 {
		seen := names{}
		for _, c := range d.captures.all {
			seen.add(d.label(c))
		}
		s.Hosts = seen
	}
	if len(kept) == 1 {
		s.Worst, s.Causes, s.States = nil, nil, nil // all that is said of it below
	}
	add := func(n int, id, text string) {
		if n > 0 {
			s.Nav = append(s.Nav, link{id, fmt.Sprintf("%s (%d)", text, n)})
		}
	}
	add(len(kept), "unloads", "Unloads")
	add(len(d.hangs.all), "hangs", "Hangs")
	add(len(d.reloads.all), "reloads", "Loaded again")
	add(len(d.whys.all), "holders", "Holders")
	add(len(d.ledgers.all), "references", "References")
	add(len(d.captures.all), "captures", "Captures")
	return s
}

// headline sums up all attempts; of a single one it is the verdict.
func (d *document) headline(kept []*entry) string {
	n := d.totals.all()
	switch {
	case n == 0:
		return "No attempt to unload a module"
	case n == 1 && len(kept) == 1:
		return kept[0].verdict
	}
	var parts []string
	for _, s := range states() {
		if k := d.totals.states[s]; k > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", k, s.words()))
		}
	}
	return fmt.Sprintf("%d unload attempts: %s", n, strings.Join(parts, ", "))
}

// words says how an attempt ended, behind a number.
func (s state) words() string {
	switch s {
	case stateHanging:
		return "still hanging"
	case stateDied:
		return "died in the kernel"
	case stateUnseen:
		return "whose end was not seen"
	}
	return string(s)
}

// Label is how an attempt ended, in a word.
func (s state) Label() string {
	if s == stateUnseen {
		return "end unseen"
	}
	return string(s)
}

// Plain is the state as a string, for attributes.
func (s state) Plain() string { return string(s) }

func (d *document) where() []string {
	var all []string
	add := func(before string, list names) {
		switch {
		case len(list) == 1 && list[0] != "":
			all = append(all, before+output.Clean(list[0]))
		case len(list) > 1:
			all = append(all, fmt.Sprintf("%s%s and %d more", before, output.Clean(list[0]), len(list)-1))
		}
	}
	add("host ", d.hosts)
	add("Linux ", d.kernels)
	first, last := d.totals.first.UTC(), d.totals.last.UTC()
	if first.IsZero() {
		return all
	}
	const day, clock = "2006-01-02", "15:04:05"
	text := first.Format(day + " " + clock)
	switch {
	case last.Format(day) != first.Format(day):
		text += " – " + last.Format(day+" "+clock)
	case last.Sub(first) >= time.Second:
		text += " – " + last.Format(clock)
	}
	return append(all, text+" UTC")
}

// warnings say what of the captures is not there, or was not seen.
func (d *document) warnings() []string {
	var all []string
	add := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	cutShort, headless := 0, 0
	lost := map[string]int64{}
	var missed int64
	for _, c := range d.captures.all {
		if !c.headed {
			headless++
		}
		if c.trailer == nil {
			cutShort++
			continue
		}
		missed = unload.Plus(missed, c.trailer.MissedProbes)
		for kind, n := range c.trailer.LostEvents {
			if _, ok := lost[kind]; ok || len(lost) < mostItems {
				lost[kind] = unload.Plus(lost[kind], n)
			}
		}
	}
	if cutShort > 0 {
		add("%s cut short: no trailer, so that what came last, and what was lost, is not known", wasWere(cutShort, len(d.captures.all)))
	}
	if headless > 0 {
		add("%s no header: host and kernel are not known", output.Count(int64(headless), "capture has", "captures have"))
	}
	if text := output.Lost(lost); text != "" {
		add("%s", text)
	}
	if missed > 0 {
		add("%s", output.Count(missed, "probe hit was missed", "probe hits were missed"))
	}
	if n := d.totals.complaints; n > 0 {
		add("the kernel logged an oops or a warning during %s", output.Count(n, "attempt", "attempts"))
	}
	if n := d.totals.incomplete; n > 0 {
		add("%s not complete: what is missing is said at each", output.Count(n, "record is", "records are"))
	}
	if n := d.kept.left; n > 0 {
		add("%s not shown: those that were not answered, were refused or took longest are; all figures here count them too",
			output.Count(n, "attempt is", "attempts are"))
	}
	return append(all, cleaned(d.notes())...)
}

func wasWere(n, of int) string {
	switch {
	case n == 1 && of == 1:
		return "the capture was"
	case n == 1:
		return fmt.Sprintf("1 of %d captures was", of)
	}
	return fmt.Sprintf("%d of %d captures were", n, of)
}

func (d *document) stateRows() []stateRow {
	var all []stateRow
	n := d.totals.all()
	var x percent
	for _, s := range states() {
		if k := d.totals.states[s]; k > 0 {
			all = append(all, stateRow{s, k, x, part(k, n)})
			x += part(k, n)
		}
	}
	return all
}

// worst picks what never came back, and what took longest.
func worst(kept []*entry) []worstRow {
	const most = 3
	list := slices.SortedStableFunc(slices.Values(kept), func(a, b *entry) int {
		if lost := a.state.like() == stateDied; lost != (b.state.like() == stateDied) {
			if lost {
				return -1
			}
			return 1
		}
		return cmp.Compare(b.duration, a.duration)
	})
	var all []worstRow
	for _, e := range list[:min(len(list), most)] {
		module := output.Name(e.record.Module)
		all = append(all, worstRow{
			e.seq, e.state, module, strings.TrimPrefix(e.verdict, module), output.Duration(e.record.Duration), strip(e.record),
		})
	}
	return all
}

func (d *document) reasonRows() []reasonRow {
	const shown = 3
	var all []reasonRow
	for _, reason := range most(d.totals.reasons, func(t *tally) int64 { return t.count }) {
		t := d.totals.reasons[reason]
		r := reasonRow{
			Count: t.count, Code: output.Clean(string(reason)),
			Text: output.Refusal(unload.Unload{Result: unload.Result{Reason: reason}}),
		}
		var names []string
		others := t.others
		for i, m := range most(t.modules, func(n int64) int64 { return n }) {
			n := t.modules[m]
			if i >= shown {
				others += n
				continue
			}
			name := output.Name(m)
			if n > 1 {
				name += " ×" + strconv.FormatInt(n, 10)
			}
			names = append(names, name)
		}
		r.Modules = strings.Join(names, ", ")
		if others > 0 {
			r.Modules += fmt.Sprintf(", %d on others", others)
		}
		all = append(all, r)
	}
	return all
}

// causeRows tells where all attempts together spent their time.
func (d *document) causeRows() []causeRow {
	const shown = 6
	t := d.totals
	var all []causeRow
	whole, top := t.running, t.running
	for _, ns := range t.causes {
		whole, top = unload.Plus(whole, ns), max(top, ns)
	}
	add := func(i ink, text string, ns int64) {
		if ns > 0 {
			all = append(all, causeRow{i, text, output.Duration(ns), output.Share(ns, whole), part(ns, top)})
		}
	}
	told := false
	var rest, kinds int64
	for i, c := range most(t.causes, func(ns int64) int64 { return ns }) {
		ns := t.causes[c]
		if !told && t.running >= ns {
			add(running(), "running on a CPU", t.running)
			told = true
		}
		if i < shown {
			add(inkOf(c), "waiting for "+words(c), ns)
		} else {
			rest, kinds = unload.Plus(rest, ns), kinds+1
		}
	}
	if !told {
		add(running(), "running on a CPU", t.running)
	}
	add(inkOf(unload.CauseOther), "waiting for "+output.Count(kinds, "other cause", "other causes"), rest)
	return all
}

// label names the capture of a record where there are several hosts or kernels.
func (d *document) label(c *recording) string {
	host, kernel := cutTo(output.Clean(c.header.Host), 64), cutTo(output.Clean(c.header.Kernel), 64)
	switch {
	case !c.headed && len(d.captures.all) > 1:
		return "capture " + strconv.Itoa(c.number)
	case len(d.hosts) > 1 && len(d.kernels) > 1:
		return host + ", " + kernel
	case len(d.kernels) > 1:
		return kernel
	case len(d.hosts) > 1:
		return host
	}
	return ""
}

// returns tells who loaded the module of an attempt again.
func (d *document) returns(e *entry) []string {
	if e.state != stateUnloaded {
		return nil
	}
	end := e.record.Start.Add(time.Duration(e.record.Duration))
	var all []string
	for _, r := range d.reloads.all {
		if r.capture != e.capture || r.record.Module != e.record.Module || len(all) == mostItems {
			continue
		}
		if off := r.record.Start.Add(-time.Duration(r.record.After)).Sub(end); off.Abs() < time.Millisecond {
			all = append(all, output.Returned(r.record))
		}
	}
	return all
}
