package tracer

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/modtrace/modtrace/bpf"
	"github.com/modtrace/modtrace/symbols"
	"github.com/modtrace/modtrace/unload"
)

// maxPending bounds what is kept of unloads whose end has not come. More of
// them means that ends were lost.
const maxPending = 4096

// assembler joins the events of each unloading task to an unload.Unload. It
// touches no kernel, so that a recorded stream gives the same report anywhere.
type assembler struct {
	plan  Plan
	wall  func(monotonic uint64) time.Time
	names *symbols.Names
	// lookAt adds to a wait what can be seen of its blocker.
	lookAt func(w *unload.Wait, module string, tid int)
	// stalled and recordStall are for recordings: the one is told of stalls that
	// were recorded, the other records them.
	stalled     func(unload.Stall)
	recordStall func(s *bpf.UnloadSlot, now uint64, b unload.Blocker)
	enrich      func(*unload.Caller, *bpf.UnloadBegin)
	// modulesDisabled reads kernel.modules_disabled, which can be switched
	// on once and never off: what it says now holds for a refusal just made,
	// but for a switch in the microseconds between.
	modulesDisabled func() bool
	// residue looks for what a module that was unloaded has left.
	residue func(e *bpf.UnloadEnd, lastLoad uint64) (found []string, known bool)
	looks   *lookers // programs that found a module in use, and may leave it at that
	reloads *reloads
	pending map[taskKey]*pending
}

// taskKey tells unloads apart: a task is in one at a time.
type taskKey struct {
	begin uint64
	tid   uint32
}

// pending is what is known of an unload before its end.
type pending struct {
	begin      *bpf.UnloadBegin
	dependents []string
	references []unload.Reference
	waiting    *begunWait
	waker      *waker
	waits      map[string]*fold
	convoy     []*bpf.UnloadWaiter
	hot        map[string]*hot
	devices    []unload.Device
	log        []logged
}

func newPending() *pending {
	return &pending{waits: map[string]*fold{}, hot: map[string]*hot{}}
}

func newAssembler(plan Plan) *assembler {
	return &assembler{
		plan:            plan,
		wall:            func(ns uint64) time.Time { return time.Unix(0, int64(ns)).UTC() },
		names:           symbols.New(func([]uint64) []string { return nil }),
		lookAt:          func(*unload.Wait, string, int) {},
		stalled:         func(unload.Stall) {},
		recordStall:     func(*bpf.UnloadSlot, uint64, unload.Blocker) {},
		enrich:          func(*unload.Caller, *bpf.UnloadBegin) {},
		modulesDisabled: func() bool { return false },
		residue:         func(*bpf.UnloadEnd, uint64) ([]string, bool) { return nil, false },
		reloads:         newReloads(),
		looks:           &lookers{},
		pending:         make(map[taskKey]*pending),
	}
}

// add takes one event and returns an unload when the event ends one, or shows
// that the end of one was lost.
func (a *assembler) add(e any) (unload.Unload, bool) {
	switch e := e.(type) {
	case *bpf.UnloadBegin:
		p, made := a.at(taskKey{e.Header.Begin, e.Header.Tid})
		p.begin = e
		a.looks.asked(int(e.Header.Tid), text(e.Name[:]))
		if made && len(a.pending) > maxPending {
			return a.evict()
		}
	case *bpf.UnloadDependent:
		p, _ := a.at(taskKey{e.Header.Begin, e.Header.Tid})
		p.dependents = append(p.dependents, text(e.Name[:]))
	case *bpf.UnloadReference:
		p, _ := a.at(taskKey{e.Header.Begin, e.Header.Tid})
		p.references = append(p.references, a.reference(e))
	case *bpf.UnloadWait:
		p, _ := a.at(taskKey{e.Header.Begin, e.Header.Tid})
		a.beginWait(p, e)
	case *bpf.UnloadWaking:
		p, _ := a.at(taskKey{e.Header.Begin, e.Header.Tid})
		p.waker = a.waker(e)
	case *bpf.UnloadWaiter:
		a.addWaiter(e)
	case *bpf.UnloadSample:
		p, _ := a.at(taskKey{e.Header.Begin, e.Header.Tid})
		a.addSample(p, e)
	case *bpf.UnloadDeviceEvent:
		p, _ := a.at(taskKey{e.Header.Begin, e.Header.Tid})
		p.addDevice(e)
	case *bpf.UnloadLogEvent:
		a.addLog(e)
	case *loadEvent:
		a.addLoad(e)
	case *lookEvent:
		a.addLook(e)
	case *stallRecord:
		a.again(e)
	case *nameRecord:
		a.names.Learn(e.Address, text(e.Name[:]))
	case *bpf.UnloadEnd:
		u := a.report(a.pop(e), e)
		if e.Result == 0 {
			residue, known := a.residue(e, a.reloads.last)
			u.Residue, u.ResidueKnown = orEmpty(residue), known
			a.names.Forget()
			a.addGone(e)
		}
		return u, true
	}
	return unload.Unload{}, false
}

func (a *assembler) at(key taskKey) (p *pending, made bool) {
	p = a.pending[key]
	if p == nil {
		p, made = newPending(), true
		a.pending[key] = p
	}
	return p, made
}

// evict gives up the oldest unload that has no end.
func (a *assembler) evict() (unload.Unload, bool) {
	oldest := slices.MinFunc(slices.Collect(maps.Keys(a.pending)), compareKeys)
	return a.abandon(oldest)
}

func compareKeys(x, y taskKey) int {
	if x.begin != y.begin {
		if x.begin < y.begin {
			return -1
		}
		return 1
	}
	return int(int64(x.tid) - int64(y.tid))
}

// abandon reports an unload whose end did not come, if its beginning did.
func (a *assembler) abandon(key taskKey) (unload.Unload, bool) {
	p := a.pending[key]
	delete(a.pending, key)
	if p.begin == nil {
		return unload.Unload{}, false
	}
	u := a.describe(p, key)
	u.Outcome = unload.Unseen
	u.Result = unload.Result{Reason: unload.ReasonUnknown, By: unload.ByKernel}
	u.Missing = append(u.Missing, "its end was not seen: the record was lost")
	return u, true
}

// rest reports what has not ended: first the unloads that were in flight at
// time now, then those that lost their end.
func (a *assembler) rest(open []*bpf.UnloadSlot, now uint64) []unload.Unload {
	var all []unload.Unload
	for _, s := range open {
		u := a.soFar(a.pop(&s.End), s, now)
		u.Missing = append(u.Missing, fmt.Sprintf("still in flight, in %s, when tracing ended", stageName(s.End.Stage)))
		all = append(all, u)
	}
	for _, key := range slices.SortedFunc(maps.Keys(a.pending), compareKeys) {
		if u, ok := a.abandon(key); ok {
			all = append(all, u)
		}
	}
	return all
}

func stageName(stage uint32) unload.PhaseName {
	names := unload.PhaseNames()
	return names[min(int(stage), len(names)-1)]
}

// describe makes the part of a report that does not depend on the end.
func (a *assembler) describe(p *pending, key taskKey) unload.Unload {
	u := unload.Unload{
		Type:       unload.TypeUnload,
		Start:      a.wall(key.begin),
		Flags:      []string{},
		Phases:     []unload.Phase{},
		Notifiers:  []unload.Notifier{},
		Devices:    []unload.Device{},
		Holders:    []unload.Holder{},
		Dependents: orEmpty(p.dependents),
		References: orEmpty(p.references),
		Convoy:     []unload.Waiter{},
		Log:        []unload.LogLine{},
		Residue:    []string{},
		Taints:     []string{},
		Missing:    []string{},
	}
	u.Caller = unload.Caller{TID: int(key.tid), Cmdline: []string{}, Ancestors: []unload.Ancestor{}}
	if p.begin == nil {
		u.Missing = append(u.Missing, "its beginning was not seen: the caller is not known")
		return u
	}
	u.Module = text(p.begin.Name[:])
	u.Flags, u.Forced = flagNames(p.begin.Flags)
	describeCaller(&u.Caller, p.begin)
	a.enrich(&u.Caller, p.begin)
	return u
}

// pop takes what is known of an unload that has ended.
func (a *assembler) pop(e *bpf.UnloadEnd) *pending {
	key := taskKey{e.Header.Begin, e.Header.Tid}
	p := a.pending[key]
	if p == nil {
		p = newPending()
	}
	delete(a.pending, key)
	return p
}

// report makes the report of an unload from its end record.
func (a *assembler) report(p *pending, e *bpf.UnloadEnd) unload.Unload {
	// When all was freed, what is left to do cannot fail. A task that ends then has
	// returned before, and the kernel has skipped the program that sees it.
	unreturned := e.Died != 0 && e.Stage == uint32(bpf.UnloadBoundaryAT_RETURN)
	if unreturned {
		e.Died = 0
	}
	u := a.describe(p, taskKey{e.Header.Begin, e.Header.Tid})
	if name := text(e.Name[:]); name != "" {
		u.Module = name
	}
	u.Flags, u.Forced = flagNames(e.Flags)
	u.Duration = int64(e.At[bpf.UnloadBoundaryAT_END] - e.At[bpf.UnloadBoundaryAT_ENTER])
	u.Outcome, u.Result = unload.Returned, result(e, a.modulesDisabled)
	u.Refcount.Before = visibleCount(e)
	u.Taints = taintNames(e.Taints)
	u.Signed = e.SigOk != 0
	p.endWait(e.Waits, e.Until)
	var at []int
	u.Phases, at = a.phases(e, &u.Missing)
	distribute(p, u.Phases, at)
	if u.Notifiers = a.notifiers(e, &u.Missing); len(u.Notifiers) == 0 && e.At[bpf.UnloadBoundaryAT_NOTIFY] != 0 {
		u.Notifiers = p.notifiersByStack(u.Phases[at[bpf.UnloadBoundaryAT_NOTIFY]].OnCPU)
	}
	u.Devices = orEmpty(p.devices)
	u.Convoy = a.convoy(p, e)
	u.Log = p.lines(e)
	if e.Result == 0 {
		u.Memory.Freed = int64(e.Size)
	}
	u.Unaccounted = u.Duration
	for _, phase := range u.Phases {
		u.Unaccounted -= phase.Duration
	}
	u.LostEvents = int64(e.Lost)
	if e.Lost > 0 {
		u.Missing = append(u.Missing, fmt.Sprintf("%d events found no room", e.Lost))
	}
	if unreturned {
		u.Missing = append(u.Missing, "its return was not seen: it took no longer than is said here")
	}
	if e.Died != 0 {
		u.Outcome = unload.Died
		u.Missing = append(u.Missing, fmt.Sprintf("the task died in %s", stageName(e.Stage)))
	}
	u.Complete = len(u.Missing) == 0
	return u
}

func describeCaller(c *unload.Caller, b *bpf.UnloadBegin) {
	c.PID, c.UID = int(b.Pid), int(b.Uid)
	c.Comm = text(b.Comm[:])
	c.Exe = text(b.Execfn[:])
	if n := min(int(b.CmdlineLen), len(b.Cmdline)); n > 0 {
		for _, arg := range bytes.Split(bytes.TrimRight(b.Cmdline[:n], "\x00"), []byte{0}) {
			c.Cmdline = append(c.Cmdline, string(arg))
		}
	}
	for _, anc := range b.Ancestor {
		if anc.Pid == 0 {
			break
		}
		c.Ancestors = append(c.Ancestors, unload.Ancestor{PID: int(anc.Pid), Comm: text(anc.Comm[:])})
	}
	if len(c.Ancestors) > 0 {
		c.PPID = c.Ancestors[0].PID
	}
}

func (a *assembler) reference(e *bpf.UnloadReference) unload.Reference {
	op := "get"
	if e.Put != 0 {
		op = "put"
	}
	return unload.Reference{
		Op:     op,
		Module: text(e.Name[:]),
		Offset: int64(e.Time - e.Header.Begin),
		Phase:  stageName(e.Boundary),
		Site:   a.site(e.Site),
		Count:  int64(e.Count) - 1,
	}
}

// site names a call by what is called from there, "" when that is not known.
func (a *assembler) site(address uint64) string {
	if name := a.names.Of([]uint64{address})[0]; name != symbols.Unnamed {
		return name
	}
	return ""
}

// visibleCount is the count as lsmod shows it: the kernel keeps one more while
// the module is not on its way out (kernel/module/main.c, MODULE_REF_BASE).
func visibleCount(e *bpf.UnloadEnd) int64 {
	if e.Module == 0 {
		return 0
	}
	return max(int64(e.Refcnt)-1, 0)
}

// phases cuts the unload at the boundaries that were seen; at leads from each
// boundary to the phase that its time is in. missing is told of those that should
// have been seen.
func (a *assembler) phases(e *bpf.UnloadEnd, missing *[]string) (list []unload.Phase, at []int) {
	names := unload.PhaseNames()
	last, returned := lastPhase(e)
	at = make([]int, boundaries)
	for b, name := range names[:last+1] {
		status := a.status(name)
		switch {
		case e.At[b] != 0:
			list = append(list, newPhase(name, e.At[b]-e.At[0]))
		case status == unload.StatusAbsent && e.At[b+1] != 0 && e.OffCpu[b] == 0:
			list = append(list, newPhase(name, e.At[b+1]-e.At[0]))
		default:
			merge(&list[len(list)-1], name)
			if status == unload.StatusOK || status == unload.StatusFallback {
				*missing = append(*missing, fmt.Sprintf("the beginning of %s was not seen", name))
			}
		}
		at[b] = len(list) - 1
		list[at[b]].OffCPU += int64(e.OffCpu[b])
	}
	final := &list[len(list)-1]
	for b := last + 1; b < len(e.OffCpu); b++ {
		at[b] = len(list) - 1
		final.OffCPU += int64(e.OffCpu[b])
	}
	if returned && last != int(bpf.UnloadBoundaryAT_RETURN) {
		merge(final, unload.Return) // a refusal: the kernel turns round in here
	}
	measure(list, int64(e.At[bpf.UnloadBoundaryAT_END]-e.At[0]))
	return list, at
}

// lastPhase is the last phase that the unload came to, and whether the system
// call returned.
func lastPhase(e *bpf.UnloadEnd) (last int, returned bool) {
	switch {
	case e.Died != 0 || e.Result == inFlight:
		return min(int(e.Stage), int(bpf.UnloadBoundaryAT_RETURN)), false
	case e.Result == 0:
		return int(bpf.UnloadBoundaryAT_RETURN), true
	case e.At[bpf.UnloadBoundaryAT_CHECK] == 0 && refusedBeforeLookup(e):
		return int(bpf.UnloadBoundaryAT_ENTER), true
	}
	return int(bpf.UnloadBoundaryAT_CHECK), true
}

func newPhase(name unload.PhaseName, offset uint64) unload.Phase {
	return unload.Phase{
		Name:   name,
		Offset: int64(offset),
		Exact:  true,
		Merged: []unload.PhaseName{},
		Waits:  []unload.Wait{},
		Hot:    []unload.Hot{},
	}
}

func merge(into *unload.Phase, name unload.PhaseName) {
	into.Merged = append(into.Merged, name)
	into.Exact = false
}

// measure fills in the durations: each phase ends where the next begins.
func measure(list []unload.Phase, end int64) {
	for i := len(list) - 1; i >= 0; i-- {
		p := &list[i]
		p.Duration = end - p.Offset
		p.OnCPU = p.Duration - p.OffCPU
		end = p.Offset
	}
}

// status is what became of the hook at which the phase begins.
func (a *assembler) status(name unload.PhaseName) unload.Status {
	for _, h := range a.plan {
		if h.Phase == name {
			return h.Status
		}
	}
	return unload.StatusMissing
}

// text is a NUL-terminated name from the kernel. Control characters stay: the
// model holds what was seen, and renderers make it safe to show.
func text(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

func orEmpty[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}
