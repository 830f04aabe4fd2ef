package tracer

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/modtrace/modtrace/cause"
	"github.com/modtrace/modtrace/unload"
)

// lookAt adds what can be seen of a blocker while it blocks: what it is doing,
// and for a file, who is at it. That takes CAP_SYS_ADMIN (proc(5),
// /proc/pid/stack); what cannot be seen stays unsaid.
func lookAt(b *unload.Blocker) {
	switch {
	case b.PID != 0:
		b.Stack = stackOf(b.PID)
	case b.Kind == unload.KindFile && b.Detail != "":
		eachProcess(func(pid int) bool {
			stack := stackOf(pid)
			file := openFile(pid, b.Detail)
			if file == "" || !slices.ContainsFunc(stack, inKernfs) {
				return true
			}
			b.PID, b.Comm, b.Detail, b.Stack = pid, commOf(pid), file, stack
			return false
		})
	}
}

// inKernfs says that a task is in an operation on a file of sysfs
// (fs/kernfs/file.c, fs/sysfs/file.c).
func inKernfs(frame string) bool {
	f := cause.Function(frame)
	return strings.HasPrefix(f, "kernfs_") || strings.HasPrefix(f, "sysfs_")
}

// eachProcess calls f with each process until it returns false.
func eachProcess(f func(pid int) bool) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return
	}
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && !f(pid) {
			return
		}
	}
}

// stackOf is what a sleeping task is doing in the kernel, less how it sleeps.
func stackOf(pid int) []string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stack", pid))
	if err != nil {
		return nil
	}
	var stack []string
	for line := range strings.Lines(string(b)) {
		if _, text, ok := strings.Cut(strings.TrimSpace(line), "] "); ok {
			stack = append(stack, frame(text))
		}
	}
	return stack
}

func commOf(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// openFile finds an open file of a process by the last part of its path.
func openFile(pid int, name string) string {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return ""
	}
	for _, e := range entries {
		path, err := os.Readlink(filepath.Join(dir, e.Name()))
		path = strings.TrimSuffix(path, " (deleted)") // that is what the unload waits to do
		if err == nil && filepath.Base(path) == name {
			return path
		}
	}
	return ""
}
