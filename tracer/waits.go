package tracer

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/modtrace/modtrace/bpf"
	"github.com/modtrace/modtrace/cause"
	"github.com/modtrace/modtrace/unload"
)

// maxFolds bounds how many different waits, or stacks of samples, are kept of an
// unload.
const maxFolds = 1024

// fold is what the waits of one kind in one phase add up to.
type fold struct {
	boundary uint32
	wait     unload.Wait
}

// hot is how often a stack was found running in one phase.
type hot struct {
	boundary uint32
	hot      unload.Hot
}

// begunWait is a wait whose end has not been told yet. Its frames are named as it
// begins: later the module may be gone.
type begunWait struct {
	number   uint32
	boundary uint32
	since    uint64
	wait     unload.Wait
}

// beginWait takes a wait, which tells when the one before it ended.
func (a *assembler) beginWait(p *pending, e *bpf.UnloadWait) {
	p.endWait(e.Number-1, e.Until)
	p.waiting = a.begun(e)
}

// endWait ends the wait that was begun last. When that is not the one that is
// meant, the record of one was lost, and how long this lasted is not known.
func (p *pending) endWait(number uint32, until uint64) {
	b := p.waiting
	p.waiting = nil
	if b == nil || b.number != number || until < b.since {
		return
	}
	w := b.wait
	w.Duration = int64(until - b.since)
	w.Longest = w.Duration
	if p.waker != nil && p.waker.number == number {
		w.Waker = p.waker.who
	}
	w.Blocker = blockerByWaker(w)
	p.addWait(b.boundary, w)
}

// addWait folds a wait into those that are like it.
func (p *pending) addWait(boundary uint32, w unload.Wait) {
	key := fmt.Sprint(boundary, w.Cause, w.Blocker, strings.Join(w.Stack, "\n"))
	f := p.waits[key]
	if f == nil && len(p.waits) >= maxFolds {
		key = fmt.Sprint(boundary)
		w = unload.Wait{Cause: unload.CauseOther, Count: 1, Duration: w.Duration, Longest: w.Longest, Stack: []string{}}
		f = p.waits[key]
	}
	if f == nil {
		p.waits[key] = &fold{boundary, w}
		return
	}
	f.wait.Count++
	f.wait.Callbacks = max(f.wait.Callbacks, w.Callbacks)
	f.wait.Duration += w.Duration
	if w.Longest > f.wait.Longest {
		f.wait.Longest, f.wait.Waker = w.Longest, w.Waker
	}
}

// begun tells what a wait is for.
func (a *assembler) begun(e *bpf.UnloadWait) *begunWait {
	b := &begunWait{number: e.Number, boundary: e.Boundary, since: e.Since, wait: unload.Wait{Count: 1, Stack: []string{}}}
	if e.Preempted != 0 {
		b.wait.Cause = unload.CausePreempted // wherever that was
		return b
	}
	b.wait.Stack = belowSwitch(a.names.Of(e.Stack[:e.Depth]))
	b.wait.Cause = cause.Of(b.wait.Stack)
	b.wait.Blocker = a.blocker(e, b.wait.Cause)
	if b.wait.Cause == unload.CauseRCUBarrier {
		b.wait.Callbacks = int64(e.Callbacks)
	}
	return b
}

// blocker says who is waited for, if what was noted is of the kind that the task
// then waited for.
func (a *assembler) blocker(e *bpf.UnloadWait, c unload.Cause) unload.Blocker {
	b := unload.Blocker{}
	switch kind := bpf.UnloadBlockerKind(e.Blocker.Kind); {
	case kind == bpf.UnloadBlockerKindBLOCKER_LOCK && (c == unload.CauseMutex || c == unload.CauseRWSem):
		if e.Blocker.Pid != 0 {
			b = unload.Blocker{Kind: unload.KindTask, PID: int(e.Blocker.Pid), Comm: text(e.Blocker.Comm[:])}
		}
		b.Detail, _ = a.names.Function(e.Blocker.Object)
	case kind == bpf.UnloadBlockerKindBLOCKER_KTHREAD && c == unload.CauseKthreadStop:
		b = unload.Blocker{Kind: unload.KindTask, PID: int(e.Blocker.Pid), Comm: text(e.Blocker.Comm[:])}
	case kind == bpf.UnloadBlockerKindBLOCKER_WORK && c == unload.CauseWorkqueue:
		b.Kind = unload.KindWork
		b.Function, b.Module = a.names.Function(e.Blocker.Function)
	case kind == bpf.UnloadBlockerKindBLOCKER_WORKQUEUE && c == unload.CauseWorkqueue:
		b = unload.Blocker{Kind: unload.KindWorkqueue, Detail: text(e.Blocker.Detail[:])}
	case kind == bpf.UnloadBlockerKindBLOCKER_ASYNC && c == unload.CauseAsyncWork:
		b = asyncCalls(a.pendingCalls(e))
	case c == unload.CauseNetdevUsers && e.Interfaces == 1:
		b = unload.Blocker{Kind: unload.KindInterface, Detail: text(e.Interface[:])}
	case c == unload.CauseNetdevUsers && e.Interfaces > 1: // which, the kernel does not say
		b = unload.Blocker{Kind: unload.KindInterface, Detail: fmt.Sprintf("one of %d", e.Interfaces)}
	}
	return b
}

// pendingCalls names the functions of asynchronous calls that were pending, the oldest
// first.
func (a *assembler) pendingCalls(e *bpf.UnloadWait) []string {
	b := &e.Blocker
	addresses := make([]uint64, 1+len(b.Detail)/8)
	addresses[0] = b.Function
	for i := range addresses[1:] {
		addresses[1+i] = binary.NativeEndian.Uint64(b.Detail[8*i:])
	}
	var calls []string
	for _, address := range addresses[:min(int(b.Pid), len(addresses))] {
		if frame := a.names.At(address); frame != "" && !slices.Contains(calls, call(frame)) {
			calls = append(calls, call(frame))
		}
	}
	return calls
}

// call is a frame without what is only of the instruction.
func call(frame string) string {
	if m := cause.Module(frame); m != "" {
		return cause.Function(frame) + " [" + m + "]"
	}
	return cause.Function(frame)
}

// asyncCalls makes asynchronous calls the blocker, by their functions.
func asyncCalls(calls []string) unload.Blocker {
	if len(calls) == 0 {
		return unload.Blocker{}
	}
	return unload.Blocker{
		Kind: unload.KindWork, Function: cause.Function(calls[0]), Module: cause.Module(calls[0]),
		Detail: strings.Join(calls[1:], ", "),
	}
}

// blockerByWaker adds to the blocker of a wait that is over what its end tells:
// the worker that ran what was waited for, or the last user of a file in sysfs
// (fs/kernfs/dir.c, kernfs_put_active) or of a device, who lets go of it by waking
// the one that waits.
func blockerByWaker(w unload.Wait) unload.Blocker {
	b := w.Blocker
	switch {
	case w.Waker.Kind != unload.KindTask:
	case w.Cause == unload.CauseAsyncWork && b.Detail != "": // which of them ended last is not known
	case b.Kind == unload.KindWork && strings.HasPrefix(w.Waker.Comm, "kworker"):
		b.PID, b.Comm = w.Waker.PID, w.Waker.Comm
	case w.Cause == unload.CauseAsyncWork, w.Cause == unload.CauseDeviceUsers:
		b = unload.Blocker{Kind: unload.KindTask, PID: w.Waker.PID, Comm: w.Waker.Comm}
	case w.Cause == unload.CauseKernfsDrain:
		b = unload.Blocker{Kind: unload.KindFile, PID: w.Waker.PID, Comm: w.Waker.Comm}
	}
	return b
}

// waker is who ends a wait.
type waker struct {
	number uint32 // of the wait
	who    unload.Blocker
}

// waker says who ends a wait: the task that runs then, or an interrupt on top of
// whichever task that is.
func (a *assembler) waker(e *bpf.UnloadWaking) *waker {
	stack := belowWaking(a.names.Of(e.Stack[:e.Depth]))
	if i := slices.IndexFunc(stack, interrupts); i >= 0 {
		return &waker{e.Number, unload.Blocker{Kind: unload.KindInterrupt, Stack: stack[:i+1]}}
	}
	return &waker{e.Number, unload.Blocker{Kind: unload.KindTask, PID: int(e.Pid), Comm: text(e.Comm[:]), Stack: stack}}
}

// interrupts says whether a frame is where an interrupt entered the kernel, on
// x86 (arch/x86/include/asm/idtentry.h) or arm64 (arch/arm64/kernel/entry.S,
// entry-common.c).
func interrupts(frame string) bool {
	f := cause.Function(frame)
	return strings.HasPrefix(f, "asm_sysvec_") || f == "asm_common_interrupt" || f == "asm_call_irq_on_stack" ||
		f == "asm_exc_nmi" || f == "el1h_64_irq" || f == "el0t_64_irq" || f == "el1_irq" || f == "el0_irq"
}

// belowSwitch drops what is on top of a stack that was taken as the task left
// the CPU, and what is below the system call.
func belowSwitch(stack []string) []string {
	return withinCall(below(stack, "__schedule"))
}

func belowWaking(stack []string) []string { return below(stack, "try_to_wake_up") }

// belowInterrupt drops the interrupt on top of which a sample was taken.
func belowInterrupt(stack []string) []string {
	if i := slices.IndexFunc(stack, interrupts); i >= 0 {
		stack = stack[i+1:]
	}
	return withinCall(stack)
}

// below is what is below the given function, or all if it is not there.
func below(stack []string, function string) []string {
	i := slices.IndexFunc(stack, func(frame string) bool { return cause.Function(frame) == function })
	return stack[i+1:]
}

// withinCall cuts a stack below delete_module: who called that is known.
func withinCall(stack []string) []string {
	i := slices.IndexFunc(stack, func(frame string) bool {
		return strings.HasSuffix(cause.Function(frame), "_sys_delete_module")
	})
	if i >= 0 {
		stack = stack[:i+1]
	}
	return withoutTrampolines(stack)
}

// withoutTrampolines drops the frames of programs that watch the functions on a
// stack, and the first few instructions of a watched function below its rest.
func withoutTrampolines(stack []string) []string {
	kept, hooked := []string{}, false
	for _, frame := range stack {
		f := cause.Function(frame)
		if strings.HasPrefix(f, "bpf_trampoline_") || strings.HasPrefix(f, "bpf_prog_") {
			hooked = true
			continue
		}
		if hooked && len(kept) > 0 && cause.Function(kept[len(kept)-1]) == f {
			hooked = false
			continue
		}
		kept, hooked = append(kept, frame), false
	}
	return kept
}

// addSample counts a stack in which the task was found running.
func (a *assembler) addSample(p *pending, e *bpf.UnloadSample) {
	p.addHot(e.Boundary, belowInterrupt(a.names.Of(e.Stack[:e.Depth])))
}

func (p *pending) addHot(boundary uint32, stack []string) {
	key := fmt.Sprint(boundary, strings.Join(stack, "\n"))
	h := p.hot[key]
	if h == nil {
		if len(p.hot) >= maxFolds {
			return
		}
		h = &hot{boundary, unload.Hot{Stack: stack}}
		p.hot[key] = h
	}
	h.hot.Samples++
}

// distribute gives each phase its waits and samples, the largest first. at leads
// from a boundary to the phase, of which it may be a merged part.
func distribute(p *pending, phases []unload.Phase, at []int) {
	for _, f := range p.waits {
		phase := &phases[at[f.boundary]]
		phase.Waits = append(phase.Waits, f.wait)
	}
	for _, h := range p.hot {
		phase := &phases[at[h.boundary]]
		phase.Hot = append(phase.Hot, h.hot)
	}
	for i := range phases {
		slices.SortFunc(phases[i].Waits, func(a, b unload.Wait) int {
			return cmp.Or(cmp.Compare(b.Duration, a.Duration), slices.Compare(a.Stack, b.Stack))
		})
		slices.SortFunc(phases[i].Hot, func(a, b unload.Hot) int {
			return cmp.Or(cmp.Compare(b.Samples, a.Samples), slices.Compare(a.Stack, b.Stack))
		})
	}
}
