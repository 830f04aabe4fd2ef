package scenarios

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/modtrace/modtrace/unload"
)

// heldByFilters are modules that rules of netfilter hold.
func heldByFilters(series string) []heldInTree {
	rules := []string{"nft_ct", "nft_limit", "nft_chain_nat", "nft_masq"}
	list := []heldInTree{
		{module: "nft_ct", loads: rules, use: useRules, refs: 1, kind: unload.HolderFilter, path: "inet lab", detail: "chain input, rule 3: ct", typed: 1},
		{module: "nft_limit", loads: rules, use: useRules, refs: 1, kind: unload.HolderFilter, path: "inet lab", detail: "chain input, rule 4: limit", typed: 1},
		{module: "nft_limit", loads: rules, use: elsewhere(useRules), refs: 1, kind: unload.HolderFilter, path: "inet lab", detail: "in network namespace 40", typed: 1},
		{module: "nft_chain_nat", loads: rules, use: useRules, refs: 1, kind: unload.HolderFilter, path: "inet lab", detail: "chain out: type nat", typed: 1},
		{module: "nft_masq", loads: rules, use: useRules, refs: 1, kind: unload.HolderFilter, path: "inet lab", detail: "chain out, rule 5: masq", typed: 1},
		// Four modules need it, and its own expressions are in four rules.
		{module: "nf_tables", loads: rules, use: useRules, refs: 10, kind: unload.HolderFilter, path: "inet lab", detail: "chain input, rule 3: bitwise, cmp, immediate", typed: 6},
		{module: "nf_conntrack", loads: rules, use: useRules, refs: 3, kind: unload.HolderModule},
		{module: "nft_compat", loads: []string{"nft_compat", "xt_conntrack"}, use: useIptables("iptables-nft"), refs: 1, kind: unload.HolderFilter, path: "ip filter", detail: "chain INPUT, rule", typed: 1},
		{module: "xt_conntrack", loads: []string{"nft_compat", "xt_conntrack"}, use: useIptables("iptables-nft"), refs: 1, kind: unload.HolderFilter, path: "ip filter", detail: "match conntrack", typed: 1},
		{module: "xt_conntrack", loads: []string{"iptable_filter", "xt_conntrack"}, use: useIptables("iptables-legacy"), refs: 1, kind: unload.HolderFilter, path: "iptables -t filter", detail: "rule 1: match conntrack", typed: 1},
		{module: "iptable_filter", loads: []string{"iptable_filter", "xt_conntrack"}, use: useIptables("iptables-legacy"), refs: 1, kind: unload.HolderFilter, path: "iptables -t filter", detail: "has rules", typed: 1},
	}
	if !strings.HasSuffix(series, "-5.10") {
		// Each element of the set counts for itself, and is in what only its kind of set knows.
		list = append(list, heldInTree{
			module: "nf_tables", use: useSet, refs: 3, kind: unload.HolderFilter, path: "ip lab", detail: "set seen: counter",
			unexplained: 2, missing: "what the elements of set seen in ip lab hold",
		})
	}
	return list
}

// nft gives nft(8) what to do. The table goes with the test, or with its namespace.
func nft(t *testing.T, family, rules string) {
	t.Helper()
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader("table " + family + " lab {\n" + rules + "\n}\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("nft: %v: %s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("nft", "delete", "table", family, "lab").Run() })
}

func useRules(t *testing.T) {
	nft(t, "inet", `
		chain input {
			type filter hook input priority 0;
			ct state established accept
			limit rate 10/second accept
		}
		chain out {
			type nat hook postrouting priority 100;
			meta mark 1 masquerade
		}`)
}

func useSet(t *testing.T) {
	nft(t, "ip", "set seen { type ipv4_addr; counter; elements = { 10.0.0.1, 10.0.0.2 } }")
}

// useIptables has a rule that asks for the state of a connection, by one of the two
// programs of that name.
func useIptables(program string) func(*testing.T) {
	return func(t *testing.T) {
		rule := []string{"INPUT", "-m", "conntrack", "--ctstate", "NEW", "-j", "ACCEPT"}
		must(t, append([]string{program, "-A"}, rule...)...)
		t.Cleanup(func() {
			must(t, append([]string{program, "-D"}, rule...)...)
			_ = exec.Command("nft", "delete", "table", "ip", "filter").Run() // there is none of the old kind
		})
	}
}
