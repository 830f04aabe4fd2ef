package holders

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/modtrace/modtrace/bpf"
	"github.com/modtrace/modtrace/unload"
)

// openers finds who else has disks open besides files and mounts: the kernel itself,
// for swap, for a device that is stacked on the disk, or for what it does not tell.
func (a *account) openers() {
	for _, d := range a.disks {
		refs := a.references(d) - a.opened[d.Disk]
		users := a.users(d.Device)
		for _, h := range users[:min(max(refs, 0), int64(len(users)))] {
			h.Refs = 1
			a.give(d, h)
			refs--
		}
		if refs > 0 {
			a.give(d, unload.Holder{Kind: unload.HolderBlock, Refs: refs, Path: a.diskName(d.Device), Detail: "opened inside the kernel"})
		}
	}
}

// references are those that a disk's or partition's openers hold. A partition that
// is open has the whole disk open too, which counts there and holds nothing more
// (block/bdev.c, blkdev_get_part).
func (a *account) references(d *bpf.HoldersHolding) int64 {
	if d.Shared != 0 {
		return 1
	}
	refs := int64(d.Count)
	for _, other := range a.disks {
		if whole, ok := a.wholeOf(other.Device); ok && whole == deviceName(d.Device) {
			refs--
		}
	}
	return refs
}

// give adds a holder that is no process.
func (a *account) give(d *bpf.HoldersHolding, h unload.Holder) {
	h.FD, h.Stack, h.Confidence = -1, []string{}, unload.ByOwner
	a.order = append(a.order, &holder{Holder: h, target: d.Target, facts: facts(h.Detail)})
}

func facts(detail string) []string {
	if detail == "" {
		return nil
	}
	return []string{detail}
}

// users are the swap areas and the devices on a disk, as far as the kernel tells.
func (a *account) users(device uint32) (list []unload.Holder) {
	for _, path := range a.swaps(device) {
		list = append(list, unload.Holder{Kind: unload.HolderSwap, Path: path, Detail: "swap"})
	}
	stacked, err := os.ReadDir(a.path("sys/dev/block", deviceName(device), "holders"))
	if err != nil {
		return list
	}
	for _, s := range stacked {
		detail := "below " + s.Name()
		if name, err := os.ReadFile(a.path("sys/block", s.Name(), "dm/name")); err == nil {
			detail += " (" + strings.TrimSpace(string(name)) + ")"
		}
		list = append(list, unload.Holder{Kind: unload.HolderBlock, Path: a.diskName(device), Detail: detail})
	}
	return list
}

// swaps are the swap areas on a disk (proc(5), /proc/swaps).
func (r root) swaps(device uint32) (paths []string) {
	b, err := os.ReadFile(r.path("proc/swaps"))
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 2 || f[1] != "partition" {
			continue
		}
		var st unix.Stat_t
		path := unescape(f[0])
		if unix.Stat(r.path(path), &st) == nil && fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev)) == deviceName(device) {
			paths = append(paths, path)
		}
	}
	return paths
}

// diskName is the node of a disk in /dev, as the kernel names it.
func (a *account) diskName(device uint32) string {
	link, err := os.Readlink(a.path("sys/dev/block", deviceName(device)))
	if err != nil {
		return deviceName(device)
	}
	return "/dev/" + strings.ReplaceAll(filepath.Base(link), "!", "/")
}

// wholeOf is the number of the disk that a partition is of.
func (a *account) wholeOf(device uint32) (whole string, ok bool) {
	dir := a.path("sys/dev/block", deviceName(device))
	if _, err := os.Stat(filepath.Join(dir, "partition")); err != nil {
		return "", false
	}
	b, err := os.ReadFile(dir + "/../dev") // by the link's target
	return strings.TrimSpace(string(b)), err == nil
}

// boundLoops are the loop devices that have a file behind them: the module holds
// itself for each (drivers/block/loop.c, loop_configure).
func (a *account) boundLoops() {
	target := slices.Index(a.names, "loop")
	if target < 0 {
		return
	}
	files, err := filepath.Glob(a.path("sys/block/loop*/loop/backing_file"))
	if err != nil {
		return
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		node := "/dev/" + filepath.Base(filepath.Dir(filepath.Dir(file)))
		a.order = append(a.order, &holder{target: uint32(target), facts: []string{"for " + strings.TrimSpace(string(b)) + " behind it"}, Holder: unload.Holder{
			Kind: unload.HolderSelf, Refs: 1, FD: -1, Path: node, Stack: []string{}, Confidence: unload.ByRelation,
		}})
	}
}
