// SPDX-License-Identifier: MIT

package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/modtrace/modtrace/test/bench/figure"
	"github.com/modtrace/modtrace/test/lab"
)

// subject is the module that is unloaded.
const subject = "empty"

// settle is how long a tracer is given to read what an unload left it. An idle
// machine's clock jumps, so waiting costs nothing.
const settle = 50 * time.Millisecond

// rounds loads and unloads the subject. Thread time and machine time are taken
// in rounds of their own, because what the one needs spoils the other.
func (b *bench) rounds() (onCPU, machine figure.Spread, err error) {
	if onCPU, err = b.repeat(threadTime); err != nil {
		return
	}
	machine, err = b.repeat(machineTime)
	return
}

func (b *bench) repeat(unload func() (int64, error)) (figure.Spread, error) {
	ko, err := os.ReadFile("/fixtures/" + subject + ".ko")
	if err != nil {
		return figure.Spread{}, err
	}
	var values []int64
	for i := range b.report.Warmup + b.report.Rounds {
		if err := unix.InitModule(ko, ""); err != nil {
			return figure.Spread{}, fmt.Errorf("loading %s: %w", subject, err)
		}
		// Loading leaves work behind that would fall into the unload. The
		// unloads are spread over the kernel's tick, lest all or none meet it.
		rest(settle + time.Duration(i)*spread%tick)
		v, err := unload()
		if err != nil {
			return figure.Spread{}, fmt.Errorf("unloading %s: %w", subject, err)
		}
		if i >= b.report.Warmup {
			values = append(values, v)
		}
	}
	return figure.Of(values), nil
}

const (
	tick   = 4 * time.Millisecond
	spread = 173 * time.Microsecond
)

// rest sleeps without telling Go's scheduler: it wakes up with every goroutine,
// looks around again some microseconds later, and gets in the unload's way.
func rest(d time.Duration) {
	wait := unix.NsecToTimespec(int64(d))
	unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&wait)), 0, 0)
}

// threadTime unloads the subject and says how long this thread ran meanwhile.
// The calls are raw: the scheduler's own book-keeping around an ordinary system
// call would be a hundredth of the result.
func threadTime() (int64, error) {
	var before, after unix.Timespec
	name := []byte(subject + "\x00")
	clock := uintptr(unix.CLOCK_THREAD_CPUTIME_ID)
	unix.RawSyscall(unix.SYS_CLOCK_GETTIME, clock, uintptr(unsafe.Pointer(&before)), 0)
	_, _, errno := unix.RawSyscall(unix.SYS_DELETE_MODULE, uintptr(unsafe.Pointer(&name[0])), unix.O_NONBLOCK, 0)
	unix.RawSyscall(unix.SYS_CLOCK_GETTIME, clock, uintptr(unsafe.Pointer(&after)), 0)
	if errno != 0 {
		return 0, errno
	}
	return after.Nano() - before.Nano(), nil
}

// machineTime unloads the subject and says how long the machine was busy until
// its tracer had time to read. The calls are ordinary ones: in a raw one Go's
// scheduler looks every ten milliseconds whether the thread is stuck.
func machineTime() (int64, error) {
	idleBefore, err := idle()
	if err != nil {
		return 0, err
	}
	before := monotonic()
	if err := unix.DeleteModule(subject, unix.O_NONBLOCK); err != nil {
		return 0, err
	}
	wait := unix.NsecToTimespec(int64(settle))
	if err := unix.Nanosleep(&wait, nil); err != nil {
		return 0, err
	}
	after := monotonic()
	idleAfter, err := idle()
	if err != nil {
		return 0, err
	}
	return (after - before) - (idleAfter - idleBefore), nil
}

func monotonic() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return ts.Nano()
}

// idle is how long the machine's one processor was idle since boot. What
// /proc/stat has is rounded to a tick.
func idle() (int64, error) {
	b, err := os.ReadFile("/proc/timer_list")
	if err != nil {
		return 0, err
	}
	const field = ".idle_sleeptime"
	for line := range bytes.Lines(b) {
		f := bytes.Fields(line)
		if len(f) == 4 && string(f[0]) == field {
			return strconv.ParseInt(string(f[2]), 10, 64)
		}
	}
	return 0, fmt.Errorf("/proc/timer_list has no %s", field)
}

// load loads copies of a fixture, each under a name of its own.
func (b *bench) load(n int) error {
	const original, digits = "many00", "0123456789abcdefghijklmnopqrstuvwxyz"
	ko, err := os.ReadFile("/fixtures/" + original + ".ko")
	if err != nil {
		return err
	}
	for ; b.modules < n; b.modules++ {
		i := b.modules
		name := "many" + string([]byte{digits[i/len(digits)], digits[i%len(digits)]})
		renamed, err := lab.RenameModule(ko, original, name)
		if err != nil {
			return err
		}
		if err := unix.InitModule(renamed, ""); err != nil {
			return fmt.Errorf("loading %s: %w", name, err)
		}
	}
	return nil
}
