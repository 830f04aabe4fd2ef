package tracer

import (
	"encoding/binary"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// cgroupRoot is where the unified hierarchy is mounted.
const cgroupRoot = "/sys/fs/cgroup"

// fileidKernfs is the kind of handle by which kernfs knows its files
// (include/linux/exportfs.h, FILEID_KERNFS).
const fileidKernfs = 0xfe

// cgroups are the paths of those that were asked for. A number is given to one
// cgroup only, and that cannot be renamed (Documentation/admin-guide/cgroup-v2.rst).
type cgroups map[uint64]string

// maxCgroups bounds how many are kept.
const maxCgroups = 256

// path is that of a cgroup, "" if it cannot be found out.
func (k cgroups) path(id uint64) string {
	if path, ok := k[id]; ok {
		return path
	}
	path := cgroupPath(id)
	if path != "" {
		if len(k) >= maxCgroups {
			clear(k)
		}
		k[id] = path
	}
	return path
}

// cgroupPath finds the path of a cgroup by its number, also after the task that
// was in it has ended. It is "" when that cannot be found out: CAP_DAC_READ_SEARCH
// is needed, and the cgroup must still be there.
func cgroupPath(id uint64) string {
	root, err := unix.Open(cgroupRoot, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(root)
	var handle [8]byte
	binary.NativeEndian.PutUint64(handle[:], id)
	fd, err := unix.OpenByHandleAt(root, unix.NewFileHandle(fileidKernfs, handle[:]), unix.O_PATH|unix.O_CLOEXEC)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil || !strings.HasPrefix(path, cgroupRoot) {
		return ""
	}
	if path = strings.TrimPrefix(path, cgroupRoot); path == "" {
		return "/"
	}
	return path
}
