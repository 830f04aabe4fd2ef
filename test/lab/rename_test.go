// SPDX-License-Identifier: MIT

package lab

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"strings"
	"testing"
)

// module makes an ELF file with the two sections that hold a module's name.
func module(name string) []byte {
	info := []byte("license=GPL\x00name=" + name + "\x00vermagic=x\x00")
	this := make([]byte, 128)
	copy(this[24:], name)
	names := []byte("\x00.modinfo\x00.gnu.linkonce.this_module\x00.shstrtab\x00")
	data := [][]byte{info, this, names}

	const headerSize, sectionSize = 64, 64
	offset := uint64(headerSize)
	sections := []elf.Section64{{}}
	for i, at := range []uint32{1, 10, 36} {
		kind := uint32(elf.SHT_PROGBITS)
		if i == 2 {
			kind = uint32(elf.SHT_STRTAB)
		}
		sections = append(sections, elf.Section64{Name: at, Type: kind, Off: offset, Size: uint64(len(data[i])), Addralign: 1})
		offset += uint64(len(data[i]))
	}
	head := elf.Header64{
		Type: uint16(elf.ET_REL), Machine: uint16(elf.EM_X86_64), Version: 1, Shoff: offset,
		Ehsize: headerSize, Shentsize: sectionSize, Shnum: uint16(len(sections)), Shstrndx: 3,
	}
	copy(head.Ident[:], "\x7fELF\x02\x01\x01")
	var b bytes.Buffer
	_ = binary.Write(&b, binary.LittleEndian, head)
	for _, d := range data {
		b.Write(d)
	}
	_ = binary.Write(&b, binary.LittleEndian, sections)
	return b.Bytes()
}

func TestRenameModule(t *testing.T) {
	original := module("many00")
	kept := bytes.Clone(original)
	got, err := RenameModule(original, "many00", "many37")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, module("many37")) {
		t.Error("the copy is not what building it under the other name gives")
	}
	if !bytes.Equal(original, kept) {
		t.Error("renaming changed the original")
	}
}

func TestRenameModuleRefuses(t *testing.T) {
	for _, c := range []struct {
		ko             []byte
		from, to, want string
	}{
		{module("many00"), "many00", "many100", "differ in length"},
		{module("many00"), "empty0", "many01", "does not have the name"},
		// A name that another one merely begins with is not the module's.
		{module("many00"), "many0", "manyX", "does not have the name"},
		{[]byte("not a module"), "many00", "many01", "renaming module many00"},
	} {
		if _, err := RenameModule(c.ko, c.from, c.to); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("from %s to %s: %v, want %q", c.from, c.to, err, c.want)
		}
	}
}
