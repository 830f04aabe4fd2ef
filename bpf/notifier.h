// SPDX-License-Identifier: GPL-2.0-only OR MIT
//
// The callbacks on the module notifier chain, one by one. The tracepoint comes
// before each callback of any chain (kernel/notifier.c, notifier_call_chain), so
// a callback lasts until the next begins, and the last until the next boundary.
// Before 6.4 there is no such tracepoint: the Go side then attaches a kprobe to each
// callback by its address.

#ifndef MODTRACE_NOTIFIER_H
#define MODTRACE_NOTIFIER_H

#include "state.h"

// The callbacks of the module notifier chain as it was when it was walked last.
// It hardly ever changes, so that one comparison a callback does.
__u64 chain[CALLBACKS];

// walk_chain reads the chain. It stays as it is while it is called: who wants to
// change it waits for the lock that the caller of the callbacks holds. Behind the
// chain's end, what is read is nothing: the verifier follows each branch in a loop
// as often as the loop turns, so there is none here, nor in look_for.
static __always_inline void walk_chain(void)
{
	const struct blocking_notifier_head *head = (void *)module_chain;
	const struct notifier_block *at = NULL;

	bpf_core_read(&at, sizeof(at), &head->head);
#pragma clang loop unroll(disable)
	for (int i = 0; i < CALLBACKS; i++) {
		bpf_core_read(&chain[i], sizeof(chain[i]), &at->notifier_call);
		bpf_core_read(&at, sizeof(at), &at->next);
	}
}

// look_for finds the callback that is about to be called on the chain as it is
// now, from a position on: one that begins at an address or, by so many bits, below
// it. It gives CALLBACKS for one that is not there: the callback before it calls
// another chain.
static __noinline int look_for(struct end *u, __u64 function, __u64 below)
{
	__u64 from = u->position, found = 0, before = 0;

	if (!u->walked) {
		u->walked = 1;
		walk_chain();
	}
#pragma clang loop unroll(disable)
	for (__u64 i = 0; i < CALLBACKS; i++) {
		__u64 other = (function - chain[i]) & ~below;

		// The top bit is set when they differ, or when i is before from.
		other |= -other;
		found |= (~(other | (i - from))) >> 63;
		before += found ^ 1;
	}
	return before;
}

// note_callback notes that a callback is called; how says what of those before it.
static __always_inline int note_callback(struct end *u, __u32 position, __u64 function, __u64 how)
{
	__u32 i = u->callbacks;

	u->position = position + 1;
	if (i < CALLBACKS) {
		u->callback[i].function = function;
		u->callback[i].since = stamp(u) | how;
	}
	*(volatile __u32 *)&u->callbacks = i + 1; // who reads it meanwhile finds it written
	return 0;
}

// called is short: it runs a dozen times an unload.
static __always_inline int called(__u64 function)
{
	struct end *u = current_unload();
	__u32 i;

	if (!u || u->stage != AT_NOTIFY)
		return 0;
	i = u->position;
	if (can_probe && (i >= CALLBACKS || chain[i] != function)) {
		i = look_for(u, function, 0);
		if (i >= CALLBACKS)
			return 0;
	}
	return note_callback(u, i, function, 0);
}

SEC("tp_btf/notifier_run")
int BPF_PROG(callback_tp, void *function)
{
	return called((__u64)function);
}

SEC("raw_tp/notifier_run")
int callback_raw(struct bpf_raw_tracepoint_args *ctx)
{
	return called(ctx->args[0]);
}

// How many callbacks the chain has.
static __always_inline __u32 chain_length(void)
{
	__u32 n = 0;

#pragma clang loop unroll(disable)
	for (int i = 0; i < CALLBACKS; i++)
		n += (chain[i] | -chain[i]) >> 63;
	return n;
}

// A kprobe at a function's address may sit behind its first instructions, on which
// indirect calls land (arch/x86/kernel/kprobes/core.c, arch_adjust_kprobe_addr).
#define LANDING 15

// How many callbacks have no probe.
volatile __u32 unprobed;

static __always_inline int called_at(__u64 ip)
{
	struct end *u = current_unload();
	__s32 unseen;
	__u32 i;

	if (!u || u->stage != AT_NOTIFY)
		return 0;
	i = look_for(u, ip, LANDING);
	if (i >= CALLBACKS)
		return 0;
	note_callback(u, i, chain[i], i > u->position ? AFTER_UNSEEN : 0);
	u->behind = chain_length() - u->position;
	unseen = chain_length() - u->callbacks - unprobed;
	u->unseen = unseen > 0 ? unseen : 0;
	return 0;
}

SEC("kprobe")
int callback_kprobe(struct pt_regs *ctx)
{
	return called_at(PT_REGS_IP(ctx));
}

// read_chain reads the chain for the Go side, which knows where it is.
SEC("raw_tp")
int read_chain(void *ctx)
{
	walk_chain();
	return 0;
}

#endif
