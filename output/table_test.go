package output

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/modtrace/modtrace/unload"
)

// checkScreen finds what would spoil a terminal: lines that are too wide,
// anything it would obey but our own colours, blanks at the end.
func checkScreen(t testing.TB, text string, o TableOptions) {
	t.Helper()
	if text != "" && !strings.HasSuffix(text, "\n") {
		t.Errorf("no line feed at the end of %q", text)
	}
	if !o.Color && strings.ContainsRune(text, '\x1b') {
		t.Errorf("an escape sequence without colour: %q", text)
	}
	width := o.Width
	if width == 0 {
		width = 80
	}
	for line := range strings.Lines(stripColor(text)) {
		line = strings.TrimSuffix(line, "\n")
		if n := columns(line); n > width {
			t.Errorf("%d columns of %d: %q", n, width, line)
		}
		if strings.TrimRight(line, " ") != line {
			t.Errorf("blanks at the end of %q", line)
		}
		if !utf8.ValidString(line) {
			t.Errorf("not UTF-8: %q", line)
		}
		for _, r := range line {
			if !unicode.IsPrint(r) || o.ASCII && r > unicode.MaxASCII {
				t.Errorf("%U in %q", r, line)
			}
		}
	}
}

// stripColor takes out the sequences that paint makes, and no others.
func stripColor(text string) string {
	return regexp.MustCompile("\x1b\\[(0|2|31|32)m").ReplaceAllString(text, "")
}

func TestNothingSpoilsTheScreen(t *testing.T) {
	for _, d := range drawings(t) {
		for _, width := range []int{0, 1, 2, 7, 20, 40, 59, 60, 100, 128, 200, 500} {
			for _, o := range []TableOptions{{}, {ASCII: true}, {Color: true, Verbose: true}} {
				o.Width = width
				var b bytes.Buffer
				if err := d.draw(&b, o); err != nil {
					t.Fatalf("%s, %+v: %v", d.name, o, err)
				}
				checkScreen(t, b.String(), o)
				if t.Failed() {
					t.Fatalf("%s, %+v", d.name, o)
				}
			}
		}
	}
}

func TestColorChangesNoText(t *testing.T) {
	for _, d := range drawings(t) {
		var with, without bytes.Buffer
		if err := errors.Join(d.draw(&with, TableOptions{Color: true}), d.draw(&without, TableOptions{})); err != nil {
			t.Fatal(err)
		}
		if stripColor(with.String()) != without.String() {
			t.Errorf("%s: colour changes the text", d.name)
		}
	}
}

func TestFirstLineOfAStall(t *testing.T) {
	for _, st := range stalls() {
		var b bytes.Buffer
		if err := NewTable(&b, TableOptions{Width: 600}).Stall(st.Stall); err != nil {
			t.Fatal(err)
		}
		first, _, _ := strings.Cut(b.String(), "\n")
		if want := (screen{}).stuck(st.Stall); first != want {
			t.Errorf("%s: %q, want %q", st.name, first, want)
		}
	}
}

// TestFirstLineIsTheVerdict holds the promise that no title and no header
// comes before the answer.
func TestFirstLineIsTheVerdict(t *testing.T) {
	for _, s := range streams(t) {
		var b bytes.Buffer
		if err := s.report(NewTable(&b, TableOptions{Width: 500})); err != nil {
			t.Fatal(err)
		}
		first, _, _ := strings.Cut(b.String(), "\n")
		if want := Verdict(s.unloads[0]); first != want {
			t.Errorf("%s: %q, want %q", s.name, first, want)
		}
	}
}

func TestEveryPhaseIsShown(t *testing.T) {
	for _, u := range []unload.Unload{sample(t), merged(), incomplete()} {
		var b bytes.Buffer
		if err := NewTable(&b, TableOptions{}).Unload(u); err != nil {
			t.Fatal(err)
		}
		for _, name := range unload.PhaseNames() {
			if !regexp.MustCompile(`(?m)^  (\+ )?` + regexp.QuoteMeta(string(name)) + " ").MatchString(b.String()) {
				t.Errorf("%s: no row for %s in\n%s", u.Module, name, &b)
			}
		}
	}
}

func TestQuietTrailer(t *testing.T) {
	var b bytes.Buffer
	r := NewTable(&b, TableOptions{})
	if err := r.Unload(slow()); err != nil {
		t.Fatal(err)
	}
	n := b.Len()
	err := r.Trailer(unload.Trailer{Records: 1, LostEvents: map[string]int64{"begin": 0, "end": 0}, Ended: time.Now()})
	if err != nil || b.Len() != n {
		t.Errorf("error %v, and %q for a trailer with nothing to say", err, b.String()[n:])
	}
}

// countingWriter counts writes and gives up after some bytes.
type countingWriter struct {
	writes int
	room   int
	err    error
}

func (w *countingWriter) Write(p []byte) (int, error) {
	w.writes++
	if len(p) > w.room {
		return w.room, w.err
	}
	w.room -= len(p)
	return len(p), nil
}

func reports() map[string]func(io.Writer) Report {
	return map[string]func(io.Writer) Report{
		"json":  NewJSON,
		"table": func(w io.Writer) Report { return NewTable(w, TableOptions{Verbose: true}) },
	}
}

func TestWriteErrorsAreReturned(t *testing.T) {
	s := several()
	for name, open := range reports() {
		for _, room := range []int{0, 10} {
			for _, failure := range []error{errors.New("no space left"), nil} {
				want := failure
				if failure == nil {
					want = io.ErrShortWrite // a writer that lies about its errors
				}
				for record, write := range map[string]func(Report) error{
					"header":  func(r Report) error { return r.Header(s.header) },
					"unload":  func(r Report) error { return r.Unload(s.unloads[0]) },
					"stall":   func(r Report) error { return r.Stall(polling()) },
					"trailer": func(r Report) error { return r.Trailer(s.trailer) },
				} {
					if err := write(open(&countingWriter{room: room, err: failure})); !errors.Is(err, want) {
						t.Errorf("%s, %s, room for %d: %v, want %v", name, record, room, err, want)
					}
				}
			}
		}
	}
	if err := Plan(&countingWriter{err: io.ErrClosedPipe}, hooks(), TableOptions{}); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("plan: %v", err)
	}
}

func TestOneWriteForEachRecord(t *testing.T) {
	for name, open := range reports() {
		s := several()
		w := &countingWriter{room: 1 << 20}
		if err := s.report(open(w)); err != nil {
			t.Fatal(err)
		}
		report := open(w)
		if err := report.Stall(polling()); err != nil {
			t.Fatal(err)
		}
		if want := len(s.unloads) + 3; w.writes != want {
			t.Errorf("%s: %d writes for %d records", name, w.writes, want)
		}
	}
}

func TestClean(t *testing.T) {
	tests := []struct{ text, want, ascii string }{
		{"tun", "tun", "tun"},
		{`a\x2db.slice`, `a\x2db.slice`, `a\x2db.slice`},
		{"\x1b[31m", `\x1b[31m`, `\x1b[31m`},
		{"a\tb\nc\rd\x00", `a\x09b\x0ac\x0dd\x00`, `a\x09b\x0ac\x0dd\x00`},
		{"\xc3(", `\xc3(`, `\xc3(`},
		{"\u009b", `\u009b`, `\u009b`},
		{"é", "é", `\u00e9`},
		{"e\u0301", "e\u0301", `e\u0301`},
		{"\u0301e", `\u0301e`, `\u0301e`},
		{" \u0301", ` \u0301`, ` \u0301`},
		{"z\u0300\u0300\u0300", "z\u0300\u0300" + `\u0300`, `z\u0300\u0300\u0300`},
		{"ab\u202edc", `ab\u202edc`, `ab\u202edc`},
		{"a\u200bb\u3000", `a\u200bb\u3000`, `a\u200bb\u3000`},
		{"☁\ufe0f", "☁" + `\ufe0f`, `\u2601\ufe0f`},
		{"漢", "漢", `\u6f22`},
		{"🙂\U000e0041", `🙂\U000e0041`, `\U0001f642\U000e0041`},
		{"\ufffd", "\ufffd", `\ufffd`},
	}
	for _, tt := range tests {
		if got := (screen{}).clean(tt.text); got != tt.want {
			t.Errorf("clean(%q) = %q, want %q", tt.text, got, tt.want)
		}
		if got := (screen{ascii: true}).clean(tt.text); got != tt.ascii {
			t.Errorf("clean(%q) to ASCII = %q, want %q", tt.text, got, tt.ascii)
		}
	}
}

func TestCut(t *testing.T) {
	tests := []struct {
		text  string
		width int
		want  string
	}{
		{"abcdef", 6, "abcdef"},
		{"abcdef", 5, "abcd…"},
		{"abcdef", 1, "a"},
		{"abcdef", 0, ""},
		{"漢字漢字", 8, "漢字漢字"},
		{"漢字漢字", 7, "漢字漢…"},
		{"漢字漢字", 6, "漢字…"},
		{"漢字漢字", 1, ""},
		{"e\u0301e\u0301e\u0301", 2, "e\u0301…"},
	}
	for _, tt := range tests {
		if got := (screen{}).cut(tt.text, tt.width); got != tt.want {
			t.Errorf("cut(%q, %d) = %q, want %q", tt.text, tt.width, got, tt.want)
		}
	}
}

func TestWrap(t *testing.T) {
	tests := []struct {
		text  string
		width int
		want  []string
	}{
		{"", 10, []string{""}},
		{"   ", 10, []string{""}},
		{"one two three", 13, []string{"one two three"}},
		{"one two three", 8, []string{"one two", "> three"}},
		{"one two three", 5, []string{"one", "> two", "> thr", "> ee"}},
		{"a  b", 10, []string{"a  b"}},
		{"漢字漢字", 5, []string{"漢字", "> 漢", "> 字"}},
		{"漢", 1, []string{"漢"}},
	}
	for _, tt := range tests {
		got := wrap(tt.text, tt.width, "> ")
		if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", tt.want) {
			t.Errorf("wrap(%q, %d) = %q, want %q", tt.text, tt.width, got, tt.want)
		}
	}
}

func TestQuote(t *testing.T) {
	for text, want := range map[string]string{
		"rmmod":     "rmmod",
		"":          "''",
		"a b":       "'a b'",
		"it's":      `'it'\''s'`,
		`a\b`:       `'a\b'`,
		"a\\\x1b'b": `$'a\\\x1b\'b'`,
		"-f":        "-f",
		"x=/a:b,c":  "x=/a:b,c",
	} {
		if got := (screen{}).quote(text); got != want {
			t.Errorf("quote(%q) = %s, want %s", text, got, want)
		}
	}
}
