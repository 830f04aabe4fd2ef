package timeline

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/modtrace/modtrace/test/recorded"
	"github.com/modtrace/modtrace/unload"
)

// processor finds Perfetto's trace processor, which is not in Debian: it is the
// trace_processor_shell of https://perfetto.dev/docs/analysis/trace-processor, in the
// PATH or where MODTRACE_TRACE_PROCESSOR says. Without it a test is skipped, but fails
// where all that the lab needs is said to be there.
func processor(t *testing.T) string {
	t.Helper()
	why := ""
	for _, name := range []string{os.Getenv("MODTRACE_TRACE_PROCESSOR"), "trace_processor_shell", "trace_processor"} {
		if name == "" {
			continue
		}
		path, err := exec.LookPath(name)
		if err == nil {
			return path
		}
		why = err.Error()
	}
	if os.Getenv("MODTRACE_LAB") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
	return ""
}

// query asks the trace processor for rows of a timeline. It writes text as it is between
// quotes: such that may hold quotes is to be asked for in hex.
func query(t *testing.T, tool, trace, sql string) [][]string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "query.sql")
	if err := os.WriteFile(file, []byte(sql), 0o600); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(tool, "-q", file, trace)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", sql, err, out, stderr.String())
	}
	rows, err := csv.NewReader(bytes.NewReader(out)).ReadAll()
	if err != nil {
		t.Fatalf("%s: %v\n%s", sql, err, out)
	}
	if len(rows) == 0 {
		t.Fatalf("%s gives nothing, not even names\n%s", sql, stderr.String())
	}
	return rows[1:]
}

// TestPerfetto has Perfetto read timelines of real and of hostile captures, and compares
// what it found in them with what was written.
func TestPerfetto(t *testing.T) {
	tool := processor(t)
	var every []any
	for _, name := range recorded.Files(t) {
		records, _ := recorded.Read(t, name)
		every = append(every, records...)
	}
	for name, records := range map[string][]any{
		"recorded": every,
		"reload": {
			&unload.Header{Host: "a", Kernel: "6.12", BootID: "1"},
			at("x", monday, 1_000_001), at("x", monday.Add(500), 1_000_001), at("x", monday.Add(1_000_001), 3),
			at("x", monday.Add(2e6), 0), at("x", monday.Add(2e6), 5e5), at("x", monday.Add(25e5), 0), at("x", monday.Add(25e5), 0),
			&unload.Reload{Module: "x", Start: monday.Add(3e6)},
			&unload.Stall{Unload: *at("y", monday, 5e6), Phase: unload.Exit},
			at("far", monday.AddDate(1, 0, 0), 1_234_567_891),
		},
		"hostile": append(scrambled(nasty, 1e8), scrambled(strings.Repeat(nasty, 50), -1)...),
		"nothing": nil,
	} {
		t.Run(name, func(t *testing.T) {
			b := render(t, records)
			trace := filepath.Join(t.TempDir(), "timeline.json")
			if err := os.WriteFile(trace, b, 0o600); err != nil {
				t.Fatal(err)
			}
			comparePerfetto(t, tool, trace, parse(t, b))
		})
	}
}

func comparePerfetto(t *testing.T, tool, trace string, p parsed) {
	if bad := query(t, tool, trace, "select name, severity, value from stats where severity in ('error', 'data_loss') and value > 0;"); len(bad) > 0 {
		t.Errorf("complaints: %q", bad)
	}
	var want, machines []string
	flows := 0
	for _, e := range p.TraceEvents {
		switch {
		case e.Ph == "X":
			want = append(want, fmt.Sprintf("%X %d %d %d", e.Name, e.start, e.end-e.start, e.depth))
		case e.Ph == "i":
			want = append(want, fmt.Sprintf("%X %d 0 -", e.Name, e.start))
		case e.Ph == "s":
			flows++
		case e.Name == "process_name":
			machines = append(machines, fmt.Sprintf("%X", e.Args["name"]))
		}
	}
	var got []string
	for _, row := range query(t, tool, trace, "select hex(name) as name, ts, dur, iif(category in ('unload', 'phase'), depth, '-') as depth from slice;") {
		got = append(got, strings.Join(row, " "))
	}
	slices.Sort(want)
	slices.Sort(got)
	for i := range max(len(want), len(got)) {
		if i >= len(want) || i >= len(got) || want[i] != got[i] {
			t.Fatalf("slice %d of %d and %d: %q, want %q", i, len(got), len(want), got[i:min(i+3, len(got))], want[i:min(i+3, len(want))])
		}
	}
	if rows := query(t, tool, trace, `select a.ts, b.ts from flow
		join slice a on a.id = flow.slice_out join slice b on b.id = flow.slice_in where a.ts < b.ts and b.name glob 'reload *';`); len(rows) != flows {
		t.Errorf("%d arrows, want %d: %q", len(rows), flows, rows)
	}
	var named []string
	for _, row := range query(t, tool, trace, "select hex(name) as name from process where name is not null;") {
		named = append(named, row[0])
	}
	slices.Sort(machines)
	slices.Sort(named)
	if !slices.Equal(named, machines) {
		t.Errorf("machines are %q, want %q", named, machines)
	}
	if rows := query(t, tool, trace, `select hex(slice.name) as slice, hex(thread.name) as thread from slice join thread_track on thread_track.id = slice.track_id
		join thread using (utid) where category = 'unload' and substr(thread.name, 1, length(slice.name) - 7) != substr(slice.name, 8);`); len(rows) > 0 {
		t.Errorf("on tracks of other modules: %q", rows)
	}
}
