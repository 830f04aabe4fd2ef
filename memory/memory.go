// Package memory reads what the kernel keeps, by the kernel's own types: where a BPF
// program would follow a pointer, the reader does. That takes one system call an
// object, and no loop that a verifier has to understand.
package memory

import (
	"errors"

	"github.com/cilium/ebpf/btf"

	"github.com/modtrace/modtrace/object"
)

// Memory is the kernel's. It changes while it is read: what is gone when it is looked
// at reads as 0.
type Memory struct {
	// Torn says that something could not be read, or that a list had no end, since
	// this was last set to false.
	Torn bool

	source  source
	structs map[string]*btf.Struct
	fields  map[[2]string]field
	unknown []string
}

// source is where the bytes come from.
type source interface {
	copyOut(address uint64, into []byte) error
	// task is the address of the struct task_struct of the reader.
	task() (uint64, error)
	Close() error
}

// Open prepares to read objects of the types that are named. The error is an
// [*object.Unable] when the machine is at fault.
func Open(btfFile string, types ...string) (*Memory, error) {
	k, o, err := openKernel(btfFile, types)
	if err != nil {
		return nil, err
	}
	m := newMemory(k)
	for _, name := range types {
		if s, err := o.Struct(name); err == nil { // what a kernel does not have is told of when it is missed
			m.structs[name] = s
		}
	}
	o.Forget()
	return m, nil
}

func newMemory(s source) *Memory {
	return &Memory{source: s, structs: map[string]*btf.Struct{}, fields: map[[2]string]field{}}
}

// Close frees what reading needs.
func (m *Memory) Close() error { return m.source.Close() }

// AddModule makes the types of a module known that is loaded. The error is
// fs.ErrNotExist when the kernel does not describe them (before 5.11).
func (m *Memory) AddModule(module string, types ...string) error {
	spec, err := object.ModuleTypes(module, types...)
	if err != nil {
		return err
	}
	for _, name := range types {
		if s, err := object.StructOf(spec, name); err == nil {
			m.structs[name] = s
		}
	}
	clear(m.fields)
	return nil
}

// HasType says whether a type is known.
func (m *Memory) HasType(typ string) bool { return m.structs[typ] != nil }

// Knows says whether a type has such a field.
func (m *Memory) Knows(typ, path string) bool {
	_, err := m.find(typ, path)
	return err == nil
}

// Unknown are the fields that were asked for and that the kernel's types lack.
func (m *Memory) Unknown() []string { return m.unknown }

// Task is the task that reads, from which much can be reached.
func (m *Memory) Task() Value {
	address, err := m.source.task()
	if err != nil {
		m.Torn = true
	}
	return m.At("task_struct", address)
}

// Bytes copies from an address. What cannot be read is 0.
func (m *Memory) Bytes(address uint64, size int) []byte {
	b := make([]byte, size)
	if address == 0 {
		return b
	}
	if err := m.source.copyOut(address, b); err != nil {
		m.Torn = true
		clear(b)
	}
	return b
}

// Text reads a string of the kernel's, of at most that length.
func (m *Memory) Text(address uint64, most int) string {
	if address == 0 {
		return ""
	}
	b := make([]byte, most)
	// It may end just before memory that cannot be read.
	for size := most; size > 0; size /= 2 {
		if m.source.copyOut(address, b[:size]) == nil {
			return text(b[:size])
		}
	}
	m.Torn = true
	return ""
}

// Pointers reads an array of pointers.
func (m *Memory) Pointers(address uint64, n int) []uint64 {
	b := m.Bytes(address, 8*n)
	list := make([]uint64, n)
	for i := range list {
		list[i] = number(b[8*i : 8*i+8])
	}
	return list
}

// IsList says whether there is a list's head at an address: the next one leads back.
func (m *Memory) IsList(head uint64) bool {
	return m.Whether(func() bool {
		next := m.pointer(head)
		return next != 0 && m.pointer(next+8) == head
	})
}

// mostEntries is how many entries of a list are looked at: more must be a list that
// changed under the look, and has no end.
const mostEntries = 1 << 20

// List gives the entries of a list (include/linux/list.h), each of the type in which
// it is linked by the field.
func (m *Memory) List(head uint64, typ, link string) (list []Value) {
	next := m.pointer(head)
	for range mostEntries {
		if next == head || next == 0 {
			return list
		}
		v := m.Around(typ, link, next)
		list = append(list, v)
		next = m.pointer(next)
	}
	m.Torn = true
	return list
}

// Chain gives the entries of a list that ends (struct hlist_node), each of the type in
// which it is linked by the field.
func (m *Memory) Chain(first uint64, typ, link string) (list []Value) {
	for next := first; next != 0; next = m.pointer(next) {
		if len(list) == mostEntries {
			m.Torn = true
			break
		}
		list = append(list, m.Around(typ, link, next))
	}
	return list
}

// Row gives an object, and those behind it by a field that points to the next.
func (m *Memory) Row(first Value, next string) (list []Value) {
	for v := first; v.Address != 0; v = v.Follow(next, v.typ) {
		if len(list) == mostEntries {
			m.Torn = true
			break
		}
		list = append(list, v)
	}
	return list
}

// Whether answers what is asked of an object that may be none: that it cannot be read
// then is no sign of a change.
func (m *Memory) Whether(so func() bool) bool {
	torn := m.Torn
	defer func() { m.Torn = torn }()
	return so()
}

func (m *Memory) pointer(at uint64) uint64 { return number(m.Bytes(at, 8)) }

// Around is the object that has the field at an address (include/linux/
// container_of.h).
func (m *Memory) Around(typ, path string, address uint64) Value {
	f, err := m.field(typ, path)
	if err != nil || address == 0 {
		return Value{memory: m, typ: typ}
	}
	return m.At(typ, address-f.offset)
}

// At is the object of a type at an address.
func (m *Memory) At(typ string, address uint64) Value {
	v := Value{memory: m, typ: typ, Address: address}
	if s := m.structs[typ]; s != nil && address != 0 {
		v.bytes = m.Bytes(address, int(s.Size))
	}
	return v
}

var errUnknown = errors.New("not in the kernel's types")
