package diff

import (
	"cmp"
	"slices"
)

// adjust corrects p values for being many, so that the chance that any of them is at most
// alpha, when nothing has changed, is at most alpha. It gives false for tests that cannot
// find anything, whatever is measured, and leaves them out of the number.
//
// The correction is Holm's ("A Simple Sequentially Rejective Multiple Test Procedure",
// Scandinavian Journal of Statistics 6, 1979) and not that of Benjamini and Hochberg, which
// bounds the share of false ones among those reported: who is told of a regression goes and
// looks for it. It holds however the tests depend on each other, and those of a module's
// phases and of the whole do. What can find nothing is told by Tarone's method ("A Modified
// Bonferroni Method for Discrete Data", Biometrics 46, 1990), by the numbers of measurements
// alone: else a hundred modules that were unloaded twice would hide a regression of another.
func adjust(tests []tested, alpha float64) (adjusted []float64, able []bool) {
	adjusted, able = make([]float64, len(tests)), make([]bool, len(tests))
	limit := alpha / float64(tarone(tests, alpha))
	var order []int
	for i, t := range tests {
		adjusted[i] = 1
		if able[i] = t.least <= limit; able[i] {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(tests[a].p, tests[b].p) })
	highest := 0.0
	for rank, i := range order {
		highest = max(highest, min(1, tests[i].p*float64(len(order)-rank)))
		adjusted[i] = highest
	}
	return adjusted, able
}

// tarone is the least number by which alpha can be divided so that no more tests than that
// can reach it.
func tarone(tests []tested, alpha float64) int {
	least := make([]float64, len(tests))
	for i, t := range tests {
		least[i] = t.least
	}
	slices.Sort(least)
	for k := 1; ; k++ {
		// The k+1st of the least ones does not reach it.
		if k >= len(least) || least[k] > alpha/float64(k) {
			return k
		}
	}
}
