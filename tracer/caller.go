package tracer

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/modtrace/modtrace/bpf"
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
	comm, parent, ok := parentOf(last.PID)
	if !ok || comm != last.Comm {
		return list // it ended; the number may be somebody else's by now
	}
	for parent != 0 && len(list) < maxAncestors {
		pid := parent
		if comm, parent, ok = parentOf(pid); !ok {
			break
		}
		list = append(list, unload.Ancestor{PID: pid, Comm: comm})
	}
	return list
}

// parentOf reads a process's name and parent from /proc/PID/stat (proc(5)).
func parentOf(pid int) (comm string, parent int, ok bool) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", 0, false
	}
	// The name stands in parentheses and may hold some itself.
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || end < open {
		return "", 0, false
	}
	f := bytes.Fields(b[end+1:]) // its state, its parent, and more
	if len(f) < 2 {
		return "", 0, false
	}
	if parent, err = strconv.Atoi(string(f[1])); err != nil {
		return "", 0, false
	}
	return string(b[open+1 : end]), parent, true
}

// modulesDisabled reads the switch kernel.modules_disabled.
func modulesDisabled() bool {
	b, err := os.ReadFile("/proc/sys/kernel/modules_disabled")
	return err == nil && strings.TrimSpace(string(b)) != "0"
}
