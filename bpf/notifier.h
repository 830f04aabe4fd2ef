// SPDX-License-Identifier: GPL-2.0-only OR MIT
//
// The callbacks on the module notifier chain, one by one. The tracepoint comes
// before each callback of any chain (kernel/notifier.c, notifier_call_chain), so
// a callback lasts until the next begins, and the last until the next boundary.

#ifndef MODTRACE_NOTIFIER_H
#define MODTRACE_NOTIFIER_H

#include "state.h"

// The callbacks of the module notifier chain as it was when it was walked last.
// It hardly ever changes, so that one comparison a callback does.
static __u64 chain[CALLBACKS];

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
// now, from a position on. It gives CALLBACKS for one that is not there: the
// callback before it calls another chain.
static __noinline int look_for(struct end *u, __u64 function)
{
	__u64 from = u->position, found = 0, before = 0;

	if (!u->walked) {
		u->walked = 1;
		walk_chain();
	}
#pragma clang loop unroll(disable)
	for (__u64 i = 0; i < CALLBACKS; i++) {
		__u64 other = chain[i] ^ function;

		// The top bit is set when they differ, or when i is before from.
		other |= -other;
		found |= (~(other | (i - from))) >> 63;
		before += found ^ 1;
	}
	return before;
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
		i = look_for(u, function);
		if (i >= CALLBACKS)
			return 0;
	}
	u->position = i + 1;
	i = u->callbacks;
	if (i < CALLBACKS) {
		u->callback[i].function = function;
		u->callback[i].since = stamp(u);
	}
	*(volatile __u32 *)&u->callbacks = i + 1; // who reads it meanwhile finds it written
	return 0;
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

#endif
