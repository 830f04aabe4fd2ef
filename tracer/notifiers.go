package tracer

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/modtrace/modtrace/bpf"
	"github.com/modtrace/modtrace/cause"
	"github.com/modtrace/modtrace/symbols"
	"github.com/modtrace/modtrace/unload"
)

// afterUnseen is AFTER_UNSEEN of bpf/event.h.
const afterUnseen = 1 << 63

// calledBack are the callbacks that were seen, in the order in which they were called.
func calledBack(e *bpf.UnloadEnd) []bpf.UnloadCallback {
	return e.Callback[:min(int(e.Callbacks), len(e.Callback))]
}

// notifiers lists the callbacks of the module notifier chain in the order in which
// they were called. Each lasts until the next, and the last until the chain's end.
// missing is told of those that found no room, or came on the chain after modtrace:
// the one before them has their time.
func (a *assembler) notifiers(e *bpf.UnloadEnd, missing *[]string) []unload.Notifier {
	list := []unload.Notifier{}
	end := notified(e)
	called := calledBack(e)
	for i, c := range called {
		until, alone := end, e.Behind == 0
		if i+1 < len(called) {
			next := called[i+1].Since
			until, alone = next&^afterUnseen, next&afterUnseen == 0
		}
		n := unload.Notifier{Duration: max(int64(until-c.Since&^afterUnseen), 0), Exact: alone}
		n.Callback, n.Module = a.names.Function(c.Function)
		list = append(list, n)
	}
	switch more := int(e.Callbacks) - len(called) + int(e.Unseen); {
	case more == 1:
		*missing = append(*missing, "1 callback on the notifier chain counts into the one before it")
	case more > 0:
		*missing = append(*missing, fmt.Sprintf("%d callbacks on the notifier chain count into the one before them", more))
	}
	return list
}

// notifiersByStack lists the callbacks that the task waited in, or was found running
// in, where they cannot be told apart otherwise; onCPU is how long it ran in all.
func (p *pending) notifiersByStack(onCPU int64) []unload.Notifier {
	list := []unload.Notifier{}
	add := func(stack []string, ns int64) {
		frame, ok := callbackIn(stack)
		if !ok || ns == 0 {
			return
		}
		n := unload.Notifier{Callback: cause.Function(frame), Module: cause.Module(frame)}
		i := slices.IndexFunc(list, func(o unload.Notifier) bool { return o.Callback == n.Callback && o.Module == n.Module })
		if i < 0 {
			i, list = len(list), append(list, n)
		}
		list[i].Duration += ns
	}
	var samples int64
	for _, h := range p.hot {
		if h.boundary == uint32(bpf.UnloadBoundaryAT_NOTIFY) {
			samples += h.hot.Samples
		}
	}
	for _, h := range p.hot {
		if h.boundary == uint32(bpf.UnloadBoundaryAT_NOTIFY) {
			add(h.hot.Stack, int64(float64(onCPU)*float64(h.hot.Samples)/float64(samples)))
		}
	}
	for _, f := range p.waits {
		if f.boundary == uint32(bpf.UnloadBoundaryAT_NOTIFY) {
			add(f.wait.Stack, f.wait.Duration)
		}
	}
	slices.SortFunc(list, func(a, b unload.Notifier) int {
		return cmp.Or(cmp.Compare(b.Duration, a.Duration), cmp.Compare(a.Callback, b.Callback), cmp.Compare(a.Module, b.Module))
	})
	return list
}

// callbackIn finds the frame of the callback in a stack: the one on top of the
// outermost functions that go along a chain (kernel/notifier.c), of which the inner
// one may be inlined. The outer one takes the chain's lock too.
func callbackIn(stack []string) (frame string, ok bool) {
	for i := len(stack) - 1; i > 0; i-- {
		f, below := stack[i-1], cause.Function(stack[i])
		switch {
		case below != "notifier_call_chain" && below != "blocking_notifier_call_chain", cause.Function(f) == "notifier_call_chain":
		case below == "blocking_notifier_call_chain" && locks(cause.Function(f)), f == symbols.Unnamed:
			return "", false
		default:
			return f, true
		}
	}
	return "", false
}

// locks says that a function takes or drops a rw_semaphore.
func locks(function string) bool {
	return strings.HasPrefix(function, "down_read") || strings.HasPrefix(function, "up_read") || strings.HasPrefix(function, "rwsem_")
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
	for _, c := range calledBack(e) {
		since := c.Since &^ afterUnseen
		if last == 0 || since < last {
			return false
		}
		last = since
	}
	return last <= notified(e)
}
