package scenarios

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/modtrace/modtrace/unload"
)

// envSpecial says what is special about the guest that a test was booted for.
const envSpecial = "MODTRACE_SPECIAL"

func special(t *testing.T, what string) (series string) {
	t.Helper()
	series = guest(t)
	if os.Getenv(envSpecial) != what {
		t.Skip("needs a boot of its own, which the matrix test makes: " + what)
	}
	return series
}

// TestLockedDown unloads modules of Debian's, the only ones that load there, on
// a kernel that hides its memory from BPF helpers.
func TestLockedDown(t *testing.T) {
	series := special(t, "lockdown")
	if mode := readFile(t, "/sys/kernel/security/lockdown"); !strings.Contains(mode, "[confidentiality]") {
		t.Fatalf("the kernel is not locked down: %s", mode)
	}
	for _, name := range []string{"loop", "dummy", "tun"} {
		if out, err := exec.Command("modprobe", name).CombinedOutput(); err != nil {
			t.Fatalf("modprobe %s: %v: %s", name, err, out)
		}
		r := run(t, "run", "--json", "--strict", "--", "modprobe", "-r", name)
		u := r.only(t)
		conserved(t, u)
		whole(t, r.header.Plan, u)
		if u.Module != name || r.code != 0 || !u.Signed {
			t.Errorf("exit %d, module %q, signed %v\n%s", r.code, u.Module, u.Signed, r.stderr)
		}
		// Before 5.11 the caller can only be looked up by helpers.
		if !strings.HasSuffix(series, "-5.10") {
			calledBy(t, u, []string{"modprobe", "-r", name})
		}
	}
	if out, err := exec.Command("modprobe", "tun").CombinedOutput(); err != nil {
		t.Fatalf("modprobe tun: %v: %s", err, out)
	}
	tr := watchRefs(t, "--json", "tun")
	f := open(t, "/dev/net/tun", os.O_RDWR)
	a := tr.ledger()
	if b := a.balance; b.Refcount == 0 || b.Outstanding != b.Refcount || a.entries[0].PID != os.Getpid() {
		t.Errorf("references: %+v, %+v", b, a.entries)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	oneMessage(t, run(t, "trace", "--hooks", "kprobe,kretprobe,raw_tp"), 3, "lockdown=confidentiality")
}

// TestModulesDisabled turns the switch that cannot be turned back.
func TestModulesDisabled(t *testing.T) {
	special(t, "modules_disabled")
	fixture(t, "empty")
	if err := os.WriteFile("/proc/sys/kernel/modules_disabled", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	tr := trace(t)
	if err := unix.DeleteModule("empty", unix.O_NONBLOCK); !errors.Is(err, unix.EPERM) {
		t.Errorf("the kernel answered %v, want EPERM", err)
	}
	u := tr.stop().only(t)
	conserved(t, u)
	if u.Result.Reason != unload.ReasonModulesDisabled || u.Result.Errno != "EPERM" || u.Module != "empty" {
		t.Errorf("module %q, result %+v", u.Module, u.Result)
	}
}
