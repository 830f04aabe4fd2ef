package tracer

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"github.com/modtrace/modtrace/bpf"
	"github.com/modtrace/modtrace/object"
	"github.com/modtrace/modtrace/symbols"
	"github.com/modtrace/modtrace/unload"
)

// Options say what to trace and how.
type Options struct {
	// BTF is a file with the kernel's types, for kernels that carry none.
	BTF string
	// Below limits the trace to callers below this process; 0 is everybody.
	Below int
	// RingBytes is the size of the ring buffer: a power of two, at least a
	// page. 0 is 1 MiB.
	RingBytes int
	// Mechanisms limits the ways of attaching to those named, of what the
	// function Mechanisms lists; empty is all, best first.
	Mechanisms []string
	// Stalled, if set, is told of an unload that has been in one phase for
	// Stall, while it hangs, and again whenever that time has doubled. It is
	// called from within the loop over Unloads.
	Stalled func(unload.Stall)
	Stall   time.Duration
	// Reloaded, if set, is told of a module that is loaded again soon after an
	// unload that was yielded. It is called from within the loop over Unloads.
	Reloaded func(unload.Reload)
	// Tick, if set, is called from within the loop over Unloads, at least every second.
	Tick func()
	// Tap, if set, is given every raw record as it comes. The bytes are only
	// valid during the call.
	Tap func(raw []byte)
}

// Tracer is an armed trace. It is used by one goroutine, but for Stop.
type Tracer struct {
	ctx      context.Context
	loader   *loader
	reader   *ringbuf.Reader
	assemble *assembler
	tap      func([]byte)
	watch    *watch
	reloaded func(unload.Reload)
	tick     func()
	stats    Stats
	final    bool // the stats are
	err      error

	stop    sync.Once
	stopErr error
	forget  func() bool // lets go of ctx, which may live for longer
}

// Stats counts what a trace saw and what it did not.
type Stats struct {
	Records    int64            // unloads yielded
	Incomplete int64            // of those, not complete
	Produced   map[string]int64 // events made by the kernel side, by kind
	Read       map[string]int64 // events read, by kind
	Lost       map[string]int64 // events that found no room, by kind
	Damaged    int64            // records that made no sense
	Missed     int64            // times a program could not run, at most
}

// Start attaches everything and arms it: unloads that begin after it returns
// are seen. Cancelling ctx stops the trace; what was seen until then is still
// yielded. The error is an [*object.Unable] when the machine is at fault.
func Start(ctx context.Context, o Options) (*Tracer, error) {
	if err := object.Preflight(o.BTF); err != nil {
		return nil, err
	}
	l, err := newLoader(o)
	if err != nil {
		return nil, err
	}
	t := &Tracer{
		ctx: ctx, loader: l, tap: o.Tap, watch: newWatch(o.Stall, o.Stalled),
		reloaded: o.Reloaded, tick: o.Tick,
		stats: Stats{Read: map[string]int64{}},
	}
	if err := t.start(o); err != nil {
		return nil, errors.Join(err, l.close())
	}
	return t, nil
}

func (t *Tracer) start(o Options) error {
	if err := t.loader.attach(o.Mechanisms); err != nil {
		return err
	}
	reader, err := ringbuf.NewReader(t.loader.Maps["events"])
	if err != nil {
		return object.Explain("opening the ring buffer", err)
	}
	t.reader = reader
	t.assemble = newAssembler(t.loader.plan)
	t.assemble.wall = wallClock
	t.assemble.enrich = cgroups{}.enrich
	t.assemble.modulesDisabled = modulesDisabled
	t.assemble.lookAt = func(w *unload.Wait, module string, tid int) {
		lookAt(w, module, tid, func() []task { return allTasks(o, t.assemble.names) })
	}
	t.assemble.names = symbols.New(t.loader.asker())
	if t.loader.threads != nil {
		r := &residue{threads: t.loader.leftovers(), loads: t.loads}
		t.assemble.residue = r.look
	}
	if t.tap != nil {
		t.assemble.names.Record = func(address uint64, name string) { t.tap(encodeName(address, name)) }
		t.assemble.recordStall = func(s *bpf.UnloadSlot, now uint64, b unload.Blocker) {
			if raw, err := encodeStall(s, now, b); err == nil {
				t.tap(raw)
			}
		}
	}
	if err := t.loader.arm(true); err != nil {
		return errors.Join(err, reader.Close())
	}
	t.forget = context.AfterFunc(t.ctx, func() { _ = t.Stop() }) // its error comes again from Close
	return nil
}

// Plan is what became of every hook on this machine.
func (t *Tracer) Plan() Plan { return t.loader.plan }

// Stop disarms: unloads that begin after it are not seen. Unloads then yields
// what was seen before, and ends. It may be called more than once and from any
// goroutine.
func (t *Tracer) Stop() error {
	t.stop.Do(func() {
		t.stopErr = errors.Join(t.loader.arm(false), t.reader.Flush())
	})
	return t.stopErr
}

// Unloads yields each unload attempt as it ends, until the trace is stopped;
// then those that had not ended, marked incomplete. Breaking off the loop
// drops the rest. Afterwards Err says whether it failed.
func (t *Tracer) Unloads() iter.Seq[unload.Unload] {
	return func(yield func(unload.Unload) bool) {
		if !t.drain(yield) {
			return
		}
		// An unload that ends about now is in the map or, when it has left
		// that, in the ring; in both, its end is the better news.
		open, now := t.open(), monotonic()
		if err := t.reader.Flush(); err != nil {
			t.err = fmt.Errorf("reading events: %w", err)
			return
		}
		ended := func(u unload.Unload) bool {
			open = slices.DeleteFunc(open, func(s *bpf.UnloadSlot) bool {
				return int(s.Tid) == u.Caller.TID
			})
			return yield(u)
		}
		if !t.drain(ended) {
			return
		}
		if t.yieldAll(t.assemble.rest(open, now), yield) && t.yieldAll(t.assemble.looks.rest(exists), yield) {
			t.count()
			t.final = true
		}
	}
}

// drain yields what the ring brings until it is flushed. It returns false when
// that broke off.
func (t *Tracer) drain(yield func(unload.Unload) bool) bool {
	// When the ring is full, nobody is left to tell the reader so.
	const patience = time.Second
	var record ringbuf.Record
	for {
		if t.watch.due() {
			t.watch.look(t.assemble, t.begun(), monotonic())
		}
		if t.tick != nil {
			t.tick()
		}
		t.reader.SetDeadline(time.Now().Add(min(patience, t.watch.pause, t.assemble.looks.pause())))
		err := t.reader.ReadInto(&record)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			if !t.yieldAll(t.assemble.looks.over(exists), yield) {
				return false
			}
			continue
		}
		if errors.Is(err, ringbuf.ErrFlushed) {
			return true
		}
		if err != nil {
			t.err = fmt.Errorf("reading events: %w", err)
			return false
		}
		if u, ok := t.take(record.RawSample); ok && !t.yield(u, yield) {
			return false
		}
		t.tellReloads()
	}
}

// tellReloads tells of modules that are back.
func (t *Tracer) tellReloads() {
	for _, r := range t.assemble.takeReloads() {
		if t.reloaded != nil {
			t.reloaded(r)
		}
	}
}

func (t *Tracer) yield(u unload.Unload, yield func(unload.Unload) bool) bool {
	t.stats.Records++
	if !u.Complete {
		t.stats.Incomplete++
	}
	return yield(u)
}

func (t *Tracer) yieldAll(all []unload.Unload, yield func(unload.Unload) bool) bool {
	for _, u := range all {
		if !t.yield(u, yield) {
			return false
		}
	}
	return true
}

// take brings one raw record into the assembler.
func (t *Tracer) take(raw []byte) (unload.Unload, bool) {
	if t.tap != nil {
		defer t.tap(raw) // behind the names that are found out for it
	}
	event, err := decode(raw)
	if err != nil {
		t.stats.Damaged++
		return unload.Unload{}, false
	}
	t.stats.Read[kindName(kindOf(raw))]++
	return t.assemble.add(event)
}

// open reads the unloads in flight.
func (t *Tracer) open() []*bpf.UnloadSlot {
	var open []*bpf.UnloadSlot
	if t.InFlight() == 0 {
		return open
	}
	var key uint32
	var slot bpf.UnloadSlot
	entries := t.loader.Maps["unloads"].Iterate()
	for entries.Next(&key, &slot) {
		if slot.Owners != 0 && slot.End.Ended == 0 && stampsAreSound(&slot.End) {
			s := slot
			open = append(open, &s)
		}
	}
	return open
}

// begun reads those of the unloads in flight whose beginnings were read, without
// looking through all slots: each look at one keeps kprobes on its processor from
// running programs for that time (kernel/bpf/syscall.c, bpf_disable_instrumentation).
func (t *Tracer) begun() []*bpf.UnloadSlot {
	var open []*bpf.UnloadSlot
	for key := range t.assemble.pending {
		for attempt := range uint32(slotAttempts) {
			var slot bpf.UnloadSlot
			err := t.loader.Maps["unloads"].Lookup(slotKey(key.tid, attempt), &slot)
			if err == nil && slot.Tid == key.tid && slot.End.Header.Begin == key.begin &&
				slot.End.Ended == 0 && stampsAreSound(&slot.End) {
				open = append(open, &slot)
			}
		}
	}
	return open
}

// Where an unload's slot is: bpf/state.h, slot_key.
const (
	slots        = 1024
	slotAttempts = 4
)

func slotKey(tid, attempt uint32) uint32 {
	return (tid + attempt*(tid/slots*2+1)*331) & (slots - 1)
}

// InFlight is the number of unloads under trace that have not ended yet.
func (t *Tracer) InFlight() int {
	var gate bpf.UnloadGates
	if err := t.loader.Vars["gate"].Get(&gate); err != nil {
		return 0
	}
	return int(gate.InFlight)
}

// Ended is the number of unloads under trace that have ended, and were not lost.
func (t *Tracer) Ended() int64 {
	end := bpf.UnloadKindKIND_END
	return int64(t.loader.counted("produced", end) - t.loader.counted("lost", end))
}

// loads are the loads of modules so far.
func (t *Tracer) loads() loadCounts {
	load := bpf.UnloadKindKIND_LOAD
	c := loadCounts{
		made: t.loader.counted("produced", load),
		lost: t.loader.counted("lost", load),
		read: uint64(t.stats.Read[kindName(load)]),
		live: t.loader.sees("module_load"),
	}
	var armed bool
	if err := t.loader.Vars["armed"].Get(&armed); err != nil || !armed {
		c.live = false
	}
	return c
}

// Err says why Unloads ended early, or nil.
func (t *Tracer) Err() error { return t.err }

// Stats gives the counts; final once Unloads has ended.
func (t *Tracer) Stats() Stats {
	if !t.final {
		t.count()
	}
	return t.stats
}

// Close stops the trace, detaches, and frees what it holds in the kernel. That
// takes a second and more on some kernels.
func (t *Tracer) Close() error {
	t.forget()
	return errors.Join(t.Stop(), t.reader.Close(), t.loader.close())
}

// count reads the counters of the kernel side.
func (t *Tracer) count() {
	t.stats.Produced = t.loader.counters("produced")
	t.stats.Lost = t.loader.counters("lost")
	t.stats.Missed = t.loader.missed()
}

// counters reads one of the arrays that count events by kind.
func (l *loader) counters(name string) map[string]int64 {
	var values [bpf.UnloadKindKINDS]uint64
	counts := map[string]int64{}
	if err := l.Vars[name].Get(&values); err != nil {
		return counts
	}
	for kind, n := range values {
		if label := kindName(bpf.UnloadKind(kind)); label != "" {
			counts[label] = int64(n)
		}
	}
	return counts
}

// counted reads one of these counts, 0 if it cannot be read.
func (l *loader) counted(name string, kind bpf.UnloadKind) uint64 {
	var values [bpf.UnloadKindKINDS]uint64
	if err := l.Vars[name].Get(&values); err != nil {
		return 0
	}
	return values[kind]
}

// kindName names a kind of event for users.
func kindName(kind bpf.UnloadKind) string {
	return map[bpf.UnloadKind]string{
		bpf.UnloadKindKIND_BEGIN:     "begin",
		bpf.UnloadKindKIND_DEPENDENT: "dependent",
		bpf.UnloadKindKIND_REFERENCE: "reference",
		bpf.UnloadKindKIND_END:       "end",
		bpf.UnloadKindKIND_WAIT:      "wait",
		bpf.UnloadKindKIND_WAKING:    "waking",
		bpf.UnloadKindKIND_WAITER:    "waiter",
		bpf.UnloadKindKIND_SAMPLE:    "sample",
		bpf.UnloadKindKIND_DEVICE:    "device",
		bpf.UnloadKindKIND_LOG:       "log",
		bpf.UnloadKindKIND_LOAD:      "load",
		bpf.UnloadKindKIND_LOOK:      "look",
	}[kind]
}

// monotonic is the clock that the kernel side stamps with, in ns.
func monotonic() uint64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0
	}
	return uint64(ts.Nano())
}

// wallClock turns a kernel stamp into the time of day, by the clocks as they
// stand now: a clock that was stepped long ago does no harm.
func wallClock(ns uint64) time.Time {
	return time.Now().Add(-time.Duration(monotonic() - ns)).UTC()
}
