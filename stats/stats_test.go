package stats

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/modtrace/modtrace/unload"

	"github.com/modtrace/modtrace/test/recorded"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func fresh(t testing.TB) *Stats {
	t.Helper()
	s, err := New()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// unloaded is an unload whose phases took so long, in the kernel's order.
func unloaded(module string, ns ...int64) *unload.Unload {
	u := unload.Unload{Module: module, Start: noon, Outcome: unload.Returned, Complete: true, Result: unload.Result{OK: true, Reason: unload.ReasonNone}}
	for i, n := range ns {
		u.Duration += n
		u.Phases = append(u.Phases, unload.Phase{Name: unload.PhaseNames()[i], Duration: n, OnCPU: n, Exact: true})
	}
	return &u
}

func refused(module string, why unload.Reason) *unload.Unload {
	return &unload.Unload{Module: module, Start: noon, Complete: true, Duration: 700, Result: unload.Result{Errno: "EAGAIN", Reason: why, By: unload.ByKernel}}
}

func TestSmallOnesAreExact(t *testing.T) {
	s := fresh(t)
	s.Header(&unload.Header{Host: "a", Kernel: "6.12"})
	for i, ns := range []int64{300, 100, 400, 200} {
		u := unloaded("tun", 10, 5, ns)
		u.Start = noon.Add(time.Duration(i) * time.Second)
		s.Add(u)
	}
	s.Add(refused("tun", unload.ReasonReferenced))
	s.Add(refused("tun", unload.ReasonReferenced))
	s.Add(refused("fuse", unload.ReasonDependents))
	s.Add(&unload.Unload{Module: "tun", Outcome: unload.Died, Duration: 999, Complete: false, LostEvents: 3, Phases: []unload.Phase{{Name: unload.Exit, Duration: 990}}})
	s.Reload(&unload.Reload{Module: "tun"})
	s.Stall(&unload.Stall{Unload: unload.Unload{Module: "tun", Duration: 500}})
	sum := s.Summary()
	if sum.Captures != 1 || sum.CutShort != 1 || !sum.First.Equal(noon) || !sum.Last.Equal(noon.Add(3*time.Second)) {
		t.Errorf("%+v", sum)
	}
	if len(sum.Modules) != 2 || sum.Modules[0].Module != "tun" {
		t.Fatalf("%+v", sum.Modules)
	}
	tun := sum.Modules[0]
	if tun.Attempts != 7 || tun.Unloaded != 4 || tun.Refused != 2 || tun.Unanswered != 1 || tun.Reasons[unload.ReasonReferenced] != 2 ||
		tun.Stalls != 1 || tun.Reloads != 1 || tun.LostEvents != 3 || tun.Incomplete != 1 {
		t.Errorf("%+v", tun)
	}
	// 115, 215, 315, 415: by definition 7 the median is between the middle two, and
	// the rank of the other is 0.95*3 = 2.85.
	if want := (unload.Times{Count: 4, Min: 115, Max: 415, P50: 265, P95: 400, Total: 1060, Exact: true}); tun.Duration != want {
		t.Errorf("%+v, want %+v", tun.Duration, want)
	}
	if len(tun.Phases) != 3 || tun.Phases[2].Name != unload.Exit || tun.Phases[2].Total != 1000 || tun.Phases[0].P50 != 10 {
		t.Errorf("%+v", tun.Phases)
	}
	if w := tun.Worst; w.Duration != 999 || w.Kind != unload.Unanswered || w.Phase.Name != unload.Exit {
		t.Errorf("%+v", w)
	}
	if all := sum.All; all.Attempts != 8 || all.Refused != 3 || len(all.Reasons) != 2 || all.Module != "" {
		t.Errorf("%+v", all)
	}
	s.Trailer(&unload.Trailer{LostEvents: map[string]int64{"wait": 4}, MissedProbes: 2})
	if sum = s.Summary(); sum.CutShort != 0 || sum.LostEvents["wait"] != 4 || sum.MissedProbes != 2 {
		t.Errorf("%+v", sum)
	}
}

// quantile sorts all and looks.
func quantile(all []int64, q float64) int64 {
	all = slices.Sorted(slices.Values(all))
	return all[int(q*float64(len(all)-1))]
}

// TestSketchesAreClose compares the quantiles of a sketch with those of all that it was
// given, from distributions that differ by orders of magnitude.
func TestSketchesAreClose(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	draws := map[string]func() int64{
		"log-normal": func() int64 { return int64(20e6 * math.Exp(r.NormFloat64())) },
		"two places": func() int64 { return []int64{20e3, 10e9}[r.IntN(2)] + r.Int64N(1000) },
		"heavy tail": func() int64 { return int64(min(1000/math.Pow(r.Float64(), 2), math.MaxInt64/2)) },
		"all equal":  func() int64 { return 12345678 },
		"zeros":      func() int64 { return max(r.Int64N(300)-200, 0) },
		"anything":   func() int64 { return r.Int64() >> r.IntN(63) },
	}
	for name, draw := range draws {
		s := fresh(t)
		var all []int64
		for range 20_000 {
			ns := draw()
			all = append(all, ns)
			s.Add(unloaded("tun", ns))
		}
		d := s.Summary().All.Duration
		if d.Exact || d.Count != int64(len(all)) || d.Min != slices.Min(all) || d.Max != slices.Max(all) {
			t.Errorf("%s: %+v", name, d)
		}
		for q, got := range map[float64]int64{0.5: d.P50, 0.95: d.P95} {
			want := quantile(all, q)
			// Half a nanosecond is lost to rounding.
			if diff := math.Abs(float64(got - want)); diff > Accuracy*float64(want)+0.5 {
				t.Errorf("%s: %v is %d, and %d by the sketch", name, q, want, got)
			}
		}
		var n int64
		last := int64(-1)
		for _, one := range s.Samples("tun", "", false) {
			if one.Duration <= last {
				t.Errorf("%s: %d behind %d", name, one.Duration, last)
			}
			n, last = n+one.Count, one.Duration
		}
		if n != d.Count {
			t.Errorf("%s: %d samples of %d", name, n, d.Count)
		}
	}
}

// TestMergedPhasesAreOthers has an exit that hides the notifiers beside one that does not.
func TestMergedPhasesAreOthers(t *testing.T) {
	s := fresh(t)
	s.Add(unloaded("tun", 1, 2, 3))
	u := unloaded("tun", 1, 2, 30)
	u.Phases[2].Merged = []unload.PhaseName{unload.Notify}
	s.Add(u)
	u = unloaded("tun", 1, 2, 3)
	u.Phases = append(u.Phases, unload.Phase{Name: unload.Exit, Duration: 4, OffCPU: 4, Waits: []unload.Wait{{Cause: unload.CauseRCU, Count: 2, Duration: 4}}})
	s.Add(u)
	got := s.Summary().All.Phases
	if len(got) != 4 || got[2].Place() != "exit" || got[3].Place() != "exit+notify" || got[3].Max != 30 {
		t.Fatalf("%+v", got)
	}
	if e := got[2]; e.Count != 2 || e.Total != 10 || e.Max != 7 || e.OffCPU != 4 || len(e.Waits) != 1 || e.Waits[0] != (unload.CauseTime{Cause: unload.CauseRCU, Count: 2, Duration: 4}) {
		t.Errorf("a phase that comes twice: %+v", e)
	}
}

func TestHostileRecords(t *testing.T) {
	s := fresh(t)
	long := strings.Repeat("x", 1<<20)
	for i := range 5000 {
		u := unloaded(fmt.Sprintf("m%d%s", i, long[:i%2*len(long)/1000]), math.MaxInt64, math.MinInt64, math.MaxInt64, -1)
		u.Duration = []int64{math.MinInt64, math.MaxInt64, 0, -1}[i%4]
		u.LostEvents = math.MaxInt64
		u.Phases = append(u.Phases, u.Phases[0], unload.Phase{Name: unload.PhaseName(fmt.Sprint(i)), Duration: math.MinInt64,
			Waits: []unload.Wait{{Cause: unload.Cause(fmt.Sprint(i)), Count: math.MinInt64, Duration: math.MaxInt64, Stack: make([]string, 1000)}}})
		u.Phases[1].Merged = make([]unload.PhaseName, i%40)
		s.Add(u)
		s.Add(refused("tun", unload.Reason(fmt.Sprint(i))))
		s.Header(&unload.Header{Host: fmt.Sprint(i), Kernel: long})
		s.Trailer(&unload.Trailer{LostEvents: map[string]int64{fmt.Sprint(i): math.MaxInt64}, MissedProbes: math.MaxInt64})
	}
	s.Add(&unload.Unload{})
	s.Stall(&unload.Stall{})
	s.Reload(&unload.Reload{})
	sum := s.Summary()
	if n := len(sum.Modules); n != MaxModules+1 {
		t.Errorf("%d modules", n)
	}
	if n := len(sum.All.Phases); n > maxPlaces+1 {
		t.Errorf("%d phases", n)
	}
	if len(sum.Hosts) > maxNames+1 || len(sum.Kernels) != 1 || len(sum.Kernels[0]) > longestKept || len(sum.LostEvents) > maxNames+1 || len(sum.All.Reasons) > maxReasons+1 {
		t.Errorf("%d hosts, %d kinds, %d reasons", len(sum.Hosts), len(sum.LostEvents), len(sum.All.Reasons))
	}
	var attempts int64
	for _, m := range sum.Modules {
		attempts += m.Attempts
		if len(m.Module) > longestKept {
			t.Errorf("a name of %d", len(m.Module))
		}
	}
	if attempts != 10_001 || sum.All.Attempts != attempts || sum.All.Duration.Total != math.MaxInt64 || sum.All.Duration.Min != 0 || sum.All.LostEvents != math.MaxInt64 {
		t.Errorf("%d attempts, %+v", attempts, sum.All.Duration)
	}
}

// TestRecorded adds up what was recorded on real kernels, once by one.
func TestRecorded(t *testing.T) {
	s := fresh(t)
	var attempts, successes, total int64
	files := recorded.Files(t)
	for _, name := range files {
		records, _ := recorded.Read(t, name)
		for _, record := range records {
			if u, ok := record.(*unload.Unload); ok {
				attempts++
				if u.Result.OK {
					successes++
					total += u.Duration
				}
			}
			s.Take(record)
		}
	}
	sum := s.Summary()
	if sum.Captures != int64(len(files)) || sum.CutShort != 0 || sum.All.Attempts != attempts || sum.All.Duration.Count != successes || sum.All.Duration.Total != total {
		t.Errorf("%+v", sum.All)
	}
	var phases int64
	for _, p := range sum.All.Phases {
		phases += p.Total
	}
	if phases != total && sum.All.Incomplete == 0 {
		t.Errorf("the phases take %d of %d", phases, total)
	}
	if sum.All.Worst.Phase.Name == "" || len(sum.Kernels) < 3 {
		t.Errorf("%+v %q", sum.All.Worst, sum.Kernels)
	}
}

// fleet makes records of so many modules, with 14 phases each that vary as real ones do.
func fleet(modules int) func() *unload.Unload {
	r := rand.New(rand.NewPCG(3, 4))
	names := make([]string, modules)
	for i := range names {
		names[i] = fmt.Sprintf("module_%d", i)
	}
	u := unloaded("", make([]int64, len(unload.PhaseNames()))...)
	u.Phases[2].Waits = []unload.Wait{{Cause: unload.CauseRCU, Count: 1, Duration: 1000}}
	return func() *unload.Unload {
		u.Module, u.Duration = names[r.IntN(modules)], 0
		for i := range u.Phases {
			base := []float64{2e3, 8e3, 15e6, 4e3, 0, 20e3, 900, 120e3, 500, 700, 600, 14e6, 90e3, 1e3}[i]
			u.Phases[i].Duration = int64(base * math.Exp(0.4*r.NormFloat64()))
			u.Duration += u.Phases[i].Duration
		}
		return u
	}
}

func live() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestMemory holds what a million records of hundreds of modules leave behind to its
// bound: half of what may be resident, for the garbage of as much again is kept.
func TestMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a few seconds")
	}
	for modules, most := range map[int]uint64{40: 4 << 20, 300: 20 << 20} {
		before := live()
		s, next := fresh(t), fleet(modules)
		for range 1_000_000 {
			s.Add(next())
		}
		took := live() - before
		t.Logf("%d modules: %d kB", modules, took>>10)
		if took > most {
			t.Errorf("%d modules take %d kB, more than %d", modules, took>>10, most>>10)
		}
		if n := s.Summary().All.Duration.Count; n != 1_000_000 {
			t.Errorf("%d unloads", n)
		}
	}
}

func BenchmarkAdd(b *testing.B) {
	for _, modules := range []int{1, 300} {
		b.Run(fmt.Sprintf("%d modules", modules), func(b *testing.B) {
			s, next := fresh(b), fleet(modules)
			records := make([]unload.Unload, 4096)
			for i := range records {
				records[i] = *next()
				records[i].Phases = slices.Clone(records[i].Phases)
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				s.Add(&records[i%len(records)])
				i++
			}
		})
	}
}
