// SPDX-License-Identifier: MIT

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/modtrace/modtrace/test/bench/figure"
	"github.com/modtrace/modtrace/unload"
)

// tracers lists who is measured. The others are given the boundaries that
// modtrace found on this kernel, so it must have run.
func (b *bench) tracers() ([]tracer, error) {
	m := modtraceJSON()
	if b.plan == nil {
		plan, err := attached(m.output())
		if err != nil {
			return nil, err
		}
		b.plan = plan
	}
	all := []tracer{{name: figure.None}, m, modtraceTable()}
	for _, way := range []struct{ name, entry, exit string }{
		{figure.BpftraceFentry, "fentry", "fexit"},
		{figure.BpftraceKprobe, "kprobe", "kretprobe"},
	} {
		file := inScratch(way.name + ".bt")
		if err := os.WriteFile(file, []byte(script(b.plan, way.entry, way.exit)), 0o600); err != nil {
			return nil, err
		}
		all = append(all, bpftrace(way.name, file))
	}
	return append(all, functionGraph(b.plan[0].function)), nil
}

// boundary is a function whose beginning or end is the beginning of a phase.
type boundary struct {
	function string
	exit     bool
}

// attached reads which boundaries modtrace attached to.
func attached(report string) ([]boundary, error) {
	b, err := os.ReadFile(report)
	if err != nil {
		return nil, err
	}
	first, _, _ := strings.Cut(string(b), "\n")
	var h unload.Header
	if err := json.Unmarshal([]byte(first), &h); err != nil {
		return nil, fmt.Errorf("modtrace's header: %w", err)
	}
	var all []boundary
	for _, hook := range h.Plan {
		if hook.Phase == "" && hook.Function != h.Plan[0].Function {
			continue // no boundary
		}
		switch hook.Mechanism {
		case "fentry", "kprobe":
			all = append(all, boundary{hook.Function, false})
		case "fexit", "kretprobe":
			all = append(all, boundary{hook.Function, true})
		}
	}
	if len(all) < 2 || all[0].exit || !all[len(all)-1].exit {
		return nil, errors.New("modtrace's plan does not begin and end with the system call")
	}
	return all, nil
}

// unloadLine begins each line that a script prints.
const unloadLine = "unload "

// script does in bpftrace what modtrace does at the boundaries: note the time
// of those that an unloading task passes, and print them when the call returns.
// Printing at each boundary is what comes to mind first, but costs twice as
// much, and the comparison is to be with bpftrace at its best.
func script(plan []boundary, entry, exit string) string {
	var s strings.Builder
	probe := func(b boundary) string {
		if b.exit {
			return exit + ":" + b.function
		}
		return entry + ":" + b.function
	}
	last := len(plan) - 1
	fmt.Fprintf(&s, "%s { @begin[tid] = nsecs; }\n", probe(plan[0]))
	for i, b := range plan[1:last] {
		fmt.Fprintf(&s, "%s /@begin[tid]/ { @at%d[tid] = nsecs; }\n", probe(b), i+1)
	}
	fmt.Fprintf(&s, "%s /@begin[tid]/ {\n", probe(plan[last]))
	fmt.Fprintf(&s, "\tprintf(\"%s%%s %%d %%d %%d\", comm, tid, @begin[tid], nsecs);\n", unloadLine)
	for i := range plan[1:last] {
		fmt.Fprintf(&s, "\tprintf(\" %%d\", @at%d[tid]);\n\tdelete(@at%d[tid]);\n", i+1, i+1)
	}
	s.WriteString("\tprintf(\"\\n\");\n\tdelete(@begin[tid]);\n}\n")
	return s.String()
}
