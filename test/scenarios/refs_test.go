package scenarios

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/modtrace/modtrace/ledger"
	"github.com/modtrace/modtrace/test/lab/inguest"
	"github.com/modtrace/modtrace/unload"
)

// watchRefs starts modtrace refs and returns once references are seen.
func watchRefs(t *testing.T, args ...string) *tracing {
	t.Helper()
	tr := &tracing{t: t}
	ready := filepath.Join(t.TempDir(), "ready")
	tr.cmd = command(t, append([]string{"refs", "--ready-file", ready}, args...)...)
	tr.cmd.Stdout, tr.cmd.Stderr = &tr.stdout, &tr.stderr
	if err := tr.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tr.cmd.Process.Kill() }) // where a test has failed
	await(t, "modtrace to be ready", func() bool {
		_, err := os.Stat(ready)
		return err == nil
	})
	return tr
}

// accounts is a ledger as it was reported.
type accounts struct {
	ran
	balance unload.Balance
	entries []unload.Refs
	events  []unload.Ref
}

// ledger ends the watch, and gives what it reported, of which it checks that it adds
// up.
func (tr *tracing) ledger() accounts {
	tr.t.Helper()
	a := accounts{ran: tr.stop()}
	for line := range strings.Lines(a.stdout) {
		var kind struct{ Type string }
		decode(tr.t, []byte(line), &kind)
		switch kind.Type {
		case unload.TypeBalance:
			a.balance = unload.Balance{}
			decode(tr.t, []byte(line), &a.balance)
			a.entries = nil
		case unload.TypeRefs:
			var r unload.Refs
			decode(tr.t, []byte(line), &r)
			a.entries = append(a.entries, r)
		case unload.TypeRef:
			var r unload.Ref
			decode(tr.t, []byte(line), &r)
			a.events = append(a.events, r)
		}
	}
	a.addsUp(tr.t)
	return a
}

// addsUp checks that no reference is made up or forgotten.
func (a accounts) addsUp(t *testing.T) {
	t.Helper()
	b := a.balance
	if b.Before+b.Outstanding+b.Unexplained != b.Refcount {
		t.Errorf("%d before, %d outstanding and %d unexplained are not %d", b.Before, b.Outstanding, b.Unexplained, b.Refcount)
	}
	var gets, puts, outstanding int64
	for _, r := range a.entries {
		gets += r.Gets
		puts += r.Puts
		outstanding += r.Outstanding
		if r.Gets > 0 && r.Gets != r.Puts+r.HandedOver+r.Outstanding || r.Last.Before(r.First) || len(r.Stack) == 0 {
			t.Errorf("an entry contradicts itself: %+v", r)
		}
	}
	// Without a lock of the kernel's (5.10), a page may be in use for too long while a
	// processor of the machine is not emulated: then it is counted what was left out.
	busy := a.trailer.LostEvents["busy"]
	if gets+puts+busy != b.Gets+b.Puts || busy == 0 && (gets != b.Gets || puts != b.Puts || outstanding != b.Outstanding) {
		t.Errorf("the entries have %d gets, %d puts and %d outstanding, the balance %d, %d and %d", gets, puts, outstanding, b.Gets, b.Puts, b.Outstanding)
	}
	// Where tasks are preempted inside programs, these are skipped for others. That
	// may have been for another module's reference. What was left out are gets and puts.
	missed := a.trailer.MissedProbes
	if b.Unexplained+b.Unseen > missed+busy || a.lost() != busy || len(b.Missing) != 0 {
		t.Errorf("unexplained %d, unseen %d, lost %v, missed %d, %q", b.Unexplained, b.Unseen, a.trailer.LostEvents, missed, b.Missing)
	}
}

// entry gives the one entry of a site whose process is named so.
func (a accounts) entry(t *testing.T, site, comm string) unload.Refs {
	t.Helper()
	var found []unload.Refs
	for _, r := range a.entries {
		if r.Site == site && (comm == "" || strings.HasPrefix(r.Comm, comm)) {
			found = append(found, r)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d entries for %s by %q: %+v", len(found), site, comm, a.entries)
	}
	return found[0]
}

// in says whether a stack leads through a function.
func in(stack []string, function string) bool {
	return slices.ContainsFunc(stack, func(f string) bool { return strings.HasPrefix(f, function+"+") })
}

// TestRefsKernel has a kernel thread hold the module, with no file open and nobody to
// ask: the watch has its call site and stack (S1).
func TestRefsKernel(t *testing.T) {
	guest(t)
	fixture(t, "leak")
	removed(t, "leak")
	capture := filepath.Join(t.TempDir(), "capture")
	tr := watchRefs(t, "--json", "-o", capture, "leak")
	setParameter(t, "leak", "take_by_work", "1")
	time.Sleep(300 * time.Millisecond)
	a := tr.ledger()
	if got := readFile(t, capture); got != a.stdout {
		t.Errorf("the capture is not what was reported:\n%s\n%s", got, a.stdout)
	}
	setParameter(t, "leak", "take_by_work", "0")
	r := a.entry(t, "leak_take [leak]", "kworker")
	if a.balance.Refcount != 1 || r.Outstanding != 1 || r.Gone || r.HeldMax < 300e6 || !in(r.Stack, "leak_work_fn") || !in(r.Stack, "process_one_work") {
		t.Errorf("%+v\n%+v", a.balance, r)
	}
}

// TestRefsLeak has a process that ends leave a reference behind: the get is
// outstanding, by its name and stack (S6).
func TestRefsLeak(t *testing.T) {
	guest(t)
	fixture(t, "leak")
	removed(t, "leak")
	inguest.SetParam(t, "leak", "take", "1") // before anybody looks
	t.Cleanup(func() {
		inguest.SetParam(t, "leak", "take", "0")
		inguest.SetParam(t, "leak", "take", "0")
	})
	leaker := func(watch *tracing) *exec.Cmd {
		cmd := exec.Command("sh", "-c", "echo 1 > /sys/module/leak/parameters/take; echo 0 > /sys/module/leak/parameters/take; echo 1 > /sys/module/leak/parameters/take")
		if out, err := cmd.CombinedOutput(); err != nil {
			watch.t.Fatalf("%v: %s", err, out)
		}
		return cmd
	}
	tr := watchRefs(t, "--json", "leak")
	cmd := leaker(tr)
	a := tr.ledger()
	b, r := a.balance, a.entry(t, "leak_take [leak]", "sh")
	if b.Refcount != 2 || b.Initial != 1 || b.Before != 1 || b.Outstanding != 1 || b.Gets != 2 || b.Puts != 1 || b.Unsettled != 0 {
		t.Errorf("%+v", b)
	}
	if r.PID != cmd.Process.Pid || !r.Gone || r.Outstanding != 1 || !in(r.Stack, "leak_take") || !in(r.Stack, "param_attr_store") {
		t.Errorf("%+v", r)
	}
	inguest.SetParam(t, "leak", "take", "0")

	tr = watchRefs(t, "leak")
	cmd = leaker(tr)
	table := tr.stop().stdout
	want := fmt.Sprintf("leak has 2 references: 1 taken before, 1 outstanding of 2 taken since; process %d (sh), which has ended, took one in leak_take [leak],", cmd.Process.Pid)
	if got := strings.Join(strings.Fields(table), " "); !strings.HasPrefix(got, want) {
		t.Errorf("no %q in front of:\n%s", want, table)
	}
}

// TestRefsFlicker opens a device every few milliseconds by processes that come and go
// while another tries to unload the module: who held it is known, for how long and how
// often, and it all balances (S5).
func TestRefsFlicker(t *testing.T) {
	guest(t)
	fixture(t, "busy")
	removed(t, "busy")
	tr := watchRefs(t, "--json", "--raw", "busy")
	const processes = 100
	lostRaces := 0
	for i := range processes {
		f := open(t, "/dev/busy", os.O_RDWR)
		if i%10 == 0 {
			time.Sleep(50 * time.Millisecond)
		}
		if err := unix.DeleteModule("busy", unix.O_NONBLOCK); err == unix.EWOULDBLOCK {
			lostRaces++
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("sh", "-c", "exec 7</dev/busy").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	a := tr.ledger()
	b := a.balance
	if lostRaces != processes || b.Refcount != 0 || b.Outstanding != 0 || b.Gets != 2*processes || b.Puts != 2*processes || b.HandedOver != 0 {
		t.Errorf("%d lost races, %+v", lostRaces, b)
	}
	others, own := a.entry(t, "misc_open", "sh"), a.entry(t, "misc_open", "test")
	if others.Processes != processes || others.Gets != processes || others.Puts != processes || others.HeldMax <= 0 || others.Dropped != "__fput" {
		t.Errorf("those that came and went: %+v", others)
	}
	if own.PID != os.Getpid() || own.Gets != processes || own.HeldMax < 50e6 || own.Held < 500e6 || own.Held < own.HeldMax {
		t.Errorf("this process: %+v", own)
	}
	if len(a.events) != 4*processes {
		t.Errorf("%d events for %d gets and puts", len(a.events), 4*processes)
	}
	pids := map[int]bool{}
	for _, e := range a.events {
		pids[e.PID] = true
		if e.Op == "put" && (e.Held <= 0 || e.Taken != "misc_open") {
			t.Errorf("a put of nothing: %+v", e)
		}
	}
	if len(pids) != processes+1 {
		t.Errorf("%d processes, want %d", len(pids), processes+1)
	}
}

// TestRefsMillion takes and drops half a million references as fast as it goes:
// nothing is lost. With every one reported, what is lost is counted, to the unit.
func TestRefsMillion(t *testing.T) {
	guest(t)
	fixture(t, "leak")
	removed(t, "leak")
	const each = 500_000
	tr := watchRefs(t, "--json", "leak")
	began := time.Now()
	setParameter(t, "leak", "flicker", fmt.Sprint(each))
	t.Logf("%d gets and puts in %v", 2*each, time.Since(began))
	a := tr.ledger()
	if r := a.entry(t, "leak_take [leak]", ""); a.balance.Gets != each || a.balance.Puts != each || r.Gets != each || r.Puts != each || r.HeldMax <= 0 {
		t.Errorf("%+v\n%+v", a.balance, r)
	}

	const some = 50_000
	tr = watchRefs(t, "--json", "--raw", "--ring-bytes", "65536", "leak")
	setParameter(t, "leak", "flicker", fmt.Sprint(some))
	r := tr.stop()
	events := strings.Count(r.stdout, `{"type":"ref",`)
	lost := r.trailer.LostEvents["event"]
	if int64(events)+lost != 2*some || r.lost() != lost {
		t.Errorf("%d events and %v lost are not %d", events, r.trailer.LostEvents, 2*some)
	}
	t.Logf("with a small ring %d of %d events were lost", lost, 2*some)
	if !strings.Contains(r.stdout, fmt.Sprintf(`"gets":%d,"puts":%d`, some, some)) {
		t.Errorf("the balance does not have all of them")
	}
	ready := filepath.Join(t.TempDir(), "ready")
	done := make(chan ran)
	go func() {
		done <- run(t, "refs", "--raw", "--strict", "--ring-bytes", "4096", "--duration", "3s", "--ready-file", ready, "leak")
	}()
	await(t, "modtrace to be ready", func() bool { _, err := os.Stat(ready); return err == nil })
	setParameter(t, "leak", "flicker", "10000")
	if r := <-done; r.code != 4 || !strings.Contains(r.stderr, "events lost") {
		t.Errorf("exit %d with --strict: %s", r.code, r.stderr)
	}
}

// TestRefsFull has more processes hold the module than there is room for: what is not
// written down is counted, and not explained.
func TestRefsFull(t *testing.T) {
	guest(t)
	fixture(t, "busy")
	removed(t, "busy")
	const room, processes = 4, 12
	l, err := ledger.Start("busy", ledger.Options{Pages: room}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}()
	for range processes {
		child := exec.Command("sh", "-c", "exec 7</dev/busy; exec sleep 1000")
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = child.Process.Kill()
			_ = child.Wait() // it was killed
		})
	}
	await(t, "all to hold it", func() bool { return strings.TrimSpace(readFile(t, "/sys/module/busy/refcnt")) == fmt.Sprint(processes) })
	all, err := l.Ledger()
	if err != nil {
		t.Fatal(err)
	}
	lost := l.Stats().Lost["process"]
	if b := all.Balance; b.Gets != processes || b.Outstanding+lost != processes || b.Unexplained != lost || lost == 0 {
		t.Errorf("%d lost, %+v", lost, b)
	}
	if len(all.Entries) != processes-int(lost) {
		t.Errorf("%d entries, %d lost", len(all.Entries), lost)
	}
}

// TestRefsEvery reports meanwhile too, when something has changed.
func TestRefsEvery(t *testing.T) {
	guest(t)
	fixture(t, "leak")
	removed(t, "leak")
	tr := watchRefs(t, "--every", "100ms", "leak")
	setParameter(t, "leak", "take", "1")
	time.Sleep(time.Second)
	setParameter(t, "leak", "take", "0")
	time.Sleep(time.Second)
	table := tr.stop().stdout
	if n := strings.Count(table, "leak has "); n != 3 || !strings.Contains(table, "leak has 1 reference: 1 outstanding of 1 taken since") {
		t.Errorf("%d reports:\n%s", n, table)
	}
}

// sleeper holds the device open, as sleep.
func sleeper(t *testing.T) *exec.Cmd {
	t.Helper()
	child := exec.Command("sh", "-c", "exec 7</dev/busy; exec sleep 1000")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	await(t, "the child to sleep", func() bool {
		return strings.HasPrefix(readFile(t, fmt.Sprintf("/proc/%d/comm", child.Process.Pid)), "sleep")
	})
	return child
}

// TestRefsCrowd has a process hold more at a time than there is room for on its page,
// beside another: each has its own entry, and none goes missing.
func TestRefsCrowd(t *testing.T) {
	guest(t)
	fixture(t, "busy")
	removed(t, "busy")
	tr := watchRefs(t, "--json", "busy")
	const deep = 100 // more than a page has room for
	var files []*os.File
	for range deep {
		files = append(files, open(t, "/dev/busy", os.O_RDWR))
	}
	child := sleeper(t)
	for _, f := range files[:deep/2] {
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	a := tr.ledger()
	_ = child.Process.Kill()
	_ = child.Wait() // it was killed
	if r := a.entry(t, "misc_open", "test"); r.Gets != deep || r.Outstanding != deep/2 {
		t.Errorf("%+v", r)
	}
	if r := a.entry(t, "misc_open", "sleep"); r.Outstanding != 1 || r.PID != child.Process.Pid {
		t.Errorf("%+v", r)
	}
	for _, f := range files {
		_ = f.Close()
	}
}

// TestRefsParallel has threads of one process, and processes, take and drop references
// all at once: each is counted, and by the right ones.
func TestRefsParallel(t *testing.T) {
	guest(t)
	fixture(t, "busy")
	removed(t, "busy")
	tr := watchRefs(t, "--json", "busy")
	const threads, processes, times = 6, 3, 1000
	var done sync.WaitGroup
	for range processes {
		script := fmt.Sprintf("i=0; while [ $i -lt %d ]; do exec 7</dev/busy; exec 7<&-; i=$((i+1)); done", times)
		child := exec.Command("sh", "-c", script)
		if err := child.Start(); err != nil { // now: later, it would inherit open files
			t.Fatal(err)
		}
		done.Go(func() {
			if err := child.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
	for range threads {
		done.Go(func() {
			for range times {
				f, err := os.Open("/dev/busy")
				if err != nil {
					t.Error(err)
					return
				}
				f.Close()
			}
		})
	}
	done.Wait()
	a := tr.ledger()
	b, missed := a.balance, a.trailer.MissedProbes
	const all = (threads + processes) * times
	if b.Refcount != 0 || b.Outstanding != 0 || b.Unexplained != 0 || b.Gets+b.Puts > 2*all || b.Gets+b.Puts+missed < 2*all {
		t.Errorf("%d missed, %+v", missed, b)
	}
	busy := a.trailer.LostEvents["busy"]
	t.Logf("%d gets, %d puts, %d missed, %d left out", b.Gets, b.Puts, missed, busy)
	if missed+busy > 0 {
		return
	}
	if r := a.entry(t, "misc_open", "test"); r.Gets != threads*times || r.Puts != r.Gets {
		t.Errorf("%+v", r)
	}
	if r := a.entry(t, "misc_open", "sh"); r.Gets != processes*times || r.Puts != r.Gets || r.Processes != processes {
		t.Errorf("%+v", r)
	}
}

// TestRefsHandedOver has one process take references that another drops: a module that
// needs the other's symbols, and an open file that a child is left with.
func TestRefsHandedOver(t *testing.T) {
	guest(t)
	fixture(t, "busy")
	removed(t, "user")
	t.Cleanup(func() { _ = inguest.Unload("busy") }) // when the test has failed
	tr := watchRefs(t, "--json", "busy")
	for _, command := range []string{
		"insmod /fixtures/user.ko", "rmmod user", "sh -c 'exec 7</dev/busy; sleep 0.2 &'", "insmod /fixtures/user.ko",
	} {
		if out, err := exec.Command("busybox", "sh", "-c", command).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", command, err, out)
		}
	}
	await(t, "the child to end", func() bool { return strings.TrimSpace(readFile(t, "/sys/module/busy/refcnt")) == "1" })
	a := tr.ledger()
	if b := a.balance; b.Outstanding != 1 || b.Gets != 3 || b.Puts != 2 || b.HandedOver != 2 {
		t.Errorf("%+v", b)
	}
	if r := a.entries[0]; r.Outstanding != 1 || !r.Gone || !in(r.Stack, "load_module") {
		t.Errorf("the one that is left is not that of the module: %+v", r)
	}
	if err := errors.Join(inguest.Unload("user"), inguest.Unload("busy")); err != nil {
		t.Error(err)
	}
}

// TestRefsInTree watches modules of the kernel's own come into use: each reference
// that the kernel counts is accounted for, with its call site and stack.
func TestRefsInTree(t *testing.T) {
	series := special(t, "holders")
	for _, h := range heldOnes(series) {
		t.Run(h.module, func(t *testing.T) {
			if !loadHeld(t, h) {
				return
			}
			before, _ := loaded(t, h.module) // modules that need it, and its own socket
			tr := watchRefs(t, "--json", h.module)
			h.use(t)
			a := tr.ledger()
			if b := a.balance; b.Refcount != h.refs || b.Before != int64(before) || b.Outstanding != h.refs-b.Before || b.Unexplained != 0 {
				t.Errorf("%d before: %+v", before, b)
			}
			for _, r := range a.entries {
				t.Logf("%d of %d by %s in %s, %d dropped by others, %d ambiguous", r.Outstanding, r.Gets, r.Comm, r.Site, r.HandedOver, r.Ambiguous)
			}
		})
	}
}

// TestRefsBefore begins when references are held already: that they are dropped is
// no riddle when it is known who held them, and nothing is negative when it is not.
func TestRefsBefore(t *testing.T) {
	guest(t)
	fixture(t, "busy")
	removed(t, "busy")
	f := open(t, "/dev/busy", os.O_RDWR)
	tr := watchRefs(t, "--json", "busy")
	child := sleeper(t)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	a := tr.ledger()
	_ = child.Process.Kill()
	_ = child.Wait() // it was killed
	b := a.balance
	if b.Initial != 1 || b.Before != 0 || b.Outstanding != 1 || b.Gets != 1 || b.Puts != 1 || b.Unsettled != 0 || len(b.Holders) != 0 {
		t.Errorf("%+v", b)
	}
	if r := a.entry(t, "misc_open", "sleep"); r.Outstanding != 1 || r.PID != child.Process.Pid {
		t.Errorf("%+v", r)
	}

	fixture(t, "leak")
	removed(t, "leak")
	inguest.SetParam(t, "leak", "take", "1")
	tr = watchRefs(t, "--json", "leak")
	inguest.SetParam(t, "leak", "take", "0")
	b = tr.ledger().balance
	if b.Initial != 1 || b.Before != 0 || b.Refcount != 0 || b.Gets != 0 || b.Puts != 1 {
		t.Errorf("%+v", b)
	}
}

// TestRefsComesAndGoes watches a module that is not loaded yet, is loaded with a
// reference on itself, is unloaded, and comes back: the one by which the kernel holds
// it while it is loaded counts as nobody's.
func TestRefsComesAndGoes(t *testing.T) {
	guest(t)
	tr := watchRefs(t, "--json", "leak")
	fixture(t, "leak")
	inguest.SetParam(t, "leak", "take", "1")
	inguest.SetParam(t, "leak", "take", "0")
	if err := inguest.Unload("leak"); err != nil {
		t.Fatal(err)
	}
	fixture(t, "leak", "take_at_init=1")
	t.Cleanup(func() {
		inguest.SetParam(t, "leak", "take", "0")
		if err := inguest.Unload("leak"); err != nil {
			t.Error(err)
		}
	})
	a := tr.ledger()
	b := a.balance
	if b.Loads != 2 || b.Initial != 0 || b.Before != 0 || b.Refcount != 1 || b.Outstanding != 1 || b.Gets != 2 || b.Puts != 1 {
		t.Errorf("%+v", b)
	}
	found := slices.ContainsFunc(a.entries, func(r unload.Refs) bool {
		return r.Outstanding == 1 && r.Load == 2 && in(r.Stack, "do_init_module")
	})
	if !found {
		t.Errorf("who took it at init is not known:\n%s", a.stdout)
	}
	if !strings.Contains(a.stderr, "leak is not loaded; it is waited for") {
		t.Errorf("nobody was told: %s", a.stderr)
	}
}

// TestRefsHarmless unloads the module under the watch: the result and the count are
// as ever (S0).
func TestRefsHarmless(t *testing.T) {
	guest(t)
	fixture(t, "busy")
	tr := watchRefs(t, "busy")
	if n, ok := loaded(t, "busy"); !ok || n != 0 {
		t.Errorf("the count is %d", n)
	}
	if err := inguest.Unload("busy"); err != nil {
		t.Error(err)
	}
	first, _, _ := strings.Cut(tr.stop().stdout, "\n")
	if !strings.HasPrefix(first, "busy is not loaded, and") {
		t.Errorf("the first line is %q", first)
	}
}

// TestRefsUntyped watches by programs that the verifier knows less of.
func TestRefsUntyped(t *testing.T) {
	guest(t)
	fixture(t, "leak")
	removed(t, "leak")
	tr := watchRefs(t, "--json", "--hooks", "raw_tp", "leak")
	setParameter(t, "leak", "flicker", "1000")
	a := tr.ledger()
	if r := a.entry(t, "leak_take [leak]", ""); a.header.Plan[0].Mechanism != "raw_tp" || r.Gets != 1000 || r.Puts != 1000 {
		t.Errorf("%+v\n%+v", a.header, r)
	}
}

// TestRefsRefuses says what it needs.
func TestRefsRefuses(t *testing.T) {
	guest(t)
	oneMessage(t, run(t, "refs"), 2, "the name of one module")
	oneMessage(t, run(t, "refs", "a", "b"), 2, "the name of one module")
	oneMessage(t, run(t, "refs", "no such"), 2, "is not a module's name")
	if r := run(t, "refs", "printk"); r.code != 3 || !strings.Contains(r.stderr, "built into the kernel") {
		t.Errorf("what is built in: exit %d: %s", r.code, r.stderr)
	}
	cmd := command(t, "refs", "leak")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if r := finish(t, cmd); r.code != 3 || !strings.Contains(r.stderr, "CAP_BPF") {
		t.Errorf("without privileges: exit %d: %s", r.code, r.stderr)
	}
}
