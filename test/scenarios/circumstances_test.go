package scenarios

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/modtrace/modtrace/unload"
)

// oneMessage checks an exit code, and that stderr is one message that names
// what is wanted, and nothing that only a library's author would say.
func oneMessage(t *testing.T, r ran, code int, wants ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit %d, want %d; stderr:\n%s", r.code, code, r.stderr)
	}
	if n := strings.Count(r.stderr, "modtrace: "); n != 1 {
		t.Errorf("%d messages, want 1:\n%s", n, r.stderr)
	}
	for _, want := range wants {
		if !strings.Contains(r.stderr, want) {
			t.Errorf("no %q in:\n%s", want, r.stderr)
		}
	}
	for _, raw := range []string{"MEMLOCK", "program enter_", "create raw tracepoint", "goroutine ", "operation not permitted", "invalid argument", "ebpf", "0x"} {
		if strings.Contains(r.stderr, raw) {
			t.Errorf("a library's %q in:\n%s", raw, r.stderr)
		}
	}
}

// withCapabilities runs modtrace as a user that is not root, with just these
// capabilities.
func withCapabilities(t *testing.T, set []uintptr, args ...string) ran {
	t.Helper()
	cmd := command(t, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential:  &syscall.Credential{Uid: 1000, Gid: 1000},
		AmbientCaps: set,
	}
	return finish(t, cmd)
}

func TestWithoutPrivileges(t *testing.T) {
	series := guest(t)
	needed := map[string]uintptr{"CAP_BPF": unix.CAP_BPF, "CAP_PERFMON": unix.CAP_PERFMON}
	oneMessage(t, withCapabilities(t, nil, "run", "--", "true"), 3, "not permitted", "CAP_BPF", "CAP_PERFMON", "root")
	for name := range needed {
		var others []uintptr
		for other, c := range needed {
			if other != name {
				others = append(others, c)
			}
		}
		oneMessage(t, withCapabilities(t, others, "trace"), 3, name, "try: ")
	}
	// Those two suffice, but for the memory limit of kernels before 5.11.
	enough := []uintptr{unix.CAP_BPF, unix.CAP_PERFMON}
	if strings.HasSuffix(series, "-5.10") {
		oneMessage(t, withCapabilities(t, enough, "run", "--", "true"), 3, "CAP_SYS_RESOURCE")
		enough = append(enough, unix.CAP_SYS_RESOURCE)
	}
	fixture(t, "empty")
	removed(t, "empty")
	r := withCapabilities(t, enough, "run", "--json", "--", "busybox", "rmmod", "empty")
	if u := r.only(t); u.Result.Reason != unload.ReasonNoCapability || u.Caller.UID != 1000 {
		t.Errorf("result %+v, caller %+v", u.Result, u.Caller)
	}
	check := withCapabilities(t, nil, "check")
	if check.code != 3 || !strings.Contains(check.stdout, "MISSING") || !strings.Contains(check.stderr, "CAP_BPF") {
		t.Errorf("check without privileges: exit %d\n%s%s", check.code, check.stdout, check.stderr)
	}
}

// TestCommandStatus passes on what became of the command.
func TestCommandStatus(t *testing.T) {
	guest(t)
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	garbage := filepath.Join(dir, "garbage")
	if err := os.WriteFile(plain, []byte("#!/bin/sh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(garbage, []byte("\x00\x01\x02\x03 no program"), 0o700); err != nil {
		t.Fatal(err)
	}
	oneMessage(t, run(t, "run", "--", "no-such-command"), 127, "no-such-command", "PATH")
	oneMessage(t, run(t, "run", "--", dir+"/nothing"), 127, "nothing")
	oneMessage(t, run(t, "run", "--", plain), 126, "plain", "mode")
	oneMessage(t, run(t, "run", "--", dir), 126, dir)
	oneMessage(t, run(t, "run", "--", garbage), 126, "garbage")
	for script, want := range map[string]int{"exit 7": 7, "kill -KILL $$": 137, "kill -TERM $$": 143, "true": 0} {
		r := run(t, "run", "--", "sh", "-c", script)
		if said := strings.Contains(r.stderr, "without asking the kernel"); r.code != want || said != (want != 0) {
			t.Errorf("%s: exit %d, want %d; stderr %q", script, r.code, want, r.stderr)
		}
	}
}

func TestFailOver(t *testing.T) {
	guest(t)
	fixture(t, "slow", "sleep_ms=300")
	oneMessage(t, run(t, "run", "--fail-over", "100ms", "--", "rmmod", "slow"), 20, "slow", "100ms")
	fixture(t, "slow", "sleep_ms=10")
	if r := run(t, "run", "--fail-over", "20s", "--", "rmmod", "slow"); r.code != 0 {
		t.Errorf("exit %d\n%s", r.code, r.stderr)
	}
}

// TestStdoutGoesAway reports to a pipe that nobody reads any more, and to a
// full disk.
func TestStdoutGoesAway(t *testing.T) {
	guest(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	defer w.Close()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	for want, stdout := range map[string]*os.File{"reader has gone": w, "disk is full": full} {
		for _, format := range []string{"--json=true", "--json=false"} {
			fixture(t, "empty")
			cmd := command(t, "run", format, "--", "rmmod", "empty")
			var stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = stdout, &stderr
			_ = cmd.Run()
			oneMessage(t, ran{code: cmd.ProcessState.ExitCode(), stderr: stderr.String()}, 125, want)
			if _, ok := loaded(t, "empty"); ok {
				deleted(t, "empty")
			}
		}
	}
}

// hanging has rmmod hang under modtrace run, inside exit().
func hanging(t *testing.T) *exec.Cmd {
	t.Helper()
	fixture(t, "release")
	fixture(t, "hang")
	cmd := command(t, "run", "--json", "--", "rmmod", "hang")
	// Files, so that a child that hangs on does not keep Wait from returning.
	cmd.Stdout, cmd.Stderr = temp(t), temp(t)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	awaitState(t, "hang", "going")
	time.Sleep(300 * time.Millisecond)
	t.Cleanup(func() {
		setParameter(t, "release", "go", "1")
		// The kernel lists hang no more before it lets go of what it used.
		await(t, "release to be free", func() bool { return unix.DeleteModule("release", unix.O_NONBLOCK) == nil })
	})
	return cmd
}

func temp(t *testing.T) *os.File {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// TestInterruptedInAHang sends INT while an unload hangs: modtrace reports how
// far it came, at once, and leaves it alone.
func TestInterruptedInAHang(t *testing.T) {
	guest(t)
	cmd := hanging(t)
	began := time.Now()
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %v to end", took)
	}
	r := ran{code: cmd.ProcessState.ExitCode(), stdout: readFile(t, cmd.Stdout.(*os.File).Name()), stderr: readFile(t, cmd.Stderr.(*os.File).Name())}
	r.parse(t)
	u := r.only(t)
	conserved(t, u)
	if r.code != 130 || u.Complete || u.Result.OK || u.Result.Errno != "" || u.Module != "hang" {
		t.Errorf("exit %d, report %+v", r.code, u)
	}
	last := u.Phases[len(u.Phases)-1]
	if last.Name != unload.Exit || last.OffCPU < int64(200*time.Millisecond) {
		t.Errorf("last phase %+v, want exit, asleep", last)
	}
	if r.trailer == nil || r.trailer.Incomplete != 1 {
		t.Errorf("trailer %+v", r.trailer)
	}
}

// TestInterruptedTwice sends INT twice, the second before modtrace has come to
// its end.
func TestInterruptedTwice(t *testing.T) {
	guest(t)
	cmd := hanging(t)
	_ = cmd.Process.Signal(syscall.SIGINT)
	time.Sleep(20 * time.Millisecond)
	_ = cmd.Process.Signal(syscall.SIGINT)
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("two INTs do not end it")
	}
	ws := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if code := cmd.ProcessState.ExitCode(); code != 130 && ws.Signal() != syscall.SIGINT {
		t.Errorf("ended by %v", cmd.ProcessState)
	}
}

// hidden runs a test where a directory looks empty, in a mount namespace of
// its own.
func hidden(t *testing.T, dir string, args ...string) ran {
	t.Helper()
	script := fmt.Sprintf("mount -t tmpfs none %s && exec %s \"$@\"", dir, modtrace)
	cmd := exec.CommandContext(t.Context(), "unshare", append([]string{"-m", "sh", "-c", script, "sh"}, args...)...)
	return finish(t, cmd)
}

// TestWithoutBTF runs as on a kernel that does not describe its types, with
// and without a file that does.
func TestWithoutBTF(t *testing.T) {
	guest(t)
	types := filepath.Join(t.TempDir(), "btf")
	if err := os.WriteFile(types, []byte(readFile(t, "/sys/kernel/btf/vmlinux")), 0o600); err != nil {
		t.Fatal(err)
	}
	const btf = "/sys/kernel/btf"
	oneMessage(t, hidden(t, btf, "run", "--", "true"), 3, "CONFIG_DEBUG_INFO_BTF", "--btf FILE")
	oneMessage(t, hidden(t, btf, "run", "--btf", types+".nothing", "--", "true"), 3, "does not exist", "--btf")
	oneMessage(t, hidden(t, btf, "run", "--btf", "/etc/passwd", "--", "true"), 3, "holds no BTF")

	fixture(t, "empty")
	r := hidden(t, btf, "run", "--json", "--strict", "--btf", types, "--", "rmmod", "empty")
	u := r.only(t)
	conserved(t, u)
	whole(t, r.header.Plan, u)
	for _, h := range r.header.Plan {
		if h.Mechanism == "fentry" || h.Mechanism == "tp_btf" {
			t.Errorf("%s is hooked by %s, which needs BTF in the kernel", h.Function, h.Mechanism)
		}
	}
}

// TestWithoutModules runs as on a kernel that is built without them.
func TestWithoutModules(t *testing.T) {
	guest(t)
	// What is looked at is /proc/modules.
	oneMessage(t, hidden(t, "/proc", "trace"), 3, "CONFIG_MODULES")
}

func TestUsage(t *testing.T) {
	guest(t)
	for _, args := range [][]string{
		{"no-such-command"}, {"run"}, {"run", "--"}, {"run", "--no-such-flag", "--", "true"},
		{"trace", "[a-"}, {"check", "surplus"}, {"trace", "--color", "mauve"},
		{"run", "--fail-over", "soon", "--", "true"}, {"trace", "--ring-bytes", "5000"},
	} {
		oneMessage(t, run(t, args...), 2, "try: modtrace ", " --help")
	}
}
