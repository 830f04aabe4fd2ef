package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// terminal opens a pseudo-terminal: what is written to user can be read from
// screen (pts(4)).
func terminal(t *testing.T) (screen, user *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("this machine has no pseudo-terminals")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { screen.Close() })
	if err := unix.IoctlSetPointerInt(int(screen.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(screen.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	user, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { user.Close() })
	return screen, user
}

// check runs modtrace check with stdout on a terminal, or on a pipe while
// stderr is on the terminal, and gives what it printed on stdout.
func check(t *testing.T, onTerminal bool, env string, flags ...string) string {
	t.Helper()
	screen, user := terminal(t)
	cmd := exec.Command(bin+"/modtrace", append([]string{"check"}, flags...)...)
	cmd.Env = append(os.Environ(), env)
	var piped bytes.Buffer
	cmd.Stdout, cmd.Stderr = &piped, user
	if onTerminal {
		cmd.Stdout, cmd.Stderr = user, nil
	}
	read := make(chan string)
	go func() {
		// A terminal whose users are all gone gives EIO for an end.
		var b bytes.Buffer
		if _, err := b.ReadFrom(screen); err != nil && !errors.Is(err, syscall.EIO) {
			t.Error(err)
		}
		read <- b.String()
	}()
	err := cmd.Run()
	user.Close()
	shown := <-read
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if onTerminal {
		return shown
	}
	return piped.String()
}

// TestColor goes through what decides about colours: the flag before the
// environment, and that before whether it is a terminal that is written to.
func TestColor(t *testing.T) {
	const unset = "MODTRACE_UNUSED=1"
	tests := []struct {
		name       string
		onTerminal bool
		env        string
		flags      []string
		want       bool
	}{
		{"a terminal", true, unset, nil, true},
		{"a pipe, stderr on a terminal", false, unset, nil, false},
		{"NO_COLOR", true, "NO_COLOR=1", nil, false},
		{"an empty NO_COLOR", true, "NO_COLOR=", nil, true},
		{"auto and NO_COLOR", true, "NO_COLOR=1", []string{"--color=auto"}, false},
		{"always, on a pipe", false, unset, []string{"--color", "always"}, true},
		{"always and NO_COLOR", false, "NO_COLOR=1", []string{"--color=always"}, true},
		{"never", true, unset, []string{"--color=never"}, false},
		{"JSON", true, unset, []string{"--json"}, false},
		{"JSON, always", true, unset, []string{"--json", "--color=always"}, false},
	}
	t.Setenv("NO_COLOR", "")
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			out := check(t, test.onTerminal, test.env, test.flags...)
			if out == "" {
				t.Fatal("check says nothing")
			}
			if got := strings.Contains(out, "\x1b["); got != test.want {
				t.Errorf("coloured is %v, want %v:\n%s", got, test.want, out)
			}
		})
	}
}
