package tracer

import (
	"encoding/binary"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/modtrace/modtrace/bpf"
	"github.com/modtrace/modtrace/cause"
)

// names gives kernel addresses the names that they have now. A module's are only
// to be had while it is there, so stacks are named as they come in.
type names struct {
	ask   func([]uint64) []string // one name each, "" for none
	known map[uint64]string
	// record, if set, is told of each name that was found out.
	record func(address uint64, name string)
}

func newNames(ask func([]uint64) []string) *names {
	return &names{ask: ask, known: map[uint64]string{}}
}

// unnamed stands for an address that has no name, or no longer.
const unnamed = "?"

// of names addresses; each is that of the instruction behind a call.
func (n *names) of(addresses []uint64) []string {
	var missing []uint64
	for _, a := range addresses {
		if _, ok := n.known[a]; !ok {
			missing = append(missing, a)
		}
	}
	if len(missing) > 0 {
		for i, name := range n.ask(missing) {
			if name != "" {
				n.learn(missing[i], name)
			}
		}
	}
	list := make([]string, len(addresses))
	for i, a := range addresses {
		if list[i] = n.known[a]; list[i] == "" {
			list[i] = unnamed
		}
	}
	return list
}

func (n *names) learn(address uint64, name string) {
	n.known[address] = name
	if n.record != nil {
		n.record(address, name)
	}
}

// function names the function that begins at an address.
func (n *names) function(address uint64) (function, module string) {
	frame := n.at(address)
	return cause.Function(frame), cause.Module(frame)
}

// at names the function that begins at an address as a frame is named, "" if it
// has none.
func (n *names) at(address uint64) string {
	if address == 0 {
		return ""
	}
	if frame := n.of([]uint64{address + 1})[0]; frame != unnamed {
		return frame
	}
	return ""
}

// forget drops what is known of modules: another may come to lie where one was.
func (n *names) forget() {
	for address, name := range n.known {
		if strings.HasSuffix(name, "]") {
			delete(n.known, address)
		}
	}
}

// frame puts the kernel's %pB into the form of reports: function+0xoffset
// [module]. An address that has no name comes as a number.
func frame(text string) string {
	if strings.HasPrefix(text, "0x") {
		return ""
	}
	place, module, _ := strings.Cut(text, " ")
	if i := strings.LastIndexByte(place, '/'); i > 0 {
		place = place[:i] // the function's size says nothing
	}
	if module == "" {
		return place
	}
	return place + " " + module
}

// askKernel asks by a program that prints addresses as the kernel's own
// backtraces do (Documentation/core-api/printk-formats.rst, %pB).
func askKernel(program *ebpf.Program, asked *ebpf.Variable) func([]uint64) []string {
	return func(addresses []uint64) []string {
		var all []string
		var batch [16]bpf.UnloadSymbol
		for len(addresses) > 0 {
			clear(batch[:])
			n := min(len(addresses), len(batch))
			for i := range n {
				batch[i].Address = addresses[i]
			}
			if asked.Set(batch) != nil {
				return all
			}
			if _, err := program.Run(&ebpf.RunOptions{}); err != nil || asked.Get(&batch) != nil {
				return all
			}
			for i := range n {
				all = append(all, frame(int8Text(batch[i].Name[:])))
			}
			addresses = addresses[n:]
		}
		return all
	}
}

func int8Text(chars []int8) string {
	var b strings.Builder
	for _, c := range chars {
		if c == 0 {
			break
		}
		b.WriteByte(byte(c))
	}
	return b.String()
}

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
