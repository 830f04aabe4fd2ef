package output

import (
	"fmt"
	"strings"

	"github.com/modtrace/modtrace/unload"
)

// causes are unloads of which it is known why they were slow.
func causes() []stream {
	one := func(name string, u unload.Unload) stream { return stream{name: name, unloads: []unload.Unload{u}} }
	return []stream{
		one("why-work", work()),
		one("why-rcu", graces()),
		one("why-spin", hot()),
		one("why-effects", effects()),
		one("why-long", longNames()),
	}
}

// work waits for a work item above all.
func work() unload.Unload {
	u := slow()
	u.Phases[2].Waits = []unload.Wait{
		{
			Cause: unload.CauseMutex, Count: 3, Duration: 9e6, Longest: 6e6,
			Blocker: unload.Blocker{Kind: unload.KindTask, PID: 123, Comm: "ip", Stack: []string{"schedule+0x2b", "msleep+0x2d", "dev_close+0x15"}},
			Waker:   unload.Blocker{Kind: unload.KindTask, PID: 123, Comm: "ip"},
			Stack:   []string{"__schedule+0x3c1", "schedule+0x2b", "__mutex_lock.constprop.0+0x1d", "unregister_netdev+0x12", "slow_exit+0x31 [slow]"},
		},
		{
			Cause: unload.CauseWorkqueue, Count: 1, Duration: 600e6, Longest: 600e6,
			Blocker: unload.Blocker{Kind: unload.KindWork, PID: 31, Comm: "kworker/1:2", Function: "wfn", Module: "slow", Detail: "events",
				Stack: []string{"msleep+0x2d", "wfn+0x15 [slow]", "process_one_work+0x179"}},
			Waker: unload.Blocker{Kind: unload.KindTask, PID: 31, Comm: "kworker/1:2", Stack: []string{"complete+0x3c", "process_one_work+0x18a"}},
			Stack: []string{"__schedule+0x3c1", "schedule+0x2b", "schedule_timeout+0x11d", "__wait_for_common+0x90", "__flush_work.isra.0+0x168", "slow_exit+0x10 [slow]", "__do_sys_delete_module+0x1ad"},
		},
		{Cause: unload.CausePreempted, Count: 2, Duration: 30e3, Longest: 20e3, Stack: []string{"preempt_schedule_irq+0x3", "slow_exit+0x44 [slow]"}},
		{Cause: unload.CauseCompletion, Count: 1, Duration: 34e3, Longest: 34e3, Waker: unload.Blocker{Kind: unload.KindInterrupt}, Stack: []string{"wait_for_completion+0x1", "slow_exit+0x54 [slow]"}},
	}
	u.Phases[11].Waits = []unload.Wait{{
		Cause: unload.CauseRCU, Count: 1, Duration: 280611e3, Longest: 280611e3,
		Waker: unload.Blocker{Kind: unload.KindTask, PID: 17, Comm: "rcu_preempt"},
		Stack: []string{"schedule+0x2b", "wait_for_completion+0x1", "__wait_rcu_gp+0x10a", "synchronize_rcu+0x100", "free_module+0x1c2"},
	}}
	u.Phases[12].Waits = []unload.Wait{{Cause: unload.CausePreempted, Count: 1, Duration: 12e3, Longest: 12e3, Stack: []string{}}}
	return u
}

// graces waits a thousand times, from two places.
func graces() unload.Unload {
	u := attempt("can_bcm", phases(map[unload.PhaseName][2]int64{unload.Exit: {51200, 10810034}, unload.FreeUnlink: {85, 10611}}))
	grace := func(n, ns int64, from ...string) unload.Wait {
		return unload.Wait{Cause: unload.CauseRCU, Count: n, Duration: ns, Longest: 31e6,
			Stack: append([]string{"schedule+0x2b", "__wait_rcu_gp+0x10a", "synchronize_rcu+0x100"}, from...)}
	}
	u.Phases[2].Waits = []unload.Wait{
		grace(80, 810e6, "unregister_pernet_device+0x20", "bcm_module_exit+0x1f [can_bcm]"),
		grace(920, 10e9, "bcm_delete_rx_op+0x7c [can_bcm]", "bcm_release+0x11 [can_bcm]"),
	}
	u.Phases[11].Waits = []unload.Wait{grace(1, 10.611e6, "free_module+0x1c2")}
	return u
}

// hot runs all the time.
func hot() unload.Unload {
	u := spinning()
	u.Phases[2].Hot = []unload.Hot{
		{Samples: 12, Stack: []string{"ktime_get+0x1c", "spin_exit+0x1c [spin]"}},
		{Samples: 901, Stack: []string{"delay_tsc+0x3b", "spin_exit+0x2e [spin]", "__do_sys_delete_module+0x1ad"}},
		{Samples: 95, Stack: []string{"spin_exit+0x1c [spin]"}},
		{Samples: 3, Stack: []string{}},
	}
	return u
}

// effects has something of everything that an unload leaves behind.
func effects() unload.Unload {
	u := attempt("nic", phases(map[unload.PhaseName][2]int64{unload.Exit: {91200, 1110034}, unload.Notify: {25000, 0}}))
	for i := range 12 {
		u.Devices = append(u.Devices, unload.Device{Device: fmt.Sprintf("0000:%02x:00.0", i), Driver: "nic", Duration: 900e6 >> i})
	}
	u.Notifiers = []unload.Notifier{
		{Callback: "jump_label_module_notify", Duration: 400e3},
		{Callback: "tracepoint_module_notify", Duration: 20e6, Exact: true},
		{Callback: "audit_cb", Module: "edr", Duration: 3e6, Exact: true},
		{Callback: "kprobes_module_callback", Duration: 200e3, Exact: true},
	}
	u.Convoy = []unload.Waiter{{PID: 55, Comm: "insmod", Lock: "module_mutex", Duration: 2.1e9}, {PID: 56, Comm: "modprobe", Lock: "module_mutex", Duration: 1e9}, {Lock: "module_mutex", Duration: 5e6}}
	u.Log = []unload.LogLine{
		{Offset: 12e6, Phase: unload.Exit, Level: 6, Text: "nic 0000:00:00.0: removed"},
		{Offset: 15e6, Phase: unload.Exit, Level: 4, Text: "------------[ cut here ]------------"},
		{Offset: 15e6, Phase: unload.Exit, Level: 4, Text: "WARNING: CPU: 0 PID: 4242 at fs/proc/generic.c:717 remove_proc_entry+0x192/0x1a0\n"},
		{Offset: 19e6, Phase: unload.Exit, Level: 3, Text: "nic 0000:01:00.0: the device does not answer"},
		{Offset: 20e6, Phase: unload.FreeMemory, Level: 1, Text: "BUG: unable to handle page fault for address: ffffffffc0a1b000"},
	}
	for i := range 9 {
		u.Log = append(u.Log, unload.LogLine{Offset: 21e6, Phase: unload.FreeMemory, Level: 6, Text: fmt.Sprintf("R%02d: 0000000000000000", i)})
	}
	u.Residue = []string{"/proc/nic", "kernel thread nic-poll (pid 77)"}
	u.Memory.Freed = 1<<20 + 4096
	return u
}

// longNames is as long as names get, and longer.
func longNames() unload.Unload {
	u := work()
	long := strings.Repeat("very_long_", 40)
	u.Module = strings.Repeat("m", 56)
	for i := range u.Phases[2].Waits {
		w := &u.Phases[2].Waits[i]
		w.Blocker = unload.Blocker{Kind: unload.KindWork, PID: 1 << 22, Comm: "kworker/u1024:10", Function: long, Module: u.Module, Detail: long, Stack: []string{long + "+0x1"}}
		w.Waker = unload.Blocker{PID: 3, Comm: long, Function: long, Module: u.Module}
		w.Stack = []string{"schedule+0x2b", long + "+0x12 [" + u.Module + "]"}
		w.Count = 1e6
	}
	return u
}

// comeback is a module that was loaded again.
type comeback struct {
	name string
	unload.Reload
}

func comebacks() []comeback {
	loader := unload.Caller{PID: 12, TID: 12, PPID: 3, Comm: "modprobe", Exe: "/usr/bin/kmod", Cmdline: []string{"modprobe", "dummy"},
		Ancestors: []unload.Ancestor{{PID: 3, Comm: "(udev-worker)"}, {PID: 1, Comm: "systemd"}}}
	hostile := unload.Caller{PID: 1, Comm: nasty, Ancestors: []unload.Ancestor{{PID: 2, Comm: nasty}}}
	return []comeback{
		{"reload", unload.Reload{Module: "dummy", After: 120e6, Loader: loader}},
		{"reload-bare", unload.Reload{}},
		{"reload-hostile", unload.Reload{Module: nasty, After: -1, Loader: hostile}},
	}
}

// stalls are unloads that hang.
func stalls() []stall {
	return []stall{
		{"stall-kthread", stalled(unload.Wait{
			Cause: unload.CauseKthreadStop, Count: 1, Duration: 3.9e9,
			Blocker: unload.Blocker{Kind: unload.KindTask, PID: 77, Comm: "hang-helper", Stack: []string{"msleep+0x2d", "helper+0x11 [hang]", "kthread+0xe6"}},
			Stack:   []string{"schedule+0x2b", "wait_for_completion+0x20", "kthread_stop+0x6a", "hang_exit+0x13 [hang]"},
		})},
		{"stall-netdev", polling()},
		{"stall-file", stalled(unload.Wait{
			Cause: unload.CauseKernfsDrain, Count: 1, Duration: 3.9e9, Blocker: unload.Blocker{Kind: unload.KindFile, Detail: "/sys/kernel/it's a file"}, Stack: []string{"kernfs_drain+0x9a"},
		})},
		{"stall-running", stalled(unload.Wait{})},
		{"stall-rcu", busyStall()},
		{"stall-bare", unload.Stall{}},
		{"stall-hostile", unload.Stall{Unload: scramble(nasty, -1, 0), Phase: nasty, Elapsed: 2e9, Wait: scramble(nasty, -1, 0).Phases[0].Waits[0]}},
	}
}

type stall struct {
	name string
	unload.Stall
}

// stalled hangs in its exit function for 4 s, in a wait.
func stalled(w unload.Wait) unload.Stall {
	u := attempt("hang", phases(map[unload.PhaseName][2]int64{unload.Exit: {1000, 3999000}}, unload.Enter, unload.Check, unload.Exit))
	u.Result = unload.Result{Reason: unload.ReasonUnknown, By: unload.ByKernel}
	u.Outcome, u.Complete = unload.InFlight, false
	p := &u.Phases[2]
	if w.Count > 0 {
		p.Waits = []unload.Wait{w, {Cause: unload.CauseMutex, Count: 1, Duration: 99e6, Longest: 99e6, Stack: []string{"mutex_lock+0x1", "hang_exit+0x4 [hang]"}}}
	} else {
		p.OnCPU, p.OffCPU = p.Duration, 0
		p.Hot = hot().Phases[2].Hot
	}
	return unload.Stall{Unload: u, Phase: unload.Exit, Elapsed: p.Duration, Wait: w}
}

// polling looks again and again whether it can go on.
func polling() unload.Stall {
	st := stalled(unload.Wait{
		Cause: unload.CauseNetdevUsers, Count: 16, Duration: 3.9e9, Longest: 250e6,
		Blocker: unload.Blocker{Kind: unload.KindInterface, Detail: "dummy0"},
		Stack:   []string{"schedule_timeout+0x11d", "msleep+0x2d", "netdev_run_todo+0x2d8", "dummy_cleanup_module+0x20 [hang]"},
	})
	st.Wait.Count, st.Wait.Duration, st.Wait.Longest = 1, 120e6, 120e6
	return st
}

// busyStall gets on, but slowly.
func busyStall() unload.Stall {
	u := graces()
	u.Phases = u.Phases[:3]
	u.Result, u.Outcome, u.Complete = unload.Result{}, unload.InFlight, false
	u.Convoy = []unload.Waiter{{PID: 55, Comm: "insmod", Lock: "module_mutex", Duration: 2.1e9}}
	w := u.Phases[2].Waits[1]
	w.Count, w.Duration, w.Longest = 1, 3e6, 3e6
	return unload.Stall{Unload: u, Phase: unload.Exit, Elapsed: u.Phases[2].Duration, Wait: w}
}
