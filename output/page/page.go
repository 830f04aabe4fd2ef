// Package page makes a report of captures that is one page of HTML: self-contained, to
// be read without a network and without scripts, which only filter and sort. What stands
// in a capture is text in it and never markup.
package page

import (
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/modtrace/modtrace/output"
	"github.com/modtrace/modtrace/unload"
)

// Options say what a page is made for.
type Options struct {
	// Most is how many attempts are shown; 0 is 1000. Of more, those are kept that were
	// not answered, were refused or took longest; the page counts the others.
	Most int
	// Notes gives what else the reader should know of the captures, such as that a file
	// could not be read to its end. It is asked when the page is closed; nil is none.
	Notes func() []string
}

// New reports to w as one self-contained page. Nothing is written before Close, and what
// is kept until then does not grow with the captures.
func New(w io.Writer, o Options) output.Document {
	const most = 1000
	if o.Most <= 0 {
		o.Most = most
	}
	if o.Notes == nil {
		o.Notes = func() []string { return nil }
	}
	return &document{w: w, notes: o.Notes, kept: keep{most: o.Most}, totals: newTotals(), open: map[task]*hang{}}
}

// Bounds on what is kept besides the attempts; the page counts what is beyond.
const (
	mostCaptures = 200
	mostOthers   = 200 // hangs, reloads and so on, of each
)

// document keeps what the page will say.
type document struct {
	w        io.Writer
	notes    func() []string
	seq      int64 // of attempts
	captures bounded[*recording]
	now      *recording // that the records belong to
	kept     keep
	totals   totals
	open     map[task]*hang // that have not ended
	hangs    bounded[*hang]
	reloads  bounded[reload]
	whys     bounded[why]
	ledgers  bounded[ledger]
	refs     int64 // references taken and dropped that were told one by one
	hosts    names
	kernels  names
}

// names counts different ones, as far as it matters.
type names []string

func (n *names) add(name string) {
	if len(*n) < 8 && !slices.Contains(*n, name) {
		*n = append(*n, name)
	}
}

// bounded is a list that counts what it has no room for.
type bounded[T any] struct {
	all  []T
	more int64
}

func (b *bounded[T]) add(v T, most int) bool {
	if len(b.all) >= most {
		b.more++
		return false
	}
	b.all = append(b.all, v)
	return true
}

// recording is one run of the recorder.
type recording struct {
	number  int
	header  unload.Header
	absent  map[unload.PhaseName]bool // that its kernel does not go through
	headed  bool
	trailer *unload.Trailer // nil: it was cut short
	records int64
}

// task is who unloads: it can only be in one unload at a time.
type task struct {
	capture *recording
	module  string
	tid     int
}

// hang is an unload that was reported while it hung.
type hang struct {
	capture *recording
	last    unload.Stall
	text    string // in one line
	reports int64
	end     *entry // nil: its end is in no capture
	shown   *entry // where the page tells of it
}

type reload struct {
	capture *recording
	record  unload.Reload
}

type why struct {
	capture *recording
	record  unload.Why
	more    int64 // holders that there was no room for
}

type ledger struct {
	capture *recording
	record  unload.Ledger
	more    int64 // entries that there was no room for
}

func (d *document) Header(h unload.Header) error {
	c := &recording{number: int(d.captures.more) + len(d.captures.all) + 1, headed: true, absent: map[unload.PhaseName]bool{}}
	c.header = cutHeader(h)
	for _, hook := range h.Plan {
		if hook.Status == unload.StatusAbsent && len(c.absent) < mostPhases {
			c.absent[hook.Phase] = true
		}
	}
	d.captures.add(c, mostCaptures)
	d.hosts.add(c.header.Host)
	d.kernels.add(c.header.Kernel)
	d.now = c
	return nil
}

// current is the capture that a record belongs to. One that begins without a header has
// lost it.
func (d *document) current() *recording {
	if d.now == nil {
		d.now = &recording{number: int(d.captures.more) + len(d.captures.all) + 1}
		d.captures.add(d.now, mostCaptures)
	}
	d.now.records++
	return d.now
}

func (d *document) Unload(u unload.Unload) error {
	c := d.current()
	d.seq++
	d.totals.add(u)
	e := &entry{seq: d.seq, capture: c, state: stateOf(u), duration: max(u.Duration, 0)}
	key := task{c, cut(u.Module), u.Caller.TID}
	if h, ok := d.open[key]; ok && u.Caller.TID != 0 && !u.Start.Before(h.last.Start.Add(-time.Second)) {
		delete(d.open, key)
		h.end, h.shown, e.hang = e, e, h
	}
	d.kept.offer(e, func() { e.fill(u) })
	return nil
}

// Stall keeps the last report of each unload that hung.
func (d *document) Stall(s unload.Stall) error {
	c := d.current()
	key := task{c, cut(s.Module), s.Caller.TID}
	h, ok := d.open[key]
	if !ok || s.Start.Sub(h.last.Start).Abs() > time.Second {
		h = &hang{capture: c}
		if !d.hangs.add(h, mostOthers) {
			return nil
		}
		d.open[key] = h
	}
	h.text, h.last = output.Stuck(s), cutStall(s)
	h.reports++
	return nil
}

func (d *document) Reload(r unload.Reload) error {
	c := d.current()
	if len(d.reloads.all) < mostOthers {
		r = cutReload(r)
	}
	d.reloads.add(reload{c, r}, mostOthers)
	return nil
}

func (d *document) Why(w unload.Why) error {
	kept := why{capture: d.current()}
	if len(d.whys.all) < mostOthers {
		kept.record, kept.more = cutWhy(w)
	}
	d.whys.add(kept, mostOthers)
	return nil
}

func (d *document) Ledger(l unload.Ledger) error {
	kept := ledger{capture: d.current()}
	if len(d.ledgers.all) < mostOthers {
		kept.record, kept.more = cutLedger(l)
	}
	d.ledgers.add(kept, mostOthers)
	return nil
}

// Ref counts: what they come to is in the ledger.
func (d *document) Ref(unload.Ref) error {
	d.current()
	d.refs++
	return nil
}

func (d *document) Trailer(t unload.Trailer) error {
	c := d.current()
	c.records--
	t = cutTrailer(t)
	c.trailer = &t
	d.now = nil
	return nil
}

// Close writes the page.
func (d *document) Close() error {
	d.unended()
	if err := d.render(); err != nil {
		return fmt.Errorf("writing the page: %w", err)
	}
	return nil
}

// unended makes attempts of the hangs of which no end was recorded: a recorder that is
// killed leaves nothing else of them.
func (d *document) unended() {
	for _, h := range d.hangs.all {
		if h.end != nil {
			continue
		}
		d.seq++
		u := h.last.Unload
		u.Outcome = unload.InFlight
		if h.last.Outcome == unload.Died {
			u.Outcome = unload.Died
		}
		u.Duration = max(u.Duration, h.last.Elapsed)
		u.Missing = append(u.Missing, "its end is in no capture: this is what was known when it was last reported to hang")
		d.totals.add(u)
		e := &entry{seq: d.seq, capture: h.capture, state: stateOf(u), duration: max(u.Duration, 0), hang: h}
		h.shown = e
		d.kept.offer(e, func() { e.fill(u); e.verdict = h.text })
	}
}
