// SPDX-License-Identifier: MIT

package bench

import (
	"bytes"
	"testing"
	"time"

	"github.com/modtrace/modtrace/test/bench/figure"
	"github.com/modtrace/modtrace/test/lab"
)

// What modtrace may cost. These are promises to users: a change that breaks one
// is to be made cheaper, not allowed.
const (
	maxOnCPU   = 1.10                   // times the unwatched unload
	maxReady   = 400 * time.Millisecond // from exec, warm
	maxPeak    = 40 * 1024              // kB
	maxModules = 1.02                   // with many modules loaded, times with few
	maxDrift   = 1.02                   // of the unwatched unload, over the boot
	maxSwitch  = 1.2                    // times what an empty program adds to a switch of tasks
	maxRef     = 700                    // ns for a reference taken or dropped, its stack and all
	maxWhy     = time.Second            // of the processor, to say who holds a module, among 100,000 open files
	many       = 200
)

// TestBudget measures modtrace in a machine and compares with the promises.
func TestBudget(t *testing.T) {
	l := lab.ForTest(t)
	r, err := Run(t.Context(), l, Options{Rounds: 30, Log: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	var table bytes.Buffer
	if err := Table(&table, r); err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s", &table)

	none, with := cost(t, r, figure.None, 0), cost(t, r, figure.Modtrace, 0)
	atMost(t, "the unload under modtrace, to the one without", with, none, maxOnCPU)
	atMost(t, "with 200 modules loaded, to few", cost(t, r, figure.Modtrace, many), with, maxModules)

	warm := r.Start(figure.Modtrace, 0, false)
	if warm == nil {
		t.Fatal("no warm start of modtrace was measured")
	}
	if ready := time.Duration(warm.Ready); ready > maxReady {
		t.Errorf("modtrace is ready after %v, more than %v", ready, maxReady)
	}
	for _, s := range r.Starts {
		if s.Tracer == figure.Modtrace && s.Peak > maxPeak {
			t.Errorf("modtrace had %d kB resident, more than %d", s.Peak, maxPeak)
		}
	}
	unwatched := r.Switch(figure.None)
	atMost(t, "what a switch of tasks costs more under modtrace, to an empty program",
		r.Switch(figure.Modtrace)-unwatched, r.Switch(figure.Empty)-unwatched, maxSwitch)
	for _, tracer := range []string{figure.RefsWatched, figure.RefsOther} {
		if ns := r.Reference(tracer); ns <= 0 || ns > maxRef {
			t.Errorf("a reference costs %.0f ns more under modtrace %s; it may be %d", ns, tracer, maxRef)
		}
	}
	whys(t, r)
	// Were the clock not steady, the ratios above would say nothing.
	var series []int64
	for _, c := range r.Costs {
		if c.Tracer == figure.None && c.Error == "" {
			series = append(series, c.OnCPU.Median)
		}
	}
	if len(series) < 3 {
		t.Fatalf("the unwatched unload was measured %d times, want 3: first, last, and with many modules", len(series))
	}
	s := figure.Of(series)
	atMost(t, "the slowest series of unwatched unloads, to the fastest", float64(s.Max), float64(s.Min), maxDrift)
}

// whys compares what it takes to say who holds a module with the promises: it is in
// proportion to the open files.
func whys(t *testing.T, r *figure.Report) {
	t.Helper()
	for _, explained := range []bool{true, false} {
		few, some, most := r.Why(1000, explained), r.Why(10_000, explained), r.Why(100_000, explained)
		if few == nil || some == nil || most == nil {
			t.Fatalf("why was not measured: %+v", r.Whys)
		}
		if cpu := time.Duration(most.CPU); cpu <= 0 || cpu > maxWhy || most.Modules != many {
			t.Errorf("why takes %v among 100,000 open files and %d modules, more than %v", cpu, most.Modules, maxWhy)
		}
		// What does not come of files is some milliseconds more or less from run to run.
		const noise = 20 * time.Millisecond
		if step, next := some.CPU-few.CPU, most.CPU-some.CPU; next > 10*(step+int64(noise)) {
			t.Errorf("why takes %v more for 90,000 more files, %v for 9,000", time.Duration(next), time.Duration(step))
		}
	}
}

func cost(t *testing.T, r *figure.Report, tracer string, modules int) float64 {
	t.Helper()
	c := r.Cost(tracer, modules)
	if c == nil {
		t.Fatalf("%s with %d modules was not measured: %+v", tracer, modules, r.Costs)
	}
	return float64(c.OnCPU.Median)
}

func atMost(t *testing.T, what string, a, b, bound float64) {
	t.Helper()
	if b <= 0 || a <= 0 {
		t.Errorf("%s: %v ns and %v ns are no measurements", what, a, b)
	} else if a/b > bound {
		t.Errorf("%s: %.4f, more than %.2f", what, a/b, bound)
	}
}
