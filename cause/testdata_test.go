package cause

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/modtrace/modtrace/unload"
)

// sites is where the waits in testdata are called from; a case with several is
// so because compilers inline, and leave a function by a jump to its last call,
// as they like. Without a name, the site is the module's function or, where
// that is not on the stack, the system call.
func sites() map[string][]string {
	return map[string][]string{
		"driver-msleep":   {"slow_detach", "release_nodes"},
		"dummy-barrier":   {"netdev_run_todo"},
		"dummy-expedited": {"dev_deactivate_many", "unregister_netdevice_many", "unregister_netdevice_many_notify", "rollback_registered_many"},
		"free-rcu":        {"free_module"},
		"ftrace-rcu":      {"ftrace_release_mod"},
		"loop-devtmpfs":   {"devtmpfs_delete_node", "devtmpfs_submit_req"},
		"loop-freeze":     {"del_gendisk", "__del_gendisk", "blk_cleanup_queue", "elevator_change"},
		"loop-writeback":  {"wb_shutdown"},
		"netdev":          {"unregister_netdev"},
		"scsi-io":         {"__scsi_execute", "scsi_execute_cmd"},
		"sysfs":           {"kernfs_remove_by_name_ns"},
	}
}

// TestKernels has the stacks of real kernels. TestStacks in test/scenarios
// takes them; the first line of a file is the cause that was brought about.
// Files of the same name but for -proc are from /proc/PID/stack.
func TestKernels(t *testing.T) {
	files, err := filepath.Glob("testdata/*/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d stacks: %v", len(files), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".txt")
		t.Run(filepath.Base(filepath.Dir(file))+"/"+name, func(t *testing.T) {
			want, stack := recorded(t, file)
			if got := string(Of(stack)); got != want {
				t.Errorf("Of = %q, want %q\n%s", got, want, strings.Join(stack, "\n"))
			}
			// Where it is preempted is a matter of chance.
			if want != string(unload.CausePreempted) {
				calledFrom(t, stack, sites()[strings.TrimSuffix(name, "-proc")])
			}
		})
	}
}

func calledFrom(t *testing.T, stack, want []string) {
	t.Helper()
	i := Site(stack)
	if i == len(stack) {
		t.Fatalf("no site\n%s", strings.Join(stack, "\n"))
	}
	site := stack[i]
	if Module(site) != "" || unnamed(site) || strings.HasSuffix(Function(site), "sys_delete_module") {
		return
	}
	if !slices.Contains(want, Function(site)) {
		t.Errorf("site %s, want %v\n%s", site, want, strings.Join(stack, "\n"))
	}
}

// unnamed says that the symbol is gone, with the module.
func unnamed(frame string) bool { return strings.HasPrefix(frame, "0x") }

func recorded(t *testing.T, file string) (cause string, stack []string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return lines[0], lines[1:]
}
