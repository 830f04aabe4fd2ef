// SPDX-License-Identifier: MIT

package lab

import (
	"bytes"
	"debug/elf"
	"fmt"
)

// RenameModule returns a copy of a kernel module that calls itself by another
// name of the same length, so that one build can be loaded many times over.
func RenameModule(ko []byte, from, to string) ([]byte, error) {
	if len(from) != len(to) {
		return nil, fmt.Errorf("renaming module %s to %s: the names differ in length", from, to)
	}
	f, err := elf.NewFile(bytes.NewReader(ko))
	if err != nil {
		return nil, fmt.Errorf("renaming module %s: %w", from, err)
	}
	out := bytes.Clone(ko)
	// The kernel takes the name from struct module; modprobe and the log of a
	// failed load take it from .modinfo.
	for _, section := range []struct{ name, before string }{
		{".gnu.linkonce.this_module", ""},
		{".modinfo", "name="},
	} {
		s := f.Section(section.name)
		if s == nil || s.Type == elf.SHT_NOBITS {
			return nil, fmt.Errorf("renaming module %s: no section %s", from, section.name)
		}
		if s.Offset+s.Size > uint64(len(out)) {
			return nil, fmt.Errorf("renaming module %s: section %s is cut off", from, section.name)
		}
		part := out[s.Offset : s.Offset+s.Size]
		old := []byte(section.before + from + "\x00")
		i := bytes.Index(part, old)
		if i < 0 {
			return nil, fmt.Errorf("renaming module %s: section %s does not have the name", from, section.name)
		}
		copy(part[i:], section.before+to)
	}
	return out, nil
}
