package tracer

import (
	"testing"

	"github.com/modtrace/modtrace/unload"
)

// TestPhaseOf has what is above delete_module on the stack of a task that unloads.
func TestPhaseOf(t *testing.T) {
	live, leaving, gone := standing{state: "live"}, standing{state: going}, standing{}
	sleep := []string{"schedule+0x27", "schedule_timeout+0x12f", "wait_for_completion+0x8a"}
	for _, c := range []struct {
		name   string
		called []string
		standing
		want unload.PhaseName
	}{
		{"name from a page that is not there", []string{"strncpy_from_user+0x1"}, live, unload.Enter},
		{"audit", []string{"audit_log_start+0x1", "__audit_log_kern_module+0x4"}, live, unload.Enter},
		{"module_mutex", []string{"schedule+0x1", "__mutex_lock.constprop.0+0x41b"}, live, unload.Enter},
		{"module_mutex on arm64", []string{"__mutex_lock.constprop.0+0x3f0", "__mutex_lock_interruptible_slowpath+0x1c", "mutex_lock_interruptible+0x7c"}, leaving, unload.Enter},
		{"module_mutex, of one that is going already", []string{"__mutex_lock.constprop.0+0x41b"}, standing{going, true}, unload.Enter},
		{"module_mutex by /proc", nil, live, unload.Enter},
		{"module's function", append(sleep[:3:3], "hang_in_work+0x8 [hang]", "hang_exit+0x1c [hang]"), leaving, unload.Exit},
		{"left by a jump", sleep, leaving, unload.Exit},
		{"left by a jump for a mutex", []string{"__mutex_lock.constprop.0+0x41b"}, leaving, unload.Exit},
		{"left by a jump, by /proc", nil, leaving, unload.Exit},
		{"left by a jump for the kernel's", []string{"netdev_run_todo+0x333", "rtnl_link_unregister+0x1"}, leaving, unload.Exit},
		{"module's notifier call", []string{"blocking_notifier_call_chain+0x1", "some_exit+0x1 [some]"}, leaving, unload.Exit},
		{"notifier", []string{"msleep+0x2d", "slow_callback+0x1 [notifier]", "notifier_call_chain+0x5a", "blocking_notifier_call_chain+0x3e"}, leaving, unload.Notify},
		{"notifiers' semaphore", []string{"rwsem_down_read_slowpath+0x1", "down_read+0x1", "blocking_notifier_call_chain+0x2"}, leaving, unload.Notify},
		{"watched notifier", []string{"msleep+0x2d", "blocking_notifier_call_chain+0x3e", "bpf_trampoline_6442512345+0x3f"}, leaving, unload.Notify},
		{"livepatch", []string{"__mutex_lock.constprop.0+0x1", "klp_module_going+0x1"}, leaving, unload.Livepatch},
		{"ftrace", []string{"synchronize_rcu+0x1", "ftrace_release_mod+0x1"}, leaving, unload.Ftrace},
		{"async", []string{"schedule+0x1", "async_synchronize_cookie_domain+0x1", "async_synchronize_full+0x1"}, leaving, unload.Async},
		{"async, left by a jump", []string{"schedule+0x1", "async_synchronize_cookie_domain+0x1"}, leaving, unload.Async},
		{"sysfs", []string{"kernfs_drain+0x1", "__kernfs_remove+0x1", "mod_sysfs_teardown+0x1", "free_module+0x1"}, leaving, unload.FreeSysfs},
		{"sysfs, inlined", []string{"wait_for_completion+0x1", "kobject_put+0x1", "free_module+0x1"}, leaving, unload.FreeSysfs},
		{"unformed, or off the list", []string{"__mutex_lock.constprop.0+0x1", "free_module+0x41"}, gone, unload.FreeArch},
		{"architecture", []string{"module_arch_cleanup+0x1", "free_module+0x1"}, gone, unload.FreeArch},
		{"dependents", []string{"module_unload_free+0x1", "free_module+0x1"}, gone, unload.FreeDeps},
		{"parameters", []string{"module_destroy_params+0x1", "free_module+0x1"}, gone, unload.FreeParams},
		{"grace period", append(sleep[:3:3], "__wait_rcu_gp+0x1", "synchronize_rcu_normal.part.0+0x1", "synchronize_rcu_normal+0x1", "free_module+0x1"), gone, unload.FreeUnlink},
		{"grace period, 7.x", []string{"__wait_for_common+0x97", "synchronize_rcu_normal+0xe8", "free_module+0xc6"}, gone, unload.FreeUnlink},
		{"memory", []string{"vfree+0x1", "execmem_free+0x1", "free_mod_mem.constprop.0+0x1", "free_module+0x1"}, gone, unload.FreeMemory},
		{"somewhere in free_module", []string{"free_module+0x1"}, gone, unload.FreeArch},
		{"at the start of free_module", []string{"free_module+0x1"}, leaving, unload.FreeSysfs},
		{"nothing known", nil, gone, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, call := range []string{"__do_sys_delete_module+0x1b8/0x330", "__arm64_sys_delete_module+0x1a4", "__x64_sys_delete_module"} {
				stack := append(append([]string{}, c.called...), call, "do_syscall_64+0x87", "entry_SYSCALL_64_after_hwframe+0x76")
				if got := phaseOf(stack, c.standing); got != c.want {
					t.Errorf("phaseOf = %q, want %q: %q", got, c.want, stack)
				}
			}
		})
	}
	for _, stack := range [][]string{nil, {"msleep+0x1", "do_syscall_64+0x1"}} {
		if got := phaseOf(stack, leaving); got != "" {
			t.Errorf("phaseOf(%q) = %q", stack, got)
		}
	}
}
