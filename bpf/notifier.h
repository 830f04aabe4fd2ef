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
// change it waits for the lock that the caller of the callbacks holds. This and the
// next are global functions, so that their loops are verified once (see wanted).
__noinline int walk_chain(void)
{
	const struct blocking_notifier_head *head = (void *)module_chain;
	const struct notifier_block *at = NULL;

	bpf_core_read(&at, sizeof(at), &head->head);
#pragma clang loop unroll(disable)
	for (int i = 0; i < CALLBACKS; i++) {
		__u64 function = 0;

		if (at) {
			bpf_core_read(&function, sizeof(function), &at->notifier_call);
			bpf_core_read(&at, sizeof(at), &at->next);
		}
		chain[i] = function;
	}
	return 0;
}

// position_of finds a callback on the chain, from a position on. It gives
// CALLBACKS for one that is not there.
__noinline __u32 position_of(__u64 function, __u32 from)
{
	__u32 i;

#pragma clang loop unroll(disable)
	for (i = 0; i < CALLBACKS; i++)
		if (i >= from && chain[i] == function)
			break;
	return i;
}

// look_for finds the callback that is about to be called on the chain as it is
// now. It is not there when the callback before it calls another chain.
static __noinline __u32 look_for(struct end *u, __u64 function)
{
	if (!u->walked) {
		u->walked = 1;
		walk_chain();
	}
	return position_of(function, u->position);
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
