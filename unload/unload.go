// Package unload is the model of what modtrace reports: an attempt to unload a
// kernel module, its phases, its result and who caused it. It is plain Go and
// imports nothing of this project, so that reports can be made and read on any
// machine.
//
// The JSON form of these types is a contract with users' scripts: one object a
// line, told apart by "type". Names are never changed; fields are only added.
package unload

import "time"

// Schema is the version of the JSON form, in every [Header].
const Schema = 1

// The values of a record's Type.
const (
	TypeHeader  = "header"
	TypeUnload  = "unload"
	TypeStall   = "stall"
	TypeReload  = "reload"
	TypeWhy     = "why"
	TypeBalance = "balance"
	TypeRefs    = "refs"
	TypeRef     = "ref"
	TypeTrailer = "trailer"
	TypeSummary = "summary"
	TypeDiff    = "diff"
)

// Unload is one attempt to unload a module, successful or refused.
type Unload struct {
	Type     string    `json:"type"`
	Module   string    `json:"module"`
	Start    time.Time `json:"start"`
	Duration int64     `json:"duration_ns"`

	Flags  []string `json:"flags"`  // as given to delete_module: O_NONBLOCK, O_TRUNC
	Forced bool     `json:"forced"` // the caller asked for force (O_TRUNC)

	// Outcome says whether there is a result at all.
	Outcome  Outcome  `json:"outcome"`
	Result   Result   `json:"result"`
	Caller   Caller   `json:"caller"`
	Refcount Refcount `json:"refcount"`
	Phases   []Phase  `json:"phases"`

	Notifiers []Notifier `json:"notifiers"`
	Devices   []Device   `json:"devices"`
	// Holders are those of a module that was refused for being in use, right after
	// that. HoldersKnown says that they were looked for: not where refusals come too
	// fast, nor in a recording.
	Holders      []Holder    `json:"holders"`
	HoldersKnown bool        `json:"holders_known"`
	Dependents   []string    `json:"dependents"`
	References   []Reference `json:"references"`
	Convoy       []Waiter    `json:"convoy"` // longest wait first
	Log          []LogLine   `json:"log"`
	// Residue is what is left of a module that was unloaded, in words.
	// ResidueKnown says that it was looked for: not in a recording, not where
	// unloads come too fast, nor once the module is back.
	Residue      []string `json:"residue"`
	ResidueKnown bool     `json:"residue_known"`

	Memory Memory   `json:"memory"`
	Taints []string `json:"taints"`
	Signed bool     `json:"signed"`

	// Unaccounted is the part of Duration that no phase covers; it is not 0
	// only in a record that is not complete.
	Unaccounted int64 `json:"unaccounted_ns"`
	// LostEvents counts events of this unload that the kernel side could not
	// hand over.
	LostEvents int64 `json:"lost_events"`
	// Complete says that every boundary that this kernel shows was seen and
	// that no event was lost. Missing says in words what was not.
	Complete bool     `json:"complete"`
	Missing  []string `json:"missing"`
}

// Outcome says how an attempt ended.
type Outcome string

// The outcomes.
const (
	Returned Outcome = "returned"  // with a result
	InFlight Outcome = "in_flight" // not yet, when tracing ended
	Died     Outcome = "died"      // its task died inside the kernel
	Unseen   Outcome = "unseen"    // the record of its end was lost
)

// Result is the kernel's answer, and the reason behind its error number.
type Result struct {
	OK     bool   `json:"ok"`
	Errno  string `json:"errno"` // symbolic, "" on success
	Reason Reason `json:"reason"`
	By     string `json:"by"` // "kernel", or "userspace" when a tool refused by itself
}

// Kind is what a caller can meet with.
type Kind string

// The kinds of results.
const (
	Unloaded   Kind = "ok"
	Refused    Kind = "refused"
	Unanswered Kind = "unanswered" // no answer was seen: it hangs, died, or the record was lost
)

// Kind says what the caller met with.
func (r Result) Kind() Kind {
	switch {
	case r.OK:
		return Unloaded
	case r.Errno != "" || r.By == ByUserspace:
		return Refused
	case r.Reason == "" || r.Reason == ReasonNone || r.Reason == ReasonUnknown:
		return Unanswered
	}
	return Refused
}

// Who gave the answer.
const (
	ByKernel    = "kernel"
	ByUserspace = "userspace"
)

// Reason says why an unload was refused. An error number alone does not: one
// number stands for several reasons.
type Reason string

// The reasons.
const (
	ReasonNone            Reason = "none" // it was unloaded
	ReasonDependents      Reason = "dependents"
	ReasonReferenced      Reason = "referenced"
	ReasonNoExit          Reason = "no_exit"
	ReasonLoading         Reason = "loading"
	ReasonUnloading       Reason = "unloading"
	ReasonNotFound        Reason = "not_found"
	ReasonNoCapability    Reason = "no_capability"
	ReasonModulesDisabled Reason = "modules_disabled"
	ReasonInterrupted     Reason = "interrupted"
	ReasonBadAddress      Reason = "bad_address"
	ReasonDenied          Reason = "denied" // by a security module
	ReasonUnknown         Reason = "unknown"
	// Only of a module that is looked at without unloading it.
	ReasonBuiltIn  Reason = "built_in"
	ReasonNoUnload Reason = "no_unload" // the kernel is built without unloading
)

// Reasons lists why the kernel, or a tool in its place, refuses.
func Reasons() []Reason {
	return []Reason{
		ReasonDependents, ReasonReferenced, ReasonNoExit, ReasonLoading, ReasonUnloading, ReasonNotFound,
		ReasonNoCapability, ReasonModulesDisabled, ReasonInterrupted, ReasonBadAddress, ReasonDenied, ReasonUnknown,
	}
}

// Caller is the task that asked for the unload.
type Caller struct {
	PID       int        `json:"pid"`
	TID       int        `json:"tid"`
	PPID      int        `json:"ppid"`
	UID       int        `json:"uid"`
	Comm      string     `json:"comm"`
	Exe       string     `json:"exe"`
	Cmdline   []string   `json:"cmdline"`
	Cgroup    string     `json:"cgroup"`
	Ancestors []Ancestor `json:"ancestors"` // nearest first
}

// Ancestor is a process above the caller.
type Ancestor struct {
	PID  int    `json:"pid"`
	Comm string `json:"comm"`
}

// Refcount is the module's reference count as lsmod shows it.
type Refcount struct {
	Before int64 `json:"before"` // when the kernel looked at it; 0 when it never did
}

// Reference is a reference taken or dropped by the unloading task within the
// unload.
type Reference struct {
	Op     string    `json:"op"` // get or put
	Module string    `json:"module"`
	Offset int64     `json:"offset_ns"`
	Phase  PhaseName `json:"phase"`
	Site   string    `json:"site"`  // the function it was done in, "" when not known
	Count  int64     `json:"count"` // of Module, after it
}

// Notifier is a callback on the module notifier chain. Exact says that its beginning
// and end were seen. Otherwise the time of those that follow on the chain and cannot
// be seen counts into it; where none can be seen, only those are known that took long,
// by their waits, and by how often they were found running.
type Notifier struct {
	Callback string `json:"callback"`
	Module   string `json:"module"`
	Duration int64  `json:"duration_ns"`
	Exact    bool   `json:"exact"`
}

// Device is a device that the exit function detached.
type Device struct {
	Device   string `json:"device"`
	Driver   string `json:"driver"`
	Duration int64  `json:"duration_ns"`
}

// LogLine is what the kernel logged during the unload.
type LogLine struct {
	Offset int64     `json:"offset_ns"`
	Phase  PhaseName `json:"phase"`
	Level  int       `json:"level"` // 0 to 7 as in syslog(2), -1 unknown
	Text   string    `json:"text"`
}

// Waiter is a task that waited for a lock, module_mutex above all, while this
// unload held it.
type Waiter struct {
	PID      int    `json:"pid"`
	Comm     string `json:"comm"`
	Lock     string `json:"lock"`        // its name, "" when not known
	Duration int64  `json:"duration_ns"` // of its wait within the unload
}

// Memory is what the unload gave back.
type Memory struct {
	Freed int64 `json:"freed_bytes"`
}

// Stall is an unload that has been in one phase for long and still is: what is
// known of it so far. Its phases end at the time of the report.
type Stall struct {
	Unload
	Phase   PhaseName `json:"phase"`
	Elapsed int64     `json:"elapsed_ns"` // in that phase
	// Wait is the one it is in; its Count is 0 when the task runs.
	Wait Wait `json:"wait"`
	// Found says that the unload was found hanging and not watched from its
	// beginning: Elapsed is the least that it can be, and Start, the start of
	// its caller, the earliest. When its task has died, both are from then on.
	Found bool `json:"found"`
}

// Reload says that a module was loaded again soon after it was unloaded, and by
// whom. Its init function is about to run then, and may yet fail.
type Reload struct {
	Type   string    `json:"type"`
	Module string    `json:"module"`
	Start  time.Time `json:"start"`
	After  int64     `json:"after_ns"` // since the unload returned
	Loader Caller    `json:"loader"`
}

// Header opens a stream of records.
type Header struct {
	Type    string    `json:"type"`
	Schema  int       `json:"schema"`
	Tool    string    `json:"tool"`
	Kernel  string    `json:"kernel"`
	Arch    string    `json:"arch"`
	Host    string    `json:"host"`
	BootID  string    `json:"boot_id"`
	Started time.Time `json:"started"`
	Plan    []Hook    `json:"plan"`
}

// Status says what became of a hook of the plan.
type Status string

// The states of a hook.
const (
	StatusOK       Status = "ok"       // attached, or attachable as far as can be told
	StatusFallback Status = "fallback" // attached by a second choice; Reason says why
	StatusMissing  Status = "missing"  // not on this kernel; its phase merges into the one before
	StatusAbsent   Status = "absent"   // the kernel does not do this at all: nothing is missed
)

// Hook is one entry of the plan: what is watched, by which means, and what
// that makes visible. It is decided once, then executed, printed and recorded.
type Hook struct {
	Phase     PhaseName `json:"phase"`     // the phase that begins here, "" for other facts
	Sees      string    `json:"sees"`      // in words
	Function  string    `json:"function"`  // kernel function or tracepoint
	Mechanism string    `json:"mechanism"` // fentry, fexit, kprobe, kretprobe, tp_btf; "" when missing
	Required  bool      `json:"required"`
	Fallback  string    `json:"fallback"` // what would be used instead, "" for nothing
	Status    Status    `json:"status"`
	Reason    string    `json:"reason"`
}

// Trailer closes a stream of records. A stream without one was cut short.
type Trailer struct {
	Type         string           `json:"type"`
	Records      int64            `json:"records"`
	LostEvents   map[string]int64 `json:"lost_events"` // by kind
	MissedProbes int64            `json:"missed_probes"`
	Incomplete   int64            `json:"incomplete"`
	Ended        time.Time        `json:"ended"`
}
