package procfs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	const rest = " S 12 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 250 0 0"
	for text, want := range map[string]Stat{
		"7 (sh)" + rest:        {"sh", "S", 12, 250},
		"7 (a) b (c)" + rest:   {"a) b (c", "S", 12, 250},
		"7 ()" + rest + " 9 9": {"", "S", 12, 250},
	} {
		if got, err := parseStat([]byte(text)); got != want || err != nil {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "7 sh S 1", "7 )sh(" + rest, "7 (sh) S 12", "7 (sh)" + strings.Replace(rest, "12", "x", 1), "7 (sh)" + strings.Replace(rest, "250", "x", 1)} {
		if got, err := parseStat([]byte(text)); err == nil {
			t.Errorf("%q: %+v", text, got)
		}
	}
}

// TestThisProcess reads what is known of the process that asks.
func TestThisProcess(t *testing.T) {
	dir := Task(os.Getpid())
	s, err := ReadStat(dir)
	if err != nil {
		t.Fatal(err)
	}
	if s.Parent != os.Getppid() || s.Comm != Comm(dir) || s.Ended() || s.Comm == "" {
		t.Errorf("%+v, called %s", s, Comm(dir))
	}
	if age := time.Since(s.Start()); age < -time.Second || age > 2*time.Hour {
		t.Errorf("started %v ago", age)
	}
	if _, err := ReadStat(Task(1 << 30)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a task that is not: %v", err)
	}
	if got := Comm(Task(1 << 30)); got != "" {
		t.Errorf("a task that is not is called %q", got)
	}
}

func TestCgroup(t *testing.T) {
	dir := t.TempDir()
	for text, want := range map[string]string{
		"0::/user.slice\n":                      "/user.slice",
		"2:cpu:/x\n0::/with blank/y\n":          "/with blank/y",
		"2:cpu:/x\n":                            "",
		"":                                      "",
		"1:name=systemd:/init.scope\n0::/a:b\n": "/a:b",
	} {
		if err := os.WriteFile(filepath.Join(dir, "cgroup"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := Cgroup(dir); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	if got := Cgroup(filepath.Join(dir, "gone")); got != "" {
		t.Errorf("of none: %q", got)
	}
}
