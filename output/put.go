package output

import (
	"fmt"

	"github.com/modtrace/modtrace/unload"
)

// Put reports a record that was read from a capture, given as a pointer to it.
func Put(r Report, record any) error {
	switch v := record.(type) {
	case *unload.Header:
		return r.Header(*v)
	case *unload.Unload:
		return r.Unload(*v)
	case *unload.Stall:
		return r.Stall(*v)
	case *unload.Reload:
		return r.Reload(*v)
	case *unload.Why:
		return r.Why(*v)
	case *unload.Ref:
		return r.Ref(*v)
	case *unload.Ledger:
		return r.Ledger(*v)
	case *unload.Trailer:
		return r.Trailer(*v)
	}
	return fmt.Errorf("reporting a record: %T is none", record)
}
