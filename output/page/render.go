package page

import (
	"bufio"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"strings"

	"github.com/modtrace/modtrace/output"
	"github.com/modtrace/modtrace/unload"
)

//go:embed page.tmpl
var pageTemplate string

//go:embed style.css
var styleSheet string

//go:embed script.js
var script string

// frameOf is what stands around the attempts.
type frameOf struct {
	Policy   string
	Style    template.CSS
	Script   template.JS
	Title    string
	Summary  summary
	Inks     []ink
	Phases   []phaseNote
	Hangs    []hangRow
	Reloads  []reloadRow
	Whys     []whyView
	Ledgers  []ledgerView
	Captures []captureRow
	More     map[string]int64
	Refs     string
}

// policy forbids the page everything but its own style and script, so that not even what
// would slip through the escaping can do harm or call home.
func policy() string {
	return fmt.Sprintf("default-src 'none'; style-src %s; script-src %s; base-uri 'none'; form-action 'none'",
		hash(styleSheet), hash(script))
}

// hash names an inline style or script in a policy.
func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// render writes the page piece by piece: an attempt takes far more room drawn than kept.
func (d *document) render() error {
	parts, err := template.New("page").Parse(pageTemplate)
	if err != nil {
		return err
	}
	kept := d.kept.all()
	f := d.frame(kept)
	w := bufio.NewWriter(d.w)
	if err := parts.ExecuteTemplate(w, "head", f); err != nil {
		return err
	}
	for _, e := range kept {
		v := d.view(e)
		v.Open = len(kept) == 1
		if err := parts.ExecuteTemplate(w, "unload", v); err != nil {
			return err
		}
	}
	if err := parts.ExecuteTemplate(w, "tail", f); err != nil {
		return err
	}
	return w.Flush()
}

func (d *document) frame(kept []*entry) frameOf {
	f := frameOf{
		Policy: policy(), Style: template.CSS(styleSheet), Script: template.JS(script), // #nosec G203: both are our own
		Summary: d.summary(kept), Inks: inks(), Phases: phaseNotes(), Whys: d.whyViews(), Ledgers: d.ledgerViews(), Captures: d.captureRows(),
		More: map[string]int64{
			"hangs": d.hangs.more, "reloads": d.reloads.more, "whys": d.whys.more, "ledgers": d.ledgers.more, "captures": d.captures.more,
		},
	}
	if d.refs > 0 {
		f.Refs = output.Count(d.refs, "reference that was", "references that were") + " taken or dropped and told one by one"
	}
	f.Title = "modtrace: " + f.Summary.Headline
	for _, h := range d.hangs.all {
		f.Hangs = append(f.Hangs, d.hangRow(h))
	}
	for _, r := range d.reloads.all {
		f.Reloads = append(f.Reloads, reloadRow{momentOf(r.record.Start), output.Returned(r.record), commandOf(r), d.label(r.capture)})
	}
	return f
}

// phaseNote explains a phase.
type phaseNote struct{ Name, Doing string }

func phaseNotes() []phaseNote {
	var all []phaseNote
	for _, name := range unload.PhaseNames() {
		all = append(all, phaseNote{string(name), output.Doing(name)})
	}
	return all
}

type hangRow struct {
	When    moment
	Text    string
	Host    string
	Reports int64
	Remedy  string
	End     string
	ID      int64 // of the attempt, 0 if it is not shown
}

func (d *document) hangRow(h *hang) hangRow {
	r := hangRow{When: momentOf(h.last.Start), Text: h.text, Host: d.label(h.capture), Reports: h.reports}
	if h.shown != nil && !h.shown.dropped {
		r.ID = h.shown.seq
	}
	if h.end == nil {
		r.End, r.Remedy = "its end is in no capture", output.Remedy(h.last)
		return r
	}
	r.End = h.end.state.Label() + " after " + output.Duration(h.end.duration)
	return r
}

type reloadRow struct {
	When          moment
	Text, Command string
	Host          string
}

func commandOf(r reload) string {
	return strings.Join(output.Command(r.record.Loader), "; ")
}

type captureRow struct {
	Number                     int
	Host, Kernel, Arch, Tool   string
	Started, Ended             moment
	Records                    int64
	CutShort, Headless, Missed bool
	Lost                       string
}

func (d *document) captureRows() []captureRow {
	var all []captureRow
	for _, c := range d.captures.all {
		h := c.header
		r := captureRow{
			Number: c.number, Host: output.Clean(h.Host), Kernel: output.Clean(h.Kernel), Arch: output.Clean(h.Arch),
			Tool: output.Clean(h.Tool), Started: momentOf(h.Started), Records: c.records,
			CutShort: c.trailer == nil, Headless: !c.headed,
		}
		if t := c.trailer; t != nil {
			r.Ended, r.Lost, r.Missed = momentOf(t.Ended), output.Lost(t.LostEvents), t.MissedProbes != 0
		}
		all = append(all, r)
	}
	return all
}
