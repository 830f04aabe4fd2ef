// SPDX-License-Identifier: GPL-2.0-only OR MIT
//
// The time that an unloading task is off the CPU, where it went off, and who
// made it go on. A task passes boundaries only while it runs, so no wait reaches
// over one, and on-CPU plus off-CPU is the phase, exactly.

#ifndef MODTRACE_WAIT_H
#define MODTRACE_WAIT_H

#include "barrier.h"
#include "caller.h"

// Frames of the module's own code can only be named while the module is there, so
// the reader is woken by its first waits, and later by those of so many ns.
#define FIRST_WAITS 8
#define LONG_WAIT 500000

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

// send_wait sends as much of a wait as there is.
static __always_inline void send_wait(struct slot *s)
{
	struct wait *w = &s->wait;
	__u32 depth = w->depth;

	if (depth > STACK_DEPTH)
		depth = STACK_DEPTH;
	__sync_fetch_and_add(&produced[KIND_WAIT], 1);
	if (bpf_ringbuf_output(&events, w,
			       sizeof(*w) - sizeof(w->stack) + depth * sizeof(w->stack[0]),
			       how_to_wake())) {
		s->end.lost++;
		count_lost(KIND_WAIT);
	}
}

// note_memory notes where a module's code lies, and the size of its memory in
// bytes, less what is given back once the module is initialised. It is done when the
// task has left the CPU on the way, as it always has to before the memory goes. Each
// part is named, since an index that is not a constant is not relocated.
static __noinline int note_memory(struct end *u)
{
	struct module *mod = (struct module *)u->module;

	if (!bpf_core_field_exists(mod->mem)) {
		u->text = (__u64)LOAD(false, mod, core_layout.base);
		u->text_size = LOAD(false, mod, core_layout.text_size);
		u->size = LOAD(false, mod, core_layout.size);
		return 0;
	}
	u->text = (__u64)LOAD(false, mod, mem[0].base);
	u->text_size = LOAD(false, mod, mem[0].size);
	u->size = (__u64)u->text_size + LOAD(false, mod, mem[1].size) +
		  LOAD(false, mod, mem[2].size) + LOAD(false, mod, mem[3].size);
	return 0;
}

// go_off notes that a task leaves the CPU. A boundary that was passed and has no
// time yet is being noted just now (unload.h, come_to): it gets this one.
static __noinline int go_off(void *ctx, struct slot *s, bool preempted)
{
	struct wait *w = &s->wait;
	__u32 stage = s->end.stage;

	tell_caller(s);
	if (can_probe && s->end.module && !s->end.size && stage < AT_FREE_MEMORY)
		note_memory(&s->end);
	w->header = s->end.header;
	w->header.kind = KIND_WAIT;
	w->since = stamp(&s->end);
	w->until = s->end.until;
	w->number = ++s->end.waits;
	w->boundary = stage;
	w->preempted = preempted;
	s->waking.number = 0;
	if (stage < BOUNDARIES && !s->end.at[stage])
		s->end.at[stage] = w->since;
	s->end.off_since = w->since;
	w->depth = preempted ? 0 : stack_into(ctx, w->stack, sizeof(w->stack));
	w->callbacks = in_barrier(w) ? count_callbacks() : 0;
	send_wait(s);
	if (stage <= AT_NOTIFY && w->number <= FIRST_WAITS && !preempted)
		gate.wake = 1;
	return 0;
}

static __always_inline void come_back(struct slot *s)
{
	struct end *u = &s->end;
	__u32 phase = s->wait.boundary;

	u->until = stamp(u);
	if (phase < BOUNDARIES)
		u->off_cpu[phase] += u->until - u->off_since;
	if (phase <= AT_NOTIFY && u->until - u->off_since > LONG_WAIT)
		gate.wake = 1;
	u->off_since = 0;
}

// wake_reader tells the reader of unloads that have ended, by an event that is
// none.
static __noinline int wake_reader(void)
{
	void *none;

	gate.wake = 0;
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

// switched is what a switch of tasks means to unloads. It is called by a function
// of its own, so that the way past that, which nearly every switch takes, neither
// saves registers nor reads arguments.
static __always_inline int switched(void *ctx, bool direct, bool preempt, struct task_struct *prev,
				    struct task_struct *next)
{
	struct slot *s;

	if (gate.wake)
		wake_reader();
	if (!gate.in_flight)
		return 0;
	s = slot_of_task(direct, next);
	if (s && s->end.off_since)
		come_back(s);
	s = slot_of_task(direct, prev);
	if (s && !s->end.ended)
		go_off(ctx, s, preempt || runnable(direct, prev));
	return 0;
}

static __noinline int switched_typed(__u64 *ctx)
{
	return switched(ctx, true, ctx[0], (struct task_struct *)ctx[1],
			(struct task_struct *)ctx[2]);
}

SEC("tp_btf/sched_switch")
int switch_tp(__u64 *ctx)
{
	return GATE_IS_SHUT() ? 0 : switched_typed(ctx);
}

static __noinline int switched_raw(struct bpf_raw_tracepoint_args *ctx)
{
	return switched(ctx, false, ctx->args[0], (struct task_struct *)ctx->args[1],
			(struct task_struct *)ctx->args[2]);
}

SEC("raw_tp/sched_switch")
int switch_raw(struct bpf_raw_tracepoint_args *ctx)
{
	return GATE_IS_SHUT() ? 0 : switched_raw(ctx);
}

// send_waking sends who ends a wait: the current task, or an interrupt on top of
// it, which its stack tells.
static __noinline int send_waking(void *ctx, struct slot *s)
{
	struct waking *w = &s->waking;
	__u32 depth;

	w->number = s->wait.number;
	w->header = s->end.header;
	w->header.kind = KIND_WAKING;
	w->pid = bpf_get_current_pid_tgid() >> 32;
	bpf_get_current_comm(w->comm, COMM_LEN);
	depth = stack_into(ctx, w->stack, sizeof(w->stack));
	if (depth > WAKER_DEPTH)
		depth = WAKER_DEPTH;
	w->depth = depth;
	__sync_fetch_and_add(&produced[KIND_WAKING], 1);
	if (bpf_ringbuf_output(&events, w,
			       sizeof(*w) - sizeof(w->stack) + depth * sizeof(w->stack[0]),
			       how_to_wake())) {
		s->end.lost++;
		count_lost(KIND_WAKING);
	}
	return 0;
}

static __always_inline int woken(void *ctx, bool direct, struct task_struct *task)
{
	struct slot *s = slot_of_task(direct, task);

	if (s && s->end.off_since && !s->wait.preempted && !s->waking.number)
		send_waking(ctx, s);
	return 0;
}

#endif
