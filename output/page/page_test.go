package page

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"

	"github.com/modtrace/modtrace/unload"

	"github.com/modtrace/modtrace/test/recorded"
)

var update = flag.Bool("update", false, "write the golden files anew")

// bare is a page without its style and script, which would only be noise.
func bare(page []byte) string {
	text := string(page)
	for _, tag := range []string{"style", "script"} {
		text = regexp.MustCompile(`(?s)<`+tag+`>.*?</`+tag+`>`).ReplaceAllLiteralString(text, "<"+tag+">…</"+tag+">")
	}
	return regexp.MustCompile(`sha256-.*?&#39;`).ReplaceAllLiteralString(text, "sha256-…&#39;")
}

func TestGolden(t *testing.T) {
	for name, page := range map[string][]byte{
		"night": everything(t),
		"empty": pageOf(t),
		"slow":  pageOf(t, recorded.File(t, "amd64-6.12-slow")),
	} {
		t.Run(name, func(t *testing.T) {
			file, got := filepath.Join("testdata", name+".html"), bare(page)
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
				t.Errorf("the page differs from %s (-update writes it anew):\n%s", file, diff)
			}
		})
	}
}

// TestHostile holds that nothing in a capture becomes markup. What a browser makes of it
// is tested in TestBrowser.
func TestHostile(t *testing.T) {
	page := string(hostilePage(t))
	text := bare([]byte(page))
	for _, r := range text {
		if r != '\n' && !unicode.IsPrint(r) {
			t.Fatalf("there is a %U in the page", r)
		}
	}
	for tag, want := range map[string]int{"<script": 1, "</script": 1, "<style": 1, "</style": 1, "<img": 0, "<a href=\"http": 0, "<!--": 0} {
		if got := strings.Count(strings.ToLower(text), tag); got != want {
			t.Errorf("%s stands in the page %d times, want %d", tag, got, want)
		}
	}
	tags := regexp.MustCompile(`="[^"]*"`).ReplaceAllString(text, `=""`)
	for _, attribute := range regexp.MustCompile(`<[^<>]*\s(on\w+|style|src|action)\s*=`).FindAllString(tags, -1) {
		t.Errorf("a tag has an attribute that it must not have: %s", attribute)
	}
	for _, m := range regexp.MustCompile(`href="([^"]*)"`).FindAllStringSubmatch(text, -1) {
		if !regexp.MustCompile(`^#[a-z]+(-[a-z]+)?[0-9]*$`).MatchString(m[1]) {
			t.Errorf("a link leads to %s", m[1])
		}
	}
	if !strings.Contains(text, "&lt;/script&gt;&lt;script&gt;alert(1)") {
		t.Error("what was hostile is not shown at all")
	}
}

// TestRealFigures holds the figures on top against the records.
func TestRealFigures(t *testing.T) {
	page := string(pageOf(t, recorded.Files(t)...))
	for _, want := range []string{
		"82 unload attempts: 67 unloaded, 12 refused, 1 still hanging, 1 died in the kernel, 1 whose end was not seen",
		"7 events were lost", "the kernel logged an oops or a warning during 1 attempt", "Captures (64)",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	if got := strings.Count(page, `<details class="u" data-module`); got != 82 {
		t.Errorf("%d attempts are listed", got)
	}
	// Each hang that was reported has ended, and leads to its end.
	if got := strings.Count(page, `its end is in no capture`); got != 0 {
		t.Errorf("the ends of %d hangs were not found", got)
	}
}

// TestThousand holds a page of a thousand real attempts to a size that opens fast.
func TestThousand(t *testing.T) {
	files := recorded.Files(t)
	for len(files) < 14*64 {
		files = append(files, files[:64]...)
	}
	page := pageOf(t, files...)
	const most = 20 << 20
	if len(page) > most {
		t.Errorf("a thousand attempts take %d bytes, more than %d", len(page), most)
	}
	if got := bytes.Count(page, []byte(`<details class="u" data-module`)); got != 1000 {
		t.Errorf("%d attempts are listed", got)
	}
	if !bytes.Contains(page, []byte("148 attempts are not shown")) {
		t.Error("the page does not say how many are left out")
	}
	t.Logf("%d bytes", len(page))
}

// keptOf gives the modules that are kept of some attempts, gravest first.
func keptOf(t *testing.T, most int, all ...unload.Unload) (modules []string, left int64) {
	t.Helper()
	d := New(&bytes.Buffer{}, Options{Most: most}).(*document)
	for _, u := range all {
		if err := d.Unload(u); err != nil {
			t.Fatal(err)
		}
	}
	for _, e := range d.kept.all() {
		modules = append(modules, e.record.Module)
	}
	return modules, d.kept.left
}

func TestKeep(t *testing.T) {
	var storm []unload.Unload
	for i := range 50 {
		u := refusal(fmt.Sprintf("refused%d", i), int64(i))
		u.Duration = int64(i)
		storm = append(storm, u)
	}
	var slow []unload.Unload
	for i := range 50 {
		slow = append(slow, attempt(fmt.Sprintf("slow%d", i), int64(i), int64(1000+i), unload.CauseRCU))
	}
	hung := stall("hung", 0, 5).Unload
	for name, c := range map[string]struct {
		most int
		all  []unload.Unload
		want []string
	}{
		"refusals alone":              {3, storm, []string{"refused49", "refused48", "refused47"}},
		"unloads alone":               {3, slow, []string{"slow49", "slow48", "slow47"}},
		"the shortest first":          {2, slices.Concat(slow, slow[:1]), []string{"slow49", "slow48"}},
		"the longest first":           {2, append([]unload.Unload{slow[49]}, slow[:49]...), []string{"slow49", "slow48"}},
		"a storm after":               {4, slices.Concat(slow, storm), []string{"refused49", "refused48", "slow49", "slow48"}},
		"a storm before":              {4, slices.Concat(storm, slow), []string{"refused49", "refused48", "slow49", "slow48"}},
		"few of one kind":             {4, slices.Concat(slow[:1], storm), []string{"refused49", "refused48", "refused47", "slow0"}},
		"few of the other":            {4, slices.Concat(storm[:1], slow), []string{"refused0", "slow49", "slow48", "slow47"}},
		"what hangs goes before all":  {2, slices.Concat(storm, []unload.Unload{hung}, slow), []string{"hung", "slow49"}},
		"one":                         {1, slices.Concat(slow, storm, []unload.Unload{hung}), []string{"hung"}},
		"of equals the first is kept": {1, []unload.Unload{attempt("a", 0, 5, ""), attempt("b", 0, 5, "")}, []string{"a"}},
	} {
		got, left := keptOf(t, c.most, c.all...)
		if !slices.Equal(got, c.want) || left != int64(len(c.all)-len(c.want)) {
			t.Errorf("%s: %q are kept and %d left out, want %q", name, got, left, c.want)
		}
	}
}

// TestMemory feeds records that are as large as they come, and far more than are kept.
func TestMemory(t *testing.T) {
	d := New(&bytes.Buffer{}, Options{Most: 50})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range 100 {
		for _, r := range large(i) {
			report(t, d, r)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	const most = 150 << 20
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > most {
		t.Errorf("%d bytes are kept, more than %d", grown, most)
	} else {
		t.Logf("%d bytes are kept", grown)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

// large is a record of each kind that is as large as a capture's line may be.
func large(i int) []any {
	name := func(what string) string { return fmt.Sprint(what, i) + strings.Repeat("x", 1<<16) }
	u := attempt(name("m"), int64(i), int64(i), unload.CauseRCU)
	var stack []string
	for f := range 100 {
		stack = append(stack, fmt.Sprintf("f%d", f)+strings.Repeat("y", 1000))
	}
	for w := range 200 {
		u.Phases[1].Waits = append(u.Phases[1].Waits, unload.Wait{Cause: unload.Cause(fmt.Sprint("c", w)), Duration: int64(w), Stack: stack})
		u.Phases[1].Hot = append(u.Phases[1].Hot, unload.Hot{Samples: int64(w), Stack: stack})
		u.Log = append(u.Log, unload.LogLine{Text: name("log")})
	}
	u.Holders = make([]unload.Holder, 10000)
	s := unload.Stall{Unload: u, Phase: unload.Exit, Elapsed: 1, Wait: u.Phases[1].Waits[0]}
	s.Caller.TID = i
	h := header(name("host"), name("kernel"))
	return []any{
		&h, &s, &u, &unload.Reload{Module: name("m")}, &unload.Why{Module: name("m"), Holders: u.Holders},
		&unload.Ledger{Balance: unload.Balance{Module: name("m")}, Entries: make([]unload.Refs, 10000)},
	}
}

// TestHang holds what a hang that was reported is taken for.
func TestHang(t *testing.T) {
	first, second := stall("m", 0, 2e9), stall("m", 1000, 4e9) // the clock is set now and then
	ended := attempt("m", -5000, 6e9, unload.CauseMutex)
	later := attempt("m", 100e9, 1e9, unload.CauseMutex)
	for name, c := range map[string]struct {
		records []any
		states  []state
		reports []int64 // of each entry, 0 for no hang
	}{
		"ended":          {[]any{&first, &second, &ended}, []state{stateUnloaded}, []int64{2}},
		"never ended":    {[]any{&first, &second}, []state{stateHanging}, []int64{2}},
		"the next one":   {[]any{&first, &ended, &later}, []state{stateUnloaded, stateUnloaded}, []int64{1, 0}},
		"its end lost":   {[]any{&first, &later}, []state{stateUnloaded}, []int64{1}},
		"other capture":  {[]any{&first, &unload.Trailer{}, &ended}, []state{stateHanging, stateUnloaded}, []int64{1, 0}},
		"nothing at all": {nil, nil, nil},
	} {
		d := New(&bytes.Buffer{}, Options{}).(*document)
		report(t, d, c.records...)
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		var states []state
		var reports []int64
		for _, e := range d.kept.all() {
			states = append(states, e.state)
			n := int64(0)
			if e.hang != nil {
				n = e.hang.reports
			}
			reports = append(reports, n)
		}
		if !slices.Equal(states, c.states) || !slices.Equal(reports, c.reports) {
			t.Errorf("%s: %q with %d reports, want %q with %d", name, states, reports, c.states, c.reports)
		}
	}
}

func TestTicks(t *testing.T) {
	for whole, want := range map[int64]string{
		0: "", 1: "0 1 ns", 88431053: "0 20 ms 40 ms 60 ms 80 ms", 60e9: "0 20 s 40 s 60 s", 999: "0 200 ns 400 ns 600 ns 800 ns",
	} {
		var got []string
		for _, k := range ticks(whole) {
			got = append(got, k.Text)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%d ns are parted at %q, want %q", whole, got, want)
		}
	}
	for _, whole := range []int64{1, 3, 7, 1e3, 123456789, 1 << 40, math.MaxInt64} {
		if n := len(ticks(whole)); n < 2 || n > 7 {
			t.Errorf("%d ns are parted into %d", whole, n)
		}
	}
}

// TestScale holds that what is drawn adds up.
func TestScale(t *testing.T) {
	u := attempt("m", 0, 1e9, unload.CauseIO)
	u.Phases[1].OffCPU += 1e6 // more than the waits that were seen
	e := &entry{record: u, capture: &recording{}}
	line := newTimeline(e)
	exit := line.Rows[1]
	if len(exit.Segments) != 3 || exit.Segments[1].Ink != inkOf(unload.CauseIO) || exit.Segments[2].Ink != unseen() {
		t.Fatalf("the phase is drawn as %v", exit.Segments)
	}
	end := exit.Segments[2].X + exit.Segments[2].W
	if want := part(u.Phases[1].Offset+u.Phases[1].OnCPU+u.Phases[1].OffCPU, drawn(u)); math.Abs(float64(end-want)) > 1e-9 {
		t.Errorf("the phase ends at %v, want %v", end, want)
	}
	f := waitFlame(u)
	if f.Boxes[0].W != 100 || !strings.Contains(f.Boxes[0].Tip, "899 ms") || f.Boxes[len(f.Boxes)-1].Text != "io" {
		t.Errorf("the flame is %+v", f.Boxes)
	}
}

// TestInks holds that no two causes look the same.
func TestInks(t *testing.T) {
	seen := map[[2]string]string{}
	for _, i := range inks() {
		key := [2]string{i.Class, i.Texture}
		if seen[key] != "" {
			t.Errorf("%s looks like %s", i.Name, seen[key])
		}
		seen[key] = i.Name
		if !strings.Contains(styleSheet, "."+i.Class+"{fill:") {
			t.Errorf("%s has no colour", i.Name)
		}
		if i.Texture != "" && !strings.Contains(pageTemplate, `<pattern id="`+i.Texture+`"`) {
			t.Errorf("%s has no texture", i.Name)
		}
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left") }

func TestWriteFails(t *testing.T) {
	if err := New(full{}, Options{}).Close(); err == nil || !strings.Contains(err.Error(), "writing the page: no space left") {
		t.Errorf("the error is %v", err)
	}
}

func TestClock(t *testing.T) {
	at := func(text string) time.Time {
		v, err := time.Parse(time.DateTime, text)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for want, span := range map[string][2]string{
		"17:00:00 17:00:05 17:00:10 17:00:15 17:00:20 17:00:25 17:00:30":   {"2026-11-21 17:00:00", "2026-11-21 17:00:31"},
		"18:00 19:00 20:00 21:00 22:00":                                    {"2026-11-21 17:00:10", "2026-11-21 22:35:39"},
		"Nov 22 00:00 Nov 22 12:00 Nov 23 00:00 Nov 23 12:00 Nov 24 00:00": {"2026-11-21 17:00:10", "2026-11-24 08:00:00"},
	} {
		var got []string
		for _, k := range clock(at(span[0]), at(span[1])) {
			got = append(got, k.Text)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s are parted at %q, want %s", span, got, want)
		}
	}
}
