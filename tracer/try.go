package tracer

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/modtrace/modtrace/unload"
)

var errNoTarget = errors.New("not in this kernel")

// try is the search for a way to see one hook: its candidates are loaded and
// attached in turn until one works.
type try struct {
	loader *loader
	hook   hook
	only   []string // mechanisms that may be used; empty is all
	absent bool     // the kernel does not do what is watched

	next    int // the candidate at hand
	program *ebpf.Program
	link    link.Link
	err     error    // why the one at hand failed
	reasons []string // why those before it did
}

// load goes on to the next candidate that loads. It returns false when there
// is none.
func (t *try) load() bool {
	for t.next++; t.next < len(t.hook.candidates); t.next++ {
		c := t.hook.candidates[t.next]
		if !allowed(c.mechanism, t.only) {
			t.reasons = append(t.reasons, c.mechanism+" not wanted")
			continue
		}
		if c.notWith != "" && t.loader.knows(c.notWith) {
			t.err = fmt.Errorf("%w as a whole", errNoTarget)
		} else if t.program, t.err = t.loader.load(c); t.err == nil {
			return true
		}
		t.failedBecause(c)
	}
	return false
}

// attach attaches what was loaded.
func (t *try) attach() {
	c := t.hook.candidates[t.next]
	t.link, t.err = attachProgram(c, t.program)
	if t.err != nil {
		t.failedBecause(c)
		t.err = errors.Join(t.err, t.program.Close())
	}
}

// failed says that a candidate was loaded and could not be attached.
func (t *try) failed() bool {
	return !t.absent && t.link == nil && t.next < len(t.hook.candidates)
}

func (t *try) failedBecause(c candidate) {
	t.reasons = append(t.reasons, fmt.Sprintf("%s %s: %s", c.mechanism, c.function, shortly(t.err)))
}

// planned is the plan's entry for what came of it.
func (t *try) planned() unload.Hook {
	p := planned(t.hook)
	switch {
	case t.absent:
		settleAbsent(&p, t.hook)
	default:
		settle(&p, t.hook, t.next, strings.Join(t.reasons, "; "))
	}
	return p
}

// load loads the program of one candidate.
func (l *loader) load(c candidate) (*ebpf.Program, error) {
	if attachTypes[c.mechanism] != ebpf.AttachNone {
		if !l.typed || !l.knows(target(c)) {
			return nil, errNoTarget
		}
		return l.loadByNumber(c)
	}
	spec := *l.spec
	spec.Programs = map[string]*ebpf.ProgramSpec{c.program: l.spec.Programs[c.program]}
	coll, err := ebpf.NewCollectionWithOptions(&spec, ebpf.CollectionOptions{
		MapReplacements: l.maps,
		Programs:        ebpf.ProgramOptions{KernelTypes: l.types.Spec},
	})
	if err != nil {
		return nil, err
	}
	defer coll.Close()
	return coll.DetachProgram(c.program), nil
}

// target is the name under which the kernel's types know what c attaches to.
func target(c candidate) string {
	switch c.mechanism {
	case tpBTF:
		return "btf_trace_" + c.function
	case iterator:
		return "bpf_iter_" + c.function
	}
	return c.function
}

func allowed(mechanism string, only []string) bool {
	return len(only) == 0 || slices.Contains(only, mechanism)
}

func attachProgram(c candidate, prog *ebpf.Program) (link.Link, error) {
	switch c.mechanism {
	case kprobe:
		return link.Kprobe(c.function, prog, nil)
	case kretprobe:
		return link.Kretprobe(c.function, prog, nil)
	case rawTP:
		return link.AttachRawTracepoint(link.RawTracepointOptions{Name: c.function, Program: prog})
	default:
		return link.AttachTracing(link.TracingOptions{Program: prog})
	}
}
