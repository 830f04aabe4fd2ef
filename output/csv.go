package output

import (
	"encoding/csv"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/modtrace/modtrace/unload"
)

// NewCSV writes to w a table for spreadsheets and data frames, as RFC 4180 has it: a row
// for each unload, behind one row of names, however many captures it is given. Records of
// other types are not in it.
//
// Durations are integers in nanoseconds, sizes in bytes, times RFC 3339 in UTC with nine
// digits, so that they sort as text. A cell is empty when its value is not known or there
// is none. Each phase has a column: it is empty when the phase is not in the record or was
// merged into the one before, and never 0 for that; the column merged names those whose
// time is in another's, as check+exit. Columns may be added behind the last, and are
// neither renamed nor moved.
//
// Text is made safe to print as [Clean] does it. A spreadsheet takes a cell that begins
// with = + - or @ for a formula, which in a capture may be somebody's trap: such text is
// preceded by an apostrophe. Numbers are not, and are never anything else. A spreadsheet
// that is told to part cells at semicolons sees other cells than are written here.
func NewCSV(w io.Writer) Document { return &sheet{w: csv.NewWriter(w)} }

// sheet is the state of a document of rows.
type sheet struct {
	Silent
	w      *csv.Writer
	named  bool // the row of names is written
	host   string
	kernel string
}

// Header is where host and kernel of the rows that follow are taken from.
func (t *sheet) Header(h unload.Header) error {
	t.host, t.kernel = h.Host, h.Kernel
	return t.names()
}

// Unload writes a row.
func (t *sheet) Unload(u unload.Unload) error {
	if err := t.names(); err != nil {
		return err
	}
	cells := make([]string, 0, 48)
	cells = append(cells, textCell(t.host), textCell(t.kernel))
	cells = append(cells, attemptCells(u)...)
	cells = append(cells, callerCells(u.Caller)...)
	cells = append(cells, phaseCells(u.Phases)...)
	cells = append(cells, waitCells(u.Phases)...)
	return t.row(append(cells, restCells(u)...))
}

// Close writes the row of names if nothing has come before.
func (t *sheet) Close() error { return t.names() }

func (t *sheet) names() error {
	if t.named {
		return nil
	}
	t.named = true
	return t.row(columnNames())
}

func (t *sheet) row(cells []string) error {
	err := t.w.Write(cells)
	if t.w.Flush(); err == nil {
		err = t.w.Error()
	}
	if err != nil {
		return fmt.Errorf("writing a row: %w", err)
	}
	return nil
}

// columnNames are those of the cells that Unload writes, in order.
func columnNames() []string {
	names := []string{
		"host", "kernel",
		"module", "start", "duration_ns", "outcome", "ok", "errno", "reason", "by", "refcount_before",
		"pid", "uid", "comm", "cmdline",
	}
	for _, p := range unload.PhaseNames() {
		names = append(names, string(p)+"_ns")
	}
	return append(names,
		"longest_wait_cause", "longest_wait_ns", "longest_wait_blocker",
		"worst_phase", "freed_bytes", "complete", "lost_events", "verdict", "merged")
}

// attemptCells are of what was asked, and of the answer.
func attemptCells(u unload.Unload) []string {
	return []string{
		textCell(u.Module),
		timeCell(u.Start),
		numberCell(u.Duration, u.Duration != 0 || u.Outcome != unload.Unseen),
		textCell(string(u.Outcome)),
		strconv.FormatBool(u.Result.OK),
		textCell(u.Result.Errno),
		textCell(string(u.Result.Reason)),
		textCell(u.Result.By),
		numberCell(u.Refcount.Before, u.Refcount.Before != 0 || examined(u)),
	}
}

func callerCells(c unload.Caller) []string {
	known := c.PID != 0
	return []string{
		numberCell(int64(c.PID), known),
		numberCell(int64(c.UID), known),
		textCell(c.Comm),
		textCell(CommandLine(c)),
	}
}

// phaseCells are the durations of the phases in the kernel's order.
func phaseCells(phases []unload.Phase) []string {
	cells := make([]string, len(unload.PhaseNames()))
	for i, name := range unload.PhaseNames() {
		for _, p := range phases {
			if p.Name == name {
				cells[i] = strconv.FormatInt(p.Duration, 10)
				break
			}
		}
	}
	return cells
}

// waitCells are of the longest single wait of all phases.
func waitCells(phases []unload.Phase) []string {
	var top unload.Wait
	found := false
	for _, p := range phases {
		for _, w := range p.Waits {
			if !found || longestOf(w) > longestOf(top) {
				top, found = w, true
			}
		}
	}
	if !found {
		return []string{"", "", ""}
	}
	return []string{textCell(string(top.Cause)), numberCell(longestOf(top), longestOf(top) != 0), textCell(Agent(top.Blocker))}
}

// longestOf is how long the longest of the waits that are folded took, 0 if that is not
// known.
func longestOf(w unload.Wait) int64 {
	if w.Longest == 0 && w.Count <= 1 {
		return w.Duration
	}
	return w.Longest
}

func restCells(u unload.Unload) []string {
	worst := ""
	if p, ok := longest(u.Phases); ok {
		worst = string(p.Name)
	}
	return []string{
		textCell(worst),
		numberCell(u.Memory.Freed, u.Result.OK),
		strconv.FormatBool(u.Complete),
		strconv.FormatInt(u.LostEvents, 10),
		textCell(Verdict(u)),
		textCell(mergedNames(u.Phases)),
	}
}

// mergedNames lists the phases whose time is in another's.
func mergedNames(phases []unload.Phase) string {
	var all []string
	for _, p := range phases {
		if len(p.Merged) == 0 {
			continue
		}
		text := string(p.Name)
		for _, m := range p.Merged {
			text += "+" + string(m)
		}
		all = append(all, text)
	}
	return strings.Join(all, " ")
}

// CommandLine is a caller's command line as it can be pasted into a shell, "" if it is
// not known.
func CommandLine(c unload.Caller) string {
	if len(c.Cmdline) == 0 {
		return ""
	}
	return screen{}.command(c)
}

func numberCell(n int64, known bool) string {
	if !known {
		return ""
	}
	return strconv.FormatInt(n, 10)
}

func timeCell(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05.000000000Z07:00")
}

// formulas are what a formula begins with, also in the full width of East Asian fonts.
// Tabs and line ends, which some leave out before they look, are escaped by then.
const formulas = "=+-@＝＋－＠"

// textCell makes a cell of text from a capture.
func textCell(text string) string {
	text = Clean(text)
	// Blanks at its beginning do not keep every spreadsheet from looking behind them.
	first, _ := utf8.DecodeRuneInString(strings.TrimLeft(text, " "))
	if strings.ContainsRune(formulas, first) {
		return "'" + text
	}
	return text
}
