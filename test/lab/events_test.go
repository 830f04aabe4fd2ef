// SPDX-License-Identifier: MIT

package lab

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// envEvents makes TestEventHelper report the events in it as subtests.
const envEvents = "LAB_TEST_EVENTS"

func TestEventHelper(t *testing.T) {
	events := os.Getenv(envEvents)
	if events == "" {
		t.Skip("is run by TestEvents, in a process of its own")
	}
	tree := newEventTree(t)
	if err := tree.follow(strings.NewReader(events)); err != nil {
		t.Fatal(err)
	}
	t.Logf("ran %d, failed %d", tree.ran, tree.fails)
}

// report runs the helper and returns its output and whether it passed.
func report(t *testing.T, events string, args ...string) (string, bool) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, append([]string{"-test.v", "-test.run=^TestEventHelper$"}, args...)...)
	cmd.Env = append(os.Environ(), envEvents+"="+events)
	out, err := cmd.CombinedOutput()
	return string(out), err == nil
}

func TestEvents(t *testing.T) {
	const good = `{"Action":"start"}
{"Action":"run","Test":"TestA"}
{"Action":"output","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"run","Test":"TestA/x"}
{"Action":"output","Test":"TestA/x","Output":"    a_test.go:7: inside x\n"}
{"Action":"run","Test":"TestA/y/z"}
{"Action":"output","Test":"TestA/x","Output":"    --- PASS: TestA/x (0.10s)\n"}
{"Action":"pass","Test":"TestA/x","Elapsed":0.1}
{"Action":"skip","Test":"TestA/y/z"}
{"Action":"pass","Test":"TestA"}
{"Action":"run","Test":"TestB"}
`
	for _, c := range []struct {
		name, events string
		args         []string
		passes       bool
		want, not    []string
	}{
		{"passing", good + `{"Action":"pass","Test":"TestB"}`, nil, true,
			[]string{"--- PASS: TestEventHelper/TestA/x ", "--- SKIP: TestEventHelper/TestA/y/z ", "--- PASS: TestEventHelper/TestB ", "a_test.go:7: inside x", "ran 4, failed 0"},
			[]string{"=== RUN   TestA\n", "(0.10s)"}},
		{"failing", good + `{"Action":"output","Test":"TestB","Output":"    b_test.go:9: too slow\n"}{"Action":"fail","Test":"TestB"}`, nil, false,
			[]string{"--- FAIL: TestEventHelper/TestB ", "b_test.go:9: too slow", "--- PASS: TestEventHelper/TestA ", "ran 4, failed 1"}, nil},
		{"cut short", good, nil, false,
			[]string{"--- FAIL: TestEventHelper/TestB ", "the guest ended before this test did", "--- PASS: TestEventHelper/TestA "}, nil},
		{"no JSON", good + "Kernel panic", nil, false,
			[]string{"reading the guest's test events", "--- FAIL: TestEventHelper/TestB "}, nil},
		// What the host's pattern leaves out must neither run nor hang.
		{"left out", good + `{"Action":"fail","Test":"TestB"}`, []string{"-test.run=^TestEventHelper$/^TestA$/^x$"}, true,
			[]string{"--- PASS: TestEventHelper/TestA/x "}, []string{"TestEventHelper/TestB", "TestEventHelper/TestA/y"}},
		{"panic", `{"Action":"run","Test":"TestA"}{"Action":"output","Test":"TestA","Output":"panic: boom\n"}{"Action":"fail","Test":"TestA"}{"Action":"output","Output":"exit status 2\n"}{"Action":"fail"}`, nil, false,
			[]string{"panic: boom", "exit status 2"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, ok := report(t, c.events, c.args...)
			if ok != c.passes {
				t.Errorf("passed: %v, want %v", ok, c.passes)
			}
			for _, s := range c.want {
				if !strings.Contains(out, s) {
					t.Errorf("no %q", s)
				}
			}
			for _, s := range c.not {
				if strings.Contains(out, s) {
					t.Errorf("there is %q", s)
				}
			}
			if t.Failed() {
				t.Logf("the report:\n%s", out)
			}
		})
	}
}

func TestPatternBelow(t *testing.T) {
	for _, c := range []struct{ pattern, name, want string }{
		{"", "TestVM/amd64-6.12", ""},
		{"TestVM", "TestVM/amd64-6.12", ""},
		{"TestVM/6.12", "TestVM/amd64-6.12", ""},
		{"TestVM/6.12/TestA/b", "TestVM/amd64-6.12", "TestA/b"},
		{"TestVM//TestA", "TestVM/amd64-6.12", "TestA"},
		{"TestVM/6.12/Test[/]A", "TestVM/amd64-6.12", ""},
		{"TestVM/x/TestA|TestC/y/TestB", "TestVM/amd64-6.12", ""},
	} {
		if got := patternBelow(c.pattern, c.name); got != c.want {
			t.Errorf("patternBelow(%q, %q) = %q, want %q", c.pattern, c.name, got, c.want)
		}
	}
}
