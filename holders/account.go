package holders

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/modtrace/modtrace/bpf"
	"github.com/modtrace/modtrace/procfs"
	"github.com/modtrace/modtrace/unload"
)

// account makes holders of what was found in the kernel, and gives each reference
// to one of them: a file that several processes have open is one reference.
type account struct {
	root
	place  func(file uint64) (string, error) // where an open file is; nil: /proc tells
	names  []string
	self   int // this process
	taken  map[reference]bool
	byKey  map[holderKey]*holder
	order  []*holder
	mounts map[uint32][]mount
	disks  []*bpf.HoldersHolding
	opened map[uint64]int64 // references by openers that are known, by disk
	gone   bool             // something was gone when it was looked at more closely
}

// reference is one that is held: an object, in one way.
type reference struct {
	target, way uint32
	object      uint64
}

// holderKey tells holders apart: a process has an open file once, whatever
// descriptors and mappings lead to it.
type holderKey struct {
	target, pid uint32
	file        uint64
}

// holder is one holder, and the facts that its description is made of.
type holder struct {
	unload.Holder
	target uint32
	facts  []string
	more   []uint32 // further descriptors of the same file
	step   string   // how to free it, where that is not plain from its kind
	gone   bool
}

func newAccount(r root, names []string) *account {
	return &account{root: r, names: names, self: os.Getpid(), taken: map[reference]bool{}, byKey: map[holderKey]*holder{}, opened: map[uint64]int64{}}
}

// add takes what was found.
func (a *account) add(found []bpf.HoldersHolding) {
	devices := map[uint32]bool{}
	for i := range found {
		if r := &found[i]; bpf.HoldersVia(r.Via) == bpf.HoldersViaVIA_LIST && bpf.HoldersWay(r.Way) != bpf.HoldersWayWAY_OPENERS {
			devices[found[i].Device] = true
		}
	}
	a.mounts = a.root.mounts(devices)
	var own []*bpf.HoldersHolding
	for i := range found {
		switch r := &found[i]; {
		case bpf.HoldersWay(r.Way) == bpf.HoldersWayWAY_OPENERS:
			a.disks = append(a.disks, r)
		case int(r.Pid) == a.self:
			own = append(own, r)
		default:
			a.one(r)
		}
	}
	// What this process was given by the one that started it is that one's first.
	for _, r := range own {
		a.one(r)
	}
	a.openers()
	a.boundLoops()
}

// addFound takes what was found that no process leads to.
func (a *account) addFound(list []*found) {
	for _, f := range list {
		h := &holder{target: uint32(f.target), facts: facts(f.Detail), Holder: f.Holder, step: f.step}
		if len(f.facts) > 0 {
			h.facts = []string{f.Detail + ": " + strings.Join(f.facts, ", ")}
		}
		a.order = append(a.order, h)
	}
}

// one takes one thing that was found.
func (a *account) one(r *bpf.HoldersHolding) {
	key := holderKey{r.Target, r.Pid, r.File}
	if bpf.HoldersVia(r.Via) == bpf.HoldersViaVIA_LIST {
		key.file = r.Object
	}
	h := a.byKey[key]
	switch {
	case h == nil:
		h = a.describe(r)
		a.byKey[key] = h
		a.order = append(a.order, h)
	case bpf.HoldersVia(r.Via) == bpf.HoldersViaVIA_DESCRIPTOR && int(r.Descriptor) != h.FD && !slices.Contains(h.more, r.Descriptor):
		h.more = append(h.more, r.Descriptor)
	case bpf.HoldersVia(r.Via) == bpf.HoldersViaVIA_MAPPING && h.Kind != unload.HolderMmap && !slices.Contains(h.facts, "mapped too"):
		h.facts = append(h.facts, "mapped too")
	}
	if fact := factOf(r); fact != "" && !slices.Contains(h.facts, fact) {
		h.facts = append(h.facts, fact)
	}
	if ref := (reference{r.Target, r.Way, r.Object}); !a.taken[ref] && !h.gone {
		a.taken[ref] = true
		h.Refs++
		if bpf.HoldersWay(r.Way) == bpf.HoldersWayWAY_DISK {
			a.opened[r.Disk]++
		}
	}
}

// describe makes a holder of the first that was found of it.
func (a *account) describe(r *bpf.HoldersHolding) *holder {
	h := &holder{target: r.Target, Holder: unload.Holder{
		Kind: kindOf(r), PID: int(r.Pid), Comm: unix.ByteSliceToString(r.Comm[:]), FD: -1,
		Stack: []string{}, Confidence: unload.ByOwner,
	}}
	var err error
	switch bpf.HoldersVia(r.Via) {
	case bpf.HoldersViaVIA_DESCRIPTOR:
		h.FD = int(r.Descriptor)
		h.Path, err = a.whereIs(r)
	case bpf.HoldersViaVIA_MAPPING:
		h.Path, err = a.mappedAt(h.PID, r.Start)
	default:
		a.describeMount(h, r)
		return h
	}
	if h.gone = errors.Is(err, errGone); h.gone {
		a.gone = true
	}
	h.Cgroup = procfs.Cgroup(a.path("proc", fmt.Sprint(h.PID)))
	h.Container = containerOf(h.Cgroup)
	return h
}

// whereIs is the path of an open file, or errGone.
func (a *account) whereIs(r *bpf.HoldersHolding) (string, error) {
	if a.place == nil {
		return a.pathOf(int(r.Pid), int(r.Tid), int(r.Descriptor))
	}
	if !a.lives(int(r.Pid), int(r.Tid)) {
		return "", errGone
	}
	return a.place(r.File)
}

// describeMount says where a file system is mounted.
func (a *account) describeMount(h *holder, r *bpf.HoldersHolding) {
	places := a.mounts[r.Device]
	if len(places) == 0 {
		h.facts = append(h.facts, fmt.Sprintf("file system %s, mounted where no process is", deviceName(r.Device)))
		return
	}
	m := places[0]
	h.PID, h.Comm, h.Path, h.MountNS = m.pid, m.comm, m.path, m.namespace
	h.Cgroup = procfs.Cgroup(a.path("proc", fmt.Sprint(h.PID)))
	h.Container = containerOf(h.Cgroup)
	if more := len(places) - 1; more > 0 {
		h.facts = append(h.facts, fmt.Sprintf("and in %d more places", more))
	}
}

// kindOf is what kind of a holder something makes.
func kindOf(r *bpf.HoldersHolding) unload.HolderKind {
	switch way := bpf.HoldersWay(r.Way); {
	case way == bpf.HoldersWayWAY_TRAIL:
		return trailOf(unix.ByteSliceToString(r.Name[:])).kind
	case bpf.HoldersVia(r.Via) == bpf.HoldersViaVIA_LIST:
		return unload.HolderMount
	case way == bpf.HoldersWayWAY_EVENT:
		return unload.HolderTracer
	case way == bpf.HoldersWayWAY_LINE || way == bpf.HoldersWayWAY_TERMINAL:
		return unload.HolderTTY
	case bpf.HoldersVia(r.Via) == bpf.HoldersViaVIA_MAPPING:
		return unload.HolderMmap
	case r.Family != 0:
		return unload.HolderSocket
	}
	return unload.HolderFD
}

// factOf says in what way a module is held, where that is not plain.
func factOf(r *bpf.HoldersHolding) string {
	name := unix.ByteSliceToString(r.Name[:])
	switch bpf.HoldersWay(r.Way) {
	case bpf.HoldersWayWAY_SOCKET:
		return familyName(r.Family) + " socket"
	case bpf.HoldersWayWAY_PROTOCOL:
		return "protocol " + name
	case bpf.HoldersWayWAY_CONGESTION:
		return "congestion control " + name
	case bpf.HoldersWayWAY_FAMILY:
		return fmt.Sprintf("netlink family %d", r.Protocol)
	case bpf.HoldersWayWAY_UPPER:
		return "upper-layer protocol " + name
	case bpf.HoldersWayWAY_LINE:
		return "line discipline " + name
	case bpf.HoldersWayWAY_TERMINAL:
		return "terminal of " + name
	case bpf.HoldersWayWAY_SUPERBLOCK:
		return name
	case bpf.HoldersWayWAY_TRAIL:
		return trailOf(name).fact
	case bpf.HoldersWayWAY_DISK:
		return "its disk"
	case bpf.HoldersWayWAY_EVENT:
		return "perf event on a tracepoint of it"
	}
	return ""
}

// familyName names an address family (include/linux/socket.h).
func familyName(family uint32) string {
	names := map[uint32]string{
		unix.AF_UNIX: "unix", unix.AF_INET: "IPv4", unix.AF_INET6: "IPv6", unix.AF_NETLINK: "netlink",
		unix.AF_PACKET: "packet", unix.AF_PPPOX: "PPP", unix.AF_ALG: "crypto (AF_ALG)", unix.AF_VSOCK: "vsock",
		unix.AF_BLUETOOTH: "Bluetooth", unix.AF_CAN: "CAN", unix.AF_TIPC: "TIPC", unix.AF_RDS: "RDS",
		unix.AF_QIPCRTR: "QRTR", unix.AF_XDP: "XDP", unix.AF_SMC: "SMC", unix.AF_KEY: "IPsec key",
	}
	if name, ok := names[family]; ok {
		return name
	}
	return fmt.Sprintf("family %d", family)
}

// steps are how to free the holders of one module, as far as that was found out with
// them.
func (a *account) steps(target int) (list []string) {
	for _, h := range a.order {
		if int(h.target) == target && h.step != "" {
			list = append(list, h.step)
		}
	}
	return list
}

// of gives the holders of one module, those of most references first.
func (a *account) of(target int) []unload.Holder {
	var list []unload.Holder
	for _, h := range a.order {
		if int(h.target) != target || h.gone || h.PID == a.self && h.Refs == 0 {
			continue
		}
		facts := slices.Clone(h.facts)
		if len(h.more) > 0 {
			facts = append(facts, fmt.Sprintf("also as descriptor %s", strings.Trim(fmt.Sprint(h.more), "[]")))
		}
		if h.Refs == 0 {
			facts = append(facts, "shared with another process")
		}
		h.Detail = strings.Join(facts, ", ")
		list = append(list, h.Holder)
	}
	slices.SortStableFunc(list, func(x, y unload.Holder) int { return int(y.Refs - x.Refs) })
	return list
}
