// SPDX-License-Identifier: GPL-2.0-only OR MIT
//
// Who unloads a module. It takes as long to find out as the rest of what is noted
// of a whole unload, so it is done when the task has left the CPU for the first
// time, or at the end at the latest.

#ifndef MODTRACE_CALLER_H
#define MODTRACE_CALLER_H

#include "state.h"

// copy_ancestors notes the processes above task, nearest first. Above the first
// process is the idle task, number 0, which is its own parent.
static __always_inline void copy_ancestors(bool direct, struct begin *e, struct task_struct *task)
{
	for (int i = 0; i < ANCESTORS; i++) {
		task = LOAD(direct, task, real_parent);
		e->ancestor[i].pid = LOAD(direct, task, tgid);
		LOAD_BYTES(direct, e->ancestor[i].comm, COMM_LEN, task, comm);
	}
}

// copy_cmdline copies the caller's arguments and the path it was started by,
// which the kernel lays behind the environment (fs/binfmt_elf.c, AT_EXECFN).
static __always_inline void copy_cmdline(bool direct, struct begin *e, struct task_struct *task)
{
	struct mm_struct *mm = LOAD(direct, task, mm);
	// arg_start, arg_end, env_start and env_end, which lie in a row.
	unsigned long at[4] = {};
	unsigned long size;

	LOAD_BYTES(direct, at, sizeof(at), mm, arg_start);
	size = at[1] - at[0];
	if (size > CMDLINE_LEN)
		size = CMDLINE_LEN;
	if (bpf_probe_read_user(e->cmdline, size, (void *)at[0]) == 0)
		e->cmdline_len = size;
	bpf_probe_read_user_str(e->execfn, EXECFN_LEN, (void *)at[3]);
}

// copy_caller notes who the current task is.
static __always_inline void copy_caller(struct begin *e)
{
	e->cgroup = bpf_get_current_cgroup_id();
	e->pid = bpf_get_current_pid_tgid() >> 32;
	e->uid = bpf_get_current_uid_gid();
	bpf_get_current_comm(e->comm, COMM_LEN);
	e->ancestor[0].pid = 0;
	e->cmdline_len = 0;
	e->execfn[0] = 0;
	if (can_probe) {
		struct task_struct *task = (void *)bpf_get_current_task();

		copy_cmdline(false, e, task);
		copy_ancestors(false, e, task);
	} else if (current_task_typed()) {
		struct task_struct *task = bpf_get_current_task_btf();

		copy_cmdline(true, e, task);
		copy_ancestors(true, e, task);
	}
}

// tell_caller sends the beginning of the current task's unload, once.
static __noinline int tell_caller(struct slot *s)
{
	struct begin *e;

	if (s->told)
		return 0;
	s->told = 1;
	e = RESERVE(begin, KIND_BEGIN, s->end.header.begin, s->end.header.tid);
	if (!e)
		return 0;
	e->flags = s->end.flags;
	e->name[0] = 0;
	bpf_probe_read_user_str(e->name, NAME_LEN, (void *)s->name);
	copy_caller(e);
	bpf_ringbuf_submit(e, BPF_RB_NO_WAKEUP);
	return 0;
}

#endif
