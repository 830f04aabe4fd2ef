package page

import (
	"bytes"
	"fmt"
	"math"
	"reflect"
	"testing"
	"time"

	"github.com/modtrace/modtrace/output"
	"github.com/modtrace/modtrace/unload"
)

// began is when the made-up captures begin.
func began() time.Time { return time.Date(2026, 11, 21, 23, 50, 0, 0, time.UTC) }

func header(host, kernel string) unload.Header {
	return unload.Header{
		Schema: 1, Tool: "v1", Kernel: kernel, Arch: "x86_64", Host: host, Started: began(),
		Plan: []unload.Hook{{Phase: unload.Livepatch, Status: unload.StatusAbsent}},
	}
}

// attempt is an unload of which most went into one phase, waiting.
func attempt(module string, after, ns int64, cause unload.Cause) unload.Unload {
	stack := []string{"schedule+0x27", "do_wait+0x8a", module + "_exit+0x10 [" + module + "]", "__do_sys_delete_module+0x1b8"}
	return unload.Unload{
		Module: module, Start: began().Add(time.Duration(after)), Duration: ns, Flags: []string{"O_NONBLOCK"},
		Outcome: unload.Returned, Result: unload.Result{OK: true, Reason: unload.ReasonNone, By: unload.ByKernel},
		Caller: unload.Caller{PID: 10, TID: 10, Comm: "rmmod", Cmdline: []string{"rmmod", module}, Ancestors: []unload.Ancestor{{PID: 1, Comm: "init"}}},
		Phases: []unload.Phase{
			{Name: unload.Enter, Duration: ns / 1000, OnCPU: ns / 1000, Exact: true},
			{Name: unload.Exit, Offset: ns / 1000, Duration: ns - ns/1000, OnCPU: ns / 10, OffCPU: ns - ns/1000 - ns/10,
				Merged: []unload.PhaseName{unload.Notify, unload.Livepatch},
				Waits: []unload.Wait{{Cause: cause, Count: 2, Duration: ns - ns/1000 - ns/10, Longest: ns / 2, Stack: stack,
					Blocker: unload.Blocker{Kind: unload.KindTask, PID: 5, Comm: "holder", Stack: []string{"holds+0x1 [" + module + "]"}},
					Waker:   unload.Blocker{Kind: unload.KindInterrupt}}},
				Hot: []unload.Hot{{Samples: 7, Stack: []string{"spin+0x1 [" + module + "]", "__do_sys_delete_module+0x1b8"}}}},
		},
		Complete: true, Memory: unload.Memory{Freed: 12288},
	}
}

func refusal(module string, after int64) unload.Unload {
	u := attempt(module, after, 12e3, unload.CauseMutex)
	u.Result = unload.Result{Errno: "EAGAIN", Reason: unload.ReasonReferenced, By: unload.ByKernel}
	u.Phases = u.Phases[:1]
	u.Refcount.Before, u.HoldersKnown = 3, true
	u.Holders = []unload.Holder{{
		Kind: unload.HolderFD, Refs: 2, PID: 77, Comm: "reader", FD: 4, Path: "/dev/" + module,
		Cgroup: "/system.slice/reader.service", Confidence: unload.ByOwner,
	}}
	return u
}

func stall(module string, after, elapsed int64) unload.Stall {
	u := attempt(module, after, elapsed, unload.CauseMutex)
	u.Outcome, u.Result, u.Complete = unload.InFlight, unload.Result{Reason: unload.ReasonUnknown, By: unload.ByKernel}, false
	return unload.Stall{Unload: u, Phase: unload.Exit, Elapsed: elapsed, Wait: u.Phases[1].Waits[0]}
}

// report gives records to a document.
func report(t testing.TB, d output.Document, records ...any) {
	t.Helper()
	for _, r := range records {
		if err := output.Put(d, r); err != nil {
			t.Fatal(err)
		}
	}
}

// night is two captures on two hosts with all that there can be in them. The second was
// cut short while an unload hung.
func night() []any {
	one, two := header("alpha", "6.12.1"), header("beta", "7.3.4")
	slow, short, refused := attempt("slow", 1e9, 4e9, unload.CauseRCU), attempt("nf_short", 600e9, 90e6, unload.CauseSleep), refusal("tun", 900e9)
	slow.Notifiers = []unload.Notifier{{Callback: "btf_module_notify", Duration: 5e6, Exact: true}, {Callback: "told", Module: "other", Duration: 1e3}}
	slow.Devices = []unload.Device{{Device: "0000:00:03.0", Driver: "slow", Duration: 1e9}}
	slow.Convoy = []unload.Waiter{{PID: 20, Comm: "modprobe", Lock: "module_mutex", Duration: 3e9}, {PID: 21, Comm: "udevd", Lock: "module_mutex", Duration: 2e9}}
	slow.Log = []unload.LogLine{{Offset: 1e9, Phase: unload.Exit, Level: 4, Text: "slow: still busy"}, {Offset: 2e9, Phase: unload.Exit, Level: 6, Text: "slow: bye"}}
	slow.Residue, slow.ResidueKnown = []string{"/proc/slow is still there"}, true
	slow.References = []unload.Reference{{Op: "put", Module: "base", Offset: 3e9, Phase: unload.FreeDeps, Count: 0}}
	short.Complete, short.LostEvents, short.Missing = false, 3, []string{"3 events were lost"}
	hung := stall("slow", 1e9, 2e9)
	first, again := stall("stuck", 950e9, 2e9), stall("stuck", 950e9, 60e9)
	reload := unload.Reload{Module: "slow", Start: slow.Start.Add(5e9), After: 1e9, Loader: unload.Caller{PID: 30, TID: 30, Comm: "modprobe", Cmdline: []string{"modprobe", "slow"}}}
	held := unload.Why{
		Module: "tun", Time: began(), State: "live", Refcount: 3, Explained: 2, Unexplained: 1, Reason: unload.ReasonReferenced, Holders: refused.Holders,
		Plan: []string{"user", "tun"}, Hazards: []string{"the link goes down"}, Advice: []string{"stop reader.service"}, Missing: []string{"maps of a process"},
	}
	account := unload.Ledger{
		Balance: unload.Balance{Module: "tun", Start: began(), Time: began().Add(time.Minute), State: "live", Refcount: 2, Before: 1, Gets: 3, Puts: 2, Outstanding: 1, Missing: []string{"puts in interrupts"}},
		Entries: []unload.Refs{{Site: "tun_open", PID: 77, Comm: "reader", Gets: 3, Puts: 2, Outstanding: 1, HeldMax: 5e9, Held: 6e9, Stack: []string{"tun_open+0x1 [tun]", "do_open+0x2"}, Processes: 1}},
	}
	return []any{
		&one, &hung, &slow, &reload, &refused, &unload.Trailer{Records: 4, LostEvents: map[string]int64{"wait": 2}, MissedProbes: 1, Ended: began().Add(time.Hour)},
		&two, &short, &held, &account, &unload.Ref{Op: "get", Module: "tun"}, &first, &again,
	}
}

func everything(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	d := New(&b, Options{Notes: func() []string { return []string{"b.ndjson: 3 lines were left out"} }})
	report(t, d, night()...)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// evil are texts that would do harm if they were taken for more than text.
func evil() []string {
	return []string{
		`</script><script>alert(1)</script>`,
		`"><img src=x onerror=alert(1)>`,
		`javascript:alert(1)`,
		`</style><svg onload=alert(1)>`,
		`' onmouseover='alert(1)`,
		`{{.Policy}}]]>--><!--`,
		"\x1b[2J\x1b]0;owned\a\r\n\t\x00\x7f\xff\xfe\u009b31m\u202e\u200b\u2028\ufe0f\ue000",
		`url(#hatch) https://example.com/x`,
		"",
	}
}

// fill puts the same text and number wherever there is room for one.
func fill(v reflect.Value, text string, n int64) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Bool:
		v.SetBool(n&1 != 0)
	case reflect.Int, reflect.Int64:
		v.SetInt(n)
	case reflect.Uint64:
		v.SetUint(uint64(n))
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			fill(v.Index(i), text, n)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf(text), reflect.ValueOf(n))
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Unix(n/1e9, 0)))
			return
		}
		for i := range v.NumField() {
			fill(v.Field(i), text, n)
		}
	}
}

// hostile is one record of each kind that is full of a text and a number.
func hostile(text string, n int64) []any {
	records := []any{
		&unload.Header{}, &unload.Stall{}, &unload.Unload{}, &unload.Stall{}, &unload.Reload{}, &unload.Why{}, &unload.Ledger{},
		&unload.Ref{}, &unload.Trailer{},
	}
	for _, r := range records {
		fill(reflect.ValueOf(r).Elem(), text, n)
	}
	second := *records[2].(*unload.Unload)
	second.Result = unload.Result{Reason: unload.Reason(text), Errno: text}
	third := second
	third.Result, third.Outcome = unload.Result{}, unload.InFlight
	fourth := third
	fourth.Outcome, fourth.Phases = unload.Died, nil
	return append(records[:5:5], append([]any{&second, &third, &fourth}, records[5:]...)...)
}

func hostilePage(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	d := New(&b, Options{Notes: evil})
	for i, text := range evil() {
		for _, n := range []int64{0, 1e9 + int64(i), -1, math.MaxInt64, math.MinInt64} {
			report(t, d, hostile(text, n)...)
		}
		report(t, d, hostile(fmt.Sprintf("%0600d%s", i, text), 5)...)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
