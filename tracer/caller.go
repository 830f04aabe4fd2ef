package tracer

import (
	"fmt"
	"os"
	"strings"

	"github.com/modtrace/modtrace/bpf"
	"github.com/modtrace/modtrace/unload"
)

// enrichCaller adds what only /proc knows, while the caller still lives: the
// file it really executes, where the kernel side has the name it was started
// by, and its cgroup's path.
func enrichCaller(c *unload.Caller, _ *bpf.UnloadBegin) {
	if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", c.PID)); err == nil {
		c.Exe = exe
	}
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", c.PID)); err == nil {
		c.Cgroup = unifiedCgroup(string(b))
	}
}

// unifiedCgroup picks the path in the unified hierarchy out of
// /proc/PID/cgroup (cgroups(7)).
func unifiedCgroup(text string) string {
	for line := range strings.Lines(text) {
		if path, ok := strings.CutPrefix(strings.TrimRight(line, "\n"), "0::"); ok {
			return path
		}
	}
	return ""
}

// modulesDisabled reads the switch kernel.modules_disabled.
func modulesDisabled() bool {
	b, err := os.ReadFile("/proc/sys/kernel/modules_disabled")
	return err == nil && strings.TrimSpace(string(b)) != "0"
}
