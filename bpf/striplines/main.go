// Striplines takes out of the compiled BPF programs in a folder which line of the source each
// instruction comes from. Nobody reads that but the kernel's verifier, for its log,
// and to decode it takes a thirtieth of the time until a trace is ready.
package main

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"log"
	"os"
	"path/filepath"
)

func main() {
	files, err := filepath.Glob(filepath.Join(os.Args[1], "*_bpfel.o"))
	if err != nil || len(files) == 0 {
		log.Fatalf("striplines: no objects in %s", os.Args[1])
	}
	for _, file := range files {
		if err := strip(file); err != nil {
			log.Fatalf("striplines: %s: %v", file, err)
		}
	}
}

// extHeader is struct btf_ext_header (Documentation/bpf/btf.rst), and the part for
// relocations that follows it. Offsets count from behind the header.
type extHeader struct {
	Magic             uint16
	Version, Flags    uint8
	HeaderSize        uint32
	FuncOff, FuncSize uint32
	LineOff, LineSize uint32
	CoreOff, CoreSize uint32
}

// recordSize is all that is left of the lines: the size of each.
const recordSize = 4

func strip(file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return err
	}
	section := f.Section(".BTF.ext")
	if section == nil {
		return errors.New("no .BTF.ext")
	}
	ext := data[section.Offset : section.Offset+section.Size]
	var h extHeader
	if _, err := binary.Decode(ext, f.ByteOrder, &h); err != nil {
		return err
	}
	if h.LineSize <= recordSize {
		return nil
	}
	clear(ext[h.HeaderSize+h.LineOff+recordSize : h.HeaderSize+h.LineOff+h.LineSize])
	h.LineSize = recordSize
	if _, err := binary.Encode(ext, f.ByteOrder, &h); err != nil {
		return err
	}
	return os.WriteFile(file, data, 0o644)
}
