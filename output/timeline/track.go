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
	kept     int               // lanes
	asides   map[uint32]uint32 // by machine
	names    []event
}

// owner is whom lanes belong to.
type owner struct {
	machine uint32
	module  string
}

// lane is a track of slices that do not overlap. A module has one, and more if attempts
// to unload it overlap.
type lane struct {
	id         uint32
	start, end stamp // of the last slice
	unloaded   bool  // by it
}

func newTracks() *tracks {
	return &tracks{machines: map[string]uint32{}, lanes: map[owner][]lane{}, asides: map[uint32]uint32{}}
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

// slice gives the track for a slice from start to end: one whose slices are all over by
// then.
func (t *tracks) slice(o owner, start, end stamp, unloaded bool) uint32 {
	for i := range t.lanes[o] {
		if l := &t.lanes[o][i]; l.free(start) {
			l.start, l.end, l.unloaded = start, end, unloaded
			return l.id
		}
	}
	if t.kept == most {
		clear(t.lanes)
		t.kept = 0
	}
	l := lane{id: t.number(), start: start, end: end, unloaded: unloaded}
	t.lanes[o] = append(t.lanes[o], l)
	t.kept++
	title := output.Name(o.module)
	if n := len(t.lanes[o]); n > 1 {
		title = fmt.Sprintf("%s, overlapping %d", title, n)
	}
	t.title("thread_name", o.machine, l.id, title)
	return l.id
}

// free says whether the lane has room from a time on. A slice without length needs it for
// itself: one that begins when it does would be taken to be around it.
func (l *lane) free(from stamp) bool {
	return l.end < from || l.end == from && l.start < l.end
}

// aside gives the track of a machine for what belongs to no slice.
func (t *tracks) aside(machine uint32) uint32 {
	id, ok := t.asides[machine]
	if !ok {
		if len(t.asides) == most {
			clear(t.asides)
		}
		id = t.number()
		t.asides[machine] = id
		t.title("thread_name", machine, id, "stalls and reloads")
	}
	return id
}

// unloadedBefore gives the lane whose last slice is the latest that unloaded a module
// before a time.
func (t *tracks) unloadedBefore(o owner, at stamp) (found lane, ok bool) {
	for _, l := range t.lanes[o] {
		if l.unloaded && l.end <= at && (!ok || l.end > found.end) {
			found, ok = l, true
		}
	}
	return found, ok
}
