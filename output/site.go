package output

import (
	"slices"
	"strings"

	"github.com/modtrace/modtrace/cause"
	"github.com/modtrace/modtrace/unload"
)

// site picks from a stack, innermost frame first, the one that says where the
// task was: the first that is not part of how the kernel waits. It gives "" if
// there is none.
func site(stack []string) (frame string) {
	if i := cause.Site(stack); i < len(stack) {
		return stack[i]
	}
	return ""
}

// working is the part of a running task's stack that says what it does: not how
// it passes the time (lib/delay.c), nor where it lets interrupts in again, which
// is when a sample that was due before is taken (kernel/locking/spinlock.c).
func working(stack []string) []string {
	for i, f := range stack {
		name := strings.TrimLeft(cause.Function(f), "_")
		if !strings.HasPrefix(name, "delay") && !strings.HasPrefix(name, "raw_spin_unlock_irq") &&
			!slices.Contains([]string{"const_udelay", "udelay", "ndelay"}, name) {
			return stack[i:]
		}
	}
	return nil
}

func inModule(frame string) bool {
	return strings.Contains(frame, " [") && strings.HasSuffix(frame, "]")
}

// moduleFrame is the innermost frame of a stack that belongs to a module.
func moduleFrame(stack []string) string {
	if i := slices.IndexFunc(stack, inModule); i >= 0 {
		return stack[i]
	}
	return ""
}

// frame writes a frame for a sentence: function and module, not the offset.
func (s screen) frame(text string) string {
	return s.function(unload.Blocker{Function: cause.Function(text), Module: cause.Module(text)})
}

// spot says where a task was by its stack: the function, and on whose behalf
// if that is not a module's own. It gives "" if the stack does not say.
func (s screen) spot(stack []string) string {
	at := site(stack)
	if at == "" {
		return ""
	}
	text := s.frame(at)
	if m := moduleFrame(stack); m != "" && !inModule(at) {
		text += " from " + s.frame(m)
	}
	return text
}

// runs says where a running task was, as spot does.
func (s screen) runs(stack []string) string {
	if at := s.spot(working(stack)); at != unnamed {
		return at
	}
	return ""
}

// unnamed stands for a place in code that is gone or has no name.
const unnamed = "?"
