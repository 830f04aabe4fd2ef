package unload

// PhaseName names one stretch of the unload path, in the kernel's own terms.
type PhaseName string

// The phases in the order in which the kernel goes through them
// (kernel/module/main.c, delete_module and free_module). Each ends where the
// next begins, so that their durations add up to the system call's.
const (
	Enter      PhaseName = "enter"       // permission, name, audit, waiting for module_mutex
	Check      PhaseName = "check"       // looking the module up and deciding
	Exit       PhaseName = "exit"        // the module's own exit function
	Notify     PhaseName = "notify"      // MODULE_STATE_GOING notifiers
	Livepatch  PhaseName = "livepatch"   // klp_module_going
	Ftrace     PhaseName = "ftrace"      // ftrace_release_mod
	Async      PhaseName = "async"       // async_synchronize_full
	FreeSysfs  PhaseName = "free.sysfs"  // free_module up to the end of mod_sysfs_teardown
	FreeArch   PhaseName = "free.arch"   // state UNFORMED, module_arch_cleanup
	FreeDeps   PhaseName = "free.deps"   // module_unload_free
	FreeParams PhaseName = "free.params" // parameters, livepatch data, taking module_mutex again
	FreeUnlink PhaseName = "free.unlink" // off the list, and the grace period under module_mutex
	FreeMemory PhaseName = "free.memory" // arguments, per-CPU area, memory
	Return     PhaseName = "return"      // waking waiters, leaving the system call
)

// PhaseNames lists every phase in the kernel's order.
func PhaseNames() []PhaseName {
	return []PhaseName{
		Enter, Check, Exit, Notify, Livepatch, Ftrace, Async, FreeSysfs,
		FreeArch, FreeDeps, FreeParams, FreeUnlink, FreeMemory, Return,
	}
}

// Phase is one stretch of an unload. Durations and offsets are nanoseconds of
// CLOCK_MONOTONIC; OnCPU and OffCPU add up to Duration.
type Phase struct {
	Name     PhaseName `json:"name"`
	Offset   int64     `json:"offset_ns"` // from the start of the system call
	Duration int64     `json:"duration_ns"`
	OnCPU    int64     `json:"on_cpu_ns"`
	OffCPU   int64     `json:"off_cpu_ns"`

	// Exact says that both boundaries were seen. Where the kernel does not
	// let a boundary be seen, the phases behind it are in Merged, in order,
	// and their time is part of this one's.
	Exact  bool        `json:"exact"`
	Merged []PhaseName `json:"merged"`

	Waits []Wait `json:"waits"`
	Hot   []Hot  `json:"hot"`
}

// Wait is a reason for which the unloading task was off the CPU; waits of one
// cause and stack are folded.
type Wait struct {
	Cause    string   `json:"cause"`
	Count    int64    `json:"count"`
	Duration int64    `json:"duration_ns"`
	Blocker  Blocker  `json:"blocker"`
	Waker    Blocker  `json:"waker"`
	Stack    []string `json:"stack"`
}

// Blocker is who is waited for, or who ended the wait, as far as it is known.
type Blocker struct {
	Kind     string `json:"kind,omitempty"`
	PID      int    `json:"pid,omitempty"`
	Comm     string `json:"comm,omitempty"`
	Function string `json:"function,omitempty"`
	Module   string `json:"module,omitempty"`
	Detail   string `json:"detail,omitempty"`
}

// Hot is a stack in which the unloading task was found running.
type Hot struct {
	Samples int64    `json:"samples"`
	Stack   []string `json:"stack"`
}
