package diff

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/modtrace/modtrace/stats"
	"github.com/modtrace/modtrace/unload"
)

func fresh(t testing.TB) *stats.Stats {
	t.Helper()
	s, err := stats.New()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// shape is how long the phases of an unload take, in the kernel's order.
type shape func(r *rand.Rand) []int64

// usual is 14 phases of which two take ms, each with a spread of 10%.
func usual(r *rand.Rand) []int64 {
	return spread(r, 0.1, 2e3, 8e3, 15e6, 4e3, 0, 20e3, 900, 120e3, 500, 700, 600, 14e6, 90e3, 1e3)
}

func spread(r *rand.Rand, by float64, means ...float64) []int64 {
	all := make([]int64, len(means))
	for i, m := range means {
		all[i] = int64(m * math.Max(0, 1+by*r.NormFloat64()))
	}
	return all
}

// heavy has tails so long that there is no variance: a few unloads of a capture take as
// long as all others.
func heavy(r *rand.Rand) []int64 {
	all := usual(r)
	for i := range all {
		all[i] = int64(float64(all[i]) / math.Pow(1-r.Float64(), 1/1.2))
	}
	return all
}

// graceful waits for one, two or three grace periods of a coarse clock: nearly all ties.
func graceful(r *rand.Rand) []int64 {
	return []int64{1e4, 1e4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8e6 * (1 + r.Int64N(3)), 1e5, 0}
}

func slower(by float64, of int, from shape) shape {
	return func(r *rand.Rand) []int64 {
		all := from(r)
		all[of] = int64(float64(all[of]) * by)
		return all
	}
}

// exitPhase is the place of exit among the phases.
const exitPhase = 2

func attempt(module string, phases []int64) *unload.Unload {
	u := unload.Unload{Module: module, Start: time.Unix(1e9, 0), Complete: true, Result: unload.Result{OK: true, Reason: unload.ReasonNone}}
	for i, ns := range phases {
		u.Phases = append(u.Phases, unload.Phase{Name: unload.PhaseNames()[i], Duration: ns})
		u.Duration += ns
	}
	return &u
}

func refusal(module string, why unload.Reason) *unload.Unload {
	return &unload.Unload{Module: module, Complete: true, Result: unload.Result{Errno: "EAGAIN", Reason: why, By: unload.ByKernel}}
}

func fill(s *stats.Stats, r *rand.Rand, module string, n int, of shape) {
	for range n {
		s.Add(attempt(module, of(r)))
	}
}

// certain gives the changes that are significant.
func certain(d unload.Diff) (all []unload.Change) {
	for _, c := range d.Changes {
		if c.Verdict == unload.Significant {
			all = append(all, c)
		}
	}
	return all
}

// TestNoFalseAlarms compares what comes from one distribution. An alarm in a trial is one
// for any of its modules and phases; their chance is bounded by 5%, and so is their number
// by what a chance of 5% exceeds one time in a hundred.
func TestNoFalseAlarms(t *testing.T) {
	for name, of := range map[string]shape{"usual": usual, "heavy tails": heavy, "ties": graceful} {
		for n, trials := range map[int]int{2: 1000, 5: 1000, 20: 1000, 60: 300, 200: 100} {
			if testing.Short() {
				trials /= 10
			}
			alarms := alarmed(t, rand.New(rand.NewPCG(7, uint64(n))), of, n, trials)
			t.Logf("%s, %d unloads: %d alarms in %d trials", name, n, alarms, trials)
			if most := 0.05*float64(trials) + 2.33*math.Sqrt(0.05*0.95*float64(trials)); float64(alarms) > most {
				t.Errorf("%s, %d unloads: %d false alarms in %d trials", name, n, alarms, trials)
			}
		}
	}
}

// alarmed counts the trials with a false alarm.
func alarmed(t *testing.T, r *rand.Rand, of shape, n, trials int) (alarms int) {
	for range trials {
		old, now := fresh(t), fresh(t)
		for _, m := range []string{"a", "b", "c"} {
			fill(old, r, m, n, of)
			fill(now, r, m, n+n/4, of)
		}
		if len(certain(Compare(old, now, Options{}))) > 0 {
			alarms++
		}
	}
	return alarms
}

// TestOfRanksAlone has no least effect to hide behind: by p alone the rate is what it
// should be, and not much less either where there are measurements enough.
func TestOfRanksAlone(t *testing.T) {
	const trials = 2000
	for _, n := range []int{8, 30, 100} {
		r := rand.New(rand.NewPCG(9, uint64(n)))
		hits := 0
		for range trials {
			var a, b []stats.Sample
			for range n {
				a = append(a, stats.Sample{Duration: int64(1e6 * math.Exp(r.NormFloat64())), Count: 1})
				b = append(b, stats.Sample{Duration: int64(1e6 * math.Exp(r.NormFloat64())), Count: 1})
			}
			if uTest(merge(sorted(a), sorted(b))).p <= 0.05 {
				hits++
			}
		}
		if rate := float64(hits) / trials; rate > 0.062 || rate < 0.03 {
			t.Errorf("%d measurements: %v", n, rate)
		}
	}
}

// TestSlowdownsAreFound wants a slowdown of 30% in exit to be found, by name, with 20
// unloads and a spread of 10%.
func TestSlowdownsAreFound(t *testing.T) {
	const trials = 500
	found, alone := 0, 0
	r := rand.New(rand.NewPCG(5, 5))
	for range trials {
		old, now := fresh(t), fresh(t)
		for _, m := range []string{"a", "b", "e1000e"} {
			of := shape(usual)
			fill(old, r, m, 20, of)
			if m == "e1000e" {
				of = slower(1.3, exitPhase, usual)
			}
			fill(now, r, m, 20, of)
		}
		hit, other := false, false
		for _, c := range certain(Compare(old, now, Options{})) {
			if c.Module != "e1000e" || c.Phase != "" && c.Phase != unload.Exit {
				other = true
			}
			if c.Phase == unload.Exit && c.Kind == unload.Slower && c.Ratio > 1.1 && c.Ratio < 1.5 {
				hit = true
			}
		}
		if hit {
			found++
		}
		if !other {
			alone++
		}
	}
	t.Logf("found in %d of %d trials, with nothing else in %d", found, trials, alone)
	if found < trials*95/100 || alone < trials*93/100 {
		t.Errorf("found in %d of %d trials, with nothing else in %d", found, trials, alone)
	}
}

// TestHeavyTailsHideLittle finds twice the time among tails without a variance.
func TestHeavyTailsHideLittle(t *testing.T) {
	const trials = 300
	found := 0
	r := rand.New(rand.NewPCG(6, 6))
	for range trials {
		old, now := fresh(t), fresh(t)
		fill(old, r, "a", 60, heavy)
		fill(now, r, "a", 60, slower(2.5, exitPhase, heavy))
		for _, c := range certain(Compare(old, now, Options{})) {
			if c.Phase == unload.Exit && c.Kind == unload.Slower {
				found++
			}
		}
	}
	if found < trials*95/100 {
		t.Errorf("found in %d of %d trials", found, trials)
	}
}

// TestTailsAreFound has one unload of ten hang, which leaves the median where it was.
func TestTailsAreFound(t *testing.T) {
	const trials = 100
	found, medians := 0, 0
	r := rand.New(rand.NewPCG(11, 11))
	hangs := func(r *rand.Rand) []int64 {
		all := usual(r)
		if r.IntN(10) == 0 {
			all[exitPhase] += 2e9
		}
		return all
	}
	for range trials {
		old, now := fresh(t), fresh(t)
		fill(old, r, "a", 200, usual)
		fill(now, r, "a", 200, hangs)
		for _, c := range certain(Compare(old, now, Options{})) {
			switch {
			case c.Phase == unload.Exit && c.Quantile == unload.Tail && c.Kind == unload.Slower:
				found++
			case c.Quantile == unload.Median:
				medians++
			}
		}
	}
	if found < trials*95/100 || medians > 5 {
		t.Errorf("found in %d of %d trials, and %d medians", found, trials, medians)
	}
}

// TestSketchesAreCompared has more unloads than are kept exactly, on one side or both.
func TestSketchesAreCompared(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 8))
	for _, n := range [][2]int{{5000, 5000}, {5000, 100}, {100, 5000}} {
		alarms, found := 0, 0
		const trials = 12
		for range trials {
			old, same, now := fresh(t), fresh(t), fresh(t)
			fill(old, r, "a", n[0], usual)
			fill(same, r, "a", n[1], usual)
			fill(now, r, "a", n[1], slower(1/1.3, exitPhase, usual))
			if len(certain(Compare(old, same, Options{}))) > 0 {
				alarms++
			}
			for _, c := range certain(Compare(old, now, Options{})) {
				if c.Phase == unload.Exit && c.Kind == unload.Faster {
					found++
				}
			}
		}
		if alarms > 3 || found != trials {
			t.Errorf("%v: %d alarms, %d found of %d", n, alarms, found, trials)
		}
	}
}

// TestTooFew never says that nothing changed of what cannot be told.
func TestTooFew(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	for n := 1; n <= 3; n++ {
		for _, by := range []float64{1, 50} {
			old, now := fresh(t), fresh(t)
			fill(old, r, "a", n, usual)
			fill(now, r, "a", n, slower(by, exitPhase, usual))
			d := Compare(old, now, Options{})
			if len(certain(d)) > 0 || d.TooFew == 0 {
				t.Fatalf("%d unloads: %+v", n, d)
			}
			whole := d.Changes[0]
			if whole.Verdict != unload.TooFew || whole.Old.Count != int64(n) || whole.P < 0.09 {
				t.Errorf("%d unloads: %+v", n, whole)
			}
			if slow := whole.Kind == unload.Slower; slow != (by > 1) {
				t.Errorf("%d unloads, %v times: %s", n, by, whole.Kind)
			}
		}
	}
}

// TestSmallestDifferences has what is certain, and of no interest.
func TestSmallestDifferences(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	narrow := func(r *rand.Rand) []int64 { return spread(r, 0.001, 2e3, 8e3, 15e6, 4e3) }
	fast := func(r *rand.Rand) []int64 { return spread(r, 0.01, 2e3, 8e3, 150e3, 4e3) }
	for name, test := range map[string]struct {
		of, now shape
		want    int
	}{
		"5% of 15 ms":            {narrow, slower(1.05, exitPhase, narrow), 0},
		"a phase of µs of 15 ms": {narrow, slower(3, 1, narrow), 0},
		"15% of 15 ms":           {narrow, slower(1.15, exitPhase, narrow), 2},
		"a phase of 150 µs":      {fast, slower(1.3, exitPhase, fast), 2},
		"8 to 32 µs of 164":      {fast, slower(4, 1, fast), 2},
	} {
		old, now := fresh(t), fresh(t)
		fill(old, r, "a", 40, test.of)
		fill(now, r, "a", 40, test.now)
		if got := certain(Compare(old, now, Options{})); len(got) != test.want {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestFailures(t *testing.T) {
	old, now := fresh(t), fresh(t)
	side := func(s *stats.Stats, module string, ok, not int, why unload.Reason) {
		for range ok {
			s.Add(attempt(module, []int64{1e6}))
		}
		for range not {
			s.Add(refusal(module, why))
		}
	}
	side(old, "begins", 20, 0, "")
	side(now, "begins", 4, 16, unload.ReasonReferenced)
	side(old, "stops", 1, 30, unload.ReasonDependents)
	side(now, "stops", 25, 0, "")
	side(old, "few", 2, 0, "")
	side(now, "few", 0, 2, unload.ReasonReferenced)
	side(old, "chance", 30, 3, unload.ReasonReferenced)
	side(now, "chance", 30, 4, unload.ReasonReferenced)
	side(old, "gone", 3, 0, "")
	side(now, "new", 0, 3, unload.ReasonNotFound)
	for range 30 {
		old.Add(attempt("hangs", []int64{1e6}))
		now.Add(&unload.Unload{Module: "hangs", Duration: 5e9, Outcome: unload.InFlight})
	}
	got := map[string]string{}
	d := Compare(old, now, Options{})
	for _, c := range d.Changes {
		if c.Reason != "" || c.Verdict == unload.NotTested {
			got[c.Module] = fmt.Sprintf("%s %s %d/%d %d/%d %s", c.Kind, c.Reason, c.Old.Failed, c.Old.Count, c.New.Failed, c.New.Count, c.Verdict)
		}
	}
	for module, want := range map[string]string{
		"begins": "fails referenced 0/20 16/20 significant",
		"stops":  "recovered dependents 30/31 0/25 significant",
		"few":    "fails referenced 0/2 2/2 too_few",
		"gone":   "gone  0/3 0/0 not_tested",
		"new":    "appeared  0/0 0/0 not_tested",
		"hangs":  "fails unanswered 0/30 30/30 significant",
		"chance": "",
	} {
		if got[module] != want {
			t.Errorf("%s: %q, want %q", module, got[module], want)
		}
	}
	if c := d.Changes[0]; c.Kind != unload.Fails || c.Verdict != unload.Significant {
		t.Errorf("%+v comes first", c)
	}
}

// TestOtherBoundaries does not compare an exit with one that has the notifiers in it.
func TestOtherBoundaries(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	old, now := fresh(t), fresh(t)
	for range 30 {
		u := attempt("a", usual(r))
		u.Phases[2].Duration *= 3
		u.Phases[2].Merged = []unload.PhaseName{unload.Notify}
		old.Add(u)
		now.Add(attempt("a", usual(r)))
	}
	d := Compare(old, now, Options{})
	if len(certain(d)) != 0 || len(d.Notes) != 1 {
		t.Errorf("%+v", d)
	}
}

func TestHostile(t *testing.T) {
	old, now := fresh(t), fresh(t)
	for i := range 3000 {
		for _, s := range []*stats.Stats{old, now} {
			u := attempt(fmt.Sprintf("m%d\x1b", i), []int64{math.MinInt64, math.MaxInt64, -1, 0, math.MaxInt64})
			u.Duration = []int64{math.MinInt64, math.MaxInt64}[i%2]
			s.Add(u)
			s.Add(refusal("tun", unload.Reason(fmt.Sprint(i%50))))
			s.Add(&unload.Unload{})
			s.Reload(&unload.Reload{Module: "only loaded"})
		}
	}
	for _, d := range []unload.Diff{Compare(old, now, Options{}), Compare(fresh(t), now, Options{}), Compare(fresh(t), fresh(t), Options{})} {
		for _, c := range d.Changes {
			if math.IsNaN(c.P) || math.IsInf(c.Ratio, 0) || math.IsNaN(c.Ratio) || math.IsNaN(c.AdjustedP) {
				t.Errorf("%+v", c)
			}
		}
		if len(certain(d)) > 0 {
			t.Errorf("%+v", certain(d))
		}
	}
}

func BenchmarkCompare(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 1))
	old, now := fresh(b), fresh(b)
	for i := range 300 {
		fill(old, r, fmt.Sprint(i), 50, usual)
		fill(now, r, fmt.Sprint(i), 50, usual)
	}
	for b.Loop() {
		Compare(old, now, Options{})
	}
}
