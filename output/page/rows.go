package page

import (
	"cmp"
	"slices"
	"strconv"

	"github.com/modtrace/modtrace/output"
	"github.com/modtrace/modtrace/unload"
)

// waitRow is a line of the table of waits.
type waitRow struct {
	Phase, For, Spot, Busy, Waker string
	Ink                           ink
	Count                         int64
	Total, Longest, Share         string
	Stacks                        []stack
	ns                            int64
}

// stack is one that can be opened.
type stack struct {
	Title  string
	Frames []string
}

func waitRows(u unload.Unload) []waitRow {
	var all []waitRow
	for _, p := range u.Phases {
		for _, w := range p.Waits {
			r := waitRow{
				Phase: phaseName(p.Name), For: output.Target(w), Spot: output.Spot(w.Stack),
				Busy: output.Busy(w.Blocker), Waker: output.Agent(w.Waker), Ink: inkOf(w.Cause), Count: max(w.Count, 1),
				Total: output.Duration(w.Duration), Longest: output.Duration(max(w.Longest, 0)), Share: output.Share(w.Duration, u.Duration),
				ns: w.Duration,
			}
			if text := output.Pending(w); text != "" {
				r.For += ", " + text
			}
			r.stack("where it waited", w.Stack)
			r.stack("what the blocker was doing", w.Blocker.Stack)
			r.stack("what the waker was doing", w.Waker.Stack)
			all = append(all, r)
		}
	}
	slices.SortStableFunc(all, func(a, b waitRow) int { return cmp.Compare(b.ns, a.ns) })
	return all
}

func (r *waitRow) stack(title string, frames []string) {
	if len(frames) > 0 {
		r.Stacks = append(r.Stacks, stack{title, cleaned(frames)})
	}
}

// hotRow is a place in which the task was found running.
type hotRow struct {
	Phase, Spot string
	Samples     int64
	Share       string
	Frames      []string
}

func hotRows(u unload.Unload) []hotRow {
	var total int64
	for _, p := range u.Phases {
		for _, h := range p.Hot {
			total = unload.Plus(total, h.Samples)
		}
	}
	var all []hotRow
	for _, p := range u.Phases {
		for _, h := range p.Hot {
			spot := output.Spot(h.Stack)
			if spot == "" {
				spot = "a place that is not known"
			}
			all = append(all, hotRow{phaseName(p.Name), spot, h.Samples, output.Share(h.Samples, total), cleaned(h.Stack)})
		}
	}
	slices.SortStableFunc(all, func(a, b hotRow) int { return cmp.Compare(b.Samples, a.Samples) })
	return all
}

// holders is who holds a module.
type holders struct {
	Rows        []holderRow
	Unexplained int64
	More        int64 // that there was no room for
}

type holderRow struct {
	Refs           int64
	Kind, Who, How string
	Confidence     string
	Frames         []string
}

func holderRows(list []unload.Holder) []holderRow {
	var all []holderRow
	for _, h := range list {
		all = append(all, holderRow{
			h.Refs, output.Clean(string(h.Kind)), output.Holder(h), output.Holding(h), output.Clean(string(h.Confidence)), cleaned(h.Stack),
		})
	}
	return all
}

// whyView answers who holds a module.
type whyView struct {
	Capture                             string
	When                                moment
	Text                                string
	Free                                bool
	Holders                             holders
	Missing, Hazards, Advice, Plan, Dep []string
}

func (d *document) whyViews() []whyView {
	var all []whyView
	for _, w := range d.whys.all {
		r := w.record
		v := whyView{
			Capture: d.label(w.capture), When: momentOf(r.Time), Text: output.Held(r), Free: r.Unloadable,
			Holders: holders{holderRows(r.Holders), max(r.Unexplained, 0), w.more},
			Missing: cleaned(r.Missing), Hazards: cleaned(r.Hazards), Advice: cleaned(r.Advice),
		}
		if len(r.Plan) > 1 {
			v.Plan = cleaned(r.Plan)
		}
		all = append(all, v)
	}
	return all
}

// ledgerView is the account of a module's references.
type ledgerView struct {
	Capture     string
	When        moment
	Text        string
	Doubts      []string
	Holders     holders
	Entries     []ledgerRow
	More        int64
	Outstanding int64
}

type ledgerRow struct {
	Now, Taken, HandedOver int64
	Longest, Who, Where    string
	Frames                 []string
}

func (d *document) ledgerViews() []ledgerView {
	var all []ledgerView
	for _, l := range d.ledgers.all {
		b := l.record.Balance
		v := ledgerView{
			Capture: d.label(l.capture), When: momentOf(b.Time), Text: output.Balance(l.record), Doubts: output.Doubts(b),
			Holders: holders{Rows: holderRows(b.Holders)}, More: l.more, Outstanding: b.Outstanding,
		}
		for _, r := range l.record.Entries {
			v.Entries = append(v.Entries, entryRow(r, l.record.Entries))
		}
		all = append(all, v)
	}
	return all
}

func entryRow(r unload.Refs, all []unload.Refs) ledgerRow {
	row := ledgerRow{
		Now: r.Outstanding, Taken: r.Gets, HandedOver: r.HandedOver,
		Longest: output.Duration(max(r.HeldMax, 0)), Who: output.Taker(r), Frames: cleaned(r.Stack),
	}
	if r.Gets == 0 {
		row.Longest = "–"
		row.Where = "dropped " + strconv.FormatInt(r.Puts, 10) + " that others took, in " + output.Frame(r.Site)
		return row
	}
	row.Where = output.Places(r, all)
	if r.Dropped != "" {
		row.Where += ", until " + output.Frame(r.Dropped)
	}
	return row
}
