package unload

import "time"

// Why says who holds a module at a moment, and what would free it. Explained and
// Unexplained add up to Refcount, always.
type Why struct {
	Type   string    `json:"type"`
	Module string    `json:"module"`
	Time   time.Time `json:"time"`
	// State is the module's: live, coming, going, built_in, or "" when it is not
	// loaded.
	State       string `json:"state"`
	Refcount    int64  `json:"refcount"`
	Explained   int64  `json:"explained"`
	Unexplained int64  `json:"unexplained"`

	// Unloadable says that nothing forbids to unload it now; Reason says what does.
	Unloadable bool     `json:"unloadable"`
	Reason     Reason   `json:"reason"`
	Holders    []Holder `json:"holders"`
	Dependents []string `json:"dependents"` // all modules that need it, directly or not
	Plan       []string `json:"plan"`       // modules in the order to unload them, this one last
	Hazards    []string `json:"hazards"`    // what would go wrong although nothing forbids it
	Advice     []string `json:"advice"`     // what to do, in order
	// Similar are modules of a like name, when there is none of this one.
	Similar []string `json:"similar"`
	// Missing says in words what could not be looked at, and what changed while it
	// was.
	Missing []string `json:"missing"`
}

// Holder is somebody who holds references on a module. Where several share one,
// each is named and one has it in Refs.
type Holder struct {
	Kind       HolderKind `json:"kind"`
	Refs       int64      `json:"refs"`
	Module     string     `json:"module"`
	PID        int        `json:"pid"`
	Comm       string     `json:"comm"`
	Cgroup     string     `json:"cgroup"`
	Container  string     `json:"container"`
	FD         int        `json:"fd"` // -1: none
	Path       string     `json:"path"`
	MountNS    uint64     `json:"mount_ns"`
	Detail     string     `json:"detail"`
	Stack      []string   `json:"stack"`
	Confidence Confidence `json:"confidence"`
}

// HolderKind says what a holder is.
type HolderKind string

// The kinds of holders.
const (
	HolderModule    HolderKind = "module"
	HolderFD        HolderKind = "fd"
	HolderMmap      HolderKind = "mmap"
	HolderMount     HolderKind = "mount"
	HolderSocket    HolderKind = "socket"
	HolderBlock     HolderKind = "block"
	HolderSwap      HolderKind = "swap"
	HolderNetdev    HolderKind = "netdev"
	HolderFilter    HolderKind = "filter"
	HolderQdisc     HolderKind = "qdisc"
	HolderCrypto    HolderKind = "crypto"
	HolderTTY       HolderKind = "tty"
	HolderInput     HolderKind = "input"
	HolderSound     HolderKind = "sound"
	HolderDRM       HolderKind = "drm"
	HolderBPF       HolderKind = "bpf"
	HolderKprobe    HolderKind = "kprobe"
	HolderLivepatch HolderKind = "livepatch"
	HolderTracer    HolderKind = "tracer"
	HolderSelf      HolderKind = "self"
	HolderKernel    HolderKind = "kernel"
)

// Confidence says how a holder was found.
type Confidence string

// The grades of confidence.
const (
	// ByOwner: what it holds names the module as its owner, in the kernel.
	ByOwner Confidence = "owner"
	// ByRelation: the kernel says that the one uses the other.
	ByRelation Confidence = "relation"
)
