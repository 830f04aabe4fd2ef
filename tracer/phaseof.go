package tracer

import (
	"strings"

	"github.com/modtrace/modtrace/cause"
	"github.com/modtrace/modtrace/unload"
)

// standing is what is known of an unload besides its stack.
type standing struct {
	// state is the module's by /sys/module, "" when it is not there: not any more,
	// from free.arch on.
	state string
	// interruptible says that the task sleeps so that signals wake it.
	interruptible bool
}

// step is a function that is called from delete_module, or from free_module, and
// the phase that the task is then in.
type step struct {
	phase     unload.PhaseName
	functions []string // as of on
}

// steps are what delete_module calls (kernel/module/main.c).
func steps() []step {
	return []step{
		{unload.Enter, []string{"mutex_lock_interruptible*", "__mutex_lock_interruptible*"}},
		{unload.Enter, []string{"strncpy_from_user*", "audit_*", "__audit_*", "capable", "ns_capable*"}},
		{unload.Notify, []string{"blocking_notifier_call_chain", "notifier_call_chain"}},
		{unload.Livepatch, []string{"klp_module_going", "klp_cleanup_module_*"}},
		{unload.Ftrace, []string{"ftrace_release_mod"}},
		{unload.Async, []string{"async_synchronize_full*", "async_synchronize_cookie*"}},
	}
}

// freeing are what free_module calls.
func freeing() []step {
	return []step{
		{unload.FreeSysfs, []string{"mod_sysfs_teardown", "mod_sysfs_fini", "module_remove_*", "codetag_unload_module", "kobject_*", "sysfs_*", "kernfs_*"}},
		{unload.FreeArch, []string{"module_arch_cleanup"}},
		{unload.FreeDeps, []string{"module_unload_free"}},
		{unload.FreeParams, []string{"destroy_params", "module_destroy_params", "free_module_elf"}},
		{unload.FreeUnlink, []string{"synchronize_rcu*", "__wait_rcu_gp", "module_bug_cleanup", "mod_tree_remove", "try_add_tainted_module"}},
		{unload.FreeMemory, []string{"free_mod_mem", "module_memfree", "execmem_free", "vfree*", "free_percpu", "percpu_modfree", "lockdep_*", "module_arch_freeing_init"}},
	}
}

// phaseOf is the phase that an unloading task is in by its stack, innermost frame
// first, "" when that cannot be told. What delete_module itself calls decides. It
// says nothing where it is the exit function, which is left by a jump when it
// ends in a call, and then is not on the stack while that lasts.
func phaseOf(stack []string, s standing) unload.PhaseName {
	stack = withinCall(stack)
	if len(stack) == 0 || !isDelete(stack[len(stack)-1]) {
		return ""
	}
	called := stack[:len(stack)-1]
	if len(called) == 0 {
		return s.unnamed()
	}
	outermost := called[len(called)-1]
	if on("free_module")(outermost) {
		return freePhase(called[:len(called)-1], s)
	}
	for _, step := range steps() {
		if on(step.functions...)(outermost) {
			return step.phase
		}
	}
	if mutex(outermost) && s.interruptible {
		return unload.Enter // the exit function would hardly end in that
	}
	return s.unnamed()
}

// freePhase is the one within free_module. Where its steps cannot be told apart, as
// when it waits for module_mutex, which it takes twice, it is the earliest.
func freePhase(called []string, s standing) unload.PhaseName {
	if len(called) > 0 {
		for _, step := range freeing() {
			if on(step.functions...)(called[len(called)-1]) {
				return step.phase
			}
		}
	}
	if s.state != "" {
		return unload.FreeSysfs
	}
	return unload.FreeArch
}

func mutex(frame string) bool { return strings.Contains(cause.Function(frame), "mutex_lock") }

// unnamed is the phase of a task in whose stack the next function is not one of
// the kernel's own steps.
func (s standing) unnamed() unload.PhaseName {
	switch s.state {
	case going:
		return unload.Exit
	case "":
		return ""
	}
	return unload.Enter
}
