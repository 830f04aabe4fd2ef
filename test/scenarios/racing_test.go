package scenarios

import (
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/modtrace/modtrace/test/lab/inguest"
	"github.com/modtrace/modtrace/unload"
)

// lives are the processes that a test started, and when each ended.
type lives struct {
	sync.Mutex
	ended map[int]time.Time // zero: it lives
}

// spend runs a program and notes when it is gone.
func (l *lives) spend(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	if err := cmd.Start(); err != nil {
		t.Error(err)
		return
	}
	l.Lock()
	l.ended[cmd.Process.Pid] = time.Time{}
	l.Unlock()
	err := cmd.Wait()
	l.Lock()
	l.ended[cmd.Process.Pid] = time.Now()
	l.Unlock()
	if err != nil && !strings.Contains(err.Error(), "killed") {
		t.Errorf("%v: %v", args, err)
	}
}

// blamed says whether a process was one of them and had ended by then.
func (l *lives) blamed(pid int, then time.Time) bool {
	l.Lock()
	defer l.Unlock()
	ended, mine := l.ended[pid]
	return mine && !ended.IsZero() && ended.Before(then)
}

// TestWhyRacing asks who holds modules while processes that hold them are forked, end
// and are killed, and while the modules are loaded and unloaded. Every answer adds up,
// names nobody who was gone before the question, and says so when nothing stood still;
// and nothing is held when all is over.
func TestWhyRacing(t *testing.T) {
	guest(t)
	fixture(t, "busy")
	removed(t, "busy", "user", "empty")
	l := &lives{ended: map[int]time.Time{}}
	var churn sync.WaitGroup
	var over atomic.Bool
	defer churn.Wait()
	defer over.Store(true)
	for _, script := range []string{
		"exec 7</dev/busy; sleep 0.3",
		"exec 7</dev/busy; (sleep 0.2) & sleep 0.1",
		"exec 7</dev/busy; kill -9 $$",
		"sleep 0.1",
	} {
		churn.Go(func() {
			for !over.Load() {
				l.spend(t, "sh", "-c", script)
				time.Sleep(20 * time.Millisecond) // and leave something of the processor
			}
		})
	}
	churn.Go(func() {
		for !over.Load() {
			for _, name := range []string{"empty", "user"} {
				if err := inguest.LoadFile("/fixtures/" + name + ".ko"); err != nil {
					t.Error(err)
				}
				time.Sleep(50 * time.Millisecond)
				if err := inguest.Unload(name); err != nil {
					t.Error(err)
				}
			}
		}
	})
	var a asked
	const enough = 8
	for a.times < enough {
		a.ask(t, l)
	}
	over.Store(true)
	churn.Wait()
	t.Logf("%+v, while %d processes came and went", a, len(l.ended))
	if a.holders == 0 {
		t.Error("nobody was ever found")
	}
	await(t, "the last of them to end", func() bool { count, _ := loaded(t, "busy"); return count == 0 })
	if err := unix.DeleteModule("busy", unix.O_NONBLOCK); err != nil {
		t.Errorf("unloading when all is over: %v", err)
	}
}

// asked is what came of asking, over and over.
type asked struct {
	times, holders int
	changing       int // answers that say that nothing stood still
}

func (a *asked) ask(t *testing.T, l *lives) {
	t.Helper()
	began := time.Now()
	r, list := why(t, "busy", "empty", "user")
	if !slices.Contains([]int{0, 10, 11, 13}, r.code) || r.stderr != "" || len(list) != 3 {
		t.Errorf("exit %d, %d answers: %s", r.code, len(list), r.stderr)
	}
	a.times++
	for _, w := range list {
		a.holders += len(w.Holders)
		changing := slices.ContainsFunc(w.Missing, func(m string) bool { return strings.Contains(m, "changed under the look") })
		if changing {
			a.changing++
		} else if w.Unexplained < 0 {
			t.Errorf("more is explained than there is, and nothing changed: %+v", w)
		}
		if i := slices.IndexFunc(w.Holders, func(h unload.Holder) bool { return l.blamed(h.PID, began) }); i >= 0 {
			t.Errorf("who was gone is blamed: %+v", w.Holders[i])
		}
	}
}
