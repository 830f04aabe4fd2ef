package holders

import (
	"fmt"

	"github.com/modtrace/modtrace/memory"
	"github.com/modtrace/modtrace/unload"
)

func classifierTypes() []string {
	return []string{
		"Qdisc_class_ops", "tcf_block", "tcf_block_owner_item", "tcf_chain", "tcf_proto", "tcf_proto_ops",
		"net_generic", "tc_action_net", "tcf_idrinfo", "tc_action", "tc_action_ops", "xa_node",
	}
}

// classifiers are those of a qdisc. Where it keeps its block of them is its own affair;
// the block leads back to it (net/sched/cls_api.c, tcf_block_get_ext).
func (s *search) classifiers(dev, q, ops memory.Value, where string) {
	const most = 1 << 14 // bytes that a qdisc keeps
	size := int(ops.Uint("priv_size"))
	if ops.Follow("cl_ops", "Qdisc_class_ops").Uint("tcf_block") == 0 || size > most {
		return
	}
	seen := map[uint64]bool{}
	for _, at := range s.Pointers(q.End(), size/8) {
		if at>>63 == 0 || seen[at] { // no address of the kernel's
			continue
		}
		seen[at] = true
		if s.Whether(func() bool { return s.isBlockOf(at, q) }) {
			s.block(dev, s.At("tcf_block", at), where)
		}
	}
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

func (s *search) block(dev, block memory.Value, where string) {
	for _, chain := range s.List(block.Part("chain_list"), "tcf_chain", "list") {
		for _, proto := range s.Row(chain.Follow("filter_chain", "tcf_proto"), "next") {
			ops := proto.Follow("ops", "tcf_proto_ops")
			s.hold(ops.Uint("owner"), proto.Address, unload.Holder{
				Kind: unload.HolderFilter, Path: dev.Text("name"),
				Detail: fmt.Sprintf("classifier %s, preference %d%s", ops.Text("kind"), proto.Uint("prio")>>16, where),
			})
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
		if at>>63 == 0 {
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
			s.hold(ops.Uint("owner"), entry, unload.Holder{
				Kind: unload.HolderFilter, Path: ops.Text("kind"),
				Detail: fmt.Sprintf("action %s, index %d%s", ops.Text("kind"), action.Uint("tcfa_index"), where),
			})
		}
	}
}

// entries are those of an XArray (include/linux/xarray.h): a node has 2 in its lowest
// bits.
func (s *search) entries(head uint64) (list []uint64) {
	const kind, node = 3, 2
	switch {
	case head>>63 == 0:
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
