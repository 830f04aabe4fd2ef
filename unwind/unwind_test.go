package unwind

import (
	"encoding/binary"
	"errors"
	"slices"
	"testing"
)

// ram is memory in pieces.
type ram map[uint64][]byte

func (r ram) Read(address uint64, b []byte) error {
	for at, piece := range r {
		if address >= at && address+uint64(len(b)) <= at+uint64(len(piece)) {
			copy(b, piece[address-at:])
			return nil
		}
	}
	return errors.New("no memory there")
}

func words(list ...uint64) []byte {
	var b []byte
	for _, w := range list {
		b = binary.NativeEndian.AppendUint64(b, w)
	}
	return b
}

const (
	text  = 0xffffffff81000000
	table = 0xffffffff82000000
	stack = 0xffffb08740100000
)

// tabled makes a table of functions of 0x100 bytes each, whose frames are so
// large; the last keeps its in the frame pointer.
func tabled(sp, prevSP byte, sizes ...int16) (ram, *orc) {
	o := &orc{ips: table, entries: table + 0x1000, count: len(sizes) + 1}
	var ips, entries []byte
	for i := range o.count {
		at := o.ips + uint64(i)*ipSize
		ips = binary.LittleEndian.AppendUint32(ips, uint32(text+uint64(i)*0x100-at))
		size, register := int16(0), byte(orcUndefined)
		if i < len(sizes) {
			size, register = sizes[i], sp
		}
		if i == len(sizes)-1 {
			register = orcBP
		}
		entries = binary.LittleEndian.AppendUint16(entries, uint16(size))
		entries = binary.LittleEndian.AppendUint16(entries, uint16(0xfff0)) // -16
		entries = append(entries, register|prevSP<<4, 0)
	}
	return ram{o.ips: ips, o.entries: entries}, o
}

// TestUntil walks over three frames to one that is known, by either numbering.
func TestUntil(t *testing.T) {
	walk(t, orcSP, orcPrevSP)
	walk(t, oldSP, oldPrevSP)
}

func walk(t *testing.T, sp, prevSP byte) {
	t.Helper()
	m, o := tabled(sp, prevSP, 24, 32, 16)
	m[stack] = words(
		0, 0, 0, 0, 0, 7, text+0x10, // as a switch leaves it
		1, stack+15*8-16, text+0x110, // 24 bytes, the frame pointer below the address
		2, 3, stack+15*8, text+0x210, // 32
		4, 5, text+0x1000, // up to the frame pointer + 16
	)
	k := &Kernel{memory: m, orc: o, switched: switchedX86}
	got, err := k.Until(Place{SP: stack}, text+0x1000)
	want := []uint64{text + 0x10, text + 0x110, text + 0x210}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%x, %v; want %x", got, err, want)
	}
	if got, err := k.Until(Place{SP: stack}, text+0x2000); err == nil || got != nil {
		t.Errorf("a frame that is not there: %x", got)
	}
	if got, err := k.Until(Place{SP: stack + 0x1000}, text); err == nil || got != nil {
		t.Errorf("a stack that is not there: %x", got)
	}
}

// TestLinked goes by frame pointers, as on arm64.
func TestLinked(t *testing.T) {
	m := ram{stack: words(stack+32, text+0x10, 0, 0, stack+64, text+0x20, 0, 0, stack, text+0x30)}
	k := &Kernel{memory: m, switched: switchedARM64}
	got, err := k.Until(Place{SP: stack - 16, FP: stack}, text+0x30)
	if want := []uint64{text + 0x10, text + 0x20}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%x, %v; want %x", got, err, want)
	}
	if got, err := k.Until(Place{SP: stack - 16, FP: stack}, text); err == nil {
		t.Errorf("a circle: %x", got)
	}
}

// TestOwner finds the lock behind one of two who wait for it, by the first who waits
// and by the head of a list.
func TestOwner(t *testing.T) {
	const (
		sp, other    = 0x8000, 0xc100 // stacks
		lock, holder = 0x20000, 0x30000
		me, she      = 0x41000, 0x42000
		waiter       = sp + 16
	)
	layout := Lock{Owner: 0, Waiters: 16}
	isTask := func(a uint64) bool { return a == holder || a == me || a == she }
	stack := func(list ...uint64) []byte {
		return append(words(list...), make([]byte, stackSize-8*len(list))...)
	}
	ring := ram{
		sp:    stack(7, lock, other, other, me),
		other: words(waiter, waiter, she),
		lock:  words(holder|1, 0, other),
	}
	list := ram{
		sp:    stack(7, lock, lock+16, other, me),
		other: words(waiter, lock+16, she),
		lock:  words(holder|1, 0, other, waiter),
	}
	for name, m := range map[string]ram{"ring": ring, "list": list} {
		k := &Kernel{memory: m}
		at, owner, err := k.Owner(Place{SP: sp}, me, layout, isTask)
		if at != lock || owner != holder || err != nil {
			t.Errorf("%s: lock %#x, owner %#x, %v", name, at, owner, err)
		}
		if _, owner, err := k.Owner(Place{SP: sp}, 0x43000, layout, isTask); owner != 0 || err != nil {
			t.Errorf("%s: who does not wait, waits for %#x, %v", name, owner, err)
		}
		if _, owner, err := k.Owner(Place{SP: sp}, me, layout, func(uint64) bool { return false }); owner != 0 || err != nil {
			t.Errorf("%s: the owner is gone, and said to be %#x, %v", name, owner, err)
		}
	}
	copy(ring[other], words(0, 0, she))
	k := &Kernel{memory: ring}
	if _, owner, err := k.Owner(Place{SP: sp}, me, layout, isTask); owner != 0 || err != nil {
		t.Errorf("on a list that changes: owner %#x, %v", owner, err)
	}
}
