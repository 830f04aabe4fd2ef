package scenarios

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/modtrace/modtrace/test/lab/inguest"
	"github.com/modtrace/modtrace/unload"
)

// why asks who holds modules.
func why(t *testing.T, names ...string) (ran, []unload.Why) {
	t.Helper()
	r := run(t, append([]string{"why", "--json"}, names...)...)
	var list []unload.Why
	lines := bufio.NewScanner(strings.NewReader(r.stdout))
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		var w unload.Why
		decode(t, lines.Bytes(), &w)
		list = append(list, w)
	}
	for _, w := range list {
		accounted(t, w)
	}
	return r, list
}

// whyOne asks for one module.
func whyOne(t *testing.T, name string) (ran, unload.Why) {
	t.Helper()
	r, list := why(t, name)
	if len(list) != 1 {
		t.Fatalf("%d answers, exit %d: %s", len(list), r.code, r.stderr)
	}
	return r, list[0]
}

// accounted checks that no reference is made up or forgotten.
func accounted(t *testing.T, w unload.Why) {
	t.Helper()
	var sum int64
	for _, h := range w.Holders {
		sum += h.Refs
	}
	if w.Type != unload.TypeWhy || sum != w.Explained || w.Explained+w.Unexplained != w.Refcount {
		t.Errorf("%s: holders have %d, explained %d, unexplained %d, count %d", w.Module, sum, w.Explained, w.Unexplained, w.Refcount)
	}
}

// heldBy checks that the module busy has one reference, which is explained, and
// gives the holders of one kind.
func heldBy(t *testing.T, kind unload.HolderKind) []unload.Holder {
	t.Helper()
	r, w := whyOne(t, "busy")
	if r.code != 10 || w.Unexplained != 0 || w.Unloadable || w.Refcount != 1 {
		t.Errorf("exit %d, %+v\n%s", r.code, w, r.stderr)
	}
	var list []unload.Holder
	for _, h := range w.Holders {
		if h.Kind == kind {
			list = append(list, h)
		}
	}
	if len(list) == 0 {
		t.Fatalf("nobody of kind %s: %+v", kind, w)
	}
	return list
}

func open(t *testing.T, path string, flags int) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() }) // it may be closed already
	return f
}

// TestWhyNot asks for modules that nobody holds, or that cannot be unloaded
// whoever holds them.
func TestWhyNot(t *testing.T) {
	guest(t)
	fixture(t, "empty")
	removed(t, "empty")
	if _, there := loaded(t, "noexit"); !there { // another test may have left it, since nobody can remove it
		fixture(t, "noexit")
	}
	for _, c := range []struct {
		name   string
		code   int
		reason unload.Reason
		module string
	}{
		{"empty", 0, unload.ReasonNone, "empty"},
		{"/fixtures/empty.ko", 0, unload.ReasonNone, "empty"},
		{"enpty", 11, unload.ReasonNotFound, "enpty"},
		{"noexit", 12, unload.ReasonNoExit, "noexit"},
		{"printk", 12, unload.ReasonBuiltIn, "printk"},
	} {
		r, w := whyOne(t, c.name)
		if r.code != c.code || w.Reason != c.reason || w.Module != c.module || w.Unloadable != (c.code == 0) || len(w.Missing) != 0 {
			t.Errorf("%s: exit %d, %+v\n%s", c.name, r.code, w, r.stderr)
		}
		if c.name == "enpty" && !slices.Contains(w.Similar, "empty") {
			t.Errorf("like enpty are %q", w.Similar)
		}
	}
	if r, list := why(t, "empty", "enpty", "noexit"); r.code != 11 || len(list) != 3 {
		t.Errorf("three at once: exit %d, %d answers", r.code, len(list))
	}
	for _, bad := range []string{"", "no such", "a\x01b", strings.Repeat("x", 300), ".."} {
		oneMessage(t, run(t, "why", bad), 2, "is not a module's name")
	}
	many := make([]string, 200)
	for i := range many {
		many[i] = fmt.Sprintf("nosuch%d", i)
	}
	if r, list := why(t, many...); r.code != 11 || len(list) != 200 {
		t.Errorf("200 at once: exit %d, %d answers", r.code, len(list))
	}
}

// TestWhyChanging asks for modules that are coming or going. On a busy machine they may
// have come and gone by the time of the answer.
func TestWhyChanging(t *testing.T) {
	guest(t)
	if !whileChanging(t, "1500", false) {
		t.Log("it was asked too late")
		whileChanging(t, "10000", true)
	}
}

// whileChanging asks while it lasts, for so many ms; it returns false when that was too
// late, unless this is the last attempt.
func whileChanging(t *testing.T, ms string, last bool) (intime bool) {
	t.Helper()
	intime = true
	check := func(r ran, w unload.Why, state string, reason unload.Reason) {
		if r.code == 13 && w.State == state && w.Reason == reason {
			return
		}
		if intime = false; last {
			t.Errorf("%s: exit %d, %+v", reason, r.code, w)
		}
	}
	go func() { _ = exec.Command("insmod", "/fixtures/slow.ko", "init_sleep_ms="+ms).Run() }()
	await(t, "slow to be loading", func() bool { _, err := os.Stat("/sys/module/slow/initstate"); return err == nil })
	r, w := whyOne(t, "slow")
	check(r, w, "coming", unload.ReasonLoading)
	await(t, "slow to be loaded", func() bool { return strings.TrimSpace(readFile(t, "/sys/module/slow/initstate")) == "live" })
	inguest.SetParam(t, "slow", "sleep_ms", ms)
	gone := make(chan error, 1)
	go func() { gone <- unix.DeleteModule("slow", unix.O_NONBLOCK) }()
	await(t, "slow to be going", func() bool { return strings.TrimSpace(readFile(t, "/sys/module/slow/initstate")) == "going" })
	r, w = whyOne(t, "slow")
	check(r, w, "going", unload.ReasonUnloading)
	if err := <-gone; err != nil {
		t.Error(err)
	}
	return intime
}

// TestWhyFile has a device open in the ways that there are: one file is one
// reference, whoever shares it (S2).
func TestWhyFile(t *testing.T) {
	series := guest(t)
	fixture(t, "busy")
	removed(t, "busy")
	socket(t, unix.AF_INET, unix.SOCK_STREAM, 0) // which comes before it in the table of descriptors
	f := open(t, "/dev/busy", os.O_RDWR)
	second, err := unix.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	all := heldBy(t, unload.HolderFD) // modtrace itself is given the second
	h := all[0]
	if len(all) != 1 || h.PID != os.Getpid() || h.FD != int(f.Fd()) && h.FD != second || h.Path != "/dev/busy" || !strings.Contains(h.Detail, "also as descriptor") {
		t.Errorf("open twice: %+v", h)
	}
	child := exec.Command("sleep", "1000")
	child.ExtraFiles = []*os.File{f}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	var refs int64
	pids := map[int]bool{}
	for _, h := range heldBy(t, unload.HolderFD) {
		refs += h.Refs
		pids[h.PID] = true
	}
	if refs != 1 || !pids[os.Getpid()] || !pids[child.Process.Pid] {
		t.Errorf("shared with a child: %d references of %v", refs, pids)
	}
	_ = child.Process.Kill()
	_ = child.Wait() // it was killed

	mapped, err := unix.Mmap(int(f.Fd()), 0, os.Getpagesize(), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	if h := heldBy(t, unload.HolderFD)[0]; strings.Contains(h.Detail, "mapped") == strings.HasSuffix(series, "-5.10") {
		t.Errorf("open and mapped: %+v", h)
	}
	if err := unix.Close(second); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if strings.HasSuffix(series, "-5.10") { // no iterator over mappings before 5.12
		if _, w := whyOne(t, "busy"); w.Unexplained != 1 || len(w.Missing) != 1 || !strings.Contains(w.Missing[0], "mapped") {
			t.Errorf("only mapped: %+v", w)
		}
	} else if h := heldBy(t, unload.HolderMmap)[0]; h.PID != os.Getpid() || h.Path != "/dev/busy" || h.FD != -1 {
		t.Errorf("only mapped: %+v", h)
	}
	if err := unix.Munmap(mapped); err != nil {
		t.Fatal(err)
	}
	if r, _ := whyOne(t, "busy"); r.code != 0 {
		t.Errorf("closed: exit %d", r.code)
	}
}

// TestWhyContainer finds a process from outside of its namespaces and cgroup,
// without being told the device's node (S2).
func TestWhyContainer(t *testing.T) {
	guest(t)
	fixture(t, "busy")
	removed(t, "busy")
	id := strings.Repeat("0123456789abcdef", 4)
	group := "/sys/fs/cgroup/docker-" + id + ".scope"
	if err := os.MkdirAll(group, 0o755); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat("/dev/busy", &st); err != nil {
		t.Fatal(err)
	}
	node := filepath.Join(t.TempDir(), "odd node")
	if err := unix.Mknod(node, unix.S_IFCHR|0o600, int(st.Rdev)); err != nil {
		t.Fatal(err)
	}
	dir := open(t, group, os.O_RDONLY)
	child := exec.Command("sh", "-c", "exec 7<'"+node+"'; exec sleep 1000")
	child.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET, UseCgroupFD: true, CgroupFD: int(dir.Fd()),
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = child.Process.Kill()
		_ = child.Wait() // it was killed
		await(t, "the cgroup to be empty", func() bool { return os.Remove(group) == nil })
	})
	await(t, "the node to be open", func() bool { return strings.TrimSpace(readFile(t, "/sys/module/busy/refcnt")) == "1" })
	await(t, "the program to run", func() bool {
		return strings.HasPrefix(readFile(t, fmt.Sprintf("/proc/%d/comm", child.Process.Pid)), "sleep")
	})
	h := heldBy(t, unload.HolderFD)[0]
	want := unload.Holder{
		Kind: unload.HolderFD, Refs: 1, PID: child.Process.Pid, Comm: "sleep", Cgroup: "/docker-" + id + ".scope", Container: id,
		FD: 7, Path: node, Stack: []string{}, Confidence: unload.ByOwner,
	}
	if fmt.Sprintf("%+v", h) != fmt.Sprintf("%+v", want) {
		t.Errorf("got  %+v\nwant %+v", h, want)
	}
	table := run(t, "why", "busy").stdout
	first, _, _ := strings.Cut(table, "\n")
	if !strings.HasPrefix(first, fmt.Sprintf("busy is in use: 1 of 1 reference explained; process %d (sleep) holds", child.Process.Pid)) {
		t.Errorf("the first line is %q", first)
	}
}

// TestWhyModules is in use by modules, which are to be unloaded first (S4).
func TestWhyModules(t *testing.T) {
	guest(t)
	fixture(t, "busy")
	fixture(t, "user")
	removed(t, "busy")
	removed(t, "user")
	h := heldBy(t, unload.HolderModule)
	_, w := whyOne(t, "busy")
	if h[0].Module != "user" || w.Reason != unload.ReasonDependents || !slices.Equal(w.Dependents, []string{"user"}) || !slices.Equal(w.Plan, []string{"user", "busy"}) {
		t.Errorf("%+v", w)
	}
}

// TestWhyUnexplained holds a module from inside: nobody is blamed for that (S1, S6).
func TestWhyUnexplained(t *testing.T) {
	guest(t)
	fixture(t, "leak")
	removed(t, "leak")
	for range 3 {
		inguest.SetParam(t, "leak", "take", "1")
	}
	r, w := whyOne(t, "leak")
	if r.code != 10 || w.Refcount != 3 || w.Unexplained != 3 || len(w.Holders) != 0 || w.Reason != unload.ReasonReferenced ||
		len(w.Advice) != 1 || !strings.HasPrefix(w.Advice[0], "`modtrace refs leak` ") {
		t.Errorf("exit %d, %+v", r.code, w)
	}
	for range 3 {
		inguest.SetParam(t, "leak", "take", "0")
	}
	if r, _ := whyOne(t, "leak"); r.code != 0 {
		t.Errorf("dropped: exit %d", r.code)
	}
}

// TestWhyUnprivileged tells what it may and what it needs.
func TestWhyUnprivileged(t *testing.T) {
	guest(t)
	fixture(t, "busy")
	fixture(t, "user")
	removed(t, "busy")
	removed(t, "user")
	open(t, "/dev/busy", os.O_RDWR)
	cmd := command(t, "why", "--json", "busy")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	r := finish(t, cmd)
	var w unload.Why
	decode(t, []byte(r.stdout), &w)
	accounted(t, w)
	if r.code != 3 || w.Refcount != 2 || w.Explained != 1 || !slices.Equal(w.Dependents, []string{"user"}) || len(w.Missing) == 0 {
		t.Errorf("exit %d, %+v", r.code, w)
	}
	if !strings.Contains(r.stderr, "CAP_BPF") {
		t.Errorf("what is lacking is not said: %s", r.stderr)
	}
}

// TestWhyChangesNothing asks over and over while a module is loaded and unloaded
// and its device opened by processes that come and go: every unload has the result
// that it would have had, and nobody is blamed who is gone (S0).
func TestWhyChangesNothing(t *testing.T) {
	series := guest(t)
	// There, the kernel's own way to go over files holds each for a moment.
	holds := strings.HasSuffix(series, "-5.10")
	stop := time.Now().Add(8 * time.Second)
	asked := askOften(t, "busy", "empty")
	rounds := 0
	for time.Now().Before(stop) {
		fixture(t, "busy")
		if opened, held := openAndClose(t, "/dev/busy", "busy"); held > 0 && !holds {
			t.Errorf("still held in %d of %d cases when it had been closed", held, opened)
		}
		child := exec.Command("sh", "-c", "exec 7</dev/busy; exit 0")
		if err := child.Run(); err != nil {
			t.Errorf("opening: %v", err)
		}
		f := open(t, "/dev/busy", os.O_RDONLY)
		if err := unix.DeleteModule("busy", unix.O_NONBLOCK); err != unix.EWOULDBLOCK {
			t.Errorf("unloading while it is open: %v", err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		err := inguest.Unload("busy")
		for end := time.Now().Add(time.Second); holds && err != nil && time.Now().Before(end); {
			err = inguest.Unload("busy")
		}
		if err != nil {
			t.Errorf("unloading when it is closed: %v", err)
		}
		rounds++
	}
	t.Logf("%d rounds while it was asked %d times", rounds, asked())
}

// openAndClose opens and closes a node for a while, and tells how often its module was
// held when it had been closed.
func openAndClose(t *testing.T, node, module string) (opened, held int) {
	t.Helper()
	for end := time.Now().Add(200 * time.Millisecond); time.Now().Before(end); opened++ {
		f, err := os.Open(node)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(opened%50) * 20 * time.Microsecond)
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if count, _ := loaded(t, module); count != 0 {
			held++
		}
	}
	return opened, held
}

// TestWhyAsksForNoDescriptor names an open file although its descriptor cannot be looked
// at in /proc: there the kernel holds the file while it is asked, and one that is closed
// in that moment holds its module a little longer (fs/proc/fd.c, proc_fd_link).
func TestWhyAsksForNoDescriptor(t *testing.T) {
	if strings.HasSuffix(guest(t), "-5.10") {
		t.Skip("there, the kernel's own way to go over files holds each for a moment: the README says so")
	}
	fixture(t, "busy")
	removed(t, "busy")
	f := open(t, "/dev/busy", os.O_RDONLY)
	if err := unix.Mount("none", fmt.Sprintf("/proc/%d/task/%[1]d/fd", os.Getpid()), "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(fmt.Sprintf("/proc/%d/task/%[1]d/fd", os.Getpid()), 0); err != nil {
			t.Error(err)
		}
	}()
	if r, w := whyOne(t, "busy"); r.code != 10 || len(w.Holders) != 1 || w.Holders[0].FD != int(f.Fd()) || w.Holders[0].Path != "/dev/busy" {
		t.Errorf("exit %d, %+v", r.code, w)
	}
}

// askOften has a process of its own ask why over and over: one that is forked off this
// one would have its files open until it runs something else. It gives a function that
// ends that, and tells how often it was.
func askOften(t *testing.T, modules ...string) (stop func() int) {
	t.Helper()
	script := `trap 'exit 0' TERM; while :; do "$@" >/dev/null 2>/tmp/err; echo $?; cat /tmp/err; done`
	cmd := exec.CommandContext(t.Context(), "sh", slices.Concat([]string{"-c", script, "sh", modtrace, "why", "--json"}, modules)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() int {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("asking: %v", err)
		}
		answers := strings.Fields(out.String())
		for _, a := range answers {
			if !slices.Contains([]string{"0", "10", "11", "13"}, a) {
				t.Errorf("exit status or message %q", a)
			}
		}
		return len(answers)
	}
}

// TestRefusalNamesHolders unloads what is in use: the report of the refusal says who
// holds it.
func TestRefusalNamesHolders(t *testing.T) {
	guest(t)
	fixture(t, "busy")
	removed(t, "busy")
	f := open(t, "/dev/busy", os.O_RDWR)
	refuse := func(args ...string) ran {
		return run(t, append(args, "--", "busybox", "rmmod", "busy")...)
	}
	u := refuse("run", "--json").only(t)
	if u.Result.Reason != unload.ReasonReferenced || !u.HoldersKnown || len(u.Holders) != 1 || u.Holders[0].PID != os.Getpid() || u.Holders[0].FD != int(f.Fd()) {
		t.Errorf("result %+v, known %v, holders %+v", u.Result, u.HoldersKnown, u.Holders)
	}
	want := fmt.Sprintf("busy refused: 1 reference; process %d (%s) holds /dev/busy", os.Getpid(), strings.TrimSpace(readFile(t, "/proc/self/comm")))
	if table := refuse("run").stdout; !strings.HasPrefix(oneLine(table), want) {
		t.Errorf("no %q in front of:\n%s", want, table)
	}
	tr := trace(t)
	const tries = 50
	for range tries {
		if err := unix.DeleteModule("busy", unix.O_NONBLOCK); err != unix.EWOULDBLOCK {
			t.Errorf("unloading: %v", err)
		}
	}
	r := tr.stop()
	if len(r.unloads) != tries || !r.unloads[0].HoldersKnown || r.lost() != 0 {
		t.Errorf("%d refusals of %d, the first one's holders known: %v, %d events lost", len(r.unloads), tries, r.unloads[0].HoldersKnown, r.lost())
	}
}

// TestWhyWaits waits for a module to become free, and watches it until it is.
func TestWhyWaits(t *testing.T) {
	guest(t)
	fixture(t, "busy")
	removed(t, "busy")
	f := open(t, "/dev/busy", os.O_RDWR)
	began := time.Now()
	if r := run(t, "why", "--wait", "500ms", "busy"); r.code != 10 || time.Since(began) < 500*time.Millisecond {
		t.Errorf("held all the time: exit %d after %v", r.code, time.Since(began))
	}
	time.AfterFunc(time.Second, func() { _ = f.Close() })
	began = time.Now()
	r := run(t, "why", "--wait", "20s", "busy")
	if took := time.Since(began); r.code != 0 || took > 10*time.Second || !strings.HasPrefix(r.stdout, "busy can be unloaded now") {
		t.Errorf("let go of: exit %d after %v:\n%s", r.code, took, r.stdout)
	}
	f = open(t, "/dev/busy", os.O_RDWR)
	time.AfterFunc(2*time.Second, func() { _ = f.Close() })
	r = run(t, "why", "--watch", "--json", "busy")
	if n := strings.Count(r.stdout, "\n"); r.code != 0 || n != 2 {
		t.Errorf("watched: exit %d, %d answers:\n%s", r.code, n, r.stdout)
	}
	began = time.Now()
	if r := run(t, "why", "--wait", "20s", "nosuch"); r.code != 11 || time.Since(began) > 10*time.Second {
		t.Errorf("not loaded: exit %d after %v", r.code, time.Since(began))
	}
	oneMessage(t, run(t, "why", "--wait", "1s", "--watch", "busy"), 2, "watch")
}

// costOfWhy asks a few times, since a busy machine only adds to what it takes, and
// gives the least time on the CPU and the memory in kB.
func costOfWhy(t *testing.T) (cpu time.Duration, memory int64) {
	t.Helper()
	for i := range 3 {
		// A child's memory counts that of the process that it was forked from.
		cmd := exec.CommandContext(t.Context(), "busybox", "time", "-v", modtrace, "why", "--json", "busy")
		r := finish(t, cmd)
		resident := regexp.MustCompile(`Maximum resident set size \(kbytes\): (\d+)`).FindStringSubmatch(r.stderr)
		if r.code != 10 || resident == nil {
			t.Fatalf("exit %d: %s", r.code, r.stderr)
		}
		kB, err := strconv.ParseInt(resident[1], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		took := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		if i == 0 || took < cpu {
			cpu = took
		}
		memory = max(memory, kB)
	}
	return cpu, memory
}

// TestWhyManyFiles looks through many open files: it takes little, in proportion to
// their number, and no more memory.
func TestWhyManyFiles(t *testing.T) {
	guest(t)
	fixture(t, "busy")
	removed(t, "busy")
	open(t, "/dev/busy", os.O_RDWR)
	const most = 100_000
	limit := unix.Rlimit{Cur: most + 1000, Max: most + 1000}
	if err := errors.Join(os.WriteFile("/proc/sys/fs/nr_open", []byte("1048576"), 0), unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)); err != nil {
		t.Fatal(err)
	}
	var cpu []time.Duration
	var memory []int64
	fds := make([]int, 0, most)
	t.Cleanup(func() {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
	})
	for _, count := range []int{1000, 10_000, most} {
		for len(fds) < count {
			fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			fds = append(fds, fd)
		}
		least, kB := costOfWhy(t)
		cpu, memory = append(cpu, least), append(memory, kB)
	}
	for len(fds) < most+500 {
		fd, err := unix.Open("/dev/busy", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		fds = append(fds, fd)
	}
	if _, w := whyOne(t, "busy"); w.Refcount != 501 || w.Unexplained != 0 || len(w.Holders) != 501 {
		t.Errorf("%d references of 501, %d unexplained, %d holders", w.Refcount, w.Unexplained, len(w.Holders))
	}
	t.Logf("1,000, 10,000 and 100,000 open files: %v of CPU, %v kB", cpu, memory)
	// Busy with other machines, an emulator takes its time: the benchmark counts
	// instructions instead.
	if cpu[2] > 5*time.Second {
		t.Errorf("%v of CPU for 100,000 open files", cpu[2])
	}
	if memory[2] > memory[0]+memory[0]/4 {
		t.Errorf("memory grows with the number of files: %v kB", memory)
	}
}

// TestWhyUnowned has a file open whose operations name no owner: nothing forbids to
// unload the module, and why warns of it (S12).
func TestWhyUnowned(t *testing.T) {
	guest(t)
	fixture(t, "busy", "owner=0")
	removed(t, "busy")
	if r, w := whyOne(t, "busy"); r.code != 0 || len(w.Hazards) != 0 {
		t.Errorf("before it is open: exit %d, hazards %q", r.code, w.Hazards)
	}
	open(t, "/dev/busy", os.O_RDONLY)
	want := fmt.Sprintf("process %d (%s) has /dev/busy open without holding the module: unloading it would crash whoever uses that",
		os.Getpid(), strings.TrimSpace(readFile(t, "/proc/self/comm")))
	if r, w := whyOne(t, "busy"); r.code != 0 || !slices.Equal(w.Hazards, []string{want}) {
		t.Errorf("exit %d, hazards %q, want %q", r.code, w.Hazards, want)
	}
	if table := run(t, "why", "busy").stdout; !strings.Contains(oneLine(table), want) {
		t.Errorf("no %q in:\n%s", want, table)
	}
}

// TestModprobeWaits has modprobe try again until the holder lets go: each try is
// reported, and who had it then.
func TestModprobeWaits(t *testing.T) {
	if series := guest(t); strings.HasSuffix(series, "-5.10") {
		t.Skip("the modprobe of Debian 11 does not wait")
	}
	fixture(t, "busy")
	removed(t, "busy")
	f := open(t, "/dev/busy", os.O_RDWR)
	time.AfterFunc(6*time.Second, func() { _ = f.Close() })
	r := run(t, "run", "--json", "--", "modprobe", "-r", "--wait", "30000", "busy")
	if r.code != 0 || len(r.unloads) < 2 {
		t.Fatalf("exit %d, %d tries reported; stderr:\n%s", r.code, len(r.unloads), r.stderr)
	}
	known := 0
	for i, u := range r.unloads {
		if last := i == len(r.unloads)-1; u.Result.OK != last {
			t.Errorf("try %d of %d: %+v", i+1, len(r.unloads), u.Result)
		}
		if u.HoldersKnown && len(u.Holders) > 0 && u.Holders[0].PID == os.Getpid() {
			known++
		}
	}
	if known == 0 {
		t.Errorf("in none of %d tries is the holder named", len(r.unloads))
	}
}

// TestRefusedItself has rmmod and modprobe refuse without asking the kernel: they are
// reported like the kernel's refusals, with the holders (S7).
func TestRefusedItself(t *testing.T) {
	guest(t)
	fixture(t, "busy")
	fixture(t, "user")
	removed(t, "busy")
	removed(t, "user")
	open(t, "/dev/busy", os.O_RDWR)
	for _, c := range []struct {
		args   []string
		reason unload.Reason
		module string
		count  int64
	}{
		{[]string{"rmmod", "busy"}, unload.ReasonDependents, "busy", 2},
		{[]string{"modprobe", "-r", "busy"}, unload.ReasonDependents, "busy", 2},
		{[]string{"rmmod", "user", "busy"}, unload.ReasonReferenced, "busy", 1},
	} {
		r := run(t, append([]string{"run", "--json", "--"}, c.args...)...)
		if len(r.unloads) == 0 || r.code != 1 || r.trailer.Records != int64(len(r.unloads)) {
			t.Errorf("%v: exit %d, %d reported: %s", c.args, r.code, len(r.unloads), r.stderr)
			continue
		}
		u := r.unloads[len(r.unloads)-1]
		var refs int64
		for _, h := range u.Holders {
			refs += h.Refs
		}
		if len(u.Phases) != 0 || !u.Complete || u.Module != c.module || u.Result.By != unload.ByUserspace || u.Result.Reason != c.reason || u.Refcount.Before != c.count || refs != c.count ||
			!slices.Equal(u.Caller.Cmdline, c.args) || u.Caller.PID == 0 {
			t.Errorf("%v: %+v", c.args, u)
		}
	}
	if table := run(t, "run", "--", "rmmod", "busy").stdout; !strings.HasPrefix(oneLine(table), "busy refused by rmmod itself: 1 reference (the kernel was not asked); process") {
		t.Errorf("the table begins otherwise:\n%s", table)
	}
	refusedFurtherDown(t)
	if r := run(t, "run", "--json", "--", "rmmod", "nosuch"); len(r.unloads) != 0 {
		t.Errorf("a module that is not loaded: %+v", r.unloads)
	}
}

// refusedFurtherDown has scripts refused, and checks what is reported of them and of
// the whole machine. There, holders are looked for a tenth of the time at most.
func refusedFurtherDown(t *testing.T) {
	t.Helper()
	all := trace(t)
	check := func(u unload.Unload, by string, holders bool) {
		t.Helper()
		if u.Caller.Comm != by || u.Result.By != unload.ByUserspace || u.Refcount.Before != 1 || u.HoldersKnown != (len(u.Holders) > 0) || holders && !u.HoldersKnown {
			t.Errorf("refused by %s: %+v", by, u)
		}
	}
	commands := map[string]string{"rmmod": "rmmod busy", "modprobe": "modprobe -r busy"}
	for by, command := range commands {
		script := command + "; cat /sys/module/busy/initstate; modprobe -n busy; exit 0"
		check(run(t, "run", "--json", "--", "sh", "-c", script).only(t), by, true)
	}
	r := all.stop()
	if len(r.unloads) != len(commands) || r.trailer.Records != int64(len(commands)) {
		t.Fatalf("%d refusals reported, want %d:\n%s", len(r.unloads), len(commands), r.stdout)
	}
	for i, u := range r.unloads {
		check(u, u.Caller.Comm, i == 0)
	}
}

// TestWhyLivepatch enables a livepatch, which holds its module until it is disabled and
// nobody uses it any more. The kernel waits for every task there is, also for those that
// other tests have left.
func TestWhyLivepatch(t *testing.T) {
	if strings.HasPrefix(special(t, "livepatch"), "arm64") {
		t.Skip("Debian builds no livepatches there")
	}
	fixture(t, "patch")
	removed(t, "patch")
	r, w := whyOne(t, "patch")
	const path = "/sys/kernel/livepatch/patch"
	if r.code != 10 || w.Refcount != 1 || w.Unexplained != 0 || len(w.Holders) != 1 || w.Holders[0].Kind != unload.HolderLivepatch ||
		w.Holders[0].Path != path || !slices.Equal(w.Advice, []string{"echo 0 > " + path + "/enabled"}) {
		t.Errorf("exit %d, %+v", r.code, w)
	}
	await(t, "the livepatch to be in use", func() bool { return strings.TrimSpace(readFile(t, path+"/transition")) == "0" })
	if got := readFile(t, "/proc/cmdline"); got != "patched\n" {
		t.Errorf("not patched: %q", got)
	}
	if err := os.WriteFile(path+"/enabled", []byte("0"), 0); err != nil {
		t.Fatal(err)
	}
	await(t, "the livepatch to be gone", func() bool { count, _ := loaded(t, "patch"); return count == 0 })
	if r, w := whyOne(t, "patch"); r.code != 0 {
		t.Errorf("disabled: exit %d, %+v", r.code, w)
	}
}
