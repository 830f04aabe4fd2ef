package profile

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/pprof/profile"

	"github.com/modtrace/modtrace/output"
	"github.com/modtrace/modtrace/test/recorded"
	"github.com/modtrace/modtrace/unload"
)

func put(t testing.TB, d output.Document, records []any) {
	t.Helper()
	for _, r := range records {
		if err := output.Put(d, r); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

func render(t testing.TB, records []any) []byte {
	t.Helper()
	var b bytes.Buffer
	put(t, New(&b), records)
	return b.Bytes()
}

// parse reads a profile back, and checks that it is valid.
func parse(t testing.TB, b []byte) *profile.Profile {
	t.Helper()
	if !bytes.HasPrefix(b, []byte{0x1f, 0x8b}) {
		t.Fatal("not gzipped")
	}
	p, err := profile.ParseData(b)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.CheckValid(); err != nil {
		t.Fatal(err)
	}
	return p
}

// sum adds up what is in records.
func sum(records []any) (all values) {
	for _, r := range records {
		u, ok := r.(*unload.Unload)
		if !ok {
			continue
		}
		for _, p := range u.Phases {
			for _, w := range p.Waits {
				all.add(values{offCPU: w.Duration, waits: max(w.Count, 1)})
			}
			for _, h := range p.Hot {
				all.add(values{onCPU: h.Samples})
			}
		}
	}
	return all
}

func total(p *profile.Profile) (all values) {
	for _, s := range p.Sample {
		all.add(values{s.Value[0], s.Value[1], s.Value[2]})
	}
	return all
}

func TestRecorded(t *testing.T) {
	var every []any
	for _, name := range recorded.Files(t) {
		records, _ := recorded.Read(t, name)
		every = append(every, records...)
		p := parse(t, render(t, records))
		if got, want := total(p), sum(records); got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
	p := parse(t, render(t, every))
	if got, want := total(p), sum(every); got != want || want.offCPU < 1e9 || want.onCPU < 10 {
		t.Errorf("%+v, want %+v", got, want)
	}
	for _, s := range p.Sample {
		if s.Label["phase"] == nil || s.Label["module"] == nil || len(s.Location) == 0 {
			t.Errorf("%v of %v", s.Label, s.Location)
		}
		if (s.Value[1] > 0) != (s.Label["cause"] != nil) {
			t.Errorf("%v has %v", s.Value, s.Label)
		}
	}
	for _, l := range p.Location {
		if l.Address != 0 || strings.Contains(l.Line[0].Function.Name, "+0x") {
			t.Errorf("%+v", l.Line[0].Function)
		}
	}
}

// slow is one real unload, with waits of known stacks.
const slow = "amd64-6.12-slow"

// pprof asks the tool that people use.
func pprof(t *testing.T, file string, args ...string) string {
	t.Helper()
	c := exec.Command("go", append(append([]string{"tool", "pprof"}, args...), file)...)
	c.Env = append(os.Environ(), "PPROF_TMPDIR="+t.TempDir())
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		t.Fatalf("go tool pprof %s: %v\n%s%s", strings.Join(args, " "), err, out, stderr.String())
	}
	return string(out)
}

func save(t *testing.T, b []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "unloads.pb.gz")
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestTool asks go tool pprof for what is known of a recording.
func TestTool(t *testing.T) {
	records, _ := recorded.Read(t, recorded.File(t, slow))
	all := sum(records)
	file := save(t, render(t, records))

	for index, want := range map[string]string{
		"offcpu -unit=ns": fmt.Sprintf("of %dns total", all.offCPU),
		"waits":           fmt.Sprintf("of %d total", all.waits),
		"oncpu_samples":   fmt.Sprintf("of %d total", all.onCPU),
	} {
		if top := pprof(t, file, append([]string{"-top"}, strings.Fields("-sample_index="+index)...)...); !strings.Contains(top, want) {
			t.Errorf("%s: no %q in %s", index, want, top)
		}
	}
	if top := pprof(t, file, "-top", "-unit=ns"); !strings.Contains(top, fmt.Sprintf("of %dns total", all.offCPU)) {
		t.Errorf("offcpu is not what is shown first: %s", top)
	}
	// By who waited, below everything that waits.
	cum := pprof(t, file, "-top", "-cum", "-unit=ns", "-sample_index=offcpu", "-nodecount=100", "-nodefraction=0")
	if !regexp.MustCompile(`(?m) 47421455ns +\S+ +slow_exit \[slow\]$`).MatchString(cum) {
		t.Errorf("slow_exit waited for %s", cum)
	}
	if !strings.Contains(cum, "(preempted)") {
		t.Errorf("no function for waits without a stack: %s", cum)
	}
	tags := pprof(t, file, "-tags", "-unit=ns", "-sample_index=offcpu")
	for _, want := range []string{"phase: Total", "cause: Total", "module: Total", "blocker: Total", "workqueue", "work item slow_work_fn [slow]", "free.unlink"} {
		if !strings.Contains(tags, want) {
			t.Errorf("no %q in %s", want, tags)
		}
	}
	if strings.Contains(tags, "host:") {
		t.Errorf("one host is a label: %s", tags)
	}
	if rcu := pprof(t, file, "-top", "-unit=ns", "-sample_index=offcpu", "-tagfocus=cause=^rcu_grace_period$"); !strings.Contains(rcu, "accounting for 28228665ns") {
		t.Errorf("grace periods: %s", rcu)
	}
	if raw := pprof(t, file, "-raw"); !strings.Contains(raw, "[slow]") || !strings.Contains(raw, "[kernel]") {
		t.Errorf("mappings: %s", raw)
	}
	if c := pprof(t, file, "-comments"); !strings.Contains(c, "modtrace: 1 unload in 1 capture") {
		t.Errorf("comments: %s", c)
	}
}

func TestToolReadsHostile(t *testing.T) {
	file := save(t, render(t, scrambled(nasty, 7)))
	for _, args := range [][]string{{"-top"}, {"-tags"}, {"-traces"}} {
		if out := pprof(t, file, args...); strings.ContainsAny(out, "\x1b\a\x7f") {
			t.Errorf("%v: %q", args, out)
		}
	}
}

func TestZeroRecords(t *testing.T) {
	for _, records := range [][]any{nil, {&unload.Header{Host: "a"}, &unload.Trailer{}}} {
		if p := parse(t, render(t, records)); len(p.Sample) != 0 || len(p.SampleType) != 3 {
			t.Errorf("%v", p)
		}
	}
	pprof(t, save(t, render(t, nil)), "-raw")
}

// waited makes an unload that waited once.
func waited(module string, w unload.Wait) *unload.Unload {
	return &unload.Unload{Module: module, Phases: []unload.Phase{{Name: unload.Exit, Waits: []unload.Wait{w}}}}
}

func TestSeveralCaptures(t *testing.T) {
	day := time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)
	w := unload.Wait{Cause: unload.CauseRCU, Count: 2, Duration: 10, Stack: []string{"a+0x1", "b+0x2 [x]"}}
	other := w
	other.Stack = []string{"a.isra.0+0x9", "b+0x2/0x10 [x]"} // the same, but for the place in a
	p := parse(t, render(t, []any{
		&unload.Header{Host: "one", Started: day.Add(time.Hour)}, waited("x", w), waited("x", other), &unload.Trailer{Ended: day.Add(2 * time.Hour)},
		&unload.Header{Host: "two", Started: day}, waited("x", w),
	}))
	if len(p.Sample) != 2 || len(p.Location) != 2 || p.TimeNanos != day.UnixNano() || p.DurationNanos != int64(2*time.Hour) {
		t.Fatal(p)
	}
	for i, want := range []string{"one", "two"} {
		s := p.Sample[i]
		if s.Label["host"][0] != want || s.Value[0] != int64(20-10*i) || s.Value[1] != int64(4-2*i) {
			t.Errorf("%v of %v", s.Value, s.Label)
		}
	}
}

// TestBlockers says which waits are for the same.
func TestBlockers(t *testing.T) {
	for want, b := range map[string]unload.Blocker{
		"":                      {PID: 3, Kind: unload.KindTask, Stack: []string{"x"}},
		"held_fn":               {PID: 3, Kind: unload.KindTask, Comm: "one", Candidates: 3, Function: "held_fn"},
		"holder":                {PID: 3, Kind: unload.KindTask, Comm: "holder"},
		"work item w_fn [m]":    {PID: 3, Kind: unload.KindWork, Comm: "kworker/0:1", Function: "w_fn", Module: "m"},
		"users of interface e0": {Kind: unload.KindInterface, Detail: "e0", Users: 4},
	} {
		if got := blocker(b); got != want {
			t.Errorf("%+v is %q, want %q", b, got, want)
		}
	}
}

// TestBounds says that nothing is lost of what is not kept apart.
func TestBounds(t *testing.T) {
	for name, b := range map[string]bounds{
		"samples": {samples: 10, weight: 1 << 20, frames: 8},
		"weight":  {samples: 1000, weight: 600, frames: 8},
		"none":    {},
	} {
		var w bytes.Buffer
		d := New(&w).(*document)
		d.bounds = b
		var records []any
		for i := range 500 {
			records = append(records, waited("x", unload.Wait{Count: 1, Duration: int64(i), Stack: []string{fmt.Sprint("f", i, "+0x1"), "g+0x2"}}))
		}
		put(t, d, records)
		p := parse(t, w.Bytes())
		if total(p) != sum(records) {
			t.Errorf("%s: %+v, want %+v", name, total(p), sum(records))
		}
		kept := len(p.Sample) - 1
		if last := p.Sample[kept]; kept > 60 || last.Location[0].Line[0].Function.Name != "(others)" || last.Value[1] != int64(500-kept) {
			t.Errorf("%s: %d kept, %v", name, kept, last)
		}
		if want := fmt.Sprintf("(others) stands for %d waits", 500-kept); !strings.Contains(strings.Join(p.Comments, "\n"), want) {
			t.Errorf("%s: no %q in %q", name, want, p.Comments)
		}
		if d.weight > b.weight || len(d.samples) > b.samples {
			t.Errorf("%s: %d of %d bytes, %d samples", name, d.weight, b.weight, len(d.samples))
		}
	}
}

func TestDeepStack(t *testing.T) {
	deep := make([]string, 5000)
	for i := range deep {
		deep[i] = fmt.Sprint("f", i)
	}
	p := parse(t, render(t, []any{waited("x", unload.Wait{Duration: 1, Stack: deep})}))
	l := p.Sample[0].Location
	if len(l) != 257 || l[0].Line[0].Function.Name != "f0" || l[256].Line[0].Function.Name != "(more)" {
		t.Errorf("%d frames", len(l))
	}
}

// nasty is what a terminal or a page would obey.
const nasty = "\x1b[2J\x1b]0;owned\a\r\n\t\x00\x7f\xff\xfe\u009b31m\u202e\u200b\u2028\"\\</script>{}[]'"

// scrambled fills in text and a number wherever there is place for them.
func scrambled(text string, n int64) []any {
	someone := unload.Blocker{Kind: unload.KindWork, PID: int(n), Comm: text, Function: text, Module: text, Detail: text, Stack: []string{text}}
	u := waited(text, unload.Wait{Cause: unload.Cause(text), Count: n, Duration: n, Longest: n, Blocker: someone, Waker: someone, Stack: []string{text, "", "f+0x1 [" + text + "]"}})
	u.Phases[0].Hot = []unload.Hot{{Samples: n, Stack: []string{text}}, {Samples: n}}
	u.Phases = append(u.Phases, unload.Phase{Name: unload.PhaseName(text), Waits: []unload.Wait{{Duration: n}, {Blocker: unload.Blocker{Kind: text, Detail: text}}}})
	return []any{
		&unload.Header{Host: text, Started: time.Unix(n, 0)}, u, &unload.Unload{}, &unload.Trailer{Ended: time.Unix(0, n)},
		&unload.Header{}, u,
	}
}

func TestHostile(t *testing.T) {
	for _, s := range []string{"", nasty, strings.Repeat("漢", 5000), strings.Repeat(nasty, 100)} {
		for _, n := range []int64{0, 1, -1, math.MaxInt64, math.MinInt64} {
			records := scrambled(s, n)
			p := parse(t, render(t, records))
			if total(p) != sum(records) {
				t.Errorf("%+v, want %+v", total(p), sum(records))
			}
			if text := p.String(); strings.ContainsAny(text, "\x1b\a\x7f\u009b\u202e\u200b") {
				t.Errorf("%q", text)
			}
		}
	}
}

// broken takes nothing.
type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestWriteError(t *testing.T) {
	if err := New(broken{}).Close(); err == nil {
		t.Error("no error")
	}
}

func FuzzProfile(f *testing.F) {
	for _, name := range recorded.Files(f)[:20] {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		_, b, _ = bytes.Cut(b, []byte("\n")) // the plan is long
		f.Add(b)
	}
	for _, records := range [][]any{scrambled(nasty, -1), scrambled("x", 1e8)} {
		var b bytes.Buffer
		j := output.NewJSON(&b)
		for _, r := range records {
			if err := output.Put(j, r); err != nil {
				f.Fatal(err)
			}
		}
		f.Add(b.Bytes())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		records, _, _ := recorded.Records(bytes.NewReader(b))
		p := parse(t, render(t, records))
		if total(p) != sum(records) {
			t.Errorf("%+v, want %+v", total(p), sum(records))
		}
	})
}
