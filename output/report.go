// Package output renders what modtrace reports, for programs and for people.
// It knows the model alone, so that a capture can be rendered on any machine.
package output

import "github.com/modtrace/modtrace/unload"

// Report takes a stream of records: a header, the unloads as they end, those
// that hang meanwhile, modules that come back, who holds a module, who takes and drops
// references on it, a trailer. Each method has written its record when it returns, or
// says why not. A report is used by one goroutine.
type Report interface {
	Header(unload.Header) error
	Unload(unload.Unload) error
	Stall(unload.Stall) error
	Reload(unload.Reload) error
	Why(unload.Why) error
	Ledger(unload.Ledger) error
	Ref(unload.Ref) error
	Trailer(unload.Trailer) error
}

// Document is a report on all that comes from one or more captures. Each begins with its
// header, and ends with its trailer unless it was cut short. Close writes what stands
// behind the last; nothing comes after it.
type Document interface {
	Report
	Close() error
}

// Silent takes every record and does nothing: documents embed it for those that they do
// not show.
type Silent struct{}

// Header does nothing.
func (Silent) Header(unload.Header) error { return nil }

// Unload does nothing.
func (Silent) Unload(unload.Unload) error { return nil }

// Stall does nothing.
func (Silent) Stall(unload.Stall) error { return nil }

// Reload does nothing.
func (Silent) Reload(unload.Reload) error { return nil }

// Why does nothing.
func (Silent) Why(unload.Why) error { return nil }

// Ledger does nothing.
func (Silent) Ledger(unload.Ledger) error { return nil }

// Ref does nothing.
func (Silent) Ref(unload.Ref) error { return nil }

// Trailer does nothing.
func (Silent) Trailer(unload.Trailer) error { return nil }

// Close does nothing.
func (Silent) Close() error { return nil }
