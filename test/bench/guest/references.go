// SPDX-License-Identifier: MIT

package main

import (
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/modtrace/modtrace/test/bench/figure"
	"github.com/modtrace/modtrace/test/lab/inguest"
)

// opens is how often a device is opened and closed, each of which takes a reference
// on its module and drops it.
const opens = 2000

// references measures what a reference taken or dropped costs more under modtrace
// refs: on the module that is watched, stacks and all, and on others.
func (b *bench) references() error {
	if err := inguest.LoadFile("/fixtures/busy.ko"); err != nil {
		return err
	}
	err := b.measureReferences()
	if err != nil {
		return err
	}
	return inguest.Unload("busy")
}

func (b *bench) measureReferences() error {
	unwatched, err := openTime()
	if err != nil {
		return err
	}
	for _, r := range []struct {
		name string
		args []string
	}{
		{figure.RefsWatched, []string{"busy"}},
		{figure.RefsRaw, []string{"--raw", "busy"}},
		{figure.RefsOther, []string{"leak"}},
	} {
		ready := inScratch("modtrace.ready")
		t := tracer{
			name: r.name, idle: true,
			args:  append([]string{"/usr/bin/modtrace", "refs", "--json", "--ready-file", ready}, r.args...),
			ready: func() bool { _, err := os.Stat(ready); return err == nil },
			saw:   func() (int, error) { return 0, nil },
		}
		_, err := b.start(t, false, func() error {
			watched, err := openTime()
			if err != nil {
				return err
			}
			b.report.References = append(b.report.References, figure.Reference{Tracer: r.name, Time: (watched - unwatched) / 2})
			return nil
		})
		if err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
	}
	return nil
}

// openTime is the time that it takes to open a device and to close it, in ns: above
// all other tasks, so that nobody else runs meanwhile.
func openTime() (float64, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := raise(1, 0); err != nil {
		return 0, err
	}
	path := append([]byte("/dev/busy"), 0)
	var times []int64
	for range repeats {
		began := monotonic()
		for range opens {
			fd, _, errno := unix.RawSyscall6(unix.SYS_OPENAT, 0, uintptr(unsafe.Pointer(&path[0])), unix.O_RDWR, 0, 0, 0)
			if errno != 0 {
				return 0, fmt.Errorf("opening /dev/busy: %w", errno)
			}
			if _, _, errno := unix.RawSyscall(unix.SYS_CLOSE, fd, 0, 0); errno != 0 {
				return 0, fmt.Errorf("closing /dev/busy: %w", errno)
			}
		}
		times = append(times, monotonic()-began)
	}
	return float64(figure.Of(times).Median) / opens, raise(0, 0)
}
