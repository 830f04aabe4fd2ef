package output

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/modtrace/modtrace/unload"
)

// activity says what the task did for most of a phase.
func (s screen) activity(p unload.Phase) string {
	if p.OnCPU >= p.OffCPU {
		return s.running(p.Hot)
	}
	if len(p.Waits) == 0 {
		return "asleep"
	}
	all := folded(p.Waits)
	text := s.waiting(all[0])
	if len(all) > 1 && all[0].Duration < p.OffCPU/2 {
		text += ", among others"
	}
	return text
}

// waiting says for what a task was off the CPU, how long and how often.
func (s screen) waiting(w unload.Wait) string {
	times, target := "", s.target(w.Cause, w.Blocker)
	if w.Duration > 0 {
		times = " " + s.duration(w.Duration)
	}
	if w.Count > 1 && plural(w.Cause) != "" && s.agent(w.Blocker) == "" {
		target = s.several(w)
	} else if w.Count > 1 {
		times += fmt.Sprintf(" (%d times)", w.Count)
	}
	switch w.Cause {
	case unload.CauseOther, "":
		if s.agent(w.Blocker) == "" {
			return "asleep" + times
		}
	case unload.CauseSleep:
		return "asleep" + times + " as the code asks"
	}
	return "waiting" + times + " for " + target
}

// plural is for causes that are told better by number than by name.
func plural(c unload.Cause) string {
	switch c {
	case unload.CauseRCU:
		return "RCU grace periods"
	case unload.CauseSRCU:
		return "SRCU grace periods"
	}
	return ""
}

// folded adds up the waits for the same, wherever they were, longest first.
func folded(waits []unload.Wait) []unload.Wait {
	type key struct {
		cause                                unload.Cause
		kind, comm, function, module, detail string
		pid                                  int
	}
	at := map[key]int{}
	var all []unload.Wait
	for _, w := range waits {
		b := w.Blocker
		k := key{w.Cause, b.Kind, b.Comm, b.Function, b.Module, b.Detail, b.PID}
		i, ok := at[k]
		if !ok {
			at[k] = len(all)
			all = append(all, w)
			continue
		}
		all[i].Duration += w.Duration
		all[i].Count += w.Count
		all[i].Longest = max(all[i].Longest, w.Longest)
	}
	return longestFirst(all)
}

// longestFirst sorts a copy.
func longestFirst(waits []unload.Wait) []unload.Wait {
	return slices.SortedStableFunc(slices.Values(waits), func(a, b unload.Wait) int {
		return cmp.Compare(b.Duration, a.Duration)
	})
}

// running says where a task spent its time on the CPU, as far as samples of it
// agree. Many places in one function of a module are that function.
func (s screen) running(hot []unload.Hot) string {
	const text = "running"
	spots, total := tally(hot, s.runs)
	if len(spots) == 0 || total <= 0 {
		return text
	}
	if spots[0].samples*2 < total {
		owners, _ := tally(hot, func(stack []string) string { return s.frame(moduleFrame(stack)) })
		if len(owners) == 0 || owners[0].samples*2 < total {
			return text + ", most often in " + spots[0].name
		}
		spots = owners
	}
	return text + ", mostly in " + spots[0].name
}

// heat is a place with the number of samples found in it.
type heat struct {
	name    string
	samples int64
}

// tally adds up samples by place, the hottest first. Those whose stack does
// not say count into the total alone.
func tally(hot []unload.Hot, place func([]string) string) (all []heat, total int64) {
	at := map[string]int{}
	for _, h := range hot {
		total += h.Samples
		name := place(h.Stack)
		if name == "" {
			continue
		}
		i, ok := at[name]
		if !ok {
			i = len(all)
			at[name] = i
			all = append(all, heat{name: name})
		}
		all[i].samples += h.Samples
	}
	slices.SortStableFunc(all, func(a, b heat) int { return cmp.Compare(b.samples, a.samples) })
	return all, total
}
