package scenarios

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/modtrace/modtrace/unload"
)

// oopses kill the task that unloads, in two ways. The module of each is going for
// ever, so that each wants a name of its own.
func oopses() map[string]struct{ parameter, says string } {
	return map[string]struct{ parameter, says string }{
		"oop3": {"bug=1", "kernel BUG at"},
		"oop4": {"bug=0", "Oops"},
	}
}

// TestOops has the exit function die under a modtrace that has seen an unload
// before and sees others after: it says what became of the module, and the
// others are traced as if nothing had been (S11).
func TestOops(t *testing.T) {
	guest(t)
	for name, o := range oopses() {
		t.Run(o.parameter, func(t *testing.T) {
			insertAs(t, "oops", name, o.parameter)
			r := aroundOops(t, name)
			if diff := cmp.Diff([]string{"slow", name, "slow", name, "slow"}, names(r.unloads)); diff != "" {
				t.Fatalf("unloads (-want +got):\n%s", diff)
			}
			died(t, r.unloads[1], o.says)
			if again := r.unloads[3]; again.Result.Reason != unload.ReasonUnloading || !again.Complete {
				t.Errorf("tried again: %+v, missing %q", again.Result, again.Missing)
			}
			for _, i := range []int{0, 2, 4} {
				conserved(t, r.unloads[i])
				whole(t, r.header.Plan, r.unloads[i])
				waitedAsTold(t, r.unloads[i])
			}
			if slices.ContainsFunc(r.stalls, func(st unload.Stall) bool { return st.Module == name }) {
				t.Errorf("the dead is told of as a stall: %+v", r.stalls)
			}
			// The one that died is not complete; what others did is.
			if r.lost() != 0 || r.trailer.Incomplete != 1 {
				t.Errorf("trailer %+v", r.trailer)
			}
		})
	}
}

// waitedAsTold checks what the slow module waited for in its exit function.
func waitedAsTold(t *testing.T, u unload.Unload) {
	t.Helper()
	got := causes(u)
	if n := got[unload.CauseRCU]; n < 1 || n > 2 { // one may be over before it is waited for
		t.Errorf("%d waits for grace periods", n)
	}
	delete(got, unload.CauseRCU)
	if diff := cmp.Diff(map[unload.Cause]int64{unload.CauseSleep: 1, unload.CauseWorkqueue: 1}, got); diff != "" {
		t.Errorf("waits in exit (-want +got):\n%s", diff)
	}
}

// aroundOops unloads a slow module under trace, and in between, twice, the one
// whose exit function dies.
func aroundOops(t *testing.T, name string) ran {
	t.Helper()
	const stall = 250 * time.Millisecond
	tr := trace(t, "--stall", stall.String())
	unloadSlow := func() {
		fixture(t, "slow", "sleep_ms=20", "work_ms=20", "sync_rcu=2")
		deleted(t, "slow")
	}
	unloadSlow()
	for range 2 {
		if status(t, "busybox", "rmmod", name) == nil {
			t.Errorf("%s was unloaded", name)
		}
		time.Sleep(2 * stall) // for a stall, of which there must be none
		unloadSlow()
	}
	if state := strings.TrimSpace(readFile(t, "/sys/module/"+name+"/initstate")); state != "going" {
		t.Errorf("%s is %s", name, state)
	}
	return tr.stop()
}

// died checks the report of an unload whose task died in exit().
func died(t *testing.T, u unload.Unload, says string) {
	t.Helper()
	conserved(t, u)
	if u.Outcome != unload.Died || u.Result.OK || u.Complete {
		t.Errorf("outcome %s, result %+v, complete %v", u.Outcome, u.Result, u.Complete)
	}
	if last := u.Phases[len(u.Phases)-1]; last.Name != unload.Exit {
		t.Errorf("it died in %s", last.Name)
	}
	const critical = 2
	if !slices.ContainsFunc(u.Log, func(l unload.LogLine) bool {
		return l.Phase == unload.Exit && l.Level == critical && strings.Contains(l.Text, says)
	}) {
		t.Errorf("no %q is marked in its log: %+v", says, u.Log)
	}
}

// causes counts the waits in exit by their cause; being preempted is chance.
func causes(u unload.Unload) map[unload.Cause]int64 {
	count := map[unload.Cause]int64{}
	for _, p := range u.Phases {
		for _, w := range p.Waits {
			if p.Name == unload.Exit && w.Cause != unload.CausePreempted {
				count[w.Cause] += w.Count
			}
		}
	}
	return count
}
