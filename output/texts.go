package output

import "github.com/modtrace/modtrace/unload"

// The texts of the tables, one by one, for reports that are laid out in another way. What
// they hold of a capture is safe to print and bounded, but it is not markup: < stays <.

// Clean makes text from a capture safe to print: what would be obeyed, hidden or drawn
// over its surroundings becomes a visible escape. It is not bounded.
func Clean(text string) string { return screen{}.clean(text) }

// Name is a module's name for a sentence, as it begins a verdict.
func Name(module string) string { return screen{}.name(module, longestName) }

// Duration writes ns with no more digits than the eye takes in at once.
func Duration(ns int64) string { return screen{}.duration(ns) }

// Bytes writes a size exactly, and so that it can be taken in.
func Bytes(n int64) string { return bytesOf(n) }

// Share writes the part that ns is of total: only all of it is 100%.
func Share(ns, total int64) string { return share(ns, total) }

// Count writes a number with its noun.
func Count(n int64, one, many string) string { return count(n, one, many) }

// Refusal says why an attempt was refused.
func Refusal(u unload.Unload) string { return screen{}.why(u) }

// Unknowns says, a text each, what of a record is not known.
func Unknowns(u unload.Unload) []string { return screen{}.lacks(u) }

// Lost says how many events of each kind were lost, "" if none was.
func Lost(kinds map[string]int64) string { return screen{}.lost(kinds) }

// Phase names a phase as it stands in a sentence.
func Phase(name unload.PhaseName) string { return screen{}.phase(name) }

// Doing says what the kernel does in a phase, "" for a phase that is unknown.
func Doing(name unload.PhaseName) string { return doing(name) }

// Target names what a wait was for.
func Target(w unload.Wait) string { return screen{}.target(w.Cause, w.Blocker) }

// Pending says how many RCU callbacks a wait was for, "" if that is not known.
func Pending(w unload.Wait) string { return pendingCallbacks(w) }

// Busy says what the blocker of a wait was doing, if that is more than its name says.
func Busy(b unload.Blocker) string { return screen{}.busy(b, "was") }

// Agent names a blocker or waker as somebody who acts, "" if it is unknown.
func Agent(b unload.Blocker) string { return screen{}.agent(b) }

// Spot says by a stack where a task waited or ran, "" if the stack does not say.
func Spot(stack []string) string { return screen{}.spot(stack) }

// Frame writes a frame of a stack for a sentence: function and module, no offset.
func Frame(frame string) string { return screen{}.frame(frame) }

// Program is the name of the program that asked.
func Program(c unload.Caller) string { return screen{}.caller(c) }

// Command is a caller's command line as it can be pasted into a shell, with its ids;
// below it what else is known of the program.
func Command(c unload.Caller) []string { return screen{verbose: true}.callerLines(c) }

// Parents is the chain of a caller's parents, nearest first.
func Parents(c unload.Caller) string { return screen{}.ancestors(c.Ancestors) }

// Flags tells the flags of an attempt, and what became of force.
func Flags(u unload.Unload) string { return screen{}.flags(u) }

// Answer is the kernel's answer in the words of the contract with scripts, "" for one
// that was unloaded.
func Answer(u unload.Unload) string { return screen{}.result(u) }

// Examined says that the kernel came to look at the module, so that what the record
// holds about the module means something.
func Examined(u unload.Unload) bool { return examined(u) }

// Signature says whether a module was signed, and how it tainted the kernel.
func Signature(u unload.Unload) string { return screen{}.module(u) }

// References tells by module which references the caller took and dropped meanwhile.
func References(u unload.Unload) []string { return screen{}.references(u.References) }

// Convoy says in one line who waited behind an unload, "" if nobody did.
func Convoy(u unload.Unload) string {
	lines := screen{}.convoy(u.Convoy)
	if lines == nil {
		return ""
	}
	return lines[0]
}

// Complaint says how grave a line of the kernel's log is: "oops", "error", "warning", or
// "" for one that is ordinary.
func Complaint(l unload.LogLine) string {
	switch graveness(l) {
	case oops:
		return "oops"
	case failure:
		return "error"
	case warning:
		return "warning"
	}
	return ""
}

// Stuck answers in one line where an unload hangs and on whom.
func Stuck(st unload.Stall) string { return screen{}.stuck(st) }

// Remedy says what can be done about a stall, "" if nothing is certain.
func Remedy(st unload.Stall) string { return screen{}.remedy(st) }

// Returned answers in one line who loaded a module again, and how soon.
func Returned(r unload.Reload) string { return screen{}.returned(r) }

// Held answers in one line who holds a module.
func Held(w unload.Why) string { return screen{}.held(w) }

// Holder names who holds a module.
func Holder(h unload.Holder) string { return screen{}.holder(h) }

// Holding says what a holder holds the module by, and where its process belongs.
func Holding(h unload.Holder) string {
	s := screen{}
	return s.what(h) + s.where(h)
}

// Balance says in one line where a module's count of references comes from.
func Balance(l unload.Ledger) string { return screen{}.balance(l) }

// Doubts says, a text each, what of a balance is not known.
func Doubts(b unload.Balance) []string { return screen{}.doubts(b) }

// Taker names who took references.
func Taker(r unload.Refs) string { return screen{}.taker(r) }

// Places names where references were taken, all that come into question.
func Places(r unload.Refs, all []unload.Refs) string { return screen{}.places(r, all) }
