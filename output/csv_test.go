package output

import (
	"bytes"
	"encoding/csv"
	"errors"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/modtrace/modtrace/test/recorded"
	"github.com/modtrace/modtrace/unload"
)

// sheetOf gives the cells, by the names of their columns, that records become.
func sheetOf(t testing.TB, records []any) []map[string]string {
	t.Helper()
	var b bytes.Buffer
	d := NewCSV(&b)
	for _, r := range records {
		switch r.(type) {
		case *unload.Balance, *unload.Refs:
			continue // a ledger in parts
		}
		if err := Put(d, r); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(&b).ReadAll() // each row has as many cells as the first
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) == 0 || !slices.Equal(rows[0], columnNames()) {
		t.Fatalf("the first row is %q", rows)
	}
	all := make([]map[string]string, len(rows)-1)
	for i, row := range rows[1:] {
		all[i] = map[string]string{}
		for j, cell := range row {
			checkCell(t, rows[0][j], cell)
			all[i][rows[0][j]] = cell
		}
	}
	return all
}

// checkCell says whether a spreadsheet can take a cell as it is.
func checkCell(t testing.TB, column, cell string) {
	t.Helper()
	if strings.ContainsFunc(cell, func(r rune) bool { return !unicode.IsPrint(r) }) {
		t.Errorf("%s: unprintable characters in %q", column, cell)
	}
	if _, err := strconv.ParseInt(cell, 10, 64); err != nil && strings.IndexAny(strings.TrimLeft(cell, " "), "=+-@＝＋－＠") == 0 {
		t.Errorf("%s: %q is a formula", column, cell)
	}
}

// TestCSVOfRecordings compares all real captures, one after the other, with their rows.
func TestCSVOfRecordings(t *testing.T) {
	var records []any
	for _, name := range recorded.Files(t) {
		read, _ := recorded.Read(t, name)
		records = append(records, read...)
	}
	rows := sheetOf(t, records)
	var h unload.Header
	for _, r := range records {
		switch u := r.(type) {
		case *unload.Header:
			h = *u
		case *unload.Unload:
			if len(rows) == 0 {
				t.Fatal("rows are missing")
			}
			compareRow(t, rows[0], h, *u)
			rows = rows[1:]
		}
	}
	if len(rows) > 0 {
		t.Errorf("%d rows too many", len(rows))
	}
}

func compareRow(t *testing.T, row map[string]string, h unload.Header, u unload.Unload) {
	t.Helper()
	want := map[string]string{
		"host": h.Host, "kernel": h.Kernel, "module": u.Module,
		"outcome": string(u.Outcome), "errno": u.Result.Errno, "reason": string(u.Result.Reason),
		"pid": strconv.Itoa(u.Caller.PID), "comm": u.Caller.Comm, "verdict": Verdict(u), "ok": strconv.FormatBool(u.Result.OK),
	}
	for _, name := range unload.PhaseNames() {
		want[string(name)+"_ns"] = ""
	}
	var sum int64
	for _, p := range u.Phases {
		want[string(p.Name)+"_ns"] = strconv.FormatInt(p.Duration, 10)
		sum += p.Duration
	}
	if u.Complete && row["duration_ns"] != strconv.FormatInt(sum, 10) {
		t.Errorf("%s took %s ns, its phases %d", u.Module, row["duration_ns"], sum)
	}
	for column, cell := range want {
		if row[column] != cell {
			t.Errorf("%s of %s is %q, want %q", column, u.Module, row[column], cell)
		}
	}
	if start, err := time.Parse(time.RFC3339Nano, row["start"]); err != nil || !start.Equal(u.Start) || len(row["start"]) != len("2006-01-02T15:04:05.000000000Z") {
		t.Errorf("start is %q, want %s: %v", row["start"], u.Start, err)
	}
}

func TestCSVOfWaits(t *testing.T) {
	u := merged()
	u.Phases[2].Waits = []unload.Wait{
		{Cause: unload.CauseRCU, Count: 9, Duration: 900, Longest: 150},
		{Cause: unload.CauseWorkqueue, Count: 1, Duration: 300, Longest: 300, Blocker: unload.Blocker{Kind: unload.KindWork, Function: "w_fn", Module: "old"}},
	}
	u.Phases[4].Waits = []unload.Wait{{Cause: unload.CauseSleep, Count: 1, Duration: 200}}
	row := sheetOf(t, []any{&u})[0]
	for column, want := range map[string]string{
		"longest_wait_cause": "workqueue", "longest_wait_ns": "300", "longest_wait_blocker": "work item w_fn [old]",
		"worst_phase": "free.params", "merged": "check+exit livepatch+ftrace+async free.sysfs+free.arch+free.deps free.params+free.unlink+free.memory",
		"check_ns": "20000", "exit_ns": "", "ftrace_ns": "", "host": "", "refcount_before": "0", "cmdline": "rmmod old",
	} {
		if row[column] != want {
			t.Errorf("%s is %q, want %q", column, row[column], want)
		}
	}
}

// TestCSVOfUnknowns says that what is not known is not 0.
func TestCSVOfUnknowns(t *testing.T) {
	gone := lostEnd()
	gone.Duration = 0
	refused := refusal("EPERM", unload.ReasonNoCapability, nil)
	bare := unload.Unload{Outcome: unload.Unseen}
	rows := sheetOf(t, []any{&gone, &refused, &bare})
	for i, columns := range [][]string{
		{"duration_ns", "freed_bytes", "worst_phase", "longest_wait_ns", "longest_wait_cause", "enter_ns", "return_ns", "merged"},
		{"refcount_before", "freed_bytes", "exit_ns"},
		{"start", "pid", "uid", "comm", "cmdline", "refcount_before", "duration_ns"},
	} {
		for _, c := range columns {
			if cell, ok := rows[i][c]; !ok || cell != "" {
				t.Errorf("%s of %s is %q", c, rows[i]["verdict"], cell)
			}
		}
	}
	if rows[1]["enter_ns"] != "11000" || rows[1]["uid"] != "0" {
		t.Errorf("%v", rows[1])
	}
}

func TestCSVOfNothing(t *testing.T) {
	if rows := sheetOf(t, nil); len(rows) != 0 {
		t.Error(rows)
	}
	if rows := sheetOf(t, []any{&unload.Header{}, &unload.Trailer{}, &unload.Header{}, &unload.Stall{}}); len(rows) != 0 {
		t.Error(rows)
	}
}

func TestCSVOfTheHostile(t *testing.T) {
	for text, want := range map[string]string{
		"":                       "",
		"tun":                    "tun",
		"=cmd|' /C calc'!A0":     "'=cmd|' /C calc'!A0",
		"+1":                     "'+1",
		"-1":                     "'-1",
		"@SUM(A1)":               "'@SUM(A1)",
		"  =1":                   "'  =1",
		"\t=1":                   `\x09=1`,
		"\r=1":                   `\x0d=1`,
		"＝1":                     "'＝1",
		"a,b\"c;d":               "a,b\"c;d",
		"a\x1b[31m\u202e\nb\xff": `a\x1b[31m\u202e\x0ab\xff`,
		"x=1":                    "x=1",
	} {
		u := attempt(text, nil)
		if got := sheetOf(t, []any{&u})[0]["module"]; got != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
	}
	for _, s := range []string{nasty, "=1+1", "-"} {
		for _, n := range []int64{0, -1, math.MaxInt64, math.MinInt64} {
			for flags := range uint(16) {
				u := scramble(s, n, flags)
				sheetOf(t, []any{&unload.Header{Host: s, Kernel: s}, &u})
			}
		}
	}
}

// broken takes nothing.
type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestCSVWriteError(t *testing.T) {
	d := NewCSV(broken{})
	if err := d.Header(unload.Header{}); !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
	if err := d.Unload(slow()); !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
}

func FuzzCSV(f *testing.F) {
	for _, name := range recorded.Files(f)[:20] {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		_, b, _ = bytes.Cut(b, []byte("\n")) // the plan is long
		f.Add(b)
	}
	for _, text := range []string{nasty, "=1+1"} {
		u := scramble(text, -1, 3)
		f.Add([]byte(encode(f, func(r Report) error { return r.Unload(u) }) + "\n"))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		records, _, _ := recorded.Records(bytes.NewReader(b))
		n := 0
		for _, r := range records {
			if _, ok := r.(*unload.Unload); ok {
				n++
			}
		}
		if rows := sheetOf(t, records); len(rows) != n {
			t.Errorf("%d rows of %d unloads", len(rows), n)
		}
	})
}
