package holders

import (
	"fmt"
	"slices"

	"github.com/modtrace/modtrace/memory"
	"github.com/modtrace/modtrace/unload"
)

func classifierTypes() []string {
	return []string{
		"Qdisc_class_ops", "Qdisc_class_hash", "Qdisc_class_common", "tcf_block", "tcf_block_owner_item", "tcf_chain", "tcf_proto", "tcf_proto_ops",
		"net_generic", "tc_action_net", "tcf_idrinfo", "tc_action", "tc_action_ops", "xa_node",
	}
}

// classifiers are those of a qdisc and of its classes. Where it keeps its blocks of them
// is its own affair; a block leads back to it (net/sched/cls_api.c, tcf_block_get_ext).
func (s *search) classifiers(dev, q, ops memory.Value, where string) {
	const most = 1 << 14 // bytes that a qdisc keeps
	size := int(ops.Uint("priv_size"))
	if ops.Follow("cl_ops", "Qdisc_class_ops").Uint("tcf_block") == 0 || size > most {
		return
	}
	private := s.Pointers(q.End(), size/8)
	on := "dev " + dev.Text("name") + " "
	at := on + fmt.Sprintf("parent %x:", q.Uint("handle")>>16)
	if q.Uint("parent") == ingress {
		at = on + "ingress"
		if ops.Text("id") == "clsact" {
			at = on + "ingress|egress" // each has a block of its own
		}
	}
	s.blocks(dev, q, private, place{at: at, where: where})
	for i := range private {
		for _, class := range s.classes(s.At("Qdisc_class_hash", q.End()+8*uint64(i))) {
			const most = 64 // pointers of a class: its block is among the first
			id := class.Uint("classid")
			name := fmt.Sprintf("%x:%x", id>>16, id&0xffff)
			s.blocks(dev, q, s.Pointers(class.Address, most), place{on + "parent " + name, ", class " + name, where})
		}
	}
}

// place is where classifiers are: as tc(8) takes it, in which class, and in which network
// namespace.
type place struct{ at, class, where string }

// blocks are those among some pointers.
func (s *search) blocks(dev, q memory.Value, pointers []uint64, in place) {
	slices.Sort(pointers)
	for _, at := range slices.Compact(pointers) {
		if inKernel(at) && s.Whether(func() bool { return s.isBlockOf(at, q) }) {
			s.block(dev, s.At("tcf_block", at), in)
		}
	}
}

// inKernel says whether an address can be one of the kernel's.
func inKernel(at uint64) bool { return at>>63 != 0 }

// classes are those that a table has, if it is one (include/net/sch_generic.h): its size
// is a power of two, and its mask fits.
func (s *search) classes(table memory.Value) (list []memory.Value) {
	const most = 1 << 16
	size := table.Uint("hashsize")
	if !inKernel(table.Uint("hash")) || size == 0 || size > most || size&(size-1) != 0 || table.Uint("hashmask") != size-1 || table.Uint("hashelems") == 0 {
		return nil
	}
	for _, first := range s.Pointers(table.Uint("hash"), int(size)) {
		list = append(list, s.Chain(first, "Qdisc_class_common", "hnode")...)
	}
	return list
}

func (s *search) isBlockOf(at uint64, q memory.Value) bool {
	block := s.At("tcf_block", at)
	if block.Uint("q") == q.Address {
		return true
	}
	// One that several qdiscs share lists them.
	if !s.IsList(block.Part("owner_list")) {
		return false
	}
	for _, owner := range s.List(block.Part("owner_list"), "tcf_block_owner_item", "list") {
		if owner.Uint("q") == q.Address {
			return true
		}
	}
	return false
}

// block is one of classifiers.
func (s *search) block(dev, block memory.Value, in place) {
	if index := block.Uint("index"); index != 0 { // interfaces share it
		in.at = fmt.Sprintf("block %d", index)
	}
	for _, chain := range s.List(block.Part("chain_list"), "tcf_chain", "list") {
		for _, proto := range s.Row(chain.Follow("filter_chain", "tcf_proto"), "next") {
			ops, preference := proto.Follow("ops", "tcf_proto_ops"), proto.Uint("prio")>>16
			s.hold(ops.Uint("owner"), proto.Address, unload.Holder{
				Kind: unload.HolderFilter, Path: dev.Text("name"),
				Detail: fmt.Sprintf("classifier %s, preference %d%s%s", ops.Text("kind"), preference, in.class, in.where),
			}).freeBy(fmt.Sprintf("tc filter del %s pref %d%s", in.at, preference, in.where))
		}
	}
}

// generic are the addresses of what subsystems keep for a namespace, by their numbers
// (include/net/netns/generic.h).
func (s *search) generic(net memory.Value) []uint64 {
	gen := net.Follow("gen", "net_generic")
	return s.Pointers(gen.Address, int(min(gen.Uint("s.len"), 1<<10)))
}

// actions are those of a namespace, of all kinds. What a kind of them keeps for it
// leads back (net/sched/act_api.c, tc_action_net_init).
func (s *search) actions(net memory.Value, where string) {
	for _, at := range s.generic(net) {
		if !inKernel(at) {
			continue
		}
		var info memory.Value
		if !s.Whether(func() bool {
			info = s.At("tc_action_net", at).Follow("idrinfo", "tcf_idrinfo")
			return info.Uint("net") == net.Address
		}) {
			continue
		}
		for _, entry := range s.entries(info.Uint("action_idr.idr_rt.xa_head")) {
			action := s.At("tc_action", entry)
			if action.Uint("idrinfo") != info.Address {
				continue // it is being made
			}
			ops := action.Follow("ops", "tc_action_ops")
			name := fmt.Sprintf("%s index %d%s", ops.Text("kind"), action.Uint("tcfa_index"), where)
			f := s.hold(ops.Uint("owner"), entry, unload.Holder{
				Kind: unload.HolderFilter, Path: ops.Text("kind"),
				Detail: fmt.Sprintf("action %s, index %d%s", ops.Text("kind"), action.Uint("tcfa_index"), where),
			})
			if action.Uint("tcfa_bindcnt.counter") > 0 {
				f.freeBy("tc filter del, for those filters that use action " + name)
			} else {
				f.freeBy("tc actions del action " + name)
			}
		}
	}
}

// entries are those of an XArray (include/linux/xarray.h): a node has 2 in its lowest
// bits.
func (s *search) entries(head uint64) (list []uint64) {
	const kind, node = 3, 2
	switch {
	case !inKernel(head):
	case head&kind == node:
		for _, slot := range s.At("xa_node", head-node).Numbers("slots") {
			if slot != head {
				list = append(list, s.entries(slot)...)
			}
		}
	case head&kind == 0:
		list = append(list, head)
	}
	return list
}
