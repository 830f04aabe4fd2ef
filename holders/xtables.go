package holders

import (
	"fmt"

	"github.com/modtrace/modtrace/memory"
	"github.com/modtrace/modtrace/unload"
)

// xtablesTypes are those of iptables before nftables (net/netfilter/x_tables.c).
func xtablesTypes() []describer {
	const called = "x_tables"
	return []describer{
		{called, called, []string{
			"xt_match", "xt_target", "xt_pernet", "xt_table", "xt_table_info", "xt_entry_match", "xt_entry_target",
		}},
		{"ip_tables", called, []string{"ipt_entry"}},
		{"ip6_tables", called, []string{"ip6t_entry"}},
		{"arp_tables", called, []string{"arpt_entry"}},
	}
}

// xtablesFamilies are the families of tables, what their tools are called, and the
// types of their rules.
func xtablesFamilies() map[int][2]string {
	return map[int][2]string{2: {"iptables", "ipt_entry"}, 3: {"arptables", "arpt_entry"}, 10: {"ip6tables", "ip6t_entry"}}
}

// xtables are the tables of a namespace.
func (s *search) xtables(net memory.Value, where string) {
	if !s.HasType("xt_pernet") {
		return
	}
	for _, at := range s.generic(net) {
		for family, known := range xtablesFamilies() {
			var list uint64
			if at>>63 == 0 || !s.HasType(known[1]) || !s.Whether(func() bool {
				const head = 16 // bytes, of each list
				list = s.At("xt_pernet", at).Part("tables") + uint64(family)*head
				return s.hasXtables(list, family)
			}) {
				continue
			}
			for _, table := range s.List(list, "xt_table", "list") {
				s.xtable(table, known[0]+" -t "+table.Text("name"), known[1], where)
			}
		}
	}
}

// hasXtables says whether it is a list of tables: each knows its family, and is of a
// module that is loaded.
func (s *search) hasXtables(list uint64, family int) bool {
	if !s.IsList(list) {
		return false
	}
	for _, table := range s.List(list, "xt_table", "list") {
		m, err := s.module(s.ownerName(table.Uint("me")))
		return table.Uint("af") == uint64(family) && err == nil && m.state != ""
	}
	return false
}

// xtable is one table. It holds the module that it is of once it has rules (net/ipv4/
// netfilter/ip_tables.c, __do_replace), and its rules hold their matches and targets.
func (s *search) xtable(table memory.Value, path, rules, where string) {
	info := table.Follow("private", "xt_table_info")
	held := func(owner, by uint64, detail string) {
		s.hold(owner, by, unload.Holder{Kind: unload.HolderFilter, Path: path, Detail: detail + where})
	}
	if info.Uint("number") > info.Uint("initial_entries") {
		held(table.Uint("me"), table.Address, "has rules")
	}
	end := info.End() + min(info.Uint("size"), 1<<30)
	for at, n := info.End(), 1; at < end; n++ {
		rule := s.At(rules, at)
		last := at + rule.Uint("target_offset")
		for m := rule.End(); m < last; {
			match := s.At("xt_entry_match", m)
			x := match.Follow("u.kernel.match", "xt_match")
			held(x.Uint("me"), m, fmt.Sprintf("rule %d: match %s", n, x.Text("name")))
			if m += match.Uint("u.match_size"); match.Uint("u.match_size") == 0 {
				s.Torn = true
				return
			}
		}
		x := s.At("xt_entry_target", last).Follow("u.kernel.target", "xt_target")
		held(x.Uint("me"), last, fmt.Sprintf("rule %d: target %s", n, x.Text("name")))
		size := rule.Uint("next_offset")
		if size == 0 {
			s.Torn = true
			return
		}
		at += size
	}
}
