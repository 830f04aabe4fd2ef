package diff

import (
	"math"

	moremath "github.com/aclements/go-moremath/stats"
)

// fisher is Fisher's exact test of two rates of failure ("Statistical Methods for Research
// Workers", 5th edition 1934, section 21.02): how likely is it that the failures are dealt
// out to the two sides like this, or in a way that is no likelier, when all attempts are
// alike. It is right however few there are, which a chi-squared test is not.
func fisher(failedOld, old, failedNow, now int64) tested {
	if old == 0 || now == 0 || failedOld+failedNow == 0 || failedOld+failedNow == old+now {
		return tested{p: 1, least: 1}
	}
	failed, all := failedOld+failedNow, old+now
	dist := moremath.HypergeometicDist{N: int(all), K: int(failed), Draws: int(old)}
	low, high := dist.Bounds()
	t := tested{shift: float64(failedNow)/float64(now) - float64(failedOld)/float64(old)}
	from, to := likely(dist, low, high)
	t.p = noLikelier(dist, from, to, dist.PMF(float64(failedOld)))
	t.least = noLikelier(dist, from, to, min(dist.PMF(low), dist.PMF(high)))
	return t
}

// likely narrows the bounds to what has a chance above some 1e-300 or so: a million
// attempts have as many ways.
func likely(dist moremath.HypergeometicDist, low, high float64) (from, to float64) {
	width := 40*math.Sqrt(variance(dist)) + 400
	return math.Max(low, math.Floor(dist.Mean()-width)), math.Min(high, math.Ceil(dist.Mean()+width))
}

// variance is that of the distribution, in floating point: its product of four numbers of
// attempts does not fit an integer.
func variance(dist moremath.HypergeometicDist) float64 {
	n, k, draws := float64(dist.N), float64(dist.K), float64(dist.Draws)
	return draws * (k / n) * (1 - k/n) * (n - draws) / (n - 1)
}

// noLikelier adds up the chances that are no greater than one, but for errors of rounding.
func noLikelier(dist moremath.HypergeometicDist, from, to, chance float64) float64 {
	const slack = 1 + 1e-7
	sum := 0.0
	for k := from; k <= to; k++ {
		if p := dist.PMF(k); p <= chance*slack {
			sum += p
		}
	}
	return min(1, sum)
}
