// SPDX-License-Identifier: GPL-2.0-only OR MIT
//
// What every task of the machine is doing, read once and without watching
// anything: the part of the tool that looks at unloads which began before it.

// clang-format off
//go:build ignore

#include "kernel.h"
#include "symbol.h"
// clang-format on

#define TASK_DEPTH 64

#define TASK_DEAD 0x80 // include/linux/sched.h

// arch/x86/include/asm/page_64_types.h, arch/arm64/include/asm/memory.h
#define THREAD_SIZE 16384

// Whether programs may call bpf_probe_read_kernel.
const volatile bool can_probe = true;

// Who waits for the work item that a worker runs is behind it in the worker's
// list, as a work item of its own (kernel/workqueue.c, insert_wq_barrier). How
// many are looked at.
#define BARRIERS 4

#define COMM_LEN 16

// An item of the list. tid is only meant when func is wq_barrier_func.
struct barrier {
	__u64 func;
	__u32 tid;
	__u32 pad;
};

// A task. As many frames are sent as there are, innermost first; those of the
// scheduler are left out by the kernel (kernel/stacktrace.c,
// stack_trace_save_tsk).
struct record {
	__u32 pid, tid;
	__u64 state;	   // as in /proc/PID/stat, 0: it runs or could
	__u64 arrived;	   // when it began to run last, by the scheduler's clock; 0 unknown
	__u64 sp, fp;	   // of where it left the CPU
	__u64 call;	   // the system call that it was in last, by its number
	__u64 argument[2]; // of that call
	__u32 kthread;
	__u32 should_stop; // a kernel thread that was told to end, and has not yet
	__u32 depth;
	__u32 pad;
	__u64 work; // the function of the work item that it runs
	__u64 task; // its address, never shown
	__u8 comm[COMM_LEN];
	struct barrier barrier[BARRIERS];
	__u64 stack[TASK_DEPTH];
};

struct record record;

// The only task to be told of, 0: all.
__u32 only_tid;

// Where a lock has its owner and the first who waits for it, or the list of those.
struct lock_layout {
	__u32 owner, waiters;
};

struct lock_layout mutex_layout, rwsem_layout;

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct sched_info {
	unsigned long long last_arrival;
};

struct cpu_context {
	unsigned long fp, sp;
};

struct thread_struct {
	unsigned long sp;		// x86
	struct cpu_context cpu_context; // arm64
};

// task_struct___seen has the fields that only this program reads.
struct task_struct___seen {
	void *stack;
	unsigned int flags;
	int *set_child_tid;
	void *worker_private;
	struct sched_info sched_info;
	struct thread_struct thread;
	char comm[COMM_LEN];
};

// kernel/kthread.c. The kernel finds it by worker_private since 5.17, by
// set_child_tid before.
// kernel/workqueue_internal.h
struct worker {
	struct list_head scheduled;
	void (*current_func)(struct work_struct *work);
};

// work_struct___listed is what else this program reads of it.
struct work_struct___listed {
	struct list_head entry;
	void (*func)(struct work_struct *work);
};

// kernel/workqueue.c
struct wq_barrier {
	struct work_struct___listed work;
	struct task_struct *task; // the one that waits
};

enum KTHREAD_BITS {
	KTHREAD_SHOULD_STOP = 1,
};

// A lock has the head of a list of those who wait, or, as in 7.3, a pointer to the
// first of them.
struct mutex___listed {
	struct list_head wait_list;
};

struct mutex___first {
	void *first_waiter;
};

struct rw_semaphore___listed {
	struct list_head wait_list;
};

struct rw_semaphore___first {
	void *first_waiter;
};

// What pt_regs is called where the number of a system call is kept.
struct pt_regs___called {
	int syscallno; // arm64
};

#pragma clang attribute pop

static __always_inline void note_state(struct record *r, struct task_struct *task)
{
	if (bpf_core_field_exists(task->__state))
		r->state = task->__state;
	else
		r->state = ((struct task_struct___old *)task)->state;
}

// note_call notes the system call, from the registers that user space had. For a
// task that sleeps it is the one that it sleeps in.
static __always_inline void note_call(struct record *r, const struct pt_regs *regs)
{
#if defined(__TARGET_ARCH_x86)
	r->call = regs->orig_ax;
	r->argument[0] = regs->di;
	r->argument[1] = regs->si;
#else
	r->call = ((const struct pt_regs___called *)regs)->syscallno;
	r->argument[0] = regs->regs[0];
	r->argument[1] = regs->regs[1];
#endif
}

// note_old_call does so where the kernel has no helper for it (before 5.15): the
// registers are at the upper end of the stack (arch/x86/include/asm/processor.h
// and arch/arm64/include/asm/processor.h, task_pt_regs).
static __always_inline void note_old_call(struct record *r, const void *stack)
{
	const struct pt_regs *regs = stack + THREAD_SIZE - bpf_core_type_size(struct pt_regs);

#if defined(__TARGET_ARCH_x86)
	bpf_core_read(&r->call, sizeof(r->call), &regs->orig_ax);
	bpf_core_read(&r->argument[0], sizeof(r->argument[0]), &regs->di);
	bpf_core_read(&r->argument[1], sizeof(r->argument[1]), &regs->si);
#else
	int call = -1;

	bpf_core_read(&call, sizeof(call), &((const struct pt_regs___called *)regs)->syscallno);
	r->call = call;
	bpf_core_read(&r->argument[0], sizeof(r->argument[0]), &regs->regs[0]);
	bpf_core_read(&r->argument[1], sizeof(r->argument[1]), &regs->regs[1]);
#endif
}

// note_work notes what a worker runs, and who waits for that.
static __always_inline void note_work(struct record *r, const struct worker *worker)
{
	const struct list_head *head = (void *)worker + bpf_core_field_offset(worker->scheduled);
	const struct list_head *entry = NULL;

	bpf_core_read(&r->work, sizeof(r->work), &worker->current_func);
	bpf_core_read(&entry, sizeof(entry), &worker->scheduled.next);
	for (int i = 0; i < BARRIERS && entry && entry != head; i++) {
		const struct wq_barrier *b =
			(void *)entry - bpf_core_field_offset(struct work_struct___listed, entry);
		const struct task_struct *task = NULL;

		bpf_core_read(&r->barrier[i].func, sizeof(__u64), &b->work.func);
		bpf_core_read(&task, sizeof(task), &b->task);
		bpf_core_read(&r->barrier[i].tid, sizeof(__u32), &task->pid);
		bpf_core_read(&entry, sizeof(entry), &entry->next);
	}
}

static __always_inline void note_kthread(struct record *r, struct task_struct___seen *seen)
{
	const struct kthread *k;
	unsigned long flags = 0;

	if (!can_probe)
		return;
	if (bpf_core_field_exists(seen->worker_private))
		k = seen->worker_private;
	else
		k = (void *)seen->set_child_tid;
	if (!k)
		return;
	bpf_core_read(&flags, sizeof(flags), &k->flags);
	r->should_stop = flags >> bpf_core_enum_value(enum KTHREAD_BITS, KTHREAD_SHOULD_STOP) & 1;
	if (seen->flags & PF_WQ_WORKER) {
		const struct worker *worker = NULL;

		bpf_core_read(&worker, sizeof(worker), &k->data);
		if (worker)
			note_work(r, worker);
	}
}

// WAITERS is where a lock has its waiters.
#define WAITERS(type)                                                                              \
	(bpf_core_field_exists(struct type##___first, first_waiter)                                \
		 ? bpf_core_field_offset(struct type##___first, first_waiter)                      \
		 : bpf_core_field_offset(struct type##___listed, wait_list))

static __always_inline void lay_out(void)
{
	mutex_layout.owner = bpf_core_field_offset(struct mutex, owner);
	mutex_layout.waiters = WAITERS(mutex);
	rwsem_layout.owner = bpf_core_field_offset(struct rw_semaphore, owner);
	rwsem_layout.waiters = WAITERS(rw_semaphore);
}

SEC("iter/task")
int tasks(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct record *r = &record;
	struct task_struct___seen *seen;
	long size;

	if (!task || (only_tid && (__u32)task->pid != only_tid))
		return 0;
	lay_out();
	__builtin_memset(r, 0, sizeof(*r) - sizeof(r->stack));
	r->task = (__u64)task;
	seen = (void *)task;
	r->pid = task->tgid;
	r->tid = task->pid;
	note_state(r, task);
	if (r->state & TASK_DEAD)
		return 0;
	r->kthread = !!(seen->flags & PF_KTHREAD);
	__builtin_memcpy(r->comm, seen->comm, sizeof(r->comm));
	if (bpf_core_field_exists(seen->sched_info.last_arrival))
		r->arrived = seen->sched_info.last_arrival;
#if defined(__TARGET_ARCH_x86)
	r->sp = seen->thread.sp;
#else
	r->sp = seen->thread.cpu_context.sp;
	r->fp = seen->thread.cpu_context.fp;
#endif
	if (r->kthread)
		note_kthread(r, seen);
	else if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_task_pt_regs))
		note_call(r, (struct pt_regs *)bpf_task_pt_regs(task));
	else if (can_probe)
		note_old_call(r, seen->stack);
	size = bpf_get_task_stack(task, r->stack, sizeof(r->stack), 0);
	if (size < 0)
		size = 0;
	if (size > (long)sizeof(r->stack))
		size = sizeof(r->stack);
	r->depth = size / sizeof(r->stack[0]);
	bpf_seq_write(ctx->meta->seq, r, sizeof(*r) - sizeof(r->stack) + size);
	return 0;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
