package object

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
)

// Mechanisms by which a program is attached.
const (
	Fentry    = "fentry"
	Fexit     = "fexit"
	Kprobe    = "kprobe"
	Kretprobe = "kretprobe"
	TPBTF     = "tp_btf"
	RawTP     = "raw_tp"
	Iterator  = "iter"
	Run       = "run" // it is attached to nothing: the reader runs it
)

// Candidate is one way to see something: a BPF program, how it is attached and to
// what.
type Candidate struct {
	Program   string
	Mechanism string
	Function  string
	// NotWith names a function in whose presence this one does not see all.
	NotWith string
	// OnChain says that Function is a notifier chain, to each of whose callbacks the
	// program is attached.
	OnChain bool
}

// Allowed says whether a mechanism is among those that may be used: all are when none
// is named.
func Allowed(mechanism string, only []string) bool {
	return len(only) == 0 || slices.Contains(only, mechanism)
}

// Target is the name under which the kernel's types know what c attaches to.
func (c Candidate) Target() string {
	switch c.Mechanism {
	case TPBTF:
		return "btf_trace_" + c.Function
	case Iterator:
		return "bpf_iter_" + c.Function
	}
	return c.Function
}

// ErrNoTarget says that the kernel does not have what a program attaches to.
var ErrNoTarget = errors.New("not in this kernel")

// Object is a BPF object of which programs are loaded one at a time. What a
// kernel can do is found by trying, never from its version.
type Object struct {
	Typed    bool // the running kernel carries its types itself
	CanProbe bool // programs may call bpf_probe_read_kernel
	Maps     map[string]*ebpf.Map
	Vars     map[string]*ebpf.Variable

	spec  *ebpf.CollectionSpec
	types *kernelTypes // of the kernel's, those that matter here
	held  []interface{ Close() error }
}

// Open reads the types that the object's programs look at, and those named. They
// are the running kernel's, or those in btfFile if that is not "". The error is an
// [*Unable] when the machine is at fault. An object without a spec only
// knows types.
func Open(spec *ebpf.CollectionSpec, btfFile string, named ...string) (*Object, error) {
	o := &Object{spec: spec, CanProbe: Lockdown() != confidentiality}
	err := o.readTypes(btfFile, wanted(spec, named))
	return o, err
}

// wanted names the types that programs look at or attach to.
func wanted(spec *ebpf.CollectionSpec, named []string) map[string]bool {
	names := map[string]bool{}
	if spec != nil {
		for typ, err := range spec.Types.All() {
			if err == nil {
				name, _, _ := strings.Cut(typ.TypeName(), "___") // a flavour is of the type before it
				names[name] = true
			}
		}
		for _, p := range spec.Programs {
			if p.AttachType == ebpf.AttachTraceIter {
				names[Candidate{Mechanism: Iterator, Function: p.AttachTo}.Target()] = true
			}
		}
	}
	for _, name := range named {
		names[name] = true
	}
	delete(names, "")
	return names
}

// readTypes finds the kernel's types: those it carries, and those of a file
// for kernels that carry none.
func (o *Object) readTypes(file string, names map[string]bool) error {
	var err error
	if file == "" {
		o.types, err = readKernelTypes(names)
	} else {
		var all *btf.Spec
		all, err = btf.LoadSpec(file)
		o.types = &kernelTypes{Spec: all}
	}
	if err == nil {
		_, missing := os.Stat(kernelTypesFile)
		o.Typed = missing == nil
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

// Knows says whether the kernel itself, not a module, has the function or
// tracepoint.
func (o *Object) Knows(name string) bool {
	_, err := o.types.AnyTypesByName(name)
	return err == nil
}

// Struct is a type of the kernel itself, of those that were named.
func (o *Object) Struct(name string) (*btf.Struct, error) { return StructOf(o.types.Spec, name) }

// StructOf finds a type where there may be several of a name: the first is taken.
func StructOf(spec *btf.Spec, name string) (*btf.Struct, error) {
	all, err := spec.AnyTypesByName(name)
	if err != nil {
		return nil, err
	}
	for _, typ := range all {
		if s, ok := typ.(*btf.Struct); ok {
			return s, nil
		}
	}
	return nil, fmt.Errorf("%s: %w", name, btf.ErrNotFound)
}

// CreateMaps makes the maps and variables that the object's programs share. Their
// specifications can be changed before.
func (o *Object) CreateMaps() error {
	// Before 5.11 BPF memory counts against this limit; later it changes
	// nothing, and a failure shows as one of the maps'.
	_ = rlimit.RemoveMemlock()

	only := o.spec.Copy()
	only.Programs = nil
	maps, err := ebpf.NewCollection(only)
	if err != nil {
		return Explain("creating BPF maps", err)
	}
	o.Maps, o.Vars = maps.Maps, maps.Variables
	for _, m := range o.Maps {
		o.held = append(o.held, m)
	}
	return nil
}

// Load loads the program of one candidate, which is then the caller's.
func (o *Object) Load(c Candidate) (*ebpf.Program, error) {
	if c.Mechanism == Run {
		return o.loadToRun(c)
	}
	if attachTypes[c.Mechanism] != ebpf.AttachNone {
		if !o.Typed || !o.Knows(c.Target()) {
			return nil, ErrNoTarget
		}
		return o.loadByNumber(c)
	}
	spec := *o.spec
	spec.Programs = map[string]*ebpf.ProgramSpec{c.Program: o.spec.Programs[c.Program]}
	coll, err := ebpf.NewCollectionWithOptions(&spec, ebpf.CollectionOptions{
		MapReplacements: o.Maps,
		Programs:        ebpf.ProgramOptions{KernelTypes: o.types.Spec},
	})
	if err != nil {
		return nil, err
	}
	defer coll.Close()
	return coll.DetachProgram(c.Program), nil
}

// Attach attaches a program that Load gave for the same candidate.
func Attach(c Candidate, prog *ebpf.Program) (link.Link, error) {
	switch c.Mechanism {
	case Kprobe:
		return link.Kprobe(c.Function, prog, nil)
	case Kretprobe:
		return link.Kretprobe(c.Function, prog, nil)
	case RawTP:
		return link.AttachRawTracepoint(link.RawTracepointOptions{Name: c.Function, Program: prog})
	default:
		return link.AttachTracing(link.TracingOptions{Program: prog})
	}
}

// Misses is how often the kernel did not run a program, 0 where it does not say.
func Misses(p *ebpf.Program) int64 {
	s, err := p.Stats()
	if err != nil {
		return 0
	}
	return int64(s.RecursionMisses)
}

// Iterate loads and attaches a program that goes over all objects of a kind
// whenever it is read (Documentation/bpf/bpf_iterators.rst). It is closed with the
// object.
func (o *Object) Iterate(program, over string) (*link.Iter, error) {
	p, err := o.Load(Candidate{Program: program, Mechanism: Iterator, Function: over})
	if err != nil {
		return nil, err
	}
	it, err := link.AttachIter(link.IterOptions{Program: p})
	if err = errors.Join(err, p.Close()); err != nil { // the link holds it
		return nil, err
	}
	o.held = append(o.held, it)
	return it, nil
}

// Records reads all that an iterator sends, of which each is a T.
func Records[T any](it *link.Iter) (_ []T, err error) {
	r, err := it.Open()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	raw, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	var one T
	all := make([]T, len(raw)/binary.Size(one))
	_, err = binary.Decode(raw, binary.NativeEndian, all)
	return all, err
}

// Forget frees what is only needed to load, which is large.
func (o *Object) Forget() { o.spec, o.types = nil, nil }

// Close frees the object's maps and iterators.
func (o *Object) Close() error {
	var errs []error
	for _, h := range o.held {
		errs = append(errs, h.Close())
	}
	o.held = nil
	return errors.Join(errs...)
}
