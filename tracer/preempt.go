package tracer

import (
	"os"
	"strings"
)

// preemptible says whether tasks may be preempted while they run kernel code, by
// the model in force where that can be read, else by what the kernel was built
// for (kernel/sched/core.c, PREEMPT_DYNAMIC).
func preemptible() bool {
	b, err := os.ReadFile("/sys/kernel/debug/sched/preempt")
	if err == nil {
		model := string(b)
		return !strings.Contains(model, "(none)") && !strings.Contains(model, "(voluntary)")
	}
	b, err = os.ReadFile("/proc/version")
	return err != nil || strings.Contains(string(b), " PREEMPT")
}
