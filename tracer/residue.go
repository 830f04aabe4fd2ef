package tracer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/modtrace/modtrace/bpf"
	"github.com/modtrace/modtrace/object"
)

// residue looks for what a module that was unloaded has left behind: its entries
// in /proc/modules and /sys/module, drivers on a bus that still point to it, and
// kernel threads and work items whose function lies in the memory that it had.
//
// It cannot see work that is queued and not begun, timers that are armed, a
// kthread_worker's work, nor other tasks that are inside the module's code.
type residue struct {
	threads func(from, size uint64) ([]bpf.UnloadLeftover, error)
	loads   func() loadCounts
	lost    uint64 // loads, as of the last look
	next    time.Time
}

// loadCounts are the loads that the kernel side saw, that found no room, and that
// were read. live says that the kernel side still looks.
type loadCounts struct {
	made, lost, read uint64
	live             bool
}

// share is the part of the time, one in so many, that is spent on looking.
const share = 100

// look gives what a module left, unless it is too early to look again, or a module
// was loaded since: it may have been this one, or lie where this one was.
func (r *residue) look(e *bpf.UnloadEnd, lastLoad uint64) (found []string, known bool) {
	began := time.Now()
	if began.Before(r.next) || lastLoad > e.At[bpf.UnloadBoundaryAT_FREE_SYSFS] || !r.quiet() {
		return nil, false
	}
	name := text(e.Name[:])
	found = entriesOf(name, e.At[bpf.UnloadBoundaryAT_FREE_UNLINK] != 0)
	if e.HasDrivers != 0 {
		found = append(found, driversOf("/sys/bus", name)...)
	}
	threads, known := r.threadsIn(e)
	r.next = time.Now().Add(share * time.Since(began))
	if !r.quiet() {
		return nil, false
	}
	return append(found, threads...), known
}

// quiet says that there was no load but those that were read.
func (r *residue) quiet() bool {
	c := r.loads()
	before := r.lost
	r.lost = c.lost
	return c.live && c.lost == before && c.made == c.read+c.lost
}

// entriesOf are a module's entries, unless they are about to be made: of a load
// that has come further there is an event. A module that was seen being taken off
// the list of all modules (kernel/module/main.c, free_module) is not looked for on
// it: to read it, one waits for module_mutex, and other unloads may have that for
// seconds on end.
func entriesOf(name string, unlinked bool) (found []string) {
	state, err := os.ReadFile("/sys/module/" + name + "/initstate")
	if err == nil && strings.TrimSpace(string(state)) != "coming" {
		found = append(found, "its entry in /sys/module is still there")
	}
	if unlinked {
		return found
	}
	list, err := os.ReadFile("/proc/modules")
	if err == nil && listed(string(list), name) {
		found = append(found, "its entry in /proc/modules is still there")
	}
	return found
}

// listed says whether /proc/modules has a module that is not just being loaded.
func listed(list, name string) bool {
	for line := range strings.Lines(list) {
		f := strings.Fields(line)
		if len(f) > 4 && f[0] == name && f[4] != "Loading" {
			return true
		}
	}
	return false
}

// driversOf are the drivers below /sys/bus whose link to their module leads to one
// of that name (drivers/base/module.c, module_add_driver).
func driversOf(buses, name string) (found []string) {
	links, err := filepath.Glob(buses + "/*/drivers/*/module")
	if err != nil {
		return nil
	}
	for _, l := range links {
		target, err := os.Readlink(l)
		if err != nil || filepath.Base(target) != name {
			continue
		}
		parts := strings.Split(strings.TrimPrefix(l, buses+"/"), "/")
		found = append(found, fmt.Sprintf("driver %s on bus %s still points to it", parts[2], parts[0]))
	}
	return found
}

// threadsIn are the kernel threads that still run in a module's memory, if it is
// known where that was.
func (r *residue) threadsIn(e *bpf.UnloadEnd) (found []string, known bool) {
	if e.TextSize == 0 {
		return nil, false
	}
	threads, err := r.threads(e.Text, uint64(e.TextSize))
	if err != nil {
		return nil, false
	}
	for _, t := range threads {
		who := fmt.Sprintf("%s (pid %d)", text(t.Comm[:]), t.Pid)
		if t.Work != 0 {
			found = append(found, "worker "+who+" still runs a work item in its memory")
		} else {
			found = append(found, "kernel thread "+who+" still runs in its memory")
		}
	}
	return found, true
}

// leftovers asks the kernel which of its threads run in some memory.
func leftovers(it *link.Iter, from, size *ebpf.Variable) func(uint64, uint64) ([]bpf.UnloadLeftover, error) {
	return func(address, length uint64) ([]bpf.UnloadLeftover, error) {
		if err := errors.Join(from.Set(address), size.Set(length)); err != nil {
			return nil, err
		}
		return object.Records[bpf.UnloadLeftover](it)
	}
}
