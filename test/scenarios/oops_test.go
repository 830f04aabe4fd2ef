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
			tr := trace(t, "--stall", "250ms")
			unloadSlow := func() {
				fixture(t, "slow", "sleep_ms=20", "work_ms=20", "rcu_barrier=1", "sync_rcu=2")
				deleted(t, "slow")
			}
			unloadSlow()
			if status(t, "busybox", "rmmod", name) == nil {
				t.Errorf("%s was unloaded", name)
			}
			unloadSlow()
			if status(t, "busybox", "rmmod", name) == nil {
				t.Errorf("%s was unloaded at the second time", name)
			}
			time.Sleep(time.Second) // for a stall of the dead, of which there must be none
			unloadSlow()
			state := strings.TrimSpace(readFile(t, "/sys/module/"+name+"/initstate"))
			r := tr.stop()
			if state != "going" {
				t.Errorf("%s is %s", name, state)
			}
			if diff := cmp.Diff([]string{"slow", name, "slow", name, "slow"}, names(r.unloads)); diff != "" {
				t.Fatalf("unloads (-want +got):\n%s", diff)
			}
			died(t, r.unloads[1], o.says)
			if again := r.unloads[3]; again.Result.Reason != unload.ReasonUnloading || !again.Complete {
				t.Errorf("tried again: %+v, missing %q", again.Result, again.Missing)
			}
			for _, st := range r.stalls {
				if st.Module == name {
					t.Errorf("a stall in %s is told of", st.Phase)
				}
			}
			for _, u := range []unload.Unload{r.unloads[0], r.unloads[2], r.unloads[4]} {
				conserved(t, u)
				whole(t, r.header.Plan, u)
				if diff := cmp.Diff(causes(r.unloads[0]), causes(u)); diff != "" {
					t.Errorf("waits in exit (-before +after):\n%s", diff)
				}
			}
			// The one that died is not complete; what others did is.
			if r.lost() != 0 || r.trailer.Incomplete != 1 {
				t.Errorf("trailer %+v", r.trailer)
			}
		})
	}
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
