package stats

import (
	"cmp"
	"math"
	"slices"

	"github.com/DataDog/sketches-go/ddsketch/mapping"
	"github.com/DataDog/sketches-go/ddsketch/store"

	"github.com/modtrace/modtrace/unload"
)

// keptExactly is how many durations of a series are kept as they are; when more come, all
// go into a sketch. It is above what a person makes by hand or a test in a loop, and 2 kB.
const keptExactly = 256

// Accuracy bounds the error of a duration that is read from a sketch, relative to it.
const Accuracy = 0.005

// Sample is a duration, and how often it was seen.
type Sample struct {
	Duration int64 // ns
	Count    int64
}

// series is how long something took each time. Durations below 0, which only a record
// that is wrong can have, count as 0.
//
// Its sketch is a DDSketch (Masson, Rim and Lee, "DDSketch: A Fast and Fully-Mergeable
// Quantile Sketch with Relative-Error Guarantees", VLDB 12, 2019): it counts in bins whose
// bounds do not depend on what comes, so that those of two captures are the same and a test
// of their ranks is one of durations that were rounded alike. A t-digest's bounds depend on
// the data and its error is one of ranks; an HDR histogram of this accuracy takes several
// times the memory, for it has a place for every duration that could come.
type series struct {
	count, least, most, total int64
	exact                     []int64
	zeros                     int64 // in the sketch
	bins                      *store.BufferedPaginatedStore
}

// newBins gives the bins in which durations are counted once they are not kept. Those of
// whole numbers of ns are some 4,400.
func newBins() (*mapping.LogarithmicMapping, error) { return mapping.NewLogarithmicMapping(Accuracy) }

// reading is a duration and its bin.
type reading struct {
	ns  int64
	bin int
}

// read finds the bin of a duration, for all the series that it goes into.
func read(ns int64, m mapping.IndexMapping) reading {
	if ns <= 0 {
		return reading{}
	}
	return reading{ns, m.Index(float64(ns))}
}

func (s *series) add(r reading, m mapping.IndexMapping) {
	if s.count == 0 {
		s.least, s.most = r.ns, r.ns
	}
	s.count++
	s.least, s.most = min(s.least, r.ns), max(s.most, r.ns)
	s.total = unload.Plus(s.total, r.ns)
	if s.bins == nil && len(s.exact) < keptExactly {
		s.exact = append(s.exact, r.ns)
		return
	}
	if s.bins == nil {
		s.bins = store.NewBufferedPaginatedStore()
		for _, ns := range s.exact {
			s.sort(read(ns, m))
		}
		s.exact = nil
	}
	s.sort(r)
}

// sort puts a duration into its bin.
func (s *series) sort(r reading) {
	if r.ns == 0 {
		s.zeros++
		return
	}
	s.bins.Add(r.bin)
}

// samples gives what was seen, shortest first. It is rounded to bins if so asked, or if
// there was too much to keep.
func (s *series) samples(m mapping.IndexMapping, rounded bool) []Sample {
	var all []Sample
	if s.bins == nil {
		for _, ns := range s.exact {
			if rounded && ns > 0 {
				ns = middle(m.Index(float64(ns)), m)
			}
			all = append(all, Sample{ns, 1})
		}
	} else {
		if s.zeros > 0 {
			all = append(all, Sample{0, s.zeros})
		}
		s.bins.ForEach(func(index int, count float64) bool {
			all = append(all, Sample{middle(index, m), int64(count)})
			return false
		})
	}
	return folded(all)
}

// middle is the duration that stands for those of a bin.
func middle(index int, m mapping.IndexMapping) int64 {
	ns := math.Round(m.Value(index))
	if ns >= math.MaxInt64 {
		return math.MaxInt64
	}
	return int64(ns)
}

// folded sorts samples and adds up those of one duration.
func folded(all []Sample) []Sample {
	slices.SortFunc(all, func(a, b Sample) int { return cmp.Compare(a.Duration, b.Duration) })
	kept := all[:0]
	for _, s := range all {
		if n := len(kept); n > 0 && kept[n-1].Duration == s.Duration {
			kept[n-1].Count += s.Count
			continue
		}
		kept = append(kept, s)
	}
	return kept
}

func (s *series) times(m mapping.IndexMapping) unload.Times {
	t := unload.Times{Count: s.count, Min: s.least, Max: s.most, Total: s.total, Exact: s.bins == nil}
	if s.count == 0 {
		return t
	}
	t.P50, t.P95 = s.quantile(0.50, m), s.quantile(0.95, m)
	return t
}

// quantile gives the duration below which the part q of all are. What comes from a sketch
// is no more than the longest, nor less than the shortest.
func (s *series) quantile(q float64, m mapping.IndexMapping) int64 {
	rank := q * float64(s.count-1)
	if s.bins != nil {
		if rank < float64(s.zeros) {
			return 0
		}
		return min(max(middle(s.bins.KeyAtRank(rank-float64(s.zeros)), m), s.least), s.most)
	}
	slices.Sort(s.exact) // their order means nothing
	below := int(rank)
	low := s.exact[below]
	if below+1 == len(s.exact) {
		return low
	}
	high := s.exact[below+1]
	return low + int64(math.Round((rank-float64(below))*float64(high-low)))
}
