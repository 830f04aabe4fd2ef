package ledger

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/modtrace/modtrace/procfs"
)

// module is what the kernel tells everybody of a module.
type module struct {
	state    string // "" when it is not loaded
	refcount int64
}

// readModule reads what /sys/module says (kernel/module/sysfs.c). A module that comes
// or goes in that moment is not loaded.
func readModule(name string) (m module) {
	dir := filepath.Join("/sys/module", name)
	state, err := os.ReadFile(filepath.Join(dir, "initstate"))
	if err != nil {
		return module{}
	}
	count, err := os.ReadFile(filepath.Join(dir, "refcnt"))
	if err != nil {
		return module{}
	}
	m.state = strings.TrimSpace(string(state))
	m.refcount, _ = strconv.ParseInt(strings.TrimSpace(string(count)), 10, 64)
	m.refcount = max(m.refcount, 0) // -1 while it goes
	return m
}

// exists says whether there is a process; 0 is the idle task, which always is.
func exists(pid int) bool {
	_, err := os.Stat(fmt.Sprintf("/proc/%d", pid))
	return err == nil || pid == 0
}

// process gives the name that a process has now, which it may have changed since it
// took a reference. gone says that it has ended; its number may be another's by now.
func process(pid int, seen time.Time) (comm string, gone bool) {
	if pid == 0 {
		return "", false
	}
	stat, err := procfs.ReadStat(procfs.Task(pid))
	if err != nil || stat.Start().After(seen.Add(time.Second)) {
		return "", true
	}
	return stat.Comm, false
}

// monotonic is the clock that the kernel side stamps with, in ns.
func monotonic() uint64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0
	}
	return uint64(ts.Nano())
}

// clock turns the kernel side's stamps into the time of day. One is used for all that
// belongs together, so that what came first is first.
type clock struct {
	wall      time.Time
	monotonic uint64
}

func newClock() clock { return clock{time.Now().UTC(), monotonic()} }

func (c clock) of(ns uint64) time.Time {
	return c.wall.Add(-time.Duration(c.monotonic - ns))
}

func text(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}
