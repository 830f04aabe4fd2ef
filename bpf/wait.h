// SPDX-License-Identifier: GPL-2.0-only OR MIT
//
// The time that an unloading task is off the CPU. A task passes boundaries
// only while it runs, so no wait reaches over one, and on-CPU plus off-CPU is
// the phase, exactly.

#ifndef MODTRACE_WAIT_H
#define MODTRACE_WAIT_H

#include "state.h"

static __always_inline void off_cpu(__u32 tid)
{
	struct slot *s = tid ? slot_of(tid) : NULL; // 0 is the idle task, and no slot's owner

	if (s && !s->end.ended)
		s->end.off_since = stamp(&s->end);
}

static __always_inline void on_cpu(__u32 tid)
{
	struct slot *s = tid ? slot_of(tid) : NULL;
	__u32 stage;

	if (!s || !s->end.off_since)
		return;
	stage = s->end.stage;
	if (stage < BOUNDARIES)
		s->end.off_cpu[stage] += stamp(&s->end) - s->end.off_since;
	s->end.off_since = 0;
}

// wake_reader tells the reader of unloads that have ended, by an event that is
// none.
static __always_inline void wake_reader(void)
{
	void *none;

	wake = false;
	none = bpf_ringbuf_reserve(&events, sizeof(__u64), 0);
	if (none)
		bpf_ringbuf_discard(none, BPF_RB_FORCE_WAKEUP);
}

static __always_inline int switched(bool direct, struct task_struct *prev, struct task_struct *next)
{
	if (wake)
		wake_reader();
	if (!in_flight)
		return 0;
	off_cpu(LOAD(direct, prev, pid));
	on_cpu(LOAD(direct, next, pid));
	return 0;
}

SEC("tp_btf/sched_switch")
int BPF_PROG(switch_tp, bool preempt, struct task_struct *prev, struct task_struct *next)
{
	return switched(true, prev, next);
}

SEC("raw_tp/sched_switch")
int switch_raw(struct bpf_raw_tracepoint_args *ctx)
{
	return switched(false, (struct task_struct *)ctx->args[1],
			(struct task_struct *)ctx->args[2]);
}

#endif
