package scenarios

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/modtrace/modtrace/cause"
	"github.com/modtrace/modtrace/unload"
)

// inTree is a module of the kernel's own, taken through a life that ends with
// its unload.
type inTree struct {
	name   string
	module string
	lacks  []string // kernels that Debian builds without it
	steps  func() []step
	// answers are those to the attempts to unload, in their order.
	answers []answer
	check   func(t *testing.T, u unload.Unload) // of the devices that it detached
}

// answer is what the kernel says to an attempt.
type answer struct {
	Module string
	Reason unload.Reason
}

func inTreeModules() []inTree {
	return slices.Concat(loopModule(), dummyModule(), scsiModule(), soundModule(), zramModule())
}

// modprobe, rmmod and others are steps of such lives.
func modprobe(args ...string) step {
	return step{"modprobe " + strings.Join(args, " "), func(t *testing.T) error { modprobed(t, args...); return nil }}
}

// rmmod asks the kernel at once, without looking first.
func rmmod(module string) step {
	return step{"rmmod " + module, func(*testing.T) error {
		if out, err := exec.Command("busybox", "rmmod", module).CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}}
}

// unused waits until a module is let go of, which may take the kernel a while.
func unused(module string) step {
	return step{module + " unused", func(t *testing.T) error { awaitUnused(t, module); return nil }}
}

func set(file, value string) step {
	return step{"set " + file, func(*testing.T) error { return os.WriteFile(file, []byte(value), 0) }}
}

// held keeps a file open from one step to another.
func held(name string) (open, shut step) {
	var f *os.File
	open = step{"open " + name, func(t *testing.T) (err error) {
		await(t, name, func() bool { _, err := os.Stat(name); return err == nil })
		f, err = os.Open(name)
		return err
	}}
	shut = step{"close " + name, func(*testing.T) error { return f.Close() }}
	return open, shut
}

func loopModule() []inTree {
	return []inTree{{
		name: "loop", module: "loop",
		steps: func() []step {
			return []step{
				modprobe("loop"), {"add devices", addLoops}, eachLoop("attach", attachLoop), rmmod("loop"),
				eachLoop("detach", detachLoop), unused("loop"), rmmod("loop"),
			}
		},
		answers: []answer{{"loop", unload.ReasonReferenced}, {"loop", unload.ReasonNone}},
	}}
}

// loops is how many devices there are to be, more than come by themselves.
const loops = 12

func addLoops(*testing.T) error {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer control.Close()
	for i := range loops {
		if err := unix.IoctlSetInt(int(control.Fd()), unix.LOOP_CTL_ADD, i); err != nil && err != unix.EEXIST {
			return err
		}
	}
	return nil
}

func eachLoop(what string, do func(loop *os.File) error) step {
	return step{what, func(*testing.T) error {
		for i := range loops {
			loop, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", i), os.O_RDWR, 0)
			if err != nil {
				return err
			}
			if err := errors.Join(do(loop), loop.Close()); err != nil {
				return err
			}
		}
		return nil
	}}
}

// attachLoop gives a device a file that has no name any more.
func attachLoop(loop *os.File) error {
	file, err := os.CreateTemp("", "modtrace-loop")
	if err != nil {
		return err
	}
	defer file.Close()
	if err := errors.Join(os.Remove(file.Name()), file.Truncate(1<<20)); err != nil {
		return err
	}
	return unix.IoctlSetInt(int(loop.Fd()), unix.LOOP_SET_FD, int(file.Fd()))
}

func detachLoop(loop *os.File) error {
	return unix.IoctlSetInt(int(loop.Fd()), unix.LOOP_CLR_FD, 0)
}

func dummyModule() []inTree {
	const interfaces = 200
	return []inTree{{
		name: "dummy", module: "dummy",
		steps: func() []step {
			return []step{
				modprobe("dummy", fmt.Sprint("numdummies=", interfaces)),
				{"all there", func(t *testing.T) error {
					all, err := filepath.Glob("/sys/class/net/dummy*")
					if len(all) != interfaces {
						t.Errorf("%d interfaces, want %d", len(all), interfaces)
					}
					return err
				}},
				rmmod("dummy"),
			}
		},
		answers: []answer{{"dummy", unload.ReasonNone}},
	}}
}

// noEmulatedHardware are kernels that Debian builds without emulated disks and
// sound cards.
func noEmulatedHardware() []string { return []string{"arm64-6.12"} }

func scsiModule() []inTree {
	const disk = "/dev/sda"
	// Its disk is probed in the background, with the module in use.
	probed := step{"modprobe scsi_debug", func(t *testing.T) error {
		modprobed(t, "scsi_debug", "delay=0", "dev_size_mb=8")
		await(t, disk, func() bool { _, err := os.Stat(disk); return err == nil })
		awaitUnused(t, "scsi_debug")
		return nil
	}}
	return []inTree{{
		name: "scsi_debug", module: "scsi_debug", lacks: noEmulatedHardware(),
		steps: func() []step {
			open, shut := held(disk)
			return []step{
				modprobe("sd_mod"), probed,
				open, rmmod("scsi_debug"), shut, unused("scsi_debug"), rmmod("scsi_debug"),
			}
		},
		answers: []answer{{"scsi_debug", unload.ReasonReferenced}, {"scsi_debug", unload.ReasonNone}},
		check: func(t *testing.T, u unload.Unload) {
			detached(t, u, "scsi_debug", "adapter0")
			detached(t, u, "sd", ":0:0:0")
		},
	}}
}

func soundModule() []inTree {
	return []inTree{{
		name: "sound", module: "snd_dummy", lacks: noEmulatedHardware(),
		steps: func() []step {
			open, shut := held("/dev/snd/controlC0")
			return []step{
				modprobe("snd-dummy"),
				rmmod("soundcore"), rmmod("snd"), rmmod("snd_pcm"),
				open, rmmod("snd_dummy"), shut, unused("snd_dummy"), rmmod("snd_dummy"),
			}
		},
		answers: []answer{
			{"soundcore", unload.ReasonDependents}, {"snd", unload.ReasonDependents}, {"snd_pcm", unload.ReasonDependents},
			{"snd_dummy", unload.ReasonReferenced}, {"snd_dummy", unload.ReasonNone},
		},
		check: func(t *testing.T, u unload.Unload) { detached(t, u, "snd_dummy", "snd_dummy.0") },
	}}
}

func zramModule() []inTree {
	const device, sysfs = "/dev/zram0", "/sys/block/zram0/"
	configured := []step{
		modprobe("zram"), set(sysfs+"disksize", "16M"),
		{"write", func(*testing.T) error { return os.WriteFile(device, make([]byte, 4<<20), 0) }},
	}
	return []inTree{
		{
			name: "zram", module: "zram",
			steps: func() []step {
				open, shut := held(device)
				return slices.Concat(configured, []step{open, rmmod("zram"), shut, unused("zram"), rmmod("zram")})
			},
			answers: []answer{{"zram", unload.ReasonReferenced}, {"zram", unload.ReasonNone}},
		},
		{
			name: "zram after reset", module: "zram",
			steps: func() []step {
				return slices.Concat(configured, []step{set(sysfs+"reset", "1"), rmmod("zram")})
			},
			answers: []answer{{"zram", unload.ReasonNone}},
		},
	}
}

// detached checks that a device whose name ends so is among those that an unload
// took from a driver, with its time.
func detached(t *testing.T, u unload.Unload, driver, ending string) {
	t.Helper()
	exit := phase(t, u, unload.Exit)
	for _, d := range u.Devices {
		if d.Driver == driver && strings.HasSuffix(d.Device, ending) {
			if d.Duration <= 0 || d.Duration > exit.Duration {
				t.Errorf("%s took %d ns of %d in exit", d.Device, d.Duration, exit.Duration)
			}
			return
		}
	}
	t.Errorf("no device %s of driver %s among %+v", ending, driver, u.Devices)
}

// life takes the module through its life, and notes each answer and count.
func (m inTree) life(t *testing.T) (transcript []string) {
	t.Helper()
	for _, s := range m.steps() {
		err := s.do(t)
		count, ok := loaded(t, m.module)
		transcript = append(transcript, fmt.Sprintf("%s: %v, then %s %d %v", s.what, err, m.module, count, ok))
	}
	return transcript
}

// TestInTree unloads modules that come with the kernel, with devices that were
// used, without modtrace and with it: the answers and counts are the same, the
// reports add up, and hardly any wait is without a cause.
func TestInTree(t *testing.T) {
	series := guest(t)
	for _, m := range inTreeModules() {
		if slices.Contains(m.lacks, series) {
			continue
		}
		t.Run(m.name, func(t *testing.T) {
			without := m.life(t)
			tr := trace(t, "--strict")
			with := m.life(t)
			r := tr.stop()
			if diff := cmp.Diff(without, with); diff != "" {
				t.Errorf("modtrace changes it (-without +with):\n%s", diff)
			}
			var got []answer
			for _, u := range r.unloads {
				conserved(t, u)
				got = append(got, answer{u.Module, u.Result.Reason})
				if u.Result.OK {
					whole(t, r.header.Plan, u)
					explained(t, u)
					if m.check != nil {
						m.check(t, u)
					}
				}
			}
			if diff := cmp.Diff(m.answers, got); diff != "" {
				t.Errorf("answers (-want +reported):\n%s", diff)
			}
		})
	}
}

// explained checks that of the time off the CPU at least 95% have a cause, and
// that waits are told apart by who called for them.
func explained(t *testing.T, u unload.Unload) {
	t.Helper()
	var all, known int64
	for _, p := range u.Phases {
		for _, w := range p.Waits {
			all += w.Duration
			if w.Cause == unload.CauseOther {
				t.Logf("%s: %d ns in %s without a cause: %q", u.Module, w.Duration, p.Name, w.Stack)
				continue
			}
			known += w.Duration
			if w.Cause != unload.CausePreempted && cause.Site(w.Stack) == len(w.Stack) {
				t.Errorf("%s: nobody called for a wait in %s: %+v", u.Module, p.Name, w)
			}
		}
	}
	t.Logf("%s: of %d ns off the CPU, %d have a cause", u.Module, all, known)
	if known < all*95/100 || all == 0 {
		t.Errorf("%s: of %d ns off the CPU, only %d have a cause", u.Module, all, known)
	}
}

// TestInTreeChain unloads a module with all that it needs, in the order in which
// they can go: each is reported, with the reference that its unload drops (S4).
func TestInTreeChain(t *testing.T) {
	if series := guest(t); slices.Contains(noEmulatedHardware(), series) {
		t.Skip("this kernel has no emulated sound card")
	}
	modprobed(t, "snd-dummy")
	chain := []string{"snd_dummy", "snd_pcm", "snd_timer", "snd", "soundcore"}
	r := run(t, append([]string{"run", "--json", "--strict", "--", "busybox", "rmmod"}, chain...)...)
	if r.code != 0 {
		t.Errorf("exit %d\n%s", r.code, r.stderr)
	}
	if diff := cmp.Diff(chain, names(r.unloads)); diff != "" {
		t.Fatalf("unloads (-want +got):\n%s", diff)
	}
	for i, u := range r.unloads {
		conserved(t, u)
		whole(t, r.header.Plan, u)
		explained(t, u)
		if i < len(chain)-1 && !drops(u, chain[i+1]) {
			t.Errorf("%s drops no reference on %s: %+v", u.Module, chain[i+1], u.References)
		}
	}
}

// drops says whether an unload gave up its module's reference on another.
func drops(u unload.Unload, module string) bool {
	return slices.ContainsFunc(u.References, func(ref unload.Reference) bool {
		return ref.Op == "put" && ref.Module == module && ref.Phase == unload.FreeDeps
	})
}
