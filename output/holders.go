package output

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/modtrace/modtrace/unload"
)

// Why prints who holds a module: the answer in one line, each holder, and what to
// do.
func (t *table) Why(w unload.Why) error {
	lines := t.sentence(t.whyColor(w), t.held(w))
	for _, m := range w.Missing {
		lines = append(lines, t.sentence(red, "not looked at: "+t.clean(m))...)
	}
	holders, err := t.holders(w.Holders, w.Unexplained, "taken inside the kernel, by whom is not known")
	if err != nil {
		return err
	}
	lines = append(lines, holders...)
	for _, h := range w.Hazards {
		lines = append(lines, t.sentence(red, "beware: "+t.clean(h))...)
	}
	for _, a := range w.Advice {
		lines = append(lines, t.sentence(plain, "try: "+t.clean(a))...)
	}
	return t.print(lines)
}

func (s screen) whyColor(w unload.Why) color {
	switch {
	case !w.Unloadable:
		return red
	case len(w.Hazards) > 0:
		return plain
	}
	return green
}

// held answers in one line.
func (s screen) held(w unload.Why) string {
	name := s.name(w.Module, longestName)
	switch w.Reason {
	case unload.ReasonNone:
		return name + " can be unloaded now: nobody holds it"
	case unload.ReasonNotFound:
		return name + " is not loaded" + s.similar(w.Similar)
	case unload.ReasonBuiltIn:
		return name + " can never be unloaded: it is built into the kernel"
	case unload.ReasonNoExit:
		return name + " can never be unloaded: it has no exit function"
	case unload.ReasonNoUnload:
		return name + " can never be unloaded: this kernel is built without that"
	case unload.ReasonModulesDisabled:
		return name + " can never be unloaded: kernel.modules_disabled is set"
	case unload.ReasonLoading:
		return name + " is being loaded right now"
	case unload.ReasonUnloading:
		return name + " is being unloaded right now"
	}
	text := fmt.Sprintf("%s is in use: %d of %s explained", name, w.Explained, count(w.Refcount, "reference", "references"))
	return text + suffix("; ", s.firstHolders(w.Holders))
}

func (s screen) similar(names []string) string {
	if len(names) == 0 {
		return ""
	}
	list := make([]string, len(names))
	for i, n := range names {
		list[i] = s.name(n, longestName)
	}
	return "; did you mean " + strings.Join(list, " or ") + "?"
}

// firstHolders names the one or two who hold most.
func (s screen) firstHolders(list []unload.Holder) string {
	const most = 2
	var names []string
	told := map[string]bool{}
	for _, h := range byProcess(list) {
		who := s.holder(h)
		if h.Kind != unload.HolderModule && h.Path != "" {
			who += " holds " + s.cut(s.clean(h.Path), 60)
		} else {
			who += " needs it"
		}
		if key := fmt.Sprint(h.Kind == unload.HolderModule, h.PID, h.Module); !told[key] {
			told[key] = true
			names = append(names, who)
		}
	}
	if len(names) > most {
		more := count(int64(len(names)-most+1), "other", "others")
		names = append(names[:most-1], more+" too")
	}
	return strings.Join(names, ", and ")
}

// holder names who holds.
func (s screen) holder(h unload.Holder) string {
	switch {
	case h.Kind == unload.HolderModule:
		return "module " + s.name(h.Module, longestName)
	case h.PID != 0:
		return fmt.Sprintf("process %d (%s)", h.PID, s.name(h.Comm, 24))
	}
	return "the kernel"
}

// byProcess brings together what one process holds, in the order in which the
// processes come.
func byProcess(list []unload.Holder) []unload.Holder {
	of := map[int][]unload.Holder{}
	for _, h := range list {
		of[h.PID] = append(of[h.PID], h)
	}
	together := make([]unload.Holder, 0, len(list))
	for _, h := range list {
		if h.PID == 0 {
			together = append(together, h)
			continue
		}
		together = append(together, of[h.PID]...)
		delete(of, h.PID)
	}
	return together
}

// refusedFor lays out who held a module that was refused for that.
func (s screen) refusedFor(u unload.Unload) ([]string, error) {
	if !u.HoldersKnown {
		return nil, nil
	}
	left := u.Refcount.Before
	for _, h := range u.Holders {
		left -= h.Refs
	}
	return s.holders(u.Holders, max(left, 0), "taken inside the kernel, or let go of since")
}

// holders lays out who holds what, and how much is not explained.
func (s screen) holders(list []unload.Holder, unexplained int64, why string) ([]string, error) {
	var rows []row
	last := 0
	list = byProcess(list)
	for i, h := range list {
		if i == mostHolders && !s.verbose {
			rows = append(rows, row{[]string{strconv.FormatInt(refsOf(list[i:]), 10), fmt.Sprintf("%d more", len(list)-i), "-v shows them"}, plain})
			break
		}
		who, what := s.holder(h), s.what(h)
		if h.PID != 0 && h.PID == last {
			who = ""
		} else {
			what += s.where(h)
		}
		last = h.PID
		rows = append(rows, row{[]string{strconv.FormatInt(h.Refs, 10), who, what}, plain})
	}
	if unexplained != 0 {
		rows = append(rows, row{[]string{strconv.FormatInt(unexplained, 10), "unexplained", why}, red})
	}
	if rows == nil {
		return nil, nil
	}
	cols := []column{{head: "refs", right: true}, {head: "held by"}, {head: "what"}}
	by := min(widest(rows, 1, cols[1].head), s.width*2/5)
	room := max(s.width-gap-widest(rows, 0, cols[0].head)-gap-by-gap, 10)
	for _, r := range rows {
		r.cells[1] = strings.Join(wrap(r.cells[1], by, ""), "\n")
		r.cells[2] = strings.Join(wrap(r.cells[2], room, ""), "\n")
	}
	return s.grid(cols, rows)
}

// mostHolders is how many are shown of those that hold a module.
const mostHolders = 20

func refsOf(list []unload.Holder) (refs int64) {
	for _, h := range list {
		refs += h.Refs
	}
	return refs
}

// what says what a holder holds the module by.
func (s screen) what(h unload.Holder) string {
	var text string
	switch h.Kind {
	case unload.HolderModule:
		text = "needs its symbols"
	case unload.HolderMmap:
		text = s.clean(h.Path) + ", mapped"
	case unload.HolderMount:
		text = "mounted" + suffix(" at ", s.clean(h.Path))
		if h.MountNS != 0 {
			text += fmt.Sprintf(" in mount namespace %d", h.MountNS)
		}
	default:
		text = s.clean(h.Path)
		if h.FD >= 0 {
			text += fmt.Sprintf(" (fd %d)", h.FD)
		}
	}
	return text + suffix(", ", s.clean(h.Detail))
}

// where says in which container or cgroup a process is.
func (s screen) where(h unload.Holder) (text string) {
	const shortID = 12 // as container engines print it
	if id := s.clean(h.Container); id != "" {
		if !s.verbose && len(id) > shortID {
			id = id[:shortID]
		}
		text = "; container " + id
	}
	if s.verbose || h.Container == "" && h.Cgroup != "/" {
		text += suffix("; cgroup ", s.clean(h.Cgroup))
	}
	return text
}
