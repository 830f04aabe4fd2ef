// Package symbols names addresses in the kernel as its own backtraces do.
package symbols

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"structs"

	"github.com/cilium/ebpf"

	"github.com/modtrace/modtrace/cause"
)

// Names gives kernel addresses the names that they have now. A module's are only
// to be had while it is there, so stacks are named as they come in. Of a function
// of which one place was named, all others are known from then on.
type Names struct {
	ask       func([]uint64) []string // one name each, "" for none
	known     map[uint64]string
	functions []function // by where they begin
	// Record, if set, is told of each name that was found out.
	Record func(address uint64, name string)
}

// function is where a function lies.
type function struct {
	begin, end   uint64
	name, module string // module with a space before it and in brackets, or ""
}

// New makes names of what ask, given addresses, answers: one name each, "" for none.
func New(ask func([]uint64) []string) *Names {
	return &Names{ask: ask, known: map[uint64]string{}}
}

// Unnamed stands for an address that has no name, or no longer.
const Unnamed = "?"

// Of names addresses; each is that of the instruction behind a call.
func (n *Names) Of(addresses []uint64) []string {
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
		if name := Frame(text); name != "" {
			n.Learn(missing[i], name)
			n.place(missing[i], text)
		}
	}
	for i, a := range addresses {
		if list[i] == "" {
			list[i] = cmp.Or(n.name(a), Unnamed)
		}
	}
	return list
}

// name gives what is known of an address, "" if nothing is.
func (n *Names) name(address uint64) string {
	if name := n.known[address]; name != "" {
		return name
	}
	name := n.within(address)
	if name != "" {
		n.Learn(address, name)
	}
	return name
}

// maxKnown bounds the names that are kept: a task is found running at ever other
// places.
const maxKnown = 1 << 12

// Learn keeps the name of an address.
func (n *Names) Learn(address uint64, name string) {
	if len(n.known) >= maxKnown {
		clear(n.known)
	}
	n.known[address] = name
	if n.Record != nil {
		n.Record(address, name)
	}
}

// within names an address that lies in a function that is known.
func (n *Names) within(address uint64) string {
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
func (n *Names) place(address uint64, text string) {
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

// Function names the function that begins at an address.
func (n *Names) Function(address uint64) (function, module string) {
	frame := n.At(address)
	return cause.Function(frame), cause.Module(frame)
}

// At names the function that begins at an address as a frame is named, "" if it
// has none.
func (n *Names) At(address uint64) string {
	if address == 0 {
		return ""
	}
	if frame := n.Of([]uint64{address + 1})[0]; frame != Unnamed {
		return frame
	}
	return ""
}

// Forget drops what is known of modules: another may come to lie where one was.
func (n *Names) Forget() {
	for address, name := range n.known {
		if strings.HasSuffix(name, "]") {
			delete(n.known, address)
		}
	}
	n.functions = slices.DeleteFunc(n.functions, func(f function) bool { return f.module != "" })
}

// Frame puts the kernel's %pB into the form of reports: function+0xoffset
// [module]. An address that has no name comes as a number.
func Frame(text string) string {
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

// AskKernel asks by a program that prints addresses as the kernel's own
// backtraces do (Documentation/core-api/printk-formats.rst, %pB): symbols in
// bpf/symbol.h, with its variable.
func AskKernel(program *ebpf.Program, asked *ebpf.Variable) func([]uint64) []string {
	return func(addresses []uint64) []string {
		var all []string
		var batch [16]symbol
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

// symbol is an address and its name, as the program has them.
type symbol struct {
	_       structs.HostLayout
	Address uint64
	Name    [160]int8
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
