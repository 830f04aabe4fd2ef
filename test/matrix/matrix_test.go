// Package matrix boots each kernel of the lab's matrix and runs the scenarios
// in it.
package matrix

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/modtrace/modtrace/test/lab"
)

// machine makes a guest with modtrace and the modules that scenarios use.
func machine(t *testing.T, l *lab.Lab, k *lab.Kernel) lab.Machine {
	t.Helper()
	m := l.TestMachine(t, k)
	if err := l.AddModules(t.Context(), m.Initrd, k, modules(k)...); err != nil {
		t.Fatal(err)
	}
	if err := l.AddKmod(t.Context(), m.Initrd, k); err != nil {
		t.Fatal(err)
	}
	m.Timeout = 40 * time.Minute
	return m
}

// modules are those of the kernel's own that scenarios unload. Debian's arm64
// kernels have no emulated disks or sound cards.
func modules(k *lab.Kernel) []string {
	list := []string{"loop", "dummy", "tun", "zram"}
	if k.Series.Arch != "arm64" {
		list = append(list, "scsi_debug", "sd_mod", "snd-dummy")
	}
	return list
}

// heldModules are those that are brought into use and asked about. From 6.12 on,
// Debian's kernels have fuse built in; those for arm64 lack n_hdlc.
func heldModules(k *lab.Kernel) []string {
	list := []string{
		"tcp_bbr", "ppp_generic", "vhost_net", "can_raw", "romfs", "algif_hash",
		"sch_netem", "sch_prio", "sch_htb", "sch_ingress", "sch_fq", "cls_flower", "act_mirred", "ah4",
		"vsock_loopback", "tipc", "l2tp_ip", "xfrm_user", "sctp", "bridge", "veth",
		"nft_ct", "nft_limit", "nft_chain_nat", "nft_masq", "nft_compat", "xt_conntrack", "iptable_filter",
		"dm_crypt", "twofish_generic", "raid1", "btrfs", "nvme", "virtio_blk",
	}
	if !strings.HasSuffix(k.Series.Name, "-7") { // of which it is no module there
		list = append(list, "crc32c_generic")
	}
	if strings.HasSuffix(k.Series.Name, "-5.10") {
		list = append(list, "nft_counter", "bochs-drm")
	} else {
		list = append(list, "bochs", "tls")
	}
	if strings.HasSuffix(k.Series.Name, "-5.10") || strings.HasSuffix(k.Series.Name, "-6.1") { // later it is built in
		list = append(list, "ecb", "virtio_pci")
	}
	if k.Series.Arch != "arm64" {
		list = append(list, "n_hdlc")
	}
	if strings.HasSuffix(k.Series.Name, "-5.10") || strings.HasSuffix(k.Series.Name, "-6.1") {
		list = append(list, "fuse")
	}
	return list
}

// holders are the programs that bring modules into use.
func holders(k *lab.Kernel) map[string][]string {
	plugins := "/usr/lib/x86_64-linux-gnu/xtables/"
	if k.Series.Arch == "arm64" {
		plugins = "/usr/lib/aarch64-linux-gnu/xtables/"
	}
	return map[string][]string{
		"iproute2":    {"/usr/bin/ip", "/usr/sbin/tc"},
		"nftables":    {"/usr/sbin/nft"},
		"iptables":    {"/usr/sbin/iptables-nft", "/usr/sbin/iptables-legacy", plugins + "libxt_conntrack.so", plugins + "libxt_standard.so"},
		"dmsetup":     {"/usr/sbin/dmsetup"},
		"btrfs-progs": {"/usr/sbin/mkfs.btrfs"},
	}
}

func addTools(t *testing.T, l *lab.Lab, m lab.Machine, programs map[string][]string) {
	t.Helper()
	for pkg, paths := range programs {
		if err := l.AddTools(t.Context(), m.Initrd, m.Kernel, pkg, paths...); err != nil {
			t.Fatal(err)
		}
	}
}

// disk makes an empty disk.
func disk(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "disk")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Truncate(file, 1<<20)); err != nil {
		t.Fatal(err)
	}
	return file
}

const scenarios = "./test/scenarios"

// TestScenarios runs every scenario on every kernel of the matrix.
func TestScenarios(t *testing.T) {
	t.Parallel() // with the special boots: no processor waits for the last machine
	l := lab.ForTest(t)
	l.EachKernel(t, func(t *testing.T, k *lab.Kernel) {
		l.RunTests(t, machine(t, l, k), l.TestBinary(t, k, scenarios))
	})
}

// TestSpecialBoots runs the scenarios that want a boot of their own.
func TestSpecialBoots(t *testing.T) {
	t.Parallel()
	l := lab.ForTest(t)
	boots := []struct {
		what, test string
		kernelArgs []string
		disks      []string // by their kind
		devices    []string
		modules    func(*lab.Kernel) []string
		programs   func(*lab.Kernel) map[string][]string // by the package of Debian's that they are from
	}{
		{what: "lockdown", test: "TestLockedDown", kernelArgs: []string{"lockdown=confidentiality"}},
		{what: "modules_disabled", test: "TestModulesDisabled"},
		{what: "livepatch", test: "TestWhyLivepatch"},
		{what: "holders", test: "Test(Why|Refs)InTree", modules: heldModules, programs: holders, disks: []string{"nvme", "virtio-blk-pci"}, devices: []string{"bochs-display"}},
	}
	l.EachKernel(t, func(t *testing.T, k *lab.Kernel) {
		for _, b := range boots {
			t.Run(b.what, func(t *testing.T) {
				m := machine(t, l, k)
				m.KernelArgs = b.kernelArgs
				if b.modules != nil {
					if err := l.AddModules(t.Context(), m.Initrd, k, b.modules(k)...); err != nil {
						t.Fatal(err)
					}
				}
				if b.programs != nil {
					addTools(t, l, m, b.programs(k))
				}
				m.Devices = b.devices
				for _, device := range b.disks {
					m.Disks = append(m.Disks, lab.Disk{Device: device, File: disk(t)})
				}
				m.Env = []string{"MODTRACE_SPECIAL=" + b.what}
				m.Args = []string{"-test.run=^" + b.test + "$"}
				l.RunTests(t, m, l.TestBinary(t, k, scenarios))
			})
		}
	})
}
