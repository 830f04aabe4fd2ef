package tracer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/modtrace/modtrace/bpf"
)

// errDamaged says that a record is not one the kernel side can have sent.
var errDamaged = errors.New("damaged record")

const headerSize = 16

// decode makes an event of a record from the ring: a *bpf.UnloadBegin,
// *bpf.UnloadDependent, *bpf.UnloadReference, *bpf.UnloadWait, *bpf.UnloadWaking,
// *bpf.UnloadWaiter, *bpf.UnloadSample, *bpf.UnloadDeviceEvent,
// *bpf.UnloadLogEvent, *bpf.UnloadEnd, a *loadEvent or *lookEvent, or from a recording a
// *nameRecord or *stallRecord. Whatever the bytes are, it gives an event that is sound or an error
// wrapping errDamaged.
func decode(raw []byte) (any, error) {
	if len(raw) < headerSize {
		return nil, fmt.Errorf("%w: %d bytes", errDamaged, len(raw))
	}
	switch kind := kindOf(raw); kind {
	case bpf.UnloadKindKIND_BEGIN:
		return decodeInto(raw, &bpf.UnloadBegin{}, func(*bpf.UnloadBegin) bool { return true })
	case bpf.UnloadKindKIND_DEPENDENT:
		return decodeInto(raw, &bpf.UnloadDependent{}, func(*bpf.UnloadDependent) bool { return true })
	case bpf.UnloadKindKIND_REFERENCE:
		return decodeInto(raw, &bpf.UnloadReference{}, func(e *bpf.UnloadReference) bool {
			return e.Time >= e.Header.Begin
		})
	case bpf.UnloadKindKIND_END:
		return decodeCut(raw, &bpf.UnloadEnd{}, callbacksWereSent)
	case bpf.UnloadKindKIND_WAIT:
		return decodeCut(raw, &bpf.UnloadWait{}, waitIsSound)
	case bpf.UnloadKindKIND_WAKING:
		return decodeCut(raw, &bpf.UnloadWaking{}, wakingIsSound)
	case bpf.UnloadKindKIND_WAITER:
		return decodeInto(raw, &bpf.UnloadWaiter{}, func(e *bpf.UnloadWaiter) bool {
			return e.Since >= e.Header.Begin && (e.Until == 0 || e.Until >= e.Since && e.Until-e.Since < 1<<62)
		})
	case bpf.UnloadKindKIND_SAMPLE:
		return decodeInto(raw, &bpf.UnloadSample{}, func(e *bpf.UnloadSample) bool {
			return e.Time >= e.Header.Begin && e.Boundary < boundaries && int(e.Depth) <= len(e.Stack)
		})
	case bpf.UnloadKindKIND_DEVICE:
		return decodeInto(raw, &bpf.UnloadDeviceEvent{}, func(e *bpf.UnloadDeviceEvent) bool {
			return e.Since >= e.Header.Begin && e.Until >= e.Since && e.Until-e.Since < 1<<62
		})
	case bpf.UnloadKindKIND_LOG:
		return decodeInto(raw, &bpf.UnloadLogEvent{}, func(e *bpf.UnloadLogEvent) bool {
			return e.Time >= e.Header.Begin && e.Boundary < boundaries && int(e.Length) <= len(e.Text)
		})
	case bpf.UnloadKindKIND_LOAD:
		return decodeInto(raw, &loadEvent{}, func(*loadEvent) bool { return true })
	case bpf.UnloadKindKIND_LOOK:
		return decodeInto(raw, &lookEvent{}, func(*lookEvent) bool { return true })
	case bpf.UnloadKindKIND_STALL:
		return decodeStall(raw)
	case bpf.UnloadKindKIND_NAME:
		return decodeInto(raw, &nameRecord{}, func(e *nameRecord) bool { return e.Address != 0 })
	default:
		return nil, fmt.Errorf("%w: kind %d", errDamaged, kind)
	}
}

// kindOf is the kind that a record says it is of.
func kindOf(raw []byte) bpf.UnloadKind {
	return bpf.UnloadKind(binary.NativeEndian.Uint32(raw[12:]))
}

// boundaries is the number of boundaries.
const boundaries = uint32(bpf.UnloadBoundaryBOUNDARIES)

// decodeCut reads a record that ends in a list, of which only as much was sent as
// there was. sound is told how many bytes were not.
func decodeCut[E any](raw []byte, e *E, sound func(e *E, missing int) bool) (any, error) {
	missing := binary.Size(e) - len(raw)
	if missing < 0 {
		return nil, fmt.Errorf("%w: %d bytes for a %T", errDamaged, len(raw), e)
	}
	padded := append(bytes.Clone(raw), make([]byte, missing)...)
	return decodeInto(padded, e, func(e *E) bool { return sound(e, missing) })
}

const frameSize = 8

func waitIsSound(e *bpf.UnloadWait, missing int) bool {
	return e.Since >= e.Header.Begin && e.Since-e.Header.Begin < 1<<62 && e.Until <= e.Since &&
		e.Boundary < boundaries && int(e.Depth)*frameSize+missing == len(e.Stack)*frameSize
}

func wakingIsSound(e *bpf.UnloadWaking, missing int) bool {
	return int(e.Depth)*frameSize+missing == len(e.Stack)*frameSize
}

// callbacksWereSent says that those callbacks were sent that were called, and kept.
func callbacksWereSent(e *bpf.UnloadEnd, missing int) bool {
	kept := min(int(e.Callbacks), len(e.Callback))
	return missing == (len(e.Callback)-kept)*binary.Size(e.Callback[0]) && endIsSound(e) && callbacksAreSound(e)
}

// decodeInto reads raw into e. The ring rounds lengths up to eight bytes.
func decodeInto[E any](raw []byte, e *E, sound func(*E) bool) (any, error) {
	size := binary.Size(e)
	if len(raw) < size || len(raw) >= size+8 {
		return nil, fmt.Errorf("%w: %d bytes for a %T of %d", errDamaged, len(raw), e, size)
	}
	if _, err := binary.Decode(raw, binary.NativeEndian, e); err != nil {
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	if !sound(e) {
		return nil, fmt.Errorf("%w: a %T that contradicts itself", errDamaged, e)
	}
	return e, nil
}

// endIsSound checks what the report is built on: it begins, it ends, and time
// does not run backwards.
func endIsSound(e *bpf.UnloadEnd) bool {
	return e.At[bpf.UnloadBoundaryAT_END] != 0 && stampsAreSound(e)
}

// stampsAreSound says that an unload began, and that its boundaries come in
// order and its waits fit between its beginning and its last boundary.
func stampsAreSound(e *bpf.UnloadEnd) bool {
	last := e.At[bpf.UnloadBoundaryAT_ENTER]
	if last == 0 || last != e.Header.Begin || e.Stage >= uint32(len(e.At)) {
		return false
	}
	for _, at := range e.At {
		if at == 0 {
			continue
		}
		if at < last {
			return false
		}
		last = at
	}
	return last-e.Header.Begin < 1<<62 && waitsFit(e)
}

// waitsFit says that the time off the CPU between two boundaries that were
// seen is no longer than from one to the other.
func waitsFit(e *bpf.UnloadEnd) bool {
	since, room := e.At[0], uint64(0)
	off := e.OffCpu[0]
	for b := 1; b < len(e.At); b++ {
		if e.At[b] != 0 {
			room, since = e.At[b]-since, e.At[b]
			if off > room {
				return false
			}
			off = 0
		}
		sum := off + e.OffCpu[b]
		if sum < off {
			return false
		}
		off = sum
	}
	// An unload in flight has no end yet to hold its last wait against.
	return off == 0 || e.At[bpf.UnloadBoundaryAT_END] == 0
}
