// SPDX-License-Identifier: GPL-2.0-only OR MIT
//
// Where variables of the kernel's are that have no type and that no function is
// given.

#ifndef MODTRACE_LOCATE_H
#define MODTRACE_LOCATE_H

#include "state.h"

#define FIND(symbol, into)                                                                         \
	({                                                                                         \
		static const char name[] = symbol;                                                 \
		bpf_kallsyms_lookup_name(name, sizeof(name), 0, &into);                            \
	})

// locate looks them up. Since 5.16.
SEC("syscall")
int locate(void *ctx)
{
	FIND("module_notify_list", module_chain);
	FIND("async_global_pending", async_pending);
	FIND("rcu_barrier", rcu_barrier_at);
	FIND("rcu_data", rcu_data_at);
	FIND("__per_cpu_offset", per_cpu_offset_at);
	return 0;
}

#endif
