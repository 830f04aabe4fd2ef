// Package ledger watches references on a module being taken and dropped: by whom,
// where, for how long, and what is outstanding. The kernel keeps the books; see
// bpf/ledger.bpf.c.
package ledger

import (
	"context"
	"errors"
	"math"
	"os"
	"slices"
	"time"

	"github.com/cilium/ebpf/ringbuf"

	"github.com/modtrace/modtrace/bpf"
	"github.com/modtrace/modtrace/object"
	"github.com/modtrace/modtrace/symbols"
	"github.com/modtrace/modtrace/unload"
)

// Options say how to watch.
type Options struct {
	// BTF is a file with the kernel's types, for kernels that carry none.
	BTF string
	// RingBytes is the size of the ring buffer: a power of two, at least a page. 0
	// is 1 MiB. Pages is how many processes can be kept apart at a time; 0 is 2048.
	RingBytes, Pages int
	// Mechanisms limits the ways of attaching to those named; empty is all.
	Mechanisms []string
	// Raw has each get and put sent, to what Follow is given.
	Raw bool
}

// Ledger watches one module. It is used by one goroutine.
type Ledger struct {
	module string
	kernel *kernel
	reader *ringbuf.Reader
	names  *symbols.Names
	start  time.Time
	clock  clock // for what comes as it happens

	initial int64 // references when the watch began
	before  initial
	holders []unload.Holder
	missing []string
	stacks  map[bpf.LedgerStackKey][]string // named
	sealed  []row                           // of processes that have ended and left references behind
	retired map[retiredKey]*row
	swept   time.Time
	fresh   int // stacks since
	damaged int64
}

// Start attaches everything and arms it: what happens after it returns is seen. The
// module need not be loaded, and may go and come back. holdersOf says who holds the
// module, for the references that there are already; nil if that is not known. The
// error is an [*object.Unable] when the machine is at fault.
func Start(module string, o Options, holdersOf func() ([]unload.Holder, error)) (*Ledger, error) {
	k, err := openKernel(module, o)
	if err != nil {
		return nil, err
	}
	l := &Ledger{
		module: module, kernel: k,
		stacks: map[bpf.LedgerStackKey][]string{}, retired: map[retiredKey]*row{},
	}
	if err := l.begin(holdersOf); err != nil {
		return nil, errors.Join(err, k.close())
	}
	return l, nil
}

func (l *Ledger) begin(holdersOf func() ([]unload.Holder, error)) error {
	var err error
	if l.reader, err = ringbuf.NewReader(l.kernel.Maps[bpf.LedgerMapEvents]); err != nil {
		return object.Explain("opening the ring buffer", err)
	}
	l.names = symbols.New(l.kernel.asker())
	if err := l.kernel.arm(true); err != nil {
		return errors.Join(err, l.reader.Close())
	}
	l.start = time.Now().UTC()
	if err := l.countInitial(); err != nil {
		return errors.Join(err, l.reader.Close())
	}
	l.findInitial(holdersOf)
	return nil
}

// tries bounds how often to look for a moment in which nothing changes.
const tries = 200

// countInitial finds out how many references there are already: what the kernel
// counts, less what has been taken since the programs were armed.
func (l *Ledger) countInitial() error {
	for range tries {
		before, err := l.kernel.state()
		if err != nil {
			return err
		}
		m := readModule(l.module)
		after, err := l.kernel.state()
		if err != nil {
			return err
		}
		if before != after {
			continue
		}
		if after.loads == 0 && m.state != "" {
			l.initial = m.refcount - int64(after.totals.Gets) + int64(after.totals.Puts)
			l.before.refs = l.initial
		}
		return nil
	}
	l.missing = append(l.missing, "how many references there were at the beginning: their number did not stand still")
	return nil
}

// findInitial finds out who holds those that there are already.
func (l *Ledger) findInitial(holdersOf func() ([]unload.Holder, error)) {
	if l.before.refs <= 0 || holdersOf == nil {
		return
	}
	list, err := holdersOf()
	if err != nil {
		return // nobody is blamed
	}
	pages, err := l.kernel.pages()
	if err != nil {
		return
	}
	since := map[int]int64{}
	for key, page := range pages {
		since[int(key.Pid)] += int64(page.Open + page.Untimed)
	}
	l.before.by = map[int]int64{}
	var found int64
	for _, h := range list {
		n := h.Refs
		if h.PID != 0 {
			of := min(since[h.PID], n)
			since[h.PID] -= of
			n -= of
			l.before.by[h.PID] += n
		}
		if n == 0 || found+n > l.before.refs {
			continue
		}
		found += n
		h.Refs = n
		l.holders = append(l.holders, h)
	}
}

// Plan is what is watched, and by which means.
func (l *Ledger) Plan() []unload.Hook { return l.kernel.plan }

// Follow watches until ctx is done. What Options.Raw asks for goes to each as it
// comes; every so often due is called, never if that is 0.
func (l *Ledger) Follow(ctx context.Context, every time.Duration, due func() error, each func(unload.Ref) error) error {
	stop := context.AfterFunc(ctx, func() { _ = l.reader.Flush() }) // the end of the loop says so
	defer stop()
	next := time.Now().Add(every)
	for {
		err := l.read(each)
		if errors.Is(err, ringbuf.ErrFlushed) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := l.sweep(); err != nil {
			return err
		}
		if every > 0 && !time.Now().Before(next) {
			next = next.Add(every)
			if err := due(); err != nil {
				return err
			}
		}
	}
}

// Stop disarms, and gives what had come until then to each.
func (l *Ledger) Stop(each func(unload.Ref) error) error {
	if err := errors.Join(l.kernel.arm(false), l.reader.Flush()); err != nil {
		return err
	}
	for {
		if err := l.read(each); errors.Is(err, ringbuf.ErrFlushed) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// patience is how long what happens may lie in the ring.
const patience = 100 * time.Millisecond

// read takes what the ring has, and waits for it for a while.
func (l *Ledger) read(each func(unload.Ref) error) error {
	var record ringbuf.Record
	deadline := time.Now().Add(patience)
	l.reader.SetDeadline(deadline)
	l.clock = newClock()
	for {
		err := l.reader.ReadInto(&record)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return err
		}
		e, err := decode(record.RawSample)
		if err != nil {
			l.damaged++
			continue
		}
		if ref, ok := l.take(e); ok && each != nil {
			if err := each(ref); err != nil {
				return err
			}
		}
		if !time.Now().Before(deadline) {
			return nil
		}
	}
}

// take brings an event into the books. ok says that it is a get or a put.
func (l *Ledger) take(e bpf.LedgerEvent) (ref unload.Ref, ok bool) {
	switch kind := bpf.LedgerEventKind(e.Kind); kind {
	case bpf.LedgerEventKindEVENT_GET, bpf.LedgerEventKindEVENT_PUT:
		return l.ref(e, kind), true
	case bpf.LedgerEventKindEVENT_SITE:
		l.stackOf(bpf.LedgerStackKey{Pid: e.Pid, Load: e.Load, Address: e.Address})
	case bpf.LedgerEventKindEVENT_LOAD:
		l.names.Forget() // another module may have lain there
	}
	return ref, false
}

func (l *Ledger) ref(e bpf.LedgerEvent, kind bpf.LedgerEventKind) unload.Ref {
	ref := unload.Ref{
		Type: unload.TypeRef, Op: "get", Module: l.module, Time: l.clock.of(e.Time),
		PID: int(e.Pid), TID: int(e.Tid), Comm: text(e.Comm[:]), Site: l.site(e.Address), Held: -1, Load: int64(e.Load),
	}
	if kind == bpf.LedgerEventKindEVENT_PUT {
		ref.Op = "put"
		if e.TakenAt != 0 {
			ref.Taken = l.site(e.TakenAt)
		}
		if e.Taken != 0 {
			ref.Held = int64(e.Time - e.Taken)
		}
	}
	return ref
}

// Ledger gives the ledger as it stands now.
func (l *Ledger) Ledger() (unload.Ledger, error) {
	if err := l.retire(); err != nil {
		return unload.Ledger{}, err
	}
	b := unload.Balance{
		Type: unload.TypeBalance, Module: l.module, Start: l.start, Initial: l.initial,
		Holders: slices.Clone(l.holders), Missing: slices.Clone(l.missing),
	}
	pages, s, still, err := l.look(&b)
	if err != nil {
		return unload.Ledger{}, err
	}
	b.Gets, b.Puts, b.Loads = int64(s.totals.Gets), int64(s.totals.Puts), int64(s.loads)
	c := newClock()
	b.Time = c.wall
	rows := l.rows(pages, c)
	if !still {
		b.Missing = append(b.Missing, "the kernel's count and the ledger at one time: neither stood still, and the count given is the ledger's")
		b.Refcount = math.MaxInt64 // no reason to think that any were dropped unseen
	}
	settle(&b, rows, l.before.clone(), int64(s.loads))
	if !still {
		b.Refcount, b.Unexplained = b.Before+b.Outstanding, 0
	}
	if s.loader != 0 && b.State == "coming" && b.Unexplained > 0 {
		b.Before, b.Unexplained = b.Before+1, b.Unexplained-1 // the loading itself
	}
	inOrder(rows)
	all := unload.Ledger{Balance: b}
	for i := range rows {
		r := &rows[i]
		r.Held = int64(r.held + c.monotonic*uint64(len(r.open)))
		if len(r.open) > 0 {
			r.Since = c.of(r.open[0])
			r.HeldMax = max(r.HeldMax, int64(c.monotonic-r.open[0]))
		}
		all.Entries = append(all.Entries, r.Refs)
	}
	return all, nil
}

// look reads the kernel's count and the pages in a moment in which they stand still, or
// says that there was none.
func (l *Ledger) look(b *unload.Balance) (pages map[bpf.LedgerPageKey]*bpf.LedgerPage, s state, still bool, err error) {
	waited := false
	for range tries {
		if pages, s, still, err = l.glance(b); err != nil {
			return nil, s, false, err
		}
		if still && (waited || s.count(l.initial) == b.Refcount) {
			return pages, s, true, nil
		}
		if still {
			waitForPrograms()
			waited = true
		}
	}
	return pages, s, still, nil
}

// glance reads all once. still says that nothing has changed meanwhile.
func (l *Ledger) glance(b *unload.Balance) (pages map[bpf.LedgerPageKey]*bpf.LedgerPage, s state, still bool, err error) {
	before, err := l.kernel.state()
	if err != nil {
		return nil, s, false, err
	}
	m := readModule(l.module)
	b.State, b.Refcount = m.state, m.refcount
	if pages, err = l.kernel.pages(); err != nil {
		return nil, s, false, err
	}
	if s, err = l.kernel.state(); err != nil {
		return nil, s, false, err
	}
	return pages, s, before == s && m == readModule(l.module), nil
}

// Stats are what was not seen.
type Stats struct {
	Lost    map[string]int64 // by kind
	Missed  int64
	Damaged int64
}

// Stats gives the counts.
func (l *Ledger) Stats() Stats {
	return Stats{l.kernel.lost(), l.kernel.missed(), l.damaged}
}

// Close detaches, and frees what the kernel holds.
func (l *Ledger) Close() error {
	return errors.Join(l.reader.Close(), l.kernel.close())
}

// errDamaged says that a record is not one that the kernel side can have sent.
var errDamaged = errors.New("damaged record")

func (b initial) clone() initial {
	by := map[int]int64{}
	for pid, n := range b.by {
		by[pid] = n
	}
	return initial{b.refs, by}
}
