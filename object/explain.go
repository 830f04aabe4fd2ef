package object

import (
	"errors"
	"io/fs"

	"golang.org/x/sys/unix"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// Explain turns an error of the BPF library, whose words are for those who
// write BPF, into what a user can act on.
func Explain(what string, err error) error {
	u := &Unable{What: "failed " + what, Err: err}
	mode := Lockdown()
	var verifier *ebpf.VerifierError
	denied := (errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES)) && !errors.As(err, &verifier)
	switch {
	case mode == confidentiality || denied && mode == "integrity":
		u.Why = "the kernel is locked down (" + mode + ") and does not permit it"
		u.Remedy = "boot without lockdown=" + mode + ", or a kernel on which `modtrace check` shows fentry and fexit"
	case denied:
		u.Why = "the kernel does not permit it"
		u.Remedy = "run as root in the initial user namespace; in a container, allow bpf(2) and perf_event_open(2) and give CAP_BPF, CAP_PERFMON and, before kernel 5.11, CAP_SYS_RESOURCE"
	case errors.Is(err, ErrNoTarget) || errors.Is(err, fs.ErrNotExist):
		u.Why = "this kernel has no such function"
		u.Remedy = "run on a kernel with CONFIG_MODULES and CONFIG_MODULE_UNLOAD; `modtrace check` lists what else is missing"
	case errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.ENOMEM):
		u.Why = "the kernel has no memory left for it"
		u.Remedy = "free memory, or raise the memory limit of the cgroup modtrace runs in"
	case errors.Is(err, unix.ENOSYS):
		u.Why = "this kernel is built without CONFIG_BPF_SYSCALL"
		u.Remedy = "run on a kernel with CONFIG_BPF_SYSCALL=y"
	default:
		u.Why = "this kernel refuses the program: " + Shortly(err)
		u.Remedy = "run on Linux 5.10 or newer; `modtrace check` lists what this kernel offers"
	}
	return u
}

// Shortly names an error's kind in a few words.
func Shortly(err error) string {
	var verifier *ebpf.VerifierError
	switch {
	case err == nil:
		return "not tried"
	case errors.Is(err, ErrNoTarget), errors.Is(err, fs.ErrNotExist):
		return "not in this kernel"
	case errors.As(err, &verifier):
		return "the verifier rejects it"
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return "not permitted"
	case errors.Is(err, btf.ErrMultipleMatches):
		return "the kernel's types have it twice"
	case errors.Is(err, ebpf.ErrNotSupported):
		return "not supported by this kernel"
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EBUSY):
		return "may not be traced"
	}
	var errno unix.Errno
	if errors.As(err, &errno) {
		return unix.ErrnoName(errno)
	}
	return "failed"
}
