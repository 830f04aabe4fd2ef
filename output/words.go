package output

import (
	"cmp"
	"fmt"
	"slices"

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

// waiting says for what a task was off the CPU, by the cause of its wait.
func (s screen) waiting(cause unload.Cause) string {
	words := map[unload.Cause]string{
		unload.CauseRCU:         "an RCU grace period",
		unload.CauseRCUBarrier:  "RCU callbacks",
		unload.CauseSRCU:        "an SRCU grace period",
		unload.CauseMutex:       "a mutex",
		unload.CauseRWSem:       "a read-write semaphore",
		unload.CauseCompletion:  "a completion",
		unload.CauseWorkqueue:   "a work item",
		unload.CauseKthreadStop: "a kernel thread to stop",
		unload.CauseTimer:       "a timer",
		unload.CauseKernfsDrain: "users of a sysfs file",
		unload.CauseDeviceUsers: "users of a device",
		unload.CauseNetdevUsers: "users of a network interface",
		unload.CauseAsyncWork:   "asynchronous calls",
		unload.CauseBlockFreeze: "block requests",
		unload.CauseIO:          "I/O",
		unload.CausePreempted:   "its turn on a CPU",
	}
	switch {
	case words[cause] != "":
		return "waiting for " + words[cause]
	case cause == "", cause == unload.CauseOther:
		return "asleep"
	case cause == unload.CauseSleep:
		return "asleep for a set time"
	}
	return "waiting (" + s.name(string(cause), 24) + ")"
}

// activity says what the task did for most of a phase.
func (s screen) activity(p unload.Phase) string {
	if p.OnCPU >= p.OffCPU {
		return "running"
	}
	if len(p.Waits) == 0 {
		return "asleep"
	}
	longest := slices.MaxFunc(p.Waits, func(a, b unload.Wait) int {
		return cmp.Compare(a.Duration, b.Duration)
	})
	return s.waiting(longest.Cause)
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
