// Package matrix boots each kernel of the lab's matrix and runs the scenarios
// in it.
package matrix

import (
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
	m.Timeout = 20 * time.Minute
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
	list := []string{"tcp_bbr", "ppp_generic", "vhost_net", "can_raw", "romfs", "algif_hash", "sch_netem", "sch_prio", "sch_ingress", "sch_fq"}
	if k.Series.Arch != "arm64" {
		list = append(list, "n_hdlc")
	}
	if strings.HasSuffix(k.Series.Name, "-5.10") || strings.HasSuffix(k.Series.Name, "-6.1") {
		list = append(list, "fuse")
	}
	return list
}

const scenarios = "./test/scenarios"

// TestScenarios runs every scenario on every kernel of the matrix.
func TestScenarios(t *testing.T) {
	l := lab.ForTest(t)
	l.EachKernel(t, func(t *testing.T, k *lab.Kernel) {
		l.RunTests(t, machine(t, l, k), l.TestBinary(t, k, scenarios))
	})
}

// TestSpecialBoots runs the scenarios that want a boot of their own.
func TestSpecialBoots(t *testing.T) {
	l := lab.ForTest(t)
	boots := []struct {
		what, test string
		kernelArgs []string
		modules    func(*lab.Kernel) []string
		programs   map[string][]string // by the package of Debian's that they are from
	}{
		{what: "lockdown", test: "TestLockedDown", kernelArgs: []string{"lockdown=confidentiality"}},
		{what: "modules_disabled", test: "TestModulesDisabled"},
		{what: "holders", test: "TestWhyInTree", modules: heldModules, programs: map[string][]string{
			"iproute2": {"/usr/bin/ip", "/usr/sbin/tc"},
		}},
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
				for pkg, programs := range b.programs {
					if err := l.AddTools(t.Context(), m.Initrd, k, pkg, programs...); err != nil {
						t.Fatal(err)
					}
				}
				m.Env = []string{"MODTRACE_SPECIAL=" + b.what}
				m.Args = []string{"-test.run=^" + b.test + "$"}
				l.RunTests(t, m, l.TestBinary(t, k, scenarios))
			})
		}
	})
}
