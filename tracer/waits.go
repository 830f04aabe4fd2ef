package tracer

import (
	"cmp"
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

// addWait folds a wait into those that are like it.
func (a *assembler) addWait(p *pending, e *bpf.UnloadWait) {
	w := a.wait(e)
	key := fmt.Sprint(e.Boundary, w.Cause, w.Blocker, strings.Join(w.Stack, "\n"))
	f := p.waits[key]
	if f == nil {
		if len(p.waits) >= maxFolds {
			w = unload.Wait{Cause: unload.CauseOther, Count: 1, Duration: w.Duration, Longest: w.Duration, Stack: []string{}}
			key = fmt.Sprint(e.Boundary)
			f = p.waits[key]
		}
		if f == nil {
			p.waits[key] = &fold{e.Boundary, w}
			return
		}
	}
	f.wait.Count++
	f.wait.Duration += w.Duration
	if w.Longest > f.wait.Longest {
		f.wait.Longest, f.wait.Waker = w.Longest, w.Waker
	}
}

// wait tells what one wait was for.
func (a *assembler) wait(e *bpf.UnloadWait) unload.Wait {
	d := int64(e.Until - e.Since)
	w := unload.Wait{Count: 1, Duration: d, Longest: d, Stack: []string{}}
	if e.Preempted != 0 {
		w.Cause = unload.CausePreempted // wherever that was
		return w
	}
	w.Stack = belowSwitch(a.names.of(e.Stack[:e.Depth]))
	w.Cause = cause.Of(w.Stack)
	if e.Woken != 0 {
		w.Waker = a.waker(e)
	}
	w.Blocker = a.blocker(e, w)
	return w
}

// blocker says who was waited for, if what was noted is of the kind that the
// task then waited for.
func (a *assembler) blocker(e *bpf.UnloadWait, w unload.Wait) unload.Blocker {
	b := unload.Blocker{}
	switch kind := bpf.UnloadBlockerKind(e.Blocker.Kind); {
	case kind == bpf.UnloadBlockerKindBLOCKER_LOCK && (w.Cause == unload.CauseMutex || w.Cause == unload.CauseRWSem),
		kind == bpf.UnloadBlockerKindBLOCKER_KTHREAD && w.Cause == unload.CauseKthreadStop:
		if e.Blocker.Pid != 0 {
			b = unload.Blocker{Kind: unload.KindTask, PID: int(e.Blocker.Pid), Comm: text(e.Blocker.Comm[:])}
		}
	case kind == bpf.UnloadBlockerKindBLOCKER_WORK && w.Cause == unload.CauseWorkqueue:
		b.Kind = unload.KindWork
		b.Function, b.Module = a.names.function(e.Blocker.Function)
		if strings.HasPrefix(w.Waker.Comm, "kworker") {
			b.PID, b.Comm = w.Waker.PID, w.Waker.Comm
		}
	case kind == bpf.UnloadBlockerKindBLOCKER_WORKQUEUE && w.Cause == unload.CauseWorkqueue:
		b = unload.Blocker{Kind: unload.KindWorkqueue, Detail: text(e.Blocker.Detail[:])}
	case kind == bpf.UnloadBlockerKindBLOCKER_KERNFS && w.Cause == unload.CauseKernfsDrain:
		b = unload.Blocker{Kind: unload.KindFile, Detail: text(e.Blocker.Detail[:])}
	case w.Cause == unload.CauseNetdevUsers && e.Interfaces == 1:
		b = unload.Blocker{Kind: unload.KindInterface, Detail: text(e.Interface[:])}
	case w.Cause == unload.CauseNetdevUsers && e.Interfaces > 1: // which, the kernel does not say
		b = unload.Blocker{Kind: unload.KindInterface, Detail: fmt.Sprintf("one of %d", e.Interfaces)}
	}
	return b
}

// waker says who ended a wait: the task that ran then, or an interrupt on top
// of whichever task that was.
func (a *assembler) waker(e *bpf.UnloadWait) unload.Blocker {
	stack := belowWaking(a.names.of(e.WakerStack[:e.WakerDepth]))
	if i := slices.IndexFunc(stack, interrupts); i >= 0 {
		return unload.Blocker{Kind: unload.KindInterrupt, Stack: stack[:i+1]}
	}
	return unload.Blocker{Kind: unload.KindTask, PID: int(e.WakerPid), Comm: text(e.WakerComm[:]), Stack: stack}
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
	p.addHot(e.Boundary, belowInterrupt(a.names.of(e.Stack[:e.Depth])))
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
