package holders

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/modtrace/modtrace/memory"
	"github.com/modtrace/modtrace/unload"
)

func networkTypes() []string {
	return []string{
		"nsproxy", "net", "net_device", "netdev_queue", "Qdisc", "Qdisc_ops", "tcp_congestion_ops",
		"xfrm_state", "xfrm_type", "sock", "socket", "proto", "proto_ops",
	}
}

// namespaces are the processes by which network namespaces can be named, by their
// numbers.
type namespaces map[uint64]int

func (r root) networkNamespaces() namespaces {
	found := namespaces{}
	processes, err := filepath.Glob(r.path("proc", "[0-9]*"))
	if err != nil {
		return found
	}
	for _, dir := range processes {
		ns, err := namespaceOf(dir, "net")
		if err != nil {
			continue // it has ended, or may not be looked at
		}
		if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil && (found[ns] == 0 || pid < found[ns]) {
			found[ns] = pid
		}
	}
	return found
}

// of says in words which namespace is meant, if it is not that of this process.
func (n namespaces) of(net memory.Value) string {
	number := net.Uint("ns.inum")
	if own, err := namespaceOf("/proc/self", "net"); err == nil && own == number {
		return ""
	}
	if pid := n[number]; pid != 0 {
		return fmt.Sprintf(", in network namespace %d (that of process %d)", number, pid)
	}
	return fmt.Sprintf(", in network namespace %d, of no process that is seen", number)
}

// eachNetwork goes through all network namespaces (net/core/net_namespace.c).
func (s *search) eachNetwork(look func(net memory.Value, where string)) {
	processes := s.networkNamespaces()
	own := s.Task().Follow("nsproxy", "nsproxy").Follow("net_ns", "net")
	look(own, processes.of(own))
	for _, net := range s.List(own.Part("list"), "net", "list") {
		if s.Whether(func() bool { return s.isNetwork(net) }) {
			look(net, processes.of(net))
		}
	}
}

// isNetwork says whether it is a namespace, and not the head of their list: its
// loopback device is in it.
func (s *search) isNetwork(net memory.Value) bool {
	return net.Follow("loopback_dev", "net_device").Uint("nd_net.net") == net.Address
}

func (s *search) network(net memory.Value, where string) {
	ca := net.Follow("ipv4.tcp_congestion_control", "tcp_congestion_ops")
	// net/ipv4/tcp_cong.c, tcp_set_default_congestion_control
	s.hold(ca.Uint("owner"), net.Address, unload.Holder{
		Kind: unload.HolderKernel, Path: "net.ipv4.tcp_congestion_control",
		Detail: "default congestion control " + ca.Text("name") + where,
	}).freeBy("sysctl -w net.ipv4.tcp_congestion_control=reno, or another one" + where)
	s.sockets(net, where)
	s.transforms(net, where)
	s.tables(net, where)
	s.xtables(net, where)
	for _, dev := range s.List(net.Part("dev_base_head"), "net_device", "dev_list") {
		s.qdiscs(dev, where)
	}
	s.actions(net, where)
}

// transforms are the states of IPsec (net/xfrm/xfrm_state.c, xfrm_get_type). Who lists
// them is on their list too, and is none.
func (s *search) transforms(net memory.Value, where string) {
	for _, state := range s.List(net.Part("xfrm.state_all"), "xfrm_state", "km.all") {
		var typ memory.Value
		if !s.Whether(func() bool {
			typ = state.Follow("type", "xfrm_type")
			return typ.Uint("proto") != 0 && typ.Uint("proto") == state.Uint("id.proto")
		}) {
			continue
		}
		s.hold(typ.Uint("owner"), state.Address, unload.Holder{
			Kind: unload.HolderKernel, Path: "ip xfrm state",
			Detail: fmt.Sprintf("%s to %s%s", transform(typ.Uint("proto")), s.destination(state), where),
		})
	}
}

// transform is what a protocol of IPsec is called.
func transform(protocol uint64) string {
	switch protocol {
	case unix.IPPROTO_AH:
		return "AH"
	case unix.IPPROTO_ESP:
		return "ESP"
	case unix.IPPROTO_COMP:
		return "IPComp"
	}
	return fmt.Sprintf("protocol %d", protocol)
}

func (s *search) destination(state memory.Value) netip.Addr {
	b := s.Bytes(state.Part("id.daddr"), 16)
	if state.Uint("props.family") == unix.AF_INET {
		b = b[:4]
	}
	address, _ := netip.AddrFromSlice(b) // of 4 or 16 bytes
	return address
}

// interfaces are those that are up and whose operations are in a module, which they do
// not hold (net/core/rtnetlink.c, rtnl_link_unregister).
func (s *search) interfaces(module string) (up []string) {
	const isUp = 1 // include/uapi/linux/if.h, IFF_UP
	spans := s.findSpans(module)
	if spans == nil {
		return nil
	}
	s.eachNetwork(func(net memory.Value, where string) {
		for _, dev := range s.List(net.Part("dev_base_head"), "net_device", "dev_list") {
			if dev.Uint("flags")&isUp != 0 && (within(spans, dev.Uint("rtnl_link_ops")) || within(spans, dev.Uint("netdev_ops"))) {
				up = append(up, dev.Text("name")+where)
			}
		}
	})
	return up
}

// sockets are those that the kernel has for itself in a namespace: they know it. Each
// holds its protocol and its operations (net/core/sock.c, sk_prot_alloc; net/socket.c,
// __sock_create).
func (s *search) sockets(net memory.Value, where string) {
	if s.socketsAt == nil {
		s.socketsAt = s.findSockets(net)
	}
	for _, at := range s.socketsAt {
		sk := s.At("sock", s.Pointers(net.Address+at, 1)[0])
		socket := sk.Follow("sk_socket", "socket")
		if sk.Uint("__sk_common.skc_net.net") != net.Address || socket.Uint("sk") != sk.Address {
			continue
		}
		proto := sk.Follow("sk_prot_creator", "proto")
		h := unload.Holder{
			Kind: unload.HolderSocket, Path: "the kernel's own", Detail: "protocol " + proto.Text("name") + where,
		}
		s.hold(proto.Uint("owner"), sk.Address, h)
		s.hold(socket.Follow("ops", "proto_ops").Uint("owner"), socket.Address, h)
	}
}

// findSockets says where in a namespace the kernel keeps sockets, which is so in all.
func (s *search) findSockets(net memory.Value) []uint64 {
	list := []uint64{}
	for i, at := range s.Pointers(net.Address, int(net.End()-net.Address)/8) {
		if at>>63 != 0 && s.Whether(func() bool {
			sk := s.At("sock", at)
			return sk.Uint("__sk_common.skc_net.net") == net.Address && sk.Follow("sk_socket", "socket").Uint("sk") == at
		}) {
			list = append(list, uint64(i)*8)
		}
	}
	return list
}

// qdiscs are those of a device: at its root, those that are in classes of others, and
// that for what comes in (net/sched/sch_api.c).
func (s *search) qdiscs(dev memory.Value, where string) {
	s.qdisc(dev, dev.Follow("qdisc", "Qdisc"), where)
	for _, first := range dev.Numbers("qdisc_hash") {
		for _, q := range s.Chain(first, "Qdisc", "hash") {
			s.qdisc(dev, q, where)
		}
	}
	s.qdisc(dev, dev.Follow("ingress_queue", "netdev_queue").Follow("qdisc_sleeping", "Qdisc"), where)
}

func (s *search) qdisc(dev, q memory.Value, where string) {
	ops := q.Follow("ops", "Qdisc_ops")
	handle := q.Uint("handle")
	f := s.hold(ops.Uint("owner"), q.Address, unload.Holder{
		Kind: unload.HolderQdisc, Path: dev.Text("name"),
		Detail: fmt.Sprintf("qdisc %s %x:%s", ops.Text("id"), handle>>16, where),
	})
	if handle != 0 { // one that the kernel has put there by itself cannot be deleted
		f.freeBy(fmt.Sprintf("tc qdisc del dev %s %s%s", dev.Text("name"), placeOf(q, ops), where))
	}
	s.classifiers(dev, q, ops, where)
}

// Parents of qdiscs that are no classes (include/uapi/linux/pkt_sched.h, TC_H_ROOT and
// TC_H_INGRESS, which clsact has, too).
const atRoot, ingress = 0xffffffff, 0xfffffff1

// placeOf is where a qdisc is, as tc(8) takes it.
func placeOf(q, ops memory.Value) string {
	switch parent := q.Uint("parent"); parent {
	case atRoot:
		return "root"
	case ingress:
		return ops.Text("id")
	default:
		return fmt.Sprintf("parent %x:%x", parent>>16, parent&0xffff)
	}
}

// defaultQdisc is the name of a setting.
const defaultQdisc = "net.core.default_qdisc"

// newQdiscs are what new devices get (net/sched/sch_api.c, qdisc_set_default): one
// reference, for all namespaces. Which module that is says the list of all kinds of
// qdiscs, that of a loopback device being among the first.
func (s *search) newQdiscs() {
	net := s.Task().Follow("nsproxy", "nsproxy").Follow("net_ns", "net")
	b, err := os.ReadFile(s.path("proc/sys/net/core/default_qdisc"))
	if err != nil {
		return // the kernel schedules no packets, or this is a namespace that may not ask
	}
	name := strings.TrimSpace(string(b))
	first := net.Follow("loopback_dev", "net_device").Follow("qdisc", "Qdisc").Follow("ops", "Qdisc_ops")
	for _, ops := range s.Row(first, "next") {
		if ops.Text("id") == name {
			s.hold(ops.Uint("owner"), ops.Address, unload.Holder{Kind: unload.HolderQdisc, Path: defaultQdisc, Detail: "the default qdisc " + name})
		}
	}
}
