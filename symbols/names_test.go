package symbols

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFrame(t *testing.T) {
	for text, want := range map[string]string{
		"msleep+0x2d/0x40":              "msleep+0x2d",
		"slow_exit+0x1f/0x90 [slow]":    "slow_exit+0x1f [slow]",
		"0xffffffffc0266010":            "",
		"":                              "",
		"do_it.part.0+0x1/0x2 [m1 abc]": "do_it.part.0+0x1 [m1 abc]",
	} {
		if got := Frame(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// TestNames asks for each address once, until its module has gone; what has no
// name may have one later.
func TestNames(t *testing.T) {
	var asked []uint64
	table := map[uint64]string{1: "schedule+0x1", 2: "exit+0x2 [m]"}
	n := New(func(addresses []uint64) []string {
		asked = append(asked, addresses...)
		var list []string
		for _, a := range addresses {
			list = append(list, table[a])
		}
		return list
	})
	var recorded []string
	n.Record = func(address uint64, name string) { recorded = append(recorded, fmt.Sprint(address, " ", name)) }
	for _, step := range []struct {
		change func()
		want   []string
		asked  []uint64
	}{
		{func() {}, []string{"schedule+0x1", "exit+0x2 [m]", "?"}, []uint64{1, 2, 3}},
		{func() { table[3] = "late+0x3" }, []string{"schedule+0x1", "exit+0x2 [m]", "late+0x3"}, []uint64{3}},
		{func() { n.Forget(); table[2] = "other+0x1 [k]" }, []string{"schedule+0x1", "other+0x1 [k]", "late+0x3"}, []uint64{2}},
	} {
		asked = nil
		step.change()
		if diff := cmp.Diff(step.want, n.Of([]uint64{1, 2, 3})); diff != "" {
			t.Errorf("names (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(step.asked, asked); diff != "" {
			t.Errorf("asked (-want +got):\n%s", diff)
		}
	}
	want := []string{"1 schedule+0x1", "2 exit+0x2 [m]", "3 late+0x3", "2 other+0x1 [k]"}
	if diff := cmp.Diff(want, recorded); diff != "" {
		t.Errorf("recorded (-want +got):\n%s", diff)
	}
	if function, module := n.Function(1); function != "other" || module != "k" {
		t.Errorf("the function before 2 is %s of %q", function, module)
	}
}

// TestKallsyms names an address by the symbol before the instruction that was
// executed, which ends where the address points.
func TestKallsyms(t *testing.T) {
	k := kallsyms{
		addresses: []uint64{0x100, 0x200, 0x300},
		at:        []uint32{0, 6, 17},
		text:      []byte("start\nexit [mod]\nend\n"),
	}
	for address, want := range map[uint64]string{
		0x100: "", 0x101: "start+0x1", 0x200: "start+0x100", 0x201: "exit+0x1 [mod]", 0x300: "exit+0x100 [mod]", 0x301: "",
	} {
		if got := k.name(address); got != want {
			t.Errorf("%#x: %q, want %q", address, got, want)
		}
	}
}

// TestKallsymsOfThisKernel reads the real table, where it may be read.
func TestKallsymsOfThisKernel(t *testing.T) {
	b, err := os.ReadFile("/proc/kallsyms")
	if err != nil || !strings.Contains(string(b), " T schedule\n") || strings.HasPrefix(string(b), "0000000000000000") {
		t.Skipf("/proc/kallsyms does not say where schedule is (error %v)", err)
	}
	k := &kallsyms{}
	k.load()
	var address uint64
	for line := range strings.Lines(string(b)) {
		if strings.HasSuffix(line, " T schedule\n") {
			if _, err := fmt.Sscanf(line, "%x", &address); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := k.ask([]uint64{address + 5}); got[0] != "schedule+0x5" {
		t.Errorf("%#x is %q", address+5, got)
	}
}

// TestNamesWithinFunctions names all places of a function of which one was named,
// also when the kernel knows it no longer.
func TestNamesWithinFunctions(t *testing.T) {
	table := map[uint64]string{0x110: "spin+0x10/0x40 [m]", 0x210: "core+0x10/0x20"}
	n := New(func(addresses []uint64) []string {
		var list []string
		for _, a := range addresses {
			list = append(list, table[a])
		}
		return list
	})
	n.Of([]uint64{0x110, 0x210})
	clear(table)
	places := []uint64{0x100, 0x101, 0x140, 0x141, 0x21f, 0x221}
	want := []string{"?", "spin+0x1 [m]", "spin+0x40 [m]", "?", "core+0x1f", "?"}
	if diff := cmp.Diff(want, n.Of(places)); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
	n.Forget()
	want = []string{"?", "?", "?", "?", "core+0x1f", "?"}
	if diff := cmp.Diff(want, n.Of(places)); diff != "" {
		t.Errorf("names when the module has gone (-want +got):\n%s", diff)
	}
}
