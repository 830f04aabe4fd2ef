// SPDX-License-Identifier: GPL-2.0-only OR MIT
//
// What an unload does to others: the devices that it detaches, and what the kernel
// logs meanwhile.

#ifndef MODTRACE_EFFECT_H
#define MODTRACE_EFFECT_H

#include "caller.h"

// detach notes that a device begins to be detached; detaching one may detach
// others, which end first.
static __always_inline int detach(bool direct, struct device *dev)
{
	struct slot *s = current_slot();
	struct device_driver *driver;
	struct device_event *e;
	__u32 i;

	if (!s || !can_probe)
		return 0;
	i = s->nested++;
	if (i >= NESTED)
		return 0;
	e = &s->device[i];
	e->since = 0;
	driver = LOAD(direct, dev, driver);
	if (!driver)
		return 0; // it has none: nothing is detached
	bpf_probe_read_kernel_str(e->name, DETAIL_LEN, LOAD(direct, dev, kobj.name));
	bpf_probe_read_kernel_str(e->driver, DETAIL_LEN, LOAD(false, driver, name));
	e->since = stamp(&s->end);
	return 0;
}

static __always_inline int detached(void)
{
	struct slot *s = current_slot();
	struct device_event *e;
	__u32 i;

	if (!s || !s->nested)
		return 0;
	i = --s->nested;
	if (i >= NESTED)
		return 0;
	e = &s->device[i];
	if (!e->since)
		return 0;
	e->header = s->end.header;
	e->header.kind = KIND_DEVICE;
	e->until = stamp(&s->end);
	__sync_fetch_and_add(&produced[KIND_DEVICE], 1);
	if (bpf_ringbuf_output(&events, e, sizeof(*e), how_to_wake())) {
		s->end.lost++;
		count_lost(KIND_DEVICE);
	}
	return 0;
}

SEC("fentry/device_release_driver_internal")
int BPF_PROG(detach_fentry, struct device *dev)
{
	return detach(true, dev);
}

SEC("kprobe/device_release_driver_internal")
int detach_kprobe(struct pt_regs *ctx)
{
	return detach(false, (struct device *)PT_REGS_PARM1(ctx));
}

SEC("fexit/device_release_driver_internal")
int detached_fexit(void *ctx)
{
	return detached();
}

SEC("kretprobe/device_release_driver_internal")
int detached_kretprobe(struct pt_regs *ctx)
{
	return detached();
}

static __noinline int send_log(const char *text, __u64 length)
{
	struct slot *s = current_slot();
	struct end *u = s ? &s->end : NULL;
	struct log_event *e;

	// A task that dies has neither its memory nor, maybe, left the CPU before; but
	// the kernel says why it dies.
	if (s)
		tell_caller(s);
	e = RESERVE(log_event, KIND_LOG, u ? u->header.begin : 0, u ? u->header.tid : 0);
	if (!e)
		return 0;
	e->time = bpf_ktime_get_ns();
	e->boundary = u ? u->stage : 0;
	if (length > LOG_LEN)
		length = LOG_LEN;
	e->length = length;
	if (bpf_probe_read_kernel(e->text, length, text))
		e->length = 0;
	bpf_ringbuf_submit(e, how_to_wake());
	return 0;
}

static __always_inline int logged(const char *text, __u64 length)
{
	return gate.in_flight && can_probe ? send_log(text, length) : 0;
}

// The tracepoint is that of every line that is stored (kernel/printk/printk.c).
SEC("tp_btf/console")
int BPF_PROG(log_tp, const char *text, unsigned long length)
{
	return logged(text, length);
}

SEC("raw_tp/console")
int log_raw(struct bpf_raw_tracepoint_args *ctx)
{
	return logged((const char *)ctx->args[0], ctx->args[1]);
}

#endif
