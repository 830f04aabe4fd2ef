// SPDX-License-Identifier: GPL-2.0-only OR MIT
//
// How many RCU callbacks there are when an unload begins to wait for them all in
// rcu_barrier (kernel/rcu/tree.c). They are those of the whole machine.

#ifndef MODTRACE_BARRIER_H
#define MODTRACE_BARRIER_H

#include "state.h"

#define MOST_CPUS 64

// How many processors there may be.
const volatile __u32 cpus;

#define BARRIER_FRAMES 12 // of the scheduler's and this one's, within which it lies
#define BARRIER_CODE 1024 // bytes of its code

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

// kernel/rcu/rcu_segcblist.h, kernel/rcu/tree.h
struct rcu_segcblist {
	long len;
};

struct rcu_segcblist___atomic { // with CONFIG_RCU_NOCB_CPU
	atomic_long_t len;
};

struct rcu_data {
	struct rcu_segcblist cblist;
};

#pragma clang attribute pop

// in_barrier says whether a stack has rcu_barrier on it.
static __always_inline bool in_barrier(const struct wait *w)
{
	__u64 in = 0;

	if (!rcu_barrier_at || !can_probe)
		return false;
#pragma clang loop unroll(full)
	for (__u64 i = 0; i < BARRIER_FRAMES; i++)
		in |= (i - w->depth) & (w->stack[i] - rcu_barrier_at - BARRIER_CODE) &
		      ~(w->stack[i] - rcu_barrier_at);
	return in >> 63;
}

// count_callbacks adds up those of each processor, whose data lies at an offset of
// its own.
static __noinline int count_callbacks(void)
{
	__u64 total = 0, at;

	if (bpf_core_field_exists(struct rcu_segcblist, len))
		at = bpf_core_field_offset(struct rcu_segcblist, len);
	else if (bpf_core_field_exists(struct rcu_segcblist___atomic, len))
		at = bpf_core_field_offset(struct rcu_segcblist___atomic, len);
	else
		return 0;
	if (!bpf_core_field_exists(struct rcu_data, cblist))
		return 0;
	at += rcu_data_at + bpf_core_field_offset(struct rcu_data, cblist);
#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < MOST_CPUS && i < cpus; i++) {
		__u64 offset = 0;
		long len = 0;

		bpf_probe_read_kernel(&offset, sizeof(offset), (__u64 *)per_cpu_offset_at + i);
		bpf_probe_read_kernel(&len, sizeof(len), (void *)(at + offset));
		total += len;
	}
	return total;
}

#endif
