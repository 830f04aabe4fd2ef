package cause

import (
	"slices"
	"strings"

	"github.com/modtrace/modtrace/unload"
)

// open stands for a stack that has not said anything yet.
const open unload.Cause = ""

// rule says what it means that a function is on the stack of a waiting task.
type rule struct {
	// cause is what the function is known to wait for. With open, it is only
	// a way of waiting: it leaves what was said as it was.
	cause unload.Cause
	// over lists what the frames within may have said for the rule to hold.
	// It holds in any case when they have said the same.
	over []unload.Cause
	// functions are names; one that ends in * is the beginning of names.
	functions []string
}

func (r *rule) holds(said unload.Cause) bool {
	return r.cause == open || r.cause == said || slices.Contains(r.over, said)
}

func (r *rule) names(function string) bool {
	return slices.ContainsFunc(r.functions, func(pattern string) bool { return match(pattern, function) })
}

func match(pattern, function string) bool {
	beginning, ok := strings.CutSuffix(pattern, "*")
	if ok {
		return strings.HasPrefix(function, beginning)
	}
	return pattern == function
}

// rules is the whole of what is known of the kernel, 5.10 to 7.3: the first
// rule that holds counts. From the innermost frame outwards each function
// makes the meaning of the wait more exact, up to one that is not part of it.
func rules() []rule {
	return slices.Concat(plumbing(), means(), purposes(), owners())
}

// plumbing lists what is on every stack of a task that leaves the CPU, and
// what tracing puts between any two frames.
func plumbing() []rule {
	return []rule{
		{functions: []string{ // kernel/sched/core.c, kernel/time/sleep_timeout.c
			"__schedule", "__schedule_loop", "schedule", "schedule_timeout", "schedule_preempt_disabled",
			"schedule_rtlock", "__switch_to", "__switch_to_asm", "context_switch", "finish_task_switch",
		}},
		{functions: []string{ // kernel/sched/wait.c, wait_bit.c: waits for anything at all
			"wait_woken", "do_wait_intr*", "bit_wait", "bit_wait_timeout",
			"__wait_on_bit*", "out_of_line_wait_on_bit*",
		}},
		{functions: []string{ // kernel/locking/semaphore.c: nobody owns one
			"down", "down_interruptible", "down_killable", "down_timeout", "__down", "__down_common", "___down_common",
			"__down_interruptible", "__down_killable", "__down_timeout",
		}},
		{functions: []string{ // programs at sched_switch, where the stack is taken
			"bpf_get_stack*", "bpf_prog_*", "bpf_trace_run*", "__bpf_trace_*", "__bpf_prog_*",
			"__traceiter_*", "trace_event_raw_event_*", "perf_trace_*", "trace_call_bpf",
		}},
		{functions: []string{ // trampolines of hooks on functions further out
			"bpf_trampoline_*", "ftrace_trampoline", "ftrace_graph_*", "return_to_handler",
			"__kretprobe_trampoline", "kretprobe_trampoline",
			"arch_rethook_trampoline", "kprobe_ftrace_handler", "optprobe_*",
		}},
	}
}

// means lists ways to wait that do not tell what for.
func means() []rule {
	return []rule{
		{unload.CauseIO, []unload.Cause{open}, []string{ // kernel/sched/core.c
			"io_schedule", "io_schedule_timeout",
		}},
		{unload.CauseIO, []unload.Cause{open, unload.CauseCompletion}, []string{ // kernel/sched/completion.c, block/blk-mq.c, block/bio.c, mm/filemap.c
			"wait_for_completion_io*", "bit_wait_io*", "blk_execute_rq", "submit_bio_wait",
			"blk_wait_io", "bio_await",
		}},
		{unload.CauseIO, nil, []string{ // kernel/sched/completion.c: not inlined into each caller on 5.10 and 7
			"wait_for_common", "__wait_for_common", "do_wait_for_common",
		}},
		{unload.CauseIO, nil, []string{ // mm/filemap.c, fs/buffer.c
			"wait_on_page_*", "folio_wait_*", "__lock_page*", "__folio_lock*", "__wait_on_buffer", "__lock_buffer",
		}},
		{unload.CauseCompletion, []unload.Cause{open}, []string{ // kernel/sched/completion.c
			"wait_for_completion*", "wait_for_common", "__wait_for_common", "do_wait_for_common",
		}},
		{unload.CauseSleep, []unload.Cause{open}, []string{ // kernel/time/sleep_timeout.c, before 6.13 timer.c and hrtimer.c
			"msleep", "msleep_interruptible", "fsleep", "usleep_range*", "schedule_hrtimeout*",
			"schedule_timeout_interruptible", "schedule_timeout_killable",
			"schedule_timeout_uninterruptible", "schedule_timeout_idle",
		}},
		{unload.CauseMutex, []unload.Cause{open}, []string{ // kernel/locking/mutex.c, ww_mutex.h
			"mutex_lock*", "__mutex_lock*", "ww_mutex_lock*", "__ww_mutex_lock*",
		}},
		{unload.CauseMutex, []unload.Cause{open}, []string{ // kernel/locking/rtmutex*.c, spinlock_rt.c: PREEMPT_RT
			"rt_mutex_*", "__rt_mutex_*", "rt_spin_lock*", "rtlock_*",
		}},
		{unload.CauseRWSem, []unload.Cause{open}, []string{ // kernel/locking/rwsem.c, percpu-rwsem.c, kernel/cpu.c
			"rwsem_down_*", "down_write*", "down_read*", "__down_write*", "__down_read*",
			"percpu_down_*", "__percpu_down_*", "percpu_rwsem_wait", "cpus_read_lock", "cpus_write_lock",
		}},
		// kernel/locking/rwbase_rt.c: underneath are the functions of rt_mutex.
		{unload.CauseRWSem, []unload.Cause{open, unload.CauseMutex}, []string{
			"rwbase_*", "__rwbase_*", "rt_read_lock", "rt_write_lock",
		}},
		{unload.CausePreempted, []unload.Cause{open}, []string{ // kernel/sched/core.c, syscalls.c
			"preempt_schedule*", "dynamic_preempt_schedule*", "arm64_preempt_schedule_irq",
			"__cond_resched*", "_cond_resched", "dynamic_cond_resched", "dynamic_might_resched",
			"yield", "do_sched_yield",
		}},
		{unload.CausePreempted, []unload.Cause{open}, []string{ // kernel/entry/common.c, arch/arm64/kernel/entry-common.c
			"raw_irqentry_exit_cond_resched", "irqentry_exit*", "exit_to_user_mode_*",
		}},
		{unload.CausePreempted, nil, []string{ // the interrupt that it was preempted in
			"asm_sysvec_*", "sysvec_*", "asm_common_interrupt", "common_interrupt",
			"el1_interrupt", "__el1_irq", "el1_irq", "el1h_64_irq*",
		}},
	}
}

// purposes lists functions that wait for one kind of thing, by any of the
// means.
func purposes() []rule {
	return []rule{
		// The mutexes of RCU are held by others for as long as they wait for
		// the same thing. kernel/rcu/update.c, tree.c, tree_exp.h, tasks.h,
		// sync.c; the waiting for one's turn there is a sleep or a work item.
		{unload.CauseRCU, []unload.Cause{open, unload.CauseCompletion, unload.CauseMutex, unload.CauseWorkqueue}, []string{
			"synchronize_rcu*", "cond_synchronize_rcu*", "__wait_rcu_gp", "exp_funnel_lock",
			"synchronize_net", "rcu_sync_enter",
		}},
		{unload.CauseRCUBarrier, []unload.Cause{open, unload.CauseCompletion, unload.CauseMutex}, []string{ // kernel/rcu/tree.c, tasks.h
			"rcu_barrier*",
		}},
		// Objects on their way to kfree: mm/slab_common.c, before 6.14
		// kernel/rcu/tree.c.
		{unload.CauseRCUBarrier, []unload.Cause{open, unload.CauseWorkqueue}, []string{
			"kvfree_rcu_barrier*", "kfree_rcu_barrier",
		}},
		{unload.CauseRCUBarrier, nil, []string{"flush_rcu_work"}},
		{unload.CauseSRCU, []unload.Cause{open, unload.CauseCompletion, unload.CauseMutex}, []string{ // kernel/rcu/srcutree.c
			"synchronize_srcu*", "__synchronize_srcu", "srcu_barrier",
		}},
		{unload.CauseWorkqueue, []unload.Cause{open, unload.CauseCompletion}, []string{ // kernel/workqueue.c
			"__flush_work", "flush_work", "flush_delayed_work", "flush_rcu_work",
			"flush_workqueue*", "__flush_workqueue", "drain_workqueue", "destroy_workqueue",
			"__cancel_work*", "cancel_work_sync", "cancel_delayed_work_sync",
			"disable_work_sync", "disable_delayed_work_sync",
			"schedule_on_each_cpu", "work_on_cpu*",
		}},
		{unload.CauseWorkqueue, []unload.Cause{open, unload.CauseCompletion}, []string{ // kernel/kthread.c
			"kthread_flush_work*", "__kthread_cancel_work*", "kthread_cancel_*", "kthread_destroy_worker",
		}},
		{unload.CauseKthreadStop, []unload.Cause{open, unload.CauseCompletion}, []string{ // kernel/kthread.c, vhost_task.c
			"kthread_stop", "kthread_stop_put", "vhost_task_stop",
		}},
		// Off the CPU only under PREEMPT_RT, where the callback's lock is
		// slept on: kernel/time/timer.c, hrtimer.c.
		{unload.CauseTimer, []unload.Cause{open, unload.CauseMutex}, []string{
			"del_timer_sync", "timer_delete_sync", "__timer_delete_sync", "timer_shutdown_sync", "timer_sync_wait_running",
			"del_timer_wait_running", "hrtimer_cancel", "hrtimer_cancel_wait_running",
		}},
		{unload.CauseAsyncWork, []unload.Cause{open}, []string{"async_synchronize_*"}}, // kernel/async.c
		{unload.CauseBlockFreeze, []unload.Cause{open}, []string{ // block/blk-mq.c
			"blk_mq_freeze_queue*", "blk_freeze_queue*",
		}},
	}
}

// owners lists functions that wait until the users of something are gone.
func owners() []rule {
	return []rule{
		// fs/kernfs/dir.c: the first is inlined into the second on 5.10. The
		// semaphore, which is taken here as well, is another matter.
		{unload.CauseKernfsDrain, []unload.Cause{open}, []string{"kernfs_drain", "__kernfs_remove"}},

		// net/core/dev.c: it looks every so often. Grace periods and the rtnl
		// mutex, which are waited for in between, are named as what they are.
		{unload.CauseNetdevUsers, []unload.Cause{unload.CauseSleep}, []string{
			"netdev_wait_allrefs*", "netdev_run_todo", "rtnl_unlock",
		}},
		// net/core/dev.c, rtnetlink.c: other interfaces that are on their way out.
		{unload.CauseNetdevUsers, []unload.Cause{open}, []string{
			"rtnl_lock_unregistering*", "rtnl_link_unregister", "default_device_exit_batch",
		}},

		// lib/klist.c: somebody walks over the devices of a bus or driver.
		{unload.CauseDeviceUsers, []unload.Cause{open}, []string{"klist_remove"}},
		{unload.CauseDeviceUsers, []unload.Cause{open, unload.CauseCompletion}, []string{
			"snd_card_free", "snd_card_disconnect_sync", // sound/core/init.c
			"i2c_del_adapter",                // drivers/i2c/i2c-core-base.c
			"vfio_unregister_group_dev",      // drivers/vfio/vfio_main.c
			"vfio_del_group_dev",             // its name on 5.10, drivers/vfio/vfio.c
			"hwrng_unregister",               // drivers/char/hw_random/core.c
			"tee_device_unregister",          // drivers/tee/tee_core.c
			"thermal_zone_device_unregister", // drivers/thermal/thermal_core.c
			"ib_uverbs_remove_one",           // drivers/infiniband/core/uverbs_main.c
			"dvb_dmxdev_release",             // drivers/media/dvb-core/dmxdev.c
			"dvb_net_release",                // drivers/media/dvb-core/dvb_net.c
		}},
		{unload.CauseDeviceUsers, []unload.Cause{unload.CauseSleep}, []string{"__dm_destroy"}}, // drivers/md/dm.c
	}
}
