package scenarios

import (
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/modtrace/modtrace/unload"
)

// locksUnseen is a kernel that does not let be seen who waits for a lock, nor who
// owns it: the tracepoint came with 5.19.
const locksUnseen = "amd64-5.10"

// TestConvoy has one unload wait for a long grace period with module_mutex
// held, and another unload and a load wait behind it: each is told of, with the
// time that it waited and the owner that it waited for (S13).
func TestConvoy(t *testing.T) {
	series := guest(t)
	fixture(t, "rcuhog")
	removed(t, "rcuhog")
	// On a busy machine the others may come when the unload is over.
	for attempt := range 3 {
		if convoyed(t, series, attempt == 2) {
			return
		}
		t.Log("they came too late")
	}
}

// convoyed tries once; it returns false when the others did not come in time, unless
// this is the last attempt.
func convoyed(t *testing.T, series string, last bool) bool {
	t.Helper()
	fixture(t, "leak")
	fixture(t, "empty")
	defer deleted(t, "many00")
	tr := trace(t)
	holdGracePeriods(t)
	holder := inConvoy(t, "busybox", "rmmod", "empty")
	awaitStack(t, holder, "free_module", "rcu")
	unloader := inConvoy(t, "busybox", "rmmod", "leak")
	awaitStack(t, unloader, "delete_module")
	loader := inConvoy(t, "insmod", "/fixtures/many00.ko")
	awaitStack(t, loader, "load_module")
	for _, cmd := range []*exec.Cmd{holder, unloader, loader} {
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v: %v", cmd.Args, err)
		}
	}
	r := tr.stop()
	if diff := cmp.Diff([]string{"empty", "leak"}, names(r.unloads)); diff != "" {
		if !last && len(r.unloads) == 2 {
			return false
		}
		t.Fatalf("unloads (-want +got):\n%s", diff)
	}
	slow, late := r.unloads[0], r.unloads[1]
	conserved(t, slow)
	conserved(t, late)
	if enter := phase(t, late, unload.Enter); len(enter.Waits) == 0 && !last {
		return false
	}
	held := phase(t, slow, unload.FreeUnlink)
	if len(held.Waits) == 0 || held.Waits[0].Cause != unload.CauseRCU || held.Duration < int64(300*time.Millisecond) {
		t.Fatalf("the test shows nothing, the mutex was held so long: %+v", held)
	}
	waited := waitForOwner(t, series, late, holder.Process.Pid)
	if series == locksUnseen { // nor does it let those who wait be seen
		if len(slow.Convoy) != 0 {
			t.Errorf("convoy %+v", slow.Convoy)
		}
		return true
	}
	want := []unload.Waiter{
		{PID: unloader.Process.Pid, Comm: "busybox", Lock: "module_mutex"},
		{PID: loader.Process.Pid, Comm: "insmod", Lock: "module_mutex"},
	}
	// By and by the load may wait for another lock that the unload holds.
	convoy := slices.DeleteFunc(slices.Clone(slow.Convoy), func(w unload.Waiter) bool { return w.Lock != "module_mutex" })
	if len(convoy) == 1 && !last {
		return false
	}
	if diff := cmp.Diff(want, convoy, cmpopts.IgnoreFields(unload.Waiter{}, "Duration")); diff != "" {
		t.Fatalf("convoy (-want +got):\n%s", diff)
	}
	// It spins for the mutex before it sleeps.
	if d, whole := convoy[0].Duration, phase(t, late, unload.Enter).Duration; d < waited*19/20 || d > whole {
		t.Errorf("the unload waited %d ns in the convoy, %d asleep, %d in all", d, waited, whole)
	}
	if d := convoy[1].Duration; d <= 0 || d > convoy[0].Duration {
		t.Errorf("the load waited %d ns, the unload that came before it %d", d, convoy[0].Duration)
	}
	for _, w := range late.Convoy {
		if w.PID != loader.Process.Pid {
			t.Errorf("behind the second unload: %+v", w)
		}
	}
	return true
}

// inConvoy starts a process of its own.
func inConvoy(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(name, args...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// awaitStack waits until a process is below these functions: the list of modules
// would tell less, and waits for module_mutex itself.
func awaitStack(t *testing.T, cmd *exec.Cmd, parts ...string) {
	t.Helper()
	await(t, strings.Join(cmd.Args, " ")+" to be in "+strings.Join(parts, " and "), func() bool {
		stack := readFile(t, "/proc/"+strconv.Itoa(cmd.Process.Pid)+"/stack")
		for _, part := range parts {
			if !strings.Contains(stack, part) {
				return false
			}
		}
		return true
	})
}

// waitForOwner gives how long an unload waited for module_mutex, and checks for
// whom.
func waitForOwner(t *testing.T, series string, u unload.Unload, owner int) int64 {
	t.Helper()
	enter := phase(t, u, unload.Enter)
	if len(enter.Waits) == 0 || enter.Waits[0].Cause != unload.CauseMutex {
		t.Fatalf("%s did not wait for the mutex: %+v", u.Module, enter)
	}
	w := enter.Waits[0]
	want := unload.Blocker{Kind: unload.KindTask, PID: owner, Comm: "busybox", Detail: "module_mutex"}
	if series == locksUnseen {
		want = unload.Blocker{}
	}
	if diff := cmp.Diff(want, w.Blocker, cmpopts.IgnoreFields(unload.Blocker{}, "Stack")); diff != "" {
		t.Errorf("the owner (-want +got):\n%s", diff)
	}
	return w.Duration
}
