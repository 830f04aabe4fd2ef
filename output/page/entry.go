package page

import (
	"strconv"
	"strings"
	"time"

	"github.com/modtrace/modtrace/output"
	"github.com/modtrace/modtrace/unload"
)

// fill takes over what there is room for of a record.
func (e *entry) fill(u unload.Unload) {
	e.verdict = output.Verdict(u)
	c := newCutter()
	e.record, e.more = c.unload(u), c.more
	if u.HoldersKnown && u.Result.Reason == unload.ReasonReferenced || len(u.Holders) > 0 {
		left := u.Refcount.Before
		for _, h := range u.Holders {
			left -= max(h.Refs, 0)
		}
		e.unexplained = max(left, 0)
	}
}

// view is what the page says of an attempt.
type view struct {
	ID       int64
	State    state
	Module   string
	Rest     string // of the verdict, behind the module's name
	Duration string
	NS       int64
	Bar      []segment
	When     moment
	Caller   string
	Host     string // "" when there is only one
	Open     bool
	Partial  bool // the record is not complete

	Unknowns  []string
	Hang      string
	Remedy    string
	Back      []string // who loaded the module again
	Timeline  timeline
	Waits     []waitRow
	MoreWaits string
	Flames    []*flame
	Hot       []hotRow
	Holders   holders
	Notifiers []timed
	Devices   []timed
	Convoy    string
	Waiters   []timed
	Log       []logRow
	Grave     []logRow // of many, those that matter
	Residue   []string
	Facts     []fact
	More      []string // what there was no room for
}

// noticeable is how long a refusal takes, in ns, for it to matter what it was spent on.
const noticeable = 1e9

// mostLog is how many lines of the kernel's log are shown at once.
const mostLog = 12

// moment is a time, for the machine and for people.
type moment struct{ ISO, Text, Day string }

func momentOf(t time.Time) moment {
	if t.IsZero() {
		return moment{Text: "time not known"}
	}
	t = t.UTC()
	return moment{t.Format(time.RFC3339Nano), t.Format("15:04:05.000"), t.Format("2006-01-02")}
}

type fact struct {
	Key   string
	Lines []string
}

func (d *document) view(e *entry) view {
	u := e.record
	module := output.Name(u.Module)
	v := view{
		ID: e.seq, State: e.state, Module: module, Rest: strings.TrimPrefix(e.verdict, module),
		Duration: output.Duration(u.Duration), NS: u.Duration, When: momentOf(u.Start),
		Caller: output.Program(u.Caller), Unknowns: output.Unknowns(u),
		Timeline: newTimeline(e), Convoy: output.Convoy(u), Log: logRows(u),
		Holders: holders{Rows: holderRows(u.Holders), Unexplained: e.unexplained, More: e.more["holders"]},
		Facts:   facts(u), More: e.more.texts(),
	}
	if e.state != stateRefused || u.Duration >= noticeable {
		v.Bar = strip(u)
	}
	v.Partial = len(v.Unknowns) > 0 && e.state.answered()
	v.Host = d.label(e.capture)
	v.Waits = waitRows(u)
	if len(v.Log) > mostLog {
		for _, l := range v.Log {
			if l.Kind != "" {
				v.Grave = append(v.Grave, l)
			}
		}
		if v.Grave == nil {
			v.Grave = v.Log[:mostLog]
		}
	}
	for _, f := range []*flame{waitFlame(u), hotFlame(u)} {
		if f != nil {
			v.Flames = append(v.Flames, f)
		}
	}
	v.Hot = hotRows(u)
	v.effects(u)
	if h := e.hang; h != nil {
		v.Hang = "Reported " + times(h.reports) + " while it hung"
		if h.text != e.verdict {
			v.Hang += ", at last: " + h.text
		}
		if !e.state.answered() {
			v.Remedy = output.Remedy(h.last)
		}
	}
	v.Back = d.returns(e)
	return v
}

func times(n int64) string {
	if n == 1 {
		return "once"
	}
	return strconv.FormatInt(n, 10) + " times"
}

// effects tells what the unload did, and to whom.
func (v *view) effects(u unload.Unload) {
	for _, n := range u.Notifiers {
		text := output.Agent(unload.Blocker{Function: n.Callback, Module: n.Module})
		if text == "" {
			text = "(unnamed)"
		}
		if !n.Exact {
			text += ", not seen apart from others"
		}
		v.Notifiers = append(v.Notifiers, timed{output.Duration(max(n.Duration, 0)), part(n.Duration, u.Duration), text})
	}
	for _, x := range u.Devices {
		text := output.Clean(x.Device)
		if x.Driver != "" {
			text += " (driver " + output.Clean(x.Driver) + ")"
		}
		v.Devices = append(v.Devices, timed{output.Duration(max(x.Duration, 0)), part(x.Duration, u.Duration), text})
	}
	if len(u.Convoy) > 1 {
		for _, w := range u.Convoy {
			text := output.Agent(unload.Blocker{PID: w.PID, Comm: w.Comm})
			if text == "" {
				text = "a task that is not known"
			}
			if w.Lock != "" {
				text += ", for " + output.Clean(w.Lock)
			}
			v.Waiters = append(v.Waiters, timed{output.Duration(max(w.Duration, 0)), part(w.Duration, u.Duration), text})
		}
	}
	for _, r := range u.Residue {
		v.Residue = append(v.Residue, output.Clean(r))
	}
}

// timed is something that took its time.
type timed struct {
	Time string
	W    percent
	Text string
}

type logRow struct{ Time, Phase, Kind, Text string }

func logRows(u unload.Unload) []logRow {
	var all []logRow
	for _, l := range u.Log {
		all = append(all, logRow{
			output.Duration(max(l.Offset, 0)), phaseName(l.Phase), output.Complaint(l),
			output.Clean(strings.TrimRight(l.Text, "\r\n ")),
		})
	}
	return all
}

// facts tells who asked, and what the kernel knew of the module.
func facts(u unload.Unload) []fact {
	var all []fact
	add := func(key string, lines ...string) {
		if len(lines) > 0 && lines[0] != "" {
			all = append(all, fact{key, lines})
		}
	}
	add("caller", output.Command(u.Caller)...)
	add("parents", output.Parents(u.Caller))
	add("cgroup", output.Clean(u.Caller.Cgroup))
	add("flags", output.Flags(u))
	add("result", output.Answer(u))
	if output.Examined(u) || u.Refcount.Before != 0 {
		add("reference count", strconv.FormatInt(u.Refcount.Before, 10))
	}
	add("dependents", strings.Join(cleaned(u.Dependents), ", "))
	add("references taken and dropped meanwhile", output.References(u)...)
	if output.Examined(u) {
		add("module", output.Signature(u))
	}
	if u.Memory.Freed > 0 {
		add("memory given back", output.Bytes(u.Memory.Freed))
	}
	return all
}

func cleaned(list []string) []string {
	all := make([]string, len(list))
	for i, text := range list {
		all[i] = output.Clean(text)
	}
	return all
}

// texts says what there was no room for. Holders are counted where they stand.
func (r rest) texts() []string {
	var all []string
	for _, name := range most(r, func(n int64) int64 { return n }) {
		if n := r[name]; n > 0 && name != "holders" {
			all = append(all, strconv.FormatInt(n, 10)+" more "+name)
		}
	}
	return all
}
