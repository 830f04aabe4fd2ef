package output

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/modtrace/modtrace/unload"
)

// stream is records as a report is given them.
type stream struct {
	name    string
	header  unload.Header
	unloads []unload.Unload
	trailer unload.Trailer
}

func (s stream) report(r Report) error {
	if err := r.Header(s.header); err != nil {
		return err
	}
	for _, u := range s.unloads {
		if err := r.Unload(u); err != nil {
			return err
		}
	}
	return r.Trailer(s.trailer)
}

func streams(t testing.TB) []stream {
	one := func(name string, u unload.Unload) stream { return stream{name: name, unloads: []unload.Unload{u}} }
	return append([]stream{
		one("sample", sample(t)),
		one("slow", slow()),
		one("spinning", spinning()),
		one("waits", waits()),
		one("merged", merged()),
		one("forced", forced()),
		one("references", references()),
		one("incomplete", incomplete()),
		one("hang", hang()),
		one("died", died()),
		one("lost-end", lostEnd()),
		one("refused-dependents", refusal("EAGAIN", unload.ReasonDependents, func(u *unload.Unload) {
			u.Refcount.Before, u.Dependents = 3, []string{"user"}
		})),
		one("refused-many-dependents", refusal("EAGAIN", unload.ReasonDependents, manyDependents)),
		one("refused-referenced", refusal("EAGAIN", unload.ReasonReferenced, func(u *unload.Unload) { u.Refcount.Before = 2 })),
		one("refused-force", refusal("EAGAIN", unload.ReasonReferenced, func(u *unload.Unload) {
			u.Refcount.Before, u.Forced, u.Flags = 1, true, []string{"O_NONBLOCK", "O_TRUNC"}
		})),
		one("refused-no-exit", refusal("EBUSY", unload.ReasonNoExit, nil)),
		one("refused-loading", refusal("EBUSY", unload.ReasonLoading, nil)),
		one("refused-unloading", refusal("EBUSY", unload.ReasonUnloading, nil)),
		one("refused-not-found", refusal("ENOENT", unload.ReasonNotFound, nil)),
		one("refused-no-capability", refusal("EPERM", unload.ReasonNoCapability, func(u *unload.Unload) { u.Caller.UID = 1000 })),
		one("refused-modules-disabled", refusal("EPERM", unload.ReasonModulesDisabled, nil)),
		one("refused-interrupted", refusal("EINTR", unload.ReasonInterrupted, interrupted)),
		one("refused-bad-address", refusal("EFAULT", unload.ReasonBadAddress, func(u *unload.Unload) { u.Module = "" })),
		one("refused-denied", refusal("EACCES", unload.ReasonDenied, nil)),
		one("refused-unknown", refusal("EIO", unload.ReasonUnknown, nil)),
		one("refused-userspace", refusal("", unload.ReasonReferenced, userspace)),
		one("refused-userspace-unknown", refusal("", unload.ReasonUnknown, userspace)),
		one("hostile", hostile()),
		one("wide", wide()),
		one("long-command", longCommand()),
		one("bare", unload.Unload{}),
		several(),
	}, causes()...)
}

// sample is a record of a real kernel.
func sample(t testing.TB) unload.Unload {
	t.Helper()
	b, err := os.ReadFile("testdata/sample.json")
	if err != nil {
		t.Fatal(err)
	}
	var u unload.Unload
	if err := json.Unmarshal(b, &u); err != nil {
		t.Fatal(err)
	}
	return u
}

// phases makes phases of a whole unload. The durations are those given, in
// microseconds on and off the CPU; the other phases take 20 µs on it.
func phases(us map[unload.PhaseName][2]int64, names ...unload.PhaseName) []unload.Phase {
	if len(names) == 0 {
		names = unload.PhaseNames()
	}
	var all []unload.Phase
	var at int64
	for _, name := range names {
		on, off := int64(20e3), int64(0)
		if d, ok := us[name]; ok {
			on, off = d[0]*1e3, d[1]*1e3
		}
		all = append(all, unload.Phase{
			Name: name, Offset: at, Duration: on + off, OnCPU: on, OffCPU: off, Exact: true,
			Merged: []unload.PhaseName{}, Waits: []unload.Wait{}, Hot: []unload.Hot{},
		})
		at += on + off
	}
	return all
}

// attempt is an unload by somebody at a shell.
func attempt(module string, all []unload.Phase) unload.Unload {
	u := unload.Unload{
		Type:   unload.TypeUnload,
		Module: module,
		Start:  time.Date(2026, 11, 21, 3, 4, 5, 678901234, time.UTC),
		Flags:  []string{"O_NONBLOCK"},
		Result: unload.Result{OK: true, Reason: unload.ReasonNone, By: unload.ByKernel},
		Caller: unload.Caller{
			PID: 4242, TID: 4242, PPID: 812, Comm: "rmmod", Exe: "/usr/bin/kmod",
			Cmdline:   []string{"rmmod", module},
			Cgroup:    "/user.slice/user-0.slice/session-3.scope",
			Ancestors: []unload.Ancestor{{PID: 812, Comm: "bash"}, {PID: 807, Comm: "sshd"}, {PID: 1, Comm: "systemd"}},
		},
		Phases:     all,
		Notifiers:  []unload.Notifier{},
		Devices:    []unload.Device{},
		Holders:    []unload.Holder{},
		Dependents: []string{},
		References: []unload.Reference{},
		Convoy:     []unload.Waiter{},
		Log:        []unload.LogLine{},
		Residue:    []string{},
		Taints:     []string{},
		Missing:    []string{},
		Signed:     true,
		Complete:   true,

		ResidueKnown: true,
	}
	for _, p := range all {
		u.Duration += p.Duration
	}
	return u
}

func slow() unload.Unload {
	return attempt("slow", phases(map[unload.PhaseName][2]int64{
		unload.Exit: {1200, 610034}, unload.FreeUnlink: {85, 280611}, unload.Async: {0, 0}, unload.Livepatch: {0, 0},
	}))
}

func spinning() unload.Unload {
	return attempt("spin", phases(map[unload.PhaseName][2]int64{
		unload.Exit: {95310034, 12011}, unload.FreeUnlink: {85, 19611},
	}))
}

func waits() unload.Unload {
	u := slow()
	u.Phases[2].Waits = []unload.Wait{
		{Cause: unload.CauseMutex, Count: 3, Duration: 10e6, Stack: []string{}},
		{Cause: unload.CauseWorkqueue, Count: 1, Duration: 600e6, Stack: []string{}},
	}
	return u
}

func merged() unload.Unload {
	u := attempt("old", phases(map[unload.PhaseName][2]int64{unload.FreeParams: {143, 17012}},
		unload.Enter, unload.Check, unload.Notify, unload.Livepatch, unload.FreeSysfs, unload.FreeParams, unload.Return))
	u.ResidueKnown = false
	u.Phases[1].Merged = []unload.PhaseName{unload.Exit}
	u.Phases[3].Merged = []unload.PhaseName{unload.Ftrace, unload.Async}
	u.Phases[4].Merged = []unload.PhaseName{unload.FreeArch, unload.FreeDeps}
	u.Phases[5].Merged = []unload.PhaseName{unload.FreeUnlink, unload.FreeMemory}
	for i := range u.Phases {
		u.Phases[i].Exact = len(u.Phases[i].Merged) == 0
	}
	return u
}

func forced() unload.Unload {
	u := attempt("busy", phases(map[unload.PhaseName][2]int64{unload.FreeMemory: {2100, 0}}))
	u.Forced, u.Flags, u.Refcount.Before = true, []string{"O_NONBLOCK", "O_TRUNC"}, 2
	u.Caller.Cmdline = []string{"rmmod", "-f", "busy"}
	u.Taints = []string{"forced_load", "out_of_tree"}
	return u
}

func references() unload.Unload {
	u := attempt("mac80211_hwsim", phases(nil))
	add := func(op, module string, at, count int64, phase unload.PhaseName, site string) {
		u.References = append(u.References, unload.Reference{Op: op, Module: module, Offset: at, Phase: phase, Site: site, Count: count})
	}
	add("get", "cfg80211", 50e3, 3, unload.Exit, "wiphy_unregister")
	add("put", "cfg80211", 55e3, 2, unload.Exit, "wiphy_unregister")
	add("put", "mac80211", 190e3, 1, unload.FreeDeps, "module_unload_free")
	add("put", "cfg80211", 195e3, 1, unload.FreeDeps, "")
	u.Memory.Freed = 98304
	return u
}

func incomplete() unload.Unload {
	u := slow()
	u.Phases[2].Merged, u.Phases[2].Exact = []unload.PhaseName{unload.Notify}, false
	u.Phases = append(u.Phases[:3], u.Phases[4:]...)
	u.Duration += 12345678
	u.Unaccounted = 12345678
	u.LostEvents, u.Complete = 3, false
	u.Missing = []string{"the beginning of notify was not seen", "3 events found no room"}
	return u
}

func hang() unload.Unload {
	u := attempt("hang", phases(map[unload.PhaseName][2]int64{unload.Exit: {12, 3200000}}, unload.Enter, unload.Check, unload.Exit))
	u.Result = unload.Result{Reason: unload.ReasonUnknown, By: unload.ByKernel}
	u.Outcome, u.Complete, u.Missing = unload.InFlight, false, []string{"still in flight, in exit, when tracing ended"}
	return u
}

func died() unload.Unload {
	u := attempt("oops", phases(map[unload.PhaseName][2]int64{unload.Exit: {11800, 0}}, unload.Enter, unload.Check, unload.Exit))
	u.Result = unload.Result{Reason: unload.ReasonUnknown, By: unload.ByKernel}
	u.Outcome, u.Complete, u.Missing = unload.Died, false, []string{"the task died in exit"}
	return u
}

func lostEnd() unload.Unload {
	u := attempt("gone", []unload.Phase{})
	u.Result = unload.Result{Reason: unload.ReasonUnknown, By: unload.ByKernel}
	u.Outcome, u.Complete, u.Missing = unload.Unseen, false, []string{"its end was not seen: the record was lost"}
	return u
}

// refusal is an attempt that the kernel turned down.
func refusal(errno string, reason unload.Reason, change func(*unload.Unload)) unload.Unload {
	all := phases(map[unload.PhaseName][2]int64{unload.Enter: {11, 0}, unload.Check: {7, 0}}, unload.Enter, unload.Check)
	all[1].Merged, all[1].Exact = []unload.PhaseName{unload.Return}, false
	u := attempt("busy", all)
	u.Result = unload.Result{Errno: errno, Reason: reason, By: unload.ByKernel}
	if change != nil {
		change(&u)
	}
	return u
}

func manyDependents(u *unload.Unload) {
	for _, a := range []string{"ipv4", "ipv6", "bridge", "arp", "inet"} {
		for _, b := range []string{"masq", "nat", "reject", "log", "redir", "compat"} {
			u.Dependents = append(u.Dependents, "nft_"+b+"_"+a)
		}
	}
	u.Refcount.Before = int64(len(u.Dependents))
}

func interrupted(u *unload.Unload) {
	u.Phases = phases(map[unload.PhaseName][2]int64{unload.Enter: {14, 31004112}}, unload.Enter)
	u.Phases[0].Merged, u.Phases[0].Exact = []unload.PhaseName{unload.Return}, false
	u.Duration = u.Phases[0].Duration
}

func userspace(u *unload.Unload) {
	u.Result.By, u.Duration, u.Phases, u.Flags = unload.ByUserspace, 0, []unload.Phase{}, []string{}
	if u.Result.Reason == unload.ReasonReferenced {
		u.Refcount.Before = 2
	}
}

// nasty is what a terminal would obey, or what takes more room than it seems.
const nasty = "\x1b[2J\x1b]0;owned\a\r\n\t\x00\x7f\xff\xfe\u009b31m\u202e\u200b\u00ad\u2028\ufe0f\ue000\U000e0041"

func hostile() unload.Unload {
	u := attempt("evil"+nasty, phases(nil))
	u.Flags = []string{nasty}
	u.Phases[3].Name = unload.PhaseName("x" + nasty)
	u.Phases[4].Merged = []unload.PhaseName{nasty}
	u.Caller.Comm, u.Caller.Exe, u.Caller.Cgroup = nasty, nasty, "/a"+nasty
	u.Caller.Cmdline = []string{"rm\x1b[31mmod", "", "two words", "it's", `back\slash` + "\x07", nasty}
	u.Caller.Ancestors = []unload.Ancestor{{PID: 7, Comm: "\x1b[H"}, {PID: 1, Comm: "a\nb"}}
	u.Dependents = []string{nasty}
	u.Taints = []string{nasty}
	u.References = []unload.Reference{{Op: "get", Module: nasty, Phase: nasty, Site: nasty, Count: 1}}
	u.Missing, u.Complete = []string{nasty}, false
	return u
}

func wide() unload.Unload {
	u := attempt("模块"+strings.Repeat("漢字かな", 20), phases(nil))
	u.Caller.Cmdline = []string{"rmmod", strings.Repeat("한국어", 60)}
	u.Caller.Cgroup = "/e\u0301te\u0301/" + "z" + strings.Repeat("\u0300", 50) + "/กำลัง/🙂🇩🇪👨‍👩‍👧"
	u.Caller.Ancestors = []unload.Ancestor{{PID: 5, Comm: "シェル"}, {PID: 1, Comm: "初期化"}}
	return u
}

func longCommand() unload.Unload {
	u := attempt("usb_storage", phases(nil))
	u.Caller.Cmdline = []string{"bash", "-c", "for m in $(lsmod | awk '{print $1}'); do rmmod $m 2>/dev/null; done"}
	for range 60 {
		u.Caller.Cmdline = append(u.Caller.Cmdline, "usb_storage_quirks=0x1234:0x5678:u")
	}
	for range 40 {
		u.Caller.Ancestors = append(u.Caller.Ancestors, unload.Ancestor{PID: 1 << 22, Comm: "containerd-shim"})
	}
	return u
}

func several() stream {
	return stream{
		name: "several",
		header: unload.Header{
			Tool: "1.0", Kernel: "6.12.9-amd64", Arch: "x86_64", Host: "db3", BootID: "0f1e", Plan: hooks(),
		},
		unloads: []unload.Unload{
			attempt("empty", phases(map[unload.PhaseName][2]int64{unload.Livepatch: {0, 0}})),
			refusal("EAGAIN", unload.ReasonReferenced, func(u *unload.Unload) { u.Refcount.Before = 1 }),
			hang(),
		},
		trailer: unload.Trailer{
			Records: 3, Incomplete: 1, MissedProbes: 2,
			LostEvents: map[string]int64{"begin": 0, "reference": 12, "dependent": 1},
		},
	}
}

// hooks is the plan on a kernel that lacks some of them.
func hooks() []unload.Hook {
	ok := func(phase unload.PhaseName, sees, function, mechanism string) unload.Hook {
		return unload.Hook{Phase: phase, Sees: sees, Function: function, Mechanism: mechanism, Status: unload.StatusOK}
	}
	all := []unload.Hook{
		ok(unload.Enter, "the system call's beginning", "__x64_sys_delete_module", "fentry"),
		ok(unload.Check, "the look-up, once module_mutex is taken", "find_module", "fentry"),
		ok(unload.Exit, "the module found, its state and count; the few instructions of the decision itself count into exit", "find_module", "fexit"),
		ok(unload.Notify, "the GOING notifiers being called", "blocking_notifier_call_chain", "fentry"),
		{Phase: unload.Livepatch, Sees: "livepatches let go of the module", Function: "klp_module_going",
			Status: unload.StatusAbsent, Reason: "this kernel is built without klp_module_going"},
		{Phase: unload.Ftrace, Sees: "ftrace_release_mod, by the return of what comes before it", Function: "blocking_notifier_call_chain",
			Mechanism: "fexit", Status: unload.StatusFallback, Reason: "fexit klp_module_going: not in this kernel"},
		ok(unload.Async, "waiting for asynchronous work", "async_synchronize_full", "fentry"),
		ok(unload.FreeSysfs, "free_module", "free_module", "fentry"),
		ok(unload.FreeArch, "sysfs entries gone", "mod_sysfs_teardown", "fexit"),
		ok(unload.FreeDeps, "dropping references on other modules", "module_unload_free", "fentry"),
		ok(unload.FreeParams, "those references dropped", "module_unload_free", "fexit"),
		{Phase: unload.FreeUnlink, Sees: "off the module list", Function: "mod_tree_remove", Status: unload.StatusMissing,
			Reason: "fentry mod_tree_remove: not in this kernel; kprobe mod_tree_remove: may not be traced; fexit destroy_params: not in this kernel; kretprobe destroy_params: not in this kernel"},
		ok(unload.FreeMemory, "the grace period over", "synchronize_rcu", "fexit"),
		ok(unload.Return, "free_module done", "free_module", "fexit"),
		ok("", "the system call's end and result", "__x64_sys_delete_module", "fexit"),
		{Sees: "time on and off the CPU", Function: "sched_switch", Status: unload.StatusMissing, Reason: "tp_btf sched_switch: not permitted; raw_tp sched_switch: not permitted"},
		ok("", "references taken by the unloading task", "module_get", "tp_btf"),
		ok("", "references dropped by the unloading task", "module_put", "tp_btf"),
	}
	all[0].Required, all[0].Fallback = true, "kprobe __x64_sys_delete_module"
	all[14].Required = true
	return all
}
