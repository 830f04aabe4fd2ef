// SPDX-License-Identifier: GPL-2.0-only OR MIT
//
// The few kernel types that modtrace reads, with the few fields it reads of
// them. Offsets come from the running kernel's BTF at load time (CO-RE), so
// order and padding here mean nothing. Written by hand because a generated
// vmlinux.h carries the configuration of whichever kernel it was made on: one
// built without modules has no reference count in struct module.

#ifndef MODTRACE_KERNEL_H
#define MODTRACE_KERNEL_H

// bpf_tracing.h names the registers as the kernel does when this is defined.
#define __VMLINUX_H__

#include <linux/types.h>
#include <stdbool.h>

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include <bpf/bpf_core_read.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

#if defined(__TARGET_ARCH_x86)
struct pt_regs {
	unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di;
	unsigned long orig_ax, ip, cs, flags, sp, ss;
};
#elif defined(__TARGET_ARCH_arm64)
struct user_pt_regs {
	__u64 regs[31];
	__u64 sp, pc, pstate;
};

struct pt_regs {
	union {
		struct user_pt_regs user_regs;
		struct {
			__u64 regs[31];
			__u64 sp, pc, pstate;
		};
	};
};
#else
#error "modtrace knows the system call registers of x86 and arm64 only"
#endif

struct list_head {
	struct list_head *next;
};

struct kobject {
	const char *name;
};

typedef struct {
	int counter;
} atomic_t;

// include/linux/module.h
enum module_state {
	MODULE_STATE_LIVE,
	MODULE_STATE_COMING,
	MODULE_STATE_GOING,
	MODULE_STATE_UNFORMED,
};

struct module_memory {
	void *base;
	unsigned int size;
};

struct module_layout {
	void *base;
	unsigned int size;
	unsigned int text_size;
};

#define MODULE_MEMORIES 4 // MOD_TEXT to MOD_RO_AFTER_INIT

struct module;

struct module_kobject {
	struct module *mod;
	struct kobject *drivers_dir; // made when the module's first driver is registered
};

struct module {
	struct module_kobject mkobj;
	struct module_memory mem[MODULE_MEMORIES]; // since 6.4
	struct module_layout core_layout;
	enum module_state state;
	char name[64 - sizeof(unsigned long)];
	int (*init)(void);
	void (*exit)(void);
	unsigned long taints;
	bool sig_ok;
	atomic_t refcnt;
	struct list_head source_list; // of module_use: who uses this one
};

struct module_use {
	struct list_head source_list;
	struct module *source; // the user
};

struct user_namespace {
	int level;
};

// kernel_cap_t was two 32-bit words up to 6.2 and is one 64-bit word since;
// only its address is taken.
typedef struct {
	__u64 val;
} kernel_cap_t;

struct cred {
	kernel_cap_t cap_effective;
	struct user_namespace *user_ns;
};

struct mm_struct {
	unsigned long arg_start, arg_end, env_start, env_end;
};

typedef struct {
	long counter;
} atomic_long_t;

// The owner is a task's address, with flags in its lowest three bits
// (kernel/locking/mutex.c, kernel/locking/rwsem.c).
struct mutex {
	atomic_long_t owner;
};

struct rw_semaphore {
	atomic_long_t owner;
};

struct work_struct {
	void (*func)(struct work_struct *work);
};

// kernel/async.c
struct async_entry {
	struct list_head global_list;
	void (*func)(void *data, __u64 cookie);
};

struct workqueue_struct {
	char name[24]; // 32 since 6.9
};

struct device_driver {
	const char *name;
};

struct device {
	struct kobject kobj;
	struct device_driver *driver;
};

struct net_device {
	char name[16];
};

// include/linux/notifier.h
struct notifier_block {
	int (*notifier_call)(struct notifier_block *nb, unsigned long action, void *data);
	struct notifier_block *next;
};

struct blocking_notifier_head {
	struct notifier_block *head;
};

// include/linux/sched.h
#define PF_WQ_WORKER 0x00000020
#define PF_KTHREAD 0x00200000

// kernel/kthread.c
struct kthread {
	unsigned long flags;
	int (*threadfn)(void *data);
	void *data; // of a worker, its struct worker
};

// kernel/workqueue_internal.h; worker is a name of ours.
struct worker___kernel {
	void (*current_func)(struct work_struct *work);
};

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
};

struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
};

struct task_struct {
	unsigned int __state;
	unsigned int flags;
	void *worker_private; // of a kernel thread, its struct kthread
	int pid, tgid;
	struct task_struct *real_parent;
	struct cred *cred;
	struct mm_struct *mm;
	char comm[16];
};

// The name of __state before 5.14, and the place of struct kthread before 5.17.
struct task_struct___old {
	long state;
	int *set_child_tid;
};

#pragma clang attribute pop

#include <bpf/bpf_tracing.h>

#endif
