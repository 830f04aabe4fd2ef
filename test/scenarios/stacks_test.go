package scenarios

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/modtrace/modtrace/test/lab"
	"github.com/modtrace/modtrace/unload"
)

// The stacks in cause/testdata, by which the tests of the package cause tell
// whether it knows a kernel, are taken anew by one command:
//
//	MODTRACE_LAB=1 go test ./test/scenarios -run '^TestStacks$' -timeout 60m -stack-dir "$PWD/cause/testdata"
var stackDir = flag.String("stack-dir", "", "write kernel stacks of waits to `DIR`")

// realTime is a series whose locks are others than the matrix's.
const realTime = "amd64-6.12-rt"

// stackModules are modules of the kernel that wait while they are unloaded.
// Debian's arm64 kernels have no emulated SCSI disk.
func stackModules(series string) []string {
	modules := []string{"loop", "dummy"}
	if hasDisk(series) {
		modules = append(modules, "scsi_debug", "sd_mod")
	}
	return modules
}

func hasDisk(series string) bool { return !strings.HasPrefix(series, "arm64") }

// waitToTake is an unload that waits, for a reason that is known beforehand.
type waitToTake struct {
	name   string
	cause  unload.Cause
	frames []string // parts of frames by which the stack is known
	module string   // to unload
	setUp  func(t *testing.T)
	after  func(t *testing.T) // lets it go

	// proc says that it lasts until it is let go, so that /proc/PID/stack can
	// be read, and what that can tell: less, as the scheduler's functions are
	// left out.
	proc unload.Cause

	// not are series that do not wait so.
	not []string
}

func waitsToTake(series string) []waitToTake {
	all := slices.Concat(hangingWaits(), slowWaits(), gracePeriods(), waitsOfKernelModules())
	if hasDisk(series) {
		all = append(all, waitsForDisks()...)
	}
	return slices.DeleteFunc(all, func(w waitToTake) bool { return slices.Contains(w.not, series) })
}

func hangingWait(kind string, cause, proc unload.Cause, frames ...string) waitToTake {
	return waitToTake{
		name: kind, cause: cause, proc: proc, frames: frames, module: "hang",
		setUp: func(t *testing.T) {
			setParameter(t, "release", "go", "0")
			fixture(t, "hang", "kind="+kind)
		},
		after: func(t *testing.T) { setParameter(t, "release", "go", "1") },
	}
}

func hangingWaits() []waitToTake {
	sysfs := hangingWait("sysfs", unload.CauseKernfsDrain, unload.CauseKernfsDrain, "kernfs_remove")
	load := sysfs.setUp
	sysfs.setUp = func(t *testing.T) {
		load(t)
		inBackground(t, "cat", "/sys/kernel/hang/block")
		await(t, "the reader to be in it", func() bool { n, _ := loaded(t, "release"); return n > 0 && sleeping("cat") })
	}
	return []waitToTake{
		hangingWait("completion", unload.CauseCompletion, unload.CauseOther, "wait_for_com"),
		hangingWait("work", unload.CauseWorkqueue, unload.CauseWorkqueue, "flush_work"),
		hangingWait("workqueue", unload.CauseWorkqueue, unload.CauseWorkqueue, "flush_workqueue"),
		hangingWait("kthread", unload.CauseKthreadStop, unload.CauseKthreadStop, "kthread_stop"),
		hangingWait("mutex", unload.CauseMutex, "", "hang_in_mutex"),
		hangingWait("rwsem", unload.CauseRWSem, "", "hang_in_rwsem"),
		hangingWait("srcu", unload.CauseSRCU, unload.CauseSRCU, "synchronize_srcu"),
		hangingWait("netdev", unload.CauseNetdevUsers, "", "msleep", "netdev_run_todo"),
		sysfs,
	}
}

func slowWaits() []waitToTake {
	slow := func(name string, cause unload.Cause, param string, frames ...string) waitToTake {
		return waitToTake{
			name: name, cause: cause, frames: frames, module: "slow",
			setUp: func(t *testing.T) { fixture(t, "slow", param) },
		}
	}
	preempted := hangingWait("spin", unload.CausePreempted, "", "delete_module")
	spin := preempted.setUp
	preempted.setUp = func(t *testing.T) {
		for range 4 {
			inBackground(t, "sh", "-c", "while :; do :; done")
		}
		spin(t)
	}
	return []waitToTake{
		slow("msleep", unload.CauseSleep, "sleep_ms=500", "msleep"),
		slow("short-work", unload.CauseWorkqueue, "work_ms=500", "flush_work"),
		{
			name: "driver-msleep", cause: unload.CauseSleep, frames: []string{"msleep", "device_release_driver"},
			module: "device", setUp: func(t *testing.T) { fixture(t, "device", "sleep_ms=300") },
		},
		preempted,
	}
}

// gracePeriods are waits for RCU, made long enough to be found in.
func gracePeriods() []waitToTake {
	slow := func(name string, cause unload.Cause, param string, frames ...string) waitToTake {
		return waitToTake{
			name: name, cause: cause, frames: frames, module: "slow",
			setUp: func(t *testing.T) { fixture(t, "slow", param); holdGracePeriods(t) },
		}
	}
	// ftrace waits for whoever is looking a function up; on 5.10 it did not yet.
	ftrace := slow("ftrace-rcu", unload.CauseRCU, "sync_rcu=0", "synchronize_rcu", "ftrace_release_mod")
	ftrace.not = []string{"amd64-5.10"}
	return []waitToTake{
		ftrace,
		slow("sync-rcu", unload.CauseRCU, "sync_rcu=1", "synchronize_rcu"),
		slow("rcu-barrier", unload.CauseRCUBarrier, "rcu_barrier=1", "rcu_barrier"),
		slow("free-rcu", unload.CauseRCU, "sync_rcu=0", "synchronize_rcu", "free_module"),
		{
			name: "module-mutex", cause: unload.CauseMutex, frames: []string{"mutex"}, module: "device",
			setUp: func(t *testing.T) {
				fixture(t, "device", "sleep_ms=0")
				fixture(t, "empty")
				holdGracePeriods(t)
				inBackground(t, "busybox", "rmmod", "empty")
			},
		},
	}
}

func waitOfModule(name, module string, cause unload.Cause, frames ...string) waitToTake {
	return waitToTake{
		name: name, cause: cause, frames: frames, module: module,
		setUp: func(t *testing.T) { modprobed(t, module) },
	}
}

func waitsOfKernelModules() []waitToTake {
	// A real-time kernel does not hurry grace periods; by the end of a slow one
	// there is nothing left to wait for.
	hurried := []waitToTake{
		waitOfModule("loop-freeze", "loop", unload.CauseBlockFreeze, "blk_mq_freeze_queue"),
		waitOfModule("dummy-expedited", "dummy", unload.CauseRCU, "synchronize_rcu_expedited"),
		waitOfModule("dummy-barrier", "dummy", unload.CauseRCUBarrier, "rcu_barrier", "netdev_run_todo"),
	}
	for i := range hurried {
		hurried[i].not = []string{realTime}
	}
	return append(hurried,
		waitOfModule("loop-devtmpfs", "loop", unload.CauseCompletion, "devtmpfs"),
		waitOfModule("loop-writeback", "loop", unload.CauseWorkqueue, "flush_work", "bdi_unregister"),
	)
}

// waitsForDisks are two: a disk's probe goes on in the background, and
// unloading anything at all waits for it; and its last command is waited for.
func waitsForDisks() []waitToTake {
	// The older emulated disks have no cache to write back.
	last := waitOfModule("scsi-io", "scsi_debug", unload.CauseIO, "blk_execute_rq")
	last.not = []string{"amd64-5.10", "amd64-6.1"}
	return []waitToTake{
		{
			name: "async", cause: unload.CauseAsyncWork, frames: []string{"async_synchronize"}, module: "empty",
			setUp: func(t *testing.T) {
				fixture(t, "empty")
				modprobed(t, "sd_mod")
				inBackground(t, "modprobe", "scsi_debug", "delay=60")
				await(t, "the disk to be probed", func() bool {
					disks, _ := filepath.Glob("/sys/bus/scsi/devices/[0-9]*:[0-9]*")
					return len(disks) > 0
				})
			},
			after: func(t *testing.T) { await(t, "scsi_debug to be loaded", func() bool { return isLive("scsi_debug") }) },
		},
		last,
	}
}

// holdGracePeriods holds up grace periods for a while. It tries again and again,
// as it misses a while in which the hog had its processor.
func holdGracePeriods(t *testing.T) {
	t.Helper()
	await(t, "grace periods to be held up", func() bool {
		if strings.HasPrefix(readFile(t, "/sys/module/rcuhog/parameters/holding"), "Y") {
			return true
		}
		setParameter(t, "rcuhog", "hold_ms", "1500")
		return false
	})
}

func modprobed(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("modprobe", args...).CombinedOutput(); err != nil {
		t.Fatalf("modprobe %v: %v\n%s", args, err, out)
	}
}

// inBackground runs a command until the test ends.
func inBackground(t *testing.T, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}

func isLive(module string) bool {
	b, _ := os.ReadFile("/sys/module/" + module + "/initstate")
	return strings.HasPrefix(string(b), "live")
}

// sleeping says whether a command of that name is in a wait of the kernel.
func sleeping(comm string) bool {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	return slices.ContainsFunc(stats, func(file string) bool {
		b, _ := os.ReadFile(file)
		return strings.Contains(string(b), "("+comm+") D")
	})
}

// TestStacks takes the stacks. In a guest it takes them; elsewhere it boots the
// kernels for that. It does nothing unless -stack-dir is given.
func TestStacks(t *testing.T) {
	if *stackDir == "" {
		t.Skip("replaces test data: give -stack-dir")
	}
	series := os.Getenv(lab.EnvGuest)
	if series == "" {
		stacksInGuests(t)
		return
	}
	if err := os.MkdirAll(*stackDir, 0o755); err != nil {
		t.Fatal(err)
	}
	traceSwitches(t)
	fixture(t, "release")
	fixture(t, "rcuhog")
	for _, w := range waitsToTake(series) {
		t.Run(w.name, func(t *testing.T) {
			// Short waits are at times not needed.
			for range 10 {
				if w.take(t, *stackDir) {
					return
				}
			}
			t.Errorf("no wait in %v", w.frames)
		})
	}
}

func stacksInGuests(t *testing.T) {
	l := lab.ForTest(t)
	rt, err := lab.FindSeries(realTime)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range append(lab.Matrix(), rt) {
		t.Run(s.Name, func(t *testing.T) {
			k, err := l.Kernel(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			m := l.TestMachine(t, k)
			if err := l.AddModules(t.Context(), m.Initrd, k, stackModules(s.Name)...); err != nil {
				t.Fatal(err)
			}
			dir := filepath.Join(*stackDir, s.Name)
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			const inGuest = "/tmp/stacks"
			m.Args = []string{"-test.run=^TestStacks$", "-stack-dir=" + inGuest}
			m.Collect = map[string]string{}
			for _, w := range waitsToTake(s.Name) {
				for _, file := range w.files() {
					m.Collect[filepath.Join(inGuest, file)] = filepath.Join(dir, file)
				}
			}
			l.RunTests(t, m, l.TestBinary(t, k, "./test/scenarios"))
		})
	}
}

func (w waitToTake) files() []string {
	if w.proc == "" {
		return []string{w.name + ".txt"}
	}
	return []string{w.name + ".txt", w.name + "-proc.txt"}
}

// tracing's directory, on all kernels that mount it where it belongs.
const tracefs = "/sys/kernel/tracing/"

// traceSwitches lets the kernel note where a busybox leaves the CPU.
func traceSwitches(t *testing.T) {
	t.Helper()
	for _, set := range [][2]string{
		{"options/stacktrace", "1"},
		{"options/sym-offset", "1"},
		{"events/sched/sched_switch/filter", `prev_comm == "busybox"`},
		{"events/sched/sched_switch/enable", "1"},
	} {
		if err := os.WriteFile(tracefs+set[0], []byte(set[1]), 0); err != nil {
			t.Fatal(err)
		}
	}
}

// take unloads the module and writes down the stack in which it waits, if it
// does.
func (w waitToTake) take(t *testing.T, dir string) bool {
	t.Helper()
	if err := os.WriteFile(tracefs+"trace", nil, 0); err != nil {
		t.Fatal(err)
	}
	w.setUp(t)
	cmd := exec.Command("busybox", "rmmod", w.module)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var stack []string
	await(t, "the stack", func() bool {
		stack = w.find(readFile(t, tracefs+"trace"))
		_, still := loaded(t, w.module)
		return stack != nil || !still
	})
	if w.proc != "" {
		proc := strings.ReplaceAll(readFile(t, "/proc/"+strconv.Itoa(cmd.Process.Pid)+"/stack"), "[<0>] ", "")
		writeStack(t, filepath.Join(dir, w.name+"-proc.txt"), w.proc, strings.Split(strings.TrimSpace(proc), "\n"))
	}
	if w.after != nil {
		w.after(t)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("unloading %s: %v", w.module, err)
	}
	if stack == nil {
		stack = w.find(readFile(t, tracefs+"trace"))
	}
	if stack != nil {
		writeStack(t, filepath.Join(dir, w.name+".txt"), w.cause, stack)
	}
	return stack != nil
}

// find gives the first stack of an unload in the trace that has all frames.
func (w waitToTake) find(trace string) []string {
	for _, event := range strings.Split(trace, "sched_switch: ")[1:] {
		// A task that can run is preempted; it does not wait.
		if strings.Contains(event, "prev_state=R") != (w.cause == unload.CausePreempted) {
			continue
		}
		stack := framesOf(event)
		// None of the waits is a notifier's; those are met on the way.
		if onStack(stack, "notifier_call_chain") {
			continue
		}
		if onStack(stack, "delete_module") && !slices.ContainsFunc(w.frames, func(f string) bool { return !onStack(stack, f) }) {
			return stack
		}
	}
	return nil
}

func framesOf(event string) (stack []string) {
	for line := range strings.Lines(event) {
		if frame, ok := strings.CutPrefix(line, " => "); ok {
			stack = append(stack, strings.TrimSpace(frame))
		}
	}
	return stack
}

func onStack(stack []string, part string) bool {
	return slices.ContainsFunc(stack, func(frame string) bool { return strings.Contains(frame, part) })
}

func writeStack(t *testing.T, file string, cause unload.Cause, stack []string) {
	t.Helper()
	text := string(cause) + "\n" + strings.Join(stack, "\n") + "\n"
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
