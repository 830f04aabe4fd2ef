package scenarios

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/modtrace/modtrace/unload"
)

// heldByNetwork are modules that interfaces and sockets hold.
func heldByNetwork(series string) []heldInTree {
	list := []heldInTree{
		{module: "sch_netem", use: useQdisc, refs: 1, kind: unload.HolderQdisc, path: "lab0", detail: "qdisc netem 1:"},
		{module: "sch_netem", loads: []string{"sch_netem", "sch_prio"}, use: useClass, refs: 2, kind: unload.HolderQdisc, path: "lab0", detail: "qdisc netem 11:", step: "tc qdisc del dev lab0 parent 1:1"},
		{module: "sch_netem", use: elsewhere(useQdisc), refs: 1, kind: unload.HolderQdisc, path: "lab0", detail: "in network namespace 40"},
		{module: "sch_ingress", use: useIngress, refs: 1, kind: unload.HolderQdisc, path: "lab0", detail: "qdisc ingress ffff:"},
		{module: "sch_fq", use: sets("net/core/default_qdisc", "fq"), refs: 1, kind: unload.HolderQdisc, path: "net.core.default_qdisc", detail: "the default qdisc fq"},
		{module: "tcp_bbr", use: useDefaultBBR, refs: 2, kind: unload.HolderKernel, path: "net.ipv4.tcp_congestion_control", detail: "in network namespace 40"},
		{module: "cls_flower", loads: []string{"cls_flower", "sch_ingress", "act_mirred"}, use: useClassifier, refs: 1, kind: unload.HolderFilter, path: "lab0", detail: "classifier flower, preference 7", step: "tc filter del dev lab0 ingress pref 7"},
		{module: "cls_flower", loads: []string{"cls_flower", "sch_prio"}, use: useClassifierOfQdisc, refs: 2, kind: unload.HolderFilter, path: "lab0", detail: "classifier flower, preference 8", step: "tc filter del dev lab0 parent 1: pref 8"},
		{module: "cls_flower", loads: []string{"cls_flower", "sch_htb"}, use: useClassifierOfClass, refs: 1, kind: unload.HolderFilter, path: "lab0", detail: "classifier flower, preference 6, class 1:2a", step: "tc filter del dev lab0 parent 1:2a pref 6"},
		{module: "cls_flower", loads: []string{"cls_flower", "sch_ingress", "veth"}, use: useSharedBlock, refs: 1, kind: unload.HolderFilter, path: "lab", detail: "classifier flower, preference 7", step: "tc filter del block 42 pref 7"},
		{module: "act_mirred", loads: []string{"cls_flower", "sch_ingress", "act_mirred"}, use: useClassifier, refs: 1, kind: unload.HolderFilter, path: "mirred", detail: "action mirred, index 1", step: "tc filter del, for those filters that use action mirred index 1"},
		{module: "act_mirred", loads: []string{"cls_flower", "sch_ingress", "act_mirred"}, use: elsewhere(useClassifier), refs: 1, kind: unload.HolderFilter, path: "mirred", detail: "in network namespace 40"},
		{module: "ah4", use: useIPsec, refs: 1, kind: unload.HolderKernel, path: "ip xfrm state", detail: "AH to 10.0.0.2"},
		{module: "vsock", use: useSocket(unix.AF_VSOCK, unix.SOCK_STREAM, 0), refs: 2, kind: unload.HolderSocket, path: "socket:", detail: "vsock socket"},
		{module: "vsock_loopback", use: useVsock, refs: 2, kind: unload.HolderSocket, path: "socket:", detail: "its transport", typed: 2},
		{module: "tipc", use: useSocket(unix.AF_TIPC, unix.SOCK_RDM, 0), refs: 2, kind: unload.HolderSocket, path: "socket:", detail: "TIPC socket"},
		{module: "l2tp_ip", use: useSocket(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_L2TP), refs: 2, kind: unload.HolderSocket, path: "socket:", detail: "protocol L2TP/IP"},
		{module: "xfrm_user", use: useSocket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_XFRM), refs: 1, kind: unload.HolderSocket, path: "socket:", detail: "netlink family 6"},
		// Its own socket, which no process has open, holds it for good.
		{module: "sctp", stays: true, use: func(*testing.T) {}, refs: 2, kind: unload.HolderSocket, path: "the kernel's own", detail: "protocol SCTP"},
		{module: "sctp", stays: true, use: useSocket(unix.AF_INET, unix.SOCK_SEQPACKET, unix.IPPROTO_SCTP), refs: 4, kind: unload.HolderSocket, path: "socket:", detail: "protocol SCTP"},
	}
	if !strings.HasSuffix(series, "-5.10") { // of which Debian has none there
		list = append(list, heldInTree{module: "tls", use: useTLS, refs: 1, kind: unload.HolderSocket, path: "socket:", detail: "upper-layer protocol tls"})
	}
	return list
}

// testInterfaces has a bridge with interfaces of a pair in it, which hold none of the
// modules that make them: they only would go with these.
func testInterfaces(t *testing.T) {
	must(t, "modprobe", "-a", "bridge", "veth")
	t.Cleanup(func() { must(t, "modprobe", "-r", "bridge", "veth") })
	must(t, "ip", "link", "add", "lab0", "type", "bridge")
	must(t, "ip", "link", "add", "lab1", "type", "veth", "peer", "name", "lab2")
	must(t, "ip", "link", "set", "lab1", "master", "lab0")
	for _, name := range []string{"lab0", "lab1"} {
		must(t, "ip", "link", "set", name, "up")
	}
	for module, name := range map[string]string{"bridge": "lab0", "veth": "lab1"} {
		r, w := whyOne(t, module)
		if r.code != 0 || w.Refcount != 0 || len(w.Holders) > 0 || !slices.Equal(w.Hazards, []string{"interface " + name + ", which is up, would go"}) {
			t.Errorf("exit %d: %+v", r.code, w)
		}
	}
	// Another module needs it, for as long as there is one.
	if _, w := whyOne(t, "stp"); w.Refcount != 1 || w.Unexplained != 0 || w.Holders[0].Module != "bridge" {
		t.Errorf("%+v", w)
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

// useClassifier sends what comes in to where it came from.
func useClassifier(t *testing.T) {
	useIngress(t)
	must(t, "tc", "filter", "add", "dev", "lab0", "ingress", "pref", "7", "protocol", "ip", "flower",
		"dst_ip", "10.0.0.2", "action", "mirred", "egress", "redirect", "dev", "lab0")
}

// useSharedBlock has one classifier for what comes in at two interfaces.
func useSharedBlock(t *testing.T) {
	must(t, "ip", "link", "add", "lab0", "type", "veth", "peer", "name", "lab1")
	t.Cleanup(func() { must(t, "ip", "link", "del", "lab0") })
	for _, name := range []string{"lab0", "lab1"} {
		must(t, "tc", "qdisc", "add", "dev", name, "ingress_block", "42", "clsact")
	}
	must(t, "tc", "filter", "add", "block", "42", "pref", "7", "protocol", "ip", "flower", "dst_ip", "10.0.0.2")
}

// useClassifierOfQdisc has two classifiers at a qdisc for what goes out.
func useClassifierOfQdisc(t *testing.T) {
	device(t)
	must(t, "tc", "qdisc", "add", "dev", "lab0", "root", "handle", "1:", "prio")
	for _, preference := range []string{"8", "9"} {
		must(t, "tc", "filter", "add", "dev", "lab0", "parent", "1:", "pref", preference, "protocol", "ip", "flower",
			"dst_ip", "10.0.0."+preference, "classid", "1:1")
	}
}

// useClassifierOfClass has a classifier at one class of a qdisc.
func useClassifierOfClass(t *testing.T) {
	device(t)
	must(t, "tc", "qdisc", "add", "dev", "lab0", "root", "handle", "1:", "htb")
	for _, class := range []string{"1:1", "1:2a"} {
		must(t, "tc", "class", "add", "dev", "lab0", "parent", "1:", "classid", class, "htb", "rate", "1mbit")
	}
	must(t, "tc", "filter", "add", "dev", "lab0", "parent", "1:2a", "pref", "6", "protocol", "ip", "flower", "dst_ip", "10.0.0.6")
}

// useTLS gives one end of a connection an upper-layer protocol.
func useTLS(t *testing.T) {
	must(t, "ip", "link", "set", "lo", "up")
	server, client := socket(t, unix.AF_INET, unix.SOCK_STREAM, 0), socket(t, unix.AF_INET, unix.SOCK_STREAM, 0)
	there := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: 4243}
	err := errors.Join(unix.Bind(server, there), unix.Listen(server, 1), unix.Connect(client, there),
		unix.SetsockoptString(client, unix.IPPROTO_TCP, unix.TCP_ULP, "tls"))
	if err != nil {
		t.Fatal(err)
	}
}

func useIPsec(t *testing.T) {
	must(t, "ip", "xfrm", "state", "add", "src", "10.0.0.1", "dst", "10.0.0.2", "proto", "ah", "spi", "1",
		"mode", "transport", "auth", "hmac(sha256)", "0x"+strings.Repeat("42", 32))
	t.Cleanup(func() { must(t, "ip", "xfrm", "state", "flush") })
}

// useVsock has a connection from this machine to itself, of which both ends are open.
func useVsock(t *testing.T) {
	there := &unix.SockaddrVM{CID: unix.VMADDR_CID_LOCAL, Port: 4242}
	server, client := socket(t, unix.AF_VSOCK, unix.SOCK_STREAM, 0), socket(t, unix.AF_VSOCK, unix.SOCK_STREAM, 0)
	if err := errors.Join(unix.Bind(server, there), unix.Listen(server, 1), unix.Connect(client, there)); err != nil {
		t.Fatal(err)
	}
	accepted, _, err := unix.Accept(server)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(accepted) })
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
