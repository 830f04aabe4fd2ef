package tracer

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"

	"github.com/modtrace/modtrace/bpf"
	"github.com/modtrace/modtrace/unload"
)

// loader brings the programs of the plan into the kernel, one hook at a time:
// the first candidate that loads and attaches is taken. What a kernel can do
// is found by trying, never from its version.
type loader struct {
	spec     *ebpf.CollectionSpec
	types    *kernelTypes // of the kernel's, those that matter here
	typed    bool         // the running kernel carries its types itself
	canProbe bool         // whether programs may call bpf_probe_read_kernel
	maps     map[string]*ebpf.Map
	vars     map[string]*ebpf.Variable

	// preemptible says that a task may be taken off the CPU inside a program.
	preemptible bool

	plan     Plan
	programs []*ebpf.Program
	doubles  []double
	links    []link.Link
	symbols  *ebpf.Program // names addresses; nil where the kernel has no such thing
	threads  *link.Iter    // over the kernel's tasks; nil likewise
}

// newLoader loads the maps. btfFile, if not "", holds the kernel's types.
func newLoader(o Options) (*loader, error) {
	spec, err := bpf.LoadUnload()
	if err != nil {
		return nil, fmt.Errorf("reading the BPF object: %w", err)
	}
	l := &loader{
		spec:        spec,
		preemptible: preemptible(),
	}
	if err := l.readTypes(o.BTF); err != nil {
		return nil, err
	}
	if err := l.configure(o); err != nil {
		return nil, err
	}
	return l, l.createMaps()
}

// createMaps makes the maps that the object's programs share.
func (l *loader) createMaps() error {
	// Before 5.11 BPF memory counts against this limit; later it changes
	// nothing, and a failure shows as one of the maps'.
	_ = rlimit.RemoveMemlock()

	only := l.spec.Copy()
	only.Programs = nil
	maps, err := ebpf.NewCollection(only)
	if err != nil {
		return explainLoad("creating BPF maps", err)
	}
	l.maps, l.vars = maps.Maps, maps.Variables
	return nil
}

// readTypes finds the kernel's types: those it carries, and those of a file
// for kernels that carry none.
func (l *loader) readTypes(file string) error {
	if _, err := os.Stat(kernelTypesFile); err == nil {
		l.typed = true
	}
	var err error
	if file == "" {
		l.types, err = readKernelTypes(l.wanted())
	} else {
		var all *btf.Spec
		all, err = btf.LoadSpec(file)
		l.types = &kernelTypes{Spec: all}
	}
	if err == nil {
		return nil
	}
	u := &Unable{What: "cannot read the kernel's types", Err: err}
	switch {
	case errors.Is(err, os.ErrNotExist):
		u.Why, u.Remedy = fmt.Sprintf("%s does not exist", file), "name a file with --btf that holds the BTF of the running kernel"
	case errors.Is(err, os.ErrPermission):
		u.Why, u.Remedy = fmt.Sprintf("%s may not be read", file), "make the file of --btf readable, or run as root"
	case file != "":
		u.Why, u.Remedy = fmt.Sprintf("%s holds no BTF", file), "name a file with --btf that holds the BTF of the running kernel, raw or in an ELF"
	default:
		u.Why, u.Remedy = "/sys/kernel/btf/vmlinux is not understood", "give a file with --btf FILE"
	}
	return u
}

// wanted names the types that programs look at or attach to.
func (l *loader) wanted() map[string]bool {
	names := map[string]bool{}
	if l.spec != nil {
		for typ, err := range l.spec.Types.All() {
			if err == nil {
				name, _, _ := strings.Cut(typ.TypeName(), "___") // a flavour is of the type before it
				names[name] = true
			}
		}
	}
	for _, h := range hooks() {
		names[h.absentWithout] = true
		for _, c := range append(h.candidates, doubles(h.boundary)...) {
			names[target(c)], names[c.notWith] = true, true
		}
	}
	names[target(overTasks(""))] = true
	delete(names, "")
	return names
}

func (l *loader) configure(o Options) error {
	l.canProbe = Lockdown() != confidentiality
	ring := l.spec.Maps["events"]
	if o.RingBytes != 0 {
		ring.MaxEntries = uint32(o.RingBytes)
	}
	set := map[string]any{
		"root_pid":      uint32(o.Below),
		"can_probe":     l.canProbe,
		"wake_at_bytes": ring.MaxEntries / 4,
	}
	for name, value := range set {
		if err := l.spec.Variables[name].Set(value); err != nil {
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
		if h.absentWithout != "" && l.typed && !l.knows(h.absentWithout) {
			t.absent = true
		} else if t.load() {
			attaching.Go(t.attach)
		}
	}
	// Without it, names come from elsewhere.
	l.symbols, _ = l.load(candidate{program: "symbols", mechanism: rawTP})
	l.threads, _ = l.iterate("leftovers")
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
	l.spec, l.types = nil, nil
	return l.order()
}

// overTasks is how a program goes over the kernel's tasks.
func overTasks(program string) candidate {
	return candidate{program: program, mechanism: iterator, function: "task"}
}

// iterate loads and attaches a program that goes over the kernel's tasks whenever
// it is read.
func (l *loader) iterate(program string) (*link.Iter, error) {
	p, err := l.load(overTasks(program))
	if err != nil {
		return nil, err
	}
	it, err := link.AttachIter(link.IterOptions{Program: p})
	return it, errors.Join(err, p.Close()) // the link holds it
}

// leftovers gives the means to find threads in memory that was freed.
func (l *loader) leftovers() func(from, size uint64) ([]bpf.UnloadLeftover, error) {
	return leftovers(l.threads, l.vars["freed_from"], l.vars["freed_size"])
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
		return explainLoad("attaching to "+t.hook.candidates[0].function, t.err)
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
	if !l.preemptible || c.mechanism != fentry && c.mechanism != fexit {
		return nil
	}
	for _, spare := range doubles(t.hook.boundary) {
		if !allowed(spare.mechanism, t.only) {
			continue
		}
		p, err := l.load(spare)
		if err != nil {
			continue
		}
		lk, err := attachProgram(spare, p)
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
		n := misses(p)
		for _, d := range l.doubles {
			if d.first == p {
				n = min(n, misses(d.second))
			}
		}
		total += n
	}
	return total
}

func misses(p *ebpf.Program) int64 {
	s, err := p.Stats()
	if err != nil {
		return 0
	}
	return int64(s.RecursionMisses)
}

// asker gives the means to name kernel addresses.
func (l *loader) asker() func([]uint64) []string {
	if l.symbols != nil {
		return askKernel(l.symbols, l.vars["asked"])
	}
	k := &kallsyms{}
	k.load()
	return k.ask
}

// knows says whether the kernel itself, not a module, has the function or
// tracepoint.
func (l *loader) knows(name string) bool {
	_, err := l.types.AnyTypesByName(name)
	return err == nil
}

// order tells each boundary which attached one comes before it, and the end of
// an unload whether somebody else wakes the reader.
func (l *loader) order() error {
	var after [bpf.UnloadBoundaryBOUNDARIES]uint32
	last, switches := uint32(0), false
	for i, h := range hooks() {
		attached := l.plan[i].Mechanism != ""
		switches = switches || attached && h.candidates[0].function == "sched_switch"
		if h.boundary == noBoundary {
			continue
		}
		after[h.boundary] = last
		if attached {
			last = uint32(h.boundary)
		}
	}
	if err := l.vars["after"].Set(after); err != nil {
		return fmt.Errorf("setting the order of boundaries: %w", err)
	}
	if err := l.vars["wake_at_switch"].Set(switches); err != nil {
		return fmt.Errorf("choosing when the reader is woken: %w", err)
	}
	return nil
}

func (l *loader) arm(on bool) error {
	if err := l.vars["armed"].Set(on); err != nil {
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
	if l.threads != nil {
		errs = append(errs, l.threads.Close())
	}
	for _, m := range l.maps {
		errs = append(errs, m.Close())
	}
	l.links, l.programs, l.doubles, l.maps = nil, nil, nil, nil
	return errors.Join(errs...)
}
