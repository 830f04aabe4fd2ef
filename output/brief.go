package output

import (
	"io"

	"github.com/modtrace/modtrace/unload"
)

// few is how many records are reported one by one: what more of them say is in a summary.
const few = 20

// NewBrief reports to w for people: a few records as [NewTable] does, more of them by a
// summary alone.
func NewBrief(w io.Writer, o TableOptions) Document {
	return &brief{w: w, options: o, table: Ends(NewTable(w, o))}
}

type brief struct {
	Silent
	w       io.Writer
	options TableOptions
	table   Document
	held    []func() error // records of which it is not known yet whether they are few
	unloads int
}

func (b *brief) hold(report func() error) error {
	if b.unloads > few || len(b.held) > 10*few {
		b.held = nil
		return nil
	}
	b.held = append(b.held, report)
	return nil
}

func (b *brief) Header(h unload.Header) error {
	return b.hold(func() error { return b.table.Header(h) })
}

func (b *brief) Unload(u unload.Unload) error {
	b.unloads++
	return b.hold(func() error { return b.table.Unload(u) })
}

func (b *brief) Stall(s unload.Stall) error {
	return b.hold(func() error { return b.table.Stall(s) })
}

func (b *brief) Reload(r unload.Reload) error {
	return b.hold(func() error { return b.table.Reload(r) })
}

func (b *brief) Why(w unload.Why) error {
	return b.hold(func() error { return b.table.Why(w) })
}

func (b *brief) Ledger(l unload.Ledger) error {
	return b.hold(func() error { return b.table.Ledger(l) })
}

func (b *brief) Ref(r unload.Ref) error {
	return b.hold(func() error { return b.table.Ref(r) })
}

func (b *brief) Trailer(t unload.Trailer) error {
	return b.hold(func() error { return b.table.Trailer(t) })
}

func (b *brief) Close() error {
	for _, report := range b.held {
		if err := report(); err != nil {
			return err
		}
	}
	return b.table.Close()
}
