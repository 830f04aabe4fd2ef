package tracer

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/modtrace/modtrace/procfs"
	"github.com/modtrace/modtrace/symbols"
)

// procTasks is what /proc says of all tasks. That takes CAP_SYS_ADMIN (proc(5),
// /proc/pid/stack); what cannot be seen stays unsaid.
func procTasks() []task { return withMissing(nil) }

// withMissing adds the tasks that a list lacks. The iterator of 5.10 leaves some out
// when there are more than fit its buffer.
func withMissing(list []task) []task {
	known := map[int]bool{}
	for _, t := range list {
		known[t.tid] = true
	}
	dirs, _ := filepath.Glob("/proc/[0-9]*/task/[0-9]*") // the pattern is not malformed
	for _, dir := range dirs {
		parts := strings.Split(dir, "/")
		t := task{call: -1}
		t.pid, _ = strconv.Atoi(parts[2])
		t.tid, _ = strconv.Atoi(parts[4])
		if known[t.tid] {
			continue
		}
		stat, err := procfs.ReadStat(procfs.Task(t.tid))
		if err != nil || stat.Ended() {
			continue
		}
		t.comm = stat.Comm
		t.asleep, t.interruptible = stat.State != "R", stat.State == "S"
		t.stack = stackOf(t.tid)
		t.call, t.arguments = callOf(t.tid)
		list = append(list, t)
	}
	return list
}

// stackOf is what a sleeping task is doing in the kernel, less how it sleeps.
func stackOf(tid int) []string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stack", tid))
	if err != nil {
		return nil
	}
	var stack []string
	for line := range strings.Lines(string(b)) {
		if _, text, ok := strings.Cut(strings.TrimSpace(line), "] "); ok {
			stack = append(stack, symbols.Frame(text))
		}
	}
	return stack
}

// callOf is the system call that a task sleeps in, -1 if it does not or if that
// cannot be told (proc(5), /proc/pid/syscall).
func callOf(tid int) (number int64, arguments [2]uint64) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/syscall", tid))
	if err != nil {
		return -1, arguments
	}
	if _, err := fmt.Sscan(string(b), &number, &arguments[0], &arguments[1]); err != nil {
		return -1, arguments
	}
	return number, arguments
}

// argumentText reads a string that a task has handed to the kernel.
func argumentText(tid int, address uint64) string {
	f, err := os.Open(fmt.Sprintf("/proc/%d/mem", tid))
	if err != nil {
		return ""
	}
	defer f.Close()
	const longest = 64 // include/linux/module.h, MODULE_NAME_LEN
	b := make([]byte, longest)
	n, _ := f.ReadAt(b, int64(address)) // fewer bytes before a page that is not there
	name, _, ended := bytes.Cut(b[:n], []byte{0})
	if !ended {
		return ""
	}
	return string(name)
}

// sysfsFile is the file of sysfs that a task is reading or writing, "" if that
// cannot be told.
func sysfsFile(t *task) string {
	call, arguments := callOf(t.tid)
	fd := arguments[0]
	switch {
	case call == unix.SYS_SENDFILE:
		fd = arguments[1]
	case !slices.Contains([]int64{
		unix.SYS_READ, unix.SYS_WRITE, unix.SYS_PREAD64, unix.SYS_PWRITE64, unix.SYS_READV,
		unix.SYS_WRITEV, unix.SYS_PREADV, unix.SYS_PWRITEV, unix.SYS_SPLICE,
	}, call):
		return ""
	}
	link := fmt.Sprintf("/proc/%d/fd/%d", t.tid, fd)
	var fs unix.Statfs_t
	if err := unix.Statfs(link, &fs); err != nil || fs.Type != unix.SYSFS_MAGIC {
		return ""
	}
	path, err := os.Readlink(link)
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(path, " (deleted)") // that is what the unload waits to do
}

// moduleStates is the state of each module, from sysfs: who reads /proc/modules
// waits for module_mutex, which an unload that hangs may hold (kernel/module/
// procfs.c, m_start).
func moduleStates() map[string]string {
	states := map[string]string{}
	files, _ := filepath.Glob("/sys/module/*/initstate") // the pattern is not malformed
	for _, file := range files {
		if b, err := os.ReadFile(file); err == nil {
			states[filepath.Base(filepath.Dir(file))] = strings.TrimSpace(string(b))
		}
	}
	return states
}

// going is the state of a module whose unload has been decided
// (kernel/module/sysfs.c, show_initstate).
const going = "going"
