package output

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/modtrace/modtrace/unload"
)

// Plan prints what can be seen on this kernel and by which means: a line that
// sums it up, then every hook.
func Plan(w io.Writer, hooks []unload.Hook, o TableOptions) error {
	s := o.screen()
	lines := s.planSummary(hooks)
	table, err := s.hookTable(hooks)
	if err != nil {
		return err
	}
	text := strings.Join(append(lines, table...), "\n") + "\n"
	if err := writeAll(w, []byte(text)); err != nil {
		return fmt.Errorf("writing the plan: %w", err)
	}
	return nil
}

// Hooks prints by which means something else is seen, below a title and after an empty
// line. It prints nothing when there are none.
func Hooks(w io.Writer, title string, hooks []unload.Hook, o TableOptions) error {
	if len(hooks) == 0 {
		return nil
	}
	s := o.screen()
	table, err := s.hookTable(hooks)
	if err != nil {
		return err
	}
	text := "\n" + strings.Join(append(s.sentence(plain, title), table...), "\n") + "\n"
	if err := writeAll(w, []byte(text)); err != nil {
		return fmt.Errorf("writing what is seen: %w", err)
	}
	return nil
}

// planSummary says what a report on this kernel can tell, and what not.
func (s screen) planSummary(hooks []unload.Hook) []string {
	if len(hooks) == 0 {
		return s.sentence(plain, "nothing is planned")
	}
	if lacking := s.lacking(hooks); lacking != "" {
		return s.sentence(red, "unloads cannot be traced here: not seen: "+lacking)
	}
	lines := s.sentence(plain, s.phasesSeen(hooks))
	for _, h := range hooks {
		if h.Phase == "" && h.Status == unload.StatusMissing {
			lines = append(lines, s.sentence(red, "not seen: "+s.clean(h.Sees))...)
		}
	}
	return lines
}

// lacking names the hooks without which there is no report at all.
func (s screen) lacking(hooks []unload.Hook) string {
	var names []string
	for _, h := range hooks {
		if h.Required && h.Status == unload.StatusMissing {
			names = append(names, s.clean(h.Sees)+" ("+s.clean(h.Function)+")")
		}
	}
	return strings.Join(names, ", ")
}

// phasesSeen counts the phases that can be told apart, and says where the
// time of the others goes: into the last one before them that can.
func (s screen) phasesSeen(hooks []unload.Hook) string {
	total, seen := 0, 0
	var into unload.PhaseName
	var moved []string
	for _, h := range hooks {
		if h.Phase == "" || h.Status == unload.StatusAbsent {
			continue
		}
		total++
		if h.Status != unload.StatusMissing {
			seen++
			into = h.Phase
		} else if into != "" {
			moved = append(moved, fmt.Sprintf("%s counts into %s", s.phase(h.Phase), s.phase(into)))
		}
	}
	if seen == total {
		return "every phase of an unload can be told apart"
	}
	text := fmt.Sprintf("%d of %d phases of an unload can be told apart", seen, total)
	if moved != nil {
		text += ": " + strings.Join(moved, ", ")
	}
	return text
}

// Columns of the table of hooks where there is room for all of them, and
// bounds for the one that is wrapped first.
const (
	hookSees   = 2
	hookReason = 5
	leastSees  = 30
	mostSees   = 64
)

// hookTable lays the hooks out side by side if there is room, else stacked.
func (s screen) hookTable(hooks []unload.Hook) ([]string, error) {
	if len(hooks) == 0 {
		return nil, nil
	}
	cols := []column{{head: "phase"}, {head: "status"}, {head: "what is seen"}, {head: "by"}, {head: "kernel function"}, {head: "why"}}
	rows := make([]row, len(hooks))
	for i, h := range hooks {
		rows[i] = row{[]string{
			s.hookPhase(h), s.status(h), s.clean(h.Sees), s.means(h.Mechanism), s.cut(s.clean(h.Function), 40), "",
		}, statusColor(h)}
	}
	used := gap
	for i, c := range cols {
		if i != hookSees && i != hookReason {
			used += widest(rows, i, c.head) + gap
		}
	}
	room := s.width - used - gap
	sees := min(widest(rows, hookSees, ""), mostSees, room/2)
	if sees < min(leastSees, widest(rows, hookSees, "")) {
		return s.stackedHooks(hooks)
	}
	for i, h := range hooks {
		cells := rows[i].cells
		cells[hookSees] = strings.Join(wrap(cells[hookSees], sees, ""), "\n")
		cells[hookReason] = strings.Join(s.remarks(h, room-sees), "\n")
	}
	return s.hookGrid(hooks, cols, rows)
}

// stackedWidth is how many columns it takes to have the status beside what is
// seen.
const stackedWidth = 60

// stackedHooks lays the hooks out for a narrow screen: what is seen, and
// below it by which means and why not by better ones.
func (s screen) stackedHooks(hooks []unload.Hook) ([]string, error) {
	cols := []column{{head: "phase"}, {head: "status"}, {head: "what is seen, and by what"}}
	if s.width < stackedWidth {
		cols = []column{{head: "phase"}, {head: "status and what is seen"}}
	}
	last := len(cols) - 1
	rows := make([]row, len(hooks))
	for i, h := range hooks {
		rows[i] = row{append([]string{s.hookPhase(h), s.status(h)}[:last], ""), statusColor(h)}
	}
	width := s.width - gap
	for i, c := range cols[:last] {
		width -= widest(rows, i, c.head) + gap
	}
	for i, h := range hooks {
		rows[i].cells[last] = strings.Join(s.stackedHook(h, max(width, 1)), "\n")
	}
	return s.hookGrid(hooks, cols, rows)
}

// hookGrid leaves the phases out when there are none.
func (s screen) hookGrid(hooks []unload.Hook, cols []column, rows []row) ([]string, error) {
	if !slices.ContainsFunc(hooks, func(h unload.Hook) bool { return h.Phase != "" }) {
		cols = cols[1:]
		for i := range rows {
			rows[i].cells = rows[i].cells[1:]
		}
	}
	return s.grid(cols, rows)
}

func (s screen) stackedHook(h unload.Hook, width int) []string {
	sees := s.clean(h.Sees)
	if s.width < stackedWidth {
		sees = s.status(h) + ": " + sees
	}
	lines := wrap(sees, width, "")
	indent := strings.Repeat(" ", gap)
	if h.Mechanism != "" || !strings.Contains(h.Reason, h.Function) {
		means := strings.TrimSpace(s.clean(h.Mechanism) + " " + s.clean(h.Function))
		lines = append(lines, shift(wrap(means, width-gap, ""), indent)...)
	}
	return append(lines, shift(s.remarks(h, width-gap), indent)...)
}

func (s screen) hookPhase(h unload.Hook) string {
	if h.Phase == "" {
		return "-"
	}
	return s.cut(s.clean(string(h.Phase)), 16)
}

func (s screen) status(h unload.Hook) string { return s.cut(s.clean(string(h.Status)), 10) }

func (s screen) means(mechanism string) string {
	if mechanism == "" {
		return "-"
	}
	return s.cut(s.clean(mechanism), 12)
}

// remarks are why a hook is as it is, a line for each thing that was tried,
// and what else there would be.
func (s screen) remarks(h unload.Hook, width int) []string {
	var lines []string
	add := func(text string) { lines = append(lines, wrap(s.clean(text), width, strings.Repeat(" ", gap))...) }
	if h.Reason != "" {
		for _, r := range strings.Split(h.Reason, "; ") {
			add(r)
		}
	}
	if s.verbose && h.Required {
		add("required")
	}
	if s.verbose && h.Fallback != "" {
		add("or else " + h.Fallback)
	}
	return lines
}

// statusColor marks what is lacking, and what need not be looked at.
func statusColor(h unload.Hook) color {
	switch h.Status {
	case unload.StatusMissing:
		return red
	case unload.StatusAbsent:
		return dim
	}
	return plain
}
