package tracer

import (
	"encoding/binary"

	"github.com/modtrace/modtrace/bpf"
)

// nameRecord is a name in a recording, so that its events give the same report
// on any machine.
type nameRecord struct {
	Header  struct{ _, _ uint64 }
	Address uint64
	Name    [192]byte
}

// encodeName makes the raw record of a name.
func encodeName(address uint64, name string) []byte {
	raw := make([]byte, binary.Size(nameRecord{}))
	binary.NativeEndian.PutUint32(raw[12:], uint32(bpf.UnloadKindKIND_NAME))
	binary.NativeEndian.PutUint64(raw[headerSize:], address)
	copy(raw[headerSize+8:len(raw)-1], name)
	return raw
}
