package symbols

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"path/filepath"
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

// load reads functions and variables, which locks are. What cannot be read leaves the
// table empty, and frames without names.
func (k *kallsyms) load() {
	*k = kallsyms{read: time.Now()}
	type symbol struct {
		address uint64
		at      uint32
	}
	var symbols []symbol
	modules := regionsOf("/sys/module")
	_ = Each(func(s Symbol) bool {
		if modules.foreign(s) {
			return true
		}
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

// region is where a module's code lies.
type region struct {
	from, to uint64
	module   string
}

// regions are those of modules that are loaded, by where they begin.
type regions []region

// regionsOf reads them in sysfs, below the directory of all modules: to read
// /proc/modules one waits for a lock that an unload which hangs may hold. What cannot be
// read is left out.
func regionsOf(dir string) (list regions) {
	sections, err := filepath.Glob(filepath.Join(dir, "*/sections/.text"))
	if err != nil {
		return nil
	}
	for _, file := range sections {
		module := filepath.Dir(filepath.Dir(file))
		from, size := number(file), number(filepath.Join(module, "coresize"))
		if from != 0 {
			list = append(list, region{from, from + size, filepath.Base(module)})
		}
	}
	slices.SortFunc(list, func(a, b region) int { return cmp.Compare(a.from, b.from) })
	return list
}

func number(file string) uint64 {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 0, 64)
	if err != nil {
		return 0
	}
	return n
}

// foreign says that a module's symbol lies where another module is by now. While
// functions are traced, the kernel goes on listing those with which modules were
// initialized, although their memory is free (kernel/trace/ftrace.c, ftrace_free_mem).
func (r regions) foreign(s Symbol) bool {
	if len(s.Module) == 0 {
		return false
	}
	i, _ := slices.BinarySearchFunc(r, s.Address, func(in region, address uint64) int {
		if in.to <= address {
			return -1
		}
		return 1
	})
	return i < len(r) && r[i].from <= s.Address && r[i].module != string(s.Module)
}
