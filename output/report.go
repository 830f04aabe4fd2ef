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
