package scenarios

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"
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

// TestSameWithAndWithout unloads each fixture in both ways; what the tool says
// and the machine's state are the same (S0).
func TestSameWithAndWithout(t *testing.T) {
	guest(t)
	for _, name := range []string{"empty", "slow", "leak", "device", "busy"} {
		t.Run(name, func(t *testing.T) {
			try := func(under bool) string {
				fixture(t, name)
				before, _ := loaded(t, name)
				args := []string{"rmmod", name}
				if under {
					args = append([]string{modtrace, "run", "--"}, args...)
				}
				err := exec.Command(args[0], args[1:]...).Run()
				var exit *exec.ExitError
				if err != nil && !errors.As(err, &exit) {
					t.Fatal(err)
				}
				_, still := loaded(t, name)
				return fmt.Sprintf("count %d, error %v, still loaded %v", before, err, still)
			}
			if without, with := try(false), try(true); without != with {
				t.Errorf("without: %s; with: %s", without, with)
			}
		})
	}
}
