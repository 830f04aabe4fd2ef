package unwind

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
)

// core is the kernel's memory as /proc/kcore has it, an ELF core file
// (fs/proc/kcore.c).
type core struct {
	file  *os.File
	parts []part
}

// part is a range of addresses and where it is in the file.
type part struct{ address, size, offset uint64 }

func openCore(name string) (*core, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	c := &core{file: f}
	if c.parts, err = parts(f); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", name, err), f.Close())
	}
	return c, nil
}

// parts reads the program headers (elf(5)). Those of the standard library's are
// refused for offsets beyond what a file can have.
func parts(f *os.File) ([]part, error) {
	var header struct {
		Ident                             [16]byte
		Type, Machine                     uint16
		Version                           uint32
		Entry, Phoff, Shoff               uint64
		Flags                             uint32
		Ehsize, Phentsize, Phnum, _, _, _ uint16
	}
	b := make([]byte, binary.Size(header))
	if _, err := f.ReadAt(b, 0); err != nil {
		return nil, err
	}
	if _, err := binary.Decode(b, binary.NativeEndian, &header); err != nil || !bytes.HasPrefix(b, []byte("\x7fELF\x02")) {
		return nil, errors.New("not a core file")
	}
	var list []part
	for i := range uint64(header.Phnum) {
		var p struct {
			Type, Flags                                uint32
			Offset, Vaddr, Paddr, Filesz, Memsz, Align uint64
		}
		b := make([]byte, binary.Size(p))
		if _, err := f.ReadAt(b, int64(header.Phoff+i*uint64(header.Phentsize))); err != nil {
			return nil, err
		}
		if _, err := binary.Decode(b, binary.NativeEndian, &p); err != nil {
			return nil, err
		}
		const load = 1
		if p.Type == load {
			list = append(list, part{p.Vaddr, p.Filesz, p.Offset})
		}
	}
	return list, nil
}

// Read fills b with what is at an address.
func (c *core) Read(address uint64, b []byte) error {
	for _, p := range c.parts {
		if address >= p.address && address-p.address <= p.size && p.size-(address-p.address) >= uint64(len(b)) {
			_, err := c.file.ReadAt(b, int64(p.offset+address-p.address))
			return err
		}
	}
	return fmt.Errorf("no memory at an address")
}

func (c *core) Close() error { return c.file.Close() }
