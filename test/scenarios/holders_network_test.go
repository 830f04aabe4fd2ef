package scenarios

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/modtrace/modtrace/unload"
)

// heldByNetwork are modules that no open file leads to.
func heldByNetwork() []heldInTree {
	return []heldInTree{
		{module: "sch_netem", use: useQdisc, refs: 1, kind: unload.HolderQdisc, path: "lab0", detail: "qdisc netem 1:"},
		{module: "sch_netem", loads: []string{"sch_netem", "sch_prio"}, use: useClass, refs: 2, kind: unload.HolderQdisc, path: "lab0", detail: "qdisc netem 11:"},
		{module: "sch_netem", use: elsewhere(useQdisc), refs: 1, kind: unload.HolderQdisc, path: "lab0", detail: "in network namespace 40"},
		{module: "sch_ingress", use: useIngress, refs: 1, kind: unload.HolderQdisc, path: "lab0", detail: "qdisc ingress ffff:"},
		{module: "sch_fq", use: sets("net/core/default_qdisc", "fq"), refs: 1, kind: unload.HolderQdisc, path: "net.core.default_qdisc", detail: "the default qdisc fq"},
		{module: "tcp_bbr", use: useDefaultBBR, refs: 2, kind: unload.HolderKernel, path: "net.ipv4.tcp_congestion_control", detail: "in network namespace 40"},
	}
}

// device makes an interface. It goes with the test.
func device(t *testing.T) {
	t.Helper()
	must(t, "modprobe", "dummy")
	must(t, "ip", "link", "add", "lab0", "type", "dummy")
	t.Cleanup(func() { _ = exec.Command("ip", "link", "del", "lab0").Run() }) // or it goes with its namespace
	must(t, "ip", "link", "set", "lab0", "up")
}

func useQdisc(t *testing.T) {
	device(t)
	must(t, "tc", "qdisc", "add", "dev", "lab0", "root", "handle", "1:", "netem", "delay", "10ms")
}

// useClass has a qdisc in the class of another one.
func useClass(t *testing.T) {
	device(t)
	must(t, "tc", "qdisc", "add", "dev", "lab0", "root", "handle", "1:", "prio")
	must(t, "tc", "qdisc", "add", "dev", "lab0", "parent", "1:1", "handle", "11:", "netem", "delay", "10ms")
	must(t, "tc", "qdisc", "add", "dev", "lab0", "parent", "1:2", "handle", "12:", "netem", "delay", "10ms")
}

func useIngress(t *testing.T) {
	device(t)
	must(t, "tc", "qdisc", "add", "dev", "lab0", "ingress")
}

// useDefaultBBR makes BBR what new connections use, here and in a namespace that is
// made after that.
func useDefaultBBR(t *testing.T) {
	sets("net/ipv4/tcp_congestion_control", "bbr")(t)
	elsewhere(func(*testing.T) {})(t)
}

// sets writes what a setting of the kernel's is to be meanwhile.
func sets(name, value string) func(*testing.T) {
	return func(t *testing.T) {
		t.Helper()
		file := "/proc/sys/" + name
		before := readFile(t, file)
		if err := os.WriteFile(file, []byte(value), 0); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := os.WriteFile(file, []byte(strings.TrimSpace(before)), 0); err != nil {
				t.Error(err)
			}
		})
	}
}

// elsewhere does something in a network namespace of its own, in which a process is.
func elsewhere(use func(*testing.T)) func(*testing.T) {
	return func(t *testing.T) {
		t.Helper()
		before := counts(t)
		child := exec.Command("sleep", "1000")
		child.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = child.Process.Kill()
			_ = child.Wait() // it was killed
			await(t, "the namespace to go", func() bool {
				now := counts(t)
				for name, count := range before {
					if now[name] != count {
						return false
					}
				}
				return true
			})
		})
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		here := open(t, "/proc/thread-self/ns/net", os.O_RDONLY)
		there := open(t, fmt.Sprintf("/proc/%d/ns/net", child.Process.Pid), os.O_RDONLY)
		enter := func(f *os.File) {
			if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
				t.Fatal(err)
			}
		}
		enter(there)
		defer enter(here)
		use(t)
	}
}

// counts are the references on each module that is loaded.
func counts(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	for line := range strings.Lines(readFile(t, "/proc/modules")) {
		f := strings.Fields(line)
		found[f[0]] = f[2]
	}
	return found
}
