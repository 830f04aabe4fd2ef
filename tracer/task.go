package tracer

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/modtrace/modtrace/bpf"
	"github.com/modtrace/modtrace/cause"
	"github.com/modtrace/modtrace/object"
	"github.com/modtrace/modtrace/procfs"
	"github.com/modtrace/modtrace/symbols"
	"github.com/modtrace/modtrace/unload"
	"github.com/modtrace/modtrace/unwind"
)

// task is what one task is doing.
type task struct {
	pid, tid int
	comm     string // as the kernel has it; /proc says more of a kworker
	asleep   bool
	// interruptible says that it sleeps so that signals wake it.
	interruptible bool
	kthread       bool
	stopping      bool   // a kernel thread that was told to end
	arrived       uint64 // when it began to run last, by the scheduler's clock; 0 unknown
	call          int64  // the system call that it was in last, -1 unknown
	arguments     [2]uint64
	stack         []string // innermost first, without the scheduler's frames
	work          string   // of a kworker: the work function that it runs, as a frame
	awaited       []int    // the tasks that wait for that

	at      unwind.Place
	address uint64                   // of the innermost frame, 0 unknown
	self    uint64                   // the address of its task_struct
	locks   map[unload.Cause]awaited // those that it may wait for, by kind
}

// name is what /proc calls the task, or what it was called when it was looked at: it may
// have ended since.
func (t *task) name() string { return cmp.Or(procfs.Comm(procfs.Task(t.tid)), t.comm) }

// awaited is a lock that a task waits for if it waits for one of the kind: where the
// one kind has its owner, the other may have something else that leads to that.
type awaited struct {
	name  string
	owner uint64 // the address of its task_struct
}

// in says that a function is on the task's stack; names that end in * are the
// beginning of names.
func (t *task) in(functions ...string) bool { return slices.ContainsFunc(t.stack, on(functions...)) }

// on gives a test of frames for functions.
func on(functions ...string) func(frame string) bool {
	return func(frame string) bool {
		f := cause.Function(frame)
		return slices.ContainsFunc(functions, func(name string) bool {
			beginning, open := strings.CutSuffix(name, "*")
			return f == beginning || open && strings.HasPrefix(f, beginning)
		})
	}
}

// inModule gives the innermost frame of a module, "" if the task is in none.
func (t *task) inModule(module string) string {
	i := slices.IndexFunc(t.stack, func(frame string) bool { return cause.Module(frame) == module })
	if i < 0 || module == "" {
		return ""
	}
	return t.stack[i]
}

// unloads says whether a task is in delete_module. A task that runs has no stack
// to be seen, and the last call it made may be over.
func (t *task) unloads() bool {
	return inDelete(t.stack) || len(t.stack) == 0 && !t.kthread && t.call == deleteModule
}

const deleteModule = unix.SYS_DELETE_MODULE

func inDelete(stack []string) bool {
	return slices.ContainsFunc(stack, isDelete)
}

// isDelete knows the system call, which is called after the machine that it is
// compiled for.
func isDelete(frame string) bool {
	return strings.HasSuffix(cause.Function(frame), "_sys_delete_module")
}

// taskReader reads all tasks of the machine by a BPF iterator
// (Documentation/bpf/bpf_iterators.rst).
type taskReader struct {
	loader *loader
	iter   *link.Iter
	names  *symbols.Names
	kernel *unwind.Kernel // once it is needed
}

// newTaskReader prepares for reading. What names addresses may be given, since it
// takes time to set up.
func newTaskReader(o Options, n *symbols.Names) (*taskReader, error) {
	spec, err := bpf.LoadTask()
	if err != nil {
		return nil, fmt.Errorf("reading the BPF object: %w", err)
	}
	l := &loader{}
	if l.Object, err = object.Open(spec, o.BTF); err != nil {
		return nil, err
	}
	if err := spec.Variables["can_probe"].Set(l.CanProbe); err != nil {
		return nil, fmt.Errorf("setting can_probe: %w", err)
	}
	if err := l.CreateMaps(); err != nil {
		return nil, err
	}
	it, err := l.Iterate("tasks", "task")
	if err != nil {
		return nil, joinClose(object.Explain("loading the task iterator", err), l)
	}
	if n == nil {
		l.symbols, _ = l.Load(object.Candidate{Program: "symbols", Mechanism: object.Run}) // without it, names come from elsewhere
		n = symbols.New(l.asker())
	}
	r := &taskReader{loader: l, names: n, iter: it}
	return r, nil
}

func joinClose(err error, l *loader) error {
	_ = l.close() // what failed before matters
	return err
}

func (r *taskReader) close() error {
	if r.kernel != nil {
		_ = r.kernel.Close() // only read
	}
	return r.loader.close()
}

// allTasks reads all tasks of the machine, by /proc when the kernel does not let
// them be read otherwise.
func allTasks(o Options, n *symbols.Names) []task {
	r, err := newTaskReader(o, n)
	if err != nil {
		return procTasks()
	}
	list, _, err := r.tasks(everybody)
	if err = errors.Join(err, r.close()); err != nil {
		return procTasks()
	}
	return list
}

// everybody stands for all tasks.
const everybody = 0

// tasks reads all tasks, or only one. now is the time by the scheduler's clock, 0
// unknown.
func (r *taskReader) tasks(only int) (list []task, now uint64, err error) {
	// The time at which a task began to run last is also that of this one,
	// which has just slept.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	nap := unix.NsecToTimespec(1e6)
	_ = unix.Nanosleep(&nap, nil)

	self := unix.Gettid()
	all, err := r.read(func(tid int) bool { return only == everybody || tid == only || tid == self })
	if err != nil {
		return nil, 0, err
	}
	for _, t := range all {
		if t.tid == self {
			now = t.arrived
		}
		if only == everybody || t.tid == only {
			list = append(list, t)
		}
	}
	if only == everybody {
		list = withMissing(list)
		r.readMissing(list)
	}
	r.findLocks(list)
	return list, now, nil
}

// read reads those that are wanted of what the iterator gives.
func (r *taskReader) read(wanted func(tid int) bool) (list []task, err error) {
	seq, err := r.iter.Open()
	if err != nil {
		return nil, fmt.Errorf("reading tasks: %w", err)
	}
	defer seq.Close()
	raw, err := io.ReadAll(seq)
	if err != nil {
		return nil, fmt.Errorf("reading tasks: %w", err)
	}
	for len(raw) > 0 {
		var record bpf.TaskRecord
		var frames []uint64
		if frames, raw, err = decodeTask(raw, &record); err != nil {
			return nil, err
		}
		if wanted(int(record.Tid)) {
			list = append(list, r.task(&record, frames))
		}
	}
	return list, nil
}

// maxMissing bounds how many tasks are read one at a time.
const maxMissing = 32

// readMissing reads those by themselves that the iterator has left out: /proc does not
// say all that is looked for.
func (r *taskReader) readMissing(list []task) {
	only, n := r.loader.Vars[bpf.TaskVarOnlyTid], 0
	for i := range list {
		if list[i].self != 0 || n == maxMissing {
			continue
		}
		n++
		if only.Set(uint32(list[i].tid)) != nil {
			return
		}
		if one, err := r.read(func(int) bool { return true }); err == nil && len(one) == 1 {
			list[i] = one[0]
		}
	}
	_ = only.Set(uint32(everybody)) // it could be set before
}

// decodeTask takes the first task off raw.
func decodeTask(raw []byte, into *bpf.TaskRecord) (frames []uint64, rest []byte, err error) {
	size := binary.Size(into)
	least := size - binary.Size(into.Stack)
	padded := make([]byte, size)
	if len(raw) < least {
		return nil, nil, fmt.Errorf("reading tasks: %w: %d bytes", errDamaged, len(raw))
	}
	copy(padded, raw)
	if _, err := binary.Decode(padded, binary.NativeEndian, into); err != nil {
		return nil, nil, fmt.Errorf("reading tasks: %w", err)
	}
	end := least + 8*int(into.Depth)
	if int(into.Depth) > len(into.Stack) || end > len(raw) {
		return nil, nil, fmt.Errorf("reading tasks: %w: %d frames", errDamaged, into.Depth)
	}
	return into.Stack[:into.Depth], raw[end:], nil
}

// States of a task (include/linux/sched.h).
const (
	taskInterruptible   = 1
	taskUninterruptible = 2
)

func (r *taskReader) task(record *bpf.TaskRecord, frames []uint64) task {
	t := task{
		pid: int(record.Pid), tid: int(record.Tid), comm: text(record.Comm[:]),
		asleep:        record.State != 0,
		interruptible: record.State&(taskInterruptible|taskUninterruptible) == taskInterruptible,
		kthread:       record.Kthread != 0,
		stopping:      record.ShouldStop != 0,
		arrived:       record.Arrived,
		call:          int64(record.Call),
		arguments:     record.Argument,
		stack:         r.names.Of(frames),
		at:            unwind.Place{SP: record.Sp, FP: record.Fp},
		self:          record.Task,
	}
	if len(frames) > 0 {
		t.address = frames[0]
	}
	if record.Work != 0 {
		t.work = r.names.At(record.Work)
	}
	for _, b := range record.Barrier {
		if cause.Function(r.names.At(b.Func)) == "wq_barrier_func" {
			t.awaited = append(t.awaited, int(b.Tid))
		}
	}
	return t
}

// findLocks finds the locks that unloading tasks wait for, and their owners.
func (r *taskReader) findLocks(list []task) {
	known := map[uint64]bool{}
	for i := range list {
		known[list[i].self] = true
	}
	delete(known, 0)
	isTask := func(address uint64) bool { return known[address] }
	for i := range list {
		if t := &list[i]; t.asleep && t.self != 0 && t.unloads() && r.open() == nil {
			t.locks = r.locksOf(t, isTask)
		}
	}
}

func (r *taskReader) locksOf(t *task, isTask func(uint64) bool) map[unload.Cause]awaited {
	locks := map[unload.Cause]awaited{}
	for kind, layout := range map[unload.Cause]string{
		unload.CauseMutex: bpf.TaskVarMutexLayout, unload.CauseRWSem: bpf.TaskVarRwsemLayout,
	} {
		var l bpf.TaskLockLayout
		if err := r.loader.Vars[layout].Get(&l); err != nil {
			continue
		}
		lock, owner, err := r.kernel.Owner(t.at, t.self, unwind.Lock{Owner: uint64(l.Owner), Waiters: uint64(l.Waiters)}, isTask)
		if err == nil && owner != 0 {
			name, _ := r.names.Function(lock)
			locks[kind] = awaited{name, owner}
		}
	}
	return locks
}

// open prepares to read the kernel's memory.
func (r *taskReader) open() (err error) {
	if r.kernel == nil {
		r.kernel, err = unwind.Open()
	}
	return err
}

// complete adds the frames of a sleeping task that the kernel left out.
func (r *taskReader) complete(t *task) error {
	if !t.asleep || t.address == 0 {
		return nil
	}
	if err := r.open(); err != nil {
		return err
	}
	frames, err := r.kernel.Until(t.at, t.address)
	if err != nil {
		return fmt.Errorf("following the stack of task %d: %w", t.tid, err)
	}
	t.stack = append(r.names.Of(frames), t.stack...)
	return nil
}
