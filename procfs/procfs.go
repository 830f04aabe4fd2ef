// Package procfs reads what /proc says of a task (proc(5)). Tasks are named by their
// directory: /proc/PID, or /proc/PID/task/TID.
package procfs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Task is the directory of a process, or of a thread by its own number.
func Task(id int) string { return "/proc/" + strconv.Itoa(id) }

// Stat is a part of what a task's stat says.
type Stat struct {
	Comm   string
	State  string // a letter
	Parent int

	started int64 // after the boot, in ticks
}

var errMalformed = errors.New("not as proc(5) has it")

// ReadStat reads a task's stat. The error is fs.ErrNotExist or ESRCH when it is gone.
func ReadStat(dir string) (Stat, error) {
	b, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return Stat{}, fmt.Errorf("reading a task's state: %w", err)
	}
	s, err := parseStat(b)
	if err != nil {
		return Stat{}, fmt.Errorf("reading %s/stat: %w", dir, err)
	}
	return s, nil
}

func parseStat(b []byte) (s Stat, err error) {
	// The name stands in parentheses and may hold some itself.
	begin, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if begin < 0 || end < begin {
		return s, errMalformed
	}
	const state, parent, started = 0, 1, 22 - 3 // behind the name
	f := strings.Fields(string(b[end+1:]))
	if len(f) <= started {
		return s, errMalformed
	}
	s.Comm, s.State = string(b[begin+1:end]), f[state]
	if s.Parent, err = strconv.Atoi(f[parent]); err != nil {
		return s, errMalformed
	}
	if s.started, err = strconv.ParseInt(f[started], 10, 64); err != nil {
		return s, errMalformed
	}
	return s, nil
}

// Ended says whether the task has ended, and only its parent does not know yet.
func (s Stat) Ended() bool { return s.State == "Z" || s.State == "X" || s.State == "x" }

// Start is when the task was started, to a hundredth of a second; the zero time when the
// clock cannot be read.
func (s Stat) Start() time.Time {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return time.Time{}
	}
	const tick = time.Second / 100 // USER_HZ
	return time.Now().Add(time.Duration(s.started)*tick - time.Duration(now.Nano())).UTC()
}

// Comm is a task's name, "" when it is gone. That of a kworker says what it works on as
// well.
func Comm(dir string) string {
	b, err := os.ReadFile(filepath.Join(dir, "comm"))
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(string(b), "\n")
}

// Cgroup is the path of a task's cgroup in the unified hierarchy, "" if it has none
// (cgroups(7)).
func Cgroup(dir string) string {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup"))
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if path, ok := strings.CutPrefix(line, "0::"); ok {
			return strings.TrimSpace(path)
		}
	}
	return ""
}
