package tracer

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/modtrace/modtrace/object"
	"github.com/modtrace/modtrace/unload"
)

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
		if !allowed(c.Mechanism, t.only) {
			t.reasons = append(t.reasons, c.Mechanism+" not wanted")
			continue
		}
		if c.NotWith != "" && t.loader.Knows(c.NotWith) {
			t.err = fmt.Errorf("%w as a whole", object.ErrNoTarget)
		} else if t.program, t.err = t.loader.Load(c); t.err == nil {
			return true
		}
		t.failedBecause(c)
	}
	return false
}

// attach attaches what was loaded.
func (t *try) attach() {
	c := t.hook.candidates[t.next]
	t.link, t.err = object.Attach(c, t.program)
	if t.err != nil {
		t.failedBecause(c)
		t.err = errors.Join(t.err, t.program.Close())
	}
}

// failed says that a candidate was loaded and could not be attached.
func (t *try) failed() bool {
	return !t.absent && t.link == nil && t.next < len(t.hook.candidates)
}

func (t *try) failedBecause(c object.Candidate) {
	t.reasons = append(t.reasons, fmt.Sprintf("%s %s: %s", c.Mechanism, c.Function, object.Shortly(t.err)))
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

func allowed(mechanism string, only []string) bool {
	return len(only) == 0 || slices.Contains(only, mechanism)
}
