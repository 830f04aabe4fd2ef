package output

import (
	"slices"
	"strings"

	"github.com/modtrace/modtrace/unload"
)

// site picks from a stack, innermost frame first, the one that says where the
// task was: the first that is not part of how the kernel waits. It gives "" if
// there is none.
func site(stack []string) (frame string) {
	for _, f := range stack {
		if f != "" && !machinery(f) {
			return f
		}
	}
	return ""
}

// machinery says whether a frame belongs to the scheduler, to a primitive for
// waiting or delaying, or to the taking of samples. No frame of a module does.
func machinery(frame string) bool {
	if inModule(frame) {
		return false
	}
	name, _, _ := strings.Cut(bare(frame), ".") // compilers add .isra.0 and the like
	name = strings.TrimLeft(name, "_")
	if slices.Contains(waiters(), name) {
		return true
	}
	return slices.ContainsFunc(waiterPrefixes(), func(p string) bool { return strings.HasPrefix(name, p) })
}

// waiters lists functions by their whole names, without leading underscores.
func waiters() []string {
	return []string{
		"schedule", "down", "down_killable", "down_interruptible", "down_timeout", "context_switch",
		"delay", "udelay", "ndelay", "const_udelay", "flush_work", "flush_delayed_work",
	}
}

// waiterPrefixes lists how the names of the others begin.
func waiterPrefixes() []string {
	return []string{
		"schedule_timeout", "schedule_hrtimeout", "schedule_preempt", "preempt_schedule", "io_schedule", "cond_resched",
		"dynamic_cond_resched", "finish_task_switch",
		"wait_for_co", "do_wait_for_common", "out_of_line_wait_on_bit", "wait_on_bit", "bit_wait",
		"mutex_lock", "ww_mutex_lock", "rt_mutex", "down_read", "down_write", "rwsem_down", "percpu_down",
		"synchronize_rcu", "synchronize_srcu", "synchronize_net", "wait_rcu_gp", "rcu_barrier", "srcu_barrier",
		"start_flush_work", "cancel_work", "cancel_delayed_work", "flush_workqueue", "msleep", "usleep_range", "kthread_stop", "kernfs_drain",
		"del_timer_sync", "timer_delete_sync", "try_to_del_timer", "hrtimer_cancel",
		"async_synchronize", "blk_mq_freeze_queue_wait",
		"delay_", "asm_sysvec", "sysvec_", "irqentry_exit", "raw_irqentry_exit", "bpf_", "perf_", "traceiter_",
	}
}

// bare is a frame's function without the offset and the module.
func bare(frame string) string {
	name, _, _ := strings.Cut(frame, " [")
	name, _, _ = strings.Cut(name, "+0x")
	return name
}

func inModule(frame string) bool {
	return strings.Contains(frame, " [") && strings.HasSuffix(frame, "]")
}

// moduleFrame is the innermost frame of a stack that belongs to a module.
func moduleFrame(stack []string) string {
	if i := slices.IndexFunc(stack, inModule); i >= 0 {
		return stack[i]
	}
	return ""
}

// frame writes a frame for a sentence: function and module, not the offset.
func (s screen) frame(text string) string {
	_, module, _ := strings.Cut(text, " [")
	return s.function(unload.Blocker{Function: bare(text), Module: strings.TrimSuffix(module, "]")})
}

// spot says where a task was by its stack: the function, and on whose behalf
// if that is not a module's own. It gives "" if the stack does not say.
func (s screen) spot(stack []string) string {
	at := site(stack)
	if at == "" {
		return ""
	}
	text := s.frame(at)
	if m := moduleFrame(stack); m != "" && !inModule(at) {
		text += " from " + s.frame(m)
	}
	return text
}
