package scenarios

import (
	"maps"
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
				want := []unload.Cause{unload.CauseRCU, unload.CauseSleep, unload.CauseWorkqueue}
				if diff := cmp.Diff(want, causes(r.unloads[i])); diff != "" {
					t.Errorf("causes of waits in exit (-want +got):\n%s", diff)
				}
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

// causes are those of the waits in exit. How many there are of each is chance: a
// grace period may be over by the time that it is waited for. So is being
// preempted.
func causes(u unload.Unload) []unload.Cause {
	seen := map[unload.Cause]bool{}
	for _, p := range u.Phases {
		for _, w := range p.Waits {
			if p.Name == unload.Exit && w.Cause != unload.CausePreempted {
				seen[w.Cause] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(seen))
}
