package output

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/modtrace/modtrace/unload"
)

var update = flag.Bool("update", false, "write the golden files anew")

// variants are the screens of the golden files.
var variants = []struct {
	name string
	TableOptions
}{
	{"80 columns", TableOptions{Width: 80}},
	{"200 columns", TableOptions{Width: 200}},
	{"40 columns", TableOptions{Width: 40}},
	{"80 columns, colour", TableOptions{Width: 80, Color: true}},
	{"80 columns, ASCII", TableOptions{Width: 80, ASCII: true}},
	{"200 columns, verbose", TableOptions{Width: 200, Verbose: true}},
}

// drawing is something that is drawn on any screen.
type drawing struct {
	name string
	draw func(*bytes.Buffer, TableOptions) error
}

func drawings(t testing.TB) []drawing {
	var all []drawing
	for _, s := range streams(t) {
		all = append(all, drawing{s.name, func(b *bytes.Buffer, o TableOptions) error { return s.report(NewTable(b, o)) }})
	}
	for _, st := range append(stalls(), stuck()...) {
		all = append(all, drawing{st.name, func(b *bytes.Buffer, o TableOptions) error { return NewTable(b, o).Stall(st.Stall) }})
	}
	for _, l := range comebacks() {
		all = append(all, drawing{l.name, func(b *bytes.Buffer, o TableOptions) error { return NewTable(b, o).Reload(l.Reload) }})
	}
	for _, w := range helds() {
		all = append(all, drawing{w.name, func(b *bytes.Buffer, o TableOptions) error { return NewTable(b, o).Why(w.Why) }})
	}
	for _, a := range accountsKept() {
		all = append(all, drawing{a.name, func(b *bytes.Buffer, o TableOptions) error { return NewTable(b, o).Ledger(a.Ledger) }})
	}
	all = append(all, drawing{"refs-raw", func(b *bytes.Buffer, o TableOptions) error {
		r := NewTable(b, o)
		for _, e := range events() {
			if err := r.Ref(e); err != nil {
				return err
			}
		}
		return r.Ledger(accountsKept()[0].Ledger)
	}})
	for _, one := range sums(t) {
		all = append(all, drawing{one.name, func(b *bytes.Buffer, o TableOptions) error { return Summary(b, one.Summary, o) }})
	}
	for _, one := range differences(t) {
		all = append(all, drawing{one.name, func(b *bytes.Buffer, o TableOptions) error { return Diff(b, one.Diff, o) }})
	}
	inUse := refusal("EAGAIN", unload.ReasonReferenced, func(u *unload.Unload) {
		u.Refcount.Before, u.Holders, u.HoldersKnown = 5, helds()[1].Holders, true
	})
	all = append(all, drawing{"refused-held", func(b *bytes.Buffer, o TableOptions) error { return NewTable(b, o).Unload(inUse) }})
	plan := func(name string, hooks []unload.Hook) {
		all = append(all, drawing{name, func(b *bytes.Buffer, o TableOptions) error { return Plan(b, hooks, o) }})
	}
	plan("plan", hooks())
	plan("plan-none", nil)
	plan("plan-useless", useless())
	plan("plan-hostile", []unload.Hook{{
		Phase: nasty, Sees: nasty, Function: nasty, Mechanism: nasty, Fallback: nasty, Status: nasty, Reason: nasty, Required: true,
	}})
	more := []unload.Hook{
		{Sees: "who has files open, and what these lead to", Function: "task_file", Mechanism: "iter", Status: unload.StatusFallback,
			Reason: "bpf_loop: not in this kernel; a file that is closed while it is looked at stays open until the look is over"},
		{Sees: "files that are mapped and not open", Function: "task_vma", Status: unload.StatusMissing, Reason: "not in this kernel"},
		{Sees: "mounts", Function: "task", Mechanism: "iter", Status: unload.StatusOK},
	}
	all = append(all, drawing{"plan-holders", func(b *bytes.Buffer, o TableOptions) error {
		return Hooks(b, "who holds a module (why, and refusals):", more, o)
	}})
	return all
}

// useless is the plan on a kernel where not even the system call is seen.
func useless() []unload.Hook {
	all := hooks()
	for i := range all {
		all[i].Status, all[i].Mechanism, all[i].Reason = unload.StatusMissing, "", "not permitted"
	}
	return all
}

func TestGolden(t *testing.T) {
	for _, d := range drawings(t) {
		t.Run(d.name, func(t *testing.T) {
			var got bytes.Buffer
			for _, v := range variants {
				fmt.Fprintf(&got, "==> %s\n", v.name)
				if err := d.draw(&got, v.TableOptions); err != nil {
					t.Fatal(err)
				}
			}
			compareGolden(t, filepath.Join("testdata", d.name+".golden"), got.String())
		})
	}
}

func compareGolden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want, have := strings.Split(string(b), "\n"), strings.Split(got, "\n")
	for i := range max(len(want), len(have)) {
		if line(want, i) != line(have, i) {
			t.Fatalf("%s:%d differs (-update writes it anew)\nwant %q\n got %q", file, i+1, line(want, i), line(have, i))
		}
	}
}

func line(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return ""
}
