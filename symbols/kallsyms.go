package symbols

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strconv"
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

// load reads /proc/kallsyms, of functions and of variables, which locks are. What cannot be read leaves the table empty, and
// frames without names.
func (k *kallsyms) load() {
	*k = kallsyms{read: time.Now()}
	f, err := os.Open("/proc/kallsyms")
	if err != nil {
		return
	}
	defer f.Close()
	type symbol struct {
		address uint64
		at      uint32
	}
	var symbols []symbol
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 3 || !strings.ContainsAny(fields[1], "tTwWdDbBrR") {
			continue
		}
		address, err := strconv.ParseUint(fields[0], 16, 64)
		if err != nil || address == 0 {
			continue
		}
		symbols = append(symbols, symbol{address, uint32(len(k.text))})
		k.text = append(append(k.text, strings.Join(fields[2:], " ")...), '\n')
	}
	slices.SortStableFunc(symbols, func(a, b symbol) int {
		if a.address < b.address {
			return -1
		}
		if a.address > b.address {
			return 1
		}
		return 0
	})
	for _, s := range symbols {
		k.addresses = append(k.addresses, s.address)
		k.at = append(k.at, s.at)
	}
}
