package scenarios

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/modtrace/modtrace/test/lab"
)

// The recordings in tracer/testdata, which the tracer's tests replay on any
// machine, are made anew by one command:
//
//	MODTRACE_LAB=1 go test ./test/scenarios -run '^TestRecord$' -timeout 30m -raw-dir "$PWD/tracer/testdata"
var rawDir = flag.String("raw-dir", "", "write recordings of raw events, and the live reports, to `DIR`")

// recording is a command whose unloads are recorded: the raw events of the
// kernel side, and the report that was made of them live.
type recording struct {
	name   string
	setUp  func(t *testing.T)
	flags  []string // of modtrace
	script string   // what runs under it, as a child of modtrace itself
	after  func(t *testing.T)
	code   int
}

// recordedSeries are kernels with plans that differ.
var recordedSeries = []string{"amd64-6.12", "amd64-5.10", "amd64-7", "arm64-6.12"}

// recordings lists what is recorded on a kernel: everything on the first, and
// on the others what their plans make different.
func recordings(series string) []recording {
	slow := recording{
		name:   "slow",
		setUp:  func(t *testing.T) { fixture(t, "slow", "sleep_ms=20", "work_ms=10", "spin_ms=5") },
		script: "busybox rmmod slow",
	}
	dependents := recording{
		name:   "dependents",
		setUp:  func(t *testing.T) { fixture(t, "busy"); fixture(t, "user") },
		script: "busybox rmmod busy; busybox rmmod user; busybox rmmod busy",
	}
	spin := recording{
		name:   "spin",
		setUp:  func(t *testing.T) { fixture(t, "slow", "spin_ms=60") },
		script: "busybox rmmod slow",
	}
	list := []recording{slow, dependents, spin}
	for _, h := range hangs() {
		list = append(list, recordingOf(h))
	}
	if series == recordedSeries[0] {
		list = append(list, recordingsOfOneKernel()...)
	}
	return list
}

// recordingOf records an unload that hangs for a while, and is told of meanwhile.
func recordingOf(h hang) recording {
	return recording{
		name:  "hang-" + h.kind,
		setUp: func(t *testing.T) { setToHang(t, h.kind) },
		flags: []string{"--stall", "200ms"},
		script: "busybox rmmod hang & " + untilGoing("hang") +
			"sleep 0.5; echo 1 >/sys/module/release/parameters/go; wait",
	}
}

func recordingsOfOneKernel() []recording {
	return []recording{
		{
			name:   "device",
			setUp:  func(t *testing.T) { fixture(t, "device") },
			script: "busybox rmmod device",
		},
		{
			name:   "empty",
			setUp:  func(t *testing.T) { fixture(t, "empty") },
			script: "busybox rmmod empty",
		},
		{
			name:   "referenced",
			setUp:  func(t *testing.T) { fixture(t, "leak", "take_at_init=1") },
			script: "busybox rmmod leak",
			after:  func(t *testing.T) { setParameter(t, "leak", "take", "0"); deleted(t, "leak") },
			code:   1,
		},
		{
			name:   "forced",
			setUp:  func(t *testing.T) { fixture(t, "leak", "take_at_init=1") },
			script: "busybox rmmod -f leak",
		},
		{
			name:   "noexit",
			setUp:  func(t *testing.T) { loadOnce(t, "noexit") },
			script: "busybox rmmod noexit",
			code:   1,
		},
		{
			name:   "notfound",
			script: "busybox rmmod nosuch",
			code:   1,
		},
		{
			name:   "unloading",
			setUp:  func(t *testing.T) { fixture(t, "slow", "sleep_ms=500") },
			script: "busybox rmmod slow & " + untilGoing("slow") + "busybox rmmod slow; wait",
		},
		{
			name: "several",
			setUp: func(t *testing.T) {
				fixture(t, "slow", "sleep_ms=100")
				fixture(t, "device")
				fixture(t, "empty")
				fixture(t, "leak")
			},
			script: "for m in slow device empty leak; do busybox rmmod $m & done; wait",
		},
		{
			name:   "kprobes",
			setUp:  func(t *testing.T) { fixture(t, "busy"); fixture(t, "user") },
			flags:  mechanisms()["kprobes"],
			script: "busybox rmmod busy; busybox rmmod user; busybox rmmod busy",
		},
		{
			// The unload outlives the trace, and the shell: nothing of it may
			// hold on to the streams of modtrace.
			name:  "inflight",
			setUp: func(t *testing.T) { fixture(t, "release"); fixture(t, "hang") },
			script: "busybox rmmod hang </dev/null >/dev/null 2>&1 & " + untilGoing("hang") +
				"sleep 0.1; kill -INT $PPID; wait",
			after: func(t *testing.T) {
				setParameter(t, "release", "go", "1")
				await(t, "hang to be gone", func() bool { _, ok := loaded(t, "hang"); return !ok })
				deleted(t, "release")
			},
			code: 130,
		},
		{
			// The smallest ring overflows while its reader stands still; it
			// is of a size that the last attempt's beginning still fits in.
			name:   "lost",
			setUp:  func(t *testing.T) { fixture(t, "busy"); fixture(t, "user") },
			flags:  []string{"--ring-bytes", fmt.Sprint(os.Getpagesize())},
			script: "kill -STOP $PPID; for i in 1 2 3 4 5 6; do busybox rmmod busy; done; kill -CONT $PPID",
			after:  func(t *testing.T) { deleted(t, "user", "busy") },
		},
		{
			name:   "oops", // the last: its module stays for ever
			setUp:  func(t *testing.T) { fixture(t, "oops") },
			script: "busybox rmmod oops; insmod /fixtures/empty.ko && busybox rmmod empty",
		},
	}
}

func untilGoing(module string) string {
	return fmt.Sprintf("until grep -q going /sys/module/%s/initstate; do sleep 0.01; done; ", module)
}

// loadOnce loads a fixture that cannot be unloaded again.
func loadOnce(t *testing.T, name string) {
	t.Helper()
	if _, ok := loaded(t, name); !ok {
		fixture(t, name)
	}
}

// TestRecord makes the recordings. In a guest it records; elsewhere it boots
// the kernels for that. It does nothing unless -raw-dir is given.
func TestRecord(t *testing.T) {
	if *rawDir == "" {
		t.Skip("replaces recordings: give -raw-dir")
	}
	series := os.Getenv(lab.EnvGuest)
	if series == "" {
		recordInGuests(t)
		return
	}
	if err := os.MkdirAll(*rawDir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, r := range recordings(series) {
		t.Run(r.name, func(t *testing.T) { r.make(t, recordingFile(*rawDir, series, r.name)) })
	}
}

// recordingFile names a recording, less its extension.
func recordingFile(dir, series, name string) string {
	return filepath.Join(dir, series+"-"+name)
}

func recordInGuests(t *testing.T) {
	l := lab.ForTest(t)
	for _, name := range recordedSeries {
		t.Run(name, func(t *testing.T) {
			series, err := lab.FindSeries(name)
			if err != nil {
				t.Fatal(err)
			}
			k, err := l.Kernel(t.Context(), series)
			if err != nil {
				t.Fatal(err)
			}
			const inGuest = "/tmp/raw"
			m := l.TestMachine(t, k)
			m.Args = []string{"-test.run=^TestRecord$", "-raw-dir=" + inGuest}
			m.Collect = map[string]string{}
			for _, r := range recordings(name) {
				for _, ext := range []string{".raw", ".ndjson"} {
					m.Collect[recordingFile(inGuest, name, r.name)+ext] = recordingFile(*rawDir, name, r.name) + ext
				}
			}
			l.RunTests(t, m, l.TestBinary(t, k, "./test/scenarios"))
		})
	}
}

// make records one command.
func (r recording) make(t *testing.T, file string) {
	if r.setUp != nil {
		r.setUp(t)
	}
	args := append([]string{"run", "--json", "--raw-file", file + ".raw"}, r.flags...)
	got := run(t, append(args, "--", "sh", "-c", r.script)...)
	if r.after != nil {
		r.after(t)
	}
	if got.code != r.code || got.trailer == nil || len(got.unloads) == 0 {
		t.Fatalf("exit %d, want %d, of %d unloads; stderr:\n%s", got.code, r.code, len(got.unloads), got.stderr)
	}
	if err := os.WriteFile(file+".ndjson", []byte(got.stdout), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestCapture writes a capture beside the report: the same records, over what
// was in the file before. Where it cannot be
// written, the command is not run.
func TestCapture(t *testing.T) {
	guest(t)
	file := filepath.Join(t.TempDir(), "capture")
	if err := os.WriteFile(file, bytes.Repeat([]byte("older\n"), 1<<16), 0o600); err != nil {
		t.Fatal(err)
	}
	fixture(t, "empty")
	r := run(t, "run", "--json", "-o", file, "--", "busybox", "rmmod", "empty")
	if u := r.only(t); !u.Result.OK || r.trailer == nil {
		t.Errorf("result %+v, trailer %+v", u.Result, r.trailer)
	}
	if diff := cmp.Diff(r.stdout, readFile(t, file)); diff != "" {
		t.Errorf("the capture is not the report (-stdout +capture):\n%s", diff)
	}

	fixture(t, "empty")
	removed(t, "empty")
	nowhere := filepath.Join(t.TempDir(), "nothing", "capture")
	oneMessage(t, run(t, "run", "-o", nowhere, "--", "busybox", "rmmod", "empty"), 125, nowhere)
	if _, ok := loaded(t, "empty"); !ok {
		t.Error("the command was run all the same")
	}
}
