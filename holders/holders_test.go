package holders

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"github.com/modtrace/modtrace/bpf"
	"github.com/modtrace/modtrace/unload"
)

// machine makes a root directory of the given files.
func machine(t *testing.T, files map[string]string) root {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		target, isLink := strings.CutPrefix(text, "-> ")
		var err error
		if isLink {
			err = os.Symlink(target, path)
		} else {
			err = os.WriteFile(path, []byte(text), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root(dir)
}

// loadedModules are a chain of three modules, one that holds itself, one that has
// no exit function, one built in, one coming.
func loadedModules() map[string]string {
	files := map[string]string{
		"sys/module/base/holders/left":    "",
		"sys/module/base/holders/right":   "",
		"sys/module/left/holders/top":     "",
		"sys/module/right/holders/top":    "",
		"sys/module/printk/parameters/ok": "",
		"proc/modules":                    "stuck 16384 0 [permanent], Live 0x0\nbase 16384 2 left,right, Live 0x0\nfree 1 0 - Live 0x0\n",
	}
	for name, count := range map[string]string{"base": "2", "left": "1", "right": "1", "top": "0", "free": "0", "stuck": "0"} {
		files["sys/module/"+name+"/initstate"] = "live\n"
		files["sys/module/"+name+"/refcnt"] = count + "\n"
	}
	files["sys/module/coming/initstate"] = "coming\n"
	files["sys/module/uncounted/initstate"] = "live\n"
	return files
}

func TestWhy(t *testing.T) {
	f := &Finder{root: machine(t, loadedModules())}
	for _, want := range []unload.Why{
		{Module: "free", State: "live", Unloadable: true, Reason: unload.ReasonNone, Plan: []string{"free"}},
		{Module: "stuck", State: "live", Reason: unload.ReasonNoExit, Plan: []string{"stuck"}},
		{Module: "printk", State: "built_in", Reason: unload.ReasonBuiltIn},
		{Module: "coming", State: "coming", Reason: unload.ReasonLoading, Plan: []string{"coming"}},
		{Module: "uncounted", State: "live", Reason: unload.ReasonNoUnload, Plan: []string{"uncounted"}},
		{Module: "rigth", Reason: unload.ReasonNotFound},
		{Module: "base", State: "live", Refcount: 2, Explained: 2, Reason: unload.ReasonDependents,
			Dependents: []string{"top", "left", "right"}, Plan: []string{"top", "left", "right", "base"}},
	} {
		f.Unable, f.kernel = nil, &kernel{}
		m, err := f.module(want.Module)
		if err != nil {
			t.Fatal(err)
		}
		got, err := f.why(m, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		ignore := cmpopts.IgnoreFields(unload.Why{}, "Type", "Time", "Holders", "Hazards", "Advice", "Similar", "Missing")
		if diff := cmp.Diff(want, got, ignore, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", want.Module, diff)
		}
		if want.Module == "rigth" && (len(got.Similar) == 0 || got.Similar[0] != "right") {
			t.Errorf("like rigth are %q", got.Similar)
		}
	}
}

// TestBuiltIn tells what is built in from what has no state yet.
func TestBuiltIn(t *testing.T) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	r := machine(t, map[string]string{
		"lib/modules/" + unix.ByteSliceToString(u.Release[:]) + "/modules.builtin": "kernel/fs/ext4/ext4.ko\nkernel/lib/built-in.ko\n",
		"sys/module/built_in/parameters/a":                                         "",
		"sys/module/slow/parameters/a":                                             "",
	})
	began := time.Now()
	if m, err := r.module("built_in"); err != nil || m.state != builtIn || time.Since(began) > 100*time.Millisecond {
		t.Errorf("built_in, after %v: %+v, %v", time.Since(began), m, err)
	}
	time.AfterFunc(150*time.Millisecond, func() {
		if err := os.WriteFile(r.path("sys/module/slow/initstate"), []byte("coming\n"), 0o600); err != nil {
			t.Error(err)
		}
	})
	if m, err := r.module("slow"); err != nil || m.state != "coming" {
		t.Errorf("slow: %+v, %v", m, err)
	}
}

func TestNames(t *testing.T) {
	for word, want := range map[string]string{
		"snd-pcm": "snd_pcm", "/lib/modules/x/snd-pcm.ko.xz": "snd_pcm", "tun.ko": "tun", "a": "a",
		"": "", ".": "", "..": "", "a b": "", "a\nb": "", "ä": "", strings.Repeat("x", 56): "", "dir/": "dir",
	} {
		got, err := Name(word)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", word, got, err)
		}
	}
}

// TestAccount gives each reference to one holder, and names all who share it.
func TestAccount(t *testing.T) {
	r := machine(t, map[string]string{
		"proc/10/task/10/fd/3": "-> /dev/net/tun",
		"proc/10/task/10/fd/4": "-> /dev/net/tun",
		"proc/10/cgroup":       "0::/docker-" + strings.Repeat("ab", 32) + ".scope\n",
		"proc/11/task/11/fd/3": "-> /dev/net/tun",
		"proc/13/task/13/fd/3": "-> /dev/net/tun",
		"proc/20/mountinfo":    "21 1 7:0 / /mnt/a\\040b rw - ext4 /dev/loop0 rw\n",
		"proc/20/ns/mnt":       "-> mnt:[4026531840]",
		"proc/20/comm":         "sleep\n",
	})
	name := func(s string) (n [32]uint8) { copy(n[:], s); return }
	file, protocol, super := uint32(bpf.HoldersWayWAY_FILE), uint32(bpf.HoldersWayWAY_PROTOCOL), uint32(bpf.HoldersWayWAY_SUPERBLOCK)
	a := newAccount(r, []string{"tun", "ext4"})
	a.self = 13
	a.add([]bpf.HoldersHolding{
		{Pid: 13, Tid: 13, Descriptor: 3, File: 1, Object: 1, Way: file}, // given by process 10
		{Pid: 10, Tid: 10, Descriptor: 3, File: 1, Object: 1, Way: file},
		{Pid: 10, Tid: 10, Descriptor: 3, File: 1, Object: 2, Way: protocol, Name: name("tun"), Family: 0},
		{Pid: 10, Tid: 10, Descriptor: 4, File: 1, Object: 1, Way: file},
		{Pid: 11, Tid: 11, Descriptor: 3, File: 1, Object: 1, Way: file},
		{Pid: 12, Tid: 12, Descriptor: 3, File: 5, Object: 5, Way: file}, // gone by now
		{Object: 9, Way: super, Via: uint32(bpf.HoldersViaVIA_LIST), Device: 7 << 20, Target: 1, Name: name("ext4")},
		{Object: 8, Way: super, Via: uint32(bpf.HoldersViaVIA_LIST), Device: 9, Target: 1, Name: name("ext4")},
	})
	id := strings.Repeat("ab", 32)
	want := []unload.Holder{
		{Kind: unload.HolderFD, Refs: 2, PID: 10, FD: 3, Path: "/dev/net/tun", Cgroup: "/docker-" + id + ".scope", Container: id,
			Detail: "protocol tun, also as descriptor 4", Confidence: unload.ByOwner},
		{Kind: unload.HolderFD, PID: 11, FD: 3, Path: "/dev/net/tun", Detail: "shared with another process", Confidence: unload.ByOwner},
	}
	if diff := cmp.Diff(want, a.of(0), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("tun (-want +got):\n%s", diff)
	}
	if !a.gone {
		t.Error("nothing was gone")
	}
	want = []unload.Holder{
		{Kind: unload.HolderMount, Refs: 1, PID: 20, Comm: "sleep", FD: -1, Path: "/mnt/a b", MountNS: 4026531840, Detail: "ext4", Confidence: unload.ByOwner},
		{Kind: unload.HolderMount, Refs: 1, FD: -1, Detail: "file system 0:9, mounted where no process is, ext4", Confidence: unload.ByOwner},
	}
	if diff := cmp.Diff(want, a.of(1), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("ext4 (-want +got):\n%s", diff)
	}
}

func TestContainers(t *testing.T) {
	id := strings.Repeat("0123456789abcdef", 4)
	for cgroup, want := range map[string]string{
		"/system.slice/docker-" + id + ".scope":                      id,
		"/docker/" + id:                                              id,
		"/kubepods.slice/pod1.slice/cri-containerd-" + id + ".scope": id,
		"/machine.slice/libpod-" + id + ".scope/container":           id,
		"/lxc.payload.web/init.scope":                                "web",
		"/machine.slice/systemd-nspawn@build.service/payload":        "build",
		"/user.slice/user-1000.slice/session-1.scope":                "",
		"/system.slice/x-" + id[:63] + ".scope":                      "",
		"/":                                                          "",
	} {
		if got := containerOf(cgroup); got != want {
			t.Errorf("%s: %q, want %q", cgroup, got, want)
		}
	}
}

// TestHazards finds what would go wrong with a module that nobody holds (S12).
func TestHazards(t *testing.T) {
	r := machine(t, map[string]string{
		"sys/class/net/eth0/flags":                              "0x1003\n",
		"sys/class/net/eth0/device/driver/module":               "-> ../../../module/e1000e",
		"sys/class/net/eth1/flags":                              "0x1002\n",
		"sys/class/net/eth1/device/driver/module":               "-> ../../../module/e1000e",
		"sys/module/e1000e/drivers/pci:e1000e/0000:00/modalias": "pci:v8086",
		"etc/modules-load.d/net.conf":                           "# net\ne1000e\n",
		"etc/modules":                                           "loop\n",
	})
	want := []string{
		"interface eth0, which is up, would go",
		"device 0000:00 would lose its driver, and may have it loaded again",
		string(r) + "/etc/modules-load.d/net.conf loads it again at the next boot",
	}
	if diff := cmp.Diff(want, r.hazards("e1000e")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	disk := machine(t, map[string]string{
		"sys/devices/pci/0000:01/driver":             "-> ../../../bus/pci/drivers/nvme",
		"sys/devices/pci/0000:01/nvme0/nvme0n1/dev":  "259:1\n",
		"sys/devices/pci/0000:01x/nvme9/nvme9n1/dev": "259:2\n",
		"sys/class/block/nvme0n1":                    "-> ../../devices/pci/0000:01/nvme0/nvme0n1",
		"sys/class/block/nvme9n1":                    "-> ../../devices/pci/0000:01x/nvme9/nvme9n1",
		"sys/module/nvme/drivers/pci:nvme/0000:01":   "-> ../../../../devices/pci/0000:01",
		"sys/bus/pci/drivers/nvme/bind":              "",
		"proc/1/ns/mnt":                              "-> mnt:[4026531841]",
		"proc/1/mountinfo":                           "21 1 259:1 / / rw - ext4 /dev/nvme0n1 rw\n22 21 259:2 / /data rw - ext4 /dev/nvme9n1 rw\n",
	})
	if got := disk.hazards("nvme"); !slices.Equal(got, []string{"disk nvme0n1, which is mounted at /, would go"}) {
		t.Errorf("of nvme: %q", got)
	}
	if got := r.hazards("tun"); len(got) != 0 {
		t.Errorf("of tun: %q", got)
	}
}

func TestQuoted(t *testing.T) {
	for word, want := range map[string]string{"/mnt": "/mnt", "/a b": "'/a b'", "it's": `'it'\''s'`} {
		if got := quoted(word); got != want {
			t.Errorf("%q: %s", word, got)
		}
	}
}
