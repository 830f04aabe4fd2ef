// SPDX-License-Identifier: MIT

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"

	"github.com/modtrace/modtrace/test/bench/figure"
	"github.com/modtrace/modtrace/test/lab/inguest"
)

// whys measures what it takes to say who holds a module among ever more open files:
// one that is held by an open file, and one by something that nobody can tell.
func (b *bench) whys() (err error) {
	for _, name := range []string{"busy", "leak"} {
		if err := inguest.LoadFile("/fixtures/" + name + ".ko"); err != nil {
			return err
		}
	}
	const most, take = 100_000, "/sys/module/leak/parameters/take"
	limit := unix.Rlimit{Cur: most + 1000, Max: most + 1000}
	err = errors.Join(os.WriteFile(take, []byte("1"), 0), os.WriteFile("/proc/sys/fs/nr_open", []byte("1048576"), 0), unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))
	if err != nil {
		return err
	}
	f, err := os.Open("/dev/busy")
	if err != nil {
		return err
	}
	defer f.Close()
	var fds []int
	defer func() {
		for _, fd := range fds {
			err = errors.Join(err, unix.Close(fd))
		}
	}()
	for _, files := range []int{1000, 10_000, most} {
		for len(fds) < files {
			fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return fmt.Errorf("opening /dev/null: %w", err)
			}
			fds = append(fds, fd)
		}
		for _, module := range []string{"busy", "leak"} {
			w, err := why(module)
			if err != nil {
				return err
			}
			w.Files, w.Modules, w.Explained = files, b.modules, module == "busy"
			b.report.Whys = append(b.report.Whys, w)
		}
	}
	return nil
}

// why asks who holds a module.
func why(module string) (w figure.Why, err error) {
	cmd := exec.Command("/usr/bin/modtrace", "why", "--json", module)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err = cmd.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 10 || stderr.Len() > 0 {
		return w, fmt.Errorf("modtrace why %s: %w: %s", module, err, &stderr)
	}
	w.CPU = int64(cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime())
	return w, nil
}
