package tracer

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/modtrace/modtrace/bpf"
	"github.com/modtrace/modtrace/unload"
)

func queued(tid uint32, lock, since, until uint64) *bpf.UnloadWaiter {
	e := &bpf.UnloadWaiter{Tid: tid, Pid: tid, Lock: lock, Since: begun + since}
	if until != 0 {
		e.Until = begun + until
	}
	e.Header.Begin, e.Header.Tid, e.Header.Kind = begun, 7, uint32(bpf.UnloadKindKIND_WAITER)
	copy(e.Comm[:], "insmod")
	return e
}

// TestConvoy lets waiters wait until the unload gives their lock free, of which
// only the first in the queue is told, or until its end.
func TestConvoy(t *testing.T) {
	a := symbolic()
	end := passed(0, all()...)
	last := end.At[bpf.UnloadBoundaryAT_END] - begun
	for _, e := range []*bpf.UnloadWaiter{
		queued(11, 40, 1, 0), queued(12, 40, 5, 0), queued(13, 50, 2, 0),
		queued(11, 40, 1, 9), queued(14, 40, 10, 0), queued(15, 50, last+5, 0),
	} {
		a.add(&bpf.UnloadBegin{Header: end.Header})
		a.add(e)
	}
	u, _ := a.add(end)
	want := []unload.Waiter{
		{PID: 13, Comm: "insmod", Duration: int64(last) - 2},
		{PID: 14, Comm: "insmod", Lock: "rtnl_mutex", Duration: int64(last) - 10},
		{PID: 11, Comm: "insmod", Lock: "rtnl_mutex", Duration: 8},
		{PID: 12, Comm: "insmod", Lock: "rtnl_mutex", Duration: 4},
	}
	if diff := cmp.Diff(want, u.Convoy); diff != "" {
		t.Errorf("convoy (-want +got):\n%s", diff)
	}
	a.add(queued(11, 40, 1, 9)) // after the end
	if len(a.pending) != 0 {
		t.Errorf("%d unloads begun again by a waiter", len(a.pending))
	}
}
