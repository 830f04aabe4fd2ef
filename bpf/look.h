// SPDX-License-Identifier: GPL-2.0-only OR MIT
//
// Who looks whether a module is in use before unloading it: rmmod and modprobe -r read
// its state and its count in sysfs, and do not ask the kernel to unload it when that is
// not 0. All that the kernel sees of such a refusal is that they read.

#ifndef MODTRACE_LOOK_H
#define MODTRACE_LOOK_H

#include "unload.h"

// removes says whether a program by that name may be unloading modules.
static __always_inline bool removes(const __u64 *comm)
{
	static const char rmmod[8] = "rmmod", modprobe[8] = "modprobe";

	return comm[0] == *(const __u64 *)rmmod ||
	       (comm[0] == *(const __u64 *)modprobe && !(comm[1] & 0xff));
}

static __always_inline int look(bool direct, struct module *mod)
{
	__u64 comm[COMM_LEN / sizeof(__u64)];
	struct begin *e;

	bpf_get_current_comm(comm, sizeof(comm));
	if (!armed || !removes(comm) || !wanted())
		return 0;
	e = RESERVE(begin, KIND_LOOK, bpf_ktime_get_ns(), bpf_get_current_pid_tgid());
	if (!e)
		return 0;
	e->name[MODULE_NAME_SIZE] = 0;
	LOAD_BYTES(direct, e->name, MODULE_NAME_SIZE, mod, name);
	e->count = LOAD(direct, mod, refcnt.counter) - 1; // the module's own
	if (has_users(direct, mod))
		e->count |= LOOK_USERS;
	e->flags = 0;
	copy_caller(e);
	bpf_ringbuf_submit(e, wake_at_switch ? BPF_RB_NO_WAKEUP : BPF_RB_FORCE_WAKEUP);
	gate.wake = 1;
	return 0;
}

// Its state is what they read first (kernel/module/main.c; kernel/module.c before
// 5.17).
SEC("fentry/show_initstate")
int BPF_PROG(look_fentry, void *attribute, struct module_kobject *mk)
{
	return look(true, mk->mod);
}

SEC("kprobe/show_initstate")
int look_kprobe(struct pt_regs *ctx)
{
	struct module_kobject *mk = (struct module_kobject *)PT_REGS_PARM2(ctx);

	return look(false, LOAD(false, mk, mod));
}

#endif
