package diff

import (
	"cmp"
	"math"
	"slices"

	"github.com/modtrace/modtrace/unload"
)

// order gives how changes are sorted: what is certain first, for the worse first, modules
// by their greatest change, and of each the whole before its phases.
func order(all []unload.Change) func(a, b unload.Change) int {
	type group struct {
		class  int
		module string
	}
	greatest := map[group]float64{}
	of := func(c unload.Change) group { return group{class(c), c.Module} }
	for _, c := range all {
		greatest[of(c)] = max(greatest[of(c)], size(c))
	}
	return func(a, b unload.Change) int {
		return cmp.Or(
			cmp.Compare(class(a), class(b)),
			cmp.Compare(greatest[of(b)], greatest[of(a)]),
			cmp.Compare(a.Module, b.Module),
			cmp.Compare(part(a), part(b)),
			cmp.Compare(size(b), size(a)),
		)
	}
}

// class is what kind of news a change is.
func class(c unload.Change) int {
	kinds := []unload.ChangeKind{unload.Fails, unload.Slower, unload.Recovered, unload.Faster, unload.Unclear, unload.Appeared, unload.Gone}
	n := slices.Index(kinds, c.Kind)
	if c.Verdict == unload.TooFew {
		n += len(kinds)
	}
	if c.Verdict == unload.NotTested {
		n += 2 * len(kinds)
	}
	return n
}

// part puts the whole before the phases.
func part(c unload.Change) int {
	if c.Phase == "" {
		return 0
	}
	return 1
}

// size is by how much something changed: ns of the quantile, or the rate of failure.
func size(c unload.Change) float64 {
	if c.Kind == unload.Fails || c.Kind == unload.Recovered {
		return math.Abs(float64(c.New.Failed)/float64(max(c.New.Count, 1)) - float64(c.Old.Failed)/float64(max(c.Old.Count, 1)))
	}
	return math.Abs(float64(c.New.At(c.Quantile)) - float64(c.Old.At(c.Quantile)))
}
