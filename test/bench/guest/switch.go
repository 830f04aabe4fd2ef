// SPDX-License-Identifier: MIT

package main

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/modtrace/modtrace/test/bench/figure"
)

// yields is how often each of two threads gives way to the other.
const yields = 2000

// repeats is how often that is done, of which the median counts.
const repeats = 7

// switches measures what a switch of tasks costs while nothing is unloaded: with
// nobody watching, with a program that does nothing on its tracepoint, and with
// modtrace.
func (b *bench) switches(modtrace tracer) error {
	if err := b.measureSwitches(figure.None, func(measure func() error) error { return measure() }); err != nil {
		return err
	}
	if err := b.measureSwitches(figure.Empty, withEmptyProgram); err != nil {
		return err
	}
	modtrace.idle = true
	return b.measureSwitches(figure.Modtrace, func(measure func() error) error {
		_, err := b.start(modtrace, false, measure)
		return err
	})
}

func (b *bench) measureSwitches(name string, under func(func() error) error) error {
	return under(func() error {
		// Now and then something else runs meanwhile.
		var times []int64
		for range repeats {
			ps, err := switchTime()
			if err != nil {
				return err
			}
			times = append(times, ps)
		}
		b.report.Switches = append(b.report.Switches, figure.Switch{Tracer: name, Time: float64(figure.Of(times).Median) / 1000})
		return nil
	})
}

// withEmptyProgram does something while a program that does nothing is called at
// each switch of tasks.
func withEmptyProgram(do func() error) error {
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name:         "empty",
		Type:         ebpf.Tracing,
		AttachType:   ebpf.AttachTraceRawTp,
		AttachTo:     "sched_switch",
		License:      "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		return err
	}
	defer prog.Close()
	l, err := link.AttachTracing(link.TracingOptions{Program: prog})
	if err != nil {
		return err
	}
	return errors.Join(do(), l.Close())
}

// switchTime is the time that a switch of tasks takes, in ps: two threads above
// all others give way to each other on the machine's one processor.
func switchTime() (int64, error) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(3))
	var threads [2]struct {
		id           int
		began, ended int64
	}
	var there, begun atomic.Int32
	var done sync.WaitGroup
	for i := range threads {
		done.Go(func() {
			runtime.LockOSThread() // for good: the thread ends with its rank
			t := &threads[i]
			t.id = unix.Gettid()
			there.Add(1)
			for begun.Load() == 0 {
				giveWay()
			}
			t.began = monotonic()
			for range yields {
				giveWay()
			}
			t.ended = monotonic()
		})
	}
	for there.Load() < 2 {
		giveWay()
	}
	err := raise(2, 0)
	for _, t := range threads {
		err = errors.Join(err, raise(1, t.id))
	}
	begun.Store(1)
	err = errors.Join(err, raise(0, 0))
	done.Wait()
	first, second := threads[0], threads[1]
	if first.began > second.ended || second.began > first.ended {
		err = errors.Join(err, fmt.Errorf("the threads did not take turns: %+v", threads))
	}
	return (max(first.ended, second.ended) - min(first.began, second.began)) * 1000 / (2 * yields), err
}

func giveWay() { unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0) }

// raise puts a thread, 0 for this one, above all that have a lower rank; 0 is
// everybody's.
func raise(rank uint32, thread int) error {
	a := &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: rank}
	if rank == 0 {
		a.Policy = unix.SCHED_NORMAL
	}
	return unix.SchedSetAttr(thread, a, 0)
}
