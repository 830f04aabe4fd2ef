package tracer

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/modtrace/modtrace/bpf"
	"github.com/modtrace/modtrace/symbols"
	"github.com/modtrace/modtrace/unload"
)

// calling is the end of an unload that called so many notifiers, 2 ns apart, from
// 1 ns after it came to them. They begin at the addresses 1000, 2000 and so on.
func calling(n int) *bpf.UnloadEnd {
	e := passed(0, all()...)
	e.Callbacks = uint32(n)
	for i := range e.Callback[:min(n, len(e.Callback))] {
		e.Callback[i].Function = uint64(1000 * (i + 1))
		e.Callback[i].Since = e.At[bpf.UnloadBoundaryAT_NOTIFY] + 1 + uint64(2*i)
	}
	return e
}

// knowing is an assembler that knows two functions, one of them a module's.
func knowing() *assembler {
	a := newAssembler(wholePlan())
	a.names = symbols.New(func(addresses []uint64) []string {
		list := make([]string, len(addresses))
		for i, address := range addresses {
			list[i] = map[uint64]string{1001: "first+0x1", 2001: "second+0x1 [edr]"}[address]
		}
		return list
	})
	return a
}

func TestNotifiers(t *testing.T) {
	a := knowing()
	b := &bpf.UnloadBegin{}
	b.Header.Begin, b.Header.Tid = begun, 7
	a.add(b)
	u, _ := a.add(calling(3))
	want := []unload.Notifier{
		{Callback: "first", Duration: 2, Exact: true},
		{Callback: "second", Module: "edr", Duration: 2, Exact: true},
		{Duration: 5, Exact: true},
	}
	if diff := cmp.Diff(want, u.Notifiers); diff != "" || !u.Complete {
		t.Errorf("missing %q; notifiers (-want +got):\n%s", u.Missing, diff)
	}
}

// TestNotifiersWithoutTheNextBoundary last until the one that was seen.
func TestNotifiersWithoutTheNextBoundary(t *testing.T) {
	e := calling(1)
	e.At[bpf.UnloadBoundaryAT_LIVEPATCH], e.At[bpf.UnloadBoundaryAT_FTRACE] = 0, 0
	u, _ := knowing().add(e)
	if len(u.Notifiers) != 1 || u.Notifiers[0].Duration != 29 {
		t.Errorf("notifiers %+v", u.Notifiers)
	}
}

// TestTooManyNotifiers says that some found no room.
func TestTooManyNotifiers(t *testing.T) {
	e := calling(40)
	e.At[bpf.UnloadBoundaryAT_LIVEPATCH], e.At[bpf.UnloadBoundaryAT_FTRACE] = 0, 0
	for b := bpf.UnloadBoundaryAT_ASYNC; b <= bpf.UnloadBoundaryAT_END; b++ {
		e.At[b] += 1000
	}
	u, _ := knowing().add(e)
	want := []string{"8 callbacks on the notifier chain count into the one before them"}
	if len(u.Notifiers) != len(e.Callback) || !slices.Contains(u.Missing, want[0]) {
		t.Errorf("%d notifiers, missing %q", len(u.Notifiers), u.Missing)
	}
}

// TestUnseenNotifiers says of which callbacks the time may be another's.
func TestUnseenNotifiers(t *testing.T) {
	e := calling(3)
	e.Callback[1].Since |= afterUnseen
	said := "1 callback on the notifier chain counts into the one before it"
	exact := func() (list []bool, missing bool) {
		u, _ := knowing().add(e)
		for _, n := range u.Notifiers {
			list = append(list, n.Exact)
		}
		return list, slices.Contains(u.Missing, said)
	}
	if got, missing := exact(); !slices.Equal(got, []bool{false, true, true}) || missing {
		t.Errorf("exact %v, missing %v", got, missing)
	}
	e.Behind, e.Unseen = 2, 1
	if got, missing := exact(); !slices.Equal(got, []bool{false, true, false}) || !missing {
		t.Errorf("exact %v, missing %v", got, missing)
	}
}

// TestNotifiersByStack tells the slow ones where none is seen begin.
func TestNotifiersByStack(t *testing.T) {
	notify := uint32(bpf.UnloadBoundaryAT_NOTIFY)
	p := newPending()
	wait := func(ns int64, boundary uint32, stack ...string) {
		p.waits[stack[0]] = &fold{boundary, unload.Wait{Duration: ns, Stack: stack}}
	}
	wait(500, notify, "msleep+0x1", "slow_going+0x2 [edr]", "notifier_call_chain+0x3", "blocking_notifier_call_chain+0x4", "__do_sys_delete_module+0x5")
	wait(20, notify, "schedule+0x1", "dev_call+0x1", "notifier_call_chain+0x1", "slow_going+0x9 [edr]", "notifier_call_chain+0x3", "blocking_notifier_call_chain+0x4")
	wait(70, notify, "msleep+0x2", "?", "notifier_call_chain+0x3")
	wait(80, notify, "down_read+0x2", "blocking_notifier_call_chain+0x3", "__do_sys_delete_module+0x5")
	wait(90, notify, "notifier_call_chain+0x3")
	wait(95, notify, "msleep+0x4", "inlined+0x1", "blocking_notifier_call_chain+0x3", "__do_sys_delete_module+0x5")
	wait(1000, notify-1, "msleep+0x3", "other+0x2", "notifier_call_chain+0x3")
	p.hot["a"] = &hot{notify, unload.Hot{Samples: 3, Stack: []string{"busy+0x1", "notifier_call_chain+0x3"}}}
	p.hot["b"] = &hot{notify, unload.Hot{Samples: 1, Stack: []string{"elsewhere+0x1"}}}
	want := []unload.Notifier{
		{Callback: "slow_going", Module: "edr", Duration: 520},
		{Callback: "inlined", Duration: 95},
		{Callback: "busy", Duration: 30},
	}
	if diff := cmp.Diff(want, p.notifiersByStack(40)); diff != "" {
		t.Errorf("notifiers (-want +got):\n%s", diff)
	}
}

func loadOf(name string, at uint64) *loadEvent {
	e := &loadEvent{Pid: 9}
	e.Header.Begin, e.Header.Tid = at, 10
	copy(e.Name[:], name)
	copy(e.Comm[:], "modprobe")
	e.Ancestor[0].Pid = 3
	copy(e.Ancestor[0].Comm[:], "udevd")
	return e
}

// returns gives the reloads that an assembler finds in some events.
func returns(events ...any) []unload.Reload {
	a := symbolic()
	for _, e := range events {
		a.add(e)
	}
	return a.takeReloads()
}

func TestReload(t *testing.T) {
	end := passed(0, all()...)
	at := end.At[bpf.UnloadBoundaryAT_END]
	refused := passed(-11, bpf.UnloadBoundaryAT_CHECK, bpf.UnloadBoundaryAT_EXIT)
	want := []unload.Reload{{
		Type: unload.TypeReload, Module: "mod", After: 500,
		Loader: unload.Caller{PID: 9, TID: 10, PPID: 3, Comm: "modprobe", Cmdline: []string{}, Ancestors: []unload.Ancestor{{PID: 3, Comm: "udevd"}}},
	}}
	if diff := cmp.Diff(want, returns(end, loadOf("mod", at+500)), cmpopts.IgnoreFields(unload.Reload{}, "Start")); diff != "" {
		t.Errorf("reload (-want +got):\n%s", diff)
	}
	for name, events := range map[string][]any{
		"another module":   {end, loadOf("other", at+500)},
		"far too late":     {end, loadOf("mod", at+uint64(reloadWindow)+1)},
		"after a refusal":  {refused, loadOf("mod", at+500)},
		"long before":      {loadOf("mod", begun-500), end},
		"during its exit":  {loadOf("mod", begun+25), end},
		"of nothing known": {loadOf("mod", at+500)},
	} {
		if got := returns(events...); len(got) != 0 {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if got := returns(end, loadOf("mod", at+500), loadOf("mod", at+600)); len(got) != 1 {
		t.Errorf("two loads make %d reloads", len(got))
	}
}

// TestReloadOvertakes has the next load be noted before the unload's end.
func TestReloadOvertakes(t *testing.T) {
	end := passed(0, all()...)
	got := returns(loadOf("mod", end.At[bpf.UnloadBoundaryAT_END]-1), end)
	if len(got) != 1 || got[0].After != 0 {
		t.Errorf("reloads %+v", got)
	}
	var events []any
	for i := range uint64(3 * maxLoads) {
		events = append(events, loadOf("other", begun+i))
	}
	a := symbolic()
	for _, e := range events {
		a.add(e)
	}
	if n := len(a.reloads.loads); n != maxLoads {
		t.Errorf("%d loads are kept", n)
	}
}

// TestReloadsForget lets go of modules that did not come back.
func TestReloadsForget(t *testing.T) {
	a := symbolic()
	for i := range uint64(100) {
		e := passed(0, all()...)
		e.Header.Tid = uint32(i)
		e.Name[0] = byte('a' + i%26)
		for b := range e.At {
			e.At[b] += i * uint64(time.Second)
		}
		e.Header.Begin = e.At[0]
		a.add(e)
	}
	if n := len(a.reloads.gone); n > 12 {
		t.Errorf("%d modules are remembered", n)
	}
}

// quietly is a residue's view of a machine on which nothing is loaded.
func quietly(threads ...bpf.UnloadLeftover) *residue {
	return &residue{
		threads: func(uint64, uint64) ([]bpf.UnloadLeftover, error) { return threads, nil },
		loads:   func() loadCounts { return loadCounts{made: 3, lost: 1, read: 2, live: true} },
		lost:    1,
	}
}

// freed is the end of an unload of a module that nobody has.
func freed() *bpf.UnloadEnd {
	e := passed(0, all()...)
	copy(e.Name[:], "nosuchmodule")
	e.TextSize = 1
	return e
}

func TestResidue(t *testing.T) {
	thread, worker := bpf.UnloadLeftover{Pid: 123}, bpf.UnloadLeftover{Pid: 31, Work: 1}
	copy(thread.Comm[:], "foo")
	copy(worker.Comm[:], "kworker/1:2")
	found, known := quietly(thread, worker).look(freed(), 0)
	want := []string{"kernel thread foo (pid 123) still runs in its memory", "worker kworker/1:2 (pid 31) still runs a work item in its memory"}
	if diff := cmp.Diff(want, found); diff != "" || !known {
		t.Errorf("known %v; found (-want +got):\n%s", known, diff)
	}
	if found, known := quietly().look(freed(), 0); len(found) != 0 || !known {
		t.Errorf("known %v: %q", known, found)
	}
	failing := quietly(thread)
	failing.threads = func(uint64, uint64) ([]bpf.UnloadLeftover, error) { return nil, errors.New("no") }
	if found, known := failing.look(freed(), 0); known {
		t.Errorf("known although threads cannot be looked at: %q", found)
	}
}

// TestResidueIsNotClaimed of a module that may be another by now, nor looked for
// all the time.
func TestResidueIsNotClaimed(t *testing.T) {
	counts := map[string]loadCounts{
		"a load not yet read":      {made: 4, lost: 1, read: 2, live: true},
		"a load that was lost":     {made: 4, lost: 2, read: 2, live: true},
		"nobody looks after loads": {made: 3, lost: 1, read: 2},
	}
	for name, c := range counts {
		r := quietly(bpf.UnloadLeftover{Pid: 123})
		r.loads = func() loadCounts { return c }
		if found, known := r.look(freed(), 0); known || len(found) != 0 {
			t.Errorf("%s: known %v: %q", name, known, found)
		}
	}
	r := quietly(bpf.UnloadLeftover{Pid: 123})
	if _, known := r.look(freed(), freed().At[bpf.UnloadBoundaryAT_END]); known {
		t.Error("known although a module was loaded meanwhile")
	}
	if _, known := r.look(freed(), 0); !known {
		t.Error("not looked for")
	}
	if _, known := r.look(freed(), 0); known {
		t.Error("looked for again at once")
	}
}

func TestListed(t *testing.T) {
	const list = "a 16384 0 - Live 0x0 (OE)\nb 16384 1 a, Loading 0x0\nc 16384 0 - Unloading 0x0\nshort\n"
	for name, want := range map[string]bool{"a": true, "b": false, "c": true, "d": false, "short": false} {
		if got := listed(list, name); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestDriversOf(t *testing.T) {
	buses := t.TempDir()
	for driver, module := range map[string]string{"pci/drivers/nic": "nic", "usb/drivers/nic-usb": "nic", "usb/drivers/hub": "hub"} {
		dir := filepath.Join(buses, driver)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("../../../../module/"+module, filepath.Join(dir, "module")); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"driver nic on bus pci still points to it", "driver nic-usb on bus usb still points to it"}
	if diff := cmp.Diff(want, driversOf(buses, "nic")); diff != "" {
		t.Errorf("drivers (-want +got):\n%s", diff)
	}
}
