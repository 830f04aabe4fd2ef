package stats

import (
	"slices"
	"strings"

	"github.com/modtrace/modtrace/unload"
)

// Bounds on what is kept of a record: all of it is from outside, and strings of 8 MB are
// records too.
const (
	longestKept = 128 // bytes of a name; the kernel's own are shorter
	framesKept  = 12  // of a stack
)

// kept is a name to keep: no longer than one can be, and not a part of the record.
func kept(name string) string {
	if len(name) > longestKept {
		name = strings.ToValidUTF8(name[:longestKept], "")
	}
	return strings.Clone(name)
}

func keptStack(stack []string) []string {
	frames := make([]string, min(len(stack), framesKept))
	for i := range frames {
		frames[i] = kept(stack[i])
	}
	return frames
}

func keptBlocker(b unload.Blocker) unload.Blocker {
	b.Kind, b.Comm, b.Function = kept(b.Kind), kept(b.Comm), kept(b.Function)
	b.Module, b.Detail, b.Stack = kept(b.Module), kept(b.Detail), keptStack(b.Stack)
	return b
}

// keptPhase is a phase with its longest wait and the stack that it was found in most.
func keptPhase(p unload.Phase) unload.Phase {
	merged := make([]unload.PhaseName, 0, 4)
	for _, m := range p.Merged[:min(len(p.Merged), len(unload.PhaseNames()))] {
		merged = append(merged, unload.PhaseName(kept(string(m))))
	}
	p.Name, p.Merged = unload.PhaseName(kept(string(p.Name))), merged
	if len(p.Waits) > 0 {
		w := slices.MaxFunc(p.Waits, func(a, b unload.Wait) int { return compare(a.Duration, b.Duration) })
		w.Cause, w.Stack = unload.Cause(kept(string(w.Cause))), keptStack(w.Stack)
		w.Blocker, w.Waker = keptBlocker(w.Blocker), keptBlocker(w.Waker)
		p.Waits = []unload.Wait{w}
	}
	if len(p.Hot) > 0 {
		h := slices.MaxFunc(p.Hot, func(a, b unload.Hot) int { return compare(a.Samples, b.Samples) })
		p.Hot = []unload.Hot{{Samples: h.Samples, Stack: keptStack(h.Stack)}}
	}
	return p
}

// worst says what is kept of an attempt.
func worst(u *unload.Unload) unload.Worst {
	w := unload.Worst{
		Module: kept(unload.Underscored(u.Module)), Start: u.Start, Duration: u.Duration,
		Kind: u.Result.Kind(), Reason: unload.Reason(kept(string(u.Result.Reason))),
	}
	if len(u.Phases) > 0 {
		w.Phase = keptPhase(slices.MaxFunc(u.Phases, func(a, b unload.Phase) int { return compare(a.Duration, b.Duration) }))
	}
	return w
}

// names are different ones in the order in which they came, no more than so many.
type names []string

const maxNames = 100

// see adds a name that is new.
func (n *names) see(name string) {
	name = kept(name)
	switch {
	case name == "" || slices.Contains(*n, name):
	case len(*n) < maxNames:
		*n = append(*n, name)
	case len(*n) == maxNames:
		*n = append(*n, unload.Others)
	}
}
