package holders

import (
	"fmt"

	"github.com/modtrace/modtrace/memory"
	"github.com/modtrace/modtrace/unload"
)

// netfilterTypes are those of modules (net/netfilter/nf_tables_api.c, x_tables.c), if
// they are loaded.
func netfilterTypes() []describer {
	tables := []string{
		"nftables_pernet", "nft_table", "nft_chain", "nft_base_chain", "nft_chain_type", "nft_rule",
		"nft_expr_ops", "nft_expr_type", "nft_set", "nft_object", "nft_object_ops", "nft_object_type",
		"nft_flowtable", "nf_flowtable_type",
	}
	return []describer{
		{"nf_tables", "nf_tables", tables},
		{"nf_tables", "x_tables", tables}, // by nft_compat
	}
}

// tables are those of nftables in a namespace. Which of what subsystems keep for it
// that is shows where it leads back.
func (s *search) tables(net memory.Value, where string) {
	if !s.HasType("nftables_pernet") {
		return
	}
	for _, at := range s.generic(net) {
		if at>>63 == 0 || !s.Whether(func() bool { return s.hasTables(at) }) {
			continue
		}
		for _, table := range s.List(s.At("nftables_pernet", at).Part("tables"), "nft_table", "list") {
			s.table(table, where)
		}
	}
}

// hasTables says whether something is a list of tables, whose first has something in
// it that knows its table.
func (s *search) hasTables(at uint64) bool {
	head := s.At("nftables_pernet", at).Part("tables")
	if !s.IsList(head) {
		return false
	}
	for _, table := range s.List(head, "nft_table", "list") {
		for _, of := range [][3]string{
			{"chains", "nft_chain", "table"}, {"objects", "nft_object", "key.table"},
			{"sets", "nft_set", "table"}, {"flowtables", "nft_flowtable", "table"},
		} {
			if !s.IsList(table.Part(of[0])) {
				return false
			}
			for _, inside := range s.List(table.Part(of[0]), of[1], "list") {
				return inside.Uint(of[2]) == table.Address
			}
		}
	}
	return false
}

// families are those of tables, as nft(8) calls them (include/uapi/linux/netfilter.h).
func families() map[uint64]string {
	return map[uint64]string{1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
}

// holds notes that something in a table holds a module.
type holds func(owner, by uint64, detail string) *found

func (s *search) table(table memory.Value, where string) {
	path := families()[table.Uint("family")] + " " + s.Text(table.Uint("name"), 64)
	held := func(owner, by uint64, detail string) *found {
		return s.hold(owner, by, unload.Holder{Kind: unload.HolderFilter, Path: path, Detail: detail + where})
	}
	for _, chain := range s.List(table.Part("chains"), "nft_chain", "list") {
		s.chain(chain, held)
	}
	for _, object := range s.List(table.Part("objects"), "nft_object", "list") {
		typ := object.Follow("ops", "nft_object_ops").Follow("type", "nft_object_type")
		held(typ.Uint("owner"), object.Address, "object "+s.Text(object.Uint("key.name"), 64))
	}
	for _, set := range s.List(table.Part("sets"), "nft_set", "list") {
		s.set(set, path, held)
	}
	for _, flow := range s.List(table.Part("flowtables"), "nft_flowtable", "list") {
		typ := flow.Follow("data.type", "nf_flowtable_type")
		held(typ.Uint("owner"), flow.Address, "flowtable "+s.Text(flow.Uint("name"), 64))
	}
}

// set has expressions of which each of its elements gets one too. Where those are,
// each kind of set knows by itself.
func (s *search) set(set memory.Value, table string, held holds) {
	name := s.Text(set.Uint("name"), 64)
	for _, at := range set.Numbers("exprs") {
		if s.expression(at, "set "+name, held) > 0 {
			s.unseen = append(s.unseen, fmt.Sprintf("what the elements of set %s in %s hold", name, table))
		}
	}
}

func (s *search) chain(chain memory.Value, held holds) {
	name := "chain " + s.Text(chain.Uint("name"), 64)
	const isBase = 1 // NFT_CHAIN_BASE
	if chain.Uint("flags")&isBase != 0 {
		typ := s.Around("nft_base_chain", "chain", chain.Address).Follow("type", "nft_chain_type")
		held(typ.Uint("owner"), chain.Address, name).note("type " + s.Text(typ.Uint("name"), 32))
	}
	for _, rule := range s.List(chain.Part("rules"), "nft_rule", "list") {
		place := fmt.Sprintf("%s, rule %d", name, rule.Uint("handle"))
		end := rule.End() + rule.Uint("dlen")
		for at := rule.End(); at < end; {
			size := s.expression(at, place, held)
			if size == 0 {
				s.Torn = true
				break
			}
			at += size
		}
	}
}

// expression is one of a rule's (include/net/netfilter/nf_tables.h, struct nft_expr).
// That which stands for a match or target of iptables holds that too
// (net/netfilter/nft_compat.c).
func (s *search) expression(at uint64, place string, held holds) (size uint64) {
	if at == 0 {
		return 0
	}
	ops := s.At("nft_expr_ops", s.Pointers(at, 1)[0])
	typ := ops.Follow("type", "nft_expr_type")
	name := s.Text(typ.Uint("name"), 32)
	held(typ.Uint("owner"), at, place).note(name)
	if (name == "match" || name == "target") && s.HasType("xt_"+name) {
		x := ops.Follow("data", "xt_"+name)
		held(x.Uint("me"), at, place).note(name + " " + x.Text("name"))
	}
	return ops.Uint("size")
}
