// SPDX-License-Identifier: GPL-2.0-only OR MIT
//
// The time that an unloading task is off the CPU, where it went off, and who
// made it go on. A task passes boundaries only while it runs, so no wait reaches
// over one, and on-CPU plus off-CPU is the phase, exactly.

#ifndef MODTRACE_WAIT_H
#define MODTRACE_WAIT_H

#include "state.h"

// A wait of this many ns in the module's own code wakes the reader when it is
// over: its frames can only be named while the module is there. And one in so
// many does, so that the ring does not fill up.
#define LONG_WAIT 500000
#define WAKE_EVERY_WAIT 128

// stack_into takes the current stack and gives the number of its frames.
static __always_inline __u32 stack_into(void *ctx, __u64 *frames, __u32 size)
{
	long n = bpf_get_stack(ctx, frames, size, 0);

	return n > 0 ? n / sizeof(__u64) : 0;
}

static __always_inline bool runnable(bool direct, struct task_struct *task)
{
	if (bpf_core_field_exists(task->__state))
		return LOAD(direct, task, __state) == 0;
	return LOAD(direct, (struct task_struct___old *)task, state) == 0;
}

// phase_of is the phase that an unload is in by the clock: the last boundary that
// has its time. One was passed and has none only while a program notes it.
static __always_inline __u32 phase_of(const struct end *u)
{
	__u32 b = u->stage;

#pragma clang loop unroll(disable)
	for (int i = 0; i < BOUNDARIES; i++) {
		if (b == 0 || b >= BOUNDARIES || u->at[b])
			break;
		b--;
	}
	return b;
}

// go_off notes that a task leaves the CPU. A function of its own, so that the
// way past it, which every switch takes, saves no registers for it.
static __noinline int go_off(void *ctx, struct slot *s, bool preempted)
{
	struct wait *w = &s->wait;

	w->since = stamp(&s->end);
	s->end.off_since = w->since;
	w->boundary = phase_of(&s->end);
	w->preempted = preempted;
	w->woken = 0;
	w->waker_pid = 0;
	w->waker_depth = 0;
	w->depth = stack_into(ctx, w->stack, sizeof(w->stack));
	return 0;
}

// send_wait sends as much of a wait as there is.
static __always_inline void send_wait(struct slot *s)
{
	struct wait *w = &s->wait;
	__u32 depth = w->depth;
	__u64 size;

	if (depth > STACK_DEPTH)
		depth = STACK_DEPTH;
	size = sizeof(*w) - sizeof(w->stack) + depth * sizeof(w->stack[0]);
	w->header = s->end.header;
	w->header.kind = KIND_WAIT;
	__sync_fetch_and_add(&produced[KIND_WAIT], 1);
	if (bpf_ringbuf_output(&events, w, size, BPF_RB_NO_WAKEUP)) {
		s->end.lost++;
		count_lost(KIND_WAIT);
	}
	if (++s->end.waits % WAKE_EVERY_WAIT == 0 ||
	    (w->boundary <= AT_NOTIFY && w->until - w->since > LONG_WAIT))
		wake = true;
}

static __noinline int come_back(struct slot *s)
{
	__u32 phase = s->wait.boundary;

	s->wait.until = stamp(&s->end);
	if (phase < BOUNDARIES)
		s->end.off_cpu[phase] += s->wait.until - s->end.off_since;
	s->end.off_since = 0;
	send_wait(s);
	return 0;
}

// wake_reader tells the reader of unloads that have ended, by an event that is
// none.
static __noinline int wake_reader(void)
{
	void *none;

	wake = false;
	none = bpf_ringbuf_reserve(&events, sizeof(__u64), 0);
	if (none)
		bpf_ringbuf_discard(none, BPF_RB_FORCE_WAKEUP);
	return 0;
}

// slot_of_task gives the slot of a task by its number, of which the idle tasks
// have 0 and are no slot's owner.
static __always_inline struct slot *slot_of_task(bool direct, struct task_struct *task)
{
	__u32 tid = LOAD(direct, task, pid);

	return tid ? slot_of(tid) : NULL;
}

static __always_inline int switched(void *ctx, bool direct, bool preempt, struct task_struct *prev,
				    struct task_struct *next)
{
	struct slot *s;

	if (wake)
		wake_reader();
	if (!in_flight)
		return 0;
	s = slot_of_task(direct, prev);
	if (s && !s->end.ended)
		go_off(ctx, s, preempt || runnable(direct, prev));
	s = slot_of_task(direct, next);
	if (s && s->end.off_since)
		come_back(s);
	return 0;
}

SEC("tp_btf/sched_switch")
int BPF_PROG(switch_tp, bool preempt, struct task_struct *prev, struct task_struct *next)
{
	return switched(ctx, true, preempt, prev, next);
}

SEC("raw_tp/sched_switch")
int switch_raw(struct bpf_raw_tracepoint_args *ctx)
{
	return switched(ctx, false, ctx->args[0], (struct task_struct *)ctx->args[1],
			(struct task_struct *)ctx->args[2]);
}

// note_waker notes who wakes a waiting task: the current one, or an interrupt on
// top of it, which its stack tells.
static __noinline int note_waker(void *ctx, struct slot *s)
{
	struct wait *w = &s->wait;

	w->woken = 1;
	w->waker_pid = bpf_get_current_pid_tgid() >> 32;
	bpf_get_current_comm(w->waker_comm, COMM_LEN);
	w->waker_depth = stack_into(ctx, w->waker_stack, sizeof(w->waker_stack));
	return 0;
}

static __always_inline int waking(void *ctx, bool direct, struct task_struct *task)
{
	struct slot *s;

	if (!in_flight)
		return 0;
	s = slot_of_task(direct, task);
	if (s && s->end.off_since && !s->wait.woken)
		note_waker(ctx, s);
	return 0;
}

SEC("tp_btf/sched_waking")
int BPF_PROG(waking_tp, struct task_struct *task)
{
	return waking(ctx, true, task);
}

SEC("raw_tp/sched_waking")
int waking_raw(struct bpf_raw_tracepoint_args *ctx)
{
	return waking(ctx, false, (struct task_struct *)ctx->args[0]);
}

#endif
