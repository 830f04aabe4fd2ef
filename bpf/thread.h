// SPDX-License-Identifier: GPL-2.0-only OR MIT
//
// Kernel threads whose function, or whose work item's, lies in memory that a
// module had. The reader runs this program after an unload. What such a thread
// has on its stack tells less: x86 leaves out addresses where no code is known to
// be (arch/x86/kernel/unwind_orc.c, unwind_get_return_address).

#ifndef MODTRACE_THREAD_H
#define MODTRACE_THREAD_H

#include "state.h"

// The memory that is asked about.
__u64 freed_from;
__u64 freed_size;

struct leftover {
	__u32 pid;
	__u32 work; // it is a worker that runs a work item
	__u8 comm[COMM_LEN];
};

const struct leftover *unused_leftover __attribute__((unused));

static __always_inline struct kthread *kthread_of(struct task_struct *task)
{
	if (bpf_core_field_exists(task->worker_private))
		return LOAD(true, task, worker_private);
	return (void *)LOAD(true, (struct task_struct___old *)task, set_child_tid);
}

static __always_inline bool was_freed(const void *function)
{
	return (__u64)function - freed_from < freed_size;
}

SEC("iter/task")
int leftovers(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct leftover found = {};
	struct kthread *thread;
	unsigned int flags;

	if (!task)
		return 0;
	flags = task->flags;
	if (!(flags & PF_KTHREAD))
		return 0;
	thread = kthread_of(task);
	if (!thread)
		return 0;
	if (flags & PF_WQ_WORKER) {
		struct worker___kernel *worker = LOAD(false, thread, data);

		found.work = was_freed(LOAD(false, worker, current_func));
	}
	if (!found.work && !was_freed(LOAD(false, thread, threadfn)))
		return 0;
	found.pid = task->pid;
	LOAD_BYTES(true, found.comm, COMM_LEN, task, comm);
	bpf_seq_write(ctx->meta->seq, &found, sizeof(found));
	return 0;
}

#endif
