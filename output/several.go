package output

import (
	"cmp"
	"slices"

	"github.com/modtrace/modtrace/unload"
)

// Ends makes a report that needs no end into a document.
func Ends(r Report) Document { return endless{r} }

type endless struct{ Report }

func (endless) Close() error { return nil }

// SortKeys lists by what [Sorted] can sort.
func SortKeys() []string { return []string{"start", "duration", "module"} }

// manySorted is how many unloads are kept to be sorted if it is not said.
const manySorted = 1000

// Sorted gives unloads to a document in another order, when it is closed: by "start",
// "duration" (the longest first) or "module", or as they came for "". At most limit come,
// the first in that order; 0 is a thousand. All other records go to the document at once.
func Sorted(d Document, key string, limit int) Document {
	if limit == 0 {
		limit = manySorted
	}
	return &sorted{Document: d, key: key, limit: limit}
}

type sorted struct {
	Document
	key   string
	limit int
	all   []unload.Unload
}

// Unload keeps an unload for later. Sorting whenever there are twice as many as wanted
// bounds what is kept.
func (s *sorted) Unload(u unload.Unload) error {
	if s.key == "" && len(s.all) == s.limit {
		return nil
	}
	s.all = append(s.all, u)
	if len(s.all) >= 2*s.limit {
		s.sort()
	}
	return nil
}

func (s *sorted) sort() {
	slices.SortStableFunc(s.all, func(a, b unload.Unload) int {
		switch s.key {
		case "start":
			return a.Start.Compare(b.Start)
		case "duration":
			return cmp.Compare(b.Duration, a.Duration)
		case "module":
			return cmp.Compare(a.Module, b.Module)
		}
		return 0
	})
	if len(s.all) > s.limit {
		clear(s.all[s.limit:])
		s.all = s.all[:s.limit]
	}
}

func (s *sorted) Close() error {
	s.sort()
	for _, u := range s.all {
		if err := s.Document.Unload(u); err != nil {
			return err
		}
	}
	return s.Document.Close()
}
