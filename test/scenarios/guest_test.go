// Package scenarios holds the tests that run inside a guest of the lab, as
// root, against the real modtrace, real modules and the real kernel. On any
// other machine they are skipped: the matrix test builds them and boots the
// kernels that they run on.
package scenarios

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/modtrace/modtrace/test/lab"
	"github.com/modtrace/modtrace/test/lab/inguest"
	"github.com/modtrace/modtrace/unload"
)

// modtrace is the program under test, where the lab puts it.
const modtrace = lab.ModtracePath

// TestMain lets what the tests run have a runtime as it is everywhere: see
// lab.RunTests.
func TestMain(m *testing.M) {
	if err := os.Unsetenv("GODEBUG"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// guest skips a test that is not in a guest, and says on which kernel it is.
func guest(t *testing.T) (series string) {
	t.Helper()
	series = os.Getenv(lab.EnvGuest)
	if series == "" {
		t.Skip("runs in a guest of the lab: make lab")
	}
	return series
}

// ran is what a run of modtrace gave.
type ran struct {
	code           int
	stdout, stderr string
	header         *unload.Header
	unloads        []unload.Unload
	stalls         []unload.Stall
	reloads        []unload.Reload
	trailer        *unload.Trailer
}

// command prepares modtrace with a time limit, so that a hang fails one test.
func command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), modtrace, args...)
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// run runs modtrace to its end. Reports in JSON are parsed.
func run(t *testing.T, args ...string) ran {
	t.Helper()
	return finish(t, command(t, args...))
}

func finish(t *testing.T, cmd *exec.Cmd) ran {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("running %v: %v", cmd.Args, err)
	}
	r := ran{code: cmd.ProcessState.ExitCode(), stdout: stdout.String(), stderr: stderr.String()}
	if cmd.ProcessState.Sys().(syscall.WaitStatus).Signaled() {
		r.code = 128 + int(cmd.ProcessState.Sys().(syscall.WaitStatus).Signal())
	}
	r.parse(t)
	return r
}

func (r *ran) parse(t *testing.T) {
	t.Helper()
	if !strings.HasPrefix(r.stdout, "{") {
		return
	}
	lines := bufio.NewScanner(strings.NewReader(r.stdout))
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		var kind struct{ Type string }
		decode(t, lines.Bytes(), &kind)
		switch kind.Type {
		case unload.TypeHeader:
			r.header = new(unload.Header)
			decode(t, lines.Bytes(), r.header)
		case unload.TypeUnload:
			var u unload.Unload
			decode(t, lines.Bytes(), &u)
			r.unloads = append(r.unloads, u)
		case unload.TypeStall:
			var st unload.Stall
			decode(t, lines.Bytes(), &st)
			r.stalls = append(r.stalls, st)
		case unload.TypeReload:
			var l unload.Reload
			decode(t, lines.Bytes(), &l)
			r.reloads = append(r.reloads, l)
		case unload.TypeTrailer:
			r.trailer = new(unload.Trailer)
			decode(t, lines.Bytes(), r.trailer)
		}
	}
}

func decode(t *testing.T, line []byte, into any) {
	t.Helper()
	if err := json.Unmarshal(line, into); err != nil {
		t.Fatalf("not JSON: %v: %s", err, line)
	}
}

// only gives the one unload of a run, or fails.
func (r ran) only(t *testing.T) unload.Unload {
	t.Helper()
	if len(r.unloads) != 1 {
		t.Fatalf("%d unloads reported, want 1; exit %d, stderr:\n%s\nstdout:\n%s", len(r.unloads), r.code, r.stderr, r.stdout)
	}
	return r.unloads[0]
}

// lost counts the events that were lost, of any kind.
func (r ran) lost() (n int64) {
	for _, of := range r.trailer.LostEvents {
		n += of
	}
	return n
}

// tracing is modtrace trace in the background.
type tracing struct {
	t              *testing.T
	cmd            *exec.Cmd
	stdout, stderr bytes.Buffer
}

// trace starts modtrace trace and returns once it sees unloads.
func trace(t *testing.T, args ...string) *tracing {
	t.Helper()
	tr := &tracing{}
	tr.start(t, &tr.stdout, args...)
	return tr
}

// traceInto does the same for a reader of the test's own.
func traceInto(t *testing.T, stdout io.Writer, args ...string) *tracing {
	t.Helper()
	tr := &tracing{}
	tr.start(t, stdout, args...)
	return tr
}

func (tr *tracing) start(t *testing.T, stdout io.Writer, args ...string) {
	t.Helper()
	tr.t = t
	ready := filepath.Join(t.TempDir(), "ready")
	tr.cmd = command(t, append([]string{"trace", "--json", "--ready-file", ready}, args...)...)
	tr.cmd.Stdout, tr.cmd.Stderr = stdout, &tr.stderr
	if err := tr.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	await(t, "modtrace to be ready", func() bool {
		_, err := os.Stat(ready)
		return err == nil
	})
}

// stop ends the trace with INT and gives what it reported.
func (tr *tracing) stop() ran {
	tr.t.Helper()
	if err := tr.cmd.Process.Signal(syscall.SIGINT); err != nil {
		tr.t.Fatal(err)
	}
	err := tr.cmd.Wait()
	r := ran{code: tr.cmd.ProcessState.ExitCode(), stdout: tr.stdout.String(), stderr: tr.stderr.String()}
	if err != nil {
		tr.t.Fatalf("modtrace trace: %v\n%s", err, r.stderr)
	}
	r.parse(tr.t)
	return r
}

// await waits until something is so, or fails.
func await(t *testing.T, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if so() {
			return
		}
	}
	t.Fatalf("waited 30 s for %s", what)
}

// fixture loads a fixture module.
func fixture(t *testing.T, name string, params ...string) {
	t.Helper()
	insert(t, "/fixtures/"+name+".ko", params...)
}

func insert(t *testing.T, file string, params ...string) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), strings.Join(params, " "), 0); err != nil {
		t.Fatalf("loading %s %v: %v", file, params, err)
	}
}

// removed makes sure that a module is gone when the test has ended.
func removed(t *testing.T, names ...string) {
	t.Helper()
	t.Cleanup(func() {
		for _, name := range names {
			if err := inguest.Unload(name); err != nil && !errors.Is(err, unix.ENOENT) {
				t.Errorf("after the test: %v", err)
			}
		}
	})
}

// loaded says whether the kernel lists a module, and its count.
func loaded(t *testing.T, name string) (count int, ok bool) {
	t.Helper()
	b, err := os.ReadFile("/proc/modules")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); f[0] == name {
			n, err := strconv.Atoi(f[2])
			if err != nil {
				t.Fatalf("/proc/modules: %q", line)
			}
			return n, true
		}
	}
	return 0, false
}

// setParameter writes a parameter of a loaded module.
func setParameter(t *testing.T, module, name, value string) {
	t.Helper()
	if err := os.WriteFile("/sys/module/"+module+"/parameters/"+name, []byte(value), 0); err != nil {
		t.Fatal(err)
	}
}

// conserved checks that a report adds up, to the nanosecond.
func conserved(t *testing.T, u unload.Unload) {
	t.Helper()
	var sum int64
	for _, p := range u.Phases {
		if p.Offset != sum {
			t.Errorf("%s: phase %s begins at %d ns, the one before it ends at %d", u.Module, p.Name, p.Offset, sum)
		}
		if p.OnCPU+p.OffCPU != p.Duration || p.OnCPU < 0 || p.OffCPU < 0 {
			t.Errorf("%s: phase %s: %d on and %d off the CPU are not %d", u.Module, p.Name, p.OnCPU, p.OffCPU, p.Duration)
		}
		var waited int64
		for _, w := range p.Waits {
			waited += w.Duration
			if w.Count < 1 || w.Longest > w.Duration || w.Longest*w.Count < w.Duration || w.Cause == "" {
				t.Errorf("%s: phase %s: a wait contradicts itself: %+v", u.Module, p.Name, w)
			}
		}
		if waited != p.OffCPU && u.LostEvents == 0 {
			t.Errorf("%s: phase %s: waits of %d ns are not the %d off the CPU: %+v", u.Module, p.Name, waited, p.OffCPU, p.Waits)
		}
		sum += p.Duration
	}
	if sum != u.Duration || u.Unaccounted != 0 {
		t.Errorf("%s: phases are %d ns of %d, %d unaccounted", u.Module, sum, u.Duration, u.Unaccounted)
	}
	if u.Duration <= 0 {
		t.Errorf("%s: took %d ns", u.Module, u.Duration)
	}
}

// phase gives one phase of a report, or fails.
func phase(t *testing.T, u unload.Unload, name unload.PhaseName) unload.Phase {
	t.Helper()
	for _, p := range u.Phases {
		if p.Name == name {
			return p
		}
	}
	t.Fatalf("%s: no phase %s in %+v", u.Module, name, u.Phases)
	return unload.Phase{}
}
