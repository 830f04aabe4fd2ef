package klog

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Oops is the death of a task in the kernel.
type Oops struct {
	At    time.Duration // as in Line
	PID   int
	Comm  string
	Stack []string // innermost first; only frames that are certain
	Going []string // modules that were being unloaded
	Lines []Line   // what it begins with, up to the registers
}

// What the lines of an oops look like: on x86 arch/x86/kernel/dumpstack.c, on
// arm64 arch/arm64/kernel/traps.c and process.c; on both lib/dump_stack.c and
// kernel/module/main.c, print_modules.
var (
	died    = regexp.MustCompile(`\[#\d+\]`)
	begins  = regexp.MustCompile(`^(BUG: |kernel BUG at |Unable to handle kernel |general protection fault)`)
	task    = regexp.MustCompile(`\bPID: (\d+) Comm: (.*?) (?:Tainted|Not tainted)`)
	where   = regexp.MustCompile(`^(?:RIP: [0-9a-f]+:|pc : )(\S+\+0x[0-9a-f]+/0x[0-9a-f]+(?: \[.*\])?)`)
	caller  = regexp.MustCompile(`^ (\S+\+0x[0-9a-f]+/0x[0-9a-f]+(?: \[.*?\])?)`)
	linked  = regexp.MustCompile(`^Modules linked in: (.*)`)
	leaving = regexp.MustCompile(`(\S+)\([A-Z]*-[A-Z]*\)`)
)

// preface is how many lines before the one that counts the deaths belong to it.
const preface = 12

// Oopses finds the tasks that died, in order.
func Oopses(lines []Line) []Oops {
	var all []Oops
	var o *Oops
	for i, l := range lines {
		switch {
		case died.MatchString(l.Text):
			all = append(all, begin(lines[:i+1]))
			o = &all[len(all)-1]
		case o != nil && strings.HasPrefix(l.Text, "---[ end trace"):
			o = nil
		case o != nil:
			o.add(l)
		}
	}
	return all
}

// begin starts an oops at the last of lines, which counts it: what went wrong is
// said a few lines before, and arm64 may have listed the modules already.
func begin(lines []Line) Oops {
	last := len(lines) - 1
	first := last
	for i := last; i >= max(0, last-preface) && !strings.HasPrefix(lines[i].Text, "---["); i-- {
		if begins.MatchString(lines[i].Text) {
			first = i
		}
	}
	return Oops{At: lines[first].At, Lines: slices.Clone(lines[first:])}
}

func (o *Oops) add(l Line) {
	if m := task.FindStringSubmatch(l.Text); m != nil && o.PID == 0 {
		o.PID, _ = strconv.Atoi(m[1])
		o.Comm = m[2]
	}
	if m := where.FindStringSubmatch(l.Text); m != nil && len(o.Stack) == 0 {
		o.Stack = append(o.Stack, m[1])
		o.Lines = append(o.Lines, l)
	}
	// Where the trace begins, the innermost frame may come again.
	if m := caller.FindStringSubmatch(l.Text); m != nil && (len(o.Stack) == 0 || m[1] != o.Stack[0]) {
		o.Stack = append(o.Stack, m[1])
	}
	if m := linked.FindStringSubmatch(l.Text); m != nil {
		for _, module := range leaving.FindAllStringSubmatch(m[1], -1) {
			o.Going = append(o.Going, module[1])
		}
	}
}
