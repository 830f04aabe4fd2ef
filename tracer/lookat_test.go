package tracer

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/modtrace/modtrace/unload"
)

// nobody is a task number that none has, so that /proc says nothing of it.
const nobody = 1 << 30

// TestLookAt has the state of tasks, and who of them is waited for by it.
func TestLookAt(t *testing.T) {
	worker := func(n int, work string, stack ...string) task {
		return task{pid: nobody + n, tid: nobody + n, kthread: true, work: work, stack: append(stack, "process_one_work+0x1", "worker_thread+0x1")}
	}
	thread := func(n int, stopping bool, stack ...string) task {
		return task{pid: nobody + n, tid: nobody + n, kthread: true, stopping: stopping, stack: append(stack, "kthread+0x1")}
	}
	process := func(n int, stack ...string) task {
		return task{pid: nobody + n, tid: nobody + n, stack: append(stack, "do_syscall_64+0x1")}
	}
	unloader := process(0, "kernfs_fop_read_iter+0x1", "x_exit+0x1 [x]", "__do_sys_delete_module+0x1")
	waitedFor := worker(3, "other+0x1 [y]")
	waitedFor.awaited = []int{nobody}
	for _, c := range []struct {
		name  string
		cause unload.Cause
		stack []string
		known unload.Blocker
		tasks []task
		want  unload.Blocker
	}{
		{"its worker", unload.CauseWorkqueue, nil, unload.Blocker{},
			[]task{worker(1, "f+0x1 [x]"), worker(2, "f+0x1 [y]"), unloader},
			unload.Blocker{Kind: unload.KindWork, PID: nobody + 1, Function: "f", Module: "x"}},
		{"its worker by the stack alone", unload.CauseWorkqueue, nil, unload.Blocker{},
			[]task{worker(1, "", "msleep+0x1", "f+0x1 [x]"), worker(2, "", "msleep+0x1", "f+0x1 [y]")},
			unload.Blocker{Kind: unload.KindWork, PID: nobody + 1, Function: "f", Module: "x"}},
		{"in its code by another's function", unload.CauseWorkqueue, nil, unload.Blocker{},
			[]task{worker(1, "", "f+0x1 [x]", "run+0x1")},
			unload.Blocker{Kind: unload.KindWork, PID: nobody + 1, Function: "f", Module: "x"}},
		{"one that the kernel says is waited for", unload.CauseWorkqueue, nil, unload.Blocker{},
			[]task{worker(1, "f+0x1 [x]"), waitedFor},
			unload.Blocker{Kind: unload.KindWork, PID: nobody + 3, Function: "other", Module: "y"}},
		{"two workers of one function", unload.CauseWorkqueue, nil, unload.Blocker{},
			[]task{worker(1, "f+0x1 [x]"), worker(2, "f+0x1 [x]")},
			unload.Blocker{Kind: unload.KindWork, Function: "f", Module: "x", Candidates: 2}},
		{"two workers of two functions", unload.CauseWorkqueue, nil, unload.Blocker{},
			[]task{worker(1, "f+0x1 [x]"), worker(2, "g+0x1 [x]")},
			unload.Blocker{Kind: unload.KindWork, Candidates: 2}},
		{"the function is known", unload.CauseWorkqueue, nil, unload.Blocker{Kind: unload.KindWork, Function: "g", Module: "x"},
			[]task{worker(1, "f+0x1 [x]"), worker(2, "g+0x1 [x]")},
			unload.Blocker{Kind: unload.KindWork, PID: nobody + 2, Function: "g", Module: "x"}},
		{"no worker", unload.CauseWorkqueue, nil, unload.Blocker{}, []task{worker(2, "f+0x1 [y]"), unloader}, unload.Blocker{}},
		{"a workqueue", unload.CauseWorkqueue, []string{"wait_for_completion+0x1", "__flush_workqueue+0x1"}, unload.Blocker{},
			[]task{worker(1, "f+0x1 [x]")},
			unload.Blocker{Kind: unload.KindWorkqueue, PID: nobody + 1, Function: "f", Module: "x"}},
		{"a thread to stop", unload.CauseKthreadStop, nil, unload.Blocker{},
			[]task{thread(1, false, "f+0x1 [x]"), thread(2, true, "g+0x1 [y]")},
			unload.Blocker{Kind: unload.KindTask, PID: nobody + 2}},
		{"two threads to stop, one of them its own", unload.CauseKthreadStop, nil, unload.Blocker{},
			[]task{thread(1, true, "f+0x1 [x]"), thread(2, true, "g+0x1 [y]"), thread(3, true, "do_exit+0x1", "f+0x1 [x]")},
			unload.Blocker{Kind: unload.KindTask, PID: nobody + 1}},
		{"two threads to stop", unload.CauseKthreadStop, nil, unload.Blocker{},
			[]task{thread(1, true, "g+0x1 [y]"), thread(2, true, "g+0x1 [y]")},
			unload.Blocker{Kind: unload.KindTask, Candidates: 2}},
		{"no thread to stop", unload.CauseKthreadStop, nil, unload.Blocker{}, []task{thread(1, false, "f+0x1 [x]")}, unload.Blocker{}},
		{"a reader", unload.CauseKernfsDrain, nil, unload.Blocker{},
			[]task{unloader, process(1, "show+0x1 [x]", "sysfs_kf_seq_show+0x1"), process(2, "kernfs_fop_read_iter+0x1"), process(3, "kernfs_iop_lookup+0x1")},
			unload.Blocker{Kind: unload.KindFile, PID: nobody + 1}},
		{"no reader", unload.CauseKernfsDrain, nil, unload.Blocker{}, []task{unloader, process(3, "kernfs_iop_lookup+0x1")}, unload.Blocker{}},
		{"a call", unload.CauseAsyncWork, nil, unload.Blocker{},
			[]task{worker(1, "async_run_entry_fn+0x1", "probe+0x1 [y]", "async_run_entry_fn+0x1")},
			unload.Blocker{Kind: unload.KindWork, PID: nobody + 1, Function: "probe", Module: "y"}},
		{"calls", unload.CauseAsyncWork, nil, unload.Blocker{},
			[]task{worker(1, "async_run_entry_fn+0x1", "probe+0x1 [y]", "async_run_entry_fn+0x1"), worker(2, "async_run_entry_fn+0x1", "scan+0x1", "async_run_entry_fn+0x1")},
			unload.Blocker{Kind: unload.KindWork, PID: nobody + 1, Function: "probe", Module: "y", Detail: "scan"}},
		{"a call that is known", unload.CauseAsyncWork, nil, unload.Blocker{Kind: unload.KindWork, Function: "scan"},
			[]task{worker(1, "async_run_entry_fn+0x1", "probe+0x1 [y]", "async_run_entry_fn+0x1"), worker(2, "async_run_entry_fn+0x1", "scan+0x1", "async_run_entry_fn+0x1")},
			unload.Blocker{Kind: unload.KindWork, PID: nobody + 2, Function: "scan"}},
		{"the only one in its code", unload.CauseDeviceUsers, nil, unload.Blocker{},
			[]task{unloader, process(1, "ioctl+0x1 [x]"), process(2, "ioctl+0x1 [y]")},
			unload.Blocker{Kind: unload.KindTask, PID: nobody + 1, Detail: "the only task in the module's code"}},
		{"several in its code", unload.CauseDeviceUsers, nil, unload.Blocker{},
			[]task{process(1, "ioctl+0x1 [x]"), process(2, "ioctl+0x1 [x]")}, unload.Blocker{}},
		{"a mutex", unload.CauseMutex, nil, unload.Blocker{}, []task{thread(1, false, "f+0x1 [x]")}, unload.Blocker{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := unload.Wait{Cause: c.cause, Stack: c.stack, Blocker: c.known}
			lookAt(&w, "x", nobody, func() []task { return c.tasks })
			w.Blocker.Stack = nil
			if diff := cmp.Diff(c.want, w.Blocker); diff != "" {
				t.Errorf("blocker (-want +got):\n%s", diff)
			}
		})
	}
}

// TestUnloads tells who is in delete_module.
func TestUnloads(t *testing.T) {
	for name, c := range map[string]struct {
		task
		want bool
	}{
		"sleeps in it":             {task{stack: []string{"msleep+0x1", "__x64_sys_delete_module+0x1"}}, true},
		"sleeps elsewhere":         {task{stack: []string{"msleep+0x1", "do_syscall_64+0x1"}, call: deleteModule}, false},
		"runs":                     {task{call: deleteModule}, true},
		"runs in another call":     {task{call: deleteModule + 1}, false},
		"thread without any calls": {task{call: deleteModule, kthread: true}, false},
	} {
		if got := c.unloads(); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
