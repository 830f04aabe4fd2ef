package output

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/modtrace/modtrace/stats"
	"github.com/modtrace/modtrace/test/recorded"
	"github.com/modtrace/modtrace/unload"
)

// sum is a summary, with a name.
type sum struct {
	name string
	unload.Summary
}

// counted makes statistics of records.
func counted(t testing.TB, records ...any) *stats.Stats {
	t.Helper()
	s, err := stats.New()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		switch v := r.(type) {
		case unload.Header:
			s.Header(&v)
		case unload.Unload:
			s.Add(&v)
		case unload.Stall:
			s.Stall(&v)
		case unload.Reload:
			s.Reload(&v)
		case unload.Trailer:
			s.Trailer(&v)
		default:
			t.Fatalf("%T", r)
		}
	}
	return s
}

// countedRecordings reads every recording of real kernels.
func countedRecordings(t testing.TB) *stats.Stats {
	t.Helper()
	s := counted(t)
	for _, name := range recorded.Files(t) {
		records, _ := recorded.Read(t, name)
		for _, record := range records {
			s.Take(record)
		}
	}
	return s
}

// fleet is some hours of a machine whose drivers are tested.
func fleet(t testing.TB) *stats.Stats {
	head := unload.Header{Host: "ci-3", Kernel: "6.12.48+deb13-amd64"}
	records := []any{head}
	for i := range 1200 {
		u := attempt([]string{"e1000e", "mlx5_core", "snd_hda_intel", "tun", "nvme"}[i%5], phases(map[unload.PhaseName][2]int64{
			unload.Exit: {int64(1e4 + i%37*100), 2000}, unload.FreeUnlink: {90, int64(12e3 + i%11*1000)}}))
		u.Start = dawn.Add(time.Duration(i) * 24 * time.Second)
		if i == 601 {
			u.Phases[2].Duration, u.Phases[2].OffCPU, u.Phases[2].OnCPU = 12.2e9, 12.1e9, 1e8
			u.Phases[2].Waits = []unload.Wait{{Cause: unload.CauseWorkqueue, Count: 1, Duration: 12.1e9,
				Blocker: unload.Blocker{Kind: unload.KindWork, Function: "mlx5_health_work", Module: "mlx5_core", Comm: "kworker/3:1", PID: 77}}}
			u.Duration += 12.2e9
		}
		records = append(records, u)
	}
	for i := range 24 {
		why := unload.ReasonReferenced
		if i%6 == 0 {
			why = unload.ReasonDependents
		}
		u := refusal("EAGAIN", why, nil)
		u.Module, u.Start = "tun", dawn.Add(time.Duration(i)*time.Minute)
		records = append(records, u)
	}
	hung := attempt("fuse", phases(map[unload.PhaseName][2]int64{unload.Exit: {100, 2e6}})[:3])
	hung.Outcome, hung.Result, hung.Start = unload.InFlight, unload.Result{}, dawn
	records = append(records, unload.Stall{Unload: hung}, hung, unload.Reload{Module: "tun"})
	return counted(t, append(records, unload.Trailer{LostEvents: map[string]int64{"wait": 3}})...)
}

func sums(t testing.TB) []sum {
	hostile := counted(t, unload.Header{Host: nasty, Kernel: nasty})
	for i := range 40 {
		u := scramble(nasty+fmt.Sprint(i), []int64{math.MaxInt64, math.MinInt64, 5e6}[i%3], uint(i))
		hostile.Add(&u)
	}
	hostile.Trailer(&unload.Trailer{LostEvents: map[string]int64{nasty: math.MaxInt64}, MissedProbes: math.MaxInt64})
	one := attempt("tun", phases(map[unload.PhaseName][2]int64{unload.Exit: {100, 30e3}}))
	no := refusal("EAGAIN", unload.ReasonReferenced, nil)
	hung := attempt("fuse", phases(nil)[:3])
	hung.Result, hung.Outcome = unload.Result{}, unload.InFlight
	return []sum{
		{"summary", fleet(t).Summary()},
		{"summary-recorded", countedRecordings(t).Summary()},
		{"summary-one", counted(t, unload.Header{}, one, unload.Trailer{}).Summary()},
		{"summary-refused", counted(t, unload.Header{}, no, no).Summary()},
		{"summary-stalled", counted(t, unload.Stall{Unload: hung}).Summary()},
		{"summary-hostile", hostile.Summary()},
		{"summary-bare", unload.Summary{}},
	}
}

// TestSummaryInJSON reads back what was written, from one line, with every number there.
func TestSummaryInJSON(t *testing.T) {
	for _, s := range sums(t) {
		var b bytes.Buffer
		if err := SummaryJSON(&b, s.Summary); err != nil {
			t.Fatal(err)
		}
		if n := bytes.Count(b.Bytes(), []byte("\n")); n != 1 || !bytes.HasPrefix(b.Bytes(), []byte(`{"type":"summary",`)) {
			t.Errorf("%s: %d lines: %.80s", s.name, n, b.Bytes())
		}
		if bytes.Contains(b.Bytes(), []byte("null")) || bytes.IndexFunc(b.Bytes(), unprintable) >= 0 {
			t.Errorf("%s: %s", s.name, b.Bytes())
		}
		var got unload.Summary
		if err := json.Unmarshal(b.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		if s.name == "summary" && !reflect.DeepEqual(got.All.Duration, s.All.Duration) || got.All.Worst.Kind != s.All.Worst.Kind || len(got.Modules) != len(s.Modules) {
			t.Errorf("%s comes back as another one: %s", s.name, b.Bytes())
		}
	}
	var b bytes.Buffer
	if err := SummaryJSON(&b, unload.Summary{Modules: []unload.Tally{{Phases: []unload.PhaseTimes{{Waits: []unload.CauseTime{{}}}}}}}); err != nil {
		t.Fatal(err)
	}
	checkPaths(t, "summary", b.String(), `
		type captures cut_short hosts kernels first last lost_events missed_probes all.attempts
		modules.0.module modules.0.attempts modules.0.unloaded modules.0.refused modules.0.unanswered modules.0.reasons
		modules.0.stalls modules.0.reloads modules.0.lost_events modules.0.incomplete
		modules.0.duration.count modules.0.duration.min_ns modules.0.duration.max_ns modules.0.duration.p50_ns modules.0.duration.p95_ns
		modules.0.duration.total_ns modules.0.duration.exact
		modules.0.phases.0.name modules.0.phases.0.merged modules.0.phases.0.count modules.0.phases.0.p95_ns modules.0.phases.0.on_cpu_ns
		modules.0.phases.0.off_cpu_ns modules.0.phases.0.waits.0.cause modules.0.phases.0.waits.0.count modules.0.phases.0.waits.0.duration_ns
		modules.0.worst.module modules.0.worst.start modules.0.worst.duration_ns modules.0.worst.kind modules.0.worst.reason
		modules.0.worst.phase.name modules.0.worst.phase.waits`)
}

// checkPaths wants a line to have a value at each path.
func checkPaths(t *testing.T, kind, line, paths string) {
	t.Helper()
	var record any
	if err := json.Unmarshal([]byte(line), &record); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(line, `{"type":"`+kind+`",`) || strings.Contains(line, "null") {
		t.Errorf("%s", line)
	}
	for _, path := range strings.Fields(paths) {
		if v, ok := lookUp(record, strings.Split(path, ".")); !ok || v == nil {
			t.Errorf("%s: %s is missing or null in %s", kind, path, line)
		}
	}
}
