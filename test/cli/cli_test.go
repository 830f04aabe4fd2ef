// Package cli tests the command line of the real modtrace, as far as it goes
// without privileges and on a kernel that cannot be traced.
package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/modtrace/modtrace/unload"
)

// bin is the directory of the program under test.
var bin string

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "modtrace-cli")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	build := exec.Command("go", "build", "-o", dir+"/modtrace", "../../cmd/modtrace")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building modtrace: %v\n%s", err, out)
		return 1
	}
	bin = dir
	return m.Run()
}

// TestScripts runs the scripts in testdata.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                "testdata",
		RequireUniqueNames: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", bin+string(filepath.ListSeparator)+e.Getenv("PATH"))
			recorded, err := filepath.Abs("../../tracer/testdata")
			e.Setenv("RECORDED", recorded)
			return err
		},
		Condition: condition,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":   exits,
			"refuses": refuses,
			"checked": checked,
		},
	})
}

// condition adds what the scripts ask about the machine.
func condition(name string) (bool, error) {
	if name == "modules" {
		_, err := os.Stat("/proc/modules")
		return !errors.Is(err, fs.ErrNotExist), nil
	}
	return false, fmt.Errorf("no such condition: %s", name)
}

// exits runs modtrace and wants an exit status of it:
//
//	exits 0 check --help
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: exits CODE [ARG...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	code := 0
	err = ts.Exec("modtrace", args[1:]...)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if code != want {
		ts.Fatalf("exit %d, want %d", code, want)
	}
	plain(ts)
}

// refuses runs modtrace and wants an exit status of it, nothing on stdout, and
// on stderr one message with these words:
//
//	refuses 2 'no command' -- nonsense
func refuses(ts *testscript.TestScript, neg bool, args []string) {
	var words []string
	for i, arg := range args {
		if arg == "--" && i > 0 && !neg {
			words = args[1:i]
			exits(ts, false, append([]string{args[0]}, args[i+1:]...))
			break
		}
	}
	if words == nil {
		ts.Fatalf("usage: refuses CODE WORD... -- [ARG...]")
	}
	if stdout := ts.ReadFile("stdout"); stdout != "" {
		ts.Fatalf("stdout is not for failures:\n%s", stdout)
	}
	message := ts.ReadFile("stderr")
	if !strings.HasPrefix(message, "modtrace: ") || strings.Count(message, "modtrace: ") != 1 {
		ts.Fatalf("not one message:\n%s", message)
	}
	if n := strings.Count(message, "\n"); n > 3 {
		ts.Fatalf("a message of %d lines", n)
	}
	for _, word := range words {
		if !strings.Contains(message, word) {
			ts.Fatalf("no %q in:\n%s", word, message)
		}
	}
}

// plain fails when stderr has what only the authors of modtrace, or of what it
// is made of, can make sense of.
func plain(ts *testscript.TestScript) {
	stderr := ts.ReadFile("stderr")
	for _, raw := range []string{
		"goroutine ", "panic", "runtime error", "ebpf", "cobra", "pflag", "strconv", "exit status",
		"invalid argument", "operation not permitted", "MEMLOCK", "%!",
	} {
		if strings.Contains(stderr, raw) {
			ts.Fatalf("%q on stderr:\n%s", raw, stderr)
		}
	}
}

// checked wants stdout to be the one record of check --json, and everything in
// it that scripts may rely on.
func checked(ts *testscript.TestScript, _ bool, _ []string) {
	stdout := ts.ReadFile("stdout")
	if strings.Count(stdout, "\n") != 1 || !strings.HasSuffix(stdout, "\n") {
		ts.Fatalf("not one line:\n%s", stdout)
	}
	var record map[string]any
	ts.Check(json.Unmarshal([]byte(stdout), &record))
	wants(ts, record, "type", "schema", "tool", "kernel", "arch", "host", "boot_id", "started", "plan",
		"tried", "can_trace", "lockdown", "capabilities", "problems")
	if record["type"] != "check" || record["schema"] != float64(unload.Schema) {
		ts.Fatalf("type %v, schema %v", record["type"], record["schema"])
	}
	phases := []unload.PhaseName{}
	for _, hook := range objects(ts, record["plan"]) {
		wants(ts, hook, "phase", "sees", "function", "mechanism", "required", "fallback", "status", "reason")
		if name := hook["phase"].(string); name != "" {
			phases = append(phases, unload.PhaseName(name))
		}
	}
	if got, want := fmt.Sprint(phases), fmt.Sprint(unload.PhaseNames()); got != want {
		ts.Fatalf("the plan has the phases %s, want %s", got, want)
	}
	for _, c := range objects(ts, record["capabilities"]) {
		wants(ts, c, "name", "for", "required", "held")
	}
	problems := objects(ts, record["problems"])
	if record["can_trace"] != (len(problems) == 0) {
		ts.Fatalf("can_trace is %v with the problems %v", record["can_trace"], problems)
	}
	for _, p := range problems {
		wants(ts, p, "what", "why", "remedy")
		for key, words := range p {
			if words == "" {
				ts.Fatalf("a problem without %s: %v", key, p)
			}
		}
	}
}

// wants fails unless an object has these fields.
func wants(ts *testscript.TestScript, object map[string]any, names ...string) {
	for _, name := range names {
		if _, ok := object[name]; !ok {
			ts.Fatalf("no %q in %v", name, object)
		}
	}
}

// objects gives a list's members.
func objects(ts *testscript.TestScript, list any) (all []map[string]any) {
	members, ok := list.([]any)
	if !ok {
		ts.Fatalf("not a list: %v", list)
	}
	for _, member := range members {
		object, ok := member.(map[string]any)
		if !ok {
			ts.Fatalf("not an object: %v", member)
		}
		all = append(all, object)
	}
	return all
}

// commands asks the program itself which commands it has, so that none is
// forgotten.
func commands(t *testing.T) []string {
	t.Helper()
	out, err := exec.Command(bin+"/modtrace", "--help").Output()
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(out), "Available Commands:\n")
	list, _, _ = strings.Cut(list, "\n\n")
	var names []string
	for line := range strings.Lines(list) {
		names = append(names, strings.Fields(line)[0])
	}
	if len(names) < 4 {
		t.Fatalf("commands are %v, by:\n%s", names, out)
	}
	return names
}

// TestHelp wants of each command's help that it goes to stdout, fits a
// terminal and has an example that begins with something to type.
func TestHelp(t *testing.T) {
	for _, name := range append(commands(t), "") {
		t.Run(name, func(t *testing.T) {
			words := append(strings.Fields(name), "--help")
			cmd := exec.Command(bin+"/modtrace", words...)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			if err != nil || stderr.Len() > 0 {
				t.Fatalf("%v, stderr:\n%s", err, &stderr)
			}
			help := string(out)
			_, example, ok := strings.Cut(help, "\nExamples:\n")
			example, _, _ = strings.Cut(example, "\n\n")
			if !ok || !strings.Contains(example, "modtrace "+name) {
				t.Errorf("no example of it in:\n%s", help)
			}
			for line := range strings.Lines(help) {
				if len(line) > 100 {
					t.Errorf("a line of %d columns: %s", len(line), line)
				}
			}
			if again, err := exec.Command(bin+"/modtrace", append([]string{"help"}, strings.Fields(name)...)...).Output(); err != nil || string(again) != help {
				t.Errorf("help %s says something else (%v):\n%s", name, err, again)
			}
		})
	}
}
