// SPDX-License-Identifier: MIT

// Package inguest has what tests need that run inside a machine of the lab: to
// load and unload modules and to turn the fixtures' knobs.
package inguest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Fixtures is the directory of the fixture modules.
const Fixtures = "/fixtures"

// Require skips a test that is not run by the lab.
func Require(t testing.TB) {
	t.Helper()
	if Series() == "" {
		t.Skip("runs in a machine of the lab: it loads kernel modules")
	}
}

// Series returns the name of the kernel series that the lab booted, or "" when
// this is no machine of the lab.
func Series() string { return os.Getenv("MODTRACE_LAB_GUEST") }

// Release returns the running kernel's release.
func Release() (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", fmt.Errorf("asking for the kernel's release: %w", err)
	}
	return unix.ByteSliceToString(u.Release[:]), nil
}

// LoadFile loads the module in a file.
func LoadFile(file string, params ...string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), strings.Join(params, " "), 0); err != nil {
		return fmt.Errorf("loading %s: %w", file, err)
	}
	return nil
}

// LoadBytes loads the module in an image.
func LoadBytes(image []byte, params ...string) error {
	if err := unix.InitModule(image, strings.Join(params, " ")); err != nil {
		return fmt.Errorf("loading a module of %d bytes: %w", len(image), err)
	}
	return nil
}

// Load loads a fixture, and unloads it when the test ends if it is still there.
func Load(t testing.TB, name string, params ...string) {
	t.Helper()
	if err := LoadFile(filepath.Join(Fixtures, name+".ko"), params...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := Unload(name); err != nil && !errors.Is(err, unix.ENOENT) {
			t.Errorf("cleaning up: %v", err)
		}
	})
}

// Unload asks the kernel to unload a module, without waiting for users.
func Unload(name string) error {
	if err := unix.DeleteModule(name, unix.O_NONBLOCK); err != nil {
		return fmt.Errorf("unloading %s: %w", name, err)
	}
	return nil
}

// Loaded says whether a module is in the kernel, in whatever state.
func Loaded(name string) bool {
	data, err := os.ReadFile("/proc/modules")
	if err != nil {
		return false
	}
	return strings.HasPrefix(string(data), name+" ") || strings.Contains(string(data), "\n"+name+" ")
}

// Param reads a module's parameter.
func Param(t testing.TB, module, name string) string {
	t.Helper()
	data, err := os.ReadFile(paramFile(module, name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}

// SetParam writes a module's parameter.
func SetParam(t testing.TB, module, name, value string) {
	t.Helper()
	if err := os.WriteFile(paramFile(module, name), []byte(value), 0); err != nil {
		t.Fatal(err)
	}
}

func paramFile(module, name string) string {
	return filepath.Join("/sys/module", module, "parameters", name)
}

// PinToCPU0 keeps the test, and what it starts, on the first processor until it
// ends: the fixture rcuhog takes the last one for itself, and whoever happens to
// be there stands still.
func PinToCPU0(t testing.TB) {
	t.Helper()
	var all, first unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	first.Set(0)
	setAffinity(t, &first)
	t.Cleanup(func() { setAffinity(t, &all) })
}

func setAffinity(t testing.TB, cpus *unix.CPUSet) {
	t.Helper()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		tid, err := strconv.Atoi(task.Name())
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.SchedSetaffinity(tid, cpus); err != nil && !errors.Is(err, unix.ESRCH) {
			t.Fatal(err)
		}
	}
}

// KernelLog returns what the kernel has logged, oldest first, without the
// prefixes.
func KernelLog() ([]string, error) {
	f, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening the kernel log: %w", err)
	}
	defer func() { _ = unix.Close(f) }()
	var lines []string
	buf := make([]byte, 8192)
	for {
		n, err := unix.Read(f, buf)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return lines, nil
		case errors.Is(err, unix.EPIPE), errors.Is(err, unix.EINTR):
			// A record was overwritten before it was read; the next one is there.
			continue
		case err != nil:
			return lines, fmt.Errorf("reading the kernel log: %w", err)
		}
		// One record a read: prefix;message, then lines of detail.
		_, message, _ := strings.Cut(string(buf[:n]), ";")
		message, _, _ = strings.Cut(message, "\n")
		lines = append(lines, message)
	}
}

// Eventually waits until ok is true, and fails the test if that takes longer
// than the limit.
func Eventually(t testing.TB, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", limit, what)
		}
	}
}
