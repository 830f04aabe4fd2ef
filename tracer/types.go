package tracer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf/btf"
)

// The kernel has a hundred thousand types and more (Documentation/bpf/btf.rst), of
// which a trace looks at a hundred. To decode them all takes the library a third
// of the time until a trace is ready, and most of the memory; so the others are
// blanked out before. Types keep their numbers, by which programs are attached.

const kernelTypesFile = "/sys/kernel/btf/vmlinux"

// kernelTypes reads the running kernel's types of the given names, and those that
// are part of them. All others read as nothing.
func kernelTypes(names map[string]bool) (*btf.Spec, error) {
	raw, err := os.ReadFile(kernelTypesFile)
	if err != nil {
		return nil, err
	}
	kept, err := keepTypes(raw, names)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", kernelTypesFile, err)
	}
	return btf.LoadSpecFromReader(bytes.NewReader(kept))
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
	order       binary.ByteOrder
}

// keepTypes blanks out all types but those of the given names, and those that
// these hold by value.
func keepTypes(raw []byte, names map[string]bool) ([]byte, error) {
	t, err := readTypes(raw)
	if err != nil {
		return nil, err
	}
	keep := make([]bool, len(t.at))
	for id := 1; id < len(t.at); id++ {
		if t.isNamed(uint32(id), names) {
			t.mark(uint32(id), keep)
		}
	}
	return t.blanked(keep), nil
}

func readTypes(raw []byte) (*types, error) {
	t := &types{order: binary.NativeEndian, at: []uint32{0}}
	if len(raw) < btfHeader || binary.NativeEndian.Uint16(raw) != btfMagic {
		return nil, errNoTypes
	}
	header := uint64(t.order.Uint32(raw[4:]))
	part := func(i int) ([]byte, bool) {
		from := header + uint64(t.order.Uint32(raw[i:]))
		to := from + uint64(t.order.Uint32(raw[i+4:]))
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
	info := t.order.Uint32(t.list[at+4:])
	return int(info >> 24 & 0x1f), int(info & 0xffff)
}

func (t *types) word(at uint32) uint32 { return t.order.Uint32(t.list[at:]) }

// isNamed says whether a type has one of the names.
func (t *types) isNamed(id uint32, names map[string]bool) bool {
	at := t.word(t.at[id])
	if at == 0 || at >= uint32(len(t.names)) {
		return false
	}
	name := t.names[at:]
	return names[string(name[:max(0, bytes.IndexByte(name, 0))])]
}

// mark keeps a type and what it holds by value, which has a place in it. What it
// only points to stays blank.
func (t *types) mark(id uint32, keep []bool) {
	todo := []uint32{id}
	for len(todo) > 0 {
		id := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if id == 0 || id >= uint32(len(keep)) || keep[id] {
			continue
		}
		keep[id] = true
		at := t.at[id]
		switch kind, entries := t.kind(at); kind {
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

// blanked gives all types with those that are not kept made to ones that are
// declared and not known, which are the smallest.
func (t *types) blanked(keep []bool) []byte {
	out := make([]byte, btfHeader, btfHeader+len(t.at)*typeHeader)
	names, known := []byte{0}, map[uint32]uint32{0: 0}
	blank := make([]byte, typeHeader)
	t.order.PutUint32(blank[4:], kindForward<<24)
	rename := func(place []byte) {
		old := t.order.Uint32(place)
		at, ok := known[old]
		if !ok && old < uint32(len(t.names)) {
			at = uint32(len(names))
			name := t.names[old:]
			names = append(append(names, name[:max(0, bytes.IndexByte(name, 0))]...), 0)
			known[old] = at
		}
		t.order.PutUint32(place, at)
	}
	for id := 1; id < len(t.at); id++ {
		if !keep[id] {
			out = append(out, blank...)
			continue
		}
		at, begin := t.at[id], len(out)
		kind, entries := t.kind(at)
		out = append(out, t.list[at:at+uint32(t.size(at))]...)
		rename(out[begin:])
		if size := entrySize[kind]; size != 0 && kind != kindSection { // whose entries have no names
			for i := range entries {
				rename(out[begin+typeHeader+i*size:])
			}
		}
	}
	t.order.PutUint16(out, btfMagic)
	out[2] = 1 // BTF_VERSION
	t.order.PutUint32(out[4:], btfHeader)
	t.order.PutUint32(out[12:], uint32(len(out)-btfHeader))
	t.order.PutUint32(out[16:], uint32(len(out)-btfHeader))
	t.order.PutUint32(out[20:], uint32(len(names)))
	return append(out, names...)
}
