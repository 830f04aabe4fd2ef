package object

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/cilium/ebpf/btf"
)

// The kernel has a hundred thousand types and more (Documentation/bpf/btf.rst), of
// which a trace looks at a hundred. To decode them all takes the library a third
// of the time until a trace is ready, so they are picked out before.

const kernelTypesFile = "/sys/kernel/btf/vmlinux"

// kernelTypes are those of the running kernel that a trace looks at.
type kernelTypes struct {
	*btf.Spec
	numbers map[string][]btf.TypeID // in the kernel, by which programs are attached
}

// readKernelTypes reads the types of the given names, and those that are part of
// them.
func readKernelTypes(names map[string]bool) (*kernelTypes, error) {
	raw, err := rawTypes()
	if err != nil {
		return nil, err
	}
	t, err := pickTypes(raw, names)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", kernelTypesFile, err)
	}
	return t, nil
}

// ModuleTypes picks the types of the given names of a module that is loaded. The error
// is fs.ErrNotExist when the kernel does not describe them (before 5.11).
func ModuleTypes(module string, names ...string) (*btf.Spec, error) {
	of, err := os.ReadFile("/sys/kernel/btf/" + module)
	if err != nil {
		return nil, err
	}
	kernel, err := rawTypes()
	if err != nil {
		return nil, err
	}
	wanted := map[string]bool{}
	for _, name := range names {
		wanted[name] = true
	}
	var picked *kernelTypes
	all, err := joined(kernel, of)
	if err == nil {
		picked, err = pickTypes(all, wanted)
	}
	if err != nil {
		return nil, fmt.Errorf("the types of %s: %w", module, err)
	}
	return picked.Spec, nil
}

// joined puts the types of a module behind those of the kernel, from where their
// numbers and the places of their names go on (kernel/bpf/btf.c, btf_parse_module).
func joined(kernel, module []byte) ([]byte, error) {
	base, err := readTypes(kernel)
	if err != nil {
		return nil, err
	}
	more, err := readTypes(module)
	if err != nil {
		return nil, err
	}
	list := slices.Concat(base.list, more.list)
	return written(list, slices.Concat(base.names, more.names)), nil
}

// written is types in the form in which the kernel gives them.
func written(list, names []byte) []byte {
	header := make([]byte, btfHeader, btfHeader+len(list)+len(names))
	put16, put := binary.NativeEndian.PutUint16, binary.NativeEndian.PutUint32
	put16(header, btfMagic)
	header[2] = 1 // BTF_VERSION
	put(header[4:], btfHeader)
	put(header[12:], uint32(len(list)))
	put(header[16:], uint32(len(list)))
	put(header[20:], uint32(len(names)))
	return append(append(header, list...), names...)
}

var errNoTypes = errors.New("no types that make sense")

// Kinds of types (include/uapi/linux/btf.h).
const (
	kindInt = iota + 1
	kindPointer
	kindArray
	kindStruct
	kindUnion
	kindEnum
	kindForward
	kindTypedef
	kindVolatile
	kindConst
	kindRestrict
	kindFunction
	kindPrototype
	kindVariable
	kindSection
	kindFloat
	kindDeclarationTag
	kindTypeTag
	kindEnum64
	kinds
)

// entrySize and tailSize are the sizes of what follows a type of a kind: of each
// of its entries, and once.
var (
	entrySize = [kinds]int{
		kindStruct: 12, kindUnion: 12, kindEnum: 8, kindPrototype: 8, kindSection: 12, kindEnum64: 12,
	}
	tailSize = [kinds]int{kindInt: 4, kindArray: 12, kindVariable: 4, kindDeclarationTag: 4}
)

const (
	btfMagic   = 0xeb9f
	btfHeader  = 24 // the size of struct btf_header
	typeHeader = 12 // of struct btf_type
)

// types are those of a kernel, in the form in which it gives them.
type types struct {
	list, names []byte
	at          []uint32 // where each begins in list; that of number 0 is of no type
}

// pickTypes picks the types of the given names, and those that these hold by
// value. What they only point to reads as void.
func pickTypes(raw []byte, names map[string]bool) (*kernelTypes, error) {
	t, err := readTypes(raw)
	if err != nil {
		return nil, err
	}
	picked := &kernelTypes{numbers: map[string][]btf.TypeID{}}
	keep, filter := make([]bool, len(t.at)), newFilter(names)
	for id := uint32(1); id < uint32(len(t.at)); id++ {
		name, ok := filter.wanted(t, t.word(t.at[id]))
		if !ok {
			continue
		}
		if kind, _ := t.kind(t.at[id]); roots[kind] && names[string(name)] {
			t.mark(id, keep)
			picked.numbers[string(name)] = append(picked.numbers[string(name)], btf.TypeID(id))
		}
	}
	picked.Spec, err = btf.LoadSpecFromReader(bytes.NewReader(t.only(keep)))
	return picked, err
}

// roots are the kinds of types that programs look at or attach to.
var roots = [kinds]bool{
	kindStruct: true, kindUnion: true, kindEnum: true, kindEnum64: true, kindTypedef: true, kindFunction: true,
}

// filter sorts out nearly all names that are not wanted, in no time: by how they
// begin, and then by their length.
type filter struct {
	begins  [1 << 16]bool
	lengths [256]uint64
}

func newFilter(names map[string]bool) *filter {
	f := &filter{}
	for name := range names {
		f.begins[beginning(name+"\x00")] = true
		f.lengths[name[0]] |= 1 << (len(name) % 64)
	}
	return f
}

func beginning[T string | []byte](name T) uint16 { return uint16(name[0])<<8 | uint16(name[1]) }

// wanted gives the name at a place if it may be one of those.
func (f *filter) wanted(t *types, at uint32) ([]byte, bool) {
	if at == 0 || at+1 >= uint32(len(t.names)) || !f.begins[beginning(t.names[at:at+2])] {
		return nil, false
	}
	name := t.name(at)
	return name, len(name) > 0 && f.lengths[name[0]]>>(len(name)%64)&1 != 0
}

func readTypes(raw []byte) (*types, error) {
	t := &types{}
	if len(raw) < btfHeader || binary.NativeEndian.Uint16(raw) != btfMagic {
		return nil, errNoTypes
	}
	header := uint64(binary.NativeEndian.Uint32(raw[4:]))
	part := func(i int) ([]byte, bool) {
		from := header + uint64(binary.NativeEndian.Uint32(raw[i:]))
		to := from + uint64(binary.NativeEndian.Uint32(raw[i+4:]))
		if to > uint64(len(raw)) {
			return nil, false
		}
		return raw[from:to], true
	}
	var typed, named bool
	t.list, typed = part(8)
	t.names, named = part(16)
	if !typed || !named {
		return nil, errNoTypes
	}
	t.at = append(make([]uint32, 0, len(t.list)/16), 0)
	for at := 0; at < len(t.list); {
		if at+typeHeader > len(t.list) {
			return nil, errNoTypes
		}
		size := t.size(uint32(at))
		if size == 0 || at+size > len(t.list) {
			return nil, errNoTypes
		}
		t.at = append(t.at, uint32(at))
		at += size
	}
	return t, nil
}

// size is that of the type that begins at the given place, 0 if it makes no sense.
func (t *types) size(at uint32) int {
	kind, entries := t.kind(at)
	if kind == 0 || kind >= kinds {
		return 0
	}
	return typeHeader + tailSize[kind] + entries*entrySize[kind]
}

// kind is the kind of the type at the given place, and the number of its entries.
func (t *types) kind(at uint32) (kind, entries int) {
	info := binary.NativeEndian.Uint32(t.list[at+4:])
	return int(info >> 24 & 0x1f), int(info & 0xffff)
}

func (t *types) word(at uint32) uint32 { return binary.NativeEndian.Uint32(t.list[at:]) }

// name is the name at the given place, empty if there is none.
func (t *types) name(at uint32) []byte {
	if at == 0 || at >= uint32(len(t.names)) {
		return nil
	}
	name := t.names[at:]
	return name[:max(0, bytes.IndexByte(name, 0))]
}

// mark keeps a type and what it holds by value, which has a place in it. What it
// only points to is left out.
func (t *types) mark(id uint32, keep []bool) {
	todo := []uint32{id}
	for len(todo) > 0 {
		id := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if id == 0 || id >= uint32(len(keep)) || keep[id] {
			continue
		}
		at := t.at[id]
		kind, entries := t.kind(at)
		keep[id] = kind != kindPrototype
		switch kind {
		case kindTypedef, kindVolatile, kindConst, kindRestrict, kindTypeTag:
			todo = append(todo, t.word(at+8))
		case kindArray:
			todo = append(todo, t.word(at+typeHeader), t.word(at+typeHeader+4))
		case kindStruct, kindUnion:
			for i := range uint32(entries) {
				todo = append(todo, t.word(at+typeHeader+12*i+4))
			}
		}
	}
}

// only gives those types that are kept, with numbers of their own.
func (t *types) only(keep []bool) []byte {
	w := &typesWriter{
		types: t,
		ids:   make([]uint32, len(t.at)),
		names: []byte{0},
		known: map[uint32]uint32{0: 0},
	}
	last := uint32(0)
	for id, kept := range keep {
		if kept {
			last++
			w.ids[id] = last
		}
	}
	for id, kept := range keep {
		if kept {
			w.add(uint32(id))
		}
	}
	return written(w.list, w.names)
}

// typesWriter gives types new numbers and names new places.
type typesWriter struct {
	*types
	ids         []uint32
	list, names []byte
	known       map[uint32]uint32
}

// add copies a type.
func (w *typesWriter) add(id uint32) {
	at, begin := w.at[id], len(w.list)
	w.list = append(w.list, w.types.list[at:at+uint32(w.size(at))]...)
	typ := w.list[begin:]
	w.rename(typ)
	kind, entries := w.kind(at)
	switch kind {
	case kindPointer, kindTypedef, kindVolatile, kindConst, kindRestrict, kindFunction, kindTypeTag:
		w.renumber(typ[8:])
	case kindArray:
		w.renumber(typ[typeHeader:])
		w.renumber(typ[typeHeader+4:])
	}
	for i := range entries {
		switch entry := typ[min(len(typ), typeHeader+i*entrySize[kind]):]; kind {
		case kindEnum, kindEnum64:
			w.rename(entry)
		case kindStruct, kindUnion:
			w.rename(entry)
			w.renumber(entry[4:])
		}
	}
}

// rename puts the name that is at the given place among those that are kept.
func (w *typesWriter) rename(place []byte) {
	old := binary.NativeEndian.Uint32(place)
	at, ok := w.known[old]
	if !ok {
		at = uint32(len(w.names))
		w.names = append(append(w.names, w.name(old)...), 0)
		w.known[old] = at
	}
	binary.NativeEndian.PutUint32(place, at)
}

// renumber puts a type's new number for its old one, 0 (void) if it is not kept.
func (w *typesWriter) renumber(place []byte) {
	old := binary.NativeEndian.Uint32(place)
	id := uint32(0)
	if old < uint32(len(w.ids)) {
		id = w.ids[old]
	}
	binary.NativeEndian.PutUint32(place, id)
}
