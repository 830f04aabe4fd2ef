package tracer

import (
	"cmp"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/modtrace/modtrace/cause"
	"github.com/modtrace/modtrace/klog"
	"github.com/modtrace/modtrace/unload"
)

// lookAt adds to a wait what can be seen of its blocker while it blocks: who it
// is, where the state of all tasks tells that without a guess, and what it is
// doing. tasks is asked for at most once.
func lookAt(w *unload.Wait, module string, tid int, tasks func() []task) {
	b := &w.Blocker
	if b.PID == 0 {
		if find := finder(w); find != nil {
			find(b, others{module, tid, tasks()})
		}
	}
	if b.PID != 0 && b.Stack == nil {
		b.Stack = stackOf(b.PID)
	}
	if w.Cause == unload.CauseNetdevUsers && b.Users == 0 {
		b.Users = usersOf(b.Detail)
	}
}

// usersOf is how many users an interface still has by the kernel's log, 0 if that
// does not say (yet).
func usersOf(name string) int64 {
	lines, err := klog.Read()
	if err != nil {
		return 0
	}
	for _, i := range klog.Interfaces(lines, time.Duration(monotonic()), complaints()) {
		if i.Name == name {
			return i.Users
		}
	}
	return 0
}

// finder is how a blocker is found by the cause of the wait; nil for the causes
// where being in a module's code is no sign of being waited for.
func finder(w *unload.Wait) func(*unload.Blocker, others) {
	switch w.Cause {
	case unload.CauseWorkqueue:
		if slices.ContainsFunc(w.Stack, on("flush_workqueue*", "__flush_workqueue", "drain_workqueue")) {
			return inWorkqueue
		}
		return atWork
	case unload.CauseKthreadStop:
		return toStop
	case unload.CauseKernfsDrain:
		return inFile
	case unload.CauseAsyncWork:
		return inAsync
	case unload.CauseMutex, unload.CauseRWSem:
		return func(b *unload.Blocker, o others) { ownsLock(b, o, w.Cause) }
	case unload.CauseDeviceUsers, unload.CauseCompletion, unload.CauseSRCU, unload.CauseOther:
		return inItsCode
	}
	return nil
}

// others are the tasks that an unload may be waiting for.
type others struct {
	module string // that it unloads
	tid    int    // of the unloading task
	all    []task
}

// who gives those of which something holds, unloading tasks apart.
func (o others) who(holds func(*task) bool) []*task {
	var list []*task
	for i := range o.all {
		if t := &o.all[i]; !t.unloads() && holds(t) {
			list = append(list, t)
		}
	}
	return list
}

// in says whether a task is in the module's code.
func (o others) in(t *task) bool { return t.inModule(o.module) != "" }

// preferred are those of which something more holds, or all if it holds of none.
func preferred(list []*task, holds func(*task) bool) []*task {
	var better []*task
	for _, t := range list {
		if holds(t) {
			better = append(better, t)
		}
	}
	if len(better) == 0 {
		return list
	}
	return better
}

// name makes the only one the blocker, and says so if there are several.
func name(b *unload.Blocker, list []*task) bool {
	switch len(list) {
	case 0:
		return false
	case 1:
		b.PID, b.Comm, b.Stack = list[0].pid, list[0].name(), list[0].stack
		return true
	}
	b.Candidates = len(list)
	return false
}

// runner is the function that runs work items (kernel/workqueue.c).
const runner = "process_one_work"

// workOf is the work function that a worker runs, as a frame: by its own account
// or else by its stack, in which it may be missing when it ends in a call; then
// the frame of the module that is nearest to it counts.
func (o others) workOf(t *task) string {
	i := slices.IndexFunc(t.stack, on(runner))
	switch {
	case t.work != "":
		return t.work
	case i < 1:
		return ""
	}
	if o.in(t) {
		for ; i > 0; i-- {
			if cause.Module(t.stack[i-1]) == o.module {
				break
			}
		}
	}
	return t.stack[i-1]
}

// works says whether a task runs a work item of the module, or is in its code
// while it runs another's.
func (o others) works(t *task) bool {
	return o.workOf(t) != "" && (o.in(t) || cause.Module(o.workOf(t)) == o.module)
}

// atWork finds the worker of the work item that is waited for: by what the kernel
// noted of who waits, else by the work function if that is known, else by the
// module.
func atWork(b *unload.Blocker, o others) {
	workers := o.who(func(t *task) bool { return slices.Contains(t.awaited, o.tid) })
	if len(workers) == 0 {
		workers = o.who(func(t *task) bool {
			if b.Function == "" {
				return o.works(t)
			}
			is := func(f string) bool { return cause.Function(f) == b.Function && cause.Module(f) == b.Module }
			return is(t.work) || t.in(runner) && slices.ContainsFunc(t.stack, is)
		})
	}
	if len(workers) > 0 {
		b.Kind = unload.KindWork
		o.describeWork(b, workers)
	}
}

// describeWork says what is known of a work item by who runs it.
func (o others) describeWork(b *unload.Blocker, workers []*task) {
	if len(workers) == 0 {
		return
	}
	work := o.workOf(workers[0])
	if b.Function == "" && !slices.ContainsFunc(workers, func(t *task) bool { return o.workOf(t) != work }) {
		b.Function, b.Module = cause.Function(work), cause.Module(work)
	}
	if name(b, workers) && b.Detail == "" {
		b.Detail = queueOf(b.Comm)
	}
}

// queueOf is the workqueue that a worker's name tells of (kernel/workqueue.c,
// wq_worker_comm).
func queueOf(comm string) string {
	_, queue, _ := strings.Cut(comm, "+")
	return queue
}

// inWorkqueue finds what is being run of a workqueue that is waited for as a
// whole: by its name, or when that is not known by the module.
func inWorkqueue(b *unload.Blocker, o others) {
	queue := b.Detail
	workers := o.who(func(t *task) bool {
		if queue == "" {
			return o.works(t)
		}
		return (t.work != "" || t.in(runner)) && queueOf(t.name()) == queue
	})
	b.Kind = unload.KindWorkqueue
	o.describeWork(b, workers)
}

// toStop finds the kernel thread that was told to stop and has not yet.
func toStop(b *unload.Blocker, o others) {
	threads := o.who(func(t *task) bool { return t.stopping && !t.in("do_exit", "kthread_exit") })
	threads = preferred(threads, o.in)
	if len(threads) > 0 {
		b.Kind = unload.KindTask
		name(b, threads)
	}
}

// inFile finds who is in an operation on a file of sysfs, one of the module's if
// there is such (fs/kernfs/file.c, fs/sysfs/file.c).
func inFile(b *unload.Blocker, o others) {
	users := o.who(func(t *task) bool { return t.in("kernfs_fop_*", "kernfs_seq_*", "kernfs_file_*", "sysfs_kf_*") })
	users = preferred(users, o.in)
	if b.Detail != "" {
		users = preferred(users, func(t *task) bool { return filepath.Base(sysfsFile(t)) == b.Detail })
	}
	if len(users) == 0 {
		return
	}
	b.Kind = unload.KindFile
	if name(b, users) {
		if path := sysfsFile(users[0]); path != "" {
			b.Detail = path
		}
	}
}

// ownsLock finds the owner of the lock that the unloading task waits for.
func ownsLock(b *unload.Blocker, o others, kind unload.Cause) {
	i := slices.IndexFunc(o.all, func(t task) bool { return t.tid == o.tid })
	if i < 0 {
		return
	}
	lock, ok := o.all[i].locks[kind]
	owner := slices.IndexFunc(o.all, func(t task) bool { return t.self == lock.owner })
	if !ok || owner < 0 {
		return
	}
	t := &o.all[owner]
	b.Kind, b.PID, b.Comm, b.Stack = unload.KindTask, t.pid, t.name(), t.stack
	b.Detail = cmp.Or(b.Detail, lock.name)
}

// inAsync finds the asynchronous calls that are being run, all of which are waited
// for (kernel/async.c), and who runs the one that is named first.
func inAsync(b *unload.Blocker, o others) {
	runs := map[string][]*task{}
	for _, t := range o.who(func(*task) bool { return true }) {
		if i := slices.IndexFunc(t.stack, on("async_run_entry_fn")); i > 0 {
			f := call(t.stack[i-1])
			runs[f] = append(runs[f], t)
		}
	}
	if b.Function == "" {
		*b = asyncCalls(slices.Sorted(maps.Keys(runs)))
	}
	oldest := b.Function
	if b.Module != "" {
		oldest += " [" + b.Module + "]"
	}
	name(b, runs[oldest])
}

// inItsCode finds who is in the module's code besides the one that unloads it, if
// that is only one. That is not to say that it is waited for, so it is said how it
// was found.
func inItsCode(b *unload.Blocker, o others) {
	inside := o.who(o.in)
	if b.Kind == "" && len(inside) == 1 {
		b.Kind, b.Detail = unload.KindTask, "the only task in the module's code"
		name(b, inside)
	}
}
