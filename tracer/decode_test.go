package tracer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/modtrace/modtrace/bpf"
	"github.com/modtrace/modtrace/unload"
)

func encode(t testing.TB, event any) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := binary.Write(&b, binary.NativeEndian, event); err != nil {
		t.Fatal(err)
	}
	if e, ok := event.(*bpf.UnloadEnd); ok { // the kernel side sends as much as there is
		unused := len(e.Callback) - min(int(e.Callbacks), len(e.Callback))
		b.Truncate(b.Len() - unused*binary.Size(bpf.UnloadCallback{}))
	}
	return b.Bytes()
}

func soundEvents() []any {
	begin := &bpf.UnloadBegin{CmdlineLen: 3}
	begin.Header.Begin, begin.Header.Kind = begun, uint32(bpf.UnloadKindKIND_BEGIN)
	dependent := &bpf.UnloadDependent{}
	dependent.Header.Begin, dependent.Header.Kind = begun, uint32(bpf.UnloadKindKIND_DEPENDENT)
	ref := &bpf.UnloadReference{Time: begun + 5}
	ref.Header.Begin, ref.Header.Kind = begun, uint32(bpf.UnloadKindKIND_REFERENCE)
	wait := &bpf.UnloadWait{Since: begun + 3, Until: begun + 1, Depth: uint32(len(bpf.UnloadWait{}.Stack))}
	wait.Header.Begin, wait.Header.Kind = begun, uint32(bpf.UnloadKindKIND_WAIT)
	sample := &bpf.UnloadSample{Time: begun + 4, Depth: 2}
	sample.Header.Begin, sample.Header.Kind = begun, uint32(bpf.UnloadKindKIND_SAMPLE)
	waking := &bpf.UnloadWaking{Depth: uint32(len(bpf.UnloadWaking{}.Stack))}
	waking.Header.Begin, waking.Header.Kind = begun, uint32(bpf.UnloadKindKIND_WAKING)
	waiter := &bpf.UnloadWaiter{Since: begun + 2, Until: begun + 3}
	waiter.Header.Begin, waiter.Header.Kind = begun, uint32(bpf.UnloadKindKIND_WAITER)
	device := &bpf.UnloadDeviceEvent{Since: begun + 1, Until: begun + 2}
	device.Header.Begin, device.Header.Kind = begun, uint32(bpf.UnloadKindKIND_DEVICE)
	line := &bpf.UnloadLogEvent{Time: begun + 3, Length: 5}
	line.Header.Begin, line.Header.Kind = begun, uint32(bpf.UnloadKindKIND_LOG)
	load := &loadEvent{}
	load.Header.Begin, load.Header.Kind = begun, uint32(bpf.UnloadKindKIND_LOAD)
	return []any{begin, dependent, ref, wait, waking, waiter, sample, device, line, load, passed(0, all()...), calling(3)}
}

func TestDecode(t *testing.T) {
	for _, event := range soundEvents() {
		raw := encode(t, event)
		got, err := decode(raw)
		if err != nil {
			t.Errorf("%T: %v", event, err)
			continue
		}
		if again := encode(t, got); !bytes.Equal(raw, again) {
			t.Errorf("%T is not what was sent", event)
		}
		for _, bad := range [][]byte{raw[:len(raw)-1], append(bytes.Clone(raw), make([]byte, 8)...)} {
			if _, err := decode(bad); !errors.Is(err, errDamaged) {
				t.Errorf("%T of %d bytes: error %v", event, len(bad), err)
			}
		}
	}
}

func TestDecodeContradictions(t *testing.T) {
	damage := map[string]func(*bpf.UnloadEnd){
		"no end":              func(e *bpf.UnloadEnd) { e.At[bpf.UnloadBoundaryAT_END] = 0 },
		"time runs backwards": func(e *bpf.UnloadEnd) { e.At[bpf.UnloadBoundaryAT_EXIT] = begun - 1 },
		"begins twice":        func(e *bpf.UnloadEnd) { e.Header.Begin++ },
		"waits too long":      func(e *bpf.UnloadEnd) { e.OffCpu[3] = 1 << 60 },
		"waits that overflow": func(e *bpf.UnloadEnd) { e.OffCpu[3], e.OffCpu[4] = 1<<63, 1<<63 },
		"no such stage":       func(e *bpf.UnloadEnd) { e.Stage = 99 },
		"an age long":         func(e *bpf.UnloadEnd) { e.At[bpf.UnloadBoundaryAT_END] = 1<<64 - 1 },
		"calls out of order": func(e *bpf.UnloadEnd) {
			e.Callbacks = 2
			e.Callback[0].Since = begun + 39
			e.Callback[1].Since = begun + 38
		},
		"calls too early": func(e *bpf.UnloadEnd) { e.Callbacks = 1; e.Callback[0].Since = begun + 29 },
		"calls too late":  func(e *bpf.UnloadEnd) { e.Callbacks = 1; e.Callback[0].Since = begun + 41 },
		"calls nowhere":   func(e *bpf.UnloadEnd) { e.Callbacks = 1; e.At[bpf.UnloadBoundaryAT_NOTIFY] = 0 },
	}
	for name, f := range damage {
		e := passed(0, all()...)
		f(e)
		if _, err := decode(encode(t, e)); !errors.Is(err, errDamaged) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

// TestDecodeWait reads waits of any depth, and none that says more than was sent.
func TestDecodeWait(t *testing.T) {
	least := binary.Size(bpf.UnloadWait{}) - binary.Size(bpf.UnloadWait{}.Stack)
	for sent := range 5 {
		for said := range 5 {
			e := &bpf.UnloadWait{Since: begun + 3, Until: begun + 1, Depth: uint32(said)}
			e.Header.Begin, e.Header.Kind = begun, uint32(bpf.UnloadKindKIND_WAIT)
			e.Stack = [64]uint64{11, 12, 13, 14, 15}
			got, err := decode(encode(t, e)[:least+8*sent])
			if said != sent {
				if !errors.Is(err, errDamaged) {
					t.Errorf("%d frames of %d: error %v", sent, said, err)
				}
				continue
			}
			if err != nil {
				t.Fatalf("%d frames: %v", sent, err)
			}
			if w := got.(*bpf.UnloadWait); sent > 0 && (w.Stack[sent-1] != uint64(10+sent) || w.Stack[sent] != 0) {
				t.Errorf("%d frames: %v", sent, w.Stack[:5])
			}
		}
	}
	for name, f := range map[string]func(*bpf.UnloadWait){
		"the one before ends later": func(e *bpf.UnloadWait) { e.Until = e.Since + 1 },
		"before the unload":         func(e *bpf.UnloadWait) { e.Since, e.Until = begun-1, 0 },
		"no such phase":             func(e *bpf.UnloadWait) { e.Boundary = boundaries },
		"an age later":              func(e *bpf.UnloadWait) { e.Since = 1<<64 - 1 },
	} {
		e := &bpf.UnloadWait{Since: begun + 3, Until: begun + 1}
		e.Header.Begin, e.Header.Kind = begun, uint32(bpf.UnloadKindKIND_WAIT)
		f(e)
		if _, err := decode(encode(t, e)[:least]); !errors.Is(err, errDamaged) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

// FuzzDecode feeds the way from the ring to the report with anything: what
// passes must give a report that adds up.
func FuzzDecode(f *testing.F) {
	for _, event := range soundEvents() {
		f.Add(encode(f, event))
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		event, err := decode(raw)
		if err != nil {
			if !errors.Is(err, errDamaged) {
				t.Errorf("error %v", err)
			}
			return
		}
		a := newAssembler(wholePlan().without(unload.StatusAbsent, unload.Livepatch))
		u, ok := a.add(event)
		if ok {
			conserved(t, u)
		}
		for _, u := range a.rest(nil, 0) {
			conserved(t, u)
		}
	})
}
