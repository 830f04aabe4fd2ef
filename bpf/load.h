// SPDX-License-Identifier: GPL-2.0-only OR MIT
//
// Who loads a module. Loads are rare, and whether one brings a module back that
// was unloaded a moment ago the Go side knows: each is sent.

#ifndef MODTRACE_LOAD_H
#define MODTRACE_LOAD_H

#include "unload.h"

static __always_inline int loading(bool direct, struct module *mod)
{
	struct begin *e;

	if (!armed)
		return 0;
	e = RESERVE(begin, KIND_LOAD, bpf_ktime_get_ns(), bpf_get_current_pid_tgid());
	if (!e)
		return 0;
	e->name[MODULE_NAME_SIZE] = 0;
	if (can_probe) // the untyped way where it may be taken: see wanted
		LOAD_BYTES(false, e->name, MODULE_NAME_SIZE, mod, name);
	else
		LOAD_BYTES(direct, e->name, MODULE_NAME_SIZE, mod, name);
	e->flags = 0;
	copy_caller(e);
	bpf_ringbuf_submit(e, wake_at_switch ? BPF_RB_NO_WAKEUP : BPF_RB_FORCE_WAKEUP);
	gate.wake = 1;
	return 0;
}

// The tracepoint comes when the module is in place and its init function is about
// to be called (kernel/module/main.c, load_module).
SEC("tp_btf/module_load")
int BPF_PROG(load_tp, struct module *mod)
{
	return loading(true, mod);
}

SEC("raw_tp/module_load")
int load_raw(struct bpf_raw_tracepoint_args *ctx)
{
	return loading(false, (struct module *)ctx->args[0]);
}

#endif
