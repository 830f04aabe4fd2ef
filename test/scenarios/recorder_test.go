package scenarios

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/modtrace/modtrace/capture"
	captures "github.com/modtrace/modtrace/recording"
	"github.com/modtrace/modtrace/unload"

	"github.com/modtrace/modtrace/test/recorded"
)

// recorder is modtrace record in the background.
type recorder struct {
	t   *testing.T
	cmd *exec.Cmd
	log string // its stderr
}

// record starts modtrace record and returns once it sees unloads.
func record(t *testing.T, args ...string) *recorder {
	t.Helper()
	dir := t.TempDir()
	r := &recorder{t: t, log: filepath.Join(dir, "log")}
	ready := filepath.Join(dir, "ready")
	r.cmd = command(t, append([]string{"record", "--ready-file", ready}, args...)...)
	log, err := os.Create(r.log)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	r.cmd.Stderr = log
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	await(t, "the recorder to be ready", func() bool {
		_, err := os.Stat(ready)
		return err == nil
	})
	return r
}

// says is what it has said so far.
func (r *recorder) says() string { return readFile(r.t, r.log) }

// stop ends the recording with TERM.
func (r *recorder) stop() {
	r.t.Helper()
	if err := errors.Join(r.cmd.Process.Signal(syscall.SIGTERM), r.cmd.Wait()); err != nil {
		r.t.Fatalf("modtrace record: %v\n%s", err, r.says())
	}
}

// kill ends the recorder without asking.
func (r *recorder) kill() {
	r.t.Helper()
	if err := r.cmd.Process.Kill(); err != nil {
		r.t.Fatal(err)
	}
	_ = r.cmd.Wait() // that it was killed
}

// captured is what a capture holds.
type captured struct {
	unloads  []unload.Unload
	reloads  int
	trailers []unload.Trailer
	stats    capture.Stats
}

func readCapture(t *testing.T, path string) (c captured) {
	t.Helper()
	records, stats := recorded.Read(t, path)
	c.stats = stats
	for _, record := range records {
		switch v := record.(type) {
		case *unload.Unload:
			c.unloads = append(c.unloads, *v)
		case *unload.Reload:
			c.reloads++
		case *unload.Trailer:
			c.trailers = append(c.trailers, *v)
		}
	}
	return c
}

// inCapture waits until so many unloads are in a capture.
func inCapture(t *testing.T, path string, n int) {
	t.Helper()
	await(t, fmt.Sprintf("%d unloads in %s", n, path), func() bool { return len(readCapture(t, path).unloads) >= n })
}

// cycle loads a module that does nothing and unloads it.
func cycle(t *testing.T) {
	t.Helper()
	fixture(t, "empty")
	if err := unix.DeleteModule("empty", unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
}

// TestRecorder records what happens, and only what is wanted; a report is made of it.
func TestRecorder(t *testing.T) {
	guest(t)
	removed(t, "busy")
	for _, name := range []string{"capture.ndjson", "capture.ndjson.zst"} {
		path := filepath.Join(t.TempDir(), name)
		all := record(t, "-o", path)
		refused := record(t, "-o", path+"-refused", "--only", "refused")
		slow := record(t, "-o", path+"-slow", "--only", "slow", "--module", "sl*")
		cycle(t)
		fixture(t, "slow", "sleep_ms=150")
		fixture(t, "busy")
		f := open(t, "/dev/busy", os.O_RDWR)
		if err := unix.DeleteModule("busy", unix.O_NONBLOCK); err != unix.EWOULDBLOCK {
			t.Errorf("busy: %v", err)
		}
		inCapture(t, path, 2) // while it is still held
		if err := errors.Join(f.Close(), unix.DeleteModule("busy", unix.O_NONBLOCK), unix.DeleteModule("slow", unix.O_NONBLOCK)); err != nil {
			t.Error(err)
		}
		for _, r := range []*recorder{all, refused, slow} {
			r.stop()
		}
		for suffix, want := range map[string]string{"": "[empty busy busy slow]", "-refused": "[busy]", "-slow": "[slow]"} {
			c := readCapture(t, path+suffix)
			var modules []string
			for _, u := range c.unloads {
				conserved(t, u)
				modules = append(modules, u.Module)
			}
			if fmt.Sprint(modules) != want || len(c.trailers) != 1 || c.stats.CutShort != 0 {
				t.Errorf("%s%s has %v, want %s; %+v", name, suffix, modules, want, c.stats)
			}
		}
		if r := run(t, "report", "--json", "--result", "referenced", path); len(r.unloads) != 1 || r.unloads[0].Module != "busy" || len(r.unloads[0].Holders) != 1 || r.stderr != "" {
			t.Errorf("reported: %+v\n%s", r.unloads, r.stderr)
		}
	}
}

// TestRecorderKilled kills recorders at random moments while modules are unloaded: what
// was finished long enough before is in the file, without a gap, and nothing else is. It
// is done a hundred times on the kernels of the matrix together.
func TestRecorderKilled(t *testing.T) {
	guest(t)
	const times = 20
	ko, err := os.ReadFile("/fixtures/empty.ko")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "capture.ndjson")
	total := 0
	for i := range times {
		if i == times/2 {
			path += ".zst"
		}
		r := record(t, "-o", path, "--rotate", "0")
		end := time.Now().Add(time.Duration(rand.IntN(1500)) * time.Millisecond)
		var ended []time.Time
		for time.Now().Before(end) {
			if err := errors.Join(unix.InitModule(ko, ""), unix.DeleteModule("empty", unix.O_NONBLOCK)); err != nil {
				t.Fatal(err)
			}
			ended = append(ended, time.Now())
		}
		time.Sleep(time.Duration(rand.IntN(30)) * time.Millisecond)
		killed := time.Now()
		r.kill()
		c := readCapture(t, path)
		finished := 0
		for _, at := range ended {
			if killed.Sub(at) > time.Second {
				finished++
			}
		}
		if n := len(c.unloads); n < finished || n > len(ended) || c.stats.CutShort != 1 || c.stats.Skipped[capture.SkipGarbage] != 0 || len(c.trailers) != 0 {
			t.Fatalf("kill %d: %d unloads in the file, of %d and %d long before; %+v", i, n, len(ended), finished, c.stats)
		}
		for k, u := range c.unloads { // the first of them, and none left out
			const jitter = 5 * time.Millisecond // of the clock's conversion
			if k > 0 && u.Start.Before(ended[k-1].Add(-jitter)) || u.Start.Add(time.Duration(u.Duration)).After(ended[k].Add(jitter)) {
				t.Fatalf("kill %d: unload %d is not the one that ended at %v: %v, %d ns", i, k, ended[k], u.Start, u.Duration)
			}
		}
		total += len(c.unloads)
	}
	t.Logf("%d unloads in %d captures of recorders that were killed", total, times)
	if total == 0 {
		t.Error("nothing was recorded at all")
	}
}

// smallDisk mounts a file system of so many bytes.
func smallDisk(t *testing.T, bytes int) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", bytes)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// TestRecorderFullDisk has the disk full for a while: tracing goes on, what was lost is
// said and counted, and the file goes on when there is room.
func TestRecorderFullDisk(t *testing.T) {
	guest(t)
	dir := smallDisk(t, 256<<10)
	path := filepath.Join(dir, "capture.ndjson")
	r := record(t, "-o", path)
	cycle(t)
	inCapture(t, path, 1)
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 1<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("filling the disk: %v", err)
	}
	const lost = 30
	for range lost {
		cycle(t)
	}
	await(t, "the recorder to complain", func() bool { return strings.Contains(r.says(), "cannot be written") })
	time.Sleep(time.Second) // for all to be seen
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	cycle(t)
	await(t, "the recorder to recover", func() bool { return strings.Contains(r.says(), "is written again") })
	r.stop()
	c := readCapture(t, path)
	if len(c.trailers) != 2 || c.stats.CutShort != 0 || len(c.stats.Skipped) != 0 {
		t.Fatalf("%d trailers, %+v", len(c.trailers), c.stats)
	}
	const all = 2*(lost+2) - 1 // each was loaded again soon, but for the last
	if n := c.trailers[0].LostEvents[captures.LostRecord]; n == 0 || n+int64(len(c.unloads)+c.reloads) != all {
		t.Errorf("%d lost, %d unloads and %d reloads in the file, of %d", n, len(c.unloads), c.reloads, all)
	}
	if strings.Count(r.says(), "\n") > 4 {
		t.Errorf("it complains too much:\n%s", r.says())
	}
}

// TestRecorderReadOnly cannot write at all: it says so and does not begin.
func TestRecorderReadOnly(t *testing.T) {
	guest(t)
	dir := smallDisk(t, 1<<20)
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	oneMessage(t, run(t, "record", "-o", filepath.Join(dir, "capture")), 1, "read-only")
}

// TestRecorderRotated fills files, and has the last moved away as logrotate does it.
func TestRecorderRotated(t *testing.T) {
	guest(t)
	path := filepath.Join(t.TempDir(), "capture.ndjson")
	r := record(t, "-o", path, "--max-size", "64KiB", "--rotate", "2")
	const cycles = 60
	for range cycles {
		cycle(t)
	}
	moved := path + "-moved"
	await(t, "a third file", func() bool { _, err := os.Stat(path + ".2"); return err == nil })
	time.Sleep(time.Second)
	if err := errors.Join(os.Rename(path, moved), r.cmd.Process.Signal(syscall.SIGHUP)); err != nil {
		t.Fatal(err)
	}
	cycle(t)
	inCapture(t, path, 1)
	r.stop()
	for _, file := range []string{path, moved, path + ".1", path + ".2"} {
		c := readCapture(t, file)
		info, err := os.Stat(file)
		if err != nil || info.Size() > 64<<10 || info.Mode().Perm() != 0o600 || len(c.unloads) == 0 || len(c.trailers) != 1 || c.stats.CutShort != 0 {
			t.Errorf("%s: %d bytes, %d unloads, %d trailers, %+v, %v", file, info.Size(), len(c.unloads), len(c.trailers), c.stats, err)
		}
	}
	if r.says() != "modtrace: recording to "+path+"; INT ends it\n" {
		t.Errorf("stderr: %s", r.says())
	}
}

// TestRecorderClock steps the time of day during an unload: its duration is right, and
// later ones have the new time.
func TestRecorderClock(t *testing.T) {
	guest(t)
	path := filepath.Join(t.TempDir(), "capture.ndjson")
	r := record(t, "-o", path)
	fixture(t, "slow", "sleep_ms=400")
	done := make(chan error)
	go func() { done <- unix.DeleteModule("slow", unix.O_NONBLOCK) }()
	time.Sleep(200 * time.Millisecond)
	setClock(t, time.Hour)
	defer setClock(t, -time.Hour)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	cycle(t)
	r.stop()
	c := readCapture(t, path)
	if len(c.unloads) != 2 {
		t.Fatalf("%d unloads", len(c.unloads))
	}
	if d := time.Duration(c.unloads[0].Duration); d < 400*time.Millisecond || d > 10*time.Second {
		t.Errorf("the unload took %v", d)
	}
	if ago := time.Since(c.unloads[1].Start); ago < 0 || ago > time.Minute {
		t.Errorf("the second began %v ago", ago)
	}
}

// setClock sets the time of day.
func setClock(t *testing.T, by time.Duration) {
	t.Helper()
	tv := unix.NsecToTimeval(time.Now().Add(by).UnixNano())
	if err := unix.Settimeofday(&tv); err != nil {
		t.Fatal(err)
	}
}
