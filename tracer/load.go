package tracer

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/modtrace/modtrace/bpf"
	"github.com/modtrace/modtrace/object"
	"github.com/modtrace/modtrace/symbols"
	"github.com/modtrace/modtrace/unload"
)

// loader brings the programs of the plan into the kernel, one hook at a time:
// the first candidate that loads and attaches is taken.
type loader struct {
	*object.Object

	// preemptible says that a task may be taken off the CPU inside a program.
	preemptible bool

	plan     Plan
	programs []*ebpf.Program
	doubles  []double
	links    []io.Closer
	located  bool          // what has no type was looked up
	symbols  *ebpf.Program // names addresses; nil where the kernel has no such thing
	threads  *link.Iter    // over the kernel's tasks; nil likewise
}

// newLoader loads the maps. btfFile, if not "", holds the kernel's types.
func newLoader(o Options) (*loader, error) {
	spec, err := bpf.LoadUnload()
	if err != nil {
		return nil, fmt.Errorf("reading the BPF object: %w", err)
	}
	l := &loader{preemptible: preemptible()}
	if l.Object, err = object.Open(spec, o.BTF, targets()...); err != nil {
		return nil, err
	}
	if err := configure(spec, o, l.CanProbe); err != nil {
		return nil, err
	}
	return l, l.CreateMaps()
}

// targets are what programs attach to, and what tells how.
func targets() []string {
	var names []string
	for _, h := range hooks() {
		names = append(names, h.absentWithout)
		for _, c := range append(h.candidates, doubles(h.boundary)...) {
			names = append(names, c.Target(), c.NotWith)
		}
	}
	return names
}

func configure(spec *ebpf.CollectionSpec, o Options, canProbe bool) error {
	ring := spec.Maps["events"]
	if o.RingBytes != 0 {
		ring.MaxEntries = uint32(o.RingBytes)
	}
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return fmt.Errorf("counting processors: %w", err)
	}
	set := map[string]any{
		"cpus":          uint32(cpus),
		"root_pid":      uint32(o.Below),
		"can_probe":     canProbe,
		"wake_at_bytes": ring.MaxEntries / 4,
	}
	for name, value := range set {
		if err := spec.Variables[name].Set(value); err != nil {
			return fmt.Errorf("setting %s: %w", name, err)
		}
	}
	return nil
}

// attach executes the plan. Programs stay inert until they are armed. While
// the kernel attaches one, which is mostly waiting, the next is loaded.
func (l *loader) attach(only []string) error {
	var tries []*try
	var attaching sync.WaitGroup
	for _, h := range hooks() {
		t := &try{loader: l, hook: h, only: only, next: -1}
		tries = append(tries, t)
		if h.absentWithout != "" && l.Typed && !l.Knows(h.absentWithout) {
			t.absent = true
		} else if t.load() {
			attaching.Go(t.attach)
		}
	}
	// Without it, names come from elsewhere.
	l.symbols, _ = l.Load(object.Candidate{Program: "symbols", Mechanism: object.Run})
	l.threads, _ = l.Iterate("leftovers", "task")
	l.locate()
	attaching.Wait()
	for _, t := range tries {
		for t.failed() && t.load() {
			t.attach()
		}
		if err := l.keep(t); err != nil {
			return err
		}
	}
	// What was only needed to load is large.
	l.Forget()
	return l.order()
}

// leftovers gives the means to find threads in memory that was freed.
func (l *loader) leftovers() func(from, size uint64) ([]bpf.UnloadLeftover, error) {
	return leftovers(l.threads, l.Vars["freed_from"], l.Vars["freed_size"])
}

// sees says whether what happens at a function or tracepoint is seen.
func (l *loader) sees(function string) bool {
	return slices.ContainsFunc(l.plan, func(h unload.Hook) bool { return h.Function == function && h.Mechanism != "" })
}

// keep takes over what came of a try.
func (l *loader) keep(t *try) error {
	l.plan = append(l.plan, t.planned())
	if t.link != nil {
		l.programs = append(l.programs, t.program)
		l.links = append(l.links, t.link)
		if err := l.double(t); err != nil {
			return err
		}
	}
	if t.link == nil && t.hook.required {
		return object.Explain("attaching to "+t.hook.candidates[0].Function, t.err)
	}
	return nil
}

// double attaches a second program to an unload's beginning and end, where tasks
// may be preempted inside a program: the kernel skips a program for whoever comes
// to it on the same processor meanwhile (kernel/bpf/trampoline.c,
// __bpf_prog_enter_recur), and an unload whose beginning is skipped would not be
// reported at all. The second does nothing where the first has run.
func (l *loader) double(t *try) error {
	c := t.hook.candidates[t.next]
	if !l.preemptible || c.Mechanism != object.Fentry && c.Mechanism != object.Fexit {
		return nil
	}
	for _, spare := range doubles(t.hook.boundary) {
		if !object.Allowed(spare.Mechanism, t.only) {
			continue
		}
		p, err := l.Load(spare)
		if err != nil {
			continue
		}
		lk, err := object.Attach(spare, p)
		if err != nil {
			if err := p.Close(); err != nil {
				return err
			}
			continue
		}
		l.links = append(l.links, lk)
		l.doubles = append(l.doubles, double{t.program, p})
		return nil
	}
	return nil
}

// double is a program that stands in for another.
type double struct{ first, second *ebpf.Program }

// missed counts how often a program could not run and no double did; it cannot
// be told which calls either of a pair was skipped for, so the count is an upper
// bound.
func (l *loader) missed() (total int64) {
	for _, p := range l.programs {
		n := object.Misses(p)
		for _, d := range l.doubles {
			if d.first == p {
				n = min(n, object.Misses(d.second))
			}
		}
		total += n
	}
	return total
}

// asker gives the means to name kernel addresses.
func (l *loader) asker() func([]uint64) []string {
	if l.symbols != nil {
		return symbols.AskKernel(l.symbols, l.Vars["asked"])
	}
	return symbols.Kallsyms()
}

// order tells each boundary which attached one comes before it, and the end of
// an unload whether somebody else wakes the reader.
func (l *loader) order() error {
	var after [bpf.UnloadBoundaryBOUNDARIES]uint32
	last, switches := uint32(0), false
	for i, h := range hooks() {
		attached := l.plan[i].Mechanism != ""
		switches = switches || attached && h.candidates[0].Function == "sched_switch"
		if h.boundary == noBoundary {
			continue
		}
		after[h.boundary] = last
		if attached {
			last = uint32(h.boundary)
		}
	}
	if err := l.Vars["after"].Set(after); err != nil {
		return fmt.Errorf("setting the order of boundaries: %w", err)
	}
	if err := l.Vars["wake_at_switch"].Set(switches); err != nil {
		return fmt.Errorf("choosing when the reader is woken: %w", err)
	}
	return nil
}

func (l *loader) arm(on bool) error {
	if err := l.Vars["armed"].Set(on); err != nil {
		return fmt.Errorf("arming the programs: %w", err)
	}
	return nil
}

// close takes the programs off their hooks and frees them. On some kernels
// each program waits for a grace period of its own here, a tenth of a second.
func (l *loader) close() error {
	var errs []error
	for _, lk := range l.links {
		errs = append(errs, lk.Close())
	}
	for _, p := range l.programs {
		errs = append(errs, p.Close())
	}
	for _, d := range l.doubles {
		errs = append(errs, d.second.Close())
	}
	if l.symbols != nil {
		errs = append(errs, l.symbols.Close())
	}
	l.links, l.programs, l.doubles = nil, nil, nil
	return errors.Join(append(errs, l.Close())...)
}
