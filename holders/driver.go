package holders

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/modtrace/modtrace/memory"
	"github.com/modtrace/modtrace/unload"
)

func diskTypes() []string {
	return []string{"fs_struct", "vfsmount", "super_block", "file_system_type", "bdev_inode", "block_device", "gendisk", "block_device_operations"}
}

// driverTypes are those of drivers of disks that hold other modules.
func driverTypes() []describer {
	return []describer{
		{"dm_mod", "dm_mod", []string{"mapped_device", "dm_table", "dm_target", "target_type"}},
		{"sd_mod", "scsi_mod", []string{"scsi_disk", "scsi_device", "Scsi_Host", "scsi_host_template"}},
		{"nvme_core", "nvme_core", []string{"nvme_ns", "nvme_ctrl", "nvme_ctrl_ops"}},
		{"md_mod", "md_mod", []string{"mddev", "md_personality"}},
	}
}

// drivesDisks says whether one that is asked about may be held by such a driver.
func (s *search) drivesDisks() bool {
	return slices.ContainsFunc(driverTypes(), func(d describer) bool { return s.among(d.called) })
}

// disks looks at all disks for what their drivers hold (block/bdev.c: all are files of
// one file system, which is on the list of all).
func (s *search) disks() {
	if !s.drivesDisks() {
		return
	}
	if !s.HasType("mapped_device") {
		s.mappedOnly()
	}
	if !slices.ContainsFunc(driverTypes(), func(d describer) bool { return s.HasType(d.types[0]) }) {
		return
	}
	root := s.Task().Follow("fs", "fs_struct").Uint("root.mnt")
	first := s.At("vfsmount", root).Follow("mnt_sb", "super_block")
	for _, sb := range append(s.List(first.Part("s_list"), "super_block", "s_list"), first) {
		isDisks := func() bool {
			return s.Text(sb.Follow("s_type", "file_system_type").Uint("name"), 8) == "bdev"
		}
		if !s.Whether(isDisks) { // it may be the list's head, too
			continue
		}
		for _, disk := range s.List(sb.Part("s_inodes"), "bdev_inode", "vfs_inode.i_sb_list") {
			s.disk(disk)
		}
	}
}

// disk looks at a whole disk.
func (s *search) disk(bdev memory.Value) {
	disk := s.At("gendisk", bdev.Uint("bdev.bd_disk"))
	if disk.Uint("part0") != bdev.Address { // a partition
		return
	}
	name := "/dev/" + disk.Text("disk_name")
	owner := disk.Follow("fops", "block_device_operations").Uint("owner")
	switch s.ownerName(owner) {
	case "dm_mod":
		s.mapped(name, owner, disk.Follow("private_data", "mapped_device"))
	case "sd_mod":
		s.scsi(name, disk.Follow("private_data", "scsi_disk"), s.openersOf(bdev))
	case "nvme_core":
		s.nvme(name, disk, s.openersOf(bdev))
	case "md_mod":
		s.raid(name, disk.Follow("private_data", "mddev").Follow("pers", "md_personality"), disk)
	}
}

// raid is a disk that is made of others (drivers/md/md.c, md_run).
func (s *search) raid(path string, level, disk memory.Value) {
	owner := "owner"
	if !s.Knows("md_personality", owner) { // since 6.15
		owner = "head.owner"
	}
	s.hold(level.Uint(owner), disk.Address, unload.Holder{Kind: unload.HolderBlock, Path: path, Detail: "its RAID level"})
}

func (s *search) openersOf(bdev memory.Value) uint64 {
	if s.Knows("bdev_inode", "bdev.bd_openers.counter") {
		return bdev.Uint("bdev.bd_openers.counter")
	}
	return bdev.Uint("bdev.bd_openers") // before 6.0
}

// mapped is a device of the device mapper's, which holds that, and whose table holds
// what its targets are of, each by itself (drivers/md/dm.c, alloc_dev; dm-target.c).
func (s *search) mapped(path string, owner uint64, md memory.Value) {
	of := " of " + s.mappedName(path)
	s.hold(owner, md.Address, unload.Holder{Kind: unload.HolderSelf, Path: path, Detail: "for the device" + of})
	table := md.Follow("map", "dm_table")
	at := table.Uint("targets")
	for range min(table.Uint("num_targets"), 1<<16) {
		target := s.At("dm_target", at)
		typ := target.Follow("type", "target_type")
		s.hold(typ.Uint("module"), at, unload.Holder{
			Kind: unload.HolderBlock, Path: path, Detail: "target " + s.Text(typ.Uint("name"), 32) + of,
		})
		at = target.End()
	}
}

// mappedOnly are the devices of the device mapper's, where its types are not known.
func (s *search) mappedOnly() {
	devices, err := filepath.Glob(s.path("sys/block/dm-*"))
	if err != nil {
		return
	}
	for _, dir := range devices {
		path := "/dev/" + filepath.Base(dir)
		s.relate("dm_mod", 1, unload.Holder{Kind: unload.HolderSelf, Path: path, Detail: "for the device of " + s.mappedName(path)})
	}
}

// mappedName is what a device of the device mapper's is called.
func (r root) mappedName(path string) string {
	b, err := os.ReadFile(r.path("sys/block", filepath.Base(path), "dm/name"))
	if err != nil {
		return path
	}
	return strings.TrimSpace(string(b))
}

// scsi is a disk of a host adapter, whose driver is held by each who has it open
// (drivers/scsi/sd.c, sd_open).
func (s *search) scsi(name string, disk memory.Value, openers uint64) {
	host := disk.Follow("device", "scsi_device").Follow("host", "Scsi_Host")
	owner := host.Follow("hostt", "scsi_host_template").Uint("module")
	s.holdOpen(owner, disk.Address, openers, unload.Holder{Kind: unload.HolderBlock, Path: name, Detail: "a disk of its host adapter, which is open"})
}

// nvme is a disk of one controller, whose driver is held likewise (drivers/nvme/host/
// core.c, nvme_ns_open). One that several controllers lead to holds none of them.
func (s *search) nvme(name string, disk memory.Value, openers uint64) {
	ns := disk.Follow("private_data", "nvme_ns")
	if !s.Whether(func() bool { return ns.Uint("disk") == disk.Address }) {
		return
	}
	owner := ns.Follow("ctrl", "nvme_ctrl").Follow("ops", "nvme_ctrl_ops").Uint("module")
	s.holdOpen(owner, ns.Address, openers, unload.Holder{Kind: unload.HolderBlock, Path: name, Detail: "a disk of its controller, which is open"})
}

// holdOpen notes that each who has something open holds its owner.
func (s *search) holdOpen(owner, by, openers uint64, h unload.Holder) {
	if openers == 0 {
		return
	}
	if f := s.hold(owner, by, h); f != nil {
		f.Refs = int64(openers)
	}
}
