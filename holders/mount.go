package holders

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/modtrace/modtrace/procfs"
)

// mount is a place at which a file system is mounted.
type mount struct {
	namespace uint64
	pid       int // of a process in that namespace
	comm      string
	path      string // as that process sees it
}

// mounts finds where file systems are mounted, in all mount namespaces that a
// process is in, by the numbers of their devices.
func (r root) mounts(devices map[uint32]bool) map[uint32][]mount {
	found := map[uint32][]mount{}
	if len(devices) == 0 {
		return found
	}
	seen := map[uint64]bool{}
	processes, err := filepath.Glob(r.path("proc", "[0-9]*"))
	if err != nil {
		return found
	}
	for _, dir := range processes {
		ns, err := namespaceOf(dir, "mnt")
		if err != nil || seen[ns] {
			continue // it has ended, or may not be looked at
		}
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		seen[ns] = true
		for device, paths := range mountPoints(dir, devices) {
			for _, path := range paths {
				found[device] = append(found[device], mount{ns, pid, procfs.Comm(dir), path})
			}
		}
	}
	return found
}

// namespaceOf is the number of a process's namespace (namespaces(7)).
func namespaceOf(dir, kind string) (uint64, error) {
	link, err := os.Readlink(filepath.Join(dir, "ns", kind))
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(strings.Trim(strings.TrimPrefix(link, kind+":"), "[]"), 10, 64)
}

// mountPoints reads where a process sees some file systems (proc(5),
// /proc/PID/mountinfo).
func mountPoints(dir string, devices map[uint32]bool) map[uint32][]string {
	found := map[uint32][]string{}
	f, err := os.Open(filepath.Join(dir, "mountinfo"))
	if err != nil {
		return found
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) < 5 {
			continue
		}
		var major, minor uint32
		if _, err := fmt.Sscanf(fields[2], "%d:%d", &major, &minor); err != nil {
			continue
		}
		if device := major<<20 | minor; devices[device] {
			found[device] = append(found[device], unescape(fields[4]))
		}
	}
	return found
}

// unescape undoes how the kernel writes blanks in paths, as \040.
func unescape(path string) string {
	var b strings.Builder
	for i := 0; i < len(path); i++ {
		if path[i] == '\\' && i+3 < len(path) {
			if n, err := strconv.ParseUint(path[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(path[i])
	}
	return b.String()
}

// deviceName is a device's number as people write it. The kernel keeps it with
// twenty bits for the minor (include/linux/kdev_t.h).
func deviceName(device uint32) string {
	return fmt.Sprintf("%d:%d", device>>20, device&(1<<20-1))
}
