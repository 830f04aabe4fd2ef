package output

import (
	"bytes"
	"encoding/json"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/modtrace/modtrace/diff"
	"github.com/modtrace/modtrace/stats"
	"github.com/modtrace/modtrace/unload"
)

// difference is a comparison, with a name.
type difference struct {
	name string
	unload.Diff
}

// driven is what a driver's tests leave behind: n unloads of each of some modules, e1000e's
// exit so many times as slow.
func driven(t testing.TB, seed uint64, n int, slower float64) *stats.Stats {
	r := rand.New(rand.NewPCG(seed, 1))
	records := []any{unload.Header{Host: "ci-3", Kernel: "6.12.48+deb13-amd64"}}
	for range n {
		for _, m := range []string{"e1000e", "mlx5_core", "tun"} {
			by := func(us, spread float64) int64 { return int64(us * math.Max(0.1, 1+spread*r.NormFloat64())) }
			exit := by(120e3, 0.1)
			if m == "e1000e" {
				exit = int64(float64(exit) * slower)
			}
			u := attempt(m, phases(map[unload.PhaseName][2]int64{unload.Exit: {exit / 10, exit - exit/10}, unload.FreeUnlink: {90, by(14e3, 0.1)}}))
			u.Start = dawn
			records = append(records, u)
		}
	}
	return counted(t, append(records, unload.Trailer{})...)
}

func differences(t testing.TB) []difference {
	compare := func(a, b *stats.Stats) unload.Diff { return diff.Compare(a, b, diff.Options{}) }
	worse := driven(t, 2, 38, 2.83)
	for range 30 {
		no := refusal("EAGAIN", unload.ReasonReferenced, nil)
		no.Module = "tun"
		worse.Add(&no)
	}
	rare := refusal("EAGAIN", unload.ReasonReferenced, nil)
	rare.Module = "mlx5_core"
	worse.Add(&rare)
	added := attempt("fuse", phases(nil))
	worse.Add(&added)
	merged := attempt("tun", phases(nil))
	merged.Phases[2].Merged = []unload.PhaseName{unload.Notify}
	worse.Add(&merged)
	hostile := unload.Change{Module: nasty, Phase: nasty, Merged: []unload.PhaseName{nasty}, Kind: nasty, Reason: nasty, Verdict: nasty,
		Old:   unload.Measured{Count: -1, Failed: math.MaxInt64, P50: math.MinInt64, P95: math.MaxInt64},
		New:   unload.Measured{Count: math.MaxInt64, Failed: math.MinInt64, P50: math.MaxInt64, P95: math.MinInt64},
		Ratio: 1e300, P: -1, AdjustedP: 1e300}
	sure := hostile
	sure.Kind, sure.Verdict, sure.Reason = unload.Slower, unload.Significant, ""
	more := sure
	more.Reason, more.Kind = nasty, unload.Fails
	side := unload.Source{Attempts: -1, Hosts: []string{nasty}, Kernels: []string{nasty}}
	crowd := unload.Diff{Compared: 3000, TooFew: 2999}
	for range 60 {
		crowd.Changes = append(crowd.Changes, hostile)
	}
	crowd.Changes = append(crowd.Changes, sure, more)
	crowd.Changes[0], crowd.Changes[1] = sure, more
	crowd.Old, crowd.New, crowd.Notes, crowd.Alpha = side, side, []string{nasty}, math.MaxFloat64
	hangs := driven(t, 4, 180, 1)
	for i := range 20 {
		u := attempt("tun", phases(map[unload.PhaseName][2]int64{unload.Exit: {1e4, 3e6 + int64(i)}, unload.FreeUnlink: {90, 14e3}}))
		hangs.Add(&u)
	}
	return []difference{
		{"diff-tail", compare(driven(t, 1, 200, 1), hangs)},
		{"diff", compare(driven(t, 1, 40, 1), worse)},
		{"diff-better", compare(driven(t, 2, 38, 2.83), driven(t, 1, 40, 1))},
		{"diff-same", compare(driven(t, 1, 40, 1), driven(t, 3, 38, 1))},
		{"diff-few", compare(driven(t, 1, 2, 1), driven(t, 3, 3, 2))},
		{"diff-recorded", compare(countedRecordings(t), countedRecordings(t))},
		{"diff-none", compare(counted(t), driven(t, 1, 2, 1))},
		{"diff-bare", unload.Diff{}},
		{"diff-hostile", crowd},
	}
}

func TestDiffInJSON(t *testing.T) {
	for _, d := range differences(t) {
		var b bytes.Buffer
		if err := DiffJSON(&b, d.Diff); err != nil {
			t.Fatal(err)
		}
		if bytes.Count(b.Bytes(), []byte("\n")) != 1 || bytes.Contains(b.Bytes(), []byte("null")) || bytes.IndexFunc(b.Bytes(), unprintable) >= 0 {
			t.Errorf("%s: %s", d.name, b.Bytes())
		}
		var got unload.Diff
		if err := json.Unmarshal(b.Bytes(), &got); err != nil || len(got.Changes) != len(d.Changes) || got.Compared != d.Compared {
			t.Errorf("%s: %v", d.name, err)
		}
	}
	var b bytes.Buffer
	if err := DiffJSON(&b, unload.Diff{Changes: []unload.Change{{}}}); err != nil {
		t.Fatal(err)
	}
	checkPaths(t, "diff", b.String(), `
		type old.captures old.hosts old.kernels old.first old.last old.attempts old.unloaded new.attempts
		alpha least_relative least_absolute_ns compared too_few notes
		changes.0.module changes.0.phase changes.0.merged changes.0.kind changes.0.quantile changes.0.reason changes.0.ratio changes.0.p changes.0.p_adjusted
		changes.0.verdict changes.0.old.count changes.0.old.failed changes.0.old.min_ns changes.0.old.max_ns changes.0.old.p50_ns changes.0.new.p95_ns`)
}

// TestDiffAnswers reads the first lines.
func TestDiffAnswers(t *testing.T) {
	want := map[string]string{
		"diff": "2 regressions: tun refused (referenced) 0 of 40 → 30 of 69; e1000e exit() p50 120 ms → 335 ms (2.8x, 40 and 38 unloads); " +
			"perhaps, of too few to tell: mlx5_core refused (referenced) 0 of 40 → 1 of 39 (11 compared, 1 too few to tell)",
		"diff-better": "nothing became slower or began to fail; better: e1000e exit() p50 335 ms → 120 ms (0.36x, 38 and 40 unloads) (9 compared)",
		"diff-tail":   "1 regression: tun exit() p95 139 ms → 3.0 s (21.7x, 200 and 200 unloads) (9 compared)",
		"diff-same":   "nothing became slower or began to fail (9 compared)",
		"diff-few": "too few unloads to tell whether anything changed; perhaps, of too few to tell: " +
			"e1000e exit() p50 121 ms → 240 ms (1.98x, 2 and 3 unloads) (9 compared, 9 too few to tell)",
		"diff-none": "there is nothing to compare: no attempt was made on a module in both",
		"diff-bare": "there is nothing to compare: no attempt was made on a module in both",
	}
	for _, d := range differences(t) {
		got := screen{}.changed(d.Diff)
		if text, ok := want[d.name]; ok && got != text {
			t.Errorf("%s\n got %q\nwant %q", d.name, got, text)
		}
		delete(want, d.name)
	}
	if len(want) > 0 {
		t.Errorf("no such cases: %v", want)
	}
}
