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
	struct end *u = bpf_map_lookup_elem(&unloads, &tid);

	if (u)
		u->off_since = bpf_ktime_get_ns();
}

static __always_inline void on_cpu(__u32 tid)
{
	struct end *u = bpf_map_lookup_elem(&unloads, &tid);
	__u32 stage;

	if (!u || !u->off_since)
		return;
	stage = u->stage;
	if (stage < BOUNDARIES)
		u->off_cpu[stage] += bpf_ktime_get_ns() - u->off_since;
	u->off_since = 0;
}

static __always_inline int switched(bool direct, struct task_struct *prev, struct task_struct *next)
{
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
