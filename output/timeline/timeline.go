// Package timeline renders captures as a timeline that Perfetto (https://ui.perfetto.dev)
// and other readers of Chrome's trace events open.
//
// A machine, from boot to boot, is a group of tracks, and a module a track in it: slices
// are the attempts to unload it, and in these the phases. Attempts that overlap have
// tracks of their own. Lines of the kernel's log and references are instants in them;
// stalls and modules that came back are on a track beside. What has a duration but no
// known place, such as waits, is in the arguments of the slice that it belongs to.
package timeline

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/modtrace/modtrace/output"
	"github.com/modtrace/modtrace/unload"
)

// New writes a timeline to w: one JSON object, written as the records come and whole when
// it is closed. It takes no more memory for many records than for a few.
//
// Times count from some weeks before the first record, in microseconds with as many
// digits as nanoseconds need; the wall clock is in the arguments. Captures are to be given
// oldest first: what is dated more than a month before the first record, before 1970 or
// after 2169 is left out, and "left_out" at the end of the file counts it. From ten weeks
// after the first record on, places are rounded to microseconds, and the exact durations
// are in the arguments alone.
func New(w io.Writer) output.Document {
	return &document{w: w, tracks: newTracks()}
}

type document struct {
	output.Silent
	w       io.Writer
	clock   clock
	tracks  *tracks
	header  unload.Header
	machine uint32 // the track of header, 0 if none is known yet
	flows   int64
	leftOut int64

	pending bytes.Buffer // what is to be written
	begun   bool
	events  bool // there was one, so that the next needs a comma
}

// Header is of the records that follow.
func (d *document) Header(h unload.Header) error {
	h.Plan = nil
	d.header, d.machine = h, 0
	return d.flush()
}

// Unload writes an attempt with its phases and all that has a place in it.
func (d *document) Unload(u unload.Unload) error {
	start, ok := d.clock.at(u.Start)
	if !ok || u.Duration < 0 || u.Duration > lasting {
		d.leftOut++
		return d.flush()
	}
	a := attempt{pid: d.track(), start: start, duration: u.Duration}
	a.tid = d.tracks.slice(owner{machine: a.pid, module: u.Module}, place(start), place(start+u.Duration), u.Result.Kind() == unload.Unloaded)
	whole := a.slice("unload "+output.Name(u.Module), "unload", 0, u.Duration)
	a.phases(u.Phases)
	a.log(u.Log)
	a.references(u.References)
	whole.Args = argsOf(u, a)
	return d.flush(append([]event{whole}, a.events...)...)
}

// Stall writes an instant at the time when an unload was found to hang.
func (d *document) Stall(st unload.Stall) error {
	at, ok := d.clock.at(st.Start)
	if !ok || st.Duration < 0 || st.Duration > lasting {
		d.leftOut++
		return d.flush()
	}
	e := d.beside("stall "+output.Name(st.Module)+" in "+name(string(st.Phase)), "stall", at+st.Duration)
	e.Args = stallArgsOf(st)
	return d.flush(e)
}

// Reload writes an instant, and an arrow to it from the unload of the module if that is
// on the timeline.
func (d *document) Reload(r unload.Reload) error {
	at, ok := d.clock.at(r.Start)
	if !ok {
		d.leftOut++
		return d.flush()
	}
	e := d.beside("reload "+output.Name(r.Module), "reload", at)
	e.Args = reloadArgsOf(r)
	l, ok := d.tracks.unloadedBefore(owner{machine: e.PID, module: r.Module}, *e.Time)
	if !ok || l.start == l.end {
		return d.flush(e)
	}
	d.flows++
	// An arrow begins in the slice that is open at its time: the last phase of the unload.
	from := arrow(flowStart, d.flows, e.PID, l.id, l.end-1)
	to := arrow(flowEnd, d.flows, e.PID, e.TID, *e.Time)
	to.Bind = "e"
	return d.flush(e, from, to)
}

func arrow(phase string, id int64, pid, tid uint32, at stamp) event {
	return event{Name: "reload", Category: "reload", Phase: phase, ID: id, PID: pid, TID: tid, Time: &at}
}

// beside makes an instant on the track for what belongs to no slice.
func (d *document) beside(name, category string, ns int64) event {
	at, pid := place(ns), d.track()
	return event{Name: name, Category: category, Phase: instant, Scope: "t", Time: &at, PID: pid, TID: d.tracks.aside(pid)}
}

// track gives the track of the machine whose records come. A capture of which nothing
// can be shown has none.
func (d *document) track() uint32 {
	if d.machine == 0 {
		d.machine = d.tracks.machine(d.header)
	}
	return d.machine
}

// Close ends the object.
func (d *document) Close() error {
	if err := d.flush(); err != nil {
		return err
	}
	about := struct {
		Origin  string `json:"origin"` // the time 0 of all others
		LeftOut int64  `json:"left_out"`
	}{LeftOut: d.leftOut}
	if !d.clock.origin.IsZero() {
		about.Origin = d.clock.origin.Format(time.RFC3339)
	}
	d.pending.WriteString("\n],\n\"otherData\": ")
	if err := d.encode(about); err != nil {
		return err
	}
	d.pending.WriteString("}\n")
	return d.write()
}

// flush writes events behind the names of the tracks that they are the first on.
func (d *document) flush(events ...event) error {
	if !d.begun {
		d.begun = true
		d.pending.WriteString(`{"traceEvents": [`)
	}
	for _, all := range [][]event{d.tracks.names, events} {
		for _, e := range all {
			if d.events {
				d.pending.WriteByte(',')
			}
			d.events = true
			d.pending.WriteByte('\n')
			if err := d.encode(e); err != nil {
				return err
			}
		}
	}
	d.tracks.names = d.tracks.names[:0]
	return d.write()
}

func (d *document) encode(v any) error {
	e := json.NewEncoder(&d.pending)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("encoding an event: %w", err)
	}
	d.pending.Truncate(d.pending.Len() - 1) // the line's end
	return nil
}

// largest is how much of a buffer is kept for the records to come.
const largest = 1 << 20

func (d *document) write() error {
	n, err := d.w.Write(d.pending.Bytes())
	if err == nil && n < d.pending.Len() {
		err = io.ErrShortWrite
	}
	d.pending.Reset()
	if d.pending.Cap() > largest {
		d.pending = bytes.Buffer{}
	}
	if err != nil {
		return fmt.Errorf("writing events: %w", err)
	}
	return nil
}
