package scenarios

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/modtrace/modtrace/unload"
)

// waitingRounds is how often a module that waits is unloaded: in full on the
// kernel of most servers, less often on the others.
func waitingRounds(series string) int {
	if series == "amd64-6.12" {
		return 5000
	}
	return 1000
}

// stream is what is kept of reports that are too many to be kept.
type stream struct {
	unloads, partial int
	waits, lost      int64 // in exit; as the unloads say
	trailer          unload.Trailer
}

// read counts reports as they come.
func (s *stream) read(r io.Reader) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		line := lines.Bytes()
		switch {
		case bytes.HasPrefix(line, []byte(`{"type":"unload"`)):
			if err := s.unload(line); err != nil {
				return err
			}
		case bytes.HasPrefix(line, []byte(`{"type":"trailer"`)):
			if err := json.Unmarshal(line, &s.trailer); err != nil {
				return err
			}
		}
	}
	return lines.Err()
}

func (s *stream) unload(line []byte) error {
	var u struct {
		Complete   bool
		LostEvents int64 `json:"lost_events"`
		Phases     []struct {
			Name  unload.PhaseName
			Waits []struct{ Count int64 }
		}
	}
	if err := json.Unmarshal(line, &u); err != nil {
		return err
	}
	s.unloads++
	s.lost += u.LostEvents
	if !u.Complete {
		s.partial++
	}
	for _, p := range u.Phases {
		for _, w := range p.Waits {
			if p.Name == unload.Exit {
				s.waits += w.Count
			}
		}
	}
	return nil
}

// TestThousandsThatWait unloads a module over and over that waits several times
// and from ever other depths: each unload is reported once, with its waits,
// nothing is lost unsaid, and modtrace does not grow (S14).
func TestThousandsThatWait(t *testing.T) {
	series := guest(t)
	rounds := waitingRounds(series)
	hurryGracePeriods(t)
	var s stream
	reports, stdout := io.Pipe()
	read := make(chan error, 1)
	go func() {
		err := s.read(reports)
		_ = reports.CloseWithError(err)
		read <- err
	}()
	tr := traceInto(t, stdout)
	early, late := waitingUnloads(t, rounds, tr.cmd.Process.Pid)
	tr.stop()
	_ = stdout.Close()
	if err := <-read; err != nil {
		t.Fatal(err)
	}
	t.Logf("%d unloads of %d, %d of them partial, %d waits, trailer %+v; memory in kB after some: %v, most after more: %v",
		s.unloads, rounds, s.partial, s.waits, s.trailer, early, late)
	for what, of := range late {
		if of > early[what]+early[what]/20 {
			t.Errorf("%s grew from %d to %d kB", what, early[what], of)
		}
	}
	// An unload goes unreported only when all that is known of it was lost.
	if unseen := int64(rounds - s.unloads); unseen < 0 || unseen > s.trailer.LostEvents["begin"] {
		t.Errorf("%d unloads of %d are reported", s.unloads, rounds)
	}
	if s.trailer.Records != int64(s.unloads) || s.trailer.Incomplete != int64(s.partial) {
		t.Errorf("%d unloads, %d of them partial", s.unloads, s.partial)
	}
	// Each sleeps twice; a work item may be done before it is waited for.
	lost := (ran{trailer: &s.trailer}).lost()
	if s.waits+lost < int64(2*rounds) || int64(s.partial) > lost || s.lost > lost {
		t.Errorf("%d waits, %d events lost, %d of them told of with their unload", s.waits, lost, s.lost)
	}
	// What was lost was said. A machine that is busy with other kernels may make it
	// lose some.
	if lost > int64(rounds)/5 {
		t.Errorf("%d events lost in %d unloads", lost, rounds)
	}
}

// hurryGracePeriods makes those short that are not the matter of a test.
func hurryGracePeriods(t *testing.T) {
	t.Helper()
	const file = "/sys/kernel/rcu_expedited"
	before := readFile(t, file)
	if err := os.WriteFile(file, []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.WriteFile(file, []byte(before), 0) })
}

// waitingUnloads makes them, and gives the most memory that a process takes in
// the few hundred unloads that follow the first few, and in the last few hundred.
func waitingUnloads(t *testing.T, rounds, pid int) (early, late map[string]int) {
	t.Helper()
	const settled, window, every = 500, 500, 50
	ko, err := os.ReadFile("/fixtures/brief.ko")
	if err != nil {
		t.Fatal(err)
	}
	early, late = map[string]int{}, map[string]int{}
	for i := range rounds {
		if err := unix.InitModule(ko, fmt.Sprint("waits=4 depth=", i%50)); err != nil {
			t.Fatalf("round %d: loading: %v", i, err)
		}
		if err := unix.DeleteModule("brief", unix.O_NONBLOCK); err != nil {
			t.Fatalf("round %d: unloading: %v", i, err)
		}
		switch {
		case i%every != 0:
		case i >= settled && i < settled+window:
			most(early, memory(t, pid))
		case i >= rounds-window:
			most(late, memory(t, pid))
		}
	}
	return early, late
}

func most(of, now map[string]int) {
	for what, kB := range now {
		of[what] = max(of[what], kB)
	}
}

// memory is what a process takes, in kB: all of it, and what is no file's.
func memory(t *testing.T, pid int) map[string]int {
	t.Helper()
	return map[string]int{"VmRSS": statusField(t, pid, "VmRSS"), "RssAnon": statusField(t, pid, "RssAnon")}
}
