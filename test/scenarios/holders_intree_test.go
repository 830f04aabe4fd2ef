package scenarios

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/modtrace/modtrace/unload"
)

// heldInTree is a module of the kernel's own, how it comes to be in use, and who is
// to be found then.
type heldInTree struct {
	module string
	loads  []string // modules to load, if not that one
	use    func(t *testing.T)
	refs   int64
	kind   unload.HolderKind
	path   string
	detail string
	// typed is how many references are found by the types of modules, which these say
	// since 5.11.
	typed int64
	// unexplained is how many references the kernel gives no way to find, and missing
	// what is said of that.
	unexplained int64
	missing     string
	// step is among what is advised to free it.
	step string
	// stays says that the module holds itself for as long as it is loaded.
	stays bool
}

func heldOnes(series string) []heldInTree {
	list := []heldInTree{
		{module: "tun", use: useTun, refs: 2, kind: unload.HolderFD, path: "/dev/net/tun", detail: "protocol tun"},
		{module: "fuse", use: useFuse, refs: 2, kind: unload.HolderMount, path: "/tmp/fuse", detail: "fuse"},
		{module: "tcp_bbr", use: useBBR, refs: 1, kind: unload.HolderSocket, path: "socket:", detail: "congestion control bbr"},
		{module: "ppp_generic", use: opens("/dev/ppp"), refs: 2, kind: unload.HolderFD, path: "/dev/ppp"},
		{module: "vhost_net", use: opens("/dev/vhost-net"), refs: 1, kind: unload.HolderFD, path: "/dev/vhost-net"},
		{module: "can_raw", use: useSocket(unix.AF_CAN, unix.SOCK_RAW, unix.CAN_RAW), refs: 1, kind: unload.HolderSocket, path: "socket:", detail: "protocol CAN_RAW"},
		{module: "algif_hash", use: useAlgorithm, refs: 1, kind: unload.HolderCrypto, path: "socket:", detail: "its kind of algorithm", typed: 1},
		{module: "romfs", loads: []string{"loop", "romfs"}, use: useLoop, refs: 1, kind: unload.HolderMount, path: "/tmp/lab mount", detail: "romfs"},
		{module: "loop", loads: []string{"loop", "romfs"}, use: useLoop, refs: 2, kind: unload.HolderMount, path: "/tmp/lab mount"},
	}
	swap := heldInTree{module: "zram", use: useSwap, refs: 1, kind: unload.HolderSwap, path: "/dev/zram0", detail: "swap"}
	if series == "amd64-6.1" { // where swapon has it open twice (mm/swapfile.c)
		swap.refs = 2
	}
	list = append(list, swap)
	if !strings.HasPrefix(series, "arm64") { // of which Debian has none there
		list = append(list, heldInTree{module: "snd_dummy", use: useSound, refs: 1, kind: unload.HolderSound, path: "/dev/snd/pcm", detail: "its sound card", typed: 1})
		list = append(list, heldInTree{module: "n_hdlc", use: useLine, refs: 1, kind: unload.HolderTTY, path: "/dev/", detail: "line discipline hdlc"})
	}
	list = slices.Concat(list, heldByNetwork(series), heldByFilters(series), heldInside(series))
	for i, h := range list {
		if strings.HasSuffix(series, "-5.10") && h.typed > 0 {
			list[i].unexplained, list[i].missing = h.typed, "does not describe its types"
		}
	}
	return list
}

// TestWhyInTree holds modules of the kernel's own, and finds every holder by what
// the kernel notes as its owner.
func TestWhyInTree(t *testing.T) {
	series := special(t, "holders")
	for _, h := range heldOnes(series) {
		t.Run(h.module+" "+string(h.kind), func(t *testing.T) {
			if loadHeld(t, h) {
				h.use(t)
				h.check(t)
			}
		})
	}
	t.Run("interfaces", testInterfaces)
	t.Run("console", func(t *testing.T) { testConsole(t, series) })
	if strings.HasSuffix(series, "-5.10") || strings.HasSuffix(series, "-6.1") { // later, virtio_pci is built in
		t.Run("disk", testDisk)
	}
}

// loadHeld loads what is needed, and says whether it is a module at all.
func loadHeld(t *testing.T, h heldInTree) bool {
	t.Helper()
	loads := h.loads
	if loads == nil {
		loads = []string{h.module}
	}
	_ = exec.Command("modprobe", "-r", "nft_counter").Run() // on 5.10 iptables-nft has it loaded, and it needs nf_tables
	for _, name := range loads {
		must(t, "modprobe", name)
	}
	if r, w := whyOne(t, h.module); w.State == "built_in" {
		if r.code != 12 {
			t.Errorf("it is built in: exit %d", r.code)
		}
		return false
	}
	if !h.stays {
		t.Cleanup(func() {
			await(t, "the modules to be free", func() bool { // some things go a while after who made them
				return exec.Command("modprobe", append([]string{"-r"}, loads...)...).Run() == nil
			})
		})
	}
	return true
}

// check asks who holds it.
func (h heldInTree) check(t *testing.T) {
	t.Helper()
	r, w := whyOne(t, h.module)
	if r.code != 10 || w.Refcount != h.refs || w.Unexplained != h.unexplained {
		t.Errorf("exit %d, %d references, %d unexplained, want %d and %d: %+v\n%s",
			r.code, w.Refcount, w.Unexplained, h.refs, h.unexplained, w, r.stderr)
	}
	if h.unexplained > 0 && !slices.ContainsFunc(w.Missing, func(m string) bool { return strings.Contains(m, h.missing) }) {
		t.Errorf("why it is not known is not said: %q", w.Missing)
	}
	if h.step != "" && !slices.Contains(w.Advice, h.step) {
		t.Errorf("no %q in %q", h.step, w.Advice)
	}
	if slices.ContainsFunc(w.Missing, func(m string) bool { return strings.Contains(m, "changed under the look") }) {
		t.Errorf("nothing changed: %q", w.Missing)
	}
	if h.unexplained == h.refs || h.unexplained == h.typed && h.kind == unload.HolderFilter && h.typed > 0 {
		return
	}
	if !slices.ContainsFunc(w.Holders, func(found unload.Holder) bool {
		return found.Kind == h.kind && strings.HasPrefix(found.Path, h.path) && strings.Contains(found.Detail, h.detail) && found.Refs > 0
	}) {
		t.Errorf("no %s at %s, %s: %+v", h.kind, h.path, h.detail, w.Holders)
	}
}

// must runs a command that has to succeed.
func must(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %s", args, err, out)
	}
}

func opens(path string) func(*testing.T) {
	return func(t *testing.T) { open(t, path, os.O_RDWR) }
}

func useTun(t *testing.T) {
	f := open(t, "/dev/net/tun", os.O_RDWR)
	request, err := unix.NewIfreq("labtun0")
	if err != nil {
		t.Fatal(err)
	}
	request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(int(f.Fd()), unix.TUNSETIFF, request); err != nil {
		t.Fatal(err)
	}
}

func useFuse(t *testing.T) {
	f := open(t, "/dev/fuse", os.O_RDWR)
	if err := os.MkdirAll("/tmp/fuse", 0o755); err != nil {
		t.Fatal(err)
	}
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", f.Fd())
	if err := unix.Mount("lab", "/tmp/fuse", "fuse", 0, options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount("/tmp/fuse", unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// useSound has a PCM of the card open.
func useSound(t *testing.T) {
	cards, err := filepath.Glob("/dev/snd/pcmC*D0p")
	if err != nil || len(cards) != 1 {
		t.Fatalf("sound cards %v: %v", cards, err)
	}
	open(t, cards[0], os.O_RDWR)
}

// useAlgorithm has a socket that computes hashes.
func useAlgorithm(t *testing.T) {
	fd := socket(t, unix.AF_ALG, unix.SOCK_SEQPACKET, 0)
	if err := unix.Bind(fd, &unix.SockaddrALG{Type: "hash", Name: "sha256"}); err != nil {
		t.Fatal(err)
	}
}

// useLine puts the line discipline HDLC on a terminal.
func useLine(t *testing.T) {
	const hdlc = 13 // include/uapi/linux/tty.h, N_HDLC
	f := open(t, "/dev/ptmx", os.O_RDWR|unix.O_NOCTTY)
	if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.TIOCSETD, hdlc); err != nil {
		t.Fatal(err)
	}
}

func useSocket(family, kind, protocol int) func(*testing.T) {
	return func(t *testing.T) {
		t.Helper()
		socket(t, family, kind, protocol)
	}
}

func socket(t *testing.T, family, kind, protocol int) int {
	t.Helper()
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

func useBBR(t *testing.T) {
	if err := unix.SetsockoptString(socket(t, unix.AF_INET, unix.SOCK_STREAM, 0), unix.IPPROTO_TCP, unix.TCP_CONGESTION, "bbr"); err != nil {
		t.Fatal(err)
	}
}

// testConsole has a screen, on which the kernel puts its console. That holds whose
// operations draw on it, which is one helper or another.
func testConsole(t *testing.T, series string) {
	if exec.Command("modprobe", "bochs").Run() != nil {
		must(t, "modprobe", "bochs-drm") // as it was called
	}
	await(t, "the console", func() bool {
		names, err := filepath.Glob("/sys/class/vtconsole/*/name")
		return err == nil && slices.ContainsFunc(names, func(name string) bool { return strings.Contains(readFile(t, name), "frame buffer") })
	})
	ofConsole := func(h unload.Holder) bool { return h.Kind == unload.HolderKernel && h.Path == "/dev/fb0" }
	consoles := 0
	for line := range strings.Lines(readFile(t, "/proc/modules")) {
		name, _, _ := strings.Cut(line, " ")
		if !strings.HasPrefix(name, "drm") && !strings.HasPrefix(name, "bochs") {
			continue
		}
		unexplained := int64(0)
		if name == "drm_kms_helper" && (strings.HasSuffix(series, "-5.10") || strings.HasSuffix(series, "-6.1")) {
			unexplained = 1 // what draws for the console is a client of the screen
		}
		_, w := whyOne(t, name)
		if w.Unexplained != unexplained {
			t.Errorf("%d unexplained, want %d: %+v", w.Unexplained, unexplained, w)
		}
		if !slices.ContainsFunc(w.Holders, ofConsole) {
			continue
		}
		consoles++
		if path, ok := strings.CutPrefix(w.Advice[0], "echo 0 > "); !ok || os.WriteFile(path, []byte("0"), 0) != nil {
			t.Errorf("what is advised does not work: %q", w.Advice)
		}
		if _, w := whyOne(t, name); slices.ContainsFunc(w.Holders, ofConsole) || w.Unexplained != unexplained {
			t.Errorf("once that was done: %+v", w)
		}
	}
	if consoles != 1 {
		t.Errorf("the console holds %d modules", consoles)
	}
}

// testDisk mounts a disk, which holds its driver, and not that of the device on which it
// hangs.
func testDisk(t *testing.T) {
	must(t, "modprobe", "-a", "virtio_pci", "virtio_blk")
	t.Cleanup(func() { must(t, "modprobe", "-r", "virtio_blk", "virtio_pci") })
	mounted(t, "/dev/vda")
	r, w := whyOne(t, "virtio_pci")
	if want := "disk vda, which is mounted at /tmp/disk, would go"; r.code != 0 || w.Refcount != 0 || !slices.Contains(w.Hazards, want) {
		t.Errorf("exit %d, no %q: %+v", r.code, want, w)
	}
}

// mounted mounts a disk that appears soon.
func mounted(t *testing.T, disk string) {
	t.Helper()
	await(t, disk, func() bool { _, err := os.Stat(disk); return err == nil })
	if err := os.WriteFile(disk, romfs(), 0); err != nil {
		t.Fatal(err)
	}
	must(t, "modprobe", "romfs")
	must(t, "mkdir", "-p", "/tmp/disk")
	must(t, "mount", "-t", "romfs", "-o", "ro", disk, "/tmp/disk")
	t.Cleanup(func() { must(t, "umount", "/tmp/disk") })
}

// romfs is an empty file system (Documentation/filesystems/romfs.rst).
func romfs() []byte {
	const size = 1024
	image := make([]byte, size)
	sum := func(from, to int) {
		var total uint32
		for i := from; i < to; i += 4 {
			total += binary.BigEndian.Uint32(image[i:])
		}
		binary.BigEndian.PutUint32(image[from+12:], -total)
	}
	copy(image, "-rom1fs-")
	binary.BigEndian.PutUint32(image[8:], size)
	const root, directory, executable = 32, 1, 8
	binary.BigEndian.PutUint32(image[root:], directory|executable)
	binary.BigEndian.PutUint32(image[root+4:], root)
	image[root+16] = '.'
	sum(root, root+32)
	sum(0, 512)
	return image
}

// useLoop mounts an image in a mount namespace of its own.
func useLoop(t *testing.T) {
	image, node := filepath.Join(t.TempDir(), "image"), "/tmp/lab mount"
	if err := os.WriteFile(image, romfs(), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(node, 0o755); err != nil {
		t.Fatal(err)
	}
	must(t, "losetup", "/dev/loop0", image)
	t.Cleanup(func() { must(t, "losetup", "-d", "/dev/loop0") })
	child := exec.Command("sh", "-c", "mount -t romfs -o ro /dev/loop0 '"+node+"' && exec sleep 1000")
	child.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	child.Stderr = os.Stderr
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = child.Process.Kill()
		_ = child.Wait() // it was killed
	})
	await(t, "the image to be mounted", func() bool {
		return strings.Contains(readFile(t, fmt.Sprintf("/proc/%d/mountinfo", child.Process.Pid)), "romfs")
	})
	await(t, "the program to run", func() bool {
		return strings.HasPrefix(readFile(t, fmt.Sprintf("/proc/%d/comm", child.Process.Pid)), "sleep")
	})
}

func useSwap(t *testing.T) {
	if err := os.WriteFile("/sys/block/zram0/disksize", []byte("16M"), 0); err != nil {
		t.Fatal(err)
	}
	must(t, "mkswap", "/dev/zram0")
	must(t, "swapon", "/dev/zram0")
	t.Cleanup(func() { must(t, "swapoff", "/dev/zram0") })
}
