package stats

import (
	"slices"

	"github.com/modtrace/modtrace/unload"
)

// maxPlaces bounds the places that are told apart. A kernel has as many as there are
// phases; those that hide more or fewer boundaries have some of their own.
const maxPlaces = 64

// place is a phase with those merged into it: what lies between two boundaries that a
// kernel shows.
type place struct {
	name   unload.PhaseName
	merged []unload.PhaseName
}

func (p place) is(name unload.PhaseName, merged []unload.PhaseName) bool {
	return p.name == name && slices.Equal(p.merged, merged)
}

// places number the places that were seen, in the order in which they were.
type places struct {
	all   []place
	named map[unload.PhaseName][]int
}

// number gives the number of a phase's place. The first is for those that are too many.
func (p *places) number(name unload.PhaseName, merged []unload.PhaseName) int {
	for _, n := range p.named[name] {
		if p.all[n].is(name, merged) {
			return n
		}
	}
	if len(p.all) == 0 {
		p.all = []place{{name: unload.Others}}
		p.named = map[unload.PhaseName][]int{}
	}
	if len(p.all) > maxPlaces || len(merged) > len(unload.PhaseNames()) {
		return 0
	}
	one := place{name: unload.PhaseName(kept(string(name)))}
	for _, m := range merged {
		one.merged = append(one.merged, unload.PhaseName(kept(string(m))))
	}
	if !one.is(name, merged) {
		return 0 // a name that is too long to be one
	}
	p.all = append(p.all, one)
	p.named[one.name] = append(p.named[one.name], len(p.all)-1)
	return len(p.all) - 1
}

// inOrder gives the numbers of places in the kernel's order, then those that are not
// known as they came.
func (p *places) inOrder() []int {
	order := unload.PhaseNames()
	at := func(n int) int {
		if i := slices.Index(order, p.all[n].name); i >= 0 {
			return i
		}
		return len(order)
	}
	numbers := make([]int, len(p.all))
	for i := range numbers {
		numbers[i] = i
	}
	slices.SortStableFunc(numbers, func(a, b int) int { return at(a) - at(b) })
	return numbers
}
