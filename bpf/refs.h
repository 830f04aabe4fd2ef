// SPDX-License-Identifier: GPL-2.0-only OR MIT
//
// References that the unloading task takes and drops meanwhile. The
// tracepoints are used because module_put and __module_get are partly inlined.

#ifndef MODTRACE_REFS_H
#define MODTRACE_REFS_H

#include "state.h"

static __always_inline int reference(bool direct, struct module *mod, __u64 site, bool put)
{
	struct end *u = current_unload();
	struct reference *e;

	if (!u)
		return 0;
	e = RESERVE(reference, KIND_REFERENCE, u->header.begin, u->header.tid);
	u->references++;
	if (!e) {
		u->lost++;
		return 0;
	}
	e->time = stamp(u);
	e->site = site;
	e->count = LOAD(direct, mod, refcnt.counter);
	e->boundary = u->stage;
	e->put = put;
	LOAD_BYTES(direct, e->name, MODULE_NAME_SIZE, mod, name);
	bpf_ringbuf_submit(e, how_to_wake());
	return 0;
}

SEC("tp_btf/module_get")
int BPF_PROG(get_tp, struct module *mod, unsigned long site)
{
	return reference(true, mod, site, false);
}

SEC("tp_btf/module_put")
int BPF_PROG(put_tp, struct module *mod, unsigned long site)
{
	return reference(true, mod, site, true);
}

SEC("raw_tp/module_get")
int get_raw(struct bpf_raw_tracepoint_args *ctx)
{
	return reference(false, (struct module *)ctx->args[0], ctx->args[1], false);
}

SEC("raw_tp/module_put")
int put_raw(struct bpf_raw_tracepoint_args *ctx)
{
	return reference(false, (struct module *)ctx->args[0], ctx->args[1], true);
}

#endif
