// SPDX-License-Identifier: MIT

package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"

	"github.com/modtrace/modtrace/test/lab/wire"
)

const guestPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func mountAll() error {
	for _, m := range []struct {
		fstype, dir string
		flags       uintptr
		data        string
		optional    bool
	}{
		{"proc", "/proc", 0, "", false},
		{"sysfs", "/sys", 0, "", false},
		{"devtmpfs", "/dev", 0, "", false},
		{"devpts", "/dev/pts", 0, "ptmxmode=0666", true},
		{"tmpfs", "/dev/shm", 0, "", true},
		{"tmpfs", "/tmp", 0, "mode=1777", false},
		{"tmpfs", "/run", 0, "", false},
		{"cgroup2", "/sys/fs/cgroup", 0, "", true},
		{"bpf", "/sys/fs/bpf", 0, "", true},
		{"securityfs", "/sys/kernel/security", 0, "", true},
		{"debugfs", "/sys/kernel/debug", 0, "", true},
		{"tracefs", "/sys/kernel/tracing", 0, "", true},
	} {
		if err := os.MkdirAll(m.dir, 0o755); err != nil && !m.optional {
			return err
		}
		err := unix.Mount(m.fstype, m.dir, m.fstype, m.flags, m.data)
		// The kernel may have mounted devtmpfs by itself.
		if err != nil && !errors.Is(err, unix.EBUSY) && !m.optional {
			return fmt.Errorf("mounting %s: %w", m.dir, err)
		}
	}
	return nil
}

func setUp(job *wire.Job) error {
	if err := os.Setenv("PATH", guestPath); err != nil {
		return err
	}
	setClock(job.UnixNano)
	raiseLoopback()
	_ = unix.Sethostname([]byte("lab"))
	for _, name := range job.Modules {
		out, err := exec.Command("modprobe", name).CombinedOutput()
		if err != nil {
			return fmt.Errorf("loading module %s: %w: %s", name, err, out)
		}
	}
	return nil
}

// setClock helps machines that boot in 1970, where every duration since a
// file's time is fifty years.
func setClock(unixNano int64) {
	if unixNano == 0 || time.Now().UnixNano() > unixNano {
		return
	}
	tv := unix.NsecToTimeval(unixNano)
	_ = unix.Settimeofday(&tv)
}

// raiseLoopback makes 127.0.0.1 usable; without it a server under test cannot
// be asked anything.
func raiseLoopback() {
	iface, err := net.InterfaceByName("lo")
	if err != nil || iface.Flags&net.FlagUp != 0 {
		return
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer func() { _ = unix.Close(fd) }()
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	_ = unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req)
}
