package tracer

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/modtrace/modtrace/cause"
	"github.com/modtrace/modtrace/klog"
	"github.com/modtrace/modtrace/object"
	"github.com/modtrace/modtrace/procfs"
	"github.com/modtrace/modtrace/symbols"
	"github.com/modtrace/modtrace/unload"
)

// Found is what the kernel's state tells of unloads in flight.
type Found struct {
	Stalls []unload.Stall
	// Lacks says in words what could not be seen.
	Lacks []string
}

// Stuck finds the unloads that are in flight, whenever they began, and those
// whose task died. It only reads. The error is an [*object.Unable] when the machine is
// at fault.
func Stuck(o Options) (Found, error) {
	if err := object.HasModules(); err != nil {
		return Found{}, err
	}
	if err := object.HasCapabilities(); err != nil {
		return Found{}, err
	}
	s, err := take(o)
	if err != nil {
		return Found{}, err
	}
	if s.reader != nil {
		defer func() { _ = s.reader.close() }() // nothing was attached that could stay
	}
	return s.found(), nil
}

// scene is the state of the machine at one time.
type scene struct {
	reader  *taskReader // nil where the kernel has no iterator over tasks
	tasks   []task
	now     time.Duration // by the kernel's clock
	wall    time.Time
	modules map[string]string // the state of each
	log     []klog.Line
	lacks   []string
}

// take reads the state of the machine. The modules are read twice, so that what
// began or ended meanwhile does not count.
func take(o Options) (*scene, error) {
	s := &scene{wall: time.Now().UTC()}
	var err error
	if s.reader, err = newTaskReader(o, nil); err != nil {
		s.lacks = append(s.lacks, fmt.Sprintf("%v: stacks are from /proc, which leaves out how a task waits", err))
	}
	before := moduleStates()
	if s.reader != nil {
		var now uint64
		if s.tasks, now, err = s.reader.tasks(everybody); err != nil {
			return nil, joinClose(err, s.reader.loader)
		}
		s.now = time.Duration(now)
	} else if s.tasks = procTasks(); !slices.ContainsFunc(s.tasks, func(t task) bool { return len(t.stack) > 0 }) {
		return nil, &object.Unable{
			What:   "cannot see what tasks are doing",
			Why:    "the kernel has no BPF iterator over tasks, and /proc/PID/stack may not be read",
			Remedy: "run modtrace as root (sudo) in the initial user namespace",
			Err:    err,
		}
	}
	if s.now == 0 {
		s.now = time.Duration(monotonic())
	}
	s.modules = moduleStates()
	for name, state := range s.modules {
		if state == going && before[name] != going {
			s.modules[name] = "" // it has only just begun
		}
	}
	if s.log, err = klog.Read(); err != nil {
		s.lacks = append(s.lacks, err.Error())
	}
	return s, nil
}

// found tells of every unload in flight, by module.
func (s *scene) found() Found {
	f := Found{Lacks: s.lacks}
	busy := map[string]bool{}
	for i := range s.tasks {
		t := &s.tasks[i]
		if !t.unloads() {
			continue
		}
		name := s.moduleOf(t)
		if len(t.stack) == 0 && !t.asleep && s.modules[name] != going {
			continue // its last call was that, and is over
		}
		busy[name] = true
		f.Stalls = append(f.Stalls, s.stall(*t, name, &f))
	}
	for name, state := range s.modules {
		if state == going && !busy[name] && !busy[""] {
			if st, ok := s.dead(name); ok {
				f.Stalls = append(f.Stalls, st)
			}
		}
	}
	slices.SortFunc(f.Stalls, func(a, b unload.Stall) int {
		return cmp.Or(cmp.Compare(a.Module, b.Module), cmp.Compare(a.Caller.TID, b.Caller.TID))
	})
	return f
}

// moduleOf is the module that a task unloads: what it has handed to the kernel,
// or else the only one whose code it is in, "" if that cannot be told.
func (s *scene) moduleOf(t *task) string {
	if t.call == deleteModule {
		if name := argumentText(t.tid, t.arguments[0]); name != "" {
			return name
		}
	}
	for i := len(t.stack) - 1; i >= 0; i-- {
		if name := cause.Module(t.stack[i]); s.modules[name] == going {
			return name
		}
	}
	return ""
}

// stall tells of the unload that a task is in.
func (s *scene) stall(t task, name string, f *Found) unload.Stall {
	if s.reader != nil {
		s.lookAgain(&t)
		if err := s.reader.complete(&t); err != nil {
			f.Lacks = appendNew(f.Lacks, fmt.Sprintf("%v: how a task waits is not seen to the end", err))
		}
	}
	stack := withinCall(t.stack)
	st := found(name)
	st.Phase = phaseOf(stack, standing{s.modules[name], t.interruptible})
	if stat, err := procfs.ReadStat(procfs.Task(t.pid)); err == nil {
		st.Start = stat.Start()
	}
	st.Flags, st.Forced = flagNames(uint32(t.arguments[1]))
	if t.call != deleteModule {
		st.Flags, st.Forced = []string{}, false
	}
	st.Caller = callerOf(&t)
	if !t.asleep {
		s.watchRunning(&st, t.tid)
		return st
	}
	st.Wait.Stack = belowSwitch(stack)
	st.Wait.Count, st.Wait.Cause = 1, cause.Of(stack)
	if t.arrived != 0 && s.now > time.Duration(t.arrived) {
		st.Wait.Duration = int64(s.now) - int64(t.arrived)
	}
	if waitsForUsers(&t) {
		s.inInterface(&st.Wait)
	}
	lookAt(&st.Wait, name, t.tid, func() []task { return s.tasks })
	st.Wait.Longest = st.Wait.Duration
	st.Elapsed, st.Duration = st.Wait.Duration, st.Wait.Duration
	return st
}

// Looks at a task that runs. Its stack can only be read while another has its CPU.
const (
	looks   = 20
	between = 5 * time.Millisecond
)

// lookAgain gives a task that was found running the chance to be found asleep: one
// that waits by looking every so often runs for moments, one that spins does not
// sleep.
func (s *scene) lookAgain(t *task) {
	for range looks / 2 {
		if t.asleep {
			return
		}
		time.Sleep(between)
		again, now, err := s.reader.tasks(t.tid)
		if err != nil || len(again) != 1 || !again[0].unloads() {
			return // it ended; what was found was so then
		}
		if again[0].asleep {
			*t, s.now = again[0], max(s.now, time.Duration(now))
		}
	}
}

// watchRunning finds out where a task runs.
func (s *scene) watchRunning(st *unload.Stall, tid int) {
	if s.reader == nil {
		return
	}
	p := newPending()
	for range looks {
		all, _, err := s.reader.tasks(tid)
		if err != nil {
			return
		}
		for _, t := range all {
			if !t.asleep && inDelete(t.stack) {
				stack := belowPreemption(withinCall(t.stack))
				p.addHot(0, stack)
				st.Phase = phaseOf(stack, standing{state: s.modules[st.Module]})
			}
		}
		time.Sleep(between)
	}
	if st.Phase != "" {
		st.Phases = []unload.Phase{newPhase(st.Phase, 0)}
		distribute(p, st.Phases, []int{0})
	}
}

// belowPreemption drops how a running task lost its CPU.
func belowPreemption(stack []string) []string {
	if i := slices.IndexFunc(stack, interrupts); i >= 0 {
		stack = stack[i+1:]
	}
	for len(stack) > 0 && cause.Of(stack[:1]) == unload.CausePreempted {
		stack = stack[1:]
	}
	return stack
}

// found is the empty report of an unload that was not watched.
func found(name string) unload.Stall {
	u := newAssembler(nil).describe(newPending(), taskKey{})
	u.Type, u.Module, u.Start = unload.TypeStall, name, time.Time{}
	u.Outcome = unload.InFlight
	u.Result = unload.Result{Reason: unload.ReasonUnknown, By: unload.ByKernel}
	u.Missing = []string{"it was found, not watched from its beginning"}
	return unload.Stall{Unload: u, Wait: unload.Wait{Stack: []string{}}, Found: true}
}

// waitsForUsers says whether a task waits until the users of interfaces are gone
// (net/core/dev.c).
func waitsForUsers(t *task) bool { return t.in("netdev_run_todo", "netdev_wait_allrefs*") }

// inInterface names the interface that is waited for, of which the kernel
// complains every so often. That is what is waited for also while, as every second,
// the kernel waits for RCU in between.
func (s *scene) inInterface(w *unload.Wait) {
	all := klog.Interfaces(s.log, s.now, complaints())
	waiters := 0
	for i := range s.tasks {
		if waitsForUsers(&s.tasks[i]) {
			waiters++
		}
	}
	if len(all) == 0 {
		return
	}
	w.Cause, w.Blocker.Kind = unload.CauseNetdevUsers, unload.KindInterface
	if len(all) > 1 || waiters > 1 {
		w.Blocker.Detail = fmt.Sprintf("one of %d", max(len(all), waiters))
		return
	}
	w.Blocker.Detail, w.Blocker.Users = all[0].Name, all[0].Users
	w.Duration = max(w.Duration, int64(s.now-all[0].Since))
}

// complaints is how long the kernel may be silent about an interface that it
// waits for (net/core/dev.c, netdev_unregister_timeout_secs; 10 s before 5.13).
func complaints() time.Duration {
	seconds := 10
	if b, err := os.ReadFile("/proc/sys/net/core/netdev_unregister_timeout_secs"); err == nil {
		if n, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
			seconds = n
		}
	}
	return time.Duration(2*seconds+1) * time.Second
}

func appendNew(list []string, text string) []string {
	if slices.Contains(list, text) {
		return list
	}
	return append(list, text)
}

// callerOf describes who unloads.
func callerOf(t *task) unload.Caller {
	c := unload.Caller{PID: t.pid, TID: t.tid, Comm: t.name(), Cmdline: []string{}, Ancestors: []unload.Ancestor{}}
	dir := procfs.Task(t.pid)
	c.Exe, _ = os.Readlink(filepath.Join(dir, "exe")) // "" where that is not permitted
	if b, err := os.ReadFile(filepath.Join(dir, "cmdline")); err == nil && len(b) > 0 {
		c.Cmdline = strings.Split(strings.TrimRight(string(b), "\x00"), "\x00")
	}
	c.UID = -1
	if b, err := os.ReadFile(filepath.Join(dir, "status")); err == nil {
		for line := range strings.Lines(string(b)) {
			if n, err := fmt.Sscanf(line, "Uid:\t%d", &c.UID); n == 1 && err == nil {
				break
			}
		}
	}
	c.Cgroup = procfs.Cgroup(dir)
	if stat, err := procfs.ReadStat(dir); err == nil && stat.Parent != 0 {
		c.PPID = stat.Parent
		if parent, err := procfs.ReadStat(procfs.Task(stat.Parent)); err == nil {
			c.Ancestors = extend([]unload.Ancestor{{PID: stat.Parent, Comm: parent.Comm}})
		}
	}
	return c
}

// dead tells of a module that is being unloaded by nobody: its task died.
func (s *scene) dead(name string) (unload.Stall, bool) {
	st := found(name)
	st.Outcome = unload.Died
	o, known := s.death(name)
	if !known {
		// One whose init failed is on its way out as well, by the task that
		// loads it; and who runs now may be in anything.
		if s.reader == nil || slices.ContainsFunc(s.tasks, func(t task) bool {
			return t.in("do_init_module", "load_module", "free_module") || t.inModule(name) != "" && t.call != deleteModule && !t.kthread
		}) {
			return st, false
		}
		st.Missing = append(st.Missing, "the task that unloaded it is gone, and the kernel's log does not say (any more) how it ended")
		return st, true
	}
	st.Missing = append(st.Missing, "the task that unloaded it died")
	st.Phase = phaseOf(o.Stack, standing{state: going})
	st.Caller.PID, st.Caller.TID, st.Caller.Comm = o.PID, o.PID, o.Comm
	st.Elapsed = max(int64(s.now-o.At), 0)
	st.Start = s.wall.Add(-time.Duration(st.Elapsed))
	for _, f := range o.Stack {
		st.Wait.Stack = append(st.Wait.Stack, symbols.Frame(f))
	}
	st.Wait.Stack = withinCall(st.Wait.Stack)
	for _, l := range o.Lines {
		st.Log = append(st.Log, unload.LogLine{Phase: st.Phase, Level: l.Level, Text: l.Text})
	}
	return st, true
}

// death finds the last oops of a task that was unloading a module.
func (s *scene) death(name string) (klog.Oops, bool) {
	all := klog.Oopses(s.log)
	for _, o := range slices.Backward(all) {
		own := slices.ContainsFunc(o.Stack, func(f string) bool { return cause.Module(f) == name })
		if inDelete(o.Stack) && (own || slices.Equal(o.Going, []string{name})) {
			return o, true
		}
	}
	return klog.Oops{}, false
}
