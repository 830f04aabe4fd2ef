package symbols

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// kallsyms is the table of the kernel's symbols, for kernels that do not print
// them from a program (before 5.13).
type kallsyms struct {
	addresses []uint64 // sorted
	at        []uint32 // where each one's name begins in text
	text      []byte   // names as "function [module]", each ended by a newline
	read      time.Time
}

// Kallsyms reads the table and gives the means to name addresses by it.
func Kallsyms() func([]uint64) []string {
	k := &kallsyms{}
	k.load()
	return k.ask
}

// again is how often the table is read again at most, for the sake of modules
// that were loaded since.
const again = time.Second

// ask names addresses. It needs CAP_SYSLOG: without, all addresses read as 0.
func (k *kallsyms) ask(addresses []uint64) []string {
	list := make([]string, len(addresses))
	for i, a := range addresses {
		if list[i] = k.name(a); list[i] == "" && time.Since(k.read) > again {
			k.load()
			list[i] = k.name(a)
		}
	}
	return list
}

// name gives "function+0xoffset [module]".
func (k *kallsyms) name(address uint64) string {
	i, _ := slices.BinarySearch(k.addresses, address) // the first that is not before it
	if i == 0 || i == len(k.addresses) {
		return ""
	}
	i-- // the instruction before address is what was executed
	line := k.text[k.at[i]:]
	line = line[:slices.Index(line, '\n')]
	function, module, _ := strings.Cut(string(line), " ")
	if module != "" {
		module = " " + module
	}
	return fmt.Sprintf("%s+%#x%s", function, address-k.addresses[i], module)
}

// load reads functions and variables, which locks are. What cannot be read leaves the
// table empty, and frames without names.
func (k *kallsyms) load() {
	*k = kallsyms{read: time.Now()}
	type symbol struct {
		address uint64
		at      uint32
	}
	var symbols []symbol
	_ = Each(func(s Symbol) bool {
		if s.Address == 0 || !bytes.ContainsRune([]byte("tTwWdDbBrR"), rune(s.Kind)) {
			return true
		}
		symbols = append(symbols, symbol{s.Address, uint32(len(k.text))})
		k.text = append(k.text, s.Name...)
		if len(s.Module) > 0 {
			k.text = fmt.Appendf(k.text, " [%s]", s.Module)
		}
		k.text = append(k.text, '\n')
		return true
	})
	slices.SortStableFunc(symbols, func(a, b symbol) int { return cmp.Compare(a.address, b.address) })
	for _, s := range symbols {
		k.addresses = append(k.addresses, s.address)
		k.at = append(k.at, s.at)
	}
}
