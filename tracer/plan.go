package tracer

import (
	"fmt"
	"runtime"

	"github.com/modtrace/modtrace/bpf"
	"github.com/modtrace/modtrace/object"
	"github.com/modtrace/modtrace/unload"
)

// noBoundary marks hooks that see something other than a phase's beginning.
const noBoundary = bpf.UnloadBoundaryBOUNDARIES

// Mechanisms lists the ways of attaching, as the plan names them.
func Mechanisms() []string {
	return []string{object.Fentry, object.Fexit, object.Kprobe, object.Kretprobe, object.TPBTF, object.RawTP}
}

// hook is something to be seen, and the ways to see it, best first.
type hook struct {
	boundary   bpf.UnloadBoundary
	phase      unload.PhaseName
	sees       string
	required   bool
	candidates []object.Candidate
	// absentWithout names a function without which the kernel does not do
	// this at all, so that nothing is missed.
	absentWithout string
}

// entry lists the ways to see a function begin, exit those to see it return.
func entry(program, function string) []object.Candidate {
	return []object.Candidate{
		{Program: program + "_fentry", Mechanism: object.Fentry, Function: function},
		{Program: program + "_kprobe", Mechanism: object.Kprobe, Function: function},
	}
}

func exit(program, function string) []object.Candidate {
	return []object.Candidate{
		{Program: program + "_fexit", Mechanism: object.Fexit, Function: function},
		{Program: program + "_kretprobe", Mechanism: object.Kretprobe, Function: function},
	}
}

func tracepoint(program, name string) []object.Candidate {
	return []object.Candidate{
		{Program: program + "_tp", Mechanism: object.TPBTF, Function: name},
		{Program: program + "_raw", Mechanism: object.RawTP, Function: name},
	}
}

// onChain attaches to the callbacks on a notifier chain.
func onChain(program, chain string) []object.Candidate {
	return []object.Candidate{{Program: program, Mechanism: object.Kprobe, Function: chain, OnChain: true}}
}

func either(ways ...[]object.Candidate) []object.Candidate {
	var all []object.Candidate
	for _, w := range ways {
		all = append(all, w...)
	}
	return all
}

// partly marks ways that do not see all where the kernel has a function: its caller
// is then copied into others.
func partly(ways []object.Candidate, notWith string) []object.Candidate {
	for i := range ways {
		ways[i].NotWith = notWith
	}
	return ways
}

// systemCall names the kernel's function behind delete_module
// (arch/*/include/asm/syscall_wrapper.h).
func systemCall() string {
	if runtime.GOARCH == "arm64" {
		return "__arm64_sys_delete_module"
	}
	return "__x64_sys_delete_module"
}

// hooks lists all that modtrace watches, in the kernel's order
// (kernel/module/main.c; kernel/module.c before 5.17).
func hooks() []hook {
	call := systemCall()
	return []hook{
		{bpf.UnloadBoundaryAT_ENTER, unload.Enter, "the system call's beginning", true,
			either(entry("enter", call), entry("enter_blind", call)[:1]), ""},
		{bpf.UnloadBoundaryAT_CHECK, unload.Check, "the look-up, once module_mutex is taken", false,
			entry("check", "find_module"), ""},
		{bpf.UnloadBoundaryAT_EXIT, unload.Exit, "the module found, its state and count; the few instructions of the decision itself count into exit", false,
			exit("exit", "find_module"), ""},
		{bpf.UnloadBoundaryAT_NOTIFY, unload.Notify, "the GOING notifiers are called", false,
			entry("notify", "blocking_notifier_call_chain"), ""},
		{bpf.UnloadBoundaryAT_LIVEPATCH, unload.Livepatch, "livepatches let go of the module", false,
			entry("livepatch", "klp_module_going"), "klp_module_going"},
		{bpf.UnloadBoundaryAT_FTRACE, unload.Ftrace, "ftrace_release_mod, by the return of what comes before it", false,
			either(exit("ftrace", "klp_module_going"), exit("notified", "blocking_notifier_call_chain")), ""},
		{bpf.UnloadBoundaryAT_ASYNC, unload.Async, "the wait for asynchronous work begins", false,
			entry("async", "async_synchronize_full"), ""},
		{bpf.UnloadBoundaryAT_FREE_SYSFS, unload.FreeSysfs, "freeing begins: the sysfs entries go", false,
			either([]object.Candidate{{Program: "free_sysfs_tp", Mechanism: object.TPBTF, Function: "module_free"}}, entry("free_sysfs", "free_module")), ""},
		{bpf.UnloadBoundaryAT_FREE_ARCH, unload.FreeArch, "the sysfs entries are gone: the architecture cleans up", false,
			exit("free_arch", "mod_sysfs_teardown"), ""},
		{bpf.UnloadBoundaryAT_FREE_DEPS, unload.FreeDeps, "references on other modules are dropped", false,
			entry("free_deps", "module_unload_free"), ""},
		{bpf.UnloadBoundaryAT_FREE_PARAMS, unload.FreeParams, "they are dropped: parameters go", false,
			either(entry("free_params", "module_destroy_params"), entry("free_parameters", "destroy_params"), exit("free_dropped", "module_unload_free")), ""},
		{bpf.UnloadBoundaryAT_FREE_UNLINK, unload.FreeUnlink, "it is taken off the module list", false,
			either(entry("free_unlink", "mod_tree_remove"), exit("free_unlinking", "destroy_params")), ""},
		{bpf.UnloadBoundaryAT_FREE_MEMORY, unload.FreeMemory, "the grace period is over: memory goes", false,
			either(entry("free_memory", "module_arch_freeing_init"), exit("free_waited", "synchronize_rcu")), ""},
		{bpf.UnloadBoundaryAT_RETURN, unload.Return, "all is freed: waiters are woken", false,
			exit("return", "free_module"), ""},
		{bpf.UnloadBoundaryAT_END, "", "the system call's end and result", true,
			exit("end", call), ""},
		{noBoundary, "", "time on and off the CPU", false,
			tracepoint("switch", "sched_switch"), ""},
		{noBoundary, "", "who ends a wait", false,
			tracepoint("waking", "sched_waking"), ""},
		{noBoundary, "", "where the unloading task runs", false,
			tracepoint("sample", "hrtimer_expire_entry"), ""},
		{noBoundary, "", "who has the lock that a task waits for", false,
			tracepoint("lock", "contention_begin"), ""},
		{noBoundary, "", "a task has the lock that it waited for", false,
			tracepoint("locked", "contention_end"), ""},
		{noBoundary, "", "the work item that is waited for", false,
			either(entry("flush", "__flush_work"), entry("flush_inlined", "flush_work")), ""},
		{noBoundary, "", "the workqueue that is waited for", false,
			either(entry("drain", "__flush_workqueue"), entry("drain_old", "flush_workqueue")), ""},
		{noBoundary, "", "the kernel thread that is told to stop", false,
			entry("stop", "kthread_stop"), ""},
		{noBoundary, "", "the network interface whose users are waited for", false,
			entry("netdev", "unregister_netdevice_queue"), ""},
		{noBoundary, "", "a device begins to be detached", false,
			either(partly(entry("detach", "device_release_driver_internal"), "__device_release_driver"), entry("detach", "__device_release_driver")), ""},
		{noBoundary, "", "it is detached", false,
			either(partly(exit("detached", "device_release_driver_internal"), "__device_release_driver"), exit("detached", "__device_release_driver")), ""},
		{noBoundary, "", "the callbacks on the notifier chain, one by one", false,
			either(tracepoint("callback", "notifier_run"), onChain("callback_kprobe", "module_notify_list")), ""},
		{noBoundary, "", "who loads a module", false,
			tracepoint("load", "module_load"), ""},
		{noBoundary, "", "who looks whether a module is in use", false,
			entry("look", "show_initstate"), ""},
		{noBoundary, "", "what the kernel logs meanwhile", false,
			tracepoint("log", "console"), ""},
		{noBoundary, "", "references taken by the unloading task", false,
			tracepoint("get", "module_get"), ""},
		{noBoundary, "", "references dropped by the unloading task", false,
			tracepoint("put", "module_put"), ""},
		{noBoundary, "", "a task dying inside the system call", false,
			tracepoint("died", "sched_process_exit"), ""},
	}
}

// doubles lists programs of which one runs beside the trampoline's at a boundary,
// where the kernel may skip that: see loader.double.
func doubles(boundary bpf.UnloadBoundary) []object.Candidate {
	call := systemCall()
	switch boundary {
	case bpf.UnloadBoundaryAT_ENTER: // a kprobe is not preempted
		return append(entry("enter", call)[1:], entry("enter", call)[0])
	case bpf.UnloadBoundaryAT_END:
		return exit("end", call)[:1]
	}
	return nil
}

// Plan is what becomes of every hook on this machine, in the kernel's order.
type Plan []unload.Hook

// planned is the plan's entry for h before anything was tried.
func planned(h hook) unload.Hook {
	first := h.candidates[0]
	p := unload.Hook{
		Phase:     h.phase,
		Sees:      h.sees,
		Function:  first.Function,
		Mechanism: first.Mechanism,
		Required:  h.required,
	}
	if len(h.candidates) > 1 {
		second := h.candidates[1]
		p.Fallback = second.Mechanism + " " + second.Function
	}
	return p
}

// settle notes in p that candidate number i was taken, or none if i is behind
// the last; reason says why not the ones before it.
func settle(p *unload.Hook, h hook, i int, reason string) {
	p.Reason = reason
	if i == len(h.candidates) {
		p.Mechanism, p.Fallback, p.Status = "", "", unload.StatusMissing
		return
	}
	c := h.candidates[i]
	p.Function, p.Mechanism, p.Status = c.Function, c.Mechanism, unload.StatusOK
	p.Fallback = ""
	if i > 0 {
		p.Status = unload.StatusFallback
	}
	if i+1 < len(h.candidates) {
		next := h.candidates[i+1]
		p.Fallback = next.Mechanism + " " + next.Function
	}
}

// settleAbsent notes that the kernel does not do what h watches.
func settleAbsent(p *unload.Hook, h hook) {
	p.Mechanism, p.Fallback, p.Status = "", "", unload.StatusAbsent
	p.Reason = fmt.Sprintf("this kernel is built without %s", h.absentWithout)
}
