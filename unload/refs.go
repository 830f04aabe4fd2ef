package unload

import "time"

// Ledger is the references taken on a module and dropped while it was watched:
// a balance, and an entry for each process and call site.
type Ledger struct {
	Balance Balance
	Entries []Refs // those that hold some first, then by when they began
}

// Balance sets what was seen of a module's references against the kernel's count:
// Refcount is Before + Outstanding + Unexplained, always.
type Balance struct {
	Type   string    `json:"type"`
	Module string    `json:"module"`
	Start  time.Time `json:"start"` // since when it is watched
	Time   time.Time `json:"time"`
	// State is the module's: live, coming, going, or "" when it is not loaded.
	State    string `json:"state"`
	Refcount int64  `json:"refcount"`
	// Initial are the references that there were when the watch began.
	Initial int64 `json:"initial"`
	Before  int64 `json:"before"` // those of them that are left
	Gets    int64 `json:"gets"`
	Puts    int64 `json:"puts"`
	// Outstanding were taken since, and not dropped.
	Outstanding int64 `json:"outstanding"`
	// HandedOver were taken since, and dropped by another process.
	HandedOver int64 `json:"handed_over"`
	// Unsettled are puts by processes that had taken none, of which it cannot be
	// told which references they dropped: the oldest are taken to be those, of
	// those taken since before those of before.
	Unsettled int64 `json:"unsettled"`
	// Unseen were taken since and are not there any more, but were not seen to be
	// dropped; they are in HandedOver too.
	Unseen int64 `json:"unseen"`
	// Unexplained is what the kernel counts and was not seen to be taken; it is
	// less than 0 when some of before were not seen to be dropped.
	Unexplained int64 `json:"unexplained"`
	Loads       int64 `json:"loads"` // of the module since
	// Holders are those of the references of before that could be found, when the
	// watch began.
	Holders []Holder `json:"holders"`
	// Missing says in words what was not seen.
	Missing []string `json:"missing"`
}

// Refs is what a process did at a call site: the references that it took there. One
// that has taken none there dropped those of others.
type Refs struct {
	Type   string `json:"type"`
	Module string `json:"module"`
	Site   string `json:"site"` // the function that called for the reference
	PID    int    `json:"pid"`
	Comm   string `json:"comm"`
	Gets   int64  `json:"gets"`
	// Puts of the references taken here, by the process that took them; where it
	// took none, of others'.
	Puts int64 `json:"puts"`
	// HandedOver were taken here, and dropped by another process.
	HandedOver  int64 `json:"handed_over"`
	Outstanding int64 `json:"outstanding"`
	// HeldMax is how long one was held, at most: until now, of those outstanding.
	// Held is the sum of all.
	HeldMax int64     `json:"held_max_ns"`
	Held    int64     `json:"held_ns"`
	First   time.Time `json:"first"`
	Last    time.Time `json:"last"`
	// Since is when the oldest that is outstanding was taken.
	Since time.Time `json:"since"`
	// Dropped is the function in which the last was dropped, "" when not known.
	Dropped string   `json:"dropped"`
	Stack   []string `json:"stack"` // of the first get, or put, from the call site on
	// Gone says that the process has ended.
	Gone bool `json:"gone"`
	// Processes is how many are brought together here, of which PID is one: those
	// of the same name that have ended and hold none.
	Processes int64 `json:"processes"`
	// Ambiguous is how often the process dropped a reference when it held some from
	// other call sites as well: which one it was cannot be told. The last it took is
	// taken to be it.
	Ambiguous int64 `json:"ambiguous"`
	// Load tells the loads of the module apart: 0 for the one that was there when
	// the watch began.
	Load int64 `json:"load"`
}

// Ref is one reference taken or dropped, as it happens.
type Ref struct {
	Type   string    `json:"type"`
	Op     string    `json:"op"` // get or put
	Module string    `json:"module"`
	Time   time.Time `json:"time"`
	PID    int       `json:"pid"`
	TID    int       `json:"tid"`
	Comm   string    `json:"comm"`
	Site   string    `json:"site"`
	// Taken is where the reference that is put was taken, and Held how long ago; ""
	// and -1 when that is not known.
	Taken string `json:"taken"`
	Held  int64  `json:"held_ns"`
	Load  int64  `json:"load"`
}
