package capture

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
)

const (
	aHeader  = `{"type":"header","schema":1}` + "\n"
	anUnload = `{"type":"unload","module":"a"}` + "\n"
	aTrailer = `{"type":"trailer"}` + "\n"
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// drain reads all there is and gives the last error.
func drain(in io.Reader) (Stats, error) {
	r, err := NewReader(in)
	if err != nil {
		return Stats{}, err
	}
	defer r.Close()
	for {
		if _, err := r.Next(); err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return r.Stats(), err
		}
	}
}

// endless gives the same again and again, so many bytes of it.
type endless struct {
	of   string
	left int64
	at   int
}

func (e *endless) Read(b []byte) (n int, err error) {
	for n < len(b) && e.left > 0 {
		k := copy(b[n:], e.of[e.at:])
		k = int(min(int64(k), e.left))
		n, e.left, e.at = n+k, e.left-int64(k), (e.at+k)%len(e.of)
	}
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// most is the most memory that was in use while f ran, above what was before.
func most(f func()) uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	before := m.HeapAlloc
	done, peak := make(chan struct{}), make(chan uint64)
	go func() {
		var top uint64
		for {
			select {
			case <-done:
				peak <- top
				return
			default:
				runtime.ReadMemStats(&m)
				top = max(top, m.HeapAlloc)
				time.Sleep(time.Millisecond)
			}
		}
	}()
	f()
	close(done)
	return max(<-peak, before) - before
}

// TestHostile reads files that nobody has written with good intentions: each is read in
// bounded memory, and what is well in it is given.
func TestHostile(t *testing.T) {
	const mb = 1 << 20
	nested := func(open, end string, depth int) string {
		return `{"type":"unload","x":` + strings.Repeat(open, depth) + strings.Repeat(end, depth) + "}\n"
	}
	for name, c := range map[string]struct {
		in       io.Reader
		records  int64
		skip     Skip
		skipped  int64
		cutShort int64
	}{
		"a line without end":  {io.MultiReader(strings.NewReader(aHeader+anUnload), &endless{of: "x", left: 200 * mb}), 2, SkipTorn, 1, 1},
		"a line that is long": {io.MultiReader(strings.NewReader(aHeader+anUnload), &endless{of: "x", left: 100 * mb}, strings.NewReader("\n"+anUnload+aTrailer)), 4, SkipLong, 1, 0},
		"nested lists":        {strings.NewReader(aHeader + nested("[", "]", 4_000_000) + anUnload + aTrailer), 3, SkipLong, 1, 0},
		"nested objects":      {strings.NewReader(aHeader + nested(`{"x":`, "1}", 50_000) + anUnload + aTrailer), 3, SkipGarbage, 1, 0},
		"many phases":         {strings.NewReader(aHeader + `{"type":"unload","phases":[` + strings.Repeat("{},", 2*mb) + "{}]}\n" + anUnload + aTrailer), 3, SkipLong, 1, 0},
		"many numbers":        {strings.NewReader(aHeader + `{"type":"unload","flags":[` + strings.Repeat("0,", 3*mb) + "0]}\n" + anUnload + aTrailer), 3, SkipLong, 1, 0},
		"many empty lines":    {io.MultiReader(strings.NewReader(aHeader), &endless{of: "\n", left: 50 * mb}, strings.NewReader(anUnload+aTrailer)), 3, "", 0, 0},
		"many entries":        {io.MultiReader(strings.NewReader(aHeader+`{"type":"balance"}`+"\n"), &endless{of: `{"type":"refs"}` + "\n", left: 16 * 500_000}, strings.NewReader(aTrailer)), 2 + 500_000 + 1, SkipLong, 490_000, 0},
		"entries of nothing":  {io.MultiReader(strings.NewReader(aHeader), &endless{of: `{"type":"refs"}` + "\n", left: 16 * 500_000}, strings.NewReader(aTrailer)), 1 + 500_000 + 1, SkipUnknown, 500_000, 0},
		"control characters":  {strings.NewReader(aHeader + "{\"type\":\"unload\",\"module\":\"\x00\x1b[2J\xff\"}\n" + anUnload + aTrailer), 3, SkipGarbage, 1, 0},
		"a bomb":              {bomb(t, 500*mb), 2, SkipTorn, 1, 1},
		"two captures":        {strings.NewReader(aHeader + anUnload + aHeader + anUnload + aTrailer), 5, "", 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			var s Stats
			var err error
			used := most(func() { s, err = drain(c.in) })
			if err != nil || s.Records != c.records || s.Skipped[c.skip] != c.skipped || s.CutShort != c.cutShort {
				t.Errorf("%v, %+v", err, s)
			}
			if used > 48*mb {
				t.Errorf("%d MB", used/mb)
			}
		})
	}
}

// bomb is a short capture and then a line without end, compressed.
func bomb(t *testing.T, bytesOf int64) io.Reader {
	t.Helper()
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b, zstd.WithWindowSize(1<<20))
	check(t, err)
	_, err = io.Copy(z, io.MultiReader(strings.NewReader(aHeader+anUnload), &endless{of: "x", left: bytesOf}))
	check(t, errors.Join(err, z.Close()))
	return &b
}

// TestWideWindow refuses a file that would have its reader keep a gigabyte.
func TestWideWindow(t *testing.T) {
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b, zstd.WithWindowSize(64<<20), zstd.WithSingleSegment(false))
	check(t, err)
	for range 100_000 {
		_, err := z.Write([]byte(aHeader + anUnload + aTrailer))
		check(t, err)
	}
	check(t, z.Close())
	if s, err := drain(&b); err == nil && s.Damage == "" {
		t.Errorf("it was read: %+v", s)
	}
}

// TestDamaged flips each byte of a compressed capture: what is read is what was written,
// or it is said that there is damage.
func TestDamaged(t *testing.T) {
	var file bytes.Buffer
	z, err := zstd.NewWriter(&file, zstd.WithEncoderCRC(false))
	check(t, err)
	for _, line := range []string{aHeader, anUnload, anUnload, anUnload, aTrailer} {
		_, err := z.Write([]byte(line))
		check(t, errors.Join(err, z.Flush()))
	}
	check(t, z.Close())
	whole := file.Bytes()
	for i := range whole {
		b := bytes.Clone(whole)
		b[i] ^= 0x55
		s, err := drain(bytes.NewReader(b))
		if err == nil && s.Records > 5 {
			t.Fatalf("byte %d: %+v", i, s)
		}
	}
}

// TestNoCapture gives up on what is none, soon.
func TestNoCapture(t *testing.T) {
	for name, in := range map[string]io.Reader{
		"nothing": strings.NewReader(""),
		"text":    strings.NewReader("hello\nworld\n"),
		"zeros":   &endless{of: "\x00", left: 1 << 30},
		"endless": &endless{of: "hello\n", left: 1 << 40},
		"gzip":    strings.NewReader("\x1f\x8b\x08 no"),
	} {
		if s, err := drain(in); err == nil {
			t.Errorf("%s was read: %+v", name, s)
		}
	}
	var newer *SchemaError
	if _, err := drain(strings.NewReader(`{"type":"header","schema":2,"tool":"v9"}` + "\n")); !errors.As(err, &newer) || newer.Schema != 2 || !strings.Contains(fmt.Sprint(err), "v9") {
		t.Errorf("a newer schema: %v", err)
	}
}

// FuzzReader reads anything: it ends, and counts what it gives.
func FuzzReader(f *testing.F) {
	f.Add([]byte(aHeader + anUnload + aTrailer))
	f.Add([]byte(aHeader + `{"type":"balance"}` + "\n" + `{"type":"refs"}` + "\n" + aTrailer))
	f.Add([]byte("\x28\xb5\x2f\xfd\x00\x58\x09\x00\x00x\n"))
	f.Add([]byte("\x1f\x8b\x08\x00"))
	files, _ := filepath.Glob("../tracer/testdata/*-slow.ndjson")
	for _, name := range files {
		if b, err := os.ReadFile(name); err == nil {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := drain(bytes.NewReader(b))
		if err == nil && s.Records == 0 {
			t.Errorf("nothing was read, and it is no error: %+v", s)
		}
	})
}
