// SPDX-License-Identifier: GPL-2.0-only OR MIT
//
// The names of kernel addresses, from the kernel itself: /proc/kallsyms takes a
// tenth of a second to read, and a module's names are gone by the time its unload
// has ended. The reader runs this program as stacks come in.

#ifndef MODTRACE_SYMBOL_H
#define MODTRACE_SYMBOL_H

#include "kernel.h"

#define ASKED 16
#define SYMBOL_LEN 160 // KSYM_NAME_LEN is up to 512; what is longer is cut

struct symbol {
	__u64 address; // of an instruction, or the one after a call
	char name[SYMBOL_LEN];
};

struct symbol asked[ASKED];

SEC("raw_tp")
int symbols(void *ctx)
{
	static const char format[] = "%pB";

	for (int i = 0; i < ASKED; i++)
		if (asked[i].address)
			bpf_snprintf(asked[i].name, SYMBOL_LEN, format, &asked[i].address,
				     sizeof(__u64));
	return 0;
}

#endif
