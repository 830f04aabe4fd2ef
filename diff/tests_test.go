package diff

import (
	"cmp"
	"fmt"
	"math"
	"math/bits"
	"math/rand/v2"
	"testing"

	"github.com/modtrace/modtrace/stats"
)

// greater is twice U: of how many pairs the old value is greater, twice, and of how many
// they are the same.
func greater(values []int64, old uint) (twice int) {
	for i, a := range values {
		for j, b := range values {
			if old>>i&1 == 1 && old>>j&1 == 0 {
				twice += cmp.Compare(a, b) + 1
			}
		}
	}
	return twice
}

// dealt gives the p of both sides by dealing all values out to two sides in every way.
func dealt(values []int64, old uint) (p, least float64) {
	count := map[int]int{}
	all := 0
	for side := range uint(1) << len(values) {
		if bits.OnesCount(side) == bits.OnesCount(old) {
			count[greater(values, side)]++
			all++
		}
	}
	both := func(of int) float64 {
		low, high := 0, 0
		for v, n := range count {
			if v <= of {
				low += n
			}
			if v >= of {
				high += n
			}
		}
		return math.Min(1, 2*float64(min(low, high))/float64(all))
	}
	least = 1
	for v := range count {
		least = math.Min(least, both(v))
	}
	return both(greater(values, old)), least
}

func sides(values []int64, old uint) (a, b []stats.Sample) {
	for i, v := range values {
		if old>>i&1 == 1 {
			a = append(a, stats.Sample{Duration: v, Count: 1})
		} else {
			b = append(b, stats.Sample{Duration: v, Count: 1})
		}
	}
	return sorted(a), sorted(b)
}

func sorted(all []stats.Sample) []stats.Sample {
	for i := range all {
		for j := i; j > 0 && all[j].Duration < all[j-1].Duration; j-- {
			all[j], all[j-1] = all[j-1], all[j]
		}
	}
	return all
}

func near(a, b float64) bool { return math.Abs(a-b) <= 1e-9*math.Max(1, math.Abs(b)) }

// TestUByEnumeration compares the exact test with all ways to deal the values out, with
// and without ties, and of sides of any size.
func TestUByEnumeration(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 400 {
		n := 2 + r.IntN(10)
		values := make([]int64, n)
		for i := range values {
			values[i] = r.Int64N([]int64{2, 4, 1000}[r.IntN(3)])
		}
		old := 1 + r.UintN(1<<n-2)
		a, b := sides(values, old)
		p, least := dealt(values, old)
		got := uTest(merge(a, b))
		if !near(got.p, p) || !near(got.least, least) {
			t.Fatalf("%v, old %b: p %v least %v, want %v %v", values, old, got.p, got.least, p, least)
		}
	}
}

// TestUOfMany compares the approximation with what dealing out at random gives.
func TestUOfMany(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	for _, wide := range []int64{5, 60, 1e9} {
		var all []tie
		values := make([]int64, 140)
		for i := range values {
			values[i] = r.Int64N(wide)
			if i < 60 {
				values[i] += wide / 12
			}
		}
		u := func() ranking {
			var a, b []stats.Sample
			for i, v := range values {
				one := stats.Sample{Duration: v, Count: 1}
				if i < 60 {
					a = append(a, one)
				} else {
					b = append(b, one)
				}
			}
			all = merge(sorted(a), sorted(b))
			return ranked(all)
		}
		first := u()
		got := uTest(all).p
		far := math.Abs(first.u - first.pairs()/2)
		const trials = 4000
		reached := 0
		for range trials {
			r.Shuffle(len(values), func(i, j int) { values[i], values[j] = values[j], values[i] })
			if math.Abs(u().u-first.pairs()/2) >= far {
				reached++
			}
		}
		want := float64(reached) / trials
		if slack := 4*math.Sqrt(want*(1-want)/trials) + 0.004; math.Abs(got-want) > slack {
			t.Errorf("up to %d: p is %v, and %v of those dealt out at random", wide, got, want)
		}
	}
}

// TestUOfTies has two durations only. Then U says how many of the old side have the greater
// one, whose distribution is known.
func TestUOfTies(t *testing.T) {
	of := func(none, some int64) []stats.Sample {
		return []stats.Sample{{Duration: 1, Count: none}, {Duration: 2, Count: some}}
	}
	for _, some := range [][2]int64{{3, 12}, {10, 10}, {20, 5}} {
		d := dealing{failed: some[0] + some[1], old: 60, all: 140}
		low, high := 0.0, 0.0
		for n := range d.failed + 1 {
			if n <= some[0] {
				low += d.chance(n)
			}
			if n >= some[0] {
				high += d.chance(n)
			}
		}
		want := math.Min(1, 2*math.Min(low, high))
		// A unit of U is a half of 140 steps of this: its correction for continuity is
		// less than the one that is due here.
		if got := uTest(merge(of(60-some[0], some[0]), of(80-some[1], some[1]))).p; got > want+0.01 || got < want/3 {
			t.Errorf("%v: %v, want about %v", some, got, want)
		}
	}
}

// TestUOfWeights has the same of samples that are counted as of those that are listed.
func TestUOfWeights(t *testing.T) {
	counted := uTest(merge([]stats.Sample{{Duration: 1, Count: 300}, {Duration: 3, Count: 30}}, []stats.Sample{{Duration: 2, Count: 300}}))
	var old, now []stats.Sample
	for range 300 {
		old, now = append(old, stats.Sample{Duration: 1, Count: 1}), append(now, stats.Sample{Duration: 2, Count: 1})
	}
	for range 30 {
		old = append(old, stats.Sample{Duration: 3, Count: 1})
	}
	if got := uTest(merge(old, now)); got != counted || got.p > 1e-20 {
		t.Errorf("%v and %v", got, counted)
	}
	if d := ranked(merge(old, now)); d.u != 30*300 || d.old != 330 || d.now != 300 {
		t.Errorf("%+v", d)
	}
}

func TestNothingToTest(t *testing.T) {
	one := []stats.Sample{{Duration: 5, Count: 9}}
	for name, got := range map[string]tested{
		"no values":   uTest(nil),
		"one side":    uTest(merge(one, nil)),
		"all equal":   uTest(merge(one, one)),
		"no attempts": fisher(0, 0, 3, 4),
		"no failures": fisher(0, 10, 0, 10),
		"only those":  fisher(10, 10, 4, 4),
	} {
		if got.p != 1 || got.least != 1 {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// failuresDealt gives Fisher's p by dealing failures out in every way.
func failuresDealt(a, n1, b, n2 int) (p, least float64) {
	count := map[int]int{}
	all := 0
	for side := range uint(1) << (n1 + n2) {
		if bits.OnesCount(side) == n1 { // who is old; the first a+b have failed
			count[bits.OnesCount(side&(1<<(a+b)-1))]++
			all++
		}
	}
	least = 2
	for of := range count {
		sum := 0
		for _, n := range count {
			if n <= count[of] {
				sum += n
			}
		}
		share := float64(sum) / float64(all)
		least = math.Min(least, share)
		if of == a {
			p = share
		}
	}
	return p, least
}

func TestFisherByEnumeration(t *testing.T) {
	for n1 := 1; n1 <= 6; n1++ {
		for n2 := 1; n2 <= 6; n2++ {
			for a := range n1 + 1 {
				for b := range n2 + 1 {
					p, least := failuresDealt(a, n1, b, n2)
					got := fisher(int64(a), int64(n1), int64(b), int64(n2))
					if !near(got.p, p) || !near(got.least, least) {
						t.Fatalf("%d of %d, %d of %d: %+v, want %v %v", a, n1, b, n2, got, p, least)
					}
				}
			}
		}
	}
}

// TestFisherOfMany does not take as long as there are attempts, nor overflow.
func TestFisherOfMany(t *testing.T) {
	same := fisher(500_000, 1_000_000, 500_010, 1_000_000)
	other := fisher(500_000, 1_000_000, 505_000, 1_000_000)
	rare := fisher(0, 1_000_000, 1, 1)
	if same.p < 0.9 || other.p > 1e-10 || other.p < 1e-14 || !near(rare.p, 1.0/1_000_001) {
		t.Errorf("%v %v %v", same, other, rare)
	}
}

func TestAdjust(t *testing.T) {
	able := func(p float64) tested { return tested{p: p, least: 1e-9} }
	// By hand: 3*0.01, max(that, 2*0.02), max(that, 0.03).
	got, _ := adjust([]tested{able(0.02), able(0.01), able(0.03)}, 0.05)
	if want := []float64{0.04, 0.03, 0.04}; fmt.Sprintf("%.6f", got) != fmt.Sprintf("%.6f", want) {
		t.Errorf("%v, want %v", got, want)
	}
	// A hundred that can find nothing do not hide one that can.
	tests := []tested{able(0.03)}
	for range 100 {
		tests = append(tests, tested{p: 0.3, least: 0.3})
	}
	got, can := adjust(tests, 0.05)
	if got[0] != 0.03 || !can[0] || can[1] || got[1] != 1 {
		t.Errorf("%v %v", got[:2], can[:2])
	}
	if got, can := adjust(nil, 0.05); len(got)+len(can) != 0 {
		t.Errorf("%v %v", got, can)
	}
}
