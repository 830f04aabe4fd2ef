// SPDX-License-Identifier: MIT

package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/modtrace/modtrace/test/lab/wire"
)

// defaultTimeout ends a machine that nobody gave a time.
const defaultTimeout = 5 * time.Minute

// Machine describes a virtual machine and the one command that it runs.
type Machine struct {
	// Kernel is the kernel to boot.
	Kernel *Kernel
	// Args is the command. It is looked up in the guest's PATH.
	Args []string
	// Env is added to the command's environment.
	Env []string
	// WorkDir is the command's directory in the guest; empty means /.
	WorkDir string
	// Stdin is read by the command; nil means an empty one.
	Stdin io.Reader
	// Stdout and Stderr take what the command writes; nil discards it.
	Stdout, Stderr io.Writer
	// Console takes the kernel's console as it comes; nil keeps only the tail.
	Console io.Writer
	// Terminal, when given, is the command's terminal instead of the streams.
	Terminal *Terminal
	// Signals are passed on to the command and its children.
	Signals <-chan os.Signal
	// Initrd has the files for the guest; nil means the base image alone. Start
	// it with Lab.Initrd.
	Initrd *Initrd
	// Load names modules that are loaded with modprobe before the command runs;
	// they must be in the Initrd.
	Load []string
	// Disks are files of the host that the guest has as disks.
	Disks []Disk
	// Devices are further ones that the guest has, as QEMU takes them.
	Devices []string
	// Collect are files of the guest that are copied to the host when the command
	// has ended: from the guest's path to the host's.
	Collect map[string]string
	// MemoryMB is the guest's memory; 0 means 1024.
	MemoryMB int
	// CPUs is the number of processors; 0 means 2.
	CPUs int
	// KernelArgs are added to the kernel's command line.
	KernelArgs []string
	// CountInstructions makes the guest's clock count its instructions, on one
	// processor: figures that do not depend on what else this machine does.
	CountInstructions bool
	// Timeout ends a machine that takes longer; 0 means five minutes, and a
	// negative one none.
	Timeout time.Duration
}

// Result is how a machine ended.
type Result struct {
	// ExitCode is the command's exit status, 128+n for a signal.
	ExitCode int
	// Signal is the signal that ended the command, or 0.
	Signal int
	// Release is the guest's uname -r.
	Release string
	// Booted is the time from QEMU's start to the guest's init.
	Booted time.Duration
	// Took is the time from QEMU's start to its end.
	Took time.Duration
	// Console is the tail of what the kernel wrote.
	Console string
}

// BootError says that a machine ended without saying how its command did.
type BootError struct {
	Reason  string
	Console string // the tail of the kernel's console
}

func (e *BootError) Error() string {
	if e.Console == "" {
		return e.Reason + "; the console is empty"
	}
	return fmt.Sprintf("%s; the console's end:\n%s", e.Reason, e.Console)
}

// Disk is one that a guest has.
type Disk struct {
	Device string // what QEMU calls its kind: nvme, virtio-blk-pci
	File   string // on the host, with what is on it
}

// platform is what differs between architectures.
type platform struct {
	program, pkg     string // and the Debian package that it is in
	args             []string
	append           string // for the kernel
	control, console string // devices in the guest
}

func platformOf(arch string) (platform, error) {
	switch arch {
	case "amd64":
		return platform{
			program: "qemu-system-x86_64", pkg: "qemu-system-x86",
			args: []string{"-machine", "q35", "-cpu", "max", "-serial", "chardev:console", "-serial", "chardev:control"},
			// Emulated processors share one counter, but Linux does not trust it and
			// falls back to a device that takes microseconds to read. And while it boots
			// it wants ticks of its timer within so many turns of a loop, which do not
			// come when the host is busy, and gives up.
			append:  "tsc=reliable no_timer_check",
			console: "ttyS0", control: "ttyS1",
		}, nil
	case "arm64":
		// The virt machine has one serial port of its own; the second is on PCI.
		return platform{
			program: "qemu-system-aarch64", pkg: "qemu-system-arm",
			args:    []string{"-machine", "virt", "-cpu", "max,pauth-impdef=on", "-serial", "chardev:console", "-device", "pci-serial,chardev=control"},
			console: "ttyAMA0", control: "ttyS0",
		}, nil
	}
	return platform{}, fmt.Errorf("no machine for architecture %q", arch)
}

// commandLine returns QEMU's arguments; the console and the control line are the
// file descriptors 3 and 4.
func (m *Machine) commandLine(p platform, initrd string) []string {
	cpus, mem := m.CPUs, m.MemoryMB
	if cpus == 0 {
		cpus = 2
	}
	if mem == 0 {
		mem = 1024
	}
	if m.CountInstructions {
		cpus = 1
	}
	args := []string{
		"-nodefaults", "-display", "none", "-no-reboot", "-monitor", "none",
		// The processors take turns in one thread. With a thread each, QEMU may
		// go on running code that another processor has just patched (it drops
		// its translation before the store, and may make it again in between),
		// and attaching a tracer to a busy tracepoint kills the guest now and then.
		"-accel", "tcg,thread=single", "-smp", strconv.Itoa(cpus), "-m", strconv.Itoa(mem) + "M",
		"-chardev", "socket,id=console,fd=3", "-chardev", "socket,id=control,fd=4",
		"-kernel", m.Kernel.Vmlinuz(), "-initrd", initrd,
		"-append", m.append(p),
	}
	if m.CountInstructions {
		args = append(args, "-icount", "shift=0,sleep=off")
	}
	for i, d := range m.Disks {
		args = append(args, "-drive", fmt.Sprintf("if=none,id=disk%d,format=raw,file=%s", i, strings.ReplaceAll(d.File, ",", ",,")),
			"-device", fmt.Sprintf("%s,drive=disk%d,serial=disk%[2]d", d.Device, i))
	}
	for _, d := range m.Devices {
		args = append(args, "-device", d)
	}
	return append(args, p.args...)
}

func (m *Machine) append(p platform) string {
	args := []string{"console=" + p.console, "quiet", "panic=-1", "rdinit=/init", p.append}
	return strings.Join(append(args, m.KernelArgs...), " ")
}

// Run boots a machine, runs its command and waits for the end. A command that
// failed is no error; a machine that ended without one, or did not end, is.
func (l *Lab) Run(ctx context.Context, m *Machine) (*Result, error) {
	p, err := platformOf(m.Kernel.Series.Arch)
	if err != nil {
		return nil, err
	}
	emulator, err := l.emulator(ctx, m.Kernel.Series.Arch)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(l.dir, ".run-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	initrd := filepath.Join(dir, "initrd")
	if err := l.writeInitrd(ctx, m, p, initrd); err != nil {
		return nil, fmt.Errorf("making the initrd: %w", err)
	}
	leave, err := l.enter(ctx, m)
	if err != nil {
		return nil, err
	}
	defer leave()
	timeout := m.Timeout
	if timeout == 0 {
		timeout = defaultTimeout
	}
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, timeout, fmt.Errorf("not done after %s", timeout))
		defer cancel()
	}
	s, err := startSession(m, p, emulator, initrd)
	if err != nil {
		return nil, err
	}
	return s.wait(ctx)
}

func (l *Lab) writeInitrd(ctx context.Context, m *Machine, p platform, file string) error {
	base := m.Initrd
	if base == nil {
		var err error
		if base, err = l.Initrd(ctx, m.Kernel); err != nil {
			return err
		}
	}
	job := wire.Job{
		Args: m.Args, Env: m.Env, Dir: m.WorkDir, Modules: m.Load,
		Control: "/dev/" + p.control, Console: "/dev/" + p.console,
		UnixNano: time.Now().UnixNano(),
	}
	if m.Terminal != nil {
		job.Interactive, job.Size = true, m.Terminal.size()
	}
	for path := range m.Collect {
		job.Collect = append(job.Collect, path)
	}
	data, err := json.Marshal(job)
	if err != nil {
		return err
	}
	a := base.Clone()
	a.AddFile(wire.JobPath, 0o644, data)
	return os.WriteFile(file, a.Bytes(), 0o644)
}
