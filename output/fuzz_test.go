package output

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/modtrace/modtrace/unload"
)

// scramble makes a record of whatever it is given.
func scramble(text string, n int64, flags uint) unload.Unload {
	u := attempt(text, phases(nil))
	u.Result = unload.Result{OK: flags&1 != 0, Errno: text, Reason: unload.Reason(text), By: text}
	if flags&2 != 0 {
		u.Result.By, u.Result.Errno = unload.ByUserspace, ""
	}
	u.Start = time.Unix(0, n)
	u.Duration, u.Unaccounted, u.LostEvents = n, n, n
	u.Forced, u.Complete = flags&4 != 0, flags&8 != 0
	u.Refcount.Before, u.Memory.Freed = n, n
	u.Flags, u.Taints, u.Missing = []string{text}, []string{text, "", text}, []string{text, ""}
	for i := range u.Phases {
		u.Phases[i].Duration = n >> i
		u.Phases[i].OffCPU = n >> (i + 1)
	}
	u.Phases[1].Name = unload.PhaseName(text)
	u.Phases[2].Merged = []unload.PhaseName{unload.PhaseName(text), unload.Return}
	u.Phases[3].Merged = []unload.PhaseName{unload.Return}
	scrambleWhy(&u, text, n, flags)
	u.Caller = unload.Caller{
		PID: int(n), TID: int(n >> 1), UID: -1, Comm: text, Exe: text, Cgroup: text,
		Cmdline:   append(strings.Split(text, "/"), text),
		Ancestors: []unload.Ancestor{{PID: int(n), Comm: text}, {Comm: ""}},
	}
	u.Dependents = strings.Split(text, ",")
	u.References = []unload.Reference{
		{Op: "get", Module: text, Offset: n, Phase: unload.PhaseName(text), Site: text, Count: n},
		{Op: text, Module: "", Count: -n},
	}
	return u
}

// scrambleWhy fills in what is said of where the time went.
func scrambleWhy(u *unload.Unload, text string, n int64, flags uint) {
	kinds := []string{"", text, unload.KindTask, unload.KindWork, unload.KindWorkqueue, unload.KindInterface, unload.KindFile, unload.KindInterrupt}
	stack := []string{text, "schedule+0x1", text + "+0x12 [" + text + "]", ""}
	someone := func(i int) unload.Blocker {
		b := unload.Blocker{Kind: kinds[i%len(kinds)], PID: int(n), Comm: text, Function: text, Module: text, Detail: text, Stack: stack}
		if flags>>(i%5)&1 != 0 {
			b.Comm, b.Module = "", ""
		}
		if flags>>(i%7)&1 != 0 {
			b.PID, b.Function = 0, ""
		}
		if flags>>(i%3)&1 != 0 {
			b.Detail, b.Stack = "", nil
		}
		return b
	}
	for i, c := range append(unload.Causes(), unload.Cause(text)) {
		p := &u.Phases[i%len(u.Phases)]
		p.Waits = append(p.Waits, unload.Wait{Cause: c, Count: n >> i, Duration: n >> (i % 9), Longest: n, Blocker: someone(i), Waker: someone(i + 1), Stack: stack})
		p.Hot = append(p.Hot, unload.Hot{Samples: n, Stack: stack[i%4:]})
	}
	u.Notifiers = []unload.Notifier{{Callback: text, Module: text, Duration: n}, {}}
	u.Devices = []unload.Device{{Device: text, Driver: text, Duration: n}, {Duration: -n}}
	u.Convoy = []unload.Waiter{{PID: int(n), Comm: text, Duration: n}, {}}
	u.Log = []unload.LogLine{{Offset: n, Phase: unload.PhaseName(text), Level: int(flags % 8), Text: text}, {Level: -1}}
	u.Residue = []string{text, ""}
}

func seeds(f *testing.F) {
	for _, text := range []string{"", "tun", " ", "   ", nasty, strings.Repeat(" ", 300), strings.Repeat("x", 300),
		strings.Repeat("漢", 100), "e\u0301\u0301\u0301", "\n\n\n", "a/b c,d;e", "…", "🇩🇪🙂👨‍👩‍👧", "\u115f\u3164", "%s%d%!"} {
		for _, n := range []int64{0, -1, 31e9, math.MaxInt64, math.MinInt64} {
			f.Add(text, n, 40, uint(3))
			f.Add(text, n, 1, uint(0xff))
			f.Add(text, n, 200, uint(0x50))
		}
	}
}

func FuzzTable(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, text string, n int64, width int, flags uint) {
		o := TableOptions{Width: width % 300, Color: flags&0x10 != 0, ASCII: flags&0x20 != 0, Verbose: flags&0x40 != 0}
		if o.Width <= 0 {
			o.Width = 80
		}
		hook := unload.Hook{
			Phase: unload.PhaseName(text), Sees: text, Function: text, Mechanism: text, Fallback: text,
			Status: unload.Status(text), Reason: text, Required: true,
		}
		gone := hook
		gone.Status, gone.Mechanism = unload.StatusMissing, ""
		var b bytes.Buffer
		s := stream{
			header:  unload.Header{Tool: text, Kernel: text, Host: text, Plan: []unload.Hook{hook}},
			unloads: []unload.Unload{scramble(text, n, flags), scramble(text, n, flags>>1)},
			trailer: unload.Trailer{LostEvents: map[string]int64{text: n}, MissedProbes: n, Incomplete: n},
		}
		if err := s.report(NewTable(&b, o)); err != nil {
			t.Fatal(err)
		}
		u := scramble(text, n, flags)
		st := unload.Stall{Unload: u, Phase: u.Phases[flags%3].Name, Elapsed: n, Wait: u.Phases[0].Waits[0]}
		if err := NewTable(&b, o).Stall(st); err != nil {
			t.Fatal(err)
		}
		if err := NewTable(&b, o).Reload(unload.Reload{Module: text, After: n, Loader: u.Caller}); err != nil {
			t.Fatal(err)
		}
		if err := Plan(&b, []unload.Hook{hook, gone}, o); err != nil {
			t.Fatal(err)
		}
		checkScreen(t, b.String(), o)
	})
}

func FuzzJSON(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, text string, n int64, _ int, flags uint) {
		u := scramble(text, n, flags)
		line := encode(t, func(r Report) error { return r.Unload(u) })
		var got unload.Unload
		if err := json.Unmarshal([]byte(line), &got); err != nil {
			t.Fatal(err)
		}
		if want := string([]rune(text)); got.Caller.Comm != want { // what is not UTF-8 cannot stay
			t.Errorf("%q comes back as %q, want %q", text, got.Caller.Comm, want)
		}
		for _, r := range line {
			if unprintable(r) {
				t.Errorf("%U in %q", r, line)
			}
		}
	})
}
