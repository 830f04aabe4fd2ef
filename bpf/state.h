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
// The reader is woken when so many bytes wait for it.
volatile const __u32 wake_at_bytes = 256 * 1024;
// Report only callers below this process; 0 for everybody.
volatile const __u32 root_pid = 0;

// Changed while running.

// Programs do nothing until this is set, after the last one is attached.
volatile bool armed;
// What the hooks that fire outside unloads look at first. The switch of tasks,
// which is the one that fires most, looks at both by one load.
volatile struct gates {
	__u32 in_flight; // the number of unloads
	__u32 wake;	 // the reader is to be woken, at the next switch of tasks
} gate __attribute__((aligned(8)));

#define GATE_IS_SHUT() (*(volatile __u64 *)&gate == 0)

// For a boundary whose function is also called elsewhere in an unload: the
// last attached boundary before it, which must have been passed.
volatile __u32 after[BOUNDARIES];

// Whether a switch of tasks wakes the reader. That is soon, and costs the unload
// nothing; without that hook the end of an unload wakes it.
volatile bool wake_at_switch;

// The address of the module notifier chain, once it was looked up or called.
__u64 module_chain;

// That of the list of pending asynchronous calls, if it could be looked up, and
// those of what tells how many RCU callbacks there are.
__u64 async_pending, rcu_barrier_at, rcu_data_at, per_cpu_offset_at;

// Events made and events that found no room, by kind.
__u64 produced[KINDS];
__u64 lost[KINDS];

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1024 * 1024);
} events SEC(".maps");

// The unloads in flight, each in a slot that its thread id leads to. A hash map
// would cost each boundary twice as much.
#define SLOTS 1024
#define PROBES 4

#define NESTED 4

struct slot {
	__u32 owners; // 1: taken; more only while somebody tries to
	__u32 tid;
	__u64 name; // the address of the name that delete_module was given
	__u32 told; // the unload's beginning was sent
	__u32 pad;
	struct end end;
	struct wait wait;     // the one it is in, or was in last
	struct waking waking; // who ends that
	__u32 nested;	      // devices being detached, one because of another
	struct device_event device[NESTED];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__type(value, struct slot);
} unloads SEC(".maps");

// The events' types are kept in the object for the Go bindings.
const struct begin *unused_begin __attribute__((unused));
const struct dependent *unused_dependent __attribute__((unused));
const struct reference *unused_reference __attribute__((unused));
const struct wait *unused_wait __attribute__((unused));
const struct waking *unused_waking __attribute__((unused));
const struct waiter *unused_waiter __attribute__((unused));
const struct device_event *unused_device_event __attribute__((unused));
const struct log_event *unused_log_event __attribute__((unused));
const struct sample *unused_sample __attribute__((unused));
const enum blocker_kind *unused_blocker_kind __attribute__((unused));
const struct slot *unused_slot __attribute__((unused));
const struct end *unused_end __attribute__((unused));
const struct callback *unused_callback __attribute__((unused));
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

// slot_key is the number of the slot that a thread tries at the given attempt.
// Threads that run at one time often have numbers in a row, so the second attempt
// goes far away; threads that meet at one go on to different ones.
static __always_inline __u32 slot_key(__u32 tid, __u32 attempt)
{
	return (tid + attempt * (tid / SLOTS * 2 + 1) * 331) & (SLOTS - 1);
}

// slot_at gives one slot.
static __always_inline struct slot *slot_at(__u32 key)
{
	return bpf_map_lookup_elem(&unloads, &key);
}

// Whether any thread ever had to take another slot than its first.
volatile bool crowded;

// slot_of gives the slot that a thread, not an idle one, has taken, or NULL. The
// loop stays one, since unrolled it would stand in every program.
static __always_inline struct slot *slot_of(__u32 tid)
{
	struct slot *s = slot_at(slot_key(tid, 0));

	if (s && s->tid == tid)
		return s;
	if (!crowded)
		return NULL;
#pragma clang loop unroll(disable)
	for (__u32 i = 1; i < PROBES; i++) {
		s = slot_at(slot_key(tid, i));
		if (s && s->tid == tid)
			return s;
	}
	return NULL;
}

// take_slot takes a free slot for a thread, or gives it the one it left behind
// when it died unseen. The slot is the thread's once it bears its number. It
// returns NULL when all that the thread may have are taken.
//
// Kernels before 5.12 have no atomic operation in BPF that returns something,
// so: whoever finds itself the only owner after adding itself, is the owner.
// Two may both back off, but never both stay.
static __always_inline struct slot *take_slot(__u32 tid)
{
#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < PROBES; i++) {
		struct slot *s = slot_at(slot_key(tid, i));

		if (!s)
			continue;
		if (s->owners) {
			if (s->tid == tid)
				return s;
			continue;
		}
		__sync_fetch_and_add(&s->owners, 1);
		if (*(volatile __u32 *)&s->owners == 1) {
			if (i)
				crowded = true;
			__sync_fetch_and_add(&gate.in_flight, 1);
			return s;
		}
		__sync_fetch_and_add(&s->owners, -1);
	}
	return NULL;
}

// leave_slot frees a slot, whose tid is 0 by now: the next owner is not to be
// taken for this one before it has written its own. Nothing in it is written from
// here on: it may have the next owner at once. What was written before is in
// place, because the record went into the ring in between, by an exchange.
static __always_inline void leave_slot(struct slot *s)
{
	__sync_fetch_and_add(&gate.in_flight, -1);
	__sync_fetch_and_add(&s->owners, -1);
}

// current_slot gives the slot of the unload that the current task is in, or
// NULL; current_unload its state.
static __always_inline struct slot *current_slot(void)
{
	__u32 tid;

	if (!gate.in_flight)
		return NULL;
	tid = bpf_get_current_pid_tgid();
	return tid ? slot_of(tid) : NULL;
}

static __always_inline struct end *current_unload(void)
{
	struct slot *s = current_slot();

	return s ? &s->end : NULL;
}

// stamp gives the time, in ns, for the next event of an unload. The clock that
// BPF reads may step back by some nanoseconds while the kernel adjusts it
// (kernel/time/timekeeping.c, ktime_get_mono_fast_ns); an unload's time does not.
static __always_inline __u64 stamp(struct end *u)
{
	__u64 now = bpf_ktime_get_ns();

	if (now < u->last)
		now = u->last;
	u->last = now;
	return now;
}

static __always_inline void count_lost(__u32 kind)
{
	__sync_fetch_and_add(&lost[kind], 1);
}

// make_room reserves size bytes in the ring. Where a kprobe counts as a
// non-maskable interrupt (5.10), the kernel does not wait for the ring's lock;
// trying again does.
static __always_inline void *make_room(__u64 size)
{
	void *room = bpf_ringbuf_reserve(&events, size, 0);

	if (room)
		return room;
	room = bpf_ringbuf_reserve(&events, size, 0);
	if (room)
		return room;
	return bpf_ringbuf_reserve(&events, size, 0);
}

// how_to_wake says how to submit an event that is not an unload's last: the reader
// sleeps on until there is much for it.
static __always_inline __u64 how_to_wake(void)
{
	if (bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA) < wake_at_bytes)
		return BPF_RB_NO_WAKEUP;
	if (!wake_at_switch)
		return BPF_RB_FORCE_WAKEUP;
	gate.wake = 1;
	return BPF_RB_NO_WAKEUP;
}

// RESERVE makes room for an event of the given kind. The caller must submit.
#define RESERVE(type, kind_, begin_, tid_)                                                         \
	({                                                                                         \
		struct type *event_ = make_room(sizeof(struct type));                              \
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
