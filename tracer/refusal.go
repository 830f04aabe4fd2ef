package tracer

import (
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/modtrace/modtrace/bpf"
	"github.com/modtrace/modtrace/unload"
)

// inFlight stands for the result of an unload that has none yet. The kernel
// has no such error number.
const inFlight = -1 << 32

// States of a module (include/linux/module.h, enum module_state).
const (
	stateComing = 1
	stateGoing  = 2
)

// result decodes the kernel's answer. An error number stands for several
// reasons; the module's state when the kernel looked it up tells them apart
// (kernel/module/main.c, delete_module).
func result(e *bpf.UnloadEnd, modulesDisabled func() bool) unload.Result {
	r := unload.Result{By: unload.ByKernel, Reason: unload.ReasonUnknown}
	switch {
	case e.Died != 0 || e.Result == inFlight:
		return r
	case e.Result == 0:
		r.OK, r.Reason = true, unload.ReasonNone
		return r
	}
	errno := syscall.Errno(-e.Result)
	r.Errno = unix.ErrnoName(errno)
	r.Reason = reason(errno, e, modulesDisabled)
	return r
}

func reason(errno syscall.Errno, e *bpf.UnloadEnd, modulesDisabled func() bool) unload.Reason {
	switch errno {
	case unix.ENOENT:
		return unload.ReasonNotFound
	case unix.EINTR:
		return unload.ReasonInterrupted
	case unix.EFAULT:
		return unload.ReasonBadAddress
	case unix.EWOULDBLOCK:
		return blockedBy(e)
	case unix.EBUSY:
		return busyBecause(e)
	case unix.EPERM, unix.EACCES:
		return forbiddenBecause(e, modulesDisabled)
	}
	return unload.ReasonUnknown
}

func blockedBy(e *bpf.UnloadEnd) unload.Reason {
	switch {
	case e.Module == 0:
		return unload.ReasonUnknown
	case e.HasUsers != 0:
		return unload.ReasonDependents
	}
	return unload.ReasonReferenced
}

func busyBecause(e *bpf.UnloadEnd) unload.Reason {
	switch {
	case e.Module == 0:
		return unload.ReasonUnknown
	case e.State == stateComing:
		return unload.ReasonLoading
	case e.State == stateGoing:
		return unload.ReasonUnloading
	case e.HasInit != 0 && e.HasExit == 0:
		return unload.ReasonNoExit
	}
	return unload.ReasonUnknown
}

// forbiddenBecause asks in the kernel's order: the capability first, then the
// switch that turns all loading and unloading off. With both in order it was a
// security module that said no.
func forbiddenBecause(e *bpf.UnloadEnd, modulesDisabled func() bool) unload.Reason {
	switch {
	case e.NoCapability != 0:
		return unload.ReasonNoCapability
	case modulesDisabled():
		return unload.ReasonModulesDisabled
	}
	return unload.ReasonDenied
}

// refusedBeforeLookup says that the kernel gave up before it looked for the
// module, going by the answer alone.
func refusedBeforeLookup(e *bpf.UnloadEnd) bool {
	switch syscall.Errno(-e.Result) {
	case unix.EPERM, unix.EACCES, unix.EFAULT, unix.EINTR:
		return true
	}
	return e.Module == 0
}

// flagNames names the flags of delete_module that mean something to the
// kernel, and says whether force was asked for.
func flagNames(flags uint32) (names []string, forced bool) {
	names = []string{}
	if flags&unix.O_NONBLOCK != 0 {
		names = append(names, "O_NONBLOCK")
	}
	if flags&unix.O_TRUNC != 0 {
		names = append(names, "O_TRUNC")
	}
	return names, flags&unix.O_TRUNC != 0
}

// taintNames names the taints that a module can carry
// (include/linux/panic.h, TAINT_*).
func taintNames(taints uint64) []string {
	known := []struct {
		bit  uint
		name string
	}{
		{0, "proprietary"}, {1, "forced_load"}, {10, "staging"}, {12, "out_of_tree"},
		{13, "unsigned"}, {15, "livepatch"}, {16, "auxiliary"}, {18, "test"},
	}
	names := []string{}
	for _, k := range known {
		if taints&(1<<k.bit) != 0 {
			names = append(names, k.name)
		}
	}
	return names
}
