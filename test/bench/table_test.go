// SPDX-License-Identifier: MIT

package bench

import (
	"strings"
	"testing"

	"github.com/modtrace/modtrace/test/bench/figure"
)

func TestTable(t *testing.T) {
	us := func(n int64) figure.Spread { return figure.Of([]int64{n * 1000}) }
	r := &figure.Report{
		Series: "amd64-6.12", Kernel: "6.12.1-amd64", Rounds: 100, Warmup: 10,
		Versions: map[string]string{"modtrace": "modtrace v1", "bpftrace": "bpftrace v2", "trace-cmd": "trace-cmd 3"},
		Costs: []figure.Cost{
			{Tracer: figure.None, OnCPU: us(80), Machine: us(200)},
			{Tracer: figure.Modtrace, OnCPU: us(84), Machine: us(300)},
			{Tracer: figure.BpftraceFentry, Error: strings.Repeat("no such probe ", 20)},
			{Tracer: figure.Modtrace, Modules: 200, OnCPU: us(85), Machine: us(301)},
			{Tracer: figure.FunctionGraph, OnCPU: us(2_377), Machine: us(95_125)},
		},
		Starts: []figure.Start{
			{Tracer: figure.Modtrace, Cold: true, Ready: 250_000_000, Peak: 20480},
			{Tracer: figure.BpftraceFentry, Error: strings.Repeat("no such probe ", 20)},
		},
	}
	r.References = []figure.Reference{{Tracer: figure.RefsWatched, Time: 400.25}, {Tracer: figure.RefsOther, Time: 100}}
	r.Whys = []figure.Why{{Files: 100_000, Modules: 200, CPU: 470_000_000}}
	var b strings.Builder
	if err := Table(&b, r); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(b.String()) {
		if n := len(strings.TrimSuffix(line, "\n")); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	for _, want := range []string{"6.12.1-amd64", "100 rounds", "1.050x", "1.500x", "modtrace +200", "not measured: no such probe", "cold        250         20.0", "bpftrace v2", "modtrace refs                             400.2", "refs of another", "modtrace why, 200 modules loaded", "100000          470"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, &b)
		}
	}
}

// TestTableOfReferences prints them when nothing else was measured.
func TestTableOfReferences(t *testing.T) {
	var b strings.Builder
	r := &figure.Report{References: []figure.Reference{{Tracer: figure.RefsRaw, Time: 800}}}
	if err := Table(&b, r); err != nil || strings.Count(b.String(), "\n") != 2 || !strings.Contains(b.String(), "800.0") {
		t.Errorf("%v\n%s", err, &b)
	}
}

func TestSpread(t *testing.T) {
	got := figure.Of([]int64{9, 1, 2, 4})
	if want := (figure.Spread{Median: 3, Mean: 4, Min: 1, Max: 9}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}
