package holders

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/modtrace/modtrace/unload"
)

// advice says what to do, in order, for a module to become free. Of some holders it is
// known already.
func advice(w unload.Why, steps []string) []string {
	list := []string{}
	switch w.Reason {
	case unload.ReasonBuiltIn:
		return append(list, "it is part of the kernel's image: only another kernel is without it")
	case unload.ReasonNoExit:
		return append(list, "it has no exit function: only a reboot removes it")
	case unload.ReasonNoUnload:
		return append(list, "this kernel is built without CONFIG_MODULE_UNLOAD: only a reboot removes it")
	case unload.ReasonModulesDisabled:
		return append(list, "kernel.modules_disabled is 1 until the next boot: only a reboot removes it")
	case unload.ReasonLoading:
		return append(list, "its init function has not returned yet: wait")
	case unload.ReasonUnloading:
		return append(list, "it is being unloaded: `modtrace stuck` says what that waits for")
	case unload.ReasonNone:
		return list
	}
	for _, h := range w.Holders {
		if step := stepFor(h); step != "" && !slices.Contains(list, step) {
			list = append(list, step)
		}
	}
	for _, step := range steps {
		if !slices.Contains(list, step) {
			list = append(list, step)
		}
	}
	if len(w.Dependents) > 0 {
		list = append(list, "unload in this order: "+strings.Join(w.Plan, ", "))
	}
	return list
}

// catch is how to learn who takes references that leave no trace.
func catch(name string) string {
	return fmt.Sprintf("`modtrace refs %s` shows who takes and drops references from then on: have it run while the module comes into use", name)
}

// stepFor is how to free what one holder holds.
func stepFor(h unload.Holder) string {
	if h.PID == 0 {
		return stepForKernel(h)
	}
	switch h.Kind {
	case unload.HolderFD, unload.HolderMmap, unload.HolderSocket, unload.HolderTTY, unload.HolderSound, unload.HolderCrypto, unload.HolderBPF, unload.HolderTracer:
		return fmt.Sprintf("have process %d (%s) close %s, or end it", h.PID, h.Comm, h.Path)
	case unload.HolderMount:
		if own, err := namespaceOf("/proc/self", "mnt"); err == nil && own == h.MountNS {
			return "umount " + quoted(h.Path)
		}
		return fmt.Sprintf("nsenter -t %d -m umount %s", h.PID, quoted(h.Path))
	}
	return ""
}

// stepForKernel is how to free what no process holds.
func stepForKernel(h unload.Holder) string {
	switch h.Kind {
	case unload.HolderSwap:
		return "swapoff " + quoted(h.Path)
	case unload.HolderSelf:
		if strings.HasPrefix(h.Path, "/dev/dm-") {
			return "dmsetup remove " + quoted(h.Path)
		}
		return "losetup -d " + quoted(h.Path)
	case unload.HolderQdisc:
		if h.Path == defaultQdisc {
			return fmt.Sprintf("sysctl -w %s=pfifo_fast, or another one", h.Path)
		}
	case unload.HolderLivepatch:
		return fmt.Sprintf("echo 0 > %s/enabled", h.Path)
	}
	return ""
}

// quoted is a word as a shell takes it.
func quoted(word string) string {
	if !strings.ContainsAny(word, " \t\n'\"\\$&;|<>()*?[]~`!#") {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// hazards are what would go wrong when a module that nobody holds is unloaded.
func (r root) hazards(name string) []string {
	list := []string{}
	for _, i := range r.interfaces(name) {
		list = append(list, wouldGo(i))
	}
	for _, d := range r.devices(name) {
		list = append(list, fmt.Sprintf("device %s would lose its driver, and may have it loaded again", d))
	}
	list = append(list, r.disks(name)...)
	for _, file := range r.loadsAtBoot(name) {
		list = append(list, fmt.Sprintf("%s loads it again at the next boot", file))
	}
	return list
}

func wouldGo(name string) string { return fmt.Sprintf("interface %s, which is up, would go", name) }

// interfaces are those that are up and whose device the module drives.
func (r root) interfaces(name string) (up []string) {
	links, err := filepath.Glob(r.path("sys/class/net/*/device/driver/module"))
	if err != nil {
		return nil
	}
	for _, l := range links {
		if target, err := os.Readlink(l); err != nil || filepath.Base(target) != name {
			continue
		}
		dir := strings.TrimSuffix(l, "/device/driver/module")
		b, err := os.ReadFile(filepath.Join(dir, "flags"))
		if err != nil {
			continue
		}
		const isUp = 1 // include/uapi/linux/if.h, IFF_UP
		if flags, err := strconv.ParseUint(strings.TrimSpace(string(b)), 0, 32); err == nil && flags&isUp != 0 {
			up = append(up, filepath.Base(dir))
		}
	}
	return up
}

// devices are those that the module's drivers are bound to and that can be found
// by their kind, so that they may have it loaded again.
func (r root) devices(name string) (bound []string) {
	links, err := filepath.Glob(r.path("sys/module", name, "drivers/*/*/modalias"))
	if err != nil {
		return nil
	}
	for _, l := range links {
		bound = append(bound, filepath.Base(filepath.Dir(l)))
	}
	return bound
}

// disks are those in use that hang on a device which the module drives, and that another
// module makes, so that they hold only that one: as those of NVMe.
func (r root) disks(name string) (hazards []string) {
	bound, err := filepath.Glob(r.path("sys/module", name, "drivers/*/*/driver"))
	if err != nil || len(bound) == 0 {
		return nil
	}
	disks, err := filepath.Glob(r.path("sys/class/block/*"))
	if err != nil {
		return nil
	}
	below, wanted := map[uint32]string{}, map[uint32]bool{}
	for _, disk := range disks {
		at, err := filepath.EvalSymlinks(disk)
		device, known := numberOf(disk)
		if err == nil && known && slices.ContainsFunc(bound, func(driver string) bool {
			parent, err := filepath.EvalSymlinks(filepath.Dir(driver))
			return err == nil && strings.HasPrefix(at, parent+"/")
		}) {
			below[device], wanted[device] = filepath.Base(disk), true
		}
	}
	for device, places := range r.mounts(wanted) {
		hazards = append(hazards, fmt.Sprintf("disk %s, which is mounted at %s, would go", below[device], places[0].path))
	}
	for device, disk := range below {
		if len(r.swaps(device)) > 0 {
			hazards = append(hazards, fmt.Sprintf("disk %s, to which is swapped, would go", disk))
		}
	}
	slices.Sort(hazards)
	return hazards
}

// numberOf is the number of a disk or partition, as the kernel packs it.
func numberOf(disk string) (device uint32, ok bool) {
	b, err := os.ReadFile(filepath.Join(disk, "dev"))
	if err != nil {
		return 0, false
	}
	var major, minor uint32
	_, err = fmt.Sscanf(string(b), "%d:%d", &major, &minor)
	return major<<20 | minor, err == nil
}

// loadsAtBoot are the files that name the module to be loaded (modules-load.d(5),
// modules(5)).
func (r root) loadsAtBoot(name string) (files []string) {
	for _, pattern := range []string{"etc/modules", "etc/modules-load.d/*.conf", "run/modules-load.d/*.conf", "usr/lib/modules-load.d/*.conf"} {
		found, err := filepath.Glob(r.path(pattern))
		if err != nil {
			continue
		}
		for _, file := range found {
			b, err := os.ReadFile(file)
			if err != nil {
				continue
			}
			for line := range strings.Lines(string(b)) {
				f := strings.Fields(line)
				if len(f) > 0 && strings.ReplaceAll(f[0], "-", "_") == name {
					files = append(files, file)
					break
				}
			}
		}
	}
	return files
}
