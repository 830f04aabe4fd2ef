package ledger

import (
	"cmp"
	"math"
	"slices"

	"github.com/modtrace/modtrace/unload"
)

// row is what one process did in one place.
type row struct {
	unload.Refs
	strays int64  // puts by a process that had taken none
	first  uint64 // by the kernel's clock
	last   uint64
	open   []uint64 // when those that it has not dropped itself were taken, in order
	// held is the sum of the times when references were dropped, less that of when
	// all were taken; it makes sense once those that are open are added.
	held uint64
}

// give notes that the oldest n were dropped by others until some time.
func (r *row) give(n int, until uint64) {
	r.HandedOver += int64(n)
	r.held += until * uint64(n)
	r.open = r.open[n:]
}

// initial is what there was when the watch began.
type initial struct {
	refs int64
	by   map[int]int64 // those of which it is known which process holds them
}

// settle finds out what is left of the references that were not dropped by those who
// had taken them: puts by a process that had taken none are of somebody else's. They
// are, in this order, of those that this process held when the watch began; of the
// oldest that were taken since; of others that were there when it began. Where there
// were more to choose from than puts, that is a rule and not a fact, and the balance
// has them in Unsettled. What is of an earlier load of the module went with it.
func settle(b *unload.Balance, rows []row, before initial, load int64) {
	b.Before = before.refs
	if load > 0 {
		b.Before = 0
		before.by = nil
	}
	var strays int64
	var last uint64
	for i := range rows {
		r := &rows[i]
		if r.Load < load || b.State == "" {
			r.give(len(r.open), r.last)
			continue
		}
		own := min(r.strays, before.by[r.PID])
		if own > 0 {
			before.by[r.PID] -= own
			b.Before -= own
		}
		strays += r.strays - own
		if r.strays > own {
			last = max(last, r.last)
		}
	}
	if b.State == "" {
		b.Before, strays = 0, 0
	}
	strays -= handOver(b, rows, strays, last)
	b.Before -= min(strays, b.Before)
	// The kernel counts fewer than are left: those were dropped where programs did not
	// run. Where tasks are preempted in tracepoints (7.3), the kernel skips a program
	// that a preempted one is in (kernel/trace/bpf_trace.c, __bpf_trace_run).
	if unseen := b.Before + held(rows) - b.Refcount; unseen > 0 {
		b.Unseen = handOver(b, rows, unseen, math.MaxUint64)
	}
	for i := range rows {
		rows[i].Outstanding = int64(len(rows[i].open))
		b.Outstanding += rows[i].Outstanding
		b.HandedOver += rows[i].HandedOver
	}
	b.Unexplained = b.Refcount - b.Before - b.Outstanding
	b.Holders = left(b.Holders, b.Before, before.by)
}

// held is how many are left of those that were taken.
func held(rows []row) (n int64) {
	for _, r := range rows {
		n += int64(len(r.open))
	}
	return n
}

// left are the holders of references of before that have not dropped them.
func left(holders []unload.Holder, refs int64, by map[int]int64) (list []unload.Holder) {
	for _, h := range holders {
		if h.PID != 0 {
			h.Refs = min(h.Refs, by[h.PID])
			by[h.PID] -= h.Refs
		}
		h.Refs = min(h.Refs, refs)
		if refs -= h.Refs; h.Refs > 0 {
			list = append(list, h)
		}
	}
	return list
}

// handOver takes as many of the oldest references as were dropped by others until
// last, and says how many that were.
func handOver(b *unload.Balance, rows []row, strays int64, last uint64) (taken int64) {
	type reference struct {
		row  int
		time uint64
	}
	var all []reference
	holders := 0
	for i, r := range rows {
		if r.first > last || len(r.open) == 0 {
			continue // it had taken none by then
		}
		holders++
		for _, t := range r.open {
			all = append(all, reference{i, t})
		}
	}
	slices.SortStableFunc(all, func(a, b reference) int { return cmp.Compare(a.time, b.time) })
	candidates := int64(len(all)) + b.Before
	for _, ref := range all {
		if taken == strays {
			break
		}
		r := &rows[ref.row]
		r.give(1, min(last, max(r.last, ref.time)))
		if strays == 1 && last != math.MaxUint64 {
			r.HeldMax = max(r.HeldMax, int64(last-ref.time))
		}
		taken++
	}
	if strays > 0 && strays < candidates && (holders > 1 || b.Before > 0) {
		b.Unsettled += strays
	}
	return taken
}

// inOrder sorts what holds some first, the oldest of these first, and then by how
// often.
func inOrder(rows []row) {
	slices.SortStableFunc(rows, func(a, b row) int {
		if (a.Outstanding > 0) != (b.Outstanding > 0) {
			return cmp.Compare(b.Outstanding, a.Outstanding)
		}
		if a.Outstanding > 0 {
			return cmp.Compare(a.open[0], b.open[0])
		}
		return cmp.Or(cmp.Compare(b.Gets+b.Puts, a.Gets+a.Puts), a.First.Compare(b.First))
	})
}
