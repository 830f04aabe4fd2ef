// SPDX-License-Identifier: MIT

package lab

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func sample() *Initrd {
	a := NewInitrd()
	a.AddFile("/usr/bin/tool", 0o755, []byte("#!/bin/sh\n"))
	a.AddFile("etc/odd", 0o600, []byte("12345"))
	a.AddLink("bin", "usr/bin")
	a.AddDir("tmp", 0o777)
	return a
}

func TestInitrdIsDeterministic(t *testing.T) {
	b := NewInitrd()
	b.AddDir("tmp", 0o777)
	b.AddLink("bin", "usr/bin")
	b.AddFile("etc/odd", 0o600, []byte("overwritten"))
	b.AddFile("etc/odd", 0o600, []byte("12345"))
	b.AddFile("usr/bin/tool", 0o755, []byte("#!/bin/sh\n"))
	if !bytes.Equal(sample().Bytes(), b.Bytes()) {
		t.Error("the same files added in another order give another archive")
	}
}

func TestInitrdClone(t *testing.T) {
	a := sample()
	before := a.Bytes()
	c := a.Clone()
	c.AddFile("more", 0o644, nil)
	if !bytes.Equal(a.Bytes(), before) || !c.Has("/more") || a.Has("more") {
		t.Error("adding to a clone changed the original, or not the clone")
	}
}

// The reference for the format is cpio itself.
func TestInitrdExtracts(t *testing.T) {
	if _, err := exec.LookPath("cpio"); err != nil {
		t.Skip("no cpio on this machine")
	}
	dir := t.TempDir()
	cmd := exec.Command("cpio", "--quiet", "-idm")
	cmd.Dir = dir
	cmd.Stdin = bytes.NewReader(sample().Bytes())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cpio: %v: %s", err, out)
	}
	for name, want := range map[string]struct {
		mode os.FileMode
		data string
	}{
		"usr/bin/tool": {0o755, "#!/bin/sh\n"},
		"etc/odd":      {0o600, "12345"},
		"bin/tool":     {0o755, "#!/bin/sh\n"},
		"tmp":          {os.ModeDir | 0o777, ""},
		"usr/bin":      {os.ModeDir | 0o755, ""},
	} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
			continue
		}
		if info.Mode() != want.mode {
			t.Errorf("%s has mode %v, want %v", name, info.Mode(), want.mode)
		}
		if info.IsDir() {
			continue
		}
		if data, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(data) != want.data {
			t.Errorf("%s has %q, %v, want %q", name, data, err, want.data)
		}
	}
	if to, err := os.Readlink(filepath.Join(dir, "bin")); err != nil || to != "usr/bin" {
		t.Errorf("bin leads to %q, %v", to, err)
	}
}

// The kernel makes no directories by itself: each must come before its files.
func TestInitrdOrder(t *testing.T) {
	raw := sample().Bytes()
	last := -1
	for _, name := range []string{"usr\x00", "usr/bin\x00", "usr/bin/tool\x00", "TRAILER!!!\x00"} {
		// The last field of a header is all zeros, and the name follows it.
		at := bytes.Index(raw, []byte("00000000"+name))
		if at <= last {
			t.Errorf("%q is at %d, before its directory at %d", strings.TrimRight(name, "\x00"), at, last)
		}
		last = at
	}
}
