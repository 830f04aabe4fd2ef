package memory

import (
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"github.com/cilium/ebpf/btf"
)

// pages are a kernel's memory: bytes by their addresses.
type pages map[uint64]byte

func (p pages) copyOut(address uint64, into []byte) error {
	for i := range into {
		b, ok := p[address+uint64(i)]
		if !ok {
			return errors.New("no memory")
		}
		into[i] = b
	}
	return nil
}

func (p pages) task() (uint64, error) { return 0x1000, nil }
func (p pages) Close() error          { return nil }

func (p pages) put(address uint64, b ...byte) {
	for i, one := range b {
		p[address+uint64(i)] = one
	}
}

func (p pages) words(address uint64, words ...uint64) {
	for i, w := range words {
		p.put(address+8*uint64(i), binary.NativeEndian.AppendUint64(nil, w)...)
	}
}

// someMemory knows struct item { struct { list_head link; }; u64 bits:4, more:12;
// char name[8]; struct item *next; }.
func someMemory() (*Memory, pages) {
	p := pages{}
	long, char := &btf.Int{Name: "long", Size: 8}, &btf.Int{Name: "char", Size: 1}
	pointer := &btf.Pointer{Target: long}
	head := &btf.Struct{Name: "list_head", Size: 16, Members: []btf.Member{{Name: "next", Type: pointer}, {Name: "prev", Type: pointer, Offset: 64}}}
	inner := &btf.Struct{Size: 16, Members: []btf.Member{{Name: "link", Type: head}}}
	item := &btf.Struct{Name: "item", Size: 40, Members: []btf.Member{
		{Type: inner},
		{Name: "bits", Type: long, Offset: 128, BitfieldSize: 4},
		{Name: "more", Type: long, Offset: 132, BitfieldSize: 12},
		{Name: "name", Type: &btf.Array{Index: long, Type: char, Nelems: 8}, Offset: 192},
		{Name: "next", Type: &btf.Const{Type: pointer}, Offset: 256},
	}}
	m := newMemory(p)
	m.structs["item"] = item
	return m, p
}

// TestValue reads fields of all kinds, and 0 where there is nothing.
func TestValue(t *testing.T) {
	m, p := someMemory()
	p.words(0x100, 0x100, 0x100, 0xabc5)
	p.put(0x118, 'l', 'o', 'o', 'p', 0, 'x', 'x', 'x')
	p.words(0x120, 0x200)
	v := m.At("item", 0x100)
	if v.Uint("bits") != 5 || v.Uint("more") != 0xabc || v.Text("name") != "loop" || v.Uint("link.next") != 0x100 {
		t.Errorf("bits %#x, more %#x, name %q, link %#x", v.Uint("bits"), v.Uint("more"), v.Text("name"), v.Uint("link.next"))
	}
	if v.Part("name") != 0x118 || v.End() != 0x128 || m.Around("item", "name", 0x118).Uint("bits") != 5 {
		t.Errorf("name at %#x, end at %#x", v.Part("name"), v.End())
	}
	if m.Torn {
		t.Error("all could be read")
	}
	if gone := v.Follow("next", "item"); gone.Uint("bits") != 0 || !m.Torn {
		t.Errorf("read %d where there is no memory; torn: %v", gone.Uint("bits"), m.Torn)
	}
	v.Text("nosuch") // is told of once
	if v.Uint("nosuch") != 0 || !slices.Equal(m.Unknown(), []string{"item.nosuch"}) {
		t.Errorf("unknown fields: %v", m.Unknown())
	}
	if none := m.At("item", 0); none.Uint("bits") != 0 || none.Part("name") != 0 {
		t.Error("something is at address 0")
	}
}

// TestList follows lists to their ends.
func TestList(t *testing.T) {
	m, p := someMemory()
	p.words(0x10, 0x100, 0x200) // the head
	p.words(0x100, 0x200, 0x10, 1, 0, 0x200)
	p.words(0x200, 0x10, 0x100, 2, 0, 0)
	numbers := func(list []Value) (all []uint64) {
		for _, v := range list {
			all = append(all, v.Uint("bits"))
		}
		return all
	}
	if !m.IsList(0x10) || m.IsList(0x110) {
		t.Error("what is a list is not told from what is none")
	}
	if got := numbers(m.List(0x10, "item", "link")); !slices.Equal(got, []uint64{1, 2}) {
		t.Errorf("the list has %v", got)
	}
	if got := numbers(m.Row(m.At("item", 0x100), "next")); !slices.Equal(got, []uint64{1, 2}) {
		t.Errorf("the row has %v", got)
	}
	p.words(0x200, 0) // the head of another kind of list
	if got := numbers(m.Chain(0x100, "item", "link")); !slices.Equal(got, []uint64{1, 2}) || m.Torn {
		t.Errorf("the chain has %v; torn: %v", got, m.Torn)
	}
	p.words(0x200, 0x900)
	if m.Whether(func() bool { m.Chain(0x100, "item", "link"); return m.Torn }); m.Torn {
		t.Error("a question is taken for a look")
	}
	if m.Chain(0x100, "item", "link"); !m.Torn {
		t.Error("nothing is said of a list that breaks off")
	}
}

// TestText reads a string that ends just before memory that cannot be read.
func TestText(t *testing.T) {
	m, p := someMemory()
	p.put(0x300, []byte("netem\x00..")...)
	if got := m.Text(0x300, 64); got != "netem" || m.Torn {
		t.Errorf("%q; torn: %v", got, m.Torn)
	}
	if got := m.Text(0x400, 64); got != "" || !m.Torn {
		t.Errorf("%q; torn: %v", got, m.Torn)
	}
}
