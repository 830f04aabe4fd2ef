// SPDX-License-Identifier: MIT

// Package smoke holds the tests of the lab itself that run inside its machines.
package smoke

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/modtrace/modtrace/test/lab"
	"github.com/modtrace/modtrace/test/lab/inguest"
)

func TestRelease(t *testing.T) {
	inguest.Require(t)
	got, err := inguest.Release()
	if err != nil {
		t.Fatal(err)
	}
	if want := os.Getenv("SMOKE_RELEASE"); got != want {
		t.Errorf("the kernel is %q, want %q", got, want)
	}
}

func TestEmpty(t *testing.T) {
	inguest.Require(t)
	inguest.Load(t, "empty")
	if !inguest.Loaded("empty") {
		t.Fatal("empty is not in /proc/modules after loading it")
	}
	if err := inguest.Unload("empty"); err != nil {
		t.Fatal(err)
	}
	if inguest.Loaded("empty") {
		t.Error("empty is in /proc/modules after unloading it")
	}
}

var lap = regexp.MustCompile(`(\w+)_ns=(\d+)`)

// The figures that slow logs are what tracers are compared with, so they must
// be what was asked for.
func TestSlow(t *testing.T) {
	inguest.Require(t)
	inguest.Load(t, "slow", "sleep_ms=40", "spin_ms=20", "work_ms=30", "rcu_barrier=1", "sync_rcu=2")
	start := time.Now()
	if err := inguest.Unload("slow"); err != nil {
		t.Fatal(err)
	}
	took := time.Since(start)
	laps := map[string]time.Duration{}
	log, err := inguest.KernelLog()
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range log {
		if !strings.HasPrefix(line, "slow: sleep_ns=") {
			continue
		}
		for _, m := range lap.FindAllStringSubmatch(line, -1) {
			ns, err := strconv.ParseInt(m[2], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			laps[m[1]] = time.Duration(ns)
		}
	}
	// msleep counts ticks, and an emulated processor gets them late: it may end
	// two of them early by the clock.
	const ticks = 8 * time.Millisecond
	for part, least := range map[string]time.Duration{
		"sleep": 40*time.Millisecond - ticks, "spin": 20 * time.Millisecond, "work": 30*time.Millisecond - ticks,
		"rcu_barrier": 1, "sync_rcu": 1,
	} {
		if laps[part] < least {
			t.Errorf("slow logged %v for %s, want %v at least", laps[part], part, least)
		}
		took -= laps[part]
	}
	if took < 0 {
		t.Errorf("slow logged %v, and the system call took %v less", laps, -took)
	}
}

func TestBusy(t *testing.T) {
	inguest.Require(t)
	inguest.Load(t, "busy")
	t.Run("open file", func(t *testing.T) {
		f, err := os.Open("/dev/busy")
		if err != nil {
			t.Fatal(err)
		}
		if err := inguest.Unload("busy"); !errors.Is(err, unix.EWOULDBLOCK) {
			t.Errorf("unloading busy with its device open: %v, want %v", err, unix.EWOULDBLOCK)
		}
		f.Close()
	})
	t.Run("mapping", func(t *testing.T) {
		f, err := os.Open("/dev/busy")
		if err != nil {
			t.Fatal(err)
		}
		mem, err := unix.Mmap(int(f.Fd()), 0, os.Getpagesize(), unix.PROT_READ, unix.MAP_SHARED)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		if err := inguest.Unload("busy"); !errors.Is(err, unix.EWOULDBLOCK) {
			t.Errorf("unloading busy with its device mapped: %v, want %v", err, unix.EWOULDBLOCK)
		}
		if err := unix.Munmap(mem); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("dependent", func(t *testing.T) {
		inguest.Load(t, "user")
		if err := inguest.Unload("busy"); !errors.Is(err, unix.EWOULDBLOCK) {
			t.Errorf("unloading busy with user loaded: %v, want %v", err, unix.EWOULDBLOCK)
		}
		if err := inguest.Unload("user"); err != nil {
			t.Error(err)
		}
	})
	if err := inguest.Unload("busy"); err != nil {
		t.Error(err)
	}
}

func TestRefusals(t *testing.T) {
	inguest.Require(t)
	t.Run("badinit", func(t *testing.T) {
		err := inguest.LoadFile(filepath.Join(inguest.Fixtures, "badinit.ko"))
		if !errors.Is(err, unix.ENODEV) {
			t.Errorf("loading badinit: %v, want %v", err, unix.ENODEV)
		}
	})
	t.Run("noexit", func(t *testing.T) {
		if err := inguest.LoadFile(filepath.Join(inguest.Fixtures, "noexit.ko")); err != nil {
			t.Fatal(err)
		}
		if err := inguest.Unload("noexit"); !errors.Is(err, unix.EBUSY) {
			t.Errorf("unloading noexit: %v, want %v", err, unix.EBUSY)
		}
	})
	t.Run("leak", func(t *testing.T) {
		inguest.Load(t, "leak")
		inguest.SetParam(t, "leak", "take", "1")
		if err := inguest.Unload("leak"); !errors.Is(err, unix.EWOULDBLOCK) {
			t.Errorf("unloading leak while it holds itself: %v, want %v", err, unix.EWOULDBLOCK)
		}
		inguest.SetParam(t, "leak", "take", "0")
		if got := inguest.Param(t, "leak", "held"); got != "0" {
			t.Errorf("leak holds %s references after dropping the only one", got)
		}
	})
	t.Run("leak at init", func(t *testing.T) {
		inguest.Load(t, "leak", "take_at_init=1")
		if err := inguest.Unload("leak"); !errors.Is(err, unix.EWOULDBLOCK) {
			t.Errorf("unloading leak that took a reference at init: %v, want %v", err, unix.EWOULDBLOCK)
		}
		inguest.SetParam(t, "leak", "take", "0")
	})
}

// Every kind must hang until released, and not a moment longer.
func TestHang(t *testing.T) {
	inguest.Require(t)
	inguest.Load(t, "release")
	for _, kind := range []string{"completion", "work", "workqueue", "kthread", "mutex", "rwsem", "srcu", "netdev", "spin", "sysfs"} {
		t.Run(kind, func(t *testing.T) {
			inguest.SetParam(t, "release", "go", "0")
			inguest.Load(t, "hang", "kind="+kind)
			reader := make(chan error, 1)
			if kind == "sysfs" {
				startReader(t, "/sys/kernel/hang/block", reader)
			} else {
				reader <- nil
			}
			unloaded := make(chan error, 1)
			go func() { unloaded <- inguest.Unload("hang") }()
			select {
			case err := <-unloaded:
				t.Errorf("hang did not hang: %v", err)
			case <-time.After(150 * time.Millisecond):
				if err := inguest.Unload("hang"); !errors.Is(err, unix.EBUSY) {
					t.Errorf("unloading it again meanwhile: %v, want %v", err, unix.EBUSY)
				}
				inguest.SetParam(t, "release", "go", "1")
				if err := <-unloaded; err != nil {
					t.Error(err)
				}
			}
			if err := <-reader; err != nil {
				t.Errorf("reading the attribute: %v", err)
			}
		})
	}
}

// startReader reads a file in another process and returns when it is in the
// read.
func startReader(t *testing.T, file string, done chan<- error) {
	t.Helper()
	cmd := exec.Command("head", "-c", "1", file)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	inguest.Eventually(t, 5*time.Second, "a reader blocked in "+file, func() bool {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid))
		return err == nil && strings.Contains(string(stat), ") D ")
	})
	go func() { done <- cmd.Wait() }()
}

func TestNotifier(t *testing.T) {
	inguest.Require(t)
	inguest.Load(t, "notifier", "sleep_ms=80")
	inguest.Load(t, "empty")
	start := time.Now()
	if err := inguest.Unload("empty"); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took < 70*time.Millisecond {
		t.Errorf("unloading empty took %v, the notifier alone should take 80ms", took)
	}
}

func TestDevice(t *testing.T) {
	inguest.Require(t)
	inguest.Load(t, "device", "count=3", "sleep_ms=30")
	start := time.Now()
	if err := inguest.Unload("device"); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took < 60*time.Millisecond {
		t.Errorf("unloading three devices took %v, each should take 30ms", took)
	}
}

// While a grace period is held up, an unload sits in it with module_mutex, and
// another one waits for that mutex, where a signal ends it.
func TestConvoy(t *testing.T) {
	inguest.Require(t)
	inguest.PinToCPU0(t)
	inguest.Load(t, "rcuhog")
	inguest.Load(t, "empty")
	inguest.Load(t, "many00")
	start := time.Now()
	inguest.SetParam(t, "rcuhog", "hold_ms", "1500")
	inguest.Eventually(t, time.Second, "rcuhog holding", func() bool {
		return inguest.Param(t, "rcuhog", "holding") == "Y"
	})
	first := make(chan error, 1)
	go func() { first <- inguest.Unload("empty") }()
	// Not by /proc/modules: reading that waits for module_mutex too.
	inguest.Eventually(t, time.Second, "empty gone from sysfs", func() bool {
		_, err := os.Stat("/sys/module/empty")
		return errors.Is(err, os.ErrNotExist)
	})
	time.Sleep(100 * time.Millisecond)
	if err := exec.Command("timeout", "-s", "INT", "0.5", "rmmod", "many00").Run(); err == nil {
		t.Error("an unload went through while another held module_mutex")
	}
	if err := <-first; err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took < 1400*time.Millisecond {
		t.Errorf("the unload did not wait for the grace period: %v", took)
	}
	if !inguest.Loaded("many00") {
		t.Error("the interrupted unload happened after all")
	}
}

func TestMany(t *testing.T) {
	inguest.Require(t)
	image, err := os.ReadFile(filepath.Join(inguest.Fixtures, "many00.ko"))
	if err != nil {
		t.Fatal(err)
	}
	const count = 50
	for i := range count {
		name := fmt.Sprintf("many%02d", i)
		copied, err := lab.RenameModule(image, "many00", name)
		if err != nil {
			t.Fatal(err)
		}
		if err := inguest.LoadBytes(copied); err != nil {
			t.Fatal(err)
		}
		if !inguest.Loaded(name) {
			t.Fatalf("%s is not in /proc/modules", name)
		}
	}
	errs := make(chan error, count)
	for i := range count {
		go func() { errs <- inguest.Unload(fmt.Sprintf("many%02d", i)) }()
	}
	for range count {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

// Debian's own tools must be the ones in the PATH, and work.
func TestKmod(t *testing.T) {
	inguest.Require(t)
	run := func(wantErr bool, args ...string) string {
		t.Helper()
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		if (err != nil) != wantErr {
			t.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	if out := run(false, "rmmod", "--version"); !strings.HasPrefix(out, "kmod version") {
		t.Errorf("rmmod is not kmod's: %q", out)
	}
	run(false, "modprobe", "user")
	if out := run(true, "rmmod", "busy"); !strings.Contains(out, "is in use by: user") {
		t.Errorf("rmmod refused busy with %q", out)
	}
	run(false, "modprobe", "-r", "user")
	if inguest.Loaded("busy") {
		t.Error("modprobe -r left busy behind")
	}
	// A module of the kernel's own, with something that it needs.
	run(false, "modprobe", "veth")
	if !inguest.Loaded("veth") {
		t.Error("veth is not loaded")
	}
	run(false, "rmmod", "veth")
}
