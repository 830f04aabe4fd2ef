// SPDX-License-Identifier: GPL-2.0-only OR MIT
//
// Whom an unloading task is about to wait for, from what the function that waits
// is given. It is only a note: whether the task really waits there, its stack
// tells.

#ifndef MODTRACE_BLOCKER_H
#define MODTRACE_BLOCKER_H

#include "state.h"

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
static __always_inline void await_lock(const void *lock, struct task_struct *owner)
{
	struct blocker *b = about_to(BLOCKER_LOCK);

	if (!b)
		return;
	b->object = (__u64)lock;
	if (owner)
		note_task(false, b, owner);
}

static __always_inline int await_work(bool direct, struct work_struct *work)
{
	struct blocker *b = about_to(BLOCKER_WORK);

	if (b) {
		b->function = (__u64)LOAD(direct, work, func);
		b->object = (__u64)work;
	}
	return 0;
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

static __always_inline int await_netdev(bool direct, struct net_device *dev)
{
	struct slot *s = current_slot();

	if (!s)
		return 0;
	s->wait.interfaces++;
	LOAD_BYTES(direct, s->wait.interface, sizeof(dev->name), dev, name);
	return 0;
}

#define CALLS (1 + DETAIL_LEN / sizeof(__u64))

// await_async notes the oldest of all asynchronous calls that are pending, of the
// whole machine: all are waited for. Others may come and go meanwhile; what was freed
// has no function that can be named.
static __noinline int await_async(void)
{
	struct list_head *head = (void *)async_pending, *at = NULL;
	struct blocker *b;

	if (!head || !can_probe)
		return 0;
	bpf_core_read(&at, sizeof(at), &head->next);
	if (!at || at == head)
		return 0;
	b = about_to(BLOCKER_ASYNC);
	if (!b)
		return 0;
	__builtin_memset(b->detail, 0, sizeof(b->detail));
	for (__u32 i = 0; i < CALLS && at && at != head; i++) {
		struct async_entry *entry =
			(void *)at - bpf_core_field_offset(struct async_entry, global_list);
		__u64 *function = i ? (__u64 *)b->detail + i - 1 : &b->function;

		bpf_core_read(function, sizeof(*function), &entry->func);
		bpf_core_read(&at, sizeof(at), &at->next);
		b->pid++;
	}
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
// The interface whose users are waited for once the lock is let go of.
TOLD(netdev, "unregister_netdevice_queue", net_device, await_netdev)

#endif
