// SPDX-License-Identifier: GPL-2.0-only OR MIT
//
// The way of an unload: delete_module from its entry to its return, and every
// boundary in between (kernel/module/main.c). Each boundary exists as a
// trampoline program (fentry, fexit) and as a kprobe; the Go side loads one.

#ifndef MODTRACE_UNLOAD_H
#define MODTRACE_UNLOAD_H

#include "blocker.h"
#include "caller.h"

#define EPERM 1
#define CAP_SYS_MODULE 16
#define MAX_DEPTH 32
#define MAX_DEPENDENTS 16

#if defined(__TARGET_ARCH_x86)
#define DELETE_MODULE "__x64_sys_delete_module"
#define FIRST_ARGUMENT di
#define SECOND_ARGUMENT si
#else
#define DELETE_MODULE "__arm64_sys_delete_module"
#define FIRST_ARGUMENT regs[0]
#define SECOND_ARGUMENT regs[1]
#endif

// descends says whether task is below the process root_pid.
static __always_inline int descends(bool direct, struct task_struct *task)
{
	for (int i = 0; i < MAX_DEPTH; i++) {
		__u32 pid;

		task = LOAD(direct, task, real_parent);
		pid = LOAD(direct, task, tgid);
		if (pid == root_pid)
			return 1;
		if (pid <= 1)
			break;
	}
	return 0;
}

// wanted says whether the current task's unloads are to be reported.
//
// It is a global function, which is verified once and by itself: inlined, every
// way out of its loop would be followed through all that comes behind it. And it
// takes the untyped way where it may, because from 6.2 on the verifier goes
// through all types of the kernel for each step from one typed task to the next
// (btf_nested_type_is_trusted): a third of a second for this loop.
__noinline int wanted(void)
{
	if (!root_pid)
		return 1;
	if (can_probe)
		return descends(false, (void *)bpf_get_current_task());
	if (current_task_typed())
		return descends(true, bpf_get_current_task_btf());
	return 1; // without a way to look, too many are better than none
}

// remember opens the state of an unload. It gives NULL when too many are in
// flight. A task that is preempted meanwhile is not in an unload yet.
static __always_inline struct slot *remember(__u64 begin, __u32 tid, __u32 flags)
{
	struct slot *s = take_slot(tid);

	if (!s) {
		__sync_fetch_and_add(&produced[KIND_END], 1);
		count_lost(KIND_END);
		return NULL;
	}
	__builtin_memset(&s->end, 0, __builtin_offsetof(struct end, callback));
	s->end.header.begin = begin;
	s->end.header.tid = tid;
	s->end.header.kind = KIND_END;
	s->end.flags = flags;
	s->end.at[AT_ENTER] = begin;
	s->end.last = begin;
	s->name = 0;
	s->told = 0;
	s->wait.blocker.kind = BLOCKER_NONE;
	s->wait.interfaces = 0;
	s->nested = 0;
	*(volatile __u32 *)&s->tid = tid;
	return s;
}

// begin_unload notes that an unload begins, unless that was done a moment ago.
static __always_inline struct slot *begin_unload(__u64 begin, __u32 flags)
{
	struct slot *s = current_slot();

	if (s && s->end.stage == AT_ENTER)
		return s;
	return remember(begin, bpf_get_current_pid_tgid(), flags);
}

static __always_inline int enter(unsigned long name, __u32 flags)
{
	__u64 begin = bpf_ktime_get_ns();
	struct slot *s;

	if (!armed || !wanted())
		return 0;
	s = begin_unload(begin, flags);
	if (s)
		s->name = name;
	return 0;
}

// come_to notes a boundary: first that it was passed, then when. A task that is
// taken off the CPU in between has passed it then (wait.h, go_off).
static __always_inline void come_to(struct end *u, __u32 to)
{
	__u64 now;

	*(volatile __u32 *)&u->stage = to;
	now = stamp(u);
	if (!*(volatile __u64 *)&u->at[to])
		*(volatile __u64 *)&u->at[to] = now;
}

// pass notes that the current task, if it is unloading, has come to boundary
// to; never twice, never backwards, and not before it has passed from.
static __always_inline struct end *pass_after(__u32 to, __u32 from)
{
	struct end *u = current_unload();

	if (!u || u->stage >= to || u->stage < from)
		return NULL;
	come_to(u, to);
	return u;
}

static __always_inline int pass(__u32 to)
{
	pass_after(to, AT_ENTER);
	return 0;
}

// pass_with is pass_after for functions that are given the module.
static __always_inline struct end *pass_with(__u32 to, const struct module *mod)
{
	struct end *u = current_unload();

	if (!u || u->stage >= to)
		return NULL;
	if (!u->module)
		u->module = (__u64)mod; // its look-up could not be seen
	else if (u->module != (__u64)mod)
		return NULL;
	come_to(u, to);
	return u;
}

static __always_inline int pass_for(__u32 to, const struct module *mod)
{
	pass_with(to, mod);
	return 0;
}

// send_dependents sends the names of the modules that use mod. It runs under
// module_mutex, which guards that list.
static __always_inline void send_dependents(const struct end *u, const struct module *mod)
{
	const void *head = __builtin_preserve_access_index(&mod->source_list);
	const struct list_head *at = NULL;

	bpf_core_read(&at, sizeof(at), &mod->source_list.next);
	for (int i = 0; i < MAX_DEPENDENTS && at && at != head; i++) {
		const struct module_use *use =
			(void *)at - bpf_core_field_offset(struct module_use, source_list);
		struct dependent *e;
		struct module *user = NULL;

		e = RESERVE(dependent, KIND_DEPENDENT, u->header.begin, u->header.tid);
		if (e) {
			e->name[0] = 0;
			bpf_core_read(&user, sizeof(user), &use->source);
			bpf_core_read_str(e->name, MODULE_NAME_SIZE, &user->name);
			bpf_ringbuf_submit(e, BPF_RB_NO_WAKEUP);
		}
		bpf_core_read(&at, sizeof(at), &at->next);
	}
}

static __always_inline bool has_users(bool direct, struct module *mod)
{
	const void *head = __builtin_preserve_access_index(&mod->source_list);

	// The untyped way where it may be taken: see wanted.
	if (can_probe)
		return (void *)LOAD(false, mod, source_list.next) != head;
	return direct && (void *)LOAD(direct, mod, source_list.next) != head;
}

// look_up notes what the kernel is about to decide on: the state of the module
// that find_module gave it.
static __always_inline int look_up(bool direct, struct module *mod)
{
	struct end *u = pass_after(AT_EXIT, AT_ENTER);

	if (!u || !mod)
		return 0;
	u->module = (__u64)mod;
	u->state = LOAD(direct, mod, state);
	u->refcnt = LOAD(direct, mod, refcnt.counter);
	u->taints = LOAD(direct, mod, taints);
	u->has_drivers = LOAD(direct, mod, mkobj.drivers_dir) != NULL;
	u->has_init = LOAD(direct, mod, init) != NULL;
	u->has_exit = LOAD(direct, mod, exit) != NULL;
	if (bpf_core_field_exists(mod->sig_ok))
		u->sig_ok = LOAD(direct, mod, sig_ok);
	LOAD_BYTES(direct, u->name, MODULE_NAME_SIZE, mod, name);
	u->has_users = has_users(direct, mod);
	if (u->has_users && can_probe)
		send_dependents(u, mod);
	return 0;
}

static __always_inline bool lacks_capability_of(bool direct, struct task_struct *task)
{
	struct cred *cred = LOAD(direct, task, cred);
	struct user_namespace *ns = LOAD(direct, cred, user_ns);
	__u64 effective = 0;

	LOAD_BYTES(direct, &effective, sizeof(effective), cred, cap_effective);
	return !(effective & (1ULL << CAP_SYS_MODULE)) || LOAD(direct, ns, level) != 0;
}

// lacks_capability says whether capable(CAP_SYS_MODULE) fails by the caller's
// own credentials, before any security module is asked.
static __always_inline bool lacks_capability(void)
{
	if (can_probe)
		return lacks_capability_of(false, (void *)bpf_get_current_task());
	return current_task_typed() && lacks_capability_of(true, bpf_get_current_task_btf());
}

// size_of_end is how much of the record of an unload's end there is.
static __always_inline __u64 size_of_end(const struct end *u)
{
	__u32 n = u->callbacks;

	if (n > CALLBACKS)
		n = CALLBACKS;
	return __builtin_offsetof(struct end, callback) + n * sizeof(u->callback[0]);
}

// finish sends the unload's record, of which the reader is told soon.
static __always_inline void finish(struct slot *s)
{
	__u64 how = wake_at_switch ? BPF_RB_NO_WAKEUP : BPF_RB_FORCE_WAKEUP;

	s->tid = 0;
	s->end.ended = 1;
	s->end.at[AT_END] = stamp(&s->end);
	__sync_fetch_and_add(&produced[KIND_END], 1);
	if (bpf_ringbuf_output(&events, &s->end, size_of_end(&s->end), how))
		count_lost(KIND_END);
	leave_slot(s);
	gate.wake = 1;
}

static __always_inline int leave(long result)
{
	struct slot *s = current_slot();

	if (!s)
		return 0;
	tell_caller(s);
	s->end.result = result;
	if (result == -EPERM)
		s->end.no_capability = lacks_capability();
	finish(s);
	return 0;
}

SEC("fentry/" DELETE_MODULE)
int BPF_PROG(enter_fentry, struct pt_regs *regs)
{
	return enter(regs->FIRST_ARGUMENT, regs->SECOND_ARGUMENT);
}

SEC("kprobe/" DELETE_MODULE)
int enter_kprobe(struct pt_regs *ctx)
{
	struct pt_regs *regs = (struct pt_regs *)PT_REGS_PARM1(ctx);

	return enter(LOAD(false, regs, FIRST_ARGUMENT), LOAD(false, regs, SECOND_ARGUMENT));
}

// Where the registers' type is not known (5.10) and kprobes are locked, the
// flags stay unseen, and the name until the module is found.
SEC("fentry/" DELETE_MODULE)
int enter_blind_fentry(void *ctx)
{
	return enter(0, 0);
}

SEC("fexit/" DELETE_MODULE)
int BPF_PROG(end_fexit, struct pt_regs *regs, long result)
{
	return leave(result);
}

SEC("kretprobe/" DELETE_MODULE)
int end_kretprobe(struct pt_regs *ctx)
{
	return leave(PT_REGS_RC(ctx));
}

SEC("fexit/find_module")
int BPF_PROG(exit_fexit, const char *name, struct module *mod)
{
	return look_up(true, mod);
}

SEC("kretprobe/find_module")
int exit_kretprobe(struct pt_regs *ctx)
{
	return look_up(false, (struct module *)PT_REGS_RC(ctx));
}

// The chain is known by what goes down it: no other has this module's address
// for its argument.
static __always_inline int notify(__u64 chain, const struct module *mod)
{
	if (pass_with(AT_NOTIFY, mod))
		module_chain = chain;
	return 0;
}

SEC("fentry/blocking_notifier_call_chain")
int BPF_PROG(notify_fentry, void *chain, unsigned long action, struct module *mod)
{
	return action == MODULE_STATE_GOING ? notify((__u64)chain, mod) : 0;
}

SEC("kprobe/blocking_notifier_call_chain")
int notify_kprobe(struct pt_regs *ctx)
{
	if (PT_REGS_PARM2(ctx) != MODULE_STATE_GOING)
		return 0;
	return notify(PT_REGS_PARM1(ctx), (struct module *)PT_REGS_PARM3(ctx));
}

// Where there is no livepatching, ftrace_release_mod follows the notifiers.
SEC("fexit/blocking_notifier_call_chain")
int BPF_PROG(notified_fexit, void *chain, unsigned long action, struct module *mod)
{
	return action == MODULE_STATE_GOING ? pass_for(AT_FTRACE, mod) : 0;
}

SEC("kretprobe/blocking_notifier_call_chain")
int notified_kretprobe(struct pt_regs *ctx)
{
	pass_after(AT_FTRACE, AT_NOTIFY);
	return 0;
}

// BOUNDARY makes the programs of a boundary at a function's entry; ENTRY_OF
// that of one given the module as its first argument; EXIT at its return.
#define ENTRY(name, function, expression)                                                          \
	SEC("fentry/" function) int name##_fentry(void *ctx)                                       \
	{                                                                                          \
		return expression;                                                                 \
	}                                                                                          \
	SEC("kprobe/" function) int name##_kprobe(struct pt_regs *ctx)                             \
	{                                                                                          \
		return expression;                                                                 \
	}

#define ENTRY_OF(name, function, boundary)                                                         \
	SEC("fentry/" function) int BPF_PROG(name##_fentry, struct module *mod)                    \
	{                                                                                          \
		return pass_for(boundary, mod);                                                    \
	}                                                                                          \
	SEC("kprobe/" function) int name##_kprobe(struct pt_regs *ctx)                             \
	{                                                                                          \
		return pass_for(boundary, (struct module *)PT_REGS_PARM1(ctx));                    \
	}

#define RETURN(name, function, expression)                                                         \
	SEC("fexit/" function) int name##_fexit(void *ctx)                                         \
	{                                                                                          \
		return expression;                                                                 \
	}                                                                                          \
	SEC("kretprobe/" function) int name##_kretprobe(struct pt_regs *ctx)                       \
	{                                                                                          \
		return expression;                                                                 \
	}

// pass_since is pass for functions that run at other times of an unload too.
static __always_inline int pass_since(__u32 to)
{
	pass_after(to, after[to]);
	return 0;
}

static __always_inline int synchronize(void)
{
	if (!gate.in_flight)
		return 0;
	await_async();
	return pass_since(AT_ASYNC);
}

ENTRY(check, "find_module", pass(AT_CHECK))
ENTRY_OF(livepatch, "klp_module_going", AT_LIVEPATCH)
RETURN(ftrace, "klp_module_going", pass_since(AT_FTRACE))
ENTRY(async, "async_synchronize_full", synchronize())
ENTRY_OF(free_sysfs, "free_module", AT_FREE_SYSFS)
RETURN(free_arch, "mod_sysfs_teardown", pass_since(AT_FREE_ARCH))
ENTRY_OF(free_deps, "module_unload_free", AT_FREE_DEPS)
ENTRY(free_params, "module_destroy_params", pass_since(AT_FREE_PARAMS))
ENTRY(free_parameters, "destroy_params", pass_since(AT_FREE_PARAMS)) // its name in 5.10
RETURN(free_dropped, "module_unload_free", pass_since(AT_FREE_PARAMS))
ENTRY_OF(free_unlink, "mod_tree_remove", AT_FREE_UNLINK)
RETURN(free_unlinking, "destroy_params", pass_since(AT_FREE_UNLINK))
ENTRY_OF(free_memory, "module_arch_freeing_init", AT_FREE_MEMORY)
RETURN(free_waited, "synchronize_rcu", pass_since(AT_FREE_MEMORY))
RETURN(return, "free_module", pass_since(AT_RETURN))

// The tracepoint is free_module's first act, and attached in no time.
SEC("tp_btf/module_free")
int BPF_PROG(free_sysfs_tp, struct module *mod)
{
	return pass_for(AT_FREE_SYSFS, mod);
}

// A task that oopses in the module's exit function never returns from the
// system call.
static __always_inline int died(void)
{
	struct slot *s = current_slot();

	if (!s)
		return 0;
	tell_caller(s);
	s->end.died = 1;
	finish(s);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int died_tp(void *ctx)
{
	return died();
}

SEC("raw_tp/sched_process_exit")
int died_raw(void *ctx)
{
	return died();
}

#endif
