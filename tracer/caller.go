package tracer

import (
	"fmt"
	"os"
	"strings"

	"github.com/modtrace/modtrace/bpf"
	"github.com/modtrace/modtrace/procfs"
	"github.com/modtrace/modtrace/unload"
)

// enrich adds what only the machine knows: while the caller still lives
// the file it really executes, where the kernel side has the name it was
// started by; its cgroup's path; and the ancestors further up.
func (k cgroups) enrich(c *unload.Caller, b *bpf.UnloadBegin) {
	if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", c.PID)); err == nil {
		c.Exe = exe
	}
	c.Cgroup = k.path(b.Cgroup)
	c.Ancestors = extend(c.Ancestors)
}

// maxAncestors bounds the chain of parents that is reported.
const maxAncestors = 32

// extend adds the ancestors above those that the kernel side noted.
func extend(list []unload.Ancestor) []unload.Ancestor {
	if len(list) == 0 {
		return list
	}
	last := list[len(list)-1]
	stat, err := procfs.ReadStat(procfs.Task(last.PID))
	if err != nil || stat.Comm != last.Comm {
		return list // it ended; the number may be somebody else's by now
	}
	for stat.Parent != 0 && len(list) < maxAncestors {
		pid := stat.Parent
		if stat, err = procfs.ReadStat(procfs.Task(pid)); err != nil {
			break
		}
		list = append(list, unload.Ancestor{PID: pid, Comm: stat.Comm})
	}
	return list
}

// modulesDisabled reads the switch kernel.modules_disabled.
func modulesDisabled() bool {
	b, err := os.ReadFile("/proc/sys/kernel/modules_disabled")
	return err == nil && strings.TrimSpace(string(b)) != "0"
}
