// SPDX-License-Identifier: MIT

package lab

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
)

// testEvent is one line of go tool test2json.
type testEvent struct {
	Action string
	Test   string
	Output string
}

// eventTree makes subtests of t out of a stream of events: each test of the
// guest is a subtest of the host that lasts until the guest's has ended.
type eventTree struct {
	root  *testing.T
	nodes map[string]*testNode
	open  sync.WaitGroup
	ran   int
	fails int
}

// testNode is a test of the guest. Its goroutine runs the subtest; the channels
// are how it hears of events.
type testNode struct {
	t      *testing.T // nil when the host's -run leaves it out
	ready  chan struct{}
	events chan testEvent
	open   sync.WaitGroup // its own subtests
}

func newEventTree(t *testing.T) *eventTree {
	return &eventTree{root: t, nodes: map[string]*testNode{}}
}

// follow reads events until the stream ends.
func (e *eventTree) follow(r io.Reader) error {
	dec := json.NewDecoder(r)
	for {
		var ev testEvent
		err := dec.Decode(&ev)
		if err == io.EOF {
			break
		}
		if err != nil {
			e.end()
			return fmt.Errorf("reading the guest's test events: %w", err)
		}
		e.take(ev)
	}
	e.end()
	return nil
}

// end closes what the guest left open.
func (e *eventTree) end() {
	for _, n := range e.nodes {
		close(n.events)
	}
	e.nodes = map[string]*testNode{}
	e.open.Wait()
}

func (e *eventTree) take(ev testEvent) {
	if ev.Test == "" {
		if ev.Action == "output" && !framework(ev.Output) {
			pass(e.root, ev.Output)
		}
		return
	}
	n := e.nodes[ev.Test]
	switch {
	case ev.Action == "run" && n == nil:
		e.start(ev.Test)
	case n == nil:
		// An event after the test's end has nobody to go to.
		pass(e.root, ev.Output)
	case ended(ev.Action):
		delete(e.nodes, ev.Test)
		e.ran++
		if ev.Action == "fail" {
			e.fails++
		}
		n.events <- ev
		close(n.events)
	default:
		n.events <- ev
	}
}

// pass hands on what a test of the guest printed.
func pass(t *testing.T, text string) { _, _ = io.WriteString(t.Output(), text) }

func ended(action string) bool {
	return action == "pass" || action == "fail" || action == "skip"
}

// framework says whether a line of output is the test runner's own, which the
// host's runner prints itself.
func framework(line string) bool {
	s := strings.TrimLeft(line, " \x16")
	for _, p := range []string{"=== RUN ", "=== PAUSE ", "=== CONT ", "=== NAME ", "--- PASS: ", "--- FAIL: ", "--- SKIP: "} {
		if strings.HasPrefix(s, p) {
			return true
		}
	}
	return strings.TrimSpace(s) == "PASS" || strings.TrimSpace(s) == "FAIL"
}

// start begins a subtest. Subtests of one parent may run side by side: a guest's
// test can be parallel, and its end is told only with that of the outermost one.
func (e *eventTree) start(name string) {
	n := &testNode{ready: make(chan struct{}), events: make(chan testEvent, 64)}
	e.nodes[name] = n
	base := name
	var parent *testNode
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		// A name may have a slash of its own: take the longest that is a test.
		for ; i >= 0 && parent == nil; i = strings.LastIndexByte(name[:i], '/') {
			parent = e.nodes[name[:i]]
			if parent != nil {
				base = name[i+1:]
			}
		}
	}
	open := &e.open
	if parent != nil {
		open = &parent.open
	}
	open.Add(1)
	go func() {
		defer open.Done()
		t := e.root
		if parent != nil {
			<-parent.ready
			t = parent.t
		}
		if t != nil {
			t.Run(base, n.serve)
		}
		n.drain()
	}()
}

// serve is the body of the subtest.
func (n *testNode) serve(t *testing.T) {
	n.t = t
	close(n.ready)
	var last testEvent
	for ev := range n.events {
		last = ev
		if ev.Action == "output" && !framework(ev.Output) {
			pass(t, strings.TrimPrefix(ev.Output, "    "))
		}
	}
	n.open.Wait()
	switch last.Action {
	case "pass":
	case "skip":
		t.SkipNow()
	case "fail":
		t.Fail()
	default:
		t.Error("the guest ended before this test did")
	}
}

// drain lets a test pass by that the host's -run leaves out.
func (n *testNode) drain() {
	select {
	case <-n.ready:
	default:
		close(n.ready)
	}
	for range n.events {
	}
	n.open.Wait()
}
