package timeline

import "github.com/modtrace/modtrace/unload"

// attempt makes the events of one attempt: what has a place in it.
type attempt struct {
	pid, tid uint32
	start    int64 // ns from the origin
	duration int64
	events   []event
	// noTime names the phases that took none. Readers put the longer slice first when two
	// begin at once, so that such a phase would stand within the one behind it.
	noTime []text
	// leftOut counts what is in the record but not within the attempt, or overlaps what
	// is before it: the record is not whole.
	leftOut int
}

// slice makes one from an offset for so long, both in ns and within the attempt.
func (a *attempt) slice(name, category string, offset, duration int64) event {
	from, to := place(a.start+offset), place(a.start+offset+duration)
	length := to - from
	return event{
		Name: name, Category: category, Phase: complete, Time: &from, Duration: &length,
		PID: a.pid, TID: a.tid,
	}
}

// phases adds those that follow each other within the attempt.
func (a *attempt) phases(all []unload.Phase) {
	var end int64
	for _, p := range all {
		if p.Offset < end || p.Duration < 0 || p.Offset > a.duration || p.Duration > a.duration-p.Offset {
			a.leftOut++
			continue
		}
		end = p.Offset + p.Duration
		e := a.slice(name(string(p.Name)), "phase", p.Offset, p.Duration)
		if *e.Duration == 0 {
			a.noTime = append(a.noTime, text(p.Name))
			continue
		}
		e.Args = phaseArgsOf(p)
		a.events = append(a.events, e)
	}
}

// instant adds a moment at an offset within the attempt.
func (a *attempt) instant(name, category string, offset int64, args any) {
	if offset < 0 || offset > a.duration {
		a.leftOut++
		return
	}
	at := place(a.start + offset)
	a.events = append(a.events, event{
		Name: name, Category: category, Phase: instant, Scope: "t", Time: &at, PID: a.pid, TID: a.tid, Args: args,
	})
}

func (a *attempt) log(all []unload.LogLine) {
	for _, l := range all {
		a.instant("log: "+name(l.Text), "log", l.Offset, logArgs{text(l.Text), l.Level, text(l.Phase)})
	}
}

func (a *attempt) references(all []unload.Reference) {
	for _, r := range all {
		a.instant(name(r.Op)+" "+name(r.Module), "reference", r.Offset,
			referenceArgs{text(r.Op), text(r.Module), text(r.Site), r.Count, text(r.Phase)})
	}
}
