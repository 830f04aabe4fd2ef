package output

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/modtrace/modtrace/unload"
)

// fact is something about an unload that takes no table to say.
type fact struct {
	key   string
	lines []string // each is wrapped by itself
	whole bool     // none of the lines may be left out
	color color
}

// maxLines bounds a fact, unless all is wanted.
const maxLines = 6

// facts lays out who asked, what was asked, and what there was to it.
func (s screen) facts(u unload.Unload) ([]string, error) {
	all := s.effects(u)
	add := func(key string, lines ...string) {
		if len(lines) > 0 && lines[0] != "" {
			all = append(all, fact{key: key, lines: lines})
		}
	}
	add("caller", s.callerLines(u.Caller)...)
	add("parents", s.ancestors(u.Caller.Ancestors))
	add("cgroup", s.clean(u.Caller.Cgroup))
	add("began", began(u))
	add("flags", s.flags(u))
	add("result", s.result(u))
	if examined(u) || u.Refcount.Before != 0 {
		add("refcount", strconv.FormatInt(u.Refcount.Before, 10))
	}
	add("dependents", s.list(u.Dependents))
	add("references", s.references(u.References)...)
	if examined(u) {
		add("module", s.module(u))
	}
	return s.factLines(all)
}

func (s screen) factLines(all []fact) ([]string, error) {
	if len(all) == 0 {
		return nil, nil
	}
	rows := make([]row, len(all))
	for i, f := range all {
		rows[i].cells, rows[i].color = []string{f.key, ""}, f.color
	}
	width := max(s.width-gap-widest(rows, 0, "")-gap, 1)
	for i, f := range all {
		var lines []string
		for _, text := range f.lines {
			lines = append(lines, hanging(text, width, "")...)
		}
		if !f.whole {
			lines = s.clip(lines, maxLines, width)
		}
		rows[i].cells[1] = strings.Join(lines, "\n")
	}
	return s.grid([]column{{}, {}}, rows)
}

// examined says that the kernel came to look at the module, so that what the
// record holds about the module means something.
func examined(u unload.Unload) bool {
	switch u.Result.Reason {
	case unload.ReasonNone, unload.ReasonDependents, unload.ReasonReferenced,
		unload.ReasonNoExit, unload.ReasonLoading, unload.ReasonUnloading:
		return u.Result.By != unload.ByUserspace
	}
	order := unload.PhaseNames()
	return slices.ContainsFunc(u.Phases, func(p unload.Phase) bool {
		return slices.Index(order, p.Name) > slices.Index(order, unload.Check) && p.Name != unload.Return
	})
}

func (s screen) callerLines(c unload.Caller) []string {
	if c.PID == 0 && c.Comm == "" && len(c.Cmdline) == 0 {
		if c.TID == 0 {
			return []string{"not known"}
		}
		return []string{fmt.Sprintf("not known (thread %d)", c.TID)}
	}
	ids := fmt.Sprintf("pid %d", c.PID)
	if c.TID != c.PID {
		ids += fmt.Sprintf(", thread %d", c.TID)
	}
	ids += fmt.Sprintf(", uid %d", c.UID)
	command := s.command(c)
	lines := []string{command + " (" + ids + ")"}
	if s.verbose {
		lines = append(lines, fmt.Sprintf("comm %s, exe %s", s.quote(c.Comm), s.quote(c.Exe)))
	}
	return lines
}

// command is the command line as it can be pasted into a shell.
func (s screen) command(c unload.Caller) string {
	if len(c.Cmdline) == 0 {
		return "[" + s.clean(c.Comm) + "]" // as ps shows a task without one
	}
	words := make([]string, len(c.Cmdline))
	for i, w := range c.Cmdline {
		words[i] = s.quote(w)
	}
	return strings.Join(words, " ")
}

// quote makes one word of a shell's of text, if it is not one already.
func (s screen) quote(text string) string {
	clean := s.clean(text)
	switch {
	case clean != text:
		text = strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(text)
		return "$'" + s.clean(text) + "'"
	case text == "" || strings.ContainsAny(text, " !\"#$&'()*;<>?[\\]^`{|}~"):
		return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
	}
	return text
}

// ancestors is the chain of parents, nearest first.
func (s screen) ancestors(all []unload.Ancestor) string {
	names := make([]string, len(all))
	for i, a := range all {
		names[i] = fmt.Sprintf("%s(%d)", s.name(a.Comm, 64), a.PID)
	}
	return strings.Join(names, " < ")
}

func began(u unload.Unload) string {
	if u.Start.IsZero() {
		return ""
	}
	return u.Start.Format("2006-01-02 15:04:05.000000 MST")
}

func (s screen) flags(u unload.Unload) string {
	text := s.list(u.Flags)
	if u.Forced && u.Result.Kind() == unload.Refused && u.Result.By == unload.ByKernel {
		switch u.Result.Reason {
		case unload.ReasonReferenced, unload.ReasonNoExit:
			// The two that force overrides, where it is compiled in.
			text += "; this kernel cannot force (CONFIG_MODULE_FORCE_UNLOAD is off)"
		}
	}
	return text
}

// result is the answer in the words of the contract with scripts.
func (s screen) result(u unload.Unload) string {
	switch u.Result.Kind() {
	case unload.Unloaded:
		return "" // the verdict says it all
	case unload.Unanswered:
		return "none was seen"
	}
	r := u.Result
	text := s.clean(string(r.Reason)) + s.errno(r.Errno)
	if r.By != "" {
		text += ", by " + s.clean(r.By)
	}
	return text
}

func (s screen) list(names []string) string {
	clean := make([]string, len(names))
	for i, n := range names {
		clean[i] = s.name(n, 64)
	}
	return strings.Join(clean, ", ")
}

func (s screen) module(u unload.Unload) string {
	text := "not signed"
	if u.Signed {
		text = "signed"
	}
	if len(u.Taints) > 0 {
		text += "; taints: " + s.list(u.Taints)
	}
	return text
}

// references tells which references the caller took and dropped meanwhile:
// one by one if all is wanted, else folded by module.
func (s screen) references(all []unload.Reference) []string {
	if s.verbose {
		return s.eachReference(all)
	}
	var order []string
	type tally struct{ gets, puts, left int64 }
	tallies := map[string]*tally{}
	for _, r := range all {
		t := tallies[r.Module]
		if t == nil {
			t = &tally{}
			tallies[r.Module] = t
			order = append(order, r.Module)
		}
		if r.Op == "get" {
			t.gets++
		} else {
			t.puts++
		}
		t.left = r.Count
	}
	lines := make([]string, len(order))
	for i, module := range order {
		t := tallies[module]
		lines[i] = fmt.Sprintf("%s: %d taken, %d dropped, %d left", s.name(module, longestName), t.gets, t.puts, t.left)
	}
	return lines
}

func (s screen) eachReference(all []unload.Reference) []string {
	lines := make([]string, len(all))
	for i, r := range all {
		verb := "dropped"
		if r.Op == "get" {
			verb = "taken"
		}
		lines[i] = fmt.Sprintf("%s: %s at %s in %s, %d left", s.name(r.Module, longestName), verb,
			s.duration(r.Offset), s.phase(r.Phase), r.Count)
		if r.Site != "" {
			lines[i] += ", by " + s.clean(r.Site)
		}
	}
	return lines
}
