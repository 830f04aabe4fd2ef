package memory

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf/btf"
)

// Value is an object of the kernel's as it was when it was read. That of no address,
// and of a type that the kernel does not have, is 0 in every field.
type Value struct {
	Address uint64

	memory *Memory
	typ    string
	bytes  []byte
}

// Uint is the number, or the address, in a field. Those inside structs that are part
// of the object are named with dots.
func (v Value) Uint(path string) uint64 {
	f, b := v.field(path)
	if b == nil {
		return 0
	}
	n := number(b)
	if f.bits > 0 {
		n = n >> f.shift & (1<<f.bits - 1)
	}
	return n
}

// Text is the text in a field that is an array of characters.
func (v Value) Text(path string) string {
	_, b := v.field(path)
	return text(b)
}

// Follow is the object that a field points to.
func (v Value) Follow(path, typ string) Value { return v.memory.At(typ, v.Uint(path)) }

// Part is the address of a field.
func (v Value) Part(path string) uint64 {
	f, b := v.field(path)
	if b == nil {
		return 0
	}
	return v.Address + f.offset
}

// Numbers are those in a field that is an array of pointers.
func (v Value) Numbers(path string) []uint64 {
	_, b := v.field(path)
	list := make([]uint64, len(b)/8)
	for i := range list {
		list[i] = number(b[8*i : 8*i+8])
	}
	return list
}

// Array are the objects in a field that is an array of them.
func (v Value) Array(path, typ string) (list []Value) {
	f, b := v.field(path)
	if s := v.memory.structs[typ]; s != nil && b != nil {
		for at := uint64(0); at+uint64(s.Size) <= f.size; at += uint64(s.Size) {
			list = append(list, v.memory.At(typ, v.Address+f.offset+at))
		}
	}
	return list
}

// End is the address behind the object.
func (v Value) End() uint64 { return v.Address + uint64(len(v.bytes)) }

func (v Value) field(path string) (field, []byte) {
	f, err := v.memory.field(v.typ, path)
	if err != nil || v.bytes == nil {
		return f, nil
	}
	return f, v.bytes[f.offset : f.offset+f.size]
}

// field is where a field is.
type field struct {
	offset, size uint64
	shift, bits  uint64 // of a part of a number, if bits is not 0
}

// field finds a field, and notes if there is none.
func (m *Memory) field(typ, path string) (field, error) {
	key := [2]string{typ, path}
	if f, ok := m.fields[key]; ok {
		if f.size == 0 {
			return f, errUnknown
		}
		return f, nil
	}
	f, err := m.find(typ, path)
	m.fields[key] = f
	if err != nil {
		m.unknown = append(m.unknown, typ+"."+path)
	}
	return f, err
}

func (m *Memory) find(typ, path string) (f field, err error) {
	at := m.structs[typ]
	for part := range strings.SplitSeq(path, ".") {
		if at == nil {
			return field{}, fmt.Errorf("%s.%s: %w", typ, path, errUnknown)
		}
		member, offset, ok := memberOf(at.Members, part)
		if !ok {
			return field{}, fmt.Errorf("%s.%s: %w", typ, path, errUnknown)
		}
		size, err := btf.Sizeof(member.Type)
		if err != nil {
			return field{}, fmt.Errorf("%s.%s: %w", typ, path, err)
		}
		whole := offset
		if f.bits = uint64(member.BitfieldSize); f.bits > 0 {
			unit := btf.Bits(8 * size)
			whole = offset / unit * unit
			f.shift = uint64(offset - whole)
		}
		f.offset, f.size = f.offset+uint64(whole.Bytes()), uint64(size)
		at, _ = btf.As[*btf.Struct](member.Type)
		if u, ok := btf.As[*btf.Union](member.Type); ok {
			at = &btf.Struct{Members: u.Members}
		}
	}
	return f, nil
}

// memberOf finds a member, also in what has no name of its own.
func memberOf(members []btf.Member, name string) (member btf.Member, offset btf.Bits, ok bool) {
	i := slices.IndexFunc(members, func(m btf.Member) bool { return m.Name == name })
	if i >= 0 {
		return members[i], members[i].Offset, true
	}
	for _, m := range members {
		if m.Name != "" {
			continue
		}
		var inner []btf.Member
		if s, ok := btf.As[*btf.Struct](m.Type); ok {
			inner = s.Members
		} else if u, ok := btf.As[*btf.Union](m.Type); ok {
			inner = u.Members
		}
		if found, at, ok := memberOf(inner, name); ok {
			return found, m.Offset + at, true
		}
	}
	return btf.Member{}, 0, false
}

// number is one in the order of bytes of the machine, of 1, 2, 4 or 8.
func number(b []byte) uint64 {
	switch len(b) {
	case 1:
		return uint64(b[0])
	case 2:
		return uint64(binary.NativeEndian.Uint16(b))
	case 4:
		return uint64(binary.NativeEndian.Uint32(b))
	case 8:
		return binary.NativeEndian.Uint64(b)
	}
	return 0
}

func text(b []byte) string {
	before, _, _ := bytes.Cut(b, []byte{0})
	return string(before)
}
