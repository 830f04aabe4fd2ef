package cause

import (
	"slices"
	"testing"

	"github.com/modtrace/modtrace/unload"
)

func TestFunction(t *testing.T) {
	for frame, want := range map[string]struct{ function, module string }{
		"schedule_timeout+0x8a/0x110":               {"schedule_timeout", ""},
		"msleep+0x2d":                               {"msleep", ""},
		"msleep":                                    {"msleep", ""},
		"slow_exit+0x1f [slow]":                     {"slow_exit", "slow"},
		"slow_exit+0x1f/0x60 [slow]":                {"slow_exit", "slow"},
		"slow_exit [slow]":                          {"slow_exit", "slow"},
		"slow_exit+0x1f/0x60 [slow 0a1b2c3d]":       {"slow_exit", "slow"},
		"__mutex_lock.constprop.0+0x1f":             {"__mutex_lock", ""},
		"synchronize_rcu.part.0+0x1f/0x20":          {"synchronize_rcu", ""},
		"__synchronize_srcu.part.0.isra.0":          {"__synchronize_srcu", ""},
		"kernfs_drain.cold+0x3":                     {"kernfs_drain", ""},
		"scan_async.llvm.1234567890+0x3 [usbcore]":  {"scan_async", "usbcore"},
		"__pfx_smp_call_function_single+0x10":       {"smp_call_function_single", ""},
		"bpf_trampoline_6442512345+0x3f/0x1000":     {"bpf_trampoline_6442512345", ""},
		"bpf_prog_a1b2c3d4e5f60718_on_switch [bpf]": {"bpf_prog_a1b2c3d4e5f60718_on_switch", "bpf"},
		"0xffffffffc043912c":                        {"0xffffffffc043912c", ""},
		".cold":                                     {".cold", ""},
		"":                                          {"", ""},
		"f [":                                       {"f", ""},
		"f []":                                      {"f", ""},
	} {
		if got := Function(frame); got != want.function {
			t.Errorf("Function(%q) = %q, want %q", frame, got, want.function)
		}
		if got := Module(frame); got != want.module {
			t.Errorf("Module(%q) = %q, want %q", frame, got, want.module)
		}
	}
}

// TestOf has the stacks that no fixture and no module of the lab brings about,
// or not on the kernels of the lab, made by hand from the kernel's source. The
// others are in testdata.
func TestOf(t *testing.T) {
	completion := []string{"__schedule", "schedule", "schedule_timeout", "wait_for_completion"}
	wait := []string{"__schedule", "schedule"}
	sleep := append(slices.Clone(wait), "schedule_timeout")
	for _, c := range []struct {
		name  string
		in    []string // how the task waits, innermost
		stack []string // what the case is about
		site  int      // in stack
		want  unload.Cause
	}{
		{"nothing", nil, nil, 0, unload.CauseOther},
		{"unknown", nil, []string{"frob"}, 0, unload.CauseOther},
		{"bare", sleep, nil, 0, unload.CauseOther},
		{"event", sleep, []string{"wait_woken", "frob"}, 1, unload.CauseOther},
		{"semaphore", sleep, []string{"__down_common", "__down", "down", "console_lock"}, 3, unload.CauseOther},
		{"usleep", wait, []string{"schedule_hrtimeout_range_clock", "schedule_hrtimeout_range", "usleep_range_state", "frob"}, 3, unload.CauseSleep},
		{"ticks", sleep, []string{"schedule_timeout_uninterruptible", "frob"}, 1, unload.CauseSleep},
		{"delayed work", completion, []string{"__flush_work.isra.0", "__cancel_work_timer", "cancel_delayed_work_sync", "frob"}, 3, unload.CauseWorkqueue},
		{"drained", completion, []string{"flush_workqueue", "drain_workqueue", "destroy_workqueue", "frob"}, 3, unload.CauseWorkqueue},
		{"rescuer", completion, []string{"kthread_stop", "destroy_workqueue", "frob"}, 1, unload.CauseKthreadStop},
		{"kthread worker", completion, []string{"kthread_flush_work", "__kthread_cancel_work_sync", "kthread_cancel_delayed_work_sync", "frob"}, 3, unload.CauseWorkqueue},
		{"barrier's turn", wait, []string{"schedule_preempt_disabled", "__mutex_lock.constprop.0", "__mutex_lock_slowpath", "mutex_lock", "rcu_barrier", "frob"}, 5, unload.CauseRCUBarrier},
		{"expedited's turn", wait, []string{"schedule_preempt_disabled", "__mutex_lock.isra.0", "mutex_lock", "exp_funnel_lock", "synchronize_rcu_expedited", "synchronize_net", "frob"}, 6, unload.CauseRCU},
		{"queue's mutex", wait, []string{"schedule_preempt_disabled", "__mutex_lock.isra.0", "__flush_workqueue", "frob"}, 2, unload.CauseMutex},
		{"tasks", completion, []string{"__wait_rcu_gp", "synchronize_rcu_tasks_generic", "synchronize_rcu_tasks", "ftrace_shutdown"}, 3, unload.CauseRCU},
		{"per-CPU semaphore", wait, []string{"percpu_rwsem_wait", "__percpu_down_read", "cpus_read_lock", "frob"}, 3, unload.CauseRWSem},
		{"grace period of a semaphore", completion, []string{"__wait_rcu_gp", "synchronize_rcu", "rcu_sync_enter", "percpu_down_write", "frob"}, 3, unload.CauseRCU},
		{"freed objects", completion, []string{"__flush_work", "flush_rcu_work", "kvfree_rcu_barrier", "kmem_cache_destroy"}, 3, unload.CauseRCUBarrier},
		{"freed objects' barrier", completion, []string{"rcu_barrier", "flush_rcu_work", "kvfree_rcu_barrier", "kmem_cache_destroy"}, 3, unload.CauseRCUBarrier},
		{"real-time mutex", wait, []string{"rt_mutex_schedule", "rt_mutex_slowlock_block.constprop.0", "__rt_mutex_slowlock_locked.constprop.0", "rt_mutex_slowlock.constprop.0", "mutex_lock", "frob"}, 5, unload.CauseMutex},
		{"real-time semaphore", wait, []string{"rt_mutex_schedule", "rwbase_write_lock", "down_write", "frob"}, 3, unload.CauseRWSem},
		{"timer", []string{"__schedule"}, []string{"schedule_rtlock", "rtlock_slowlock_locked", "rt_spin_lock", "timer_sync_wait_running", "__timer_delete_sync", "timer_delete_sync", "frob"}, 6, unload.CauseTimer},
		{"old timer", []string{"__schedule", "schedule_rtlock", "rtlock_slowlock_locked", "rt_spin_lock"}, []string{"del_timer_wait_running", "del_timer_sync", "frob"}, 2, unload.CauseTimer},
		{"high-resolution timer", []string{"__schedule", "schedule_rtlock", "rtlock_slowlock_locked", "rt_spin_lock"}, []string{"hrtimer_cancel_wait_running", "hrtimer_cancel", "frob"}, 2, unload.CauseTimer},
		{"rtnl", wait, []string{"schedule_preempt_disabled", "__mutex_lock", "rtnl_lock", "netdev_run_todo"}, 2, unload.CauseMutex},
		{"allrefs", sleep, []string{"msleep", "netdev_wait_allrefs_any.isra.0", "netdev_run_todo", "rtnl_unlock", "unregister_netdev"}, 4, unload.CauseNetdevUsers},
		{"other interfaces", sleep, []string{"wait_woken", "rtnl_lock_unregistering_all", "rtnl_link_unregister", "frob"}, 3, unload.CauseNetdevUsers},
		{"io", wait, []string{"io_schedule", "bit_wait_io", "__wait_on_bit", "out_of_line_wait_on_bit", "__wait_on_buffer", "frob"}, 5, unload.CauseIO},
		{"page", wait, []string{"io_schedule", "folio_wait_bit_common", "folio_wait_writeback", "frob"}, 3, unload.CauseIO},
		{"request", sleep, []string{"io_schedule_timeout", "wait_for_completion_io_timeout", "blk_execute_rq", "frob"}, 3, unload.CauseIO},
		{"driver's iteration", wait, []string{"klist_remove", "device_release_driver_internal"}, 1, unload.CauseDeviceUsers},
		{"sound card", completion, []string{"snd_card_free", "frob"}, 1, unload.CauseDeviceUsers},
		{"bus adapter", completion, []string{"i2c_del_adapter", "frob"}, 1, unload.CauseDeviceUsers},
		{"mapped device", sleep, []string{"msleep", "__dm_destroy", "dm_destroy"}, 2, unload.CauseDeviceUsers},
		{"preempted in kernel", []string{"__schedule"}, []string{"preempt_schedule_irq", "raw_irqentry_exit_cond_resched", "irqentry_exit", "sysvec_apic_timer_interrupt", "asm_sysvec_apic_timer_interrupt", "frob"}, 5, unload.CausePreempted},
		{"preempted on arm64", []string{"__switch_to", "__schedule"}, []string{"preempt_schedule_irq", "el1_interrupt", "el1h_64_irq_handler", "el1h_64_irq", "frob"}, 4, unload.CausePreempted},
		{"gave way", []string{"__schedule"}, []string{"__cond_resched", "wait_for_completion", "__flush_work", "flush_work"}, 1, unload.CausePreempted},
		{"program", []string{"bpf_prog_0123456789abcdef_on_switch+0x1/0x2 [bpf]", "bpf_trace_run4", "__bpf_trace_sched_switch", "__traceiter_sched_switch", "__schedule", "schedule"}, []string{"async_synchronize_cookie_domain", "async_synchronize_full", "do_init_module"}, 2, unload.CauseAsyncWork},
		{"hooked", completion, []string{"__wait_rcu_gp", "synchronize_rcu_normal", "synchronize_rcu", "bpf_trampoline_6442512345+0x3f/0x1000", "synchronize_rcu", "arch_rethook_trampoline", "free_module"}, 6, unload.CauseRCU},
	} {
		t.Run(c.name, func(t *testing.T) {
			stack := slices.Concat(c.in, c.stack)
			if got := Of(stack); got != c.want {
				t.Errorf("Of = %q, want %q", got, c.want)
			}
			if got := Site(stack) - len(c.in); got != c.site {
				t.Errorf("Site = %d, want %d: %v", got, c.site, c.stack)
			}
		})
	}
}

// TestNothingBeyond: what the wait's caller was called by does not matter.
func TestNothingBeyond(t *testing.T) {
	stack := []string{"schedule", "schedule_timeout", "msleep", "slow_exit [slow]", "wait_for_completion", "flush_work", "kthread_stop"}
	if got := Of(stack); got != unload.CauseSleep {
		t.Errorf("Of = %q, want %q", got, unload.CauseSleep)
	}
}
