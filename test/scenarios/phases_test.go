package scenarios

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/modtrace/modtrace/unload"
)

// expectedHooks is what each kernel lets modtrace see, by the means it takes
// there: the function where it is not the first choice, "-" where there is
// none. A hook that is lost or found shows here.
var expectedHooks = map[string]map[string]string{
	"amd64-5.10": {
		// How why finds holders, and refs watches references.
		"who has files open, and what these lead to": "iter task_file",
		"files that are mapped and not open":         "-",
		"what modules list by types of their own":    "-",
		"references taken":                           "tp_btf module_get",
		"references dropped":                         "tp_btf module_put",
		"the module is loaded":                       "tp_btf module_load",
		"it is unloaded":                             "tp_btf module_free",
		"enter":                                      "kprobe __x64_sys_delete_module",
		"free.params":                                "fentry destroy_params",
		"free.unlink":                                "fexit destroy_params",

		"who has the lock that a task waits for": "-",
		"the work item that is waited for":       "fentry flush_work",
		"the workqueue that is waited for":       "fentry flush_workqueue",
		"a task has the lock that it waited for": "-",

		"the callbacks on the notifier chain, one by one": "kprobe module_notify_list",

		"a device begins to be detached": "fentry __device_release_driver",
		"it is detached":                 "fexit __device_release_driver",
	},
	"amd64-6.1": {
		"the callbacks on the notifier chain, one by one": "kprobe module_notify_list",

		"the work item that is waited for": "fentry flush_work",
	},
	"amd64-6.12": {},
	"amd64-7":    {},
	"arm64-6.12": {
		"livepatch": "absent",
		"ftrace":    "fexit blocking_notifier_call_chain",
	},
}

// deviations lists what a plan does otherwise than by first choice.
func deviations(plan []unload.Hook) map[string]string {
	list := map[string]string{}
	for _, h := range plan {
		key := string(h.Phase)
		if key == "" {
			key = h.Sees
		}
		switch h.Status {
		case unload.StatusOK:
		case unload.StatusFallback:
			list[key] = h.Mechanism + " " + h.Function
		case unload.StatusAbsent:
			list[key] = "absent"
		default:
			list[key] = "-"
		}
	}
	return list
}

func expected(t *testing.T, series string) map[string]string {
	t.Helper()
	want, ok := expectedHooks[series]
	if !ok {
		t.Fatalf("nobody has said yet what to expect on %s", series)
	}
	return want
}

func TestPlan(t *testing.T) {
	series := guest(t)
	must(t, "modprobe", "loop") // a module whose types may be described
	r := run(t, "check", "--json")
	if r.code != 0 {
		t.Fatalf("check: exit %d\n%s", r.code, r.stderr)
	}
	var checked struct {
		Type     string
		Plan     []unload.Hook
		Holders  []unload.Hook
		Refs     []unload.Hook
		Tried    bool
		CanTrace bool `json:"can_trace"`
	}
	decode(t, []byte(r.stdout), &checked)
	if checked.Type != "check" || !checked.Tried || !checked.CanTrace {
		t.Errorf("check says %+v", checked)
	}
	if diff := cmp.Diff(expected(t, series), deviations(slices.Concat(checked.Plan, checked.Holders, checked.Refs))); diff != "" {
		t.Errorf("hooks other than the first choice (-want +got):\n%s", diff)
	}
}

// mechanisms are the ways of hooking that are tested one by one.
func mechanisms() map[string][]string {
	return map[string][]string{
		"best":    nil,
		"kprobes": {"--hooks", "kprobe,kretprobe,raw_tp"},
	}
}

// TestPhasesOfRealUnloads has real tools unload real modules and checks that
// every phase is there, in order, and adds up.
func TestPhasesOfRealUnloads(t *testing.T) {
	guest(t)
	for how, flags := range mechanisms() {
		for _, name := range []string{"empty", "slow", "busy", "leak", "device"} {
			t.Run(how+"/"+name, func(t *testing.T) {
				fixture(t, name)
				unloaded(t, flags, "rmmod", name)
			})
		}
		for _, name := range []string{"loop", "dummy", "tun"} {
			t.Run(how+"/"+name, func(t *testing.T) {
				if out, err := exec.Command("modprobe", name).CombinedOutput(); err != nil {
					t.Fatalf("modprobe %s: %v: %s", name, err, out)
				}
				unloaded(t, flags, "modprobe", "-r", name)
			})
		}
	}
}

// unloaded runs a command that unloads a module under modtrace and checks the
// report.
func unloaded(t *testing.T, flags []string, command ...string) {
	t.Helper()
	name := command[len(command)-1]
	args := append([]string{"run", "--json", "--strict"}, flags...)
	r := run(t, append(append(args, "--"), command...)...)
	if r.code != 0 {
		t.Fatalf("exit %d, stderr:\n%s", r.code, r.stderr)
	}
	if _, ok := loaded(t, name); ok {
		t.Fatalf("%s is still loaded", name)
	}
	for _, u := range r.unloads {
		conserved(t, u)
		if u.Module == name {
			whole(t, r.header.Plan, u)
			calledBy(t, u, command)
			return
		}
	}
	t.Fatalf("no unload of %s among %+v", name, r.unloads)
}

// whole checks that a report names every phase once and in order, each exact
// but for those that the plan says cannot be told apart.
func whole(t *testing.T, plan []unload.Hook, u unload.Unload) {
	t.Helper()
	if !u.Complete || !u.Result.OK || u.Result.Reason != unload.ReasonNone || u.LostEvents != 0 {
		t.Errorf("complete %v, missing %q, result %+v", u.Complete, u.Missing, u.Result)
	}
	missing := map[unload.PhaseName]bool{}
	for _, h := range plan {
		if h.Status == unload.StatusMissing {
			missing[h.Phase] = true
		}
	}
	var want, got []unload.PhaseName
	for _, name := range unload.PhaseNames() {
		if !missing[name] {
			want = append(want, name)
		}
	}
	for _, p := range u.Phases {
		got = append(got, p.Name)
		for _, m := range p.Merged {
			if !missing[m] {
				t.Errorf("%s is merged into %s although it is hooked", m, p.Name)
			}
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("phases (-want +got):\n%s", diff)
	}
}

// calledBy checks the caller against the command that was run.
func calledBy(t *testing.T, u unload.Unload, command []string) {
	t.Helper()
	c := u.Caller
	if strings.Join(c.Cmdline, " ") != strings.Join(command, " ") || c.UID != 0 || c.PID == 0 || c.TID != c.PID {
		t.Errorf("caller %+v, want %q", c, command)
	}
	if len(c.Ancestors) < 2 || c.Ancestors[0].Comm != "modtrace" || c.PPID != c.Ancestors[0].PID {
		t.Errorf("ancestors %+v of a child of %d, want modtrace first", c.Ancestors, c.PPID)
	}
	if !strings.HasPrefix(c.Exe, "/") {
		t.Errorf("executable %q", c.Exe)
	}
}

// TestTimeFallsIntoItsPhase unloads modules that are slow in a known place.
func TestTimeFallsIntoItsPhase(t *testing.T) {
	guest(t)
	const ms = int64(time.Millisecond)
	tests := []struct {
		what   string
		params []string
		phase  unload.PhaseName
		asleep bool
	}{
		{"sleep in exit", []string{"sleep_ms=200"}, unload.Exit, true},
		{"work flushed in exit", []string{"work_ms=200"}, unload.Exit, true},
		{"spin in exit", []string{"spin_ms=200"}, unload.Exit, false},
	}
	for how, flags := range mechanisms() {
		for _, test := range tests {
			t.Run(how+"/"+test.what, func(t *testing.T) {
				fixture(t, "slow", test.params...)
				u := run(t, append(append([]string{"run", "--json"}, flags...), "--", "rmmod", "slow")...).only(t)
				conserved(t, u)
				p := phase(t, u, test.phase)
				// Ticks that an emulator brings late let msleep end two of
				// them early.
				const early = 8 * ms
				if p.Duration < 200*ms-early {
					t.Errorf("%s took %d ns, want at least 200 ms", p.Name, p.Duration)
				}
				if asleep := p.OffCPU > p.OnCPU; asleep != test.asleep {
					t.Errorf("%s: %d ns on, %d ns off the CPU", p.Name, p.OnCPU, p.OffCPU)
				}
			})
		}
	}
}

// TestSlowNotifier has another module hold up the notifier chain.
func TestSlowNotifier(t *testing.T) {
	guest(t)
	fixture(t, "notifier", "sleep_ms=150")
	removed(t, "notifier")
	fixture(t, "empty")
	u := run(t, "run", "--json", "--", "rmmod", "empty").only(t)
	conserved(t, u)
	if p := phase(t, u, unload.Notify); p.Duration < int64(142*time.Millisecond) || p.OffCPU < p.OnCPU {
		t.Errorf("notify took %d ns, %d of it asleep", p.Duration, p.OffCPU)
	}
}

// TestFailedInitIsNoUnload loads a module whose init fails, which the kernel
// cleans up by the same function that ends an unload.
func TestFailedInitIsNoUnload(t *testing.T) {
	guest(t)
	tr := trace(t)
	for range 5 {
		out, err := exec.Command("insmod", "/fixtures/badinit.ko").CombinedOutput()
		if err == nil {
			t.Fatalf("badinit was loaded: %s", out)
		}
	}
	fixture(t, "empty")
	if out, err := exec.Command("rmmod", "empty").CombinedOutput(); err != nil {
		t.Fatalf("rmmod: %v: %s", err, out)
	}
	r := tr.stop()
	if u := r.only(t); u.Module != "empty" {
		t.Errorf("reported %q", u.Module)
	}
	if r.trailer == nil || r.trailer.Records != 1 {
		t.Errorf("trailer %+v", r.trailer)
	}
}

// TestReferences sees the references that an unload drops on other modules.
func TestReferences(t *testing.T) {
	guest(t)
	fixture(t, "busy")
	removed(t, "busy")
	fixture(t, "user")
	u := run(t, "run", "--json", "--", "rmmod", "user").only(t)
	for _, ref := range u.References {
		if ref.Op == "put" && ref.Module == "busy" && ref.Phase == unload.FreeDeps && ref.Count == 0 {
			return
		}
	}
	t.Errorf("no put on busy in free.deps among %+v", u.References)
}

// TestOnlyDescendants unloads beside the command that modtrace runs, and below
// it by a detour.
func TestOnlyDescendants(t *testing.T) {
	guest(t)
	fixture(t, "empty")
	fixture(t, "slow")
	fixture(t, "leak")
	gate := t.TempDir() + "/gate"
	script := "touch " + gate + ".started; while [ ! -e " + gate + " ]; do sleep 0.05; done;" +
		"(sh -c 'sleep 0.2; rmmod slow' &); sleep 1; rmmod empty"
	cmd := command(t, "run", "--json", "--", "sh", "-c", script)
	done := make(chan ran, 1)
	go func() { done <- finish(t, cmd) }()
	await(t, "the command to start", func() bool { _, err := os.Stat(gate + ".started"); return err == nil })
	if out, err := exec.Command("rmmod", "leak").CombinedOutput(); err != nil {
		t.Fatalf("rmmod leak: %v: %s", err, out)
	}
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r := <-done
	var got []string
	for _, u := range r.unloads {
		got = append(got, u.Module)
	}
	if diff := cmp.Diff([]string{"slow", "empty"}, got); diff != "" {
		t.Errorf("unloads (-want +got):\n%s%s", diff, r.stderr)
	}
}

// TestLeftBehind has a command end before the unload that it started has.
func TestLeftBehind(t *testing.T) {
	guest(t)
	fixture(t, "slow", "sleep_ms=1500")
	r := run(t, "run", "--json", "--", "sh", "-c", "rmmod slow & sleep 0.3")
	if u := r.only(t); !u.Complete || !u.Result.OK {
		t.Errorf("reported %+v", u)
	}
	if !strings.Contains(r.stderr, "waiting for 1 unload") {
		t.Errorf("nothing said about the wait:\n%s", r.stderr)
	}
}
