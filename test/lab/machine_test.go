// SPDX-License-Identifier: MIT

package lab_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/modtrace/modtrace/test/lab"
)

// one returns a kernel for tests of what does not depend on the kernel.
func one(t *testing.T) (*lab.Lab, *lab.Kernel) {
	t.Helper()
	l := lab.ForTest(t)
	s, err := lab.FindSeries("amd64-6.12")
	if err != nil {
		t.Fatal(err)
	}
	k, err := l.Kernel(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return l, k
}

func TestRun(t *testing.T) {
	l, k := one(t)
	input := make([]byte, 100_000)
	if _, err := rand.Read(input); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "collected")
	var stdout, stderr bytes.Buffer
	res, err := l.Run(t.Context(), &lab.Machine{
		Kernel: k,
		Args:   []string{"sh", "-c", "echo noise >/dev/kmsg; echo oops >&2; echo noise >/dev/console; tee /tmp/copy; exit 37"},
		Stdin:  bytes.NewReader(input), Stdout: &stdout, Stderr: &stderr,
		Collect: map[string]string{"/tmp/copy": out},
	})
	if err != nil {
		t.Fatal(err)
	}
	if res.ExitCode != 37 || res.Release != k.Release {
		t.Errorf("status %d on %q, want 37 on %q", res.ExitCode, res.Release, k.Release)
	}
	if !bytes.Equal(stdout.Bytes(), input) {
		t.Errorf("of %d bytes into the guest, %d came back, or others", len(input), stdout.Len())
	}
	if stderr.String() != "oops\n" {
		t.Errorf("stderr is %q", stderr.String())
	}
	if got, err := os.ReadFile(out); err != nil || !bytes.Equal(got, input) {
		t.Errorf("collected %d bytes of %d, %v", len(got), len(input), err)
	}
	if !strings.Contains(res.Console, "noise") {
		t.Errorf("the console does not have what was written to it: %q", res.Console)
	}
}

func TestRunEnds(t *testing.T) {
	l, k := one(t)
	interrupt := make(chan os.Signal, 1)
	interrupt <- syscall.SIGINT
	for _, c := range []struct {
		name    string
		machine lab.Machine
		status  int
		err     string // part of the error; empty means none
		console string // part of a BootError's console
	}{
		{"not found", lab.Machine{Args: []string{"no-such-program"}}, 127, "no-such-program", ""},
		{"not executable", lab.Machine{Args: []string{"/etc/passwd"}}, 126, "permission denied", ""},
		{"killed", lab.Machine{Args: []string{"sh", "-c", "kill -9 $$"}}, 137, "", ""},
		{"interrupted", lab.Machine{Args: []string{"sh", "-c", "sleep 100; exit 0"}, Signals: interrupt}, 130, "", ""},
		{"child left behind", lab.Machine{Args: []string{"sh", "-c", "sleep 100 & exit 3"}}, 3, "", ""},
		{"panic", lab.Machine{Args: []string{"sh", "-c", "echo c >/proc/sysrq-trigger"}}, 0, "ended before its command", "Kernel panic"},
		{"timeout", lab.Machine{Args: []string{"sleep", "1000"}, Timeout: 10 * time.Second}, 0, "not done after 10s", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := c.machine
			m.Kernel = k
			res, err := l.Run(t.Context(), &m)
			if c.err == "" && err != nil {
				t.Fatal(err)
			}
			if c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
				t.Errorf("the error is %v, want %q", err, c.err)
			}
			var boot *lab.BootError
			if c.status == 0 && !errors.As(err, &boot) {
				t.Errorf("the error is %v, want one about the machine", err)
			}
			if boot != nil && !strings.Contains(boot.Console, c.console) {
				t.Errorf("the console has no %q: %s", c.console, boot.Console)
			}
			if res.ExitCode != c.status {
				t.Errorf("status %d, want %d", res.ExitCode, c.status)
			}
		})
	}
}

func TestRunIsCancelled(t *testing.T) {
	l, k := one(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(time.Second, func() { cancel(errors.New("changed my mind")) })
	start := time.Now()
	_, err := l.Run(ctx, &lab.Machine{Kernel: k, Args: []string{"sleep", "1000"}})
	if err == nil || !strings.Contains(err.Error(), "changed my mind") {
		t.Errorf("a cancelled machine gave %v", err)
	}
	if took := time.Since(start); took > time.Minute {
		t.Errorf("ending a machine took %v", took)
	}
}

// Without instruction counting two runs of the same work differ by what else the
// computer does.
func TestCountInstructions(t *testing.T) {
	l, k := one(t)
	measure := func() time.Duration {
		var out bytes.Buffer
		_, err := l.Run(t.Context(), &lab.Machine{
			Kernel: k, CountInstructions: true, Stdout: &out,
			Args: []string{"sh", "-c", "read a b </proc/uptime; i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; read c d </proc/uptime; echo $a $c"},
		})
		if err != nil {
			t.Fatal(err)
		}
		from, to, _ := strings.Cut(strings.TrimSpace(out.String()), " ")
		start, err1 := time.ParseDuration(from + "s")
		end, err2 := time.ParseDuration(to + "s")
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		return end - start
	}
	a, b := measure(), measure()
	if diff := (a - b).Abs(); a <= 0 || diff > a/20 {
		t.Errorf("the same work took %v and %v", a, b)
	}
}
