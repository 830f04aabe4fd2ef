package tracer

import (
	"cmp"
	"slices"

	"github.com/modtrace/modtrace/bpf"
	"github.com/modtrace/modtrace/unload"
)

// addWaiter keeps a task that waits for a lock of an unloading one. It is told of
// twice: as it begins to wait, and when it is let on, which may be after the
// unload's end.
func (a *assembler) addWaiter(e *bpf.UnloadWaiter) {
	p := a.pending[taskKey{e.Header.Begin, e.Header.Tid}]
	if p == nil {
		return
	}
	for i, w := range p.convoy {
		if w.Tid == e.Tid && w.Since == e.Since {
			p.convoy[i] = e
			return
		}
	}
	if len(p.convoy) < maxEffects {
		p.convoy = append(p.convoy, e)
	}
}

// convoy is who waited for locks of an unload, up to its end, the longest wait
// first. Of all that wait for a lock only the first is told when it is given free.
func (a *assembler) convoy(p *pending, end *bpf.UnloadEnd) []unload.Waiter {
	list := []unload.Waiter{}
	for _, w := range p.convoy {
		until := end.At[bpf.UnloadBoundaryAT_END]
		for _, other := range p.convoy {
			if other.Lock == w.Lock && other.Until > w.Since {
				until = min(until, other.Until)
			}
		}
		if until < w.Since {
			continue
		}
		lock, _ := a.names.Function(w.Lock)
		list = append(list, unload.Waiter{
			PID:      int(w.Pid),
			Comm:     text(w.Comm[:]),
			Lock:     lock,
			Duration: int64(until - w.Since),
		})
	}
	slices.SortStableFunc(list, func(a, b unload.Waiter) int { return cmp.Compare(b.Duration, a.Duration) })
	return list
}
