package output

import (
	"fmt"
	"path"
	"strings"

	"github.com/modtrace/modtrace/unload"
)

// advice is what helps against a wait.
type advice struct {
	cause unload.Cause
	// known is for a blocker whose pid is known, which takes the place of %d.
	known string
	// unknown is for all others; "" if there is nothing certain to say.
	unknown string
}

// remedies lists what an operator can do about a wait, by its cause. Causes
// against which nothing certain helps are not in it.
func remedies() []advice {
	const stack = "cat /proc/%d/stack shows what it does"
	return []advice{
		{unload.CauseMutex, "the owner has to let go first: " + stack,
			"the owner has to let go first: echo w > /proc/sysrq-trigger logs where every blocked task is"},
		{unload.CauseRWSem, "the owner has to let go first: " + stack,
			"the owners have to let go first: echo w > /proc/sysrq-trigger logs where every blocked task is"},
		{unload.CauseWorkqueue, "the work has to end first: cat /proc/%d/stack shows what its worker does",
			"the work has to end first: echo t > /proc/sysrq-trigger logs what each workqueue runs and what it has pending"},
		{unload.CauseKthreadStop, "the thread has to see that it is to stop, and end: " + stack,
			"the thread has to see that it is to stop, and end: echo t > /proc/sysrq-trigger logs where every thread is"},
		{unload.CauseTimer, "", "the callback has to end first: echo l > /proc/sysrq-trigger logs where each CPU is"},
		{unload.CauseRCU, "", "if a CPU or a task holds the grace period up for long, the kernel logs which (RCU stall)"},
		{unload.CauseKernfsDrain, "the file's user has to leave it first: " + stack,
			"the file's users have to leave it first: fuser -v on the file shows who has it open"},
		{unload.CauseDeviceUsers, "the device's user has to close it first: " + stack,
			"the device's users have to close it first: fuser -v on its node in /dev shows who has it open"},
		{unload.CauseNetdevUsers, "", "find who uses the interface: sockets, routes, other network namespaces (lsns -t net); " +
			"a kernel with CONFIG_NET_DEV_REFCNT_TRACKER logs each holder"},
		{unload.CauseAsyncWork, "", "asynchronous calls of the whole machine are waited for, such as the probing of disks, not those of this module alone"},
		{unload.CauseBlockFreeze, "", "the requests in flight have to end first: /sys/kernel/debug/block/*/hctx*/busy lists them"},
		{unload.CausePreempted, "", "it could run, but others have the CPU: top shows who"},
	}
}

// remedy says what can be done about a stall, "" if nothing is certain.
func (s screen) remedy(st unload.Stall) string {
	if st.Outcome == unload.Died {
		return "reboot: no other task can end the unload, and until then the module can be neither used, unloaded nor loaded again"
	}
	w, ok := lasting(st)
	if !ok && st.Wait.Count == 0 {
		return s.profile(st)
	}
	if moves(st) {
		return ""
	}
	b := w.Blocker
	for _, a := range remedies() {
		switch {
		case a.cause != w.Cause:
		case a.known != "" && b.PID > 0:
			return fmt.Sprintf(a.known, b.PID)
		case w.Cause == unload.CauseKernfsDrain && path.IsAbs(b.Detail):
			return strings.Replace(a.unknown, "on the file", s.quote(b.Detail), 1)
		default:
			return a.unknown
		}
	}
	return ""
}

// profile is for a task that runs: nobody is to blame but its own code.
func (s screen) profile(st unload.Stall) string {
	if st.Caller.TID <= 0 {
		return ""
	}
	return fmt.Sprintf("it waits for nobody: perf top -g -t %d shows where it runs", st.Caller.TID)
}
