package scenarios

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"github.com/modtrace/modtrace/unload"
)

// heldInside are modules that disks, file systems, algorithms and BPF programs hold.
func heldInside(series string) []heldInTree {
	crypt := []string{"zram", "dm_crypt", "twofish_generic"}
	list := []heldInTree{
		{module: "dm_mod", loads: []string{"zram", "dm_mod"}, use: useLinear, refs: 2, kind: unload.HolderSelf, path: "/dev/dm-0", detail: "for the device of lab", typed: 1},
		{module: "dm_crypt", loads: crypt, use: useCrypt, refs: 1, kind: unload.HolderBlock, path: "/dev/dm-0", detail: "target crypt of lab", typed: 1},
		{module: "raid1", loads: []string{"zram", "raid1"}, use: useRAID, refs: 1, kind: unload.HolderBlock, path: "/dev/md_lab", detail: "its RAID level", typed: 1},
		{module: "twofish_generic", loads: crypt, use: useCrypt, refs: 1, kind: unload.HolderCrypto, path: "twofish", detail: "in use as twofish-generic"},
		{module: "btrfs", loads: []string{"zram", "btrfs"}, use: useBtrfs, refs: 1, kind: unload.HolderMount, path: "/tmp/btrfs", detail: "btrfs"},
	}
	nvme := func(t *testing.T) { mounted(t, "/dev/nvme0n1") }
	list = append(list,
		heldInTree{module: "nvme", use: nvme, refs: 1, kind: unload.HolderBlock, path: "/dev/nvme0n1", detail: "a disk of its controller", typed: 1},
		heldInTree{module: "nvme_core", loads: []string{"nvme"}, use: nvme, refs: 2, kind: unload.HolderMount, path: "/tmp/disk", detail: "its disk"},
	)
	list = append(list, heldInTree{module: "tipc", use: useEvent, refs: 2, kind: unload.HolderTracer, path: "anon_inode:[perf_event]", detail: "perf event on a tracepoint of it"})
	list = append(list, heldInTree{module: "tipc", use: useRawTracepoint, refs: 1, kind: unload.HolderBPF, path: "lab_point", detail: "is attached to a tracepoint of it"})
	if !strings.HasPrefix(series, "arm64") { // of which Debian has none there
		// 7.3's second host of a boot gets no disks: a workqueue of the first is left behind.
		stays := strings.HasSuffix(series, "-7")
		list = append(list, heldInTree{module: "scsi_debug", stays: stays, loads: []string{"sd_mod", "scsi_debug"}, use: useDisk, refs: 1, kind: unload.HolderBlock, path: "/dev/sd", detail: "a disk of its host adapter", typed: 1})
	}
	if !strings.HasSuffix(series, "-5.10") { // where BPF knows no functions of modules
		list = append(list, heldInTree{module: "dummy", use: useFentry, refs: 1, kind: unload.HolderBPF, path: "lab_entry", detail: "function of it"})
	}
	if series == "amd64-6.12" || series == "amd64-7" { // Debian builds that for none before, nor for arm64
		list = append(list, heldInTree{module: "dummy", use: useKprobeMulti, refs: 1, kind: unload.HolderBPF, path: "lab_multi", detail: "is attached to functions of it"})
	}
	return list
}

// zram gives a disk of that size.
func zram(t *testing.T, size string) {
	t.Helper()
	if err := os.WriteFile("/sys/block/zram0/disksize", []byte(size), 0); err != nil {
		t.Fatal(err)
	}
}

func mapped(t *testing.T, table string) {
	t.Helper()
	zram(t, "16M")
	must(t, "dmsetup", "create", "lab", "--noudevsync", "--noudevrules", "--table", table)
	t.Cleanup(func() { must(t, "dmsetup", "remove", "lab", "--noudevsync", "--noudevrules", "--retry") })
}

func useLinear(t *testing.T) { mapped(t, "0 8192 linear /dev/zram0 0") }

func useCrypt(t *testing.T) {
	mapped(t, "0 8192 crypt twofish-ecb "+strings.Repeat("42", 16)+" 0 /dev/zram0 0")
}

// useRAID makes a mirror of which there is one half (Documentation/admin-guide/md.rst).
func useRAID(t *testing.T) {
	zram(t, "16M")
	const dir = "/sys/block/md_lab/md/"
	write := func(file, value string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(value), 0); err != nil {
			t.Fatal(err)
		}
	}
	write("/sys/module/md_mod/parameters/new_array", "md_lab")
	t.Cleanup(func() { write(dir+"array_state", "clear") })
	for _, setting := range [][2]string{
		{"metadata_version", "none"}, {"level", "raid1"}, {"raid_disks", "2"}, {"component_size", "8192"},
		{"new_dev", readFile(t, "/sys/block/zram0/dev")}, {"dev-zram0/slot", "0"}, {"array_state", "active"},
	} {
		write(dir+setting[0], setting[1])
	}
}

func useBtrfs(t *testing.T) {
	zram(t, "256M")
	must(t, "mkfs.btrfs", "-q", "/dev/zram0")
	must(t, "mkdir", "-p", "/tmp/btrfs")
	must(t, "mount", "-t", "btrfs", "/dev/zram0", "/tmp/btrfs")
	t.Cleanup(func() { must(t, "umount", "/tmp/btrfs") })
}

// useDisk opens the disk of scsi_debug, which comes a while after its driver, and not
// always by the same name.
func useDisk(t *testing.T) {
	var found []string
	await(t, "a disk", func() (ok bool) {
		found, _ = filepath.Glob("/sys/bus/pseudo/devices/adapter*/host*/target*/*/block/sd*") // the pattern is a good one
		return len(found) > 0
	})
	await(t, "its node", func() bool {
		_, err := os.Stat("/dev/" + filepath.Base(found[0]))
		return err == nil
	})
	open(t, "/dev/"+filepath.Base(found[0]), os.O_RDONLY)
}

// program makes a BPF program that does nothing.
func program(t *testing.T, spec ebpf.ProgramSpec) *ebpf.Program {
	t.Helper()
	if err := rlimit.RemoveMemlock(); err != nil { // which counts BPF before 5.11
		t.Fatal(err)
	}
	spec.License, spec.Instructions = "GPL", asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}
	p, err := ebpf.NewProgram(&spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

func attached(t *testing.T, l link.Link, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
}

func useFentry(t *testing.T) {
	p := program(t, ebpf.ProgramSpec{Name: "lab_entry", Type: ebpf.Tracing, AttachType: ebpf.AttachTraceFEntry, AttachTo: "dummy_xmit"})
	l, err := link.AttachTracing(link.TracingOptions{Program: p})
	attached(t, l, err)
}

func useKprobeMulti(t *testing.T) {
	p := program(t, ebpf.ProgramSpec{Name: "lab_multi", Type: ebpf.Kprobe, AttachType: ebpf.AttachTraceKprobeMulti})
	l, err := link.KprobeMulti(p, link.KprobeMultiOptions{Symbols: []string{"dummy_xmit", "dummy_setup"}})
	attached(t, l, err)
}

// useEvent has two perf events on a tracepoint, as perf record has one a processor.
func useEvent(t *testing.T) {
	id, err := strconv.ParseUint(strings.TrimSpace(readFile(t, tracefs+"events/tipc/tipc_sk_create/id")), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		event := unix.PerfEventAttr{Type: unix.PERF_TYPE_TRACEPOINT, Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{})), Config: id}
		fd, err := unix.PerfEventOpen(&event, -1, 0, -1, unix.PERF_FLAG_FD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Close(fd) })
	}
}

func useRawTracepoint(t *testing.T) {
	p := program(t, ebpf.ProgramSpec{Name: "lab_point", Type: ebpf.RawTracepoint})
	l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: "tipc_sk_create", Program: p})
	attached(t, l, err)
}
