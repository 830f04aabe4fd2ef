package tracer

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/cilium/ebpf"

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
	chain   []uint64 // the addresses to attach it to, when that is a chain
	link    io.Closer
	err     error    // why the one at hand failed
	reasons []string // why those before it did
}

// load goes on to the next candidate that loads. It returns false when there
// is none.
func (t *try) load() bool {
	for t.next++; t.next < len(t.hook.candidates); t.next++ {
		c := t.hook.candidates[t.next]
		if !object.Allowed(c.Mechanism, t.only) {
			t.reasons = append(t.reasons, c.Mechanism+" not wanted")
			continue
		}
		if c.NotWith != "" && t.loader.Knows(c.NotWith) {
			t.err = fmt.Errorf("%w as a whole", object.ErrNoTarget)
		} else if t.program, t.chain, t.err = t.loader.loadCandidate(c); t.err == nil {
			return true
		}
		t.failedBecause(c)
	}
	return false
}

// attach attaches what was loaded.
func (t *try) attach() {
	c := t.hook.candidates[t.next]
	if t.link, t.err = attachProgram(c, t.program, t.chain); t.err != nil {
		t.link = nil
		t.failedBecause(c)
		t.err = errors.Join(t.err, t.program.Close())
		return
	}
	if k, ok := t.link.(*kprobes); ok {
		t.err = t.loader.Vars["unprobed"].Set(uint32(len(k.refused)))
		if lacks := k.lacks(); lacks != "" {
			t.reasons = append(t.reasons, lacks)
		}
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

// loadCandidate loads a program, and finds the chain that it is for.
func (l *loader) loadCandidate(c object.Candidate) (prog *ebpf.Program, chain []uint64, err error) {
	if c.OnChain {
		if chain, err = l.readChain(); err != nil {
			return nil, nil, err
		}
	}
	prog, err = l.Load(c)
	return prog, chain, err
}

// attachProgram attaches to what the candidate names, or to the callbacks of a chain.
func attachProgram(c object.Candidate, prog *ebpf.Program, chain []uint64) (io.Closer, error) {
	if !c.OnChain {
		return object.Attach(c, prog)
	}
	k, err := attachToEach(chain, prog)
	if err != nil {
		return nil, err
	}
	return k, nil
}
