//go:build linux

package main

import (
	"encoding/binary"
	"io"
)

// rawWriter gives a tap that writes each record behind its length. A write
// that fails shows as a record missing in the replay.
func rawWriter(w io.Writer) func([]byte) {
	return func(raw []byte) {
		framed := binary.LittleEndian.AppendUint32(nil, uint32(len(raw)))
		_, _ = w.Write(append(framed, raw...))
	}
}
