package ledger

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/modtrace/modtrace/bpf"
	"github.com/modtrace/modtrace/unload"
)

func encoded(t testing.TB, e bpf.LedgerEvent) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := binary.Write(&b, binary.NativeEndian, e); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestDecode(t *testing.T) {
	put := bpf.LedgerEvent{Time: 20, Taken: 10, Kind: uint32(bpf.LedgerEventKindEVENT_PUT), Pid: 7}
	raw := encoded(t, put)
	for _, tt := range []struct {
		name string
		raw  []byte
		ok   bool
	}{
		{"whole", raw, true},
		{"rounded up", append(bytes.Clone(raw), 0, 0, 0, 0), true},
		{"nothing", nil, false},
		{"short", raw[:len(raw)-1], false},
		{"long", append(bytes.Clone(raw), make([]byte, 8)...), false},
		{"of no kind", encoded(t, bpf.LedgerEvent{Kind: 99}), false},
		{"dropped before it was taken", encoded(t, bpf.LedgerEvent{Time: 1, Taken: 2}), false},
	} {
		e, err := decode(tt.raw)
		if tt.ok && (err != nil || e.Pid != 7) || !tt.ok && !errors.Is(err, errDamaged) {
			t.Errorf("%s: %+v, %v", tt.name, e, err)
		}
	}
}

// TestFold brings together what processes of one name did that come and go, and no
// more of them than there is room for.
func TestFold(t *testing.T) {
	l := &Ledger{retired: map[retiredKey]*row{}, before: initial{refs: 2, by: map[int]int64{7: 1}}}
	now := time.Now()
	for i := range 3 {
		l.fold(row{Refs: unload.Refs{Comm: "blkid", Site: "misc_open", PID: 100 + i, Gets: 2, Puts: 2, HeldMax: int64(10 * i),
			First: now.Add(time.Duration(-i)), Last: now.Add(time.Duration(i)), Processes: 1}, first: uint64(10 - i), last: uint64(i), held: 5}, false)
	}
	r := l.retired[retiredKey{"blkid", "misc_open", false}]
	if r == nil || r.Processes != 3 || r.Gets != 6 || r.Puts != 6 || r.HeldMax != 20 || r.held != 15 || r.PID != 102 || !r.First.Equal(now.Add(-2)) {
		t.Fatalf("%+v", r)
	}
	l.fold(row{Refs: unload.Refs{Comm: "vpnd", PID: 7, Puts: 2}, strays: 2}, false)
	if r := l.retired[retiredKey{"vpnd", "", true}]; r.strays != 1 || l.before.refs != 1 || l.before.by[7] != 0 {
		t.Errorf("what it held before is not its own: %+v, %+v", r, l.before)
	}
	for i := range 2 * maxRetired {
		l.fold(row{Refs: unload.Refs{Comm: fmt.Sprint(i), Site: "misc_open", Gets: 1, Processes: 1}}, false)
	}
	var processes, gets int64
	for _, r := range l.retired {
		processes, gets = processes+r.Processes, gets+r.Gets
	}
	if len(l.retired) > maxRetired+1 || processes != 2*maxRetired+3 || gets != 2*maxRetired+6 {
		t.Errorf("%d entries for %d processes and %d gets", len(l.retired), processes, gets)
	}
}

// TestFoldKeepsOrder: the oldest of those outstanding is the first.
func TestFoldKeepsOrder(t *testing.T) {
	l := &Ledger{retired: map[retiredKey]*row{}}
	l.fold(row{open: []uint64{3, 5}}, false)
	l.fold(row{open: []uint64{1, 4}}, false)
	if got := l.retired[retiredKey{strays: true}].open; !slices.Equal(got, []uint64{1, 3, 4, 5}) {
		t.Error(got)
	}
}

// TestFoldOfThePast: what was outstanding when the module went was dropped.
func TestFoldOfThePast(t *testing.T) {
	l := &Ledger{retired: map[retiredKey]*row{}}
	l.fold(row{Refs: unload.Refs{Gets: 3, Puts: 1}, open: []uint64{1, 2}, last: 7, held: ^uint64(2)}, true) // held -3
	if r := l.retired[retiredKey{}]; r.HandedOver != 2 || len(r.open) != 0 || r.held != 11 {
		t.Errorf("%+v", r)
	}
}

// TestProcess tells one that runs from one that has ended, and from another of the
// same number.
func TestProcess(t *testing.T) {
	if comm, gone := process(os.Getpid(), time.Now()); gone || comm == "" {
		t.Errorf("this one: %q, %v", comm, gone)
	}
	if _, gone := process(os.Getpid(), time.Now().Add(-time.Hour)); !gone {
		t.Error("seen an hour ago, it is another")
	}
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Skip(err)
	}
	if _, gone := process(cmd.Process.Pid, time.Now()); !gone || exists(cmd.Process.Pid) {
		t.Error("one that has ended runs")
	}
}

// TestClock keeps the order of stamps.
func TestClock(t *testing.T) {
	c := newClock()
	if d := c.of(2000).Sub(c.of(500)); d != 1500 {
		t.Errorf("1500 ns are %v", d)
	}
	if d := time.Since(c.of(monotonic())); d < 0 || d > time.Minute {
		t.Errorf("now was %v ago", d)
	}
}
