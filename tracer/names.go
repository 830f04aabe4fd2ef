package tracer

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/modtrace/modtrace/bpf"
	"github.com/modtrace/modtrace/cause"
)

// names gives kernel addresses the names that they have now. A module's are only
// to be had while it is there, so stacks are named as they come in. Of a function
// of which one place was named, all others are known from then on.
type names struct {
	ask       func([]uint64) []string // one name each, "" for none
	known     map[uint64]string
	functions []function // by where they begin
	// record, if set, is told of each name that was found out.
	record func(address uint64, name string)
}

// function is where a function lies.
type function struct {
	begin, end   uint64
	name, module string // module with a space before it and in brackets, or ""
}

func newNames(ask func([]uint64) []string) *names {
	return &names{ask: ask, known: map[uint64]string{}}
}

// unnamed stands for an address that has no name, or no longer.
const unnamed = "?"

// of names addresses; each is that of the instruction behind a call.
func (n *names) of(addresses []uint64) []string {
	list := make([]string, len(addresses))
	var missing []uint64
	for i, a := range addresses {
		if list[i] = n.name(a); list[i] == "" {
			missing = append(missing, a)
		}
	}
	if len(missing) == 0 {
		return list
	}
	for i, text := range n.ask(missing) {
		if name := frame(text); name != "" {
			n.learn(missing[i], name)
			n.place(missing[i], text)
		}
	}
	for i, a := range addresses {
		if list[i] == "" {
			list[i] = cmp.Or(n.name(a), unnamed)
		}
	}
	return list
}

// name gives what is known of an address, "" if nothing is.
func (n *names) name(address uint64) string {
	if name := n.known[address]; name != "" {
		return name
	}
	name := n.within(address)
	if name != "" {
		n.learn(address, name)
	}
	return name
}

// maxKnown bounds the names that are kept: a task is found running at ever other
// places.
const maxKnown = 1 << 12

func (n *names) learn(address uint64, name string) {
	if len(n.known) >= maxKnown {
		clear(n.known)
	}
	n.known[address] = name
	if n.record != nil {
		n.record(address, name)
	}
}

// within names an address that lies in a function that is known.
func (n *names) within(address uint64) string {
	// The address is behind a call, which may be the last of its function.
	i, _ := slices.BinarySearchFunc(n.functions, address, func(f function, a uint64) int { return cmp.Compare(f.begin, a) })
	if i == 0 || address > n.functions[i-1].end {
		return ""
	}
	f := n.functions[i-1]
	return fmt.Sprintf("%s+%#x%s", f.name, address-f.begin, f.module)
}

// place keeps where a function lies, of which one address reads as text:
// name+0xoffset/0xsize [module].
func (n *names) place(address uint64, text string) {
	at, module, _ := strings.Cut(text, " ")
	if module != "" {
		module = " " + module
	}
	name, numbers, _ := strings.Cut(at, "+")
	var offset, size uint64
	if _, err := fmt.Sscanf(numbers, "%v/%v", &offset, &size); err != nil || offset > size {
		return
	}
	f := function{address - offset, address - offset + size, name, module}
	i, found := slices.BinarySearchFunc(n.functions, f.begin, func(f function, a uint64) int { return cmp.Compare(f.begin, a) })
	if !found {
		n.functions = slices.Insert(n.functions, i, f)
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
	n.functions = slices.DeleteFunc(n.functions, func(f function) bool { return f.module != "" })
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
			if asked.Set(&batch) != nil { // by its address it is copied as it is, not field by field
				return all
			}
			if _, err := program.Run(&ebpf.RunOptions{}); err != nil || asked.Get(&batch) != nil {
				return all
			}
			for i := range n {
				all = append(all, int8Text(batch[i].Name[:]))
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
