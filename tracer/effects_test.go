package tracer

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/modtrace/modtrace/bpf"
	"github.com/modtrace/modtrace/unload"
)

// TestDevices keeps what was detached, the slowest first.
func TestDevices(t *testing.T) {
	a := symbolic()
	for i, ns := range []uint64{5, 9, 7, 9} {
		e := &bpf.UnloadDeviceEvent{Since: begun + 1, Until: begun + 1 + ns}
		e.Header.Begin, e.Header.Tid = begun, 7
		copy(e.Name[:], []string{"a", "b", "c", "d"}[i])
		copy(e.Driver[:], "drv")
		a.add(e)
	}
	u, _ := a.add(passed(0, all()...))
	want := []unload.Device{{Device: "b", Driver: "drv", Duration: 9}, {Device: "d", Driver: "drv", Duration: 9},
		{Device: "c", Driver: "drv", Duration: 7}, {Device: "a", Driver: "drv", Duration: 5}}
	if diff := cmp.Diff(want, u.Devices); diff != "" {
		t.Errorf("devices (-want +got):\n%s", diff)
	}
}

// TestLog gives lines to the unload whose task wrote them, or to all, and to the
// phase that they fell in.
func TestLog(t *testing.T) {
	a := symbolic()
	b := &bpf.UnloadBegin{}
	b.Header.Begin, b.Header.Tid = begun, 7
	a.add(b)
	other := &bpf.UnloadBegin{}
	other.Header.Begin, other.Header.Tid = begun, 8
	a.add(other)
	say := func(begin uint64, tid uint32, at uint64, text string) {
		e := &bpf.UnloadLogEvent{Time: at, Length: uint32(len(text))}
		e.Header.Begin, e.Header.Tid = begin, tid
		copy(e.Text[:], text)
		a.add(e)
	}
	say(begun, 7, begun+25, "bye\n")
	say(begun, 7, begun+26, "[   12.345678] Oops: 0000 [#1] SMP")
	say(begun, 8, begun+25, "another's")
	say(0, 0, begun+35, "WARNING: somewhere")
	say(0, 0, begun-1, "before")
	say(0, 0, begun+10000, "after")
	u, _ := a.add(passed(0, all()...))
	want := []unload.LogLine{
		{Offset: 25, Phase: unload.Exit, Level: -1, Text: "bye"},
		{Offset: 26, Phase: unload.Exit, Level: 2, Text: "Oops: 0000 [#1] SMP"},
		{Offset: 35, Phase: unload.Notify, Level: 4, Text: "WARNING: somewhere"},
	}
	if diff := cmp.Diff(want, u.Log); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}
