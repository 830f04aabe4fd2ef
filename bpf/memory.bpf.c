// SPDX-License-Identifier: GPL-2.0-only OR MIT
//
// Copies a piece of the kernel's memory for the reader, who knows from the kernel's
// types what lies where. It is run when the reader asks (Documentation/bpf/
// bpf_prog_run.rst), is attached to nothing, and takes no lock and no reference.

// clang-format off
//go:build ignore

#include "kernel.h"
// clang-format on

#define MOST 8192 // bytes in one go

// What was copied, and the task that asked, from which the rest can be reached.
struct copied {
	__u64 task;
	__u8 bytes[MOST];
};

struct copied copied;

// For the Go side, which takes only types that are used.
const struct copied *unused_copied __attribute__((unused));

// copy copies as many bytes as the second argument says from the address in the
// first.
SEC("raw_tp")
int copy(struct bpf_raw_tracepoint_args *ctx)
{
	__u64 size = ctx->args[1];

	copied.task = bpf_get_current_task();
	if (!size)
		return 0;
	if (size > MOST)
		return -1;
	return bpf_probe_read_kernel(copied.bytes, size, (void *)ctx->args[0]);
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
