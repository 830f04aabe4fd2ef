// SPDX-License-Identifier: GPL-2.0-only OR MIT
//
// State shared by all programs: the unloads in flight, the way out to the Go
// side, the counters of what got lost on it, and how fields are read.

#ifndef MODTRACE_STATE_H
#define MODTRACE_STATE_H

#include "kernel.h"
#include "event.h"

// Fixed before loading.

// Whether bpf_probe_read_kernel may be called; lockdown=confidentiality
// forbids it, and the verifier then drops the branches that would.
volatile const bool can_probe = true;
// Report only callers below this process; 0 for everybody.
volatile const __u32 root_pid = 0;

// Changed while running.

// Programs do nothing until this is set, after the last one is attached.
volatile bool armed;
// The number of unloads in flight: what every other hook looks at first.
volatile __u32 in_flight;
// For a boundary whose function is also called elsewhere in an unload: the
// last attached boundary before it, which must have been passed.
volatile __u32 after[BOUNDARIES];

// Events made and events that found no room, by kind.
__u64 produced[KINDS];
__u64 lost[KINDS];

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32); // thread id
	__type(value, struct end);
} unloads SEC(".maps");

static const struct end no_unload;

// The events' types are kept in the object for the Go bindings.
const struct begin *unused_begin __attribute__((unused));
const struct dependent *unused_dependent __attribute__((unused));
const struct reference *unused_reference __attribute__((unused));
const struct end *unused_end __attribute__((unused));
const enum kind *unused_kind __attribute__((unused));
const enum boundary *unused_boundary __attribute__((unused));

// LOAD reads a field: directly where the verifier knows the pointer's type
// (fentry, fexit, tp_btf), by a helper where it is a mere number (kprobes).
// direct is a constant, so that one of the two remains.
#define LOAD(direct, pointer, field)                                                               \
	({                                                                                         \
		__typeof__((pointer)->field) value_ = 0;                                           \
		if (direct)                                                                        \
			value_ = (pointer)->field;                                                 \
		else                                                                               \
			bpf_core_read(&value_, sizeof(value_), &(pointer)->field);                 \
		value_;                                                                            \
	})

// LOAD_BYTES copies size bytes, a multiple of eight, of an array field.
#define LOAD_BYTES(direct, to, size, pointer, field)                                               \
	load_bytes(direct, to, size, __builtin_preserve_access_index(&(pointer)->field))

static __always_inline void load_bytes(bool direct, void *to, unsigned int size, const void *from)
{
	if (!direct) {
		bpf_probe_read_kernel(to, size, from);
		return;
	}
	for (unsigned int i = 0; i < size / sizeof(__u64); i++)
		((__u64 *)to)[i] = ((const __u64 *)from)[i];
}

// MODULE_NAME_SIZE is the size of struct module's name on 64-bit machines.
#define MODULE_NAME_SIZE 56

// current_task_typed says that the kernel hands out the current task with its
// type, so that its fields can be read directly (5.11).
static __always_inline bool current_task_typed(void)
{
	return bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_get_current_task_btf);
}

// current_unload gives the unload that the current task is in, or NULL.
static __always_inline struct end *current_unload(void)
{
	__u32 tid;

	if (!in_flight)
		return NULL;
	tid = bpf_get_current_pid_tgid();
	return bpf_map_lookup_elem(&unloads, &tid);
}

static __always_inline void count_lost(__u32 kind)
{
	__sync_fetch_and_add(&lost[kind], 1);
}

// reserve makes room for an event of the given kind. The caller must submit.
#define RESERVE(type, kind_, begin_, tid_)                                                         \
	({                                                                                         \
		struct type *event_ = bpf_ringbuf_reserve(&events, sizeof(struct type), 0);        \
		__sync_fetch_and_add(&produced[kind_], 1);                                         \
		if (event_) {                                                                      \
			event_->header.begin = (begin_);                                           \
			event_->header.tid = (tid_);                                               \
			event_->header.kind = (kind_);                                             \
		} else {                                                                           \
			count_lost(kind_);                                                         \
		}                                                                                  \
		event_;                                                                            \
	})

#endif
