package output

import (
	"fmt"
	"strings"

	"github.com/modtrace/modtrace/unload"
)

// Names of functions and files in a sentence are bounded by these; longer ones
// are made to harm, not to be read.
const (
	longestFunction = 64
	longestDetail   = 128
)

// who names a task, "" if nothing is known of it.
func (s screen) who(b unload.Blocker) string {
	switch {
	case b.Candidates > 1:
		return fmt.Sprintf("one of %d tasks", b.Candidates)
	case b.Comm != "" && b.PID > 0:
		return fmt.Sprintf("%s (pid %d)", s.name(b.Comm, 32), b.PID)
	case b.Comm != "":
		return s.name(b.Comm, 32)
	case b.PID > 0:
		return fmt.Sprintf("pid %d", b.PID)
	}
	return ""
}

// function writes a function as the kernel does, with its module behind it.
func (s screen) function(b unload.Blocker) string {
	var parts []string
	if b.Function != "" {
		parts = append(parts, s.name(b.Function, longestFunction))
	}
	if b.Module != "" && !inModule(b.Function) {
		parts = append(parts, "["+s.name(b.Module, longestName)+"]")
	}
	return strings.Join(parts, " ")
}

func (s screen) detail(b unload.Blocker) string {
	if b.Detail == "" {
		return ""
	}
	return s.name(b.Detail, longestDetail)
}

// agent names a blocker or waker as somebody who acts, "" if it is unknown.
func (s screen) agent(b unload.Blocker) string {
	who, function, detail := s.who(b), s.function(b), s.detail(b)
	switch b.Kind {
	case unload.KindWork:
		return s.workItem(b)
	case unload.KindWorkqueue:
		return s.workqueue(b)
	case unload.KindInterrupt:
		return either("interrupt handler ", function, "an interrupt")
	case unload.KindInterface:
		return s.users(b, "network interface", "interface ")
	case unload.KindFile:
		return s.users(b, "file", "")
	}
	switch {
	case who == "" && function == "":
		return detail
	case who == "":
		return function
	}
	return who + suffix(" in ", function) + suffix(", ", detail)
}

// workItem names a work item, its queue and its worker.
func (s screen) workItem(b unload.Blocker) string {
	return either("work item ", s.function(b), "a work item") +
		suffix(" of workqueue ", s.detail(b)) + suffix(", run by ", s.who(b))
}

// asyncCalls names calls that are made behind the back of who asked for them: the
// oldest, and the others.
func (s screen) asyncCalls(b unload.Blocker) string {
	who := suffix(", run by ", s.who(b))
	if b.Detail == "" {
		return "asynchronous call " + s.function(b) + who
	}
	return "asynchronous calls " + s.function(b) + who + ", and " + s.detail(b)
}

// workqueue names all that is on a queue.
func (s screen) workqueue(b unload.Blocker) string {
	text := "all work of " + either("workqueue ", s.detail(b), "a workqueue")
	if function := s.function(b); function != "" {
		return text + ", among it " + function + suffix(", run by ", s.who(b))
	}
	return text + suffix(", run by ", s.who(b))
}

// thread names a kernel thread that is to stop.
func (s screen) thread(b unload.Blocker) string {
	who, function := s.who(b), s.function(b)
	switch {
	case b.Candidates > 1:
		return fmt.Sprintf("one of %d kernel threads to stop", b.Candidates)
	case b.Comm != "":
		return "kernel thread " + who + suffix(" in ", function) + " to stop"
	case who != "":
		return "the kernel thread with " + who + suffix(", in ", function) + " to stop"
	case function != "":
		return "a kernel thread in " + function + " to stop"
	}
	return "a kernel thread to stop"
}

// users names who uses a thing of some kind, with the thing's own name.
func (s screen) users(b unload.Blocker, kind, named string) string {
	thing := either(named, s.detail(b), article(kind))
	text := "users of " + thing
	if b.Users > 0 {
		text = count(b.Users, "user", "users") + " of " + thing
	}
	if who := s.who(b); who != "" {
		text = who + ", which uses " + thing
	}
	return text + suffix(", in ", s.function(b))
}

// lock names a lock and its owner. What is known of the work of an owner that
// is a worker says nothing of the lock.
func (s screen) lock(b unload.Blocker, kind string) string {
	thing := article(kind)
	if b.Detail != "" && b.Kind != unload.KindWork && b.Kind != unload.KindWorkqueue {
		thing = kind + " " + s.detail(b)
		b.Detail = ""
	}
	return thing + suffix(" held by ", s.agent(b))
}

// target names what is waited for.
func (s screen) target(c unload.Cause, b unload.Blocker) string {
	switch c {
	case unload.CauseMutex:
		return s.lock(b, "mutex")
	case unload.CauseRWSem:
		return s.lock(b, "read-write semaphore")
	case unload.CauseWorkqueue:
		if b.Kind == unload.KindWorkqueue {
			return s.workqueue(b)
		}
		return s.workItem(b)
	case unload.CauseKthreadStop:
		return s.thread(b)
	case unload.CauseTimer:
		return either("timer callback ", s.function(b), "a timer's callback") + suffix(" of ", s.detail(b)) + suffix(", run by ", s.who(b))
	case unload.CauseKernfsDrain:
		return s.users(b, "sysfs file", "")
	case unload.CauseDeviceUsers:
		return s.users(b, "device", "device ")
	case unload.CauseNetdevUsers:
		return s.users(b, "network interface", "interface ")
	case unload.CauseBlockFreeze:
		return "requests of " + either("block device ", s.detail(b), "a block device") + suffix(" by ", s.who(b))
	case unload.CauseAsyncWork:
		if s.function(b) != "" {
			return s.asyncCalls(b)
		}
		return s.plainTarget(c) + suffix(", held up by ", s.agent(b))
	case unload.CausePreempted:
		return "its turn on a CPU" + suffix(", taken by ", s.agent(b))
	case unload.CauseCompletion:
		return "a completion" + suffix(" by ", s.agent(b))
	case unload.CauseOther, "":
		return either("", s.agent(b), "something unknown")
	}
	return s.plainTarget(c) + suffix(", held up by ", s.agent(b))
}

// plainTarget names what is waited for where that hardly ever has an owner.
func (s screen) plainTarget(c unload.Cause) string {
	switch c {
	case unload.CauseRCU:
		return "an RCU grace period"
	case unload.CauseRCUBarrier:
		return "RCU callbacks"
	case unload.CauseSRCU:
		return "an SRCU grace period"
	case unload.CauseSleep:
		return "a set time to pass"
	case unload.CauseAsyncWork:
		return "asynchronous calls"
	case unload.CauseIO:
		return "I/O"
	}
	return "something called " + s.name(string(c), 24)
}

// either is a name with what belongs before it, or what stands for none.
func either(before, name, none string) string {
	if name == "" {
		return none
	}
	return before + name
}

// suffix is a name with what belongs before it, nothing for none.
func suffix(before, name string) string { return either(before, name, "") }

func article(noun string) string {
	if strings.ContainsRune("aeiou", rune(noun[0])) {
		return "an " + noun
	}
	return "a " + noun
}

// same says whether two descriptions can only be of one task.
func same(a, b unload.Blocker) bool {
	if a.PID > 0 && b.PID > 0 {
		return a.PID == b.PID
	}
	return a.Comm != "" && a.Comm == b.Comm && (a.PID <= 0 || b.PID <= 0)
}
