package scenarios

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/modtrace/modtrace/test/lab"
	"github.com/modtrace/modtrace/unload"
)

// kernelState is what a tracer could leave behind.
type kernelState struct {
	Programs, Links, Maps int
	KprobeEvents          string
	Kprobes               string
}

func observe(t *testing.T) kernelState {
	t.Helper()
	s := kernelState{
		KprobeEvents: readFile(t, "/sys/kernel/tracing/kprobe_events"),
		Kprobes:      readFile(t, "/sys/kernel/debug/kprobes/list"),
	}
	for id, err := ebpf.ProgramID(0), error(nil); err == nil; s.Programs++ {
		id, err = ebpf.ProgramGetNextID(id)
	}
	for id, err := ebpf.MapID(0), error(nil); err == nil; s.Maps++ {
		id, err = ebpf.MapGetNextID(id)
	}
	links := new(link.Iterator)
	for links.Next() {
		s.Links++
	}
	links.Close()
	return s
}

// settled observes once what others left behind has gone: the kernel frees
// programs some time after their last user has let go.
func settled(t *testing.T) kernelState {
	t.Helper()
	var last kernelState
	await(t, "the kernel to settle", func() bool {
		before := last
		time.Sleep(500 * time.Millisecond)
		last = observe(t)
		return cmp.Equal(before, last)
	})
	return last
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestNothingIsLeft compares what the kernel holds before modtrace and after
// it, however it ended.
func TestNothingIsLeft(t *testing.T) {
	guest(t)
	for how, flags := range mechanisms() {
		t.Run(how, func(t *testing.T) {
			before := settled(t)
			tr := trace(t, flags...)
			if during := observe(t); during.Programs <= before.Programs || during.Maps <= before.Maps {
				t.Errorf("the test sees nothing of modtrace: before %+v, during %+v", before, during)
			}
			tr.stop()
			awaitState := func() bool { return cmp.Equal(before, observe(t)) }
			await(t, "all to be gone after INT", awaitState)

			killed := trace(t, flags...)
			if err := killed.cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = killed.cmd.Wait()
			await(t, "all to be gone after KILL", awaitState)
		})
	}
}

// TestModulesAreNotPinned loads modules before and while modtrace is attached
// and compares their counts: nothing of it may hold one (S0).
func TestModulesAreNotPinned(t *testing.T) {
	guest(t)
	names := []string{"busy", "user", "slow", "leak", "device"}
	counts := func() string {
		var b strings.Builder
		for _, name := range names {
			n, ok := loaded(t, name)
			fmt.Fprintln(&b, name, n, ok)
		}
		return b.String()
	}
	for how, flags := range mechanisms() {
		t.Run(how, func(t *testing.T) {
			for _, name := range names[:3] {
				fixture(t, name)
			}
			before := counts()
			tr := trace(t, flags...)
			if during := counts(); during != before {
				t.Errorf("attaching changes counts:\n%sto\n%s", before, during)
			}
			for _, name := range names[3:] {
				fixture(t, name)
			}
			during := counts()
			for i := len(names) - 1; i > 2; i-- {
				deleted(t, names[i])
			}
			tr.stop()
			if after := counts(); after != before {
				t.Errorf("detaching changes counts:\n%sto\n%s", before, after)
			}
			if strings.Contains(during, "false") {
				t.Errorf("not all loaded:\n%s", during)
			}
			deleted(t, "slow", "user", "busy")
		})
	}
}

// step is something done to the fixtures that every machine does the same way.
type step struct {
	what string
	do   func(t *testing.T) error
}

// loads are all the fixtures, with what makes each of them quick.
func loads() []step {
	load := func(name string, params ...string) step {
		return step{"load " + name, func(*testing.T) error {
			return tryInsert("/fixtures/"+name+".ko", params...)
		}}
	}
	return []step{
		load("empty"), load("many00"),
		load("slow", "sleep_ms=5", "spin_ms=2", "work_ms=5", "rcu_barrier=1", "sync_rcu=1"),
		load("busy"), load("user"), load("device", "count=3", "sleep_ms=2"),
		load("leak", "take_at_init=1"), load("notifier", "sleep_ms=3"), load("rcuhog"),
		load("release"), load("hang"), load("badinit", "init_sleep_ms=1"),
	}
}

// endings are their ends, refusals among them. The task that unloads oops
// dies of it, and the module is going for ever: each time wants a name of its own.
func endings(oops string) []step {
	rmmod := func(name string) step {
		return step{"rmmod " + strings.Replace(name, oops, "oops", 1), func(t *testing.T) error {
			return status(t, "busybox", "rmmod", name)
		}}
	}
	set := func(module, parameter, value string) step {
		return step{"set " + module, func(t *testing.T) error {
			setParameter(t, module, parameter, value)
			return nil
		}}
	}
	return []step{
		rmmod("noexit"), rmmod("badinit"), rmmod("empty"), rmmod("many00"), rmmod("slow"),
		rmmod("busy"), rmmod("user"), rmmod("busy"), rmmod("device"),
		rmmod("leak"), set("leak", "take", "0"), rmmod("leak"),
		rmmod("release"), set("release", "go", "1"), rmmod("hang"), rmmod("release"),
		rmmod("rcuhog"), rmmod("notifier"), rmmod(oops), rmmod(oops),
	}
}

// tryInsert loads a module and gives the kernel's answer.
func tryInsert(file string, params ...string) error {
	ko, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return unix.InitModule(ko, strings.Join(params, " "))
}

// status runs a command for its exit status.
func status(t *testing.T, args ...string) error {
	t.Helper()
	err := exec.Command(args[0], args[1:]...).Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return err
}

// life loads all fixtures, attaches, unloads them, and detaches. It notes, at
// each step, the answer, and the count and state of every module.
func life(t *testing.T, oops string, attach func() (detach func())) (transcript []string) {
	t.Helper()
	note := func(what string, result error) {
		transcript = append(transcript, fmt.Sprintf("%s: %v, then %s", what, result, census(t, oops)))
	}
	take := func(steps []step) {
		for _, s := range steps {
			note(s.what, s.do(t))
		}
	}
	loadOnce(t, "noexit")
	insertAs(t, "oops", oops)
	take(loads())
	detach := attach()
	note("attach", nil)
	take(endings(oops))
	detach()
	note("detach", nil)
	return transcript
}

// insertAs loads a fixture under another name of the same length.
func insertAs(t *testing.T, fixture, name string, params ...string) {
	t.Helper()
	ko, err := os.ReadFile("/fixtures/" + fixture + ".ko")
	if err != nil {
		t.Fatal(err)
	}
	if ko, err = lab.RenameModule(ko, fixture, name); err != nil {
		t.Fatal(err)
	}
	if err := unix.InitModule(ko, strings.Join(params, " ")); err != nil {
		t.Fatal(err)
	}
}

// census is the name, count and state of each module, oops under that name.
func census(t *testing.T, oops string) string {
	t.Helper()
	var list []string
	for line := range strings.Lines(readFile(t, "/proc/modules")) {
		f := strings.Fields(line)
		switch name := f[0]; {
		case name == oops:
			list = append(list, "oops "+f[2]+" "+f[4])
		case !strings.HasPrefix(name, "oop"):
			list = append(list, name+" "+f[2]+" "+f[4])
		}
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}

// TestSameWithAndWithout takes every fixture through its life with modtrace
// attached and without: what the kernel answers, and each module's count and
// state at each step, are the same (S0). The attempts are all reported, also
// the one that kills its task.
func TestSameWithAndWithout(t *testing.T) {
	guest(t)
	nothing := func() func() { return func() {} }
	without := life(t, "oop0", nothing)
	for how, flags := range mechanisms() {
		t.Run(how, func(t *testing.T) {
			oops := map[string]string{"best": "oop1", "kprobes": "oop2"}[how]
			var seen ran
			with := life(t, oops, func() func() {
				tr := trace(t, flags...)
				return func() { seen = tr.stop() }
			})
			if diff := cmp.Diff(without, with); diff != "" {
				t.Errorf("modtrace changes it (-without +with):\n%s", diff)
			}
			reported(t, seen, oops)
		})
	}
}

// reported holds what modtrace reported of a life against what was done.
func reported(t *testing.T, seen ran, oops string) {
	t.Helper()
	var want, got []string
	for _, s := range endings(oops) {
		if name, ok := strings.CutPrefix(s.what, "rmmod "); ok {
			want = append(want, name)
		}
	}
	for _, u := range seen.unloads {
		conserved(t, u)
		name := strings.Replace(u.Module, oops, "oops", 1)
		got = append(got, name)
		if died := name == "oops" && !slices.Contains(got[:len(got)-1], "oops"); died != (u.Outcome == unload.Died) {
			t.Errorf("%s: outcome %s", u.Module, u.Outcome)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("attempts (-made +reported):\n%s", diff)
	}
}
