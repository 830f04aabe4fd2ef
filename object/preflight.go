package object

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Capability is one that tracing needs, and what for.
type Capability struct {
	Name     string `json:"name"`
	For      string `json:"for"`
	Required bool   `json:"required"`
	Held     bool   `json:"held"`
}

// Capabilities lists what tracing needs and what of it the calling thread
// holds (capabilities(7)).
func Capabilities() ([]Capability, error) {
	effective, err := effectiveCapabilities()
	if err != nil {
		return nil, err
	}
	has := func(c uint) bool { return effective&(1<<c) != 0 }
	admin := has(unix.CAP_SYS_ADMIN)
	return []Capability{
		{"CAP_BPF", "loading BPF programs", true, has(unix.CAP_BPF) || admin},
		{"CAP_PERFMON", "attaching them to kernel functions", true, has(unix.CAP_PERFMON) || admin},
		{"CAP_SYS_RESOURCE", "locking memory for BPF, before kernel 5.11", false, has(unix.CAP_SYS_RESOURCE)},
		{"CAP_SYSLOG", "naming kernel functions", false, has(unix.CAP_SYSLOG)},
		{"CAP_SYS_PTRACE", "reading who the caller is", false, has(unix.CAP_SYS_PTRACE)},
		{"CAP_DAC_READ_SEARCH", "naming the caller's cgroup", false, has(unix.CAP_DAC_READ_SEARCH)},
	}, nil
}

func effectiveCapabilities() (uint64, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return 0, fmt.Errorf("reading capabilities: %w", err)
	}
	return uint64(data[0].Effective) | uint64(data[1].Effective)<<32, nil
}

// confidentiality is the mode in which not even root may read the kernel's memory.
const confidentiality = "confidentiality"

// Lockdown is the kernel's lockdown mode: none, integrity or confidentiality;
// "" when it cannot be read (Documentation/admin-guide/LSM/lockdown).
func Lockdown() string {
	b, err := os.ReadFile("/sys/kernel/security/lockdown")
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(string(b), "[")
	mode, _, _ := strings.Cut(rest, "]")
	return mode
}

// Preflight checks what must be so before BPF is touched. btfFile, if not "",
// holds the kernel's types. The error is an [*Unable].
func Preflight(btfFile string) error {
	if err := HasModules(); err != nil {
		return err
	}
	if err := HasCapabilities(); err != nil {
		return err
	}
	return HasTypes(btfFile)
}

// HasModules says what is wrong where the kernel has no modules.
func HasModules() error {
	_, err := os.Stat("/proc/modules")
	if errors.Is(err, fs.ErrNotExist) {
		return &Unable{
			What:   "this kernel has no loadable modules",
			Why:    "/proc/modules does not exist: it is built without CONFIG_MODULES, or /proc is not mounted",
			Remedy: "run modtrace on a kernel with CONFIG_MODULES=y",
			Err:    err,
		}
	}
	return nil
}

// HasCapabilities says which of the required ones are not held.
func HasCapabilities() error {
	caps, err := Capabilities()
	if err != nil {
		return err
	}
	var lacking, purposes []string
	for _, c := range caps {
		if c.Required && !c.Held {
			lacking = append(lacking, c.Name)
			purposes = append(purposes, c.Name+" is needed for "+c.For)
		}
	}
	if lacking == nil {
		return nil
	}
	return &Unable{
		What:   "not permitted to trace",
		Why:    strings.Join(purposes, "; "),
		Remedy: "run modtrace as root (sudo), or give it " + strings.Join(lacking, " and "),
	}
}

// HasTypes says what is wrong where the kernel does not describe its types.
func HasTypes(btfFile string) error {
	if btfFile != "" {
		return nil
	}
	_, err := os.Stat("/sys/kernel/btf/vmlinux")
	if err != nil {
		return &Unable{
			What:   "this kernel does not describe its types",
			Why:    "/sys/kernel/btf/vmlinux does not exist: it is built without CONFIG_DEBUG_INFO_BTF, or /sys is not mounted",
			Remedy: "give the kernel's BTF with --btf FILE (made from its debug symbols by `pahole --btf_encode_detached`)",
			Err:    err,
		}
	}
	return nil
}
