package symbols

import "testing"

func TestParseSymbol(t *testing.T) {
	type symbol struct {
		address      uint64
		kind         byte
		name, module string
	}
	for line, want := range map[string]symbol{
		"ffffffff81000000 T _text":                     {0xffffffff81000000, 'T', "_text", ""},
		"ffffffffc0001000 t busy_open\t[busy]":         {0xffffffffc0001000, 't', "busy_open", "busy"},
		"0000000000000000 A fixed_percpu_data":         {0, 'A', "fixed_percpu_data", ""},
		"ffffffffc0001000 t __cfi_a.b-c\t[bpf]":        {0xffffffffc0001000, 't', "__cfi_a.b-c", "bpf"},
		"ffffffffc0001000 t bpf_prog_6deef7357e7b4530": {0xffffffffc0001000, 't', "bpf_prog_6deef7357e7b4530", ""},
	} {
		s, ok := parseSymbol([]byte(line))
		if got := (symbol{s.Address, s.Kind, string(s.Name), string(s.Module)}); !ok || got != want {
			t.Errorf("%q: %+v, %v", line, got, ok)
		}
	}
	for _, line := range []string{"", "x t name", "ffffffff81000000", "ffffffff81000000 t", "ffffffff81000000 t ", "ffffffff81000000 tt name", "10 t \t[module]"} {
		if s, ok := parseSymbol([]byte(line)); ok {
			t.Errorf("%q: %+v", line, s)
		}
	}
}
