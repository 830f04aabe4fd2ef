package recording

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/modtrace/modtrace/capture"
	"github.com/modtrace/modtrace/output"
	"github.com/modtrace/modtrace/unload"

	"github.com/modtrace/modtrace/test/recorded"
)

// contents are what a file holds, in short.
func contents(t *testing.T, path string) ([]string, capture.Stats) {
	t.Helper()
	var all []string
	records, s := recorded.Read(t, path)
	for _, record := range records {
		switch v := record.(type) {
		case *unload.Header:
			all = append(all, "header")
		case *unload.Unload:
			all = append(all, v.Module)
		case *unload.Trailer:
			all = append(all, strings.TrimSpace(fmt.Sprintf("trailer %s", lossOf(v))))
		}
	}
	return all, s
}

func lossOf(t *unload.Trailer) string {
	if n := t.LostEvents[LostRecord]; n > 0 {
		return fmt.Sprint(n)
	}
	return ""
}

func wantContents(t *testing.T, path string, want ...string) {
	t.Helper()
	got, s := contents(t, path)
	if fmt.Sprint(got) != fmt.Sprint(want) || len(s.Skipped) > 0 || s.Damage != "" {
		t.Errorf("%s has %v, want %v; %+v", filepath.Base(path), got, want, s)
	}
}

// recorder begins a capture as record does. The notes come to the slice.
func recorder(t *testing.T, path string, maxSize int64, keep int) (*Writer, *[]string) {
	t.Helper()
	var notes []string
	w, err := Record(path, Options{
		MaxSize: maxSize, Keep: keep,
		Trailer: func() unload.Trailer { return unload.Trailer{LostEvents: map[string]int64{"wait": 0}} },
		Note:    func(text string) { notes = append(notes, text) },
	})
	if err != nil {
		t.Fatal(err)
	}
	check(t, w.Header(unload.Header{Schema: unload.Schema}))
	return w, &notes
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func add(t *testing.T, r output.Report, modules ...string) {
	t.Helper()
	for _, m := range modules {
		check(t, r.Unload(unload.Unload{Module: m}))
	}
}

func end(t *testing.T, w *Writer) {
	t.Helper()
	check(t, w.Trailer(unload.Trailer{}))
	check(t, w.Close())
}

func names() []string { return []string{"capture.ndjson", "capture.ndjson.zst"} }

// TestEachRecordIsThere reads a capture that is still being written: everything that was
// reported is in it, and that it has no end is said.
func TestEachRecordIsThere(t *testing.T) {
	for _, name := range names() {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), name)
			w, _ := recorder(t, path, 0, 0)
			want := []string{"header"}
			for i := range 50 {
				m := fmt.Sprintf("m%d", i)
				add(t, w, m)
				want = append(want, m)
				got, s := contents(t, path)
				if fmt.Sprint(got) != fmt.Sprint(want) || s.CutShort != 1 {
					t.Fatalf("after %s there are %v, cut short %d, damage %q", m, got, s.CutShort, s.Damage)
				}
			}
			end(t, w)
			wantContents(t, path, append(want, "trailer")...)
			info, err := os.Stat(path)
			if err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("mode %v, %v", info.Mode(), err)
			}
		})
	}
}

// TestKilled cuts a capture off at each byte: what was whole is read, and nothing else.
func TestKilled(t *testing.T) {
	for _, name := range names() {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), name)
			w, _ := recorder(t, path, 0, 0)
			sizes := []int64{w.file.size}
			for i := range 8 {
				add(t, w, fmt.Sprintf("m%d", i))
				sizes = append(sizes, w.file.size)
			}
			end(t, w)
			all, err := os.ReadFile(path)
			check(t, err)
			whole := 0
			for n := sizes[0]; n < sizes[len(sizes)-1]; n += 3 {
				for n >= sizes[whole+1] {
					whole++
				}
				check(t, os.WriteFile(path, all[:n], 0o600))
				got, s := contents(t, path)
				if len(got) != 1+whole || s.CutShort != 1 {
					t.Fatalf("of %d bytes, %v are read, want %d unloads; %+v", n, got, whole, s)
				}
			}
		})
	}
}

// TestRotates fills files: none is larger than it may be, none is lost but the oldest, and
// each can be read by itself.
func TestRotates(t *testing.T) {
	for _, name := range names() {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), name)
			most := int64(32 << 10)
			if strings.HasSuffix(name, ".zst") {
				most = 8 << 10
			}
			w, notes := recorder(t, path, most, 3)
			n := 0
			for ; n < 5000; n++ {
				add(t, w, fmt.Sprintf("m%d", n))
			}
			end(t, w)
			files, err := filepath.Glob(path + "*")
			check(t, err)
			if len(files) != 4 || len(*notes) != 0 {
				t.Fatalf("%v, %v", files, *notes)
			}
			for _, path := range []string{path, path + ".1", path + ".2", path + ".3"} {
				n = countDown(t, path, most, n)
			}
		})
	}
}

// countDown wants a file to be whole, and to have the unloads before the nth. It gives the
// number of the first.
func countDown(t *testing.T, path string, most int64, n int) int {
	t.Helper()
	info, err := os.Stat(path)
	check(t, err)
	got, s := contents(t, path)
	if info.Size() > most || got[0] != "header" || got[len(got)-1] != "trailer" || s.CutShort != 0 || len(s.Skipped) > 0 {
		t.Errorf("%s: %d bytes, %v, %+v", path, info.Size(), got, s)
	}
	for _, m := range slices.Backward(got[1 : len(got)-1]) {
		if n--; m != fmt.Sprintf("m%d", n) {
			t.Fatalf("%s: %s where m%d was reported", path, m, n)
		}
	}
	return n
}

// TestMovedAway has the file renamed, as logrotate does it, also with an empty one in its
// place.
func TestMovedAway(t *testing.T) {
	for _, empty := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "capture")
		w, notes := recorder(t, path, 0, 2)
		add(t, w, "a")
		check(t, os.Rename(path, path+"-old"))
		if empty {
			check(t, os.WriteFile(path, nil, 0o600))
		}
		add(t, w, "b")
		end(t, w)
		wantContents(t, path+"-old", "header", "a", "trailer")
		wantContents(t, path, "header", "b", "trailer")
		if files, _ := filepath.Glob(path + "*"); len(files) != 2 || len(*notes) != 0 {
			t.Errorf("%v, %v", files, *notes)
		}
	}
}

// TestStartedAnew keeps what an earlier recorder has written.
func TestStartedAnew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "capture")
	for _, m := range []string{"a", "b", "c", "d"} {
		w, _ := recorder(t, path, 0, 2)
		add(t, w, m)
		end(t, w)
	}
	wantContents(t, path, "header", "d", "trailer")
	wantContents(t, path+".1", "header", "c", "trailer")
	wantContents(t, path+".2", "header", "b", "trailer")
	if _, err := os.Stat(path + ".3"); err == nil {
		t.Error("there is a third")
	}
}

// TestNotReplaced leaves alone what is no file.
func TestNotReplaced(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	check(t, os.Symlink("/dev/null", link))
	for _, path := range []string{dir, link} {
		if _, err := Record(path, Options{Keep: 1}); err == nil {
			t.Errorf("%s was replaced", path)
		}
	}
}
