// SPDX-License-Identifier: MIT

package lab

import (
	"errors"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Environment variables that tests read. In the guest, EnvGuest has the name of
// the kernel series.
const (
	EnvEnable       = "MODTRACE_LAB"               // 1 lets tests boot machines
	EnvKernels      = "MODTRACE_LAB_KERNELS"       // series to test, instead of the matrix
	EnvAllowMissing = "MODTRACE_LAB_ALLOW_MISSING" // series that the archive may lack
	EnvGuest        = "MODTRACE_LAB_GUEST"
)

// testBinaryPath is where the guest finds the test binary.
const testBinaryPath = "/lab/test"

// ForTest opens the lab for a test. The test is skipped unless MODTRACE_LAB=1:
// booting machines takes minutes, and the first time gigabytes.
func ForTest(t testing.TB) *Lab {
	t.Helper()
	if os.Getenv(EnvEnable) != "1" {
		t.Skipf("boots virtual machines; set %s=1 to run it", EnvEnable)
	}
	l, err := New(Options{Log: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// EachKernel runs a subtest for every kernel of the matrix, or of those that
// MODTRACE_LAB_KERNELS lists. A series that the archive lacks fails, unless
// MODTRACE_LAB_ALLOW_MISSING lists it.
func (l *Lab) EachKernel(t *testing.T, f func(t *testing.T, k *Kernel)) {
	t.Helper()
	series, err := testSeries(os.Getenv(EnvKernels))
	if err != nil {
		t.Fatal(err)
	}
	allowed := list(os.Getenv(EnvAllowMissing))
	for _, s := range series {
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			k, err := l.Kernel(t.Context(), s)
			if errors.Is(err, ErrMissing) && slices.Contains(allowed, s.Name) {
				t.Skip(err)
			}
			if err != nil {
				t.Fatal(err)
			}
			f(t, k)
		})
	}
}

func testSeries(names string) ([]Series, error) {
	if names == "" {
		return Matrix(), nil
	}
	var all []Series
	for _, name := range list(names) {
		s, err := FindSeries(name)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

func list(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' })
}

// TestMachine makes a guest with modtrace in it.
func (l *Lab) TestMachine(t testing.TB, k *Kernel) Machine {
	t.Helper()
	initrd, err := l.Initrd(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.AddModtrace(t.Context(), initrd, k); err != nil {
		t.Fatal(err)
	}
	return Machine{Kernel: k, Initrd: initrd}
}

// TestBinary builds the tests of a package of this module for k's architecture,
// static, and returns the file.
func (l *Lab) TestBinary(t testing.TB, k *Kernel, pkg string, flags ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "guest.test")
	if err := l.GoTestBuild(t.Context(), k.Series.Arch, pkg, file, flags...); err != nil {
		t.Fatal(err)
	}
	return file
}

// RunTests runs a static test binary in a machine and reports each of its tests
// as a subtest of t, as they happen. The machine's Args are flags for the
// binary, such as -test.run=X. A machine that dies, hangs or panics fails t with
// the end of its console.
func (l *Lab) RunTests(t *testing.T, m Machine, binary string) {
	t.Helper()
	ctx := t.Context()
	if m.Initrd == nil {
		base, err := l.Initrd(ctx, m.Kernel)
		if err != nil {
			t.Fatal(err)
		}
		m.Initrd = base
	} else {
		m.Initrd = m.Initrd.Clone()
	}
	if err := m.Initrd.AddHostFile(testBinaryPath, binary); err != nil {
		t.Fatal(err)
	}
	if m.Timeout == 0 {
		m.Timeout = defaultTimeout
	}
	m.Args = append(testFlags(t.Name(), m.Timeout), m.Args...)
	// The runtime would signal threads that run for long, which ends a test's own
	// delete_module with EINTR when it waits for module_mutex.
	m.Env = append(m.Env, EnvGuest+"="+m.Kernel.Series.Name, "GODEBUG=asyncpreemptoff=1")
	if m.Stderr == nil {
		m.Stderr = t.Output()
	}

	tree := newEventTree(t)
	conv, err := newConverter()
	if err != nil {
		t.Fatal(err)
	}
	followed := make(chan error, 1)
	go func() { followed <- tree.follow(conv.out) }()
	m.Stdout = conv.in
	res, err := l.Run(ctx, &m)
	err = errors.Join(err, conv.close(), <-followed)
	if err != nil {
		t.Errorf("%s: %v", m.Kernel.Series.Name, err)
		return
	}
	switch {
	case res.ExitCode != 0 && tree.fails == 0:
		t.Errorf("the test binary ended with status %d and no test failed; the console's end:\n%s", res.ExitCode, tail(res.Console, 60))
	case tree.ran == 0:
		t.Error("the guest ran no test")
	}
}

func testFlags(name string, timeout time.Duration) []string {
	flags := []string{testBinaryPath, "-test.v=test2json", "-test.paniconexit0"}
	// The guest's own timeout comes first: it prints the stacks.
	if inner := timeout - 20*time.Second; inner > 0 {
		flags = append(flags, "-test.timeout="+inner.String())
	}
	if testing.Short() {
		flags = append(flags, "-test.short")
	}
	if f := flag.Lookup("test.run"); f != nil {
		if rest := patternBelow(f.Value.String(), name); rest != "" {
			flags = append(flags, "-test.run="+rest)
		}
	}
	return flags
}

// patternBelow returns what is left of a -run pattern for the subtests of a test,
// so that the guest does not run what nobody asked for.
func patternBelow(pattern, name string) string {
	if strings.ContainsAny(pattern, "[(|") {
		// A slash may be part of these; then the host alone picks.
		return ""
	}
	parts := strings.Split(pattern, "/")
	depth := strings.Count(name, "/") + 1
	if len(parts) <= depth {
		return ""
	}
	return strings.Join(parts[depth:], "/")
}

// converter turns a test binary's output into events.
type converter struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out io.Reader
}

func newConverter() (*converter, error) {
	// The tool is of the same Go as the binary, and their private language is not
	// the same in all versions.
	cmd := exec.Command("go", "tool", "test2json")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Stdout = w
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	w.Close()
	return &converter{cmd: cmd, in: in, out: r}, nil
}

// close ends the input; the output ends by itself.
func (c *converter) close() error {
	return errors.Join(c.in.Close(), c.cmd.Wait())
}
