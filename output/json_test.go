package output

import (
	"bytes"
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/modtrace/modtrace/unload"
)

// encode gives the line that one record becomes.
func encode(t testing.TB, write func(Report) error) string {
	t.Helper()
	var b bytes.Buffer
	if err := write(NewJSON(&b)); err != nil {
		t.Fatal(err)
	}
	text, ok := strings.CutSuffix(b.String(), "\n")
	if !ok || strings.Contains(text, "\n") {
		t.Fatalf("not one line: %q", b.String())
	}
	return text
}

func TestJSONOfTheSample(t *testing.T) {
	want, err := os.ReadFile("testdata/sample.json")
	if err != nil {
		t.Fatal(err)
	}
	got := encode(t, func(r Report) error { return r.Unload(sample(t)) })
	if got+"\n" != string(want) {
		t.Errorf(" got %s\nwant %s", got, want)
	}
}

func TestJSONRoundTrip(t *testing.T) {
	for _, s := range streams(t) {
		for _, want := range s.unloads {
			var got unload.Unload
			text := encode(t, func(r Report) error { return r.Unload(want) })
			if err := json.Unmarshal([]byte(text), &got); err != nil {
				t.Fatal(err)
			}
			if s.name == "bare" || s.name == "hostile" {
				continue // what they lack is filled in, what is not UTF-8 cannot stay
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%s comes back as another record: %s", s.name, text)
			}
		}
	}
	for _, st := range stalls() {
		if st.name == "stall-bare" || st.name == "stall-hostile" {
			continue
		}
		want, got := st.Stall, unload.Stall{}
		want.Type = unload.TypeStall
		if want.Wait.Stack == nil {
			want.Wait.Stack = []string{}
		}
		text := encode(t, func(r Report) error { return r.Stall(st.Stall) })
		if err := json.Unmarshal([]byte(text), &got); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%v: %s comes back as another record: %s", err, st.name, text)
		}
	}
	h := several().header
	h.Type, h.Schema, h.Started = unload.TypeHeader, unload.Schema, time.Now().UTC()
	var gotHeader unload.Header
	text := encode(t, func(r Report) error { return r.Header(h) })
	if err := json.Unmarshal([]byte(text), &gotHeader); err != nil || !reflect.DeepEqual(gotHeader, h) {
		t.Errorf("%v: the header comes back as another one: %s", err, text)
	}
}

// TestJSONKeepsTheContract names every field that scripts may rely on. None
// goes missing when there is nothing in it.
func TestJSONKeepsTheContract(t *testing.T) {
	full := unload.Unload{
		Caller:    unload.Caller{Ancestors: []unload.Ancestor{{}}},
		Phases:    []unload.Phase{{Waits: []unload.Wait{{}}, Hot: []unload.Hot{{}}}},
		Notifiers: []unload.Notifier{{}}, Devices: []unload.Device{{}}, Holders: []unload.Holder{{}},
		References: []unload.Reference{{}}, Log: []unload.LogLine{{}}, Convoy: []unload.Waiter{{}},
	}
	tests := []struct {
		name   string
		record string
		paths  string
	}{
		{"header", encode(t, func(r Report) error { return r.Header(unload.Header{Plan: []unload.Hook{{}}}) }), `
			type schema tool kernel arch host boot_id started plan
			plan.0.phase plan.0.sees plan.0.function plan.0.mechanism plan.0.required plan.0.fallback plan.0.status plan.0.reason`},
		{"unload", encode(t, func(r Report) error { return r.Unload(full) }), `
			type module start duration_ns flags forced
			result.ok result.errno result.reason result.by
			caller.pid caller.tid caller.ppid caller.uid caller.comm caller.exe caller.cmdline caller.cgroup
			caller.ancestors.0.pid caller.ancestors.0.comm
			refcount.before
			phases.0.name phases.0.offset_ns phases.0.duration_ns phases.0.on_cpu_ns phases.0.off_cpu_ns phases.0.exact phases.0.merged
			phases.0.waits.0.cause phases.0.waits.0.count phases.0.waits.0.duration_ns phases.0.waits.0.blocker phases.0.waits.0.waker
			phases.0.waits.0.longest_ns phases.0.waits.0.stack phases.0.hot.0.samples phases.0.hot.0.stack
			notifiers.0.callback notifiers.0.module notifiers.0.duration_ns notifiers.0.exact
			devices.0.device devices.0.driver devices.0.duration_ns
			holders.0.kind holders.0.refs holders.0.module holders.0.pid holders.0.comm holders.0.cgroup holders.0.container
			holders.0.fd holders.0.path holders.0.mount_ns holders.0.detail holders.0.stack holders.0.confidence
			log.0.offset_ns log.0.phase log.0.level log.0.text convoy.0.pid convoy.0.comm convoy.0.duration_ns
			dependents references residue residue_known memory.freed_bytes taints signed
			unaccounted_ns lost_events complete missing`},
		{"bare unload", encode(t, func(r Report) error { return r.Unload(unload.Unload{}) }), `
			type module start duration_ns flags forced outcome result.ok caller.cmdline caller.ancestors refcount.before phases
			notifiers devices holders dependents references log residue memory.freed_bytes taints signed
			unaccounted_ns lost_events complete missing`},
		{"stall", encode(t, func(r Report) error { return r.Stall(unload.Stall{}) }), `
			type module start duration_ns phases caller.cmdline convoy log phase elapsed_ns
			wait.cause wait.count wait.duration_ns wait.longest_ns wait.blocker wait.waker wait.stack`},
		{"reload", encode(t, func(r Report) error { return r.Reload(unload.Reload{}) }), `
			type module start after_ns loader.pid loader.comm loader.cmdline loader.ancestors`},
		{"why", encode(t, func(r Report) error { return r.Why(unload.Why{Holders: []unload.Holder{{}}}) }), `
			type module state refcount explained unexplained unloadable reason dependents plan hazards advice
			holders.0.kind holders.0.refs holders.0.module holders.0.pid holders.0.comm holders.0.cgroup holders.0.container
			holders.0.fd holders.0.path holders.0.mount_ns holders.0.detail holders.0.stack holders.0.confidence
			similar missing time`},
		{"balance", encode(t, func(r Report) error { return r.Ledger(unload.Ledger{}) }), `
			type module start time state refcount initial before gets puts outstanding handed_over unsettled unseen unexplained loads holders missing`},
		{"refs", ledgerEntry(t), `
			type module site pid comm gets puts handed_over outstanding held_max_ns held_ns first last since dropped stack gone processes ambiguous load`},
		{"ref", encode(t, func(r Report) error { return r.Ref(unload.Ref{}) }), `
			type op module time pid tid comm site taken held_ns load`},
		{"trailer", encode(t, func(r Report) error { return r.Trailer(unload.Trailer{}) }), `
			type records lost_events missed_probes incomplete ended`},
	}
	for _, tt := range tests {
		var record any
		if err := json.Unmarshal([]byte(tt.record), &record); err != nil {
			t.Fatal(err)
		}
		for _, path := range strings.Fields(tt.paths) {
			if v, ok := lookUp(record, strings.Split(path, ".")); !ok || v == nil {
				t.Errorf("%s: %s is missing or null in %s", tt.name, path, tt.record)
			}
		}
		if strings.Contains(tt.record, "null") {
			t.Errorf("%s: a null in %s", tt.name, tt.record)
		}
	}
}

// ledgerEntry is the line of a bare entry of a ledger.
func ledgerEntry(t *testing.T) string {
	t.Helper()
	var b bytes.Buffer
	if err := NewJSON(&b).Ledger(unload.Ledger{Entries: []unload.Refs{{}}}); err != nil {
		t.Fatal(err)
	}
	_, entry, _ := strings.Cut(strings.TrimSuffix(b.String(), "\n"), "\n")
	return entry
}

// lookUp follows a path of keys; 0 is the first of a list.
func lookUp(v any, path []string) (any, bool) {
	if len(path) == 0 {
		return v, true
	}
	switch v := v.(type) {
	case map[string]any:
		child, ok := v[path[0]]
		if !ok {
			return nil, false
		}
		return lookUp(child, path[1:])
	case []any:
		if path[0] == "0" && len(v) > 0 {
			return lookUp(v[0], path[1:])
		}
	}
	return nil, false
}

func TestJSONTypes(t *testing.T) {
	for want, write := range map[string]func(Report) error{
		"header":  func(r Report) error { return r.Header(unload.Header{Type: "x"}) },
		"unload":  func(r Report) error { return r.Unload(unload.Unload{}) },
		"stall":   func(r Report) error { return r.Stall(unload.Stall{}) },
		"reload":  func(r Report) error { return r.Reload(unload.Reload{}) },
		"trailer": func(r Report) error { return r.Trailer(unload.Trailer{}) },
	} {
		if text := encode(t, write); !strings.HasPrefix(text, `{"type":"`+want+`",`) {
			t.Errorf("%s begins %.40s", want, text)
		}
	}
}

func TestJSONEscapes(t *testing.T) {
	u := unload.Unload{Module: "<a>&\x1b\x7f\u009b\u202e\u2028\U000e0041漢é\\u0041"}
	text := encode(t, func(r Report) error { return r.Unload(u) })
	want := `"module":"<a>&\u001b\u007f\u009b\u202e\u2028\udb40\udc41漢é\\u0041"`
	if !strings.Contains(text, want) {
		t.Errorf("no %s in %s", want, text)
	}
	var got unload.Unload
	if err := json.Unmarshal([]byte(text), &got); err != nil || got.Module != u.Module {
		t.Errorf("%v: %q comes back as %q", err, u.Module, got.Module)
	}
}

// TestJSONLeavesTheRecordAlone: what is filled in must not reach the caller,
// who may hand the same record to another report at the same time.
func TestJSONLeavesTheRecordAlone(t *testing.T) {
	u := unload.Unload{Phases: []unload.Phase{{}}}
	encode(t, func(r Report) error { return r.Unload(u) })
	if u.Phases[0].Merged != nil || u.Flags != nil {
		t.Error("the caller's record was changed")
	}
}

func TestJSONOfAnImpossibleTime(t *testing.T) {
	var b bytes.Buffer
	err := NewJSON(&b).Unload(unload.Unload{Start: time.Date(20000, 1, 1, 0, 0, 0, 0, time.UTC)})
	if err == nil || b.Len() != 0 {
		t.Errorf("error %v, and wrote %q", err, &b)
	}
}
