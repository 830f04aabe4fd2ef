package object

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// Programs that attach by type are loaded here, by the number of the type in the
// running kernel, and not by the library, for three reasons. It decodes all types
// of the kernel for that (see types.go). It looks on in the modules when the
// kernel has no such function, and a program that is attached to a module's pins
// it. And it refuses a name that two functions have, like a system call and the
// weak stub that stands in where it is not built (Debian's 6.1, made by an older
// pahole), where the linker keeps one; the kernel tells them apart.

// loadByNumber loads a program at the first type of the target's name for which
// the kernel takes it.
func (o *Object) loadByNumber(c Candidate) (*ebpf.Program, error) {
	spec := o.spec.Programs[c.Program]
	code, err := o.link(spec)
	if err != nil {
		return nil, fmt.Errorf("linking %s: %w", c.Program, err)
	}
	defer code.close()
	err = ErrNoTarget
	for _, id := range o.types.numbers[c.Target()] {
		var prog *ebpf.Program
		if prog, err = loadProgram(c.Program, spec, code, attachTypes[c.Mechanism], id); err == nil {
			return prog, nil
		}
	}
	return nil, err
}

// loadToRun loads a program that is attached to nothing. The library would tell the
// kernel of all its types and lines, which takes longer than all the rest.
func (o *Object) loadToRun(c Candidate) (*ebpf.Program, error) {
	spec := o.spec.Programs[c.Program]
	code, err := o.link(spec)
	if err != nil {
		return nil, fmt.Errorf("linking %s: %w", c.Program, err)
	}
	defer code.close()
	return loadProgram(c.Program, spec, code, ebpf.AttachNone, 0)
}

// attachTypes has the mechanisms that attach by type.
var attachTypes = map[string]ebpf.AttachType{
	Fentry:   ebpf.AttachTraceFEntry,
	Fexit:    ebpf.AttachTraceFExit,
	TPBTF:    ebpf.AttachTraceRawTp,
	Iterator: ebpf.AttachTraceIter,
}

// linked is a program in the form that the kernel takes, and of what types its
// functions are, if that is needed.
type linked struct {
	code      []byte
	functions []byte
	types     *btf.Handle
}

func (l *linked) close() {
	if l.types != nil {
		_ = l.types.Close() // only read
	}
}

// link brings the program's instructions into that form: fields relocated to the
// running kernel's offsets, maps by descriptor.
func (o *Object) link(spec *ebpf.ProgramSpec) (*linked, error) {
	code := make(asm.Instructions, len(spec.Instructions))
	copy(code, spec.Instructions)
	var relocations []*btf.CORERelocation
	var relocated []*asm.Instruction
	for i := range code {
		ins := &code[i]
		if ins.IsLoadFromMap() && ins.Reference() != "" {
			if err := ins.AssociateMap(o.Maps[ins.Reference()]); err != nil {
				return nil, err
			}
		}
		if r := btf.CORERelocationMetadata(ins); r != nil {
			relocations, relocated = append(relocations, r), append(relocated, ins)
		}
	}
	var local btf.Builder
	fixups, err := btf.CORERelocate(relocations, []*btf.Spec{o.types.Spec}, spec.ByteOrder, local.Add)
	if err != nil {
		return nil, err
	}
	for i := range fixups {
		if err := fixups[i].Apply(relocated[i]); err != nil {
			return nil, err
		}
	}
	l := &linked{}
	if needsTypes(code) {
		if err := l.describe(code); err != nil {
			return nil, err
		}
	}
	var b bytes.Buffer
	if err := code.Marshal(&b, spec.ByteOrder); err != nil {
		l.close()
		return nil, err
	}
	l.code = b.Bytes()
	return l, nil
}

// needsTypes says whether a program is to be described to the kernel, which takes
// time: it must be when it hands a function on, and had better be when it has a
// global one, which is then verified once and by itself (Documentation/bpf/
// verifier.rst).
func needsTypes(code asm.Instructions) bool {
	for i := range code {
		f := btf.FuncMetadata(&code[i])
		if code[i].IsLoadOfFunctionPointer() || i > 0 && f != nil && f.Linkage == btf.GlobalFunc {
			return true
		}
	}
	return false
}

// describe tells the kernel of what types the program's functions are.
func (l *linked) describe(code asm.Instructions) (err error) {
	var types btf.Builder
	if l.functions, _, err = btf.MarshalExtInfos(code, &types); err != nil {
		return err
	}
	l.types, err = btf.NewHandle(&types)
	return err
}

// programAttributes is the part of union bpf_attr for BPF_PROG_LOAD that is
// needed (include/uapi/linux/bpf.h).
type programAttributes struct {
	programType  uint32
	instructions uint32
	code         unsafe.Pointer
	license      unsafe.Pointer
	logLevel     uint32
	logSize      uint32
	log          unsafe.Pointer
	kernel       uint32
	flags        uint32
	name         [unix.BPF_OBJ_NAME_LEN]byte
	device       uint32
	attachType   uint32
	types        uint32 // a descriptor of the program's own, 0: none
	functionSize uint32 // of each record of the next
	functions    unsafe.Pointer
	functionsLen uint32 // in records
	lines        [4]uint32
	attachTo     uint32 // number of the type to attach to, in the kernel's
	_            uint32
}

func loadProgram(name string, spec *ebpf.ProgramSpec, program *linked, at ebpf.AttachType, to btf.TypeID) (*ebpf.Program, error) {
	text, err := unix.BytePtrFromString(spec.License)
	if err != nil {
		return nil, err
	}
	attr := programAttributes{
		programType:  uint32(spec.Type),
		flags:        spec.Flags,
		instructions: uint32(len(program.code) / asm.InstructionSize),
		code:         unsafe.Pointer(&program.code[0]),
		license:      unsafe.Pointer(text),
		attachType:   uint32(at),
		attachTo:     uint32(to),
	}
	copy(attr.name[:len(attr.name)-1], name)
	var pin runtime.Pinner
	defer pin.Unpin()
	if program.types != nil {
		attr.types, attr.functionSize = uint32(program.types.FD()), btf.FuncInfoSize
		attr.functions, attr.functionsLen = unsafe.Pointer(&program.functions[0]), uint32(len(program.functions))/btf.FuncInfoSize
		pin.Pin(attr.functions)
	}
	pin.Pin(attr.code)
	pin.Pin(attr.license)
	fd, err := bpfCall(unix.BPF_PROG_LOAD, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	if errors.Is(err, unix.EACCES) {
		return nil, rejected(&attr, err)
	}
	if err != nil {
		return nil, err
	}
	prog, err := ebpf.NewProgramFromFD(fd)
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return prog, nil
}

// rejected tells a program that the verifier does not accept from one that this process
// may not load, both of which the kernel may answer with EACCES: only the verifier has
// something to say.
func rejected(attr *programAttributes, why error) error {
	log := make([]byte, 1<<20)
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&log[0])
	attr.logLevel, attr.logSize, attr.log = 1, uint32(len(log)), unsafe.Pointer(&log[0])
	if fd, err := bpfCall(unix.BPF_PROG_LOAD, unsafe.Pointer(attr), unsafe.Sizeof(*attr)); err == nil {
		return errors.Join(why, unix.Close(fd))
	}
	if text := strings.TrimSpace(unix.ByteSliceToString(log)); text != "" {
		return &ebpf.VerifierError{Cause: why, Log: strings.Split(text, "\n")}
	}
	return why
}
