package tracer

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/modtrace/modtrace/bpf"
	"github.com/modtrace/modtrace/object"
	"github.com/modtrace/modtrace/unload"
)

// recording is what modtrace noted of one command on a real kernel: the raw
// events, and the report it made of them there. How they are made is said in
// test/scenarios/raw_test.go.
type recording struct {
	name    string
	events  [][]byte
	header  unload.Header
	unloads []unload.Unload
	stalls  []unload.Stall
	trailer unload.Trailer
}

// recordings reads tracer/testdata.
func recordings(t *testing.T) []recording {
	t.Helper()
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("the recordings were made on little-endian machines")
	}
	files, err := filepath.Glob("testdata/*.raw")
	if err != nil || len(files) == 0 {
		t.Fatalf("no recordings: %v", err)
	}
	var all []recording
	for _, file := range files {
		base := strings.TrimSuffix(file, ".raw")
		r := recording{name: filepath.Base(base)}
		framed, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for len(framed) > 0 {
			if len(framed) < 4 || uint64(len(framed)) < 4+uint64(binary.LittleEndian.Uint32(framed)) {
				t.Fatalf("%s is cut short", file)
			}
			end := 4 + binary.LittleEndian.Uint32(framed)
			r.events = append(r.events, framed[4:end])
			framed = framed[end:]
		}
		r.readReport(t, base+".ndjson")
		all = append(all, r)
	}
	return all
}

func (r *recording) readReport(t *testing.T, file string) {
	t.Helper()
	report, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(report) {
		var kind struct{ Type string }
		if err := json.Unmarshal(line, &kind); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		switch kind.Type {
		case unload.TypeHeader:
			strictly(t, line, &r.header)
		case unload.TypeUnload:
			var u unload.Unload
			strictly(t, line, &u)
			r.unloads = append(r.unloads, u)
		case unload.TypeStall:
			var st unload.Stall
			strictly(t, line, &st)
			r.stalls = append(r.stalls, st)
		case unload.TypeTrailer:
			strictly(t, line, &r.trailer)
		default:
			t.Fatalf("%s: a record of type %q", file, kind.Type)
		}
	}
	if r.header.Type == "" || r.trailer.Type == "" {
		t.Fatalf("%s is cut short", file)
	}
}

// strictly decodes JSON and refuses fields that the model has not got: they are
// fields that somebody renamed.
func strictly(t *testing.T, line []byte, into any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		t.Fatalf("%v: %s", err, line)
	}
}

// replay takes events the way that the ring's take, without a kernel.
func replay(plan Plan, events [][]byte) (all []unload.Unload, stalls []unload.Stall, _ Stats) {
	tr := &Tracer{assemble: newAssembler(plan), stats: Stats{Read: map[string]int64{}}}
	tr.assemble.stalled = func(st unload.Stall) { stalls = append(stalls, st) }
	keep := func(u unload.Unload) bool {
		all = append(all, u)
		return true
	}
	for _, raw := range events {
		if u, ok := tr.take(raw); ok {
			tr.yield(u, keep)
		}
	}
	for _, u := range tr.assemble.rest(nil, 0) {
		tr.yield(u, keep)
	}
	return all, stalls, tr.stats
}

// TestReplay makes the reports of real machines again from their raw events.
func TestReplay(t *testing.T) {
	for _, r := range recordings(t) {
		t.Run(r.name, func(t *testing.T) {
			unloads, stalls, stats := replay(r.header.Plan, r.events)
			compareStalls(t, stalls, r.stalls)
			if stats.Damaged != 0 || stats.Records != r.trailer.Records || stats.Incomplete != r.trailer.Incomplete {
				t.Errorf("replayed: %+v; live: %+v", stats, r.trailer)
			}
			if len(unloads) != len(r.unloads) {
				t.Fatalf("%d unloads replayed, %d live", len(unloads), len(r.unloads))
			}
			for i, live := range r.unloads {
				again := throughJSON(t, unloads[i])
				compareStarts(t, again.Start.Sub(unloads[0].Start), live.Start.Sub(r.unloads[0].Start))
				if live.Outcome == unload.InFlight {
					live = onlyBegun(live)
				} else {
					conserved(t, again)
				}
				compareCallers(t, again.Caller, live.Caller)
				if diff := cmp.Diff(live, again, outsideOfEvents()); diff != "" {
					t.Errorf("unload %d, %s (-live +replayed):\n%s", i, live.Module, diff)
				}
			}
		})
	}
}

// throughJSON gives u as a reader of the report has it.
func throughJSON[R any](t *testing.T, record R) R {
	t.Helper()
	b, err := json.Marshal(record)
	if err != nil {
		t.Fatal(err)
	}
	var again R
	strictly(t, b, &again)
	return again
}

// compareStalls holds what is told again of unloads that hung against what was told
// while they did.
func compareStalls(t *testing.T, replayed, live []unload.Stall) {
	t.Helper()
	if len(replayed) != len(live) {
		t.Fatalf("%d stalls replayed, %d live", len(replayed), len(live))
	}
	for i := range live {
		if diff := cmp.Diff(live[i], throughJSON(t, replayed[i]), outsideOfEvents()); diff != "" {
			t.Errorf("stall %d (-live +replayed):\n%s", i, diff)
		}
	}
}

// outsideOfEvents leaves out what is compared by itself, being not in the
// events, or not all: the time of day, what /proc said of the caller, and what
// the machine said afterwards, also of holders.
func outsideOfEvents() cmp.Option {
	return cmp.Options{
		cmpopts.IgnoreFields(unload.Unload{}, "Start", "Residue", "ResidueKnown", "Holders", "HoldersKnown"),
		cmpopts.IgnoreFields(unload.Caller{}, "Exe", "Cgroup", "Ancestors"),
	}
}

// compareStarts holds the time between two unloads against that in the live
// report. There, both clocks are read anew for each unload, one after the
// other, and the machine may do something else in between.
func compareStarts(t *testing.T, replayed, live time.Duration) {
	t.Helper()
	const between = 20 * time.Millisecond
	if (replayed - live).Abs() > between {
		t.Errorf("began %v after the first, %v live", replayed, live)
	}
}

// compareCallers compares what the kernel side noted and /proc added to: the
// nearest ancestors, and the program by the name that it was started by.
func compareCallers(t *testing.T, again, live unload.Caller) {
	t.Helper()
	var noted bpf.UnloadBegin
	if n := len(again.Ancestors); n > len(live.Ancestors) ||
		n < len(live.Ancestors) && n != len(noted.Ancestor) ||
		!slices.Equal(again.Ancestors, live.Ancestors[:n]) {
		t.Errorf("ancestors %v replayed, %v live", again.Ancestors, live.Ancestors)
	}
	if (again.Exe == "") != (live.Exe == "") {
		t.Errorf("program %q replayed, %q live", again.Exe, live.Exe)
	}
}

// notePresent notes what there is in a report.
func notePresent(seen map[any]bool, u unload.Unload) {
	seen[u.Outcome], seen[u.Result.Reason] = true, true
	for _, ref := range u.References {
		seen[ref.Op] = true
	}
	for _, p := range u.Phases {
		for _, w := range p.Waits {
			seen[w.Cause] = true
		}
		if len(p.Hot) > 0 {
			seen["hot"] = true
		}
	}
	for what, is := range map[string]bool{
		"a dependent":   len(u.Dependents) > 0,
		"force":         u.Forced,
		"a device":      len(u.Devices) > 0,
		"a callback":    len(u.Notifiers) > 0,
		"a line logged": len(u.Log) > 0,
	} {
		if is {
			seen[what] = true
		}
	}
}

// onlyBegun is what the ring tells of an unload that was in flight when the
// trace ended: how far it had come was read from where the kernel side keeps
// it, which is in no recording.
func onlyBegun(live unload.Unload) unload.Unload {
	return unload.Unload{
		Type:       live.Type,
		Module:     live.Module,
		Flags:      live.Flags,
		Forced:     live.Forced,
		Outcome:    unload.Unseen,
		Result:     live.Result,
		Caller:     live.Caller,
		Dependents: live.Dependents,
		References: live.References,
		Phases:     []unload.Phase{},
		Notifiers:  live.Notifiers,
		Devices:    live.Devices,
		Holders:    live.Holders,
		Convoy:     live.Convoy,
		Log:        live.Log,
		Residue:    live.Residue,
		Taints:     []string{},
		Missing:    []string{"its end was not seen: the record was lost"},
	}
}

// TestRecordingsCover fails when the recordings lack what they are there for.
func TestRecordingsCover(t *testing.T) {
	seen := map[any]bool{}
	var lost int64
	for _, r := range recordings(t) {
		seen[r.header.Arch] = true
		for _, n := range r.trailer.LostEvents {
			lost += n
		}
		for _, h := range r.header.Plan {
			seen[h.Status], seen[h.Mechanism] = true, true
		}
		for _, st := range r.stalls {
			seen[st.Wait.Blocker.Kind] = true
		}
		for _, u := range r.unloads {
			notePresent(seen, u)
		}
	}
	for _, want := range []any{
		"x86_64", "aarch64", unload.StatusOK, unload.StatusFallback, unload.StatusAbsent,
		object.Fentry, object.Fexit, object.Kprobe, object.Kretprobe, object.TPBTF, object.RawTP,
		unload.Returned, unload.InFlight, unload.Unseen, unload.Died,
		unload.CauseRCU, unload.CauseRCUBarrier, unload.CauseSRCU, unload.CauseMutex, unload.CauseRWSem,
		unload.CauseCompletion, unload.CauseWorkqueue, unload.CauseKthreadStop, unload.CauseSleep,
		unload.CauseKernfsDrain, unload.CauseNetdevUsers, unload.CausePreempted,
		unload.KindTask, unload.KindWork, unload.KindWorkqueue, unload.KindFile, unload.KindInterface,
		"hot", "a device", "a callback", "a line logged",
		unload.ReasonNone, unload.ReasonDependents, unload.ReasonReferenced, unload.ReasonNoExit,
		unload.ReasonNotFound, unload.ReasonUnloading,
		"put", "a dependent", "force",
	} {
		if !seen[want] {
			t.Errorf("no recording has %q", want)
		}
	}
	if lost == 0 {
		t.Error("no recording lost an event")
	}
}

// TestReplayDamaged damages each event of each recording in every place. What
// is reported must add up, whatever it says, and where something is missing no
// more unloads are reported whole than without the damage.
func TestReplayDamaged(t *testing.T) {
	for _, r := range recordings(t) {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			r.damaged(t)
		})
	}
}

func (r recording) damaged(t *testing.T) {
	t.Helper()
	plan := r.header.Plan
	whole := addsUp(t, plan, r.events)
	variants := 0
	for _, raw := range r.events {
		variants += 2 + 3*len(raw)
	}
	// Each damage takes the whole recording again, so that of long ones only some
	// are tried; which, their names spread.
	const affordable = 4000 // events
	step := 1 + variants*len(r.events)/affordable
	at := len(r.name)
	for i, raw := range r.events {
		for what, instead := range damages(raw) {
			if at++; at%step != 0 {
				continue
			}
			n := addsUp(t, plan, slices.Concat(r.events[:i], instead, r.events[i+1:]))
			if n > whole && len(slices.Concat(instead...)) < len(raw) {
				t.Errorf("%d whole unloads, %d without the damage", n, whole)
			}
			if t.Failed() {
				t.Fatalf("event %d %s", i, what)
			}
		}
	}
	backwards := slices.Clone(r.events)
	slices.Reverse(backwards)
	if n := addsUp(t, plan, backwards); n > whole {
		t.Errorf("backwards: %d whole unloads, %d without the damage", n, whole)
	}
}

// damages yields what may come instead of an event, and what happened to it.
func damages(raw []byte) iter.Seq2[string, [][]byte] {
	return func(yield func(string, [][]byte) bool) {
		if !yield("left out", nil) || !yield("doubled", [][]byte{raw, raw}) {
			return
		}
		for at := range raw {
			if !yield(fmt.Sprintf("cut to %d bytes", at), [][]byte{raw[:at]}) {
				return
			}
			for _, flip := range []byte{1 << (at % 8), 0xff} {
				flipped := bytes.Clone(raw)
				flipped[at] ^= flip
				if !yield(fmt.Sprintf("with byte %d changed", at), [][]byte{flipped}) {
					return
				}
			}
		}
	}
}

// addsUp replays events that are not as they were recorded, checks what can be
// said of any report, and gives the number of unloads reported whole.
func addsUp(t *testing.T, plan Plan, events [][]byte) (whole int) {
	t.Helper()
	unloads, _, stats := replay(plan, events)
	read := stats.Damaged
	for _, n := range stats.Read {
		read += n
	}
	if read != int64(len(events)) {
		t.Errorf("of %d events: %+v", len(events), stats)
	}
	for _, u := range unloads {
		conserved(t, u)
		if u.Duration < 0 || u.Refcount.Before < 0 || u.LostEvents < 0 {
			t.Errorf("took %d ns, counted %d references, lost %d events", u.Duration, u.Refcount.Before, u.LostEvents)
		}
		if u.Complete != (len(u.Missing) == 0) || u.Complete && u.Outcome != unload.Returned {
			t.Errorf("complete is %v, %s, missing %q", u.Complete, u.Outcome, u.Missing)
		}
		if u.Complete {
			whole++
		}
	}
	if int64(whole)+stats.Incomplete != stats.Records || stats.Records != int64(len(unloads)) {
		t.Errorf("%d unloads, %d whole: %+v", len(unloads), whole, stats)
	}
	return whole
}
