// SPDX-License-Identifier: GPL-2.0-only OR MIT
//
// Whom an unloading task is about to wait for, from what the function that waits
// is given. It is only a note: whether the task really waits there, its stack
// tells.

#ifndef MODTRACE_BLOCKER_H
#define MODTRACE_BLOCKER_H

#include "state.h"

// include/trace/events/lock.h
#define LCB_F_SPIN 1
#define LCB_F_READ 2
#define LCB_F_WRITE 4
#define LCB_F_MUTEX 32

#define OWNER_FLAGS 7

// about_to starts the note; NULL when the current task is not unloading.
static __always_inline struct blocker *about_to(__u32 kind)
{
	struct slot *s = current_slot();
	struct blocker *b;

	if (!s)
		return NULL;
	b = &s->wait.blocker;
	b->kind = kind;
	b->pid = 0;
	b->function = 0;
	b->detail[0] = 0;
	return b;
}

static __always_inline void note_task(bool direct, struct blocker *b, struct task_struct *task)
{
	b->pid = LOAD(direct, task, tgid);
	LOAD_BYTES(direct, b->comm, COMM_LEN, task, comm);
}

// await_lock notes the owner of a lock, which may be somebody else by the time
// the task gets it.
static __always_inline int await_lock(const void *lock, bool mutex)
{
	unsigned long owner = 0;
	struct blocker *b;

	if (!can_probe)
		return 0;
	b = about_to(BLOCKER_LOCK);
	if (!b)
		return 0;
	if (mutex)
		bpf_core_read(&owner, sizeof(owner), &((struct mutex *)lock)->owner.counter);
	else
		bpf_core_read(&owner, sizeof(owner), &((struct rw_semaphore *)lock)->owner.counter);
	owner &= ~(unsigned long)OWNER_FLAGS;
	if (owner)
		note_task(false, b, (struct task_struct *)owner);
	return 0;
}

static __always_inline int contended(const void *lock, __u32 flags)
{
	if (flags & LCB_F_MUTEX)
		return await_lock(lock, true);
	if (!(flags & LCB_F_SPIN) && flags & (LCB_F_READ | LCB_F_WRITE))
		return await_lock(lock, false);
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

static __always_inline int await_work(bool direct, struct work_struct *work)
{
	struct blocker *b = about_to(BLOCKER_WORK);

	if (b) {
		b->function = (__u64)LOAD(direct, work, func);
		b->work = (__u64)work;
	}
	return 0;
}

// Who works on what: the items that were begun while an unload was in flight.
struct worker {
	__u32 pid;
	__u32 pad;
	__u8 comm[COMM_LEN];
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, struct worker);
} workers SEC(".maps");

const struct worker *unused_worker __attribute__((unused));

static __noinline int note_worker(__u64 work)
{
	struct worker w = {};

	w.pid = bpf_get_current_pid_tgid() >> 32;
	bpf_get_current_comm(w.comm, COMM_LEN);
	bpf_map_update_elem(&workers, &work, &w, BPF_ANY);
	return 0;
}

SEC("tp_btf/workqueue_execute_start")
int BPF_PROG(worker_tp, struct work_struct *work)
{
	return in_flight ? note_worker((__u64)work) : 0;
}

SEC("raw_tp/workqueue_execute_start")
int worker_raw(struct bpf_raw_tracepoint_args *ctx)
{
	return in_flight ? note_worker(ctx->args[0]) : 0;
}

static __always_inline int await_workqueue(bool direct, struct workqueue_struct *queue)
{
	struct blocker *b = about_to(BLOCKER_WORKQUEUE);

	if (b)
		LOAD_BYTES(direct, b->detail, sizeof(queue->name), queue, name);
	return 0;
}

static __always_inline int await_kthread(bool direct, struct task_struct *thread)
{
	struct blocker *b = about_to(BLOCKER_KTHREAD);

	if (b)
		note_task(direct, b, thread);
	return 0;
}

static __always_inline int await_kernfs(bool direct, struct kernfs_node *node)
{
	struct blocker *b = about_to(BLOCKER_KERNFS);

	if (b && can_probe)
		bpf_probe_read_kernel_str(b->detail, DETAIL_LEN, LOAD(direct, node, name));
	return 0;
}

static __always_inline int await_netdev(bool direct, struct net_device *dev)
{
	struct slot *s = current_slot();

	if (!s)
		return 0;
	s->wait.interfaces++;
	LOAD_BYTES(direct, s->wait.interface, sizeof(dev->name), dev, name);
	return 0;
}

// TOLD makes the programs at the entry of a function whose first argument says
// who is waited for.
#define TOLD(name, function, type, await)                                                          \
	SEC("fentry/" function) int BPF_PROG(name##_fentry, struct type *object)                   \
	{                                                                                          \
		return await(true, object);                                                        \
	}                                                                                          \
	SEC("kprobe/" function) int name##_kprobe(struct pt_regs *ctx)                             \
	{                                                                                          \
		return await(false, (struct type *)PT_REGS_PARM1(ctx));                            \
	}

TOLD(flush, "__flush_work", work_struct, await_work)
TOLD(flush_inlined, "flush_work", work_struct, await_work) // before 6.10
TOLD(drain, "__flush_workqueue", workqueue_struct, await_workqueue)
TOLD(drain_old, "flush_workqueue", workqueue_struct, await_workqueue) // its name in 5.10
TOLD(stop, "kthread_stop", task_struct, await_kthread)
TOLD(kernfs, "kernfs_drain", kernfs_node, await_kernfs)
// The interface whose users are waited for once the lock is let go of.
TOLD(netdev, "unregister_netdevice_queue", net_device, await_netdev)

#endif
