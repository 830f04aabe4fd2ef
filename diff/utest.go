package diff

import (
	"math"
	"slices"

	"github.com/modtrace/modtrace/stats"
)

// tie is how often one duration was measured on either side.
type tie struct{ ns, old, now int64 }

func (t tie) size() int64 { return t.old + t.now }

// merge brings two samples together, each shortest first.
func merge(old, now []stats.Sample) []tie {
	var all []tie
	add := func(t tie) {
		if n := len(all); n > 0 && all[n-1].ns == t.ns {
			all[n-1].old, all[n-1].now = all[n-1].old+t.old, all[n-1].now+t.now
			return
		}
		all = append(all, t)
	}
	for len(old) > 0 || len(now) > 0 {
		if len(now) == 0 || len(old) > 0 && old[0].Duration <= now[0].Duration {
			add(tie{ns: old[0].Duration, old: old[0].Count})
			old = old[1:]
			continue
		}
		add(tie{ns: now[0].Duration, now: now[0].Count})
		now = now[1:]
	}
	return all
}

// tested is the outcome of a test of the hypothesis that nothing has changed.
type tested struct {
	p     float64 // of both sides
	least float64 // the least that p could have been, by the numbers of measurements alone
	shift float64 // above 0: what is new tends to be greater
}

// exactPairs is up to how many pairs of an old and a new measurement, 20 by 20, the
// distribution of U is computed exactly: a millisecond then. Beyond, the normal
// approximation is good; where one side has but a few measurements, it errs to the careful
// side in the tails that matter here.
const exactPairs = 400

// uTest is the test of Mann and Whitney ("On a Test of Whether one of Two Random Variables
// is Stochastically Larger than the Other", Annals of Mathematical Statistics 18, 1947).
// It asks no shape of the distributions, which for unloads have long tails and several
// peaks (how many grace periods were waited for), and one outlier cannot decide it. Ties
// count half. Small samples are compared with all ways to deal out what was measured to
// the two sides, also when there are ties (Klotz, "The Wilcoxon, Ties, and the Computer",
// JASA 61, 1966); large ones by the normal approximation with corrections for ties and
// continuity (Lehmann, "Nonparametrics", 1975, section 1.4).
//
// It takes measurements to be independent of each other. Those of one boot are less so
// than that: what else the machine did meanwhile shows in many of them. This is one reason
// why a change has to be of some size besides.
func uTest(all []tie) tested {
	d := ranked(all)
	if d.old == 0 || d.now == 0 || len(all) == 1 {
		return tested{p: 1, least: 1}
	}
	t := tested{shift: d.pairs()/2 - d.u}
	if d.pairs() <= exactPairs {
		low, high := d.tails(all)
		t.p = min(1, 2*min(low, high))
		t.least = min(1, 2*min(d.rarest(all), d.rarest(reversed(all))))
		return t
	}
	t.p = d.normal(d.u)
	t.least = min(d.normal(d.lowest(all)), d.normal(d.pairs()-d.lowest(reversed(all))))
	return t
}

// ranking is U of the old side (how many pairs of an old and a new measurement have the old
// one greater), and what its distribution depends on.
type ranking struct {
	old, now int64
	u        float64
	tied     float64 // the sum of t³-t over the ties
}

func ranked(all []tie) ranking {
	var d ranking
	for _, t := range all {
		d.u += float64(t.old) * (float64(d.now) + float64(t.now)/2)
		d.old, d.now = d.old+t.old, d.now+t.now
		n := float64(t.size())
		d.tied += n*n*n - n
	}
	return d
}

func (d ranking) pairs() float64 { return float64(d.old) * float64(d.now) }

// tails gives the chances that U is no more, and that it is no less, by counting the ways
// to deal the measurements out: those of each tie in turn, for any number of old ones and
// any U so far. The two are counted apart, for with ties the distribution need not be
// symmetric: where it is taken to be (as in github.com/aclements/go-moremath, which
// benchstat uses), p is up to twice what it should be, or half.
func (d ranking) tails(all []tie) (low, high float64) {
	top := int(2 * d.pairs()) // twice U is a whole number
	ways := make([][]float64, d.old+1)
	for i := range ways {
		ways[i] = make([]float64, top+1)
	}
	ways[0][0] = 1
	var seen int64
	for _, t := range all {
		for old := min(seen, d.old); old >= 0; old-- {
			for more := int64(1); more <= min(t.size(), d.old-old); more++ {
				by := int(more * (2*(seen-old) + t.size() - more))
				times := math.Round(math.Exp(choose(t.size(), more)))
				for u := 0; u+by <= top; u++ {
					ways[old+more][u+by] += times * ways[old][u]
				}
			}
		}
		seen += t.size()
	}
	sum := 0.0
	for u, n := range ways[d.old] {
		sum += n
		if u <= int(2*d.u) {
			low += n
		}
		if u >= int(2*d.u) {
			high += n
		}
	}
	return low / sum, high / sum
}

// normal is the p of both sides by the normal approximation.
func (d ranking) normal(u float64) float64 {
	n := float64(d.old + d.now)
	deviation := math.Sqrt(d.pairs() / 12 * (n + 1 - d.tied/(n*(n-1))))
	z := (math.Abs(u-d.pairs()/2) - 0.5) / deviation
	if z <= 0 || math.IsNaN(z) {
		return 1
	}
	return math.Erfc(z / math.Sqrt2)
}

// least deals the shortest measurements out to the old side. It gives U, and how many of
// the last tie are dealt out.
func (d ranking) least(all []tie) (u float64, last tie) {
	left, now := d.old, int64(0)
	for _, t := range all {
		old := min(left, t.size())
		u += float64(old) * (float64(now) + float64(t.size()-old)/2)
		left -= old
		now += t.size() - old
		if left == 0 {
			return u, tie{t.ns, old, t.size() - old}
		}
	}
	return u, tie{}
}

func (d ranking) lowest(all []tie) float64 {
	u, _ := d.least(all)
	return u
}

// rarest is the chance of the least U that there can be.
func (d ranking) rarest(all []tie) float64 {
	_, last := d.least(all)
	return math.Exp(choose(last.size(), last.old) - choose(d.old+d.now, d.old))
}

// choose is the logarithm of the binomial coefficient.
func choose(n, k int64) float64 {
	a, _ := math.Lgamma(float64(n + 1))
	b, _ := math.Lgamma(float64(k + 1))
	c, _ := math.Lgamma(float64(n - k + 1))
	return a - b - c
}

func reversed(all []tie) []tie {
	back := slices.Clone(all)
	slices.Reverse(back)
	return back
}
