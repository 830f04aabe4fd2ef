package unwind

import (
	"encoding/binary"
	"errors"
	"slices"
	"sort"

	"github.com/modtrace/modtrace/symbols"
)

// orc is the kernel's table of how large frames are at each instruction
// (Documentation/arch/x86/orc-unwinder.rst).
type orc struct {
	ips, entries uint64 // where the two halves of the table begin
	count        int
}

// Registers and sizes of the table (arch/x86/include/asm/orc_types.h). Registers
// have other numbers since 7.0; those of the stack pointer and of its former value
// mean nothing that is met in the scheduler in the other numbering, and a walk that
// goes astray does not arrive. Of the kinds of entries only calls are met there.
const (
	orcUndefined = 0
	orcBP        = 4
	orcSP        = 3
	orcPrevSP    = 8
	oldSP        = 5
	oldPrevSP    = 1

	ipSize    = 4
	entrySize = 6
)

// findORC finds the table. A kernel that has none keeps frame pointers: nil.
func findORC() (*orc, error) {
	at, err := addressesOf("__start_orc_unwind_ip", "__stop_orc_unwind_ip", "__start_orc_unwind")
	if err != nil {
		return nil, err
	}
	start, stop := at["__start_orc_unwind_ip"], at["__stop_orc_unwind_ip"]
	o := &orc{ips: start, entries: at["__start_orc_unwind"], count: int(stop-start) / ipSize}
	if start == 0 && stop == 0 {
		return nil, nil
	}
	if stop <= start || o.entries == 0 {
		return nil, errors.New("the kernel's unwind table makes no sense")
	}
	return o, nil
}

// caller is the frame that called f, and will go on where that returns.
func (o *orc) caller(m Memory, f frame) (frame, error) {
	e, err := o.entry(m, f.ip-1) // within the call
	if err != nil {
		return frame{}, err
	}
	cfa := f.sp
	switch e.sp {
	case orcSP, oldSP:
	case orcBP:
		cfa = f.fp
	default:
		return frame{}, errLost
	}
	cfa += uint64(int64(e.spOffset))
	next := frame{sp: cfa, fp: f.fp}
	if next.ip, err = word(m, cfa-8); err != nil {
		return frame{}, err
	}
	switch e.bp {
	case orcUndefined:
	case orcPrevSP, oldPrevSP:
		next.fp, err = word(m, cfa+uint64(int64(e.bpOffset)))
	case orcBP:
		next.fp, err = word(m, f.fp+uint64(int64(e.bpOffset)))
	default:
		err = errLost
	}
	return next, err
}

// orcEntry says where the caller's stack and base pointer are.
type orcEntry struct {
	spOffset, bpOffset int16
	sp, bp             byte
}

// entry is the last one that is not behind an instruction.
func (o *orc) entry(m Memory, ip uint64) (orcEntry, error) {
	var err error
	i := sort.Search(o.count, func(i int) bool {
		at, e := o.address(m, i)
		if e != nil {
			err = e
		}
		return at > ip
	})
	if err != nil {
		return orcEntry{}, err
	}
	if i == 0 || i == o.count {
		return orcEntry{}, errLost
	}
	var b [entrySize]byte
	if err := m.Read(o.entries+uint64(i-1)*entrySize, b[:]); err != nil {
		return orcEntry{}, err
	}
	return orcEntry{
		spOffset: int16(binary.LittleEndian.Uint16(b[0:])),
		bpOffset: int16(binary.LittleEndian.Uint16(b[2:])),
		sp:       b[4] & 15,
		bp:       b[4] >> 4,
	}, nil
}

// address is that of the i-th instruction, which the table has relative to
// itself.
func (o *orc) address(m Memory, i int) (uint64, error) {
	at := o.ips + uint64(i)*ipSize
	var b [ipSize]byte
	if err := m.Read(at, b[:]); err != nil {
		return 0, err
	}
	return at + uint64(int64(int32(binary.LittleEndian.Uint32(b[:])))), nil
}

func word(m Memory, address uint64) (uint64, error) {
	words, err := read(m, address, 1)
	if err != nil {
		return 0, err
	}
	return words[0], nil
}

// addressesOf gives the addresses of those symbols that the kernel has.
func addressesOf(names ...string) (map[string]uint64, error) {
	at := map[string]uint64{}
	hidden := true
	err := symbols.Each(func(s symbols.Symbol) bool {
		hidden = hidden && s.Address == 0
		if slices.Contains(names, string(s.Name)) && len(s.Module) == 0 {
			at[string(s.Name)] = s.Address
		}
		return len(at) < len(names)
	})
	if err != nil {
		return nil, err
	}
	if hidden {
		return nil, errors.New("the kernel hides the addresses of its symbols")
	}
	return at, nil
}
