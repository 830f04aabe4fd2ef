package output

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/modtrace/modtrace/unload"
)

// Verdict answers in one line what became of an attempt to unload a module:
// how long it took and where the time went, why it was refused, or where it
// hangs. Names in it are safe to print.
func Verdict(u unload.Unload) string { return screen{}.verdict(u) }

// The answers that a caller can meet with.
const (
	unanswered = unload.Unanswered
	unloaded   = unload.Unloaded
	refused    = unload.Refused
)

func outcomeOf(u unload.Unload) unload.Answer { return u.Answer() }

// longestName bounds a module's name in a sentence: the kernel's limit
// (include/linux/module.h, MODULE_NAME_LEN).
const longestName = 56

func (s screen) verdict(u unload.Unload) string {
	name := s.name(u.Module, longestName)
	switch outcomeOf(u) {
	case unloaded:
		return name + " unloaded" + s.force(u) + s.spent(u)
	case refused:
		return name + s.refusal(u)
	}
	return name + s.limbo(u)
}

// force says what force was good for.
func (s screen) force(u unload.Unload) string {
	switch {
	case !u.Forced:
		return ""
	case u.Refcount.Before > 0:
		return " by force over " + count(u.Refcount.Before, "reference", "references")
	}
	return " (force was asked for)"
}

// spent says how long it took and where most of that went.
func (s screen) spent(u unload.Unload) string {
	if u.Duration <= 0 {
		return ""
	}
	text := " in " + s.duration(u.Duration)
	p, ok := longest(u.Phases)
	if !ok {
		return text
	}
	part := percent(p.Duration, u.Duration)
	if !dominates(p, u, 4) {
		return fmt.Sprintf("%s, no more than %s of it in any phase", text, part)
	}
	return fmt.Sprintf("%s, %s of it in %s, %s", text, part, s.place(p), s.activity(p))
}

// dominates says whether a phase took at least one nth of the whole time.
func dominates(p unload.Phase, u unload.Unload, n int64) bool {
	return p.Duration >= u.Duration/n
}

// longest is the phase that took most of the time, if any took some.
func longest(phases []unload.Phase) (unload.Phase, bool) {
	if len(phases) == 0 {
		return unload.Phase{}, false
	}
	p := slices.MaxFunc(phases, func(a, b unload.Phase) int { return cmp.Compare(a.Duration, b.Duration) })
	return p, p.Duration > 0
}

// noticeable is how long somebody waits at a terminal before wondering, in ns.
const noticeable = 1e9

// refusal says who refused and why, and after how long if that hurt.
func (s screen) refusal(u unload.Unload) string {
	verb := " refused"
	if u.Result.Reason == unload.ReasonInterrupted {
		verb = " not unloaded" // nobody said no
	}
	if u.Forced {
		verb += " in spite of force"
	}
	if u.Result.By == unload.ByUserspace {
		verb += " by " + s.caller(u.Caller) + " itself"
	}
	if u.Duration >= noticeable {
		verb += " after " + s.duration(u.Duration)
	}
	why := s.why(u)
	if u.Result.By == unload.ByUserspace {
		if u.Result.Reason == unload.ReasonUnknown || u.Result.Reason == "" {
			return verb + ": the kernel was not asked"
		}
		why += " (the kernel was not asked)"
	}
	return verb + ": " + why + suffix("; ", s.firstHolders(slices.DeleteFunc(slices.Clone(u.Holders), isModule)))
}

// isModule says that a holder is one of the dependents, which are named besides.
func isModule(h unload.Holder) bool { return h.Kind == unload.HolderModule }

// caller names the program that asked.
func (s screen) caller(c unload.Caller) string {
	switch {
	case len(c.Cmdline) > 0 && c.Cmdline[0] != "":
		return s.name(path.Base(c.Cmdline[0]), 24)
	case c.Comm != "":
		return s.name(c.Comm, 24)
	}
	return "the caller"
}

// why puts the reason of a refusal into words.
func (s screen) why(u unload.Unload) string {
	switch u.Result.Reason {
	case unload.ReasonDependents:
		return s.dependents(u)
	case unload.ReasonReferenced:
		if u.Refcount.Before <= 0 {
			return "it is in use"
		}
		return count(u.Refcount.Before, "reference", "references")
	case unload.ReasonNoExit:
		return "it has no exit function, so it can never be unloaded"
	case unload.ReasonLoading:
		return "it is still loading"
	case unload.ReasonUnloading:
		return "it is being unloaded already"
	case unload.ReasonNotFound:
		return "no such module is loaded"
	case unload.ReasonNoCapability:
		return "the caller lacks CAP_SYS_MODULE"
	case unload.ReasonModulesDisabled:
		return "kernel.modules_disabled is set: nothing can be unloaded until reboot"
	case unload.ReasonInterrupted:
		return "interrupted by a signal while waiting for module_mutex" + s.owner(u)
	case unload.ReasonBadAddress:
		return "the caller's pointer to the name is bad (EFAULT)"
	case unload.ReasonDenied:
		return "denied by a security module" + s.errno(u.Result.Errno)
	case unload.ReasonUnknown, unload.ReasonNone, "":
		return "the reason was not seen" + s.errno(u.Result.Errno)
	}
	return s.name(string(u.Result.Reason), 40) + s.errno(u.Result.Errno)
}

// owner names who held the mutex that an interrupted unload waited for.
func (s screen) owner(u unload.Unload) string {
	for _, p := range u.Phases {
		if waits := folded(p.Waits); p.Name == unload.Enter && len(waits) > 0 && waits[0].Cause == unload.CauseMutex {
			return suffix(" held by ", s.who(waits[0].Blocker))
		}
	}
	return ""
}

func (s screen) errno(name string) string {
	if name == "" {
		return ""
	}
	return " (" + s.name(name, 24) + ")"
}

// dependents names the modules that need this one. Each of them holds one
// reference, so that what is more than that has another owner.
func (s screen) dependents(u unload.Unload) string {
	n := int64(len(u.Dependents))
	if n == 0 {
		return "other modules depend on it"
	}
	const shown = 3
	var names []string
	for _, d := range u.Dependents[:min(n, shown)] {
		names = append(names, s.name(d, 32))
	}
	if n > shown {
		names = append(names, fmt.Sprintf("%d more", n-shown))
	}
	text := fmt.Sprintf("%s (%s)", count(n, "dependent", "dependents"), strings.Join(names, ", "))
	if others := u.Refcount.Before - n; others > 0 {
		text += " and " + count(others, "other reference", "other references")
	}
	return text
}

// limbo tells of an unload to which no answer was seen.
func (s screen) limbo(u unload.Unload) string {
	hangs := u.Outcome == unload.InFlight
	if len(u.Phases) == 0 || u.Outcome != unload.Died && !hangs {
		return ": how it ended was not seen"
	}
	p := u.Phases[len(u.Phases)-1]
	if hangs {
		return fmt.Sprintf(" has not come back: in %s for %s when tracing ended, %s",
			s.place(p), s.duration(p.Duration), s.activity(p))
	}
	// From the exit function on the module is going, and only the task that
	// died could have brought that to an end.
	order := unload.PhaseNames()
	fate := " not unloaded"
	switch at := slices.Index(order, p.Name); {
	case p.Name == unload.Return:
		fate = " unloaded"
	case at >= slices.Index(order, unload.Exit):
		fate = " is half unloaded until reboot"
	}
	return fmt.Sprintf("%s: the task died in %s after %s", fate, s.place(p), s.duration(u.Duration))
}
