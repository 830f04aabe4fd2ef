package diff

import "math"

// fisher is Fisher's exact test of two rates of failure ("Statistical Methods for Research
// Workers", 5th edition 1934, section 21.02): how likely is it that the failures are dealt
// out to the two sides like this, or in a way that is no likelier, when all attempts are
// alike. It is right however few there are, which a chi-squared test is not.
func fisher(failedOld, old, failedNow, now int64) tested {
	if old == 0 || now == 0 || failedOld+failedNow == 0 || failedOld+failedNow == old+now {
		return tested{p: 1, least: 1}
	}
	d := dealing{failed: failedOld + failedNow, old: old, all: old + now}
	t := tested{shift: float64(failedNow)/float64(now) - float64(failedOld)/float64(old)}
	low, high := max(0, d.failed-now), min(d.failed, old)
	t.p = d.noLikelier(low, high, d.chance(failedOld))
	t.least = d.noLikelier(low, high, min(d.chance(low), d.chance(high)))
	return t
}

// dealing is how many of all attempts have failed, and how many of all are old ones. How
// many of the old ones have failed is hypergeometric then.
type dealing struct{ failed, old, all int64 }

// chance is that of so many failures on the old side.
func (d dealing) chance(n int64) float64 {
	return math.Exp(choose(d.failed, n) + choose(d.all-d.failed, d.old-n) - choose(d.all, d.old))
}

// noLikelier adds up the chances that are no greater than one, but for errors of rounding.
// A million attempts have as many ways: those that are too unlikely for a floating point
// number, tens of standard deviations away, are left out.
func (d dealing) noLikelier(low, high int64, chance float64) float64 {
	const slack = 1 + 1e-7
	part := float64(d.failed) / float64(d.all)
	mean := float64(d.old) * part
	width := 40*math.Sqrt(mean*(1-part)) + 400
	low, high = max(low, int64(mean-width)), min(high, int64(mean+width))
	sum := 0.0
	for n := low; n <= high; n++ {
		if p := d.chance(n); p <= chance*slack {
			sum += p
		}
	}
	return min(1, sum)
}
