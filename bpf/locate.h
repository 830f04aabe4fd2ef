// SPDX-License-Identifier: GPL-2.0-only OR MIT
//
// Where variables of the kernel's are that have no type and that no function is
// given.

#ifndef MODTRACE_LOCATE_H
#define MODTRACE_LOCATE_H

#include "state.h"

// locate looks them up. Since 5.16.
SEC("syscall")
int locate(void *ctx)
{
	static const char chain[] = "module_notify_list", pending[] = "async_global_pending";

	bpf_kallsyms_lookup_name(chain, sizeof(chain), 0, &module_chain);
	bpf_kallsyms_lookup_name(pending, sizeof(pending), 0, &async_pending);
	return 0;
}

#endif
