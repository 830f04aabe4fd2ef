package tracer

import (
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/modtrace/modtrace/bpf"
	"github.com/modtrace/modtrace/procfs"
	"github.com/modtrace/modtrace/unload"
)

// lookEvent is a program's looking whether a module is in use, at its header's begin.
type lookEvent bpf.UnloadBegin

// lookers has the modules that rmmod or modprobe -r found in use. Those for which they
// end without having asked the kernel they have refused themselves.
type lookers struct{ pending []look }

type look struct {
	refusal unload.Unload
	ended   bool // at the last look at the process
}

// maxLooks bounds how many are kept, of processes that do not end.
const maxLooks = 256

// lookUsers is LOOK_USERS of bpf/event.h.
const lookUsers = 1 << 31

// addLook takes a look. What a program found last counts.
func (a *assembler) addLook(e *lookEvent) {
	b := (*bpf.UnloadBegin)(e)
	u := a.describe(&pending{begin: b}, taskKey{e.Header.Begin, e.Header.Tid})
	a.looks.asked(u.Caller.TID, u.Module)
	count := int64(int32(e.Count &^ lookUsers))
	if count <= 0 || !slices.Contains(removed(u.Caller.Cmdline), u.Module) || len(a.looks.pending) == maxLooks {
		return
	}
	u.Outcome, u.Complete = unload.Returned, true
	u.Refcount.Before = count
	u.Result = unload.Result{Reason: unload.ReasonReferenced, By: unload.ByUserspace}
	if e.Count&lookUsers != 0 {
		u.Result.Reason = unload.ReasonDependents
	}
	a.looks.pending = append(a.looks.pending, look{refusal: u})
}

// asked forgets what a task that asks the kernel has found before.
func (l *lookers) asked(tid int, module string) {
	l.pending = slices.DeleteFunc(l.pending, func(p look) bool {
		return p.refusal.Caller.TID == tid && p.refusal.Module == unload.Underscored(module)
	})
}

// over gives the refusals of programs that have ended. What they did last may still be
// on its way when they are found gone, and has come by the next time.
func (l *lookers) over(exists func(pid int) bool) (all []unload.Unload) {
	l.pending = slices.DeleteFunc(l.pending, func(p look) bool {
		if p.ended {
			all = append(all, p.refusal)
		}
		return p.ended
	})
	for i := range l.pending {
		l.pending[i].ended = !exists(l.pending[i].refusal.Caller.PID)
	}
	return all
}

// rest gives those that are left when nothing comes any more.
func (l *lookers) rest(exists func(pid int) bool) []unload.Unload {
	return append(l.over(exists), l.over(exists)...)
}

// pause is how soon to look for the ends of programs.
func (l *lookers) pause() time.Duration {
	if len(l.pending) == 0 {
		return time.Hour
	}
	return 10 * time.Millisecond
}

// exists says whether there is a process of that number which has not ended.
func exists(pid int) bool {
	stat, err := procfs.ReadStat(procfs.Task(pid))
	return err == nil && !stat.Ended()
}

// removed are the modules that a command line asks to be unloaded, if it is one that
// does so.
func removed(args []string) (names []string) {
	if len(args) == 0 {
		return nil
	}
	remove := func(arg string) bool {
		return arg == "--remove" || strings.HasPrefix(arg, "-") && !strings.HasPrefix(arg, "--") && strings.Contains(arg, "r")
	}
	if filepath.Base(args[0]) == "modprobe" && !slices.ContainsFunc(args[1:], remove) {
		return nil
	}
	for _, arg := range args[1:] {
		name, _, _ := strings.Cut(filepath.Base(arg), ".ko")
		names = append(names, unload.Underscored(name))
	}
	return names
}
