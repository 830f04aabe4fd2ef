package output

import "github.com/modtrace/modtrace/unload"

// held is a module that was asked about.
type held struct {
	name string
	unload.Why
}

// helds are the answers that there are.
func helds() []held {
	qemu := unload.Holder{Kind: unload.HolderFD, Refs: 2, PID: 154, Comm: "qemu-system-x86", FD: 27, Path: "/dev/net/tun",
		Cgroup: "/machine.slice/machine-qemu.scope", Detail: "protocol tun", Confidence: unload.ByOwner}
	other := qemu
	other.Refs, other.FD, other.Path, other.Detail = 0, 28, "/dev/net/tun", "shared with another process"
	contained := unload.Holder{Kind: unload.HolderMount, Refs: 1, PID: 4711, Comm: "sleep", FD: -1, Path: "/mnt/with blank", MountNS: 4026532240,
		Detail: "xfs", Container: "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
		Cgroup: "/docker-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.scope"}
	module := unload.Holder{Kind: unload.HolderModule, Refs: 1, Module: "nf_nat", FD: -1}
	list := []held{
		{"why-file", unload.Why{Module: "tun", State: "live", Refcount: 2, Explained: 2, Reason: unload.ReasonReferenced,
			Holders: []unload.Holder{qemu, other}, Plan: []string{"tun"},
			Advice: []string{"have process 154 (qemu-system-x86) close /dev/net/tun, or end it"}}},
		{"why-mixed", unload.Why{Module: "nf_conntrack", State: "live", Refcount: 5, Explained: 4, Unexplained: 1, Reason: unload.ReasonDependents,
			Holders: []unload.Holder{module, contained, qemu}, Dependents: []string{"nft_masq", "nf_nat"}, Plan: []string{"nft_masq", "nf_nat", "nf_conntrack"},
			Advice:  []string{"nsenter -t 4711 -m umount /mnt/with blank", "unload in this order: nft_masq, nf_nat, nf_conntrack"},
			Missing: []string{"files that are mapped and not open: not in this kernel"}}},
		{"why-unexplained", unload.Why{Module: "leak", State: "live", Refcount: 3, Unexplained: 3, Reason: unload.ReasonReferenced, Plan: []string{"leak"}}},
		{"why-free", unload.Why{Module: "dummy", State: "live", Unloadable: true, Reason: unload.ReasonNone, Plan: []string{"dummy"}}},
		{"why-hazards", unload.Why{Module: "e1000e", State: "live", Unloadable: true, Reason: unload.ReasonNone, Plan: []string{"e1000e"},
			Hazards: []string{"interface eth0, which is up, would go", "/etc/modules-load.d/net.conf loads it again at the next boot"}}},
		{"why-missing", unload.Why{Module: "tnu", Reason: unload.ReasonNotFound, Similar: []string{"tun", "tap"}}},
		{"why-hostile", unload.Why{Module: nasty, State: nasty, Refcount: -1, Explained: 7, Unexplained: -8, Reason: nasty,
			Holders:    []unload.Holder{{Kind: nasty, Refs: -1, Module: nasty, PID: -1, Comm: nasty, Cgroup: nasty, Container: nasty, Path: nasty, Detail: nasty}},
			Dependents: []string{nasty}, Plan: []string{nasty}, Hazards: []string{nasty}, Advice: []string{nasty}, Similar: []string{nasty}, Missing: []string{nasty}}},
	}
	crowd := held{"why-crowd", unload.Why{Module: "tun", State: "live", Refcount: 50, Explained: 50, Reason: unload.ReasonReferenced}}
	for i := range 25 {
		h := qemu
		h.PID, h.FD = 100+i, i
		crowd.Holders = append(crowd.Holders, h)
	}
	list = append(list, crowd)
	for _, r := range []unload.Reason{
		unload.ReasonBuiltIn, unload.ReasonNoExit, unload.ReasonNoUnload, unload.ReasonModulesDisabled, unload.ReasonLoading, unload.ReasonUnloading,
	} {
		list = append(list, held{"why-" + string(r), unload.Why{Module: "ext4", State: "live", Reason: r, Advice: []string{"only a reboot removes it"}}})
	}
	return list
}
