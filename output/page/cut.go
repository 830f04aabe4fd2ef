package page

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/modtrace/modtrace/unload"
)

// Bounds on what is kept of a record. A capture can hold anything; what real kernels make
// stays within these.
const (
	mostPhases = 32
	mostWaits  = 40 // of a phase
	mostHot    = 60 // stacks of a phase
	mostFrames = 127
	mostItems  = 100 // of each list
	mostText   = 512 // bytes
	mostBytes  = 96 << 10
)

// cut makes a copy of text that holds no more memory than it needs.
func cut(text string) string { return cutTo(text, mostText) }

func cutTo(text string, most int) string {
	if len(text) <= most {
		return text
	}
	for most > 0 && !utf8.RuneStart(text[most]) {
		most--
	}
	return strings.Clone(text[:most]) + "…"
}

// rest counts what was left out of the lists of a record, by the name of the list.
type rest map[string]int64

// cutter copies records within bounds.
type cutter struct {
	left int // bytes of text that there is room for
	more rest
}

func newCutter() *cutter { return &cutter{left: mostBytes, more: rest{}} }

func (c *cutter) text(s string) string {
	s = cutTo(s, min(mostText, max(c.left, 0)))
	c.left -= len(s) + 16 // a string's header
	return s
}

// some copies the first items of a list that there is room for.
func some[T any](c *cutter, name string, list []T, each func(*T)) []T {
	n := min(len(list), mostItems)
	kept := make([]T, 0, n)
	for i := range n {
		if c.left <= 0 {
			break
		}
		v := list[i]
		each(&v)
		c.left -= 64
		kept = append(kept, v)
	}
	if out := len(list) - len(kept); out > 0 {
		c.more[name] += int64(out)
	}
	return kept
}

func (c *cutter) texts(name string, list []string) []string {
	return some(c, name, list, func(s *string) { *s = c.text(*s) })
}

// stack keeps all of a stack or nothing: a part would be drawn at a wrong place.
func (c *cutter) stack(frames []string) []string {
	if len(frames) > mostFrames || c.left <= 0 {
		if len(frames) > 0 {
			c.more["stacks"]++
		}
		return nil
	}
	kept := make([]string, len(frames))
	for i, f := range frames {
		kept[i] = c.text(f)
	}
	return kept
}

func (c *cutter) blocker(b unload.Blocker) unload.Blocker {
	b.Kind, b.Comm, b.Function = c.text(b.Kind), c.text(b.Comm), c.text(b.Function)
	b.Module, b.Detail, b.Stack = c.text(b.Module), c.text(b.Detail), c.stack(b.Stack)
	return b
}

func (c *cutter) wait(w unload.Wait) unload.Wait {
	w.Cause = unload.Cause(c.text(string(w.Cause)))
	w.Count, w.Duration, w.Longest = max(w.Count, 0), max(w.Duration, 0), max(w.Longest, 0)
	w.Blocker, w.Waker, w.Stack = c.blocker(w.Blocker), c.blocker(w.Waker), c.stack(w.Stack)
	return w
}

// waits keeps the longest, and adds the others up by cause.
func (c *cutter) waits(list []unload.Wait) []unload.Wait {
	list = slices.SortedStableFunc(slices.Values(list), func(a, b unload.Wait) int { return cmp.Compare(b.Duration, a.Duration) })
	var kept []unload.Wait
	for _, w := range list[:min(len(list), mostWaits)] {
		kept = append(kept, c.wait(w))
	}
	if len(list) <= mostWaits {
		return kept
	}
	sums := map[unload.Cause]unload.Wait{}
	for _, w := range list[mostWaits:] {
		cause := known(w.Cause)
		s := sums[cause]
		s.Cause, s.Count, s.Longest = cause, unload.Plus(s.Count, max(w.Count, 1)), max(s.Longest, w.Longest)
		s.Duration = unload.Plus(s.Duration, w.Duration)
		sums[cause] = s
	}
	for _, cause := range slices.Sorted(maps.Keys(sums)) {
		kept = append(kept, sums[cause])
	}
	return kept
}

func (c *cutter) phase(p *unload.Phase) {
	p.Name = unload.PhaseName(c.text(string(p.Name)))
	p.Offset, p.Duration = max(p.Offset, 0), max(p.Duration, 0)
	p.OnCPU, p.OffCPU = max(p.OnCPU, 0), max(p.OffCPU, 0)
	p.Merged = some(c, "merged", p.Merged, func(m *unload.PhaseName) { *m = unload.PhaseName(c.text(string(*m))) })
	p.Waits = c.waits(p.Waits)
	hot := slices.SortedStableFunc(slices.Values(p.Hot), func(a, b unload.Hot) int { return cmp.Compare(b.Samples, a.Samples) })
	p.Hot = nil
	for i, h := range hot {
		if i == mostHot {
			c.more["hot"] += int64(len(hot) - i)
			break
		}
		p.Hot = append(p.Hot, unload.Hot{Samples: max(h.Samples, 0), Stack: c.stack(h.Stack)})
	}
}

func (c *cutter) caller(a unload.Caller) unload.Caller {
	a.Comm, a.Exe, a.Cgroup = c.text(a.Comm), c.text(a.Exe), c.text(a.Cgroup)
	a.Cmdline = c.texts("arguments", a.Cmdline)
	a.Ancestors = some(c, "parents", a.Ancestors, func(p *unload.Ancestor) { p.Comm = c.text(p.Comm) })
	return a
}

func (c *cutter) holders(list []unload.Holder) []unload.Holder {
	return some(c, "holders", list, func(h *unload.Holder) {
		h.Kind, h.Module, h.Comm = unload.HolderKind(c.text(string(h.Kind))), c.text(h.Module), c.text(h.Comm)
		h.Cgroup, h.Container, h.Path = c.text(h.Cgroup), c.text(h.Container), c.text(h.Path)
		h.Detail, h.Stack = c.text(h.Detail), c.stack(h.Stack)
		h.Confidence = unload.Confidence(c.text(string(h.Confidence)))
	})
}

// unload copies what there is room for. Stacks come last, since they take most.
func (c *cutter) unload(u unload.Unload) unload.Unload {
	u.Type, u.Module = "", c.text(u.Module)
	u.Duration = max(u.Duration, 0)
	u.Outcome = unload.Outcome(c.text(string(u.Outcome)))
	u.Result = unload.Result{
		OK: u.Result.OK, Errno: c.text(u.Result.Errno),
		Reason: unload.Reason(c.text(string(u.Result.Reason))), By: c.text(u.Result.By),
	}
	u.Caller = c.caller(u.Caller)
	u.Flags, u.Taints, u.Missing = c.texts("flags", u.Flags), c.texts("taints", u.Taints), c.texts("missing", u.Missing)
	u.Dependents, u.Residue = c.texts("dependents", u.Dependents), c.texts("residue", u.Residue)
	u.Notifiers = some(c, "notifiers", longest(u.Notifiers, func(n unload.Notifier) int64 { return n.Duration }),
		func(n *unload.Notifier) { n.Callback, n.Module = c.text(n.Callback), c.text(n.Module) })
	u.Devices = some(c, "devices", longest(u.Devices, func(d unload.Device) int64 { return d.Duration }),
		func(d *unload.Device) { d.Device, d.Driver = c.text(d.Device), c.text(d.Driver) })
	u.Convoy = some(c, "convoy", longest(u.Convoy, func(w unload.Waiter) int64 { return w.Duration }),
		func(w *unload.Waiter) { w.Comm, w.Lock = c.text(w.Comm), c.text(w.Lock) })
	u.Log = some(c, "log", u.Log, func(l *unload.LogLine) {
		l.Phase, l.Text = unload.PhaseName(c.text(string(l.Phase))), c.text(l.Text)
	})
	u.References = some(c, "references", u.References, func(r *unload.Reference) {
		r.Op, r.Module, r.Site = c.text(r.Op), c.text(r.Module), c.text(r.Site)
		r.Phase = unload.PhaseName(c.text(string(r.Phase)))
	})
	u.Holders = c.holders(u.Holders)
	phases := u.Phases[:min(len(u.Phases), mostPhases)]
	c.more["phases"] = int64(len(u.Phases) - len(phases))
	u.Phases = slices.Clone(phases)
	for i := range u.Phases {
		c.phase(&u.Phases[i])
	}
	return u
}

// longest sorts a copy of a list by time.
func longest[T any](list []T, ns func(T) int64) []T {
	return slices.SortedStableFunc(slices.Values(list), func(a, b T) int { return cmp.Compare(ns(b), ns(a)) })
}

func cutHeader(h unload.Header) unload.Header {
	h.Type, h.Plan = "", nil
	h.Tool, h.Kernel, h.Arch, h.Host, h.BootID = cut(h.Tool), cut(h.Kernel), cut(h.Arch), cut(h.Host), cut(h.BootID)
	return h
}

func cutTrailer(t unload.Trailer) unload.Trailer {
	kinds := map[string]int64{}
	for _, kind := range slices.Sorted(maps.Keys(t.LostEvents)) {
		if len(kinds) == mostItems {
			break
		}
		if n := t.LostEvents[kind]; n != 0 {
			kinds[cut(kind)] = min(n, 1<<40) // their sum stays a number
		}
	}
	t.LostEvents = kinds
	return t
}

func cutStall(s unload.Stall) unload.Stall {
	c := newCutter()
	s.Wait = c.wait(s.Wait)
	s.Unload = c.unload(s.Unload)
	s.Phase, s.Elapsed = unload.PhaseName(c.text(string(s.Phase))), max(s.Elapsed, 0)
	return s
}

func cutReload(r unload.Reload) unload.Reload {
	c := newCutter()
	r.Module, r.Loader = c.text(r.Module), c.caller(r.Loader)
	return r
}

func cutWhy(w unload.Why) (unload.Why, int64) {
	c := newCutter()
	w.Module, w.State, w.Reason = c.text(w.Module), c.text(w.State), unload.Reason(c.text(string(w.Reason)))
	w.Dependents, w.Plan, w.Similar = c.texts("dependents", w.Dependents), c.texts("plan", w.Plan), c.texts("similar", w.Similar)
	w.Hazards, w.Advice, w.Missing = c.texts("hazards", w.Hazards), c.texts("advice", w.Advice), c.texts("missing", w.Missing)
	w.Holders = c.holders(w.Holders)
	return w, c.more["holders"]
}

func cutLedger(l unload.Ledger) (unload.Ledger, int64) {
	c := newCutter()
	l.Balance.Module, l.Balance.State = c.text(l.Balance.Module), c.text(l.Balance.State)
	l.Balance.Missing = c.texts("missing", l.Balance.Missing)
	l.Balance.Holders = c.holders(l.Balance.Holders)
	l.Entries = some(c, "entries", l.Entries, func(r *unload.Refs) {
		r.Module, r.Site, r.Comm, r.Dropped = c.text(r.Module), c.text(r.Site), c.text(r.Comm), c.text(r.Dropped)
		r.Stack = c.stack(r.Stack)
	})
	return l, c.more["entries"]
}
