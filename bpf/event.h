// SPDX-License-Identifier: GPL-2.0-only OR MIT
//
// What the kernel side tells the Go side: one header, a kind of record each.
// Only fixed-width integers and byte arrays, so that the Go bindings are exact.

#ifndef MODTRACE_EVENT_H
#define MODTRACE_EVENT_H

#include <linux/types.h>

#define COMM_LEN 16
#define NAME_LEN 64 // MODULE_NAME_LEN and the system call's own limit, rounded up
#define ANCESTORS 2 // the Go side finds those above; near ones may be gone by then
#define CMDLINE_LEN 256
#define EXECFN_LEN 128
#define STACK_DEPTH 64
#define WAKER_DEPTH 24
#define DETAIL_LEN 32

enum kind {
	KIND_BEGIN = 1, // delete_module was entered
	KIND_DEPENDENT, // a module that uses the one to be unloaded; only on refusal
	KIND_REFERENCE, // the unloading task took or dropped a reference
	KIND_END,	// delete_module returned, or its task died
	KIND_WAIT,	// the unloading task left the CPU
	KIND_WAKING,	// somebody made it go on
	KIND_SAMPLE,	// the unloading task was found running
	KIND_DEVICE,	// the unloading task detached a device from its driver
	KIND_LOG,	// the kernel logged something meanwhile
	KIND_WAITER,	// another task waited for a lock that the unloading task held
	KIND_LOAD,	// a module was loaded, by whomever
	KIND_NAME,	// only in recordings: the name that an address had
	KIND_STALL,	// only in recordings: an unload that was found hanging
	KIND_LOOK,	// a program looked whether a module is in use
	KINDS,
};

// The boundaries of the phases, in the kernel's order: a phase begins at its
// boundary, AT_END is where the last one ends.
enum boundary {
	AT_ENTER,
	AT_CHECK,
	AT_EXIT,
	AT_NOTIFY,
	AT_LIVEPATCH,
	AT_FTRACE,
	AT_ASYNC,
	AT_FREE_SYSFS,
	AT_FREE_ARCH,
	AT_FREE_DEPS,
	AT_FREE_PARAMS,
	AT_FREE_UNLINK,
	AT_FREE_MEMORY,
	AT_RETURN,
	AT_END,
	BOUNDARIES,
};

// An unload is known by its task and the time it began.
struct header {
	__u64 begin; // CLOCK_MONOTONIC, ns
	__u32 tid;
	__u32 kind;
};

struct ancestor {
	__u32 pid;
	__u8 comm[COMM_LEN];
};

// Who unloads a module; or who loads one, or looks at one: then name is the module's
// own, and the header's begin the time.
struct begin {
	struct header header;
	__u64 cgroup;
	__u32 flags; // as given to delete_module
	__u32 pid, uid;
	__u32 cmdline_len;
	__u32 count; // of references, where somebody looks at it; with LOOK_USERS
	__u8 comm[COMM_LEN];
	__u8 name[NAME_LEN];		     // as given to delete_module; empty if unreadable
	__u8 execfn[EXECFN_LEN];	     // the path that was executed, NUL terminated
	__u8 cmdline[CMDLINE_LEN];	     // arguments separated by NUL
	struct ancestor ancestor[ANCESTORS]; // up to the one that is 0
};

// Other modules are among those who hold the references.
#define LOOK_USERS (1U << 31)

struct dependent {
	struct header header;
	__u8 name[NAME_LEN];
};

struct reference {
	struct header header;
	__u64 time;
	__u64 site;	// the address after the call
	__s32 count;	// the module's own count after it
	__u32 boundary; // the phase it fell in
	__u32 put;	// 0 get, 1 put
	__u32 pad;
	__u8 name[NAME_LEN];
};

// Whom a task is about to wait for, as the function that waits was told.
enum blocker_kind {
	BLOCKER_NONE,
	BLOCKER_LOCK,	   // the owner of a mutex or rw_semaphore
	BLOCKER_WORK,	   // a work item
	BLOCKER_WORKQUEUE, // all of a workqueue
	BLOCKER_KTHREAD,   // a kernel thread to stop
	BLOCKER_ASYNC,	   // asynchronous calls
	BLOCKERS,
};

struct blocker {
	__u64 function; // of the work item, or the oldest asynchronous call
	__u64 object;	// the address of the work item or lock, never shown
	__u32 kind;
	__u32 pid; // or how many asynchronous calls are pending
	__u8 comm[COMM_LEN];
	__u8 detail[DETAIL_LEN]; // the name of the workqueue, or the next calls' functions
};

// A wait, as it begins: what is sent while the task is off the CPU costs it
// nothing. When it ended, the next one tells, or the end of the unload. As much of
// stack is sent as there is. Stacks are addresses, innermost first.
struct wait {
	struct header header;
	__u64 since;
	__u64 until;	// when the wait before this one ended
	__u32 number;	// of the unload's waits, from 1
	__u32 boundary; // the phase it fell in
	__u32 depth;
	__u32 preempted; // the task could have gone on
	struct blocker blocker;
	__u8 interface[COMM_LEN]; // the last to be unregistered, of so many; much
	__u32 interfaces;	  // else is waited for before its users are
	__u32 callbacks;	  // of RCU that were pending, in rcu_barrier
	__u64 stack[STACK_DEPTH];
};

// Who ends a wait.
struct waking {
	struct header header;
	__u32 number; // of the wait
	__u32 pid;
	__u8 comm[COMM_LEN];
	__u32 depth;
	__u32 pad;
	__u64 stack[WAKER_DEPTH];
};

// A task that had to wait for a lock whose owner was unloading, by whose header
// this goes.
struct waiter {
	struct header header;
	__u64 since, until;
	__u64 lock; // its address, never shown
	__u32 pid, tid;
	__u8 comm[COMM_LEN];
};

struct sample {
	struct header header;
	__u64 time;
	__u32 boundary;
	__u32 depth;
	__u64 stack[STACK_DEPTH];
};

// A device that was detached from its driver.
struct device_event {
	struct header header;
	__u64 since, until;
	__u8 name[DETAIL_LEN];
	__u8 driver[DETAIL_LEN];
};

#define LOG_LEN 256

// A line of the kernel's log. Its header has no unload when another task than an
// unloading one wrote it.
struct log_event {
	struct header header;
	__u64 time;
	__u32 boundary;
	__u32 length; // of text, which may be cut
	__u8 text[LOG_LEN];
};

// A callback on the module notifier chain.
struct callback {
	__u64 function; // or an address near its beginning
	__u64 since;	// and AFTER_UNSEEN
};

#define CALLBACKS 32

// The callback before this one on the chain was not seen.
#define AFTER_UNSEEN (1ULL << 63)

// What an unloading task has come to. It lives in a map while the unload is in
// flight, where the Go side can read it, and is sent at the end, with as many
// callbacks as there are.
struct end {
	struct header header;
	__u64 at[BOUNDARIES];	   // when each boundary was passed, 0: not seen
	__u64 off_cpu[BOUNDARIES]; // ns off the CPU in the phase that begins there
	__u64 last;		   // the time of the last stamp
	__u64 off_since;	   // since when it is off the CPU now, or 0
	__u64 until;		   // when its last wait ended
	__u64 sampled;		   // the time of the last sample
	__u64 size;		   // of the module's memory, in bytes
	__u64 text;		   // the address of its code, never shown
	__u64 module;		   // the address of its struct module, never shown
	__u64 taints;
	__s64 result;
	__u32 flags; // as given to delete_module
	__u32 stage; // the last boundary passed
	__u32 references;
	__u32 waits;
	__u32 samples;
	__u32 lost; // events of this unload that found no room
	__s32 refcnt;
	__u32 state; // the module's, when the kernel looked it up
	__u8 has_init, has_exit, has_users, sig_ok;
	__u8 no_capability; // at a refusal before the look-up: CAP_SYS_MODULE was lacking
	__u8 died;	    // the task ended inside delete_module
	__u8 ended;	    // its end is being noted: what the task waits for now is not its
	__u8 has_drivers;   // it registered drivers that sysfs knows
	__u32 text_size;
	__u32 callbacks;     // that were called, which may be more than are kept
	__u32 position;	     // on the chain, behind the last that was called
	__u16 walked;	     // the chain was walked since the unload began
	__u8 unseen;	     // callbacks that were not seen, besides those without a probe
	__u8 behind;	     // callbacks on the chain behind the last that was seen
	__u8 name[NAME_LEN]; // the module's own
	struct callback callback[CALLBACKS];
};

#endif
