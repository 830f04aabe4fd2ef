package holders

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strings"

	"github.com/modtrace/modtrace/procfs"
)

// errGone says that what was found is not there any more.
var errGone = errors.New("gone meanwhile")

// lives says whether a thread has not ended: one that has ended has nothing open.
func (r root) lives(pid, tid int) bool {
	stat, err := procfs.ReadStat(r.path("proc", fmt.Sprint(pid), "task", fmt.Sprint(tid)))
	return err == nil && !stat.Ended()
}

// pathOf is what a descriptor leads to. A thread may have descriptors of its own. The
// kernel holds the file while it is asked.
func (r root) pathOf(pid, tid, descriptor int) (string, error) {
	path, err := os.Readlink(r.path("proc", fmt.Sprint(pid), "task", fmt.Sprint(tid), "fd", fmt.Sprint(descriptor)))
	if errors.Is(err, fs.ErrNotExist) {
		return "", errGone
	}
	return path, err
}

// mappedAt is what lies at an address of a process (proc(5), /proc/PID/maps).
func (r root) mappedAt(pid int, address uint64) (string, error) {
	b, err := os.ReadFile(r.path("proc", fmt.Sprint(pid), "maps"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", errGone
	}
	if err != nil {
		return "", err
	}
	begins := fmt.Sprintf("%08x-", address)
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, begins) {
			if f := strings.SplitN(strings.TrimSpace(line), " ", 6); len(f) == 6 {
				return strings.TrimSpace(f[5]), nil
			}
		}
	}
	return "", errGone
}

// container is the number by which engines call theirs in the names of cgroups:
// docker-ID.scope, cri-containerd-ID.scope, /docker/ID, libpod-ID.scope, lxc.payload.NAME.
var (
	containerID   = regexp.MustCompile(`(?:^|[/-])([0-9a-f]{64})(?:\.scope)?(?:/|$)`)
	containerName = regexp.MustCompile(`/(?:lxc\.payload\.|lxc/|machine\.slice/systemd-nspawn@)([^/]+?)(?:\.service)?(?:/|$)`)
)

func containerOf(cgroup string) string {
	for _, pattern := range []*regexp.Regexp{containerID, containerName} {
		if m := pattern.FindStringSubmatch(cgroup); m != nil {
			return m[1]
		}
	}
	return ""
}
