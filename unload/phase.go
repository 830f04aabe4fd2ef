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
// cause, blocker and stack are folded. The waits of a phase add up to its time
// off the CPU, but for events that were lost.
type Wait struct {
	Cause    Cause    `json:"cause"`
	Count    int64    `json:"count"`
	Duration int64    `json:"duration_ns"`
	Longest  int64    `json:"longest_ns"`
	Blocker  Blocker  `json:"blocker"` // who was waited for
	Waker    Blocker  `json:"waker"`   // who ended the longest of them
	Stack    []string `json:"stack"`   // innermost first: function+0xoffset [module]
	// Callbacks is how many RCU callbacks of the whole machine were pending when an
	// rcu_barrier began to wait, the most of those folded here; 0 unknown.
	Callbacks int64 `json:"callbacks,omitempty"`
}

// Cause classifies a wait by what the kernel was doing.
type Cause string

// The causes.
const (
	CauseRCU         Cause = "rcu_grace_period"
	CauseRCUBarrier  Cause = "rcu_barrier"
	CauseSRCU        Cause = "srcu"
	CauseMutex       Cause = "mutex"
	CauseRWSem       Cause = "rwsem"
	CauseCompletion  Cause = "completion"
	CauseWorkqueue   Cause = "workqueue"
	CauseKthreadStop Cause = "kthread_stop"
	CauseTimer       Cause = "timer" // a timer's callback is waited for
	CauseSleep       Cause = "sleep" // the code asked for so much time
	CauseKernfsDrain Cause = "kernfs_drain"
	CauseDeviceUsers Cause = "device_users"
	CauseNetdevUsers Cause = "netdev_users"
	CauseAsyncWork   Cause = "async_work"
	CauseBlockFreeze Cause = "block_freeze"
	CauseIO          Cause = "io"
	CausePreempted   Cause = "preempted" // it could have run, others did
	CauseOther       Cause = "other"
)

// Causes lists every cause.
func Causes() []Cause {
	return []Cause{
		CauseRCU, CauseRCUBarrier, CauseSRCU, CauseMutex, CauseRWSem, CauseCompletion,
		CauseWorkqueue, CauseKthreadStop, CauseTimer, CauseSleep, CauseKernfsDrain,
		CauseDeviceUsers, CauseNetdevUsers, CauseAsyncWork, CauseBlockFreeze, CauseIO,
		CausePreempted, CauseOther,
	}
}

// Blocker is who is waited for, or who ended the wait, as far as it is known.
type Blocker struct {
	Kind     string   `json:"kind,omitempty"` // the values of Kind* below
	PID      int      `json:"pid,omitempty"`
	Comm     string   `json:"comm,omitempty"`
	Function string   `json:"function,omitempty"` // the work function, the timer's
	Module   string   `json:"module,omitempty"`   // that Function belongs to
	Detail   string   `json:"detail,omitempty"`   // a workqueue, interface or file by name; further calls
	Stack    []string `json:"stack,omitempty"`    // what it was doing
	// Candidates says, when it is above 1, that the blocker is one of so many
	// and that it is not known which.
	Candidates int   `json:"candidates,omitempty"`
	Users      int64 `json:"users,omitempty"` // of an interface, as the kernel counts them
}

// Kinds of blockers and wakers.
const (
	KindTask      = "task"      // a process or kernel thread: the owner of a lock, a thread to stop
	KindWork      = "work"      // a work item; PID and Comm are its worker's
	KindWorkqueue = "workqueue" // all work of a queue, named by Detail
	KindInterface = "interface" // a network interface, named by Detail
	KindFile      = "file"      // an open file, named by Detail; PID and Comm are who is in it
	KindInterrupt = "interrupt" // an interrupt or timer ended the wait, no task
)

// Hot is a stack in which the unloading task was found running.
type Hot struct {
	Samples int64    `json:"samples"`
	Stack   []string `json:"stack"`
}
