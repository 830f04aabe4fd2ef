package symbols

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strconv"
)

// Symbol is a function or variable of the kernel or of a module. Its bytes are good
// until the next one is read.
type Symbol struct {
	Address uint64 // 0 for those who may not know it
	Kind    byte   // as nm(1) has it
	Name    []byte
	Module  []byte // empty when it is the kernel's own
}

// Each goes through /proc/kallsyms (kernel/kallsyms.c, s_show) until do returns false. It
// takes a tenth of a second. Without CAP_SYSLOG all addresses are 0.
func Each(do func(Symbol) bool) error {
	f, err := os.Open("/proc/kallsyms")
	if err != nil {
		return fmt.Errorf("reading the kernel's symbols: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if s, ok := parseSymbol(lines.Bytes()); ok && !do(s) {
			return nil
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("reading the kernel's symbols: %w", err)
	}
	return nil
}

// parseSymbol reads "ffffffffc0001000 t function	[module]".
func parseSymbol(line []byte) (s Symbol, ok bool) {
	address, rest, _ := bytes.Cut(line, []byte{' '})
	if len(rest) < 3 || rest[1] != ' ' {
		return s, false
	}
	var err error
	if s.Address, err = strconv.ParseUint(string(address), 16, 64); err != nil {
		return s, false
	}
	s.Kind = rest[0]
	s.Name, s.Module, _ = bytes.Cut(rest[2:], []byte{'\t'})
	s.Module = bytes.Trim(s.Module, "[]")
	return s, len(s.Name) > 0
}
