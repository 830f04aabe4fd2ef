// Package cause tells from a kernel stack why a task is off the CPU.
package cause

import (
	"strings"

	"github.com/modtrace/modtrace/unload"
)

// Of classifies a wait by the stack in which the task went off the CPU,
// innermost frame first. Frames are "function+0xoffset/0xsize [module]", of
// which all but the function may be absent.
//
// It reads from the innermost frame to Site and no further, so who asked for
// the wait, and what is beneath, have no say. A stack that says nothing is
// unload.CauseOther: /proc/PID/stack often is such a one for completions and
// mutexes, since its innermost frames leave out what is marked as part of the
// scheduler (__sched in the source, in_sched_functions in kernel/sched/core.c).
func Of(stack []string) unload.Cause {
	cause, _ := read(stack)
	if cause == open {
		return unload.CauseOther
	}
	return cause
}

// Site is the index of the first frame that is not part of how the kernel
// waits, which is the caller of the wait: the module's own function or, for
// instance, a function of the driver core. It is len(stack) if there is none.
//
// It may be the system call itself: a module's exit function that ends in a
// call is left by a jump, and is not on the stack while that call waits.
func Site(stack []string) int {
	_, site := read(stack)
	return site
}

func read(stack []string) (cause unload.Cause, site int) {
	table := rules()
	cause = open
	for i, frame := range stack {
		r := find(table, Function(frame), cause)
		if r == nil {
			return cause, i
		}
		if r.cause != open {
			cause = r.cause
		}
	}
	return cause, len(stack)
}

// find gives the first rule that a function meets when the frames within it
// have said so much, or nil.
func find(table []rule, function string, said unload.Cause) *rule {
	for i := range table {
		if r := &table[i]; r.holds(said) && r.names(function) {
			return r
		}
	}
	return nil
}

// suffixes are what compilers add to the names of functions that they have
// copied, split or made local.
func suffixes() []string {
	return []string{".isra.", ".constprop.", ".part.", ".cold", ".llvm.", ".lto_priv."}
}

// padding begins the names of the bytes before a function, which never run. What
// is about to run the function's first one may be taken to be there: addresses on
// stacks are those behind a call (scripts/mod and objtool, CONFIG_PREFIX_SYMBOLS).
const padding = "__pfx_"

// Function is the name of a frame's function: without offset, module, or what
// the compiler has added.
func Function(frame string) string {
	name := strings.TrimSpace(frame)
	if i := strings.IndexAny(name, "+ \t"); i >= 0 {
		name = name[:i]
	}
	for _, s := range suffixes() {
		if i := strings.Index(name, s); i > 0 {
			name = name[:i]
		}
	}
	return strings.TrimPrefix(name, padding)
}

// Module is the module of a frame's function, "" for the kernel itself. The
// name of a module may be followed by its build ID, which is not part of it
// (CONFIG_STACKTRACE_BUILD_ID, kernel/kallsyms.c).
func Module(frame string) string {
	_, in, ok := strings.Cut(frame, "[")
	if !ok {
		return ""
	}
	in, _, ok = strings.Cut(in, "]")
	if !ok {
		return ""
	}
	name, _, _ := strings.Cut(strings.TrimSpace(in), " ")
	return name
}
