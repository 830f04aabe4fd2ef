package page

import "github.com/modtrace/modtrace/unload"

// ink is what something is drawn in: a class of the style sheet that gives the colour,
// and where several share one, a texture over it, so that nobody has to tell them apart
// by colour alone.
type ink struct {
	Class   string
	Texture string // the id of a pattern in the page, "" for none
	Name    string
}

// running and unseen are the inks that are for no cause.
func running() ink { return ink{Class: "i-cpu", Name: "on the CPU"} }
func unseen() ink  { return ink{Class: "i-unseen", Name: "off the CPU, not seen why"} }

// inkOf gives causes that are alike one colour. The colours are those of Okabe and Ito
// (Color Universal Design), which differ for all kinds of colour blindness.
func inkOf(c unload.Cause) ink {
	c = known(c)
	i := ink{Name: string(c)}
	switch c {
	case unload.CauseRCU:
		i.Class = "i-rcu"
	case unload.CauseRCUBarrier:
		i.Class, i.Texture = "i-rcu", "hatch"
	case unload.CauseSRCU:
		i.Class, i.Texture = "i-rcu", "dots"
	case unload.CauseMutex:
		i.Class = "i-lock"
	case unload.CauseRWSem:
		i.Class, i.Texture = "i-lock", "hatch"
	case unload.CauseCompletion:
		i.Class, i.Texture = "i-work", "bars"
	case unload.CauseWorkqueue:
		i.Class = "i-work"
	case unload.CauseKthreadStop:
		i.Class, i.Texture = "i-work", "hatch"
	case unload.CauseAsyncWork:
		i.Class, i.Texture = "i-work", "dots"
	case unload.CauseSleep:
		i.Class = "i-time"
	case unload.CauseTimer:
		i.Class, i.Texture = "i-time", "hatch"
	case unload.CauseKernfsDrain:
		i.Class = "i-user"
	case unload.CauseDeviceUsers:
		i.Class, i.Texture = "i-user", "hatch"
	case unload.CauseNetdevUsers:
		i.Class, i.Texture = "i-user", "dots"
	case unload.CauseIO:
		i.Class = "i-io"
	case unload.CauseBlockFreeze:
		i.Class, i.Texture = "i-io", "hatch"
	case unload.CausePreempted:
		i.Class = "i-turn"
	default:
		i.Class = "i-other"
	}
	return i
}

// words says in a few words what is waited for.
func words(c unload.Cause) string {
	switch known(c) {
	case unload.CauseRCU:
		return "RCU grace periods"
	case unload.CauseRCUBarrier:
		return "RCU callbacks"
	case unload.CauseSRCU:
		return "SRCU grace periods"
	case unload.CauseMutex:
		return "mutexes"
	case unload.CauseRWSem:
		return "read-write semaphores"
	case unload.CauseCompletion:
		return "completions"
	case unload.CauseWorkqueue:
		return "workqueues"
	case unload.CauseKthreadStop:
		return "kernel threads to stop"
	case unload.CauseTimer:
		return "timer callbacks"
	case unload.CauseSleep:
		return "set times to pass"
	case unload.CauseKernfsDrain:
		return "users of sysfs files"
	case unload.CauseDeviceUsers:
		return "users of devices"
	case unload.CauseNetdevUsers:
		return "users of network interfaces"
	case unload.CauseAsyncWork:
		return "asynchronous calls"
	case unload.CauseBlockFreeze:
		return "requests of block devices"
	case unload.CauseIO:
		return "I/O"
	case unload.CausePreempted:
		return "a turn on a CPU"
	}
	return "something else"
}
