package holders

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/modtrace/modtrace/unload"
)

func tree(t *testing.T, files map[string]string) root {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root(dir)
}

// TestListed finds what the kernel lists in files: users of algorithms, of which the
// algorithm itself is none, and livepatches.
func TestListed(t *testing.T) {
	s := &search{names: []string{"crc32c_intel", "twofish", "fix"}, root: tree(t, map[string]string{
		"proc/crypto": "name         : crc32c\ndriver       : crc32c-intel\nmodule       : crc32c_intel\nrefcnt       : 3\n\n" +
			"name         : twofish\ndriver       : twofish-generic\nmodule       : twofish\nrefcnt       : 1\n\n" +
			"name         : sha1\ndriver       : sha1-generic\nmodule       : kernel\nrefcnt       : 9\n\n",
		"sys/kernel/livepatch/fix/enabled":         "1\n",
		"sys/kernel/livepatch/fix/vmlinux/patched": "1\n",
	})}
	s.algorithms()
	s.patches()
	got := []found{}
	for _, f := range s.found {
		got = append(got, *f)
	}
	want := []found{
		{target: 0, Holder: unload.Holder{
			Kind: unload.HolderCrypto, Refs: 2, FD: -1, Path: "crc32c", Stack: []string{}, Confidence: unload.ByRelation,
			Detail: "in use as crc32c-intel inside the kernel or by a socket",
		}},
		{target: 2, Holder: unload.Holder{
			Kind: unload.HolderLivepatch, Refs: 1, FD: -1, Path: "/sys/kernel/livepatch/fix", Stack: []string{},
			Confidence: unload.ByRelation, Detail: "enabled, for vmlinux",
		}},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(found{})); diff != "" {
		t.Error(diff)
	}
}

// TestWithin takes a module's memory for what it is.
func TestWithin(t *testing.T) {
	spans := []span{{0x1000, 0x2000}, {0x5000, 0x5010}}
	for address, want := range map[uint64]bool{0: false, 0xfff: false, 0x1000: true, 0x1fff: true, 0x2000: false, 0x500f: true} {
		if within(spans, address) != want {
			t.Errorf("%#x: %v", address, !want)
		}
	}
}

// TestStepForKernel says how to free what no process holds.
func TestStepForKernel(t *testing.T) {
	for _, test := range []struct {
		holder unload.Holder
		want   string
	}{
		{unload.Holder{Kind: unload.HolderSelf, Path: "/dev/loop0"}, "losetup -d /dev/loop0"},
		{unload.Holder{Kind: unload.HolderSelf, Path: "/dev/dm-0"}, "dmsetup remove /dev/dm-0"},
		{unload.Holder{Kind: unload.HolderSwap, Path: "/dev/zram0"}, "swapoff /dev/zram0"},
		{unload.Holder{Kind: unload.HolderQdisc, Path: "eth0.7"}, ""},
		{unload.Holder{Kind: unload.HolderQdisc, Path: defaultQdisc}, "sysctl -w net.core.default_qdisc=pfifo_fast, or another one"},
		{unload.Holder{Kind: unload.HolderCrypto, Path: "crc32c"}, ""},
	} {
		if got := stepFor(test.holder); got != test.want {
			t.Errorf("%+v: %q, want %q", test.holder, got, test.want)
		}
	}
}
