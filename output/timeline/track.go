package timeline

import (
	"fmt"

	"github.com/modtrace/modtrace/output"
	"github.com/modtrace/modtrace/unload"
)

// most bounds how many machines, and how many lanes, are remembered. What is forgotten
// gets a new track if it comes again.
const most = 1024

// tracks gives machines and modules their places on the timeline: a machine, from boot to
// boot, is what the format calls a process, and a module is a thread of it. The numbers of
// both are made up and none is used twice. The unloading tasks' own would not do: they are
// used again by the kernel, and one task may unload many modules.
type tracks struct {
	last     uint32 // number given
	machines map[string]uint32
	lanes    map[owner][]lane
	kept     int // lanes
	names    []event
}

// owner is whom lanes belong to.
type owner struct {
	machine uint32
	module  string
	aside   bool // nobody: for what belongs to no slice
}

// lane is a track of slices that do not overlap. A module has one, and more if attempts
// to unload it overlap.
type lane struct {
	id       uint32
	end      int64 // of the last slice, ns from the origin
	start    int64 // of it
	unloaded bool  // by it
}

func newTracks() *tracks {
	return &tracks{machines: map[string]uint32{}, lanes: map[owner][]lane{}}
}

func (t *tracks) number() uint32 {
	t.last++
	return t.last
}

// machine gives the track of a machine.
func (t *tracks) machine(h unload.Header) uint32 {
	key := h.Host + "\x00" + h.BootID
	if id, ok := t.machines[key]; ok {
		return id
	}
	if len(t.machines) == most {
		clear(t.machines)
	}
	id := t.number()
	t.machines[key] = id
	t.title("process_name", id, id, machineName(h))
	return id
}

func machineName(h unload.Header) string {
	text := h.Host
	if text == "" {
		text = "unknown host"
	}
	if h.Kernel != "" {
		text += ", kernel " + h.Kernel
	}
	if h.Arch != "" {
		text += " on " + h.Arch
	}
	if h.BootID != "" {
		text += ", boot " + h.BootID
	}
	return text
}

// title names a track.
func (t *tracks) title(kind string, machine, id uint32, of string) {
	t.names = append(t.names, event{Name: kind, Phase: metadata, PID: machine, TID: id, Args: struct {
		Name string `json:"name"`
	}{name(of)}})
}

// slice gives the track for a slice from start to end, both ns from the origin: one whose
// slices are all over by then.
func (t *tracks) slice(o owner, start, end int64, unloaded bool) uint32 {
	all := t.lanes[o]
	for i := range all {
		if all[i].end <= start {
			all[i].start, all[i].end, all[i].unloaded = start, end, unloaded
			return all[i].id
		}
	}
	if t.kept == most {
		clear(t.lanes)
		t.kept = 0
	}
	id := t.add(o)
	all = t.lanes[o]
	all[len(all)-1].start, all[len(all)-1].end, all[len(all)-1].unloaded = start, end, unloaded
	return id
}

// aside gives the track of a machine for what belongs to no slice.
func (t *tracks) aside(machine uint32) uint32 {
	return t.slice(owner{machine: machine, aside: true}, 0, 0, false)
}

// add makes a lane.
func (t *tracks) add(o owner) uint32 {
	id := t.number()
	t.lanes[o] = append(t.lanes[o], lane{id: id})
	t.kept++
	title := output.Name(o.module)
	if o.aside {
		title = "stalls and reloads"
	}
	if n := len(t.lanes[o]); n > 1 {
		title = fmt.Sprintf("%s, overlapping %d", title, n)
	}
	t.title("thread_name", o.machine, id, title)
	return id
}

// unloadedBefore gives the lane whose last slice is the latest that unloaded a module
// before a time.
func (t *tracks) unloadedBefore(o owner, ns int64) (found lane, ok bool) {
	for _, l := range t.lanes[o] {
		if l.unloaded && l.end <= ns && (!ok || l.end > found.end) {
			found, ok = l, true
		}
	}
	return found, ok
}
