package scenarios

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/modtrace/modtrace/test/lab"
	"github.com/modtrace/modtrace/test/lab/inguest"
	"github.com/modtrace/modtrace/unload"
)

// copies writes n copies of the fixture many00, each under its own name.
func copies(t *testing.T, n int) (files []string) {
	t.Helper()
	ko, err := os.ReadFile("/fixtures/many00.ko")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for i := range n {
		name := fmt.Sprintf("many%02d", i)
		renamed, err := lab.RenameModule(ko, "many00", name)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, name+".ko")
		if err := os.WriteFile(file, renamed, 0o600); err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	return files
}

// TestFiftyAtOnce unloads fifty modules from fifty threads (S14).
func TestFiftyAtOnce(t *testing.T) {
	guest(t)
	files := copies(t, 50)
	for _, file := range files {
		insert(t, file)
	}
	tr := trace(t)
	var all sync.WaitGroup
	for i := range files {
		all.Go(func() {
			if err := inguest.Unload(fmt.Sprintf("many%02d", i)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	r := tr.stop()
	seen, partial := map[string]int{}, int64(0)
	for _, u := range r.unloads {
		conserved(t, u)
		seen[u.Module]++
		if !u.Result.OK {
			t.Errorf("%s: %+v, missing %q", u.Module, u.Result, u.Missing)
		}
		if !u.Complete {
			partial++
			t.Logf("%s: missing %q", u.Module, u.Missing)
		}
	}
	// The kernel runs a program once at a time on a processor: where a task is
	// preempted inside one, the next task's is skipped, and counted. That may
	// merge two phases, but never hide an unload.
	if partial > r.trailer.MissedProbes {
		t.Errorf("%d unloads not seen whole, but only %d probes missed", partial, r.trailer.MissedProbes)
	}
	for kind, n := range r.trailer.LostEvents {
		if n != 0 {
			t.Errorf("%d events lost: %s", n, kind)
		}
	}
	for i := range files {
		if n := seen[fmt.Sprintf("many%02d", i)]; n != 1 {
			t.Errorf("many%02d is reported %d times", i, n)
		}
	}
}

// TestTwoThousandInARow loads and unloads a module over and over: each unload
// is reported once, and modtrace does not grow (S14). In full it is done on the kernel
// that is measured most and on the newest; it takes minutes.
func TestTwoThousandInARow(t *testing.T) {
	series := guest(t)
	rounds, settled := 2000, 500
	if series != "amd64-6.12" && series != "amd64-7" {
		rounds = 750
	}
	ko, err := os.ReadFile("/fixtures/empty.ko")
	if err != nil {
		t.Fatal(err)
	}
	tr := trace(t)
	var early int
	for i := range rounds {
		if err := unix.InitModule(ko, ""); err != nil {
			t.Fatalf("round %d: loading: %v", i, err)
		}
		if err := unix.DeleteModule("empty", unix.O_NONBLOCK); err != nil {
			t.Fatalf("round %d: unloading: %v", i, err)
		}
		if i == settled {
			early = resident(t, tr.cmd.Process.Pid)
		}
	}
	late := resident(t, tr.cmd.Process.Pid)
	r := tr.stop()
	if len(r.unloads) != rounds || r.trailer.Records != int64(rounds) || r.trailer.Incomplete != 0 || r.lost() != 0 {
		t.Errorf("%d unloads reported of %d; trailer %+v", len(r.unloads), rounds, r.trailer)
	}
	// Where tasks are preempted inside the kernel, a program is skipped now and then
	// for a task that has nothing to do with unloads.
	if r.trailer.MissedProbes != 0 && series != "amd64-7" {
		t.Errorf("%d probes missed", r.trailer.MissedProbes)
	}
	t.Logf("resident after %d unloads: %d kB, after %d: %d kB", settled, early, rounds, late)
	if late > early+early/20 {
		t.Errorf("modtrace grew from %d to %d kB", early, late)
	}
	if late > 40*1024 {
		t.Errorf("modtrace takes %d kB, more than 40 MB", late)
	}
}

// resident is the memory of a process in kB.
func resident(t *testing.T, pid int) int {
	t.Helper()
	return statusField(t, pid, "VmRSS")
}

// statusField is a number in what the kernel tells of a process.
func statusField(t *testing.T, pid int, name string) int {
	t.Helper()
	for line := range strings.Lines(readFile(t, fmt.Sprintf("/proc/%d/status", pid))) {
		if f := strings.Fields(line); f[0] == name+":" {
			n, err := strconv.Atoi(f[1])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatal("no ", name)
	return 0
}

// TestLossIsTrue fills a ring of one page while its reader is stopped: what
// was read and what was lost are together what was made, to the unit.
func TestLossIsTrue(t *testing.T) {
	guest(t)
	tr := trace(t, "--ring-bytes", strconv.Itoa(os.Getpagesize()))
	const refused = 300
	stopped(t, tr, func() {
		for range refused {
			if err := unix.DeleteModule("nosuch", unix.O_NONBLOCK); err != unix.ENOENT {
				t.Fatalf("unloading nosuch: %v", err)
			}
		}
	})
	r := tr.stop()
	lost := r.trailer.LostEvents["begin"] + r.trailer.LostEvents["end"]
	if lost == 0 {
		t.Fatal("nothing was lost: the test shows nothing")
	}
	// Each refusal makes two events, a beginning and an end, besides what happens
	// to be waited for.
	var read int64
	partial := 0
	for _, u := range r.unloads {
		if u.Caller.PID != 0 {
			read++
		}
		if u.Outcome == unload.Returned {
			read++
		}
		if !u.Complete {
			partial++
		}
	}
	if read+lost != 2*refused {
		t.Errorf("%d events read and %d lost of %d", read, lost, 2*refused)
	}
	if r.trailer.Incomplete != int64(partial) {
		t.Errorf("the trailer has %d incomplete, %d were reported", r.trailer.Incomplete, partial)
	}
	if strict := run(t, "run", "--strict", "--", "true"); strict.code != 0 {
		t.Errorf("--strict with nothing lost: exit %d", strict.code)
	}
}

// stopped does something while modtrace is stopped and cannot read its ring.
func stopped(t *testing.T, tr *tracing, do func()) {
	t.Helper()
	if err := tr.cmd.Process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	await(t, "modtrace to stop", func() bool {
		f := strings.Fields(readFile(t, fmt.Sprintf("/proc/%d/stat", tr.cmd.Process.Pid)))
		return f[2] == "T"
	})
	do()
	if err := tr.cmd.Process.Signal(unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
}
