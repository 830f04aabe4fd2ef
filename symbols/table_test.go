package symbols

import (
	"os"
	"path/filepath"
	"testing"
)

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

// TestForeign leaves out what the kernel lists of a module where another one is.
func TestForeign(t *testing.T) {
	dir := t.TempDir()
	for name, files := range map[string][2]string{"slow": {"0xffffffffc0404000\n", "16384\n"}, "scsi_mod": {"0xffffffffc03cf000\n", "4096\n"}, "hidden": {"0x0000000000000000\n", "4096\n"}} {
		for i, file := range []string{"sections/.text", "coresize"} {
			path := filepath.Join(dir, name, file)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(files[i]), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	r := regionsOf(dir)
	if len(r) != 2 {
		t.Fatalf("%+v", r)
	}
	for _, c := range []struct {
		address uint64
		module  string
		foreign bool
	}{
		{0xffffffffc04041cb, "scsi_mod", true}, // an init function, which was there once
		{0xffffffffc04041cb, "slow", false},
		{0xffffffffc0408000, "scsi_mod", false}, // nobody is there
		{0xffffffffc0407fff, "scsi_mod", true},
		{0xffffffffc03cf000, "scsi_mod", false},
		{0xffffffffc03cefff, "slow", false},
		{0xffffffff81000000, "", false},
	} {
		if got := r.foreign(Symbol{Address: c.address, Kind: 'T', Name: []byte("f"), Module: []byte(c.module)}); got != c.foreign {
			t.Errorf("%#x of %q: %v", c.address, c.module, got)
		}
	}
}
