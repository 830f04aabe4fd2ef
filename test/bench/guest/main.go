// SPDX-License-Identifier: MIT

// Guest is the part of the benchmark that runs in the machine: it loads and
// unloads a module over and over, with one tracer after the other watching.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/modtrace/modtrace/test/bench/figure"
)

// manyModules is how many modules are loaded to see whether their number
// matters.
const manyModules = 200

// coldAfter is when a machine counts as booted. Idle time is free.
const coldAfter = 20 * time.Second

func main() {
	b := &bench{}
	flag.IntVar(&b.report.Rounds, "rounds", 100, "rounds to measure")
	flag.IntVar(&b.report.Warmup, "warmup", 10, "rounds before those")
	flag.StringVar(&b.only, "only", "", "measure only references or why")
	flag.Parse()
	// The clock counts every instruction of the machine: a collector that runs
	// now and then would be in some figures and not in others.
	debug.SetGCPercent(-1)
	// Thread time is that of one thread.
	runtime.LockOSThread()
	if err := b.run(); err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
	if err := json.NewEncoder(os.Stdout).Encode(b.report); err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

type bench struct {
	report  figure.Report
	plan    []boundary // where modtrace attached
	modules int        // loaded now, beside the one that is unloaded

	only string // what is measured, or all
}

func (b *bench) run() error {
	if err := os.MkdirAll(scratch, 0o700); err != nil {
		return err
	}
	switch b.only {
	case "references":
		time.Sleep(coldAfter)
		return b.references()
	case "why":
		time.Sleep(coldAfter)
		return errors.Join(b.load(manyModules), b.whys())
	}
	if err := b.cold(); err != nil {
		return err
	}
	tracers, err := b.tracers()
	if err != nil {
		return err
	}
	for _, t := range tracers {
		b.measure(t)
	}
	// The first again: what changed between the two is drift, not a tracer.
	b.measure(tracers[0])
	if err := b.programs(tracers[1]); err != nil {
		return err
	}
	if err := b.switches(tracers[1]); err != nil {
		return fmt.Errorf("measuring switches of tasks: %w", err)
	}
	if err := b.references(); err != nil {
		return fmt.Errorf("measuring references: %w", err)
	}
	if err := b.load(manyModules); err != nil {
		return err
	}
	b.measure(tracers[0])
	b.measure(tracers[1])
	b.versions()
	if err := b.whys(); err != nil {
		return fmt.Errorf("measuring why: %w", err)
	}
	return nil
}

// cold starts each tool for the first time in this boot.
func (b *bench) cold() error {
	// A machine that has just booted is busy with that for a while.
	time.Sleep(coldAfter)
	first := modtraceJSON()
	s, _ := b.start(first, true)
	if s.Error != "" {
		return fmt.Errorf("starting modtrace: %s", s.Error)
	}
	b.report.Starts = append(b.report.Starts, s)
	tracers, err := b.tracers()
	if err != nil {
		return err
	}
	s, _ = b.start(tracers[3], true)
	b.report.Starts = append(b.report.Starts, s)
	return nil
}

// measure runs the rounds under a tracer. A tracer that does not work on this
// kernel gives a line that says so, not the end of the benchmark.
func (b *bench) measure(t tracer) {
	fmt.Fprintf(os.Stderr, "bench: %s, %d more modules\n", t.name, b.modules)
	c := figure.Cost{Tracer: t.name, Modules: b.modules}
	s, err := b.start(t, false, func() (err error) {
		c.OnCPU, c.Machine, err = b.rounds()
		return err
	})
	if err != nil {
		c.Error = err.Error()
	}
	b.report.Costs = append(b.report.Costs, c)
	if t.name != figure.None {
		b.report.Starts = append(b.report.Starts, s)
	}
}
