//go:build linux

package recording

import (
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestFull has a file that cannot grow for a while: what was written stays readable, and
// what was lost is counted, in the file and in words.
func TestFull(t *testing.T) {
	signal.Ignore(syscall.SIGXFSZ)
	defer signal.Reset(syscall.SIGXFSZ)
	for _, name := range names() {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), name)
			w, notes := recorder(t, path, 0, 0)
			add(t, w, "a")
			limited(t, uint64(w.file.size)+5, func() { add(t, w, "b", "c", "d") })
			add(t, w, "e")
			limited(t, uint64(w.file.size), func() { add(t, w, "f") })
			add(t, w, "g")
			end(t, w)
			wantContents(t, path, "header", "a", "trailer 3", "header", "e", "trailer 1", "header", "g", "trailer")
			if len(*notes) != 4 || !strings.Contains((*notes)[0], "too large") || !strings.Contains((*notes)[1], "3 records were lost") {
				t.Errorf("notes: %q", *notes)
			}
		})
	}
}

// limited runs f while no file may be larger than so many bytes.
func limited(t *testing.T, bytes uint64, f func()) {
	t.Helper()
	var before unix.Rlimit
	check(t, unix.Getrlimit(unix.RLIMIT_FSIZE, &before))
	limit := before
	limit.Cur = bytes
	check(t, unix.Setrlimit(unix.RLIMIT_FSIZE, &limit))
	f()
	check(t, unix.Setrlimit(unix.RLIMIT_FSIZE, &before))
}
