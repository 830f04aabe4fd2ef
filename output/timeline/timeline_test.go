package timeline

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/modtrace/modtrace/output"
	"github.com/modtrace/modtrace/test/recorded"
	"github.com/modtrace/modtrace/unload"
)

// render gives the timeline of records.
func render(t testing.TB, records []any) []byte {
	t.Helper()
	var b bytes.Buffer
	d := New(&b)
	for _, r := range records {
		if err := output.Put(d, r); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// shown is an event as a reader of the format finds it.
type shown struct {
	Name, Cat, Ph, S, Bp string
	TS, Dur              json.Number
	PID, TID             uint32
	ID                   int64
	Args                 map[string]any

	start, end int64 // ns
	depth      int
}

type parsed struct {
	TraceEvents []*shown
	OtherData   struct {
		Origin  string
		LeftOut int64 `json:"left_out"`
	}
}

// parse reads a timeline as Perfetto does, and checks what must hold in each: that slices
// on a track follow or contain each other.
func parse(t testing.TB, b []byte) parsed {
	t.Helper()
	var p parsed
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if err := d.Decode(&p); err != nil {
		t.Fatalf("%v in %.2000s", err, b)
	}
	if d.More() {
		t.Fatal("something behind the object")
	}
	named := map[string]bool{}
	tracks := map[uint32][]*shown{}
	for _, e := range p.TraceEvents {
		if e.Ph == "M" {
			named[fmt.Sprint(e.Name, e.TID)] = true
			continue
		}
		if !named[fmt.Sprint("thread_name", e.TID)] || !named[fmt.Sprint("process_name", e.PID)] {
			t.Errorf("event on a track that has no name yet: %+v", e)
		}
		e.start = nanoseconds(t, e.TS)
		e.end = e.start
		if e.Ph == "X" {
			e.end += nanoseconds(t, e.Dur)
		}
		if e.start < 0 || e.end < e.start {
			t.Errorf("from %d to %d: %+v", e.start, e.end, e)
		}
		tracks[e.TID] = append(tracks[e.TID], e)
	}
	for _, events := range tracks {
		nest(t, events)
	}
	return p
}

// nanoseconds reads microseconds as json_trace_tokenizer.cc of Perfetto does: integers are
// exact, others are read as float64, and rounded.
func nanoseconds(t testing.TB, n json.Number) int64 {
	t.Helper()
	if i, err := n.Int64(); err == nil {
		return i * 1000
	}
	f, err := n.Float64()
	if err != nil {
		t.Fatal(err)
	}
	return int64(math.Round(f * 1000))
}

func nest(t testing.TB, events []*shown) {
	t.Helper()
	slices.SortStableFunc(events, func(a, b *shown) int {
		if a.start == b.start {
			return cmp.Compare(b.end, a.end) // as Perfetto does it
		}
		return cmp.Compare(a.start, b.start)
	})
	var open []*shown
	for _, e := range events {
		if e.Ph != "X" {
			continue
		}
		for len(open) > 0 && open[len(open)-1].end <= e.start {
			open = open[:len(open)-1]
		}
		if e.depth = len(open); e.depth > 0 && open[len(open)-1].end < e.end {
			t.Errorf("%+v overlaps %+v", e, open[len(open)-1])
		}
		open = append(open, e)
	}
}

func (p parsed) of(category string) (all []*shown) {
	for _, e := range p.TraceEvents {
		if e.Cat == category && e.Ph != "s" && e.Ph != "f" {
			all = append(all, e)
		}
	}
	return all
}

// TestRecorded compares timelines of real captures with their records.
func TestRecorded(t *testing.T) {
	var every []any
	for _, name := range recorded.Files(t) {
		records, _ := recorded.Read(t, name)
		every = append(every, records...)
		t.Run(filepath.Base(name), func(t *testing.T) { compare(t, records) })
	}
	t.Run("all", func(t *testing.T) { compare(t, every) })
}

func compare(t *testing.T, records []any) {
	p := parse(t, render(t, records))
	attempts, phases, logs, refs, stalls := p.of("unload"), p.of("phase"), p.of("log"), p.of("reference"), p.of("stall")
	if p.OtherData.LeftOut != 0 {
		t.Errorf("%d left out", p.OtherData.LeftOut)
	}
	origin, err := time.Parse(time.RFC3339, p.OtherData.Origin)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		switch u := r.(type) {
		case *unload.Stall:
			if at := u.Start.Add(time.Duration(u.Duration)).Sub(origin); int64(at) != stalls[0].start {
				t.Errorf("stall at %d, not %d", stalls[0].start, at)
			}
			stalls = stalls[1:]
		case *unload.Unload:
			e := attempts[0]
			attempts = attempts[1:]
			if e.Name != "unload "+u.Module || e.depth != 0 || e.start != int64(u.Start.Sub(origin)) || e.end-e.start != u.Duration {
				t.Errorf("%+v is not %s from %s for %d", e, u.Module, u.Start, u.Duration)
			}
			if e.Args["not_placed"] != nil || e.Args["verdict"] != output.Verdict(*u) {
				t.Errorf("args of %s: %v", u.Module, e.Args)
			}
			phases = phases[comparePhases(t, *u, e, phases):]
			logs, refs = logs[len(u.Log):], refs[len(u.References):]
		}
	}
	if n := len(attempts) + len(phases) + len(logs) + len(refs) + len(stalls); n != 0 {
		t.Errorf("%d events that are of no record", n)
	}
}

// comparePhases says how many of the slices are those of an attempt.
func comparePhases(t *testing.T, u unload.Unload, whole *shown, phases []*shown) (n int) {
	t.Helper()
	without, _ := whole.Args["phases_without_time"].([]any)
	for _, want := range u.Phases {
		if want.Duration == 0 && slices.Contains(without, any(string(want.Name))) {
			continue
		}
		got := phases[n]
		n++
		if got.Name != string(want.Name) || got.depth != 1 || got.start != whole.start+want.Offset || got.end-got.start != want.Duration {
			t.Errorf("%+v is not %+v", got, want)
		}
	}
	return n
}

// at makes an attempt to unload a module, of two phases of the same length.
func at(module string, start time.Time, ns int64) *unload.Unload {
	return &unload.Unload{
		Module: module, Start: start, Duration: ns, Outcome: unload.Returned, Result: unload.Result{OK: true, Reason: unload.ReasonNone},
		Phases: []unload.Phase{
			{Name: unload.Enter, Duration: ns / 2}, {Name: unload.Return, Offset: ns / 2, Duration: ns - ns/2},
		},
	}
}

var monday = time.Date(2026, 11, 23, 8, 0, 0, 123456789, time.UTC)

func TestZeroRecords(t *testing.T) {
	for _, records := range [][]any{nil, {&unload.Header{Host: "a"}}, {&unload.Header{Host: "a"}, &unload.Trailer{}}} {
		p := parse(t, render(t, records))
		if len(p.TraceEvents) != 0 || p.OtherData.Origin != "" {
			t.Errorf("%+v", p)
		}
	}
}

// TestTracks says which attempts share a track.
func TestTracks(t *testing.T) {
	p := parse(t, render(t, []any{
		&unload.Header{Host: "a", BootID: "1"},
		at("x", monday, 1e6),
		at("x", monday.Add(1e6), 1e6),          // right behind it
		at("x", monday.Add(2e6-1), 3e6),        // begins before that ended
		at("x", monday.Add(1e6), 6e6),          // a long one, which ends last
		at("y", monday.Add(1e6), 1e6),          // another module
		&unload.Header{Host: "a", BootID: "1"}, // the next file of the same
		at("x", monday.Add(9e6), 1e6),
		at("x", monday.Add(10e6), 0), // between two others
		at("x", monday.Add(10e6), 1e6),
		&unload.Header{Host: "a", BootID: "2"},
		at("x", monday.Add(9e6), 1e6),
		&unload.Header{Host: "b", BootID: "1"},
		at("x", monday.Add(9e6), 1e6),
	}))
	first := map[uint32]int{}
	var got []int
	for _, e := range p.of("unload") {
		if _, ok := first[e.TID]; !ok {
			first[e.TID] = len(first)
		}
		got = append(got, first[e.TID])
	}
	if want := []int{0, 0, 1, 2, 3, 0, 0, 1, 4, 5}; !slices.Equal(got, want) {
		t.Errorf("tracks %v, want %v", got, want)
	}
	used := map[uint32]string{}
	for _, e := range p.TraceEvents {
		if e.Ph != "M" {
			continue
		}
		if other := used[e.TID]; other != "" {
			t.Errorf("%d is the track of %s and of %v", e.TID, other, e.Args["name"])
		}
		used[e.TID] = e.Args["name"].(string)
	}
}

// TestReload follows the arrow.
func TestReload(t *testing.T) {
	p := parse(t, render(t, []any{
		at("x", monday, 1e6), at("y", monday.Add(5e5), 1e6),
		&unload.Reload{Module: "x", Start: monday.Add(3e6), After: 2e6, Loader: unload.Caller{Cmdline: []string{"modprobe", "x"}}},
		&unload.Reload{Module: "z", Start: monday.Add(3e6)},
	}))
	var from, to *shown
	for _, e := range p.TraceEvents {
		switch e.Ph {
		case "s":
			from = e
		case "f":
			to = e
		}
	}
	x, back := p.of("unload")[0], p.of("reload")
	if from == nil || to == nil || from.ID != to.ID || from.TID != x.TID || from.start < x.start || from.start >= x.end {
		t.Fatalf("from %+v to %+v", from, to)
	}
	if len(back) != 2 || to.TID != back[0].TID || to.start != back[0].start || to.Bp != "e" || to.start != x.end+2e6 {
		t.Errorf("to %+v, the module came back at %+v", to, back)
	}
}

// TestFar shows what is kept of times that a float64 cannot hold.
func TestFar(t *testing.T) {
	odd := int64(1_234_567_891)
	early, late := at("early", monday.AddDate(0, 0, -30), odd), at("late", monday.AddDate(0, 0, 69), odd)
	p := parse(t, render(t, []any{
		at("x", monday, odd), early, late,
		at("later", monday.AddDate(0, 0, 200), odd), at("latest", time.Date(2169, 1, 1, 0, 0, 0, 1, time.UTC), odd),
		at("too early", monday.AddDate(0, 0, -40), odd), at("never", time.Time{}, odd), at("1969", time.Unix(-1, 0), odd),
		at("9999", time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), odd), at("negative", monday, -1), at("for ever", monday, math.MaxInt64),
		&unload.Stall{Unload: *at("never", time.Time{}, 1)}, &unload.Reload{},
	}))
	var got []string
	for _, e := range p.of("unload") {
		got = append(got, fmt.Sprint(strings.TrimPrefix(e.Name, "unload "), " ", e.end-e.start))
	}
	want := []string{"x 1234567891", "early 1234567891", "late 1234567891", "later 1234567000", "latest 1234568000"}
	for i := range want[3:] { // rounded at both ends
		if strings.HasSuffix(got[3+i], "8000") || strings.HasSuffix(got[3+i], "7000") {
			got[3+i] = want[3+i]
		}
	}
	if !slices.Equal(got, want) || p.OtherData.LeftOut != 8 {
		t.Errorf("%q and %d left out, want %q and 8", got, p.OtherData.LeftOut, want)
	}
}

// nasty is what a terminal or a page would obey.
const nasty = "\x1b[2J\x1b]0;owned\a\r\n\t\x00\x7f\xff\xfe\u009b31m\u202e\u200b\u2028\"\\</script>{}[]'"

// scrambled fills in text and a number wherever there is place for them.
func scrambled(text string, n int64) []any {
	someone := unload.Blocker{Kind: unload.KindWork, PID: int(n), Comm: text, Function: text, Module: text, Detail: text, Stack: []string{text}}
	w := unload.Wait{Cause: unload.Cause(text), Count: n, Duration: n, Longest: n, Blocker: someone, Waker: someone, Stack: []string{text, ""}}
	u := at(text, monday, 1e9)
	u.Caller = unload.Caller{PID: int(n), TID: int(n), UID: -1, Comm: text, Exe: text, Cmdline: []string{text, ""}, Cgroup: text, Ancestors: []unload.Ancestor{{PID: int(n), Comm: text}}}
	u.Result = unload.Result{Errno: text, Reason: unload.Reason(text), By: text}
	u.Flags, u.Dependents, u.Residue, u.Missing = []string{text}, []string{text}, []string{text}, []string{text}
	u.Phases = append(u.Phases,
		unload.Phase{Name: unload.PhaseName(text), Offset: n, Duration: n, OnCPU: n, OffCPU: n, Merged: []unload.PhaseName{unload.PhaseName(text)}, Waits: []unload.Wait{w}},
		unload.Phase{Name: unload.PhaseName(text), Offset: 1e9, Hot: []unload.Hot{{Samples: n, Stack: []string{text}}}})
	u.Notifiers = []unload.Notifier{{Callback: text, Module: text, Duration: n}}
	u.Devices = []unload.Device{{Device: text, Driver: text, Duration: n}}
	u.Convoy = []unload.Waiter{{PID: int(n), Comm: text, Lock: text, Duration: n}}
	u.Log = []unload.LogLine{{Offset: n, Phase: unload.PhaseName(text), Level: int(n), Text: text}, {Text: text}}
	u.References = []unload.Reference{{Op: text, Module: text, Offset: n, Site: text, Count: n}, {Op: text, Offset: 5}}
	odd := *u
	odd.Duration, odd.Start = n, time.Unix(0, n)
	return []any{
		&unload.Header{Tool: text, Kernel: text, Arch: text, Host: text, BootID: text, Started: time.Unix(n, 0)}, u, &odd,
		&unload.Stall{Unload: *u, Phase: unload.PhaseName(text), Elapsed: n, Wait: w}, &unload.Stall{},
		&unload.Reload{Module: text, Start: monday.Add(2e9), After: n, Loader: u.Caller}, &unload.Unload{},
	}
}

func TestHostile(t *testing.T) {
	for _, s := range []string{"", nasty, strings.Repeat("漢", 500), strings.Repeat(nasty, 100)} {
		for _, n := range []int64{0, 1, -1, 1e8, math.MaxInt64, math.MinInt64} {
			b := render(t, scrambled(s, n))
			p := parse(t, b)
			if got := len(p.of("unload")); got < 1 || p.OtherData.LeftOut < 2 {
				t.Errorf("%d attempts, %d left out", got, p.OtherData.LeftOut)
			}
			for _, r := range string(b) {
				if r == 0x1b || r == 0x7f || r == 0x9b || r == 0x202e || r == 0x200b {
					t.Errorf("%U is not escaped", r)
				}
			}
		}
	}
}

// TestMemory writes very many records, each on a track of its own.
func TestMemory(t *testing.T) {
	d := New(io.Discard).(*document)
	for i := range 3 * most {
		if err := d.Header(unload.Header{Host: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
		// Before those that came: no track is free.
		if err := d.Unload(*at("x", monday.Add(-time.Duration(i)*time.Second), 1e9+1)); err != nil {
			t.Fatal(err)
		}
		if err := d.Reload(unload.Reload{Module: "x", Start: monday}); err != nil {
			t.Fatal(err)
		}
		if len(d.tracks.machines) > most || d.tracks.kept > most || len(d.tracks.lanes) > most || len(d.tracks.asides) > most || len(d.tracks.names) != 0 || d.pending.Len() != 0 {
			t.Fatalf("%d machines, %d of %d lanes, %d names, %d bytes", len(d.tracks.machines), len(d.tracks.lanes), d.tracks.kept, len(d.tracks.names), d.pending.Len())
		}
	}
}

// full takes no more.
type full struct{ room int }

func (f *full) Write(b []byte) (int, error) {
	if len(b) > f.room {
		n := f.room
		f.room = 0
		return n, nil
	}
	f.room -= len(b)
	return len(b), nil
}

func TestWriteError(t *testing.T) {
	for _, room := range []int{0, 10, 3000} {
		d := New(&full{room})
		err := d.Unload(*at("x", monday, 1e6))
		if err == nil {
			err = d.Unload(*at("x", monday, 1e6))
		}
		if err == nil {
			err = errors.Join(d.Unload(*at("x", monday, 1e6)), d.Unload(*at("x", monday, 1e6)), d.Close())
		}
		if !errors.Is(err, io.ErrShortWrite) {
			t.Errorf("room for %d: %v", room, err)
		}
	}
}

func FuzzTimeline(f *testing.F) {
	for _, name := range recorded.Files(f)[:20] {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		_, b, _ = bytes.Cut(b, []byte("\n")) // the plan is long
		f.Add(b)
	}
	f.Add(lines(f, scrambled(nasty, -1)))
	f.Add(lines(f, scrambled("x", 1e8)))
	f.Fuzz(func(t *testing.T, b []byte) {
		records, _, _ := recorded.Records(bytes.NewReader(b))
		p := parse(t, render(t, records))
		n := p.OtherData.LeftOut
		for _, r := range records {
			switch r.(type) {
			case *unload.Unload, *unload.Stall, *unload.Reload:
				n--
			}
		}
		if n += int64(len(p.of("unload")) + len(p.of("stall")) + len(p.of("reload"))); n != 0 {
			t.Errorf("%d more events and left out than records", n)
		}
	})
}

// lines makes a capture of records.
func lines(t testing.TB, records []any) []byte {
	t.Helper()
	var b bytes.Buffer
	j := output.NewJSON(&b)
	for _, r := range records {
		if err := output.Put(j, r); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}
