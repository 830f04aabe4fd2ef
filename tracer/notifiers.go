package tracer

import (
	"fmt"

	"github.com/modtrace/modtrace/bpf"
	"github.com/modtrace/modtrace/unload"
)

// notifiers lists the callbacks of the module notifier chain in the order in which
// they were called. Each lasts until the next, and the last until the chain's end.
// missing is told of those that found no room, whose time the last one has.
func (a *assembler) notifiers(e *bpf.UnloadEnd, missing *[]string) []unload.Notifier {
	list := []unload.Notifier{}
	end := notified(e)
	called := e.Callback[:min(int(e.Callbacks), len(e.Callback))]
	for i, c := range called {
		until := end
		if i+1 < len(called) {
			until = called[i+1].Since
		}
		n := unload.Notifier{Duration: max(int64(until-c.Since), 0)}
		n.Callback, n.Module = a.names.function(c.Function)
		list = append(list, n)
	}
	if more := int(e.Callbacks) - len(called); more > 0 {
		*missing = append(*missing, fmt.Sprintf("%d callbacks on the notifier chain count into the one before them", more))
	}
	return list
}

// notified is when the notifier chain was done with: the next boundary.
func notified(e *bpf.UnloadEnd) uint64 {
	for b := bpf.UnloadBoundaryAT_NOTIFY + 1; b < bpf.UnloadBoundaryAT_END; b++ {
		if e.At[b] != 0 {
			return e.At[b]
		}
	}
	return e.At[bpf.UnloadBoundaryAT_END]
}

// callbacksAreSound says that callbacks came one after the other, within the phase.
func callbacksAreSound(e *bpf.UnloadEnd) bool {
	last := e.At[bpf.UnloadBoundaryAT_NOTIFY]
	for _, c := range e.Callback[:min(int(e.Callbacks), len(e.Callback))] {
		if last == 0 || c.Since < last {
			return false
		}
		last = c.Since
	}
	return last <= notified(e)
}
