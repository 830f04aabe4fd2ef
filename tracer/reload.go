package tracer

import (
	"slices"
	"time"

	"github.com/modtrace/modtrace/bpf"
	"github.com/modtrace/modtrace/unload"
)

// reloadWindow is how soon after its unload a module is said to be loaded again.
const reloadWindow = 10 * time.Second

// loadEvent is a module's being loaded, by whom, at its header's begin.
type loadEvent bpf.UnloadBegin

// reloads finds loads that bring back what was unloaded a moment ago.
type reloads struct {
	gone  map[string]uint64 // when the unload of each module ended
	loads []*loadEvent      // the latest
	last  uint64            // the time of the last
	found []unload.Reload   // not yet told of
}

// maxLoads bounds how many loads are kept, for an unload whose end comes later:
// the kernel lets the next load go on just before that.
const maxLoads = 64

func newReloads() *reloads { return &reloads{gone: map[string]uint64{}} }

// addLoad takes a load, which may be one of a module that was unloaded.
func (a *assembler) addLoad(e *loadEvent) {
	r := a.reloads
	r.last = max(r.last, e.Header.Begin)
	if end, ok := r.gone[text(e.Name[:])]; ok {
		a.reloaded(e, end)
		return
	}
	if len(r.loads) == maxLoads {
		r.loads = slices.Delete(r.loads, 0, 1)
	}
	r.loads = append(r.loads, e)
}

// addGone takes a module that was unloaded, and finds the load that followed at
// once: none succeeds before the module begins to be freed.
func (a *assembler) addGone(e *bpf.UnloadEnd) {
	r, name, end := a.reloads, text(e.Name[:]), e.At[bpf.UnloadBoundaryAT_END]
	for other, since := range r.gone {
		if end > since && end-since > uint64(reloadWindow) {
			delete(r.gone, other)
		}
	}
	r.gone[name] = end
	for i, l := range r.loads {
		if text(l.Name[:]) == name && l.Header.Begin > e.At[bpf.UnloadBoundaryAT_FREE_SYSFS] {
			r.loads = slices.Delete(r.loads, i, i+1)
			a.reloaded(l, end)
			return
		}
	}
}

// reloaded notes that a module is back.
func (a *assembler) reloaded(e *loadEvent, end uint64) {
	name := text(e.Name[:])
	delete(a.reloads.gone, name)
	if e.Header.Begin > end && e.Header.Begin-end > uint64(reloadWindow) {
		return
	}
	b := (*bpf.UnloadBegin)(e)
	l := unload.Reload{
		Type: unload.TypeReload, Module: name, Start: a.wall(e.Header.Begin),
		After:  max(int64(e.Header.Begin-end), 0),
		Loader: unload.Caller{TID: int(e.Header.Tid), Cmdline: []string{}, Ancestors: []unload.Ancestor{}},
	}
	describeCaller(&l.Loader, b)
	a.enrich(&l.Loader, b)
	a.reloads.found = append(a.reloads.found, l)
}

// takeReloads gives the reloads that were found since it was asked last.
func (a *assembler) takeReloads() []unload.Reload {
	found := a.reloads.found
	a.reloads.found = nil
	return found
}
