package output

import (
	"fmt"
	"reflect"
	"slices"

	"github.com/modtrace/modtrace/unload"
)

// Stall prints an unload that hangs: where, on whom, since when, who asked for
// it, and what can be done.
func (t *table) Stall(st unload.Stall) error {
	facts, err := t.factLines(t.stallFacts(st))
	if err != nil {
		return err
	}
	known := st.Unload
	known.Complete = true // it is not over: that needs no explanation
	if st.Found {
		known.Missing = nil // nor that it was not watched: how long it takes is given as a bound
	}
	return t.print(slices.Concat(t.sentence(red, t.stuck(st)), t.unknowns(known), t.stallTree(st), facts))
}

// stuck answers in one line where an unload hangs and on whom.
func (s screen) stuck(st unload.Stall) string {
	if st.Outcome == unload.Died {
		return s.dead(st)
	}
	text := s.name(st.Module, longestName) + " is stuck"
	if moves(st) {
		text = s.name(st.Module, longestName) + " is slow"
	}
	if st.Phase != "" {
		text += ": in " + s.place(current(st))
	}
	return text + s.lasted(st) + ", " + s.plight(st)
}

// lasted says for how long it has been like that, as far as that is known.
func (s screen) lasted(st unload.Stall) string {
	switch {
	case !st.Found:
		return " for " + s.duration(st.Elapsed)
	case st.Elapsed > 0:
		return " for at least " + s.duration(st.Elapsed)
	}
	return ""
}

// dead tells of an unload that nobody will bring to an end.
func (s screen) dead(st unload.Stall) string {
	text := s.name(st.Module, longestName) + " is half unloaded until reboot: "
	if st.Caller.Comm == "" {
		return text + "the task that unloaded it is gone"
	}
	text += fmt.Sprintf("the task that unloaded it, %s (pid %d), died", s.name(st.Caller.Comm, 32), st.Caller.PID)
	if st.Phase != "" {
		text += " in " + s.phase(st.Phase)
	}
	return text + " " + s.duration(st.Elapsed) + " ago"
}

// plight says what keeps a stalled unload: the wait it is in, or the many that
// it was in before.
func (s screen) plight(st unload.Stall) string {
	w, ok := lasting(st)
	switch {
	case ok && w.Duration >= st.Elapsed-st.Elapsed/10:
		w.Duration = 0 // goes without saying
		if s.agent(w.Blocker) != "" {
			w.Count = 1
		}
		return s.waiting(w)
	case ok:
		return s.waiting(w)
	case st.Wait.Count == 0 || current(st).OnCPU >= st.Elapsed/2:
		return s.running(current(st).Hot)
	}
	return "now " + s.waiting(st.Wait)
}

// lasting is what a stalled unload has been waiting for most of the time.
func lasting(st unload.Stall) (unload.Wait, bool) {
	w := st.Wait
	if w.Count > 0 && (w.Duration <= 0 || w.Duration >= st.Elapsed/2) {
		return w, true
	}
	most := folded(current(st).Waits)
	if len(most) > 0 && most[0].Duration >= st.Elapsed/2 {
		return most[0], true
	}
	return w, false
}

// moves says that an unload is slow rather than stuck: it waits again and
// again, and not because what it waits for is only looked at now and then.
func moves(st unload.Stall) bool {
	w, ok := lasting(st)
	switch {
	case !ok:
		return st.Wait.Count > 0
	case w.Count <= 1 || w.Blocker.PID != 0 || w.Blocker.Function != "":
		return false
	}
	switch w.Cause {
	case unload.CauseNetdevUsers, unload.CauseDeviceUsers, unload.CauseKernfsDrain, unload.CauseSleep:
		return false
	}
	return true
}

// current is the phase that a stalled unload is in, as far as it is known.
func current(st unload.Stall) unload.Phase {
	if n := len(st.Phases); n > 0 && st.Phases[n-1].Name == st.Phase {
		return st.Phases[n-1]
	}
	return unload.Phase{Name: st.Phase, Duration: st.Elapsed}
}

// stallTree is the tree with the present wait on top of its own limb.
func (s screen) stallTree(st unload.Stall) []string {
	if st.Outcome == unload.Died {
		return s.deathPlace(st)
	}
	if st.Wait.Count == 0 {
		return s.tree(st.Unload)
	}
	now := s.waitBranch(st.Wait, "is")
	if st.Wait.Duration <= 0 {
		now.label = "now"
	}
	p := current(st)
	p.OffCPU -= st.Wait.Duration // told already
	u := st.Unload
	u.Phases = slices.Clone(u.Phases)
	if n := len(u.Phases); n > 0 && u.Phases[n-1].Name == st.Phase {
		u.Phases = u.Phases[:n-1]
	}
	l := limb{head: s.place(p) + " is waiting for", branches: []branch{now}}
	if i := slices.IndexFunc(p.Waits, func(w unload.Wait) bool { return isNow(w, st.Wait) }); i >= 0 {
		p.Waits = slices.Delete(slices.Clone(p.Waits), i, i+1)
	}
	limbs, short := s.limbs(u)
	limbs = append(limbs, l)
	u.Phases = []unload.Phase{p}
	before, shorter := s.limbs(u)
	if len(p.Waits) > 0 && shorter == nil {
		before[0].head = s.place(p) + " has waited for"
	}
	return append(s.grow(append(limbs, before...)), s.short(append(short, shorter...), true)...)
}

// isNow says whether w, of the phase's waits, is the present one alone.
func isNow(w, now unload.Wait) bool {
	return w.Count == now.Count && w.Cause == now.Cause && reflect.DeepEqual(w.Stack, now.Stack) && w.Blocker.PID == now.Blocker.PID &&
		w.Duration >= now.Duration/2
}

// stallFacts tells who asked, what to do, and what the unload did so far. The
// rest is of interest once it is over.
func (s screen) stallFacts(st unload.Stall) []fact {
	all := []fact{{key: "caller", lines: s.callerLines(st.Caller)}}
	if parents := s.ancestors(st.Caller.Ancestors); parents != "" {
		all = append(all, fact{key: "parents", lines: []string{parents}})
	}
	if cgroup := s.clean(st.Caller.Cgroup); cgroup != "" {
		all = append(all, fact{key: "cgroup", lines: []string{cgroup}})
	}
	if text := began(st.Unload); text != "" {
		key := "began"
		switch {
		case st.Outcome == unload.Died:
			key = "died"
		case st.Found:
			text = "not before " + text + ", when its caller was started"
		}
		all = append(all, fact{key: key, lines: []string{text}})
	}
	if text := s.remedy(st); text != "" {
		all = append(all, fact{key: "to do", lines: []string{text}, whole: true})
	}
	return append(all, s.effects(st.Unload)...)
}

// deathPlace tells where a task died.
func (s screen) deathPlace(st unload.Stall) []string {
	at := s.spot(st.Wait.Stack)
	if at == "" && len(st.Wait.Stack) == 0 {
		return nil
	}
	l := limb{head: "it died in " + either("", at, "a place that is not known")}
	if s.verbose {
		l.branches = []branch{{text: "its stack:", more: s.frames(st.Wait.Stack)}}
	}
	return s.grow([]limb{l})
}
