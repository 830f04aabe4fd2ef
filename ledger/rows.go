package ledger

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/modtrace/modtrace/bpf"
	"github.com/modtrace/modtrace/cause"
	"github.com/modtrace/modtrace/unload"
)

// decode reads an event. The ring rounds lengths up to eight bytes.
func decode(raw []byte) (e bpf.LedgerEvent, err error) {
	if size := binary.Size(e); len(raw) < size || len(raw) >= size+8 {
		return e, fmt.Errorf("%w: %d bytes", errDamaged, len(raw))
	}
	if _, err := binary.Decode(raw, binary.NativeEndian, &e); err != nil {
		return e, fmt.Errorf("%w: %w", errDamaged, err)
	}
	if e.Kind > uint32(bpf.LedgerEventKindEVENT_FREE) || e.Taken > e.Time {
		return e, fmt.Errorf("%w: kind %d", errDamaged, e.Kind)
	}
	return e, nil
}

// rows are the entries for the pages, and for those that were torn out.
func (l *Ledger) rows(pages map[bpf.LedgerPageKey]*bpf.LedgerPage, c clock) []row {
	var all []row
	keys := slices.SortedFunc(maps.Keys(pages), func(a, b bpf.LedgerPageKey) int {
		return cmp.Or(cmp.Compare(a.Load, b.Load), cmp.Compare(a.Pid, b.Pid))
	})
	for _, key := range keys {
		all = append(all, l.rowsOf(key, pages[key], c)...)
	}
	all = append(all, l.sealed...)
	for _, r := range l.retired {
		all = append(all, *r)
	}
	return all
}

// rowsOf are the entries for one page.
func (l *Ledger) rowsOf(key bpf.LedgerPageKey, page *bpf.LedgerPage, c clock) []row {
	var all []row
	comm, gone := process(int(key.Pid), c.of(page.Site[0].First))
	for i, s := range page.Site {
		if s.Address == 0 {
			break
		}
		r := row{strays: int64(s.Strays), first: s.First, last: s.Last}
		stack := l.stackOf(bpf.LedgerStackKey{Pid: key.Pid, Load: key.Load, Address: s.Address})
		r.Refs = unload.Refs{
			Type: unload.TypeRefs, Module: l.module, Site: l.site(s.Address), PID: int(key.Pid),
			Comm: cmp.Or(comm, text(page.Comm[:])), Gets: int64(s.Gets), Puts: int64(s.Puts + s.Strays),
			HeldMax: int64(s.HeldMax), First: c.of(s.First), Last: c.of(s.Last),
			Stack: stack, Gone: gone, Processes: 1, Load: int64(key.Load),
		}
		if s.Gets > 0 {
			r.Ambiguous = int64(page.Ambiguous)
		}
		if s.DroppedAt != 0 {
			r.Dropped = l.site(s.DroppedAt)
		}
		for _, ref := range page.Reference[:min(int(page.Open), len(page.Reference))] {
			if ref.Site == uint32(i) {
				r.open = append(r.open, ref.Time)
			}
		}
		for range s.Untimed {
			r.open = append(r.open, s.Last) // or before; the ones with times are older
		}
		r.held = s.PutsSum - s.GetsSum
		all = append(all, r)
	}
	return all
}

// stackOf names the stack of a process in a place, from the call site on, once.
func (l *Ledger) stackOf(key bpf.LedgerStackKey) []string {
	if stack, ok := l.stacks[key]; ok {
		return stack
	}
	frames := l.kernel.stack(key)
	if i := slices.Index(frames, key.Address); i >= 0 {
		frames = frames[i:] // what comes before is how the kernel counts, and this program
	} else {
		frames = []uint64{key.Address}
	}
	stack := l.names.Of(frames)
	l.stacks[key] = stack
	l.fresh++
	return stack
}

// site names the function that a call site is in.
func (l *Ledger) site(address uint64) string {
	frame := l.names.Of([]uint64{address})[0]
	if module := cause.Module(frame); module != "" {
		return cause.Function(frame) + " [" + module + "]"
	}
	return cause.Function(frame)
}

// When to look for pages that are not needed any more: the kernel has room for more
// than come in that time.
const (
	sweepEvery = 200 * time.Millisecond
	sweepAfter = 64
)

// sweep makes room for other processes.
func (l *Ledger) sweep() error {
	if l.fresh < sweepAfter || time.Since(l.swept) < sweepEvery {
		return nil
	}
	l.swept, l.fresh = time.Now(), 0
	return l.retire()
}

// retiredKey brings together processes that have ended.
type retiredKey struct {
	comm, site string
	strays     bool
}

// maxRetired bounds them; a process can call itself anything.
const maxRetired = 4096

// maxSealed bounds the entries of processes that have ended and left references behind.
const maxSealed = 1024

// retire tears out the pages of processes that have ended, whose numbers may be those
// of others soon, and those of earlier loads of the module.
func (l *Ledger) retire() error {
	pages, err := l.kernel.pages()
	if err != nil {
		return err
	}
	s, err := l.kernel.state()
	if err != nil {
		return err
	}
	c := newClock()
	for key := range pages {
		if key.Load == s.loads && exists(int(key.Pid)) {
			continue
		}
		// Once more: it may have dropped some before it ended.
		page, err := l.kernel.page(key)
		if err != nil {
			return err
		}
		if page == nil {
			continue
		}
		rows := l.rowsOf(key, page, c)
		if err := l.kernel.drop(key, page); err != nil {
			return err
		}
		for _, r := range rows {
			r.Gone = true
			if key.Load == s.loads && len(r.open) > 0 && len(l.sealed) < maxSealed {
				l.sealed = append(l.sealed, r)
				continue
			}
			l.fold(r, key.Load < s.loads)
		}
		for _, site := range page.Site {
			delete(l.stacks, bpf.LedgerStackKey{Pid: key.Pid, Load: key.Load, Address: site.Address})
		}
	}
	return nil
}

// fold adds an entry to those of processes of the same name.
func (l *Ledger) fold(r row, past bool) {
	if past {
		r.give(len(r.open), r.last) // or the module could not have gone
		r.strays = 0
	}
	if own := min(r.strays, l.before.by[r.PID]); own > 0 {
		l.before.by[r.PID] -= own
		l.before.refs -= own
		r.strays -= own
	}
	key := retiredKey{r.Comm, r.Site, r.Gets == 0}
	if l.retired[key] == nil && len(l.retired) >= maxRetired {
		key.comm, r.Comm = "", "(others)"
	}
	sum := l.retired[key]
	if sum == nil {
		l.retired[key] = &r
		return
	}
	sum.Gets += r.Gets
	sum.Puts += r.Puts
	sum.strays += r.strays
	sum.HandedOver += r.HandedOver
	sum.HeldMax = max(sum.HeldMax, r.HeldMax)
	sum.held += r.held
	sum.open = append(sum.open, r.open...)
	slices.Sort(sum.open)
	sum.Ambiguous += r.Ambiguous
	sum.Processes++
	if r.last > sum.last {
		sum.last, sum.Last, sum.PID, sum.Load, sum.Dropped = r.last, r.Last, r.PID, r.Load, r.Dropped
	}
	if r.first < sum.first {
		sum.first, sum.First = r.first, r.First
	}
}
