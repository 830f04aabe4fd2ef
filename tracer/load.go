package tracer

import (
	"errors"
	"fmt"
	"os"
	"strings"

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
	spec  *ebpf.CollectionSpec
	types *btf.Spec  // the kernel's, where programs attach by type
	typed bool       // the running kernel carries its types itself
	cache *btf.Cache // so that they are decoded once
	maps  map[string]*ebpf.Map
	vars  map[string]*ebpf.Variable

	plan     Plan
	programs []*ebpf.Program
	links    []link.Link
}

// newLoader loads the maps. btfFile, if not "", holds the kernel's types.
func newLoader(o Options) (_ *loader, err error) {
	spec, err := bpf.LoadUnload()
	if err != nil {
		return nil, fmt.Errorf("reading the BPF object: %w", err)
	}
	l := &loader{spec: spec, cache: btf.NewCache()}
	if err := l.readTypes(o.BTF); err != nil {
		return nil, err
	}
	if err := l.configure(o); err != nil {
		return nil, err
	}
	// Before 5.11 BPF memory counts against this limit; later it changes
	// nothing, and a failure shows as one of the maps'.
	_ = rlimit.RemoveMemlock()

	only := spec.Copy()
	only.Programs = nil
	maps, err := ebpf.NewCollectionWithOptions(only, ebpf.CollectionOptions{Cache: l.cache})
	if err != nil {
		return nil, explainLoad("creating BPF maps", err)
	}
	l.maps, l.vars = maps.Maps, maps.Variables
	return l, nil
}

// readTypes finds the kernel's types: those it carries, and those of a file
// for kernels that carry none.
func (l *loader) readTypes(file string) error {
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err == nil {
		l.typed = true
	}
	var err error
	if file == "" {
		l.types, err = l.cache.Kernel()
	} else {
		l.types, err = btf.LoadSpec(file)
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

func (l *loader) configure(o Options) error {
	set := map[string]any{
		"root_pid":  uint32(o.Below),
		"can_probe": Lockdown() != "confidentiality",
	}
	for name, value := range set {
		if err := l.spec.Variables[name].Set(value); err != nil {
			return fmt.Errorf("setting %s: %w", name, err)
		}
	}
	if o.RingBytes != 0 {
		l.spec.Maps["events"].MaxEntries = uint32(o.RingBytes)
	}
	return nil
}

// attach executes the plan. Programs stay inert until they are armed.
func (l *loader) attach(only []string) error {
	attached := map[bpf.UnloadBoundary]bool{}
	for _, h := range hooks() {
		p := planned(h)
		if h.absentWithout != "" && l.typed && !l.knows(h.absentWithout) {
			settleAbsent(&p, h)
			l.plan = append(l.plan, p)
			continue
		}
		if err := l.attachHook(&p, h, only); err != nil {
			return err
		}
		l.plan = append(l.plan, p)
		attached[h.boundary] = p.Mechanism != ""
		if h.candidates[0].function == "sched_switch" {
			if err := l.vars["wake_at_switch"].Set(p.Mechanism != ""); err != nil {
				return fmt.Errorf("choosing when to wake the reader: %w", err)
			}
		}
	}
	// What was only needed to load is large.
	l.spec, l.types, l.cache = nil, nil, nil
	return l.order(attached)
}

// attachHook takes the first candidate of h that works.
func (l *loader) attachHook(p *unload.Hook, h hook, only []string) error {
	var reasons []string
	var last error
	for i, c := range h.candidates {
		if !allowed(c.mechanism, only) {
			reasons = append(reasons, c.mechanism+" not wanted")
			continue
		}
		err := l.try(c)
		if err == nil {
			settle(p, h, i, strings.Join(reasons, "; "))
			return nil
		}
		last = err
		reasons = append(reasons, fmt.Sprintf("%s %s: %s", c.mechanism, c.function, shortly(err)))
	}
	settle(p, h, len(h.candidates), strings.Join(reasons, "; "))
	if h.required {
		return explainLoad("attaching to "+h.candidates[0].function, last)
	}
	return nil
}

func allowed(mechanism string, only []string) bool {
	if len(only) == 0 {
		return true
	}
	for _, m := range only {
		if m == mechanism {
			return true
		}
	}
	return false
}

var errNoTarget = errors.New("not in this kernel")

// try loads and attaches one candidate.
func (l *loader) try(c candidate) error {
	if c.mechanism == fentry || c.mechanism == fexit || c.mechanism == tpBTF {
		// The library would look for a missing function in the modules
		// next, and a program attached there pins its module.
		if !l.typed || !l.knows(target(c)) {
			return errNoTarget
		}
	}
	prog, err := l.load(c)
	if errors.Is(err, btf.ErrMultipleMatches) {
		prog, err = l.loadDuplicate(c)
	}
	if err != nil {
		return err
	}
	lk, err := attachProgram(c, prog)
	if err != nil {
		return errors.Join(err, prog.Close())
	}
	l.programs = append(l.programs, prog)
	l.links = append(l.links, lk)
	return nil
}

// target is the name under which the kernel's types know what c attaches to.
func target(c candidate) string {
	if c.mechanism == tpBTF {
		return "btf_trace_" + c.function
	}
	return c.function
}

// knows says whether the kernel itself, not a module, has the function or
// tracepoint.
func (l *loader) knows(name string) bool {
	_, err := l.types.AnyTypesByName(name)
	return err == nil
}

func (l *loader) load(c candidate) (*ebpf.Program, error) {
	spec := *l.spec
	program := l.spec.Programs[c.program]
	if program == nil {
		return nil, fmt.Errorf("no program %s in the BPF object", c.program)
	}
	spec.Programs = map[string]*ebpf.ProgramSpec{c.program: program}
	coll, err := ebpf.NewCollectionWithOptions(&spec, ebpf.CollectionOptions{
		MapReplacements: l.maps,
		Cache:           l.cache,
		Programs:        ebpf.ProgramOptions{KernelTypes: l.types},
	})
	if err != nil {
		return nil, err
	}
	defer coll.Close()
	return coll.DetachProgram(c.program), nil
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

// order tells each boundary which attached one comes before it.
func (l *loader) order(attached map[bpf.UnloadBoundary]bool) error {
	var after [bpf.UnloadBoundaryBOUNDARIES]uint32
	last := uint32(0)
	for b := range after {
		after[b] = last
		if attached[bpf.UnloadBoundary(b)] {
			last = uint32(b)
		}
	}
	if err := l.vars["after"].Set(after); err != nil {
		return fmt.Errorf("setting the order of boundaries: %w", err)
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
	for _, m := range l.maps {
		errs = append(errs, m.Close())
	}
	l.links, l.programs, l.maps = nil, nil, nil
	return errors.Join(errs...)
}
