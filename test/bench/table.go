// SPDX-License-Identifier: MIT

package bench

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/modtrace/modtrace/test/bench/figure"
)

// Table prints a report for people, at most 80 columns wide.
func Table(w io.Writer, r *figure.Report) error {
	t := &table{}
	if len(r.Costs) == 0 { // only one of these was measured
		t.references(r)
		t.whys(r)
		_, err := io.WriteString(w, t.b.String())
		return err
	}
	t.line("Unloading a module that does nothing: Linux %s, %s,", r.Kernel, r.Series)
	t.line("one boot, instruction-counted time, %d rounds each after %d to warm up;", r.Rounds, r.Warmup)
	t.line("+200: with so many other modules loaded.")
	t.line("")
	t.costs(r)
	t.line("")
	t.starts(r)
	t.line("")
	t.switches(r)
	t.line("")
	t.references(r)
	t.line("")
	t.whys(r)
	t.line("")
	for _, program := range []string{"modtrace", "bpftrace", "trace-cmd"} {
		t.line("%-9s  %s", program, r.Versions[program])
	}
	_, err := io.WriteString(w, t.b.String())
	return err
}

type table struct{ b strings.Builder }

func (t *table) line(format string, args ...any) {
	t.b.WriteString(strings.TrimRight(fmt.Sprintf(format, args...), " "))
	t.b.WriteByte('\n')
}

// costs prints ratios to what the same unload costs unwatched.
func (t *table) costs(r *figure.Report) {
	none := r.Cost(figure.None, 0)
	if none == nil {
		t.line("the unload without a tracer could not be measured")
		return
	}
	const row = "%-23s %7s %8s  %16s  %8s %8s"
	t.line(row, "", "", "on-CPU", "", "machine", "")
	t.line(row, "tracer", "us", "ratio", "min..max", "us", "ratio")
	for _, c := range r.Costs {
		if c.Error != "" {
			t.failed(named(c.Tracer, c.Modules), c.Error)
			continue
		}
		t.line(row, named(c.Tracer, c.Modules),
			micros(c.OnCPU.Median), ratio(c.OnCPU.Median, none.OnCPU.Median),
			micros(c.OnCPU.Min)+".."+micros(c.OnCPU.Max),
			micros(c.Machine.Median), ratio(c.Machine.Median, none.Machine.Median))
	}
	t.line("")
	t.line("on-CPU is the unloading thread's time, machine all that was not idle from the")
	t.line("system call's beginning until 50 ms after its end, when the tracer has read;")
	t.line("medians, and min..max. modtrace runs with --json, modtrace-table without.")
}

// starts prints how long each tracer takes until it sees unloads.
func (t *table) starts(r *figure.Report) {
	const row = "%-23s %7s %10s %12s"
	t.line(row, "tracer", "start", "ready ms", "resident MB")
	for _, s := range r.Starts {
		if s.Error != "" {
			t.failed(named(s.Tracer, s.Modules), s.Error)
			continue
		}
		start := "warm"
		if s.Cold {
			start = "cold"
		}
		t.line(row, named(s.Tracer, s.Modules), start,
			fmt.Sprintf("%.0f", float64(s.Ready)/float64(time.Millisecond)),
			fmt.Sprintf("%.1f", float64(s.Peak)/1024))
	}
}

// switches prints what each adds to a switch of tasks, while nothing is unloaded.
func (t *table) switches(r *figure.Report) {
	const row = "%-23s %12s %12s %18s"
	none, empty := r.Switch(figure.None), r.Switch(figure.Empty)
	t.line(row, "on each switch of tasks", "ns a switch", "ns added", "to an empty one's")
	for _, s := range r.Switches {
		added := ""
		if s.Tracer != figure.None && empty > none {
			added = fmt.Sprintf("%.3fx", (s.Time-none)/(empty-none))
		}
		t.line(row, s.Tracer, fmt.Sprintf("%.1f", s.Time), fmt.Sprintf("%.1f", s.Time-none), added)
	}
}

// references prints what each adds to a reference that is taken or dropped.
func (t *table) references(r *figure.Report) {
	if len(r.References) == 0 {
		return
	}
	const row = "%-34s %12s"
	t.line(row, "on each reference taken or dropped", "ns added")
	for _, ref := range r.References {
		t.line(row, "modtrace "+ref.Tracer, fmt.Sprintf("%.1f", ref.Time))
	}
}

// whys prints what it takes to say who holds a module.
func (t *table) whys(r *figure.Report) {
	if len(r.Whys) == 0 {
		return
	}
	const row = "%-34s %12s %12s"
	t.line(row, fmt.Sprintf("modtrace why, %d modules loaded", r.Whys[0].Modules), "open files", "CPU ms")
	for _, w := range r.Whys {
		name := "all explained"
		if !w.Explained {
			name = "unexplained, all searched"
		}
		t.line(row, name, fmt.Sprint(w.Files), fmt.Sprintf("%.0f", float64(w.CPU)/float64(time.Millisecond)))
	}
}

// failed says in one line why there are no figures.
func (t *table) failed(name, reason string) {
	reason, _, _ = strings.Cut(reason, "\n")
	t.line("%-23s not measured: %.42s", name, reason)
}

func named(tracer string, modules int) string {
	if modules == 0 {
		return tracer
	}
	return fmt.Sprintf("%s +%d", tracer, modules)
}

func micros(ns int64) string { return fmt.Sprintf("%.1f", float64(ns)/1000) }

func ratio(a, b int64) string { return fmt.Sprintf("%.3fx", float64(a)/float64(b)) }
