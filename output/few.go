package output

import (
	"io"

	"github.com/modtrace/modtrace/unload"
)

// few is how many unloads are reported one by one: what more of them say is in a summary.
const few = 20

// Few reports a few records as [NewTable] does when it is closed, and of more none. What is
// kept does not grow with them.
type Few struct {
	table   Document
	held    []func() error
	unloads int
}

// NewFew reports to w, if the records are few.
func NewFew(w io.Writer, o TableOptions) *Few { return &Few{table: Ends(NewTable(w, o))} }

// All says that the records are few, so that each will be reported.
func (f *Few) All() bool { return f.unloads <= few && len(f.held) <= 10*few }

func (f *Few) hold(report func() error) error {
	if f.All() {
		f.held = append(f.held, report)
	}
	return nil
}

// Header keeps a header.
func (f *Few) Header(h unload.Header) error {
	return f.hold(func() error { return f.table.Header(h) })
}

// Unload keeps an unload.
func (f *Few) Unload(u unload.Unload) error {
	f.unloads++
	return f.hold(func() error { return f.table.Unload(u) })
}

// Stall keeps a stall.
func (f *Few) Stall(s unload.Stall) error {
	return f.hold(func() error { return f.table.Stall(s) })
}

// Reload keeps a reload.
func (f *Few) Reload(r unload.Reload) error {
	return f.hold(func() error { return f.table.Reload(r) })
}

// Why keeps an answer to who holds a module.
func (f *Few) Why(w unload.Why) error {
	return f.hold(func() error { return f.table.Why(w) })
}

// Ledger keeps a ledger.
func (f *Few) Ledger(l unload.Ledger) error {
	return f.hold(func() error { return f.table.Ledger(l) })
}

// Ref keeps a reference.
func (f *Few) Ref(r unload.Ref) error {
	return f.hold(func() error { return f.table.Ref(r) })
}

// Trailer keeps a trailer.
func (f *Few) Trailer(t unload.Trailer) error {
	return f.hold(func() error { return f.table.Trailer(t) })
}

// Close reports the records, if they are few.
func (f *Few) Close() error {
	if !f.All() {
		return nil
	}
	for _, report := range f.held {
		if err := report(); err != nil {
			return err
		}
	}
	return f.table.Close()
}
