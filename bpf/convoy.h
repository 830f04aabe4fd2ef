// SPDX-License-Identifier: GPL-2.0-only OR MIT
//
// Locks between an unloading task and others: whose lock it waits for, and who
// waits for its own.

#ifndef MODTRACE_CONVOY_H
#define MODTRACE_CONVOY_H

#include "blocker.h"
#include "wait.h"

// include/trace/events/lock.h
#define LCB_F_SPIN 1
#define LCB_F_READ 2
#define LCB_F_WRITE 4
#define LCB_F_PERCPU 16
#define LCB_F_MUTEX 32

#define OWNER_FLAGS 7

// sleeps_for says whether a lock is a mutex or an rw_semaphore, whose owners are
// known.
static __always_inline bool sleeps_for(__u32 flags)
{
	return flags & LCB_F_MUTEX ||
	       (!(flags & (LCB_F_SPIN | LCB_F_PERCPU)) && flags & (LCB_F_READ | LCB_F_WRITE));
}

// owner_of gives the task that has a mutex, or that writes under an rw_semaphore;
// NULL when nobody has it, or readers.
static __always_inline struct task_struct *owner_of(const void *lock, __u32 flags)
{
	unsigned long owner = 0;

	if (flags & LCB_F_MUTEX)
		bpf_core_read(&owner, sizeof(owner), &((struct mutex *)lock)->owner.counter);
	else
		bpf_core_read(&owner, sizeof(owner), &((struct rw_semaphore *)lock)->owner.counter);
	return (struct task_struct *)(owner & ~(unsigned long)OWNER_FLAGS);
}

// Tasks that wait for a lock of an unloading task, by thread id, and how many.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct waiter);
} waiters SEC(".maps");

volatile __u32 waiting;

static __always_inline void send_waiter(struct waiter *w)
{
	__sync_fetch_and_add(&produced[KIND_WAITER], 1);
	if (bpf_ringbuf_output(&events, w, sizeof(*w), how_to_wake()))
		count_lost(KIND_WAITER);
}

// queue_behind notes that the current task waits for a lock of an unloading one.
// One that has spun for the lock and goes on to sleep is noted once.
static __noinline int queue_behind(struct slot *s, __u64 lock)
{
	__u32 tid = bpf_get_current_pid_tgid();
	struct waiter w = {};

	w.header = s->end.header;
	w.header.kind = KIND_WAITER;
	w.since = bpf_ktime_get_ns();
	w.lock = lock;
	w.pid = bpf_get_current_pid_tgid() >> 32;
	w.tid = tid;
	bpf_get_current_comm(w.comm, COMM_LEN);
	if (bpf_map_update_elem(&waiters, &tid, &w, BPF_NOEXIST))
		return 0;
	__sync_fetch_and_add(&waiting, 1);
	send_waiter(&w);
	return 0;
}

// let_on notes that a task waits no longer behind an unload: it was woken by the
// unloading task, or has come to its lock in another way.
static __noinline int let_on(__u32 tid, __u32 by)
{
	struct waiter *w = bpf_map_lookup_elem(&waiters, &tid);

	if (!w || (by && by != w->header.tid))
		return 0;
	w->until = bpf_ktime_get_ns();
	send_waiter(w);
	if (!bpf_map_delete_elem(&waiters, &tid))
		__sync_fetch_and_add(&waiting, -1);
	return 0;
}

static __always_inline int contended(const void *lock, __u32 flags)
{
	struct task_struct *owner;
	struct slot *s;

	if (!gate.in_flight || !can_probe || !sleeps_for(flags))
		return 0;
	owner = owner_of(lock, flags);
	await_lock(lock, owner);
	s = owner ? slot_of_task(false, owner) : NULL;
	if (s)
		queue_behind(s, (__u64)lock);
	return 0;
}

SEC("tp_btf/contention_begin")
int BPF_PROG(lock_tp, void *lock, unsigned int flags)
{
	return contended(lock, flags);
}

SEC("raw_tp/contention_begin")
int lock_raw(struct bpf_raw_tracepoint_args *ctx)
{
	return contended((void *)ctx->args[0], ctx->args[1]);
}

static __always_inline int acquired(void)
{
	return waiting ? let_on(bpf_get_current_pid_tgid(), 0) : 0;
}

SEC("tp_btf/contention_end")
int locked_tp(void *ctx)
{
	return acquired();
}

SEC("raw_tp/contention_end")
int locked_raw(void *ctx)
{
	return acquired();
}

// The other end of a convoy: the unloading task lets go of its lock.
static __always_inline int wakes(void *ctx, bool direct, struct task_struct *task)
{
	if (!gate.in_flight)
		return 0;
	if (waiting)
		let_on(LOAD(direct, task, pid), bpf_get_current_pid_tgid());
	return woken(ctx, direct, task);
}

SEC("tp_btf/sched_waking")
int BPF_PROG(waking_tp, struct task_struct *task)
{
	return wakes(ctx, true, task);
}

SEC("raw_tp/sched_waking")
int waking_raw(struct bpf_raw_tracepoint_args *ctx)
{
	return wakes(ctx, false, (struct task_struct *)ctx->args[0]);
}

#endif
