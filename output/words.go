package output

import (
	"fmt"

	"github.com/modtrace/modtrace/unload"
)

// doing says what the kernel does in a phase, "" for a phase that is unknown.
func doing(name unload.PhaseName) string {
	switch name {
	case unload.Enter:
		return "check the caller, wait for module_mutex"
	case unload.Check:
		return "find the module and decide"
	case unload.Exit:
		return "run the module's exit function"
	case unload.Notify:
		return "tell all who asked to be told (notifiers)"
	case unload.Livepatch:
		return "take back live patches of the module"
	case unload.Ftrace:
		return "forget the module's traceable functions"
	case unload.Async:
		return "wait for calls that run asynchronously"
	case unload.FreeSysfs:
		return "remove /sys/module entries"
	case unload.FreeArch:
		return "mark the module unformed, undo arch set-up"
	case unload.FreeDeps:
		return "let go of the modules that it uses"
	case unload.FreeParams:
		return "free its parameters"
	case unload.FreeUnlink:
		return "take the module off the list, wait for RCU readers"
	case unload.FreeMemory:
		return "free the module's memory"
	case unload.Return:
		return "wake who waits for this, go back to the caller"
	}
	return ""
}

// place names a phase for a sentence, with those merged into it.
func (s screen) place(p unload.Phase) string {
	text := s.phase(p.Name)
	for i, m := range p.Merged {
		if i == 2 {
			return fmt.Sprintf("%s + %d more", text, len(p.Merged)-i)
		}
		text += " + " + s.phase(m)
	}
	return text
}

// phase names a phase. The exit function is called as its author calls it.
func (s screen) phase(name unload.PhaseName) string {
	if name == unload.Exit {
		return "exit()"
	}
	return s.name(string(name), 24)
}

// name makes a name from outside fit for a sentence.
func (s screen) name(name string, most int) string {
	if name == "" {
		return "(unnamed)"
	}
	return s.cut(s.clean(name), most)
}

// count writes a number with its noun.
func count(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
