// SPDX-License-Identifier: GPL-2.0-only OR MIT
//
// Where an unloading task runs: its stack whenever a timer of the kernel expires
// on top of it, which the tick does 100 to 1000 times a second (CONFIG_HZ). No
// timer of our own, so nothing is spent while nobody unloads.

#ifndef MODTRACE_SAMPLE_H
#define MODTRACE_SAMPLE_H

#include "wait.h"

#define SAMPLE_PAUSE 900000 // ns: other timers than the tick are not to count twice

#define NAME_EVERY 32

static __noinline int take_sample(void *ctx, struct slot *s)
{
	struct end *u = &s->end;
	__u64 now = stamp(u);
	struct sample *e;

	if (now - u->sampled < SAMPLE_PAUSE)
		return 0;
	u->sampled = now;
	tell_caller(s);
	e = RESERVE(sample, KIND_SAMPLE, u->header.begin, u->header.tid);
	if (!e) {
		u->lost++;
		return 0;
	}
	e->time = now;
	e->boundary = u->stage;
	e->depth = stack_into(ctx, e->stack, sizeof(e->stack));
	// Frames of the module's own code can only be named while it is there.
	bpf_ringbuf_submit(e, e->boundary <= AT_NOTIFY && u->samples % NAME_EVERY == 0
				      ? BPF_RB_FORCE_WAKEUP
				      : how_to_wake());
	u->samples++;
	return 0;
}

static __always_inline int expired(void *ctx)
{
	struct slot *s = current_slot();

	if (s && !s->end.ended && !s->end.off_since)
		take_sample(ctx, s);
	return 0;
}

SEC("tp_btf/hrtimer_expire_entry")
int sample_tp(void *ctx)
{
	return expired(ctx);
}

SEC("raw_tp/hrtimer_expire_entry")
int sample_raw(void *ctx)
{
	return expired(ctx);
}

#endif
