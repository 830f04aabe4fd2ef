package tracer

import (
	"slices"
	"testing"

	"github.com/modtrace/modtrace/bpf"
	"github.com/modtrace/modtrace/unload"
)

func TestRemoved(t *testing.T) {
	for _, c := range []struct{ args, want []string }{
		{[]string{"rmmod", "snd-pcm", "/lib/x/tun.ko.xz"}, []string{"snd_pcm", "tun"}},
		{[]string{"/sbin/modprobe", "-rv", "tun"}, []string{"_rv", "tun"}},
		{[]string{"modprobe", "--remove", "tun"}, []string{"__remove", "tun"}},
		{[]string{"modprobe", "tun"}, nil},
		{[]string{"modprobe", "--verbose", "tun"}, nil},
		{nil, nil},
	} {
		if got := removed(c.args); !slices.Equal(got, c.want) {
			t.Errorf("%q: %q", c.args, got)
		}
	}
}

// TestLooks tells those that were left at that from those after which the kernel was
// asked, and from those that found nothing.
func TestLooks(t *testing.T) {
	a := newAssembler(nil)
	look := func(tid uint32, module string, count uint32) {
		e := &lookEvent{Pid: tid, Count: count}
		e.Header.Tid = tid
		copy(e.Name[:], module)
		copy(e.Comm[:], "rmmod")
		e.CmdlineLen = uint32(copy(e.Cmdline[:], "rmmod\x00busy\x00free\x00held\x00"))
		a.add(e)
	}
	look(1, "busy", 2)
	look(1, "free", 0)
	look(1, "other", 5) // which it looks at on the way
	look(2, "held", 1|lookUsers)
	look(3, "held", 1)
	asks := &bpf.UnloadBegin{}
	asks.Header.Tid = 3
	copy(asks.Name[:], "held")
	a.add(asks)
	look(4, "held", 1) // and goes on
	exists := func(pid int) bool { return pid == 4 }
	if first := a.looks.over(exists); len(first) != 0 {
		t.Errorf("told of before all can have come: %+v", first)
	}
	got := map[string]unload.Reason{}
	for _, u := range a.looks.over(exists) {
		got[u.Module] = u.Result.Reason
		if u.Result.By != unload.ByUserspace || u.Outcome != unload.Returned || !u.Complete {
			t.Errorf("%+v", u)
		}
	}
	if len(got) != 2 || got["busy"] != unload.ReasonReferenced || got["held"] != unload.ReasonDependents {
		t.Errorf("refusals %v", got)
	}
	if left := a.looks.rest(exists); len(left) != 0 || len(a.looks.pending) != 1 {
		t.Errorf("left %+v", left)
	}
}
