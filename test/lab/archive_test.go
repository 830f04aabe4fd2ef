// SPDX-License-Identifier: MIT

package lab

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseRecords(t *testing.T) {
	got := parseRecords(`Package: linux-headers-6.1.0-50-arm64
Source: linux
Version: 6.1.176-1
Architecture: arm64
Depends: linux-headers-6.1.0-50-common (= 6.1.176-1), linux-compiler-gcc-12-arm
Description: header files
 Package: not a field

Package: other
Version: 2
`)
	want := []packageRecord{
		{"linux-headers-6.1.0-50-arm64", "6.1.176-1", "arm64", "linux-headers-6.1.0-50-common (= 6.1.176-1), linux-compiler-gcc-12-arm"},
		{Name: "other", Version: "2"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

func TestPickSource(t *testing.T) {
	for _, c := range []struct{ targets, want string }{
		{"Debian-Security|http://a/debian-security/\nDebian|http://b/debian/\n", "http://b/debian/"},
		{"|http://c/apt/\n|http://d/debian/\nDebian|http://e/mirror/\n", "http://e/mirror/"},
		{"|http://c/apt/\n|http://d/debian/\n|http://e/debian-security/\n", "http://d/debian/"},
	} {
		if got, err := pickSource(c.targets); err != nil || got != c.want {
			t.Errorf("pickSource(%q) = %q, %v, want %q", c.targets, got, err, c.want)
		}
	}
	if got, err := pickSource("Ubuntu|http://f/ubuntu/\n"); !errors.Is(err, errNoArchive) {
		t.Errorf("a machine without Debian's archive gave %q, %v", got, err)
	}
}

func TestSourcesList(t *testing.T) {
	for suite, want := range map[string]string{
		"trixie":           "deb [o] u trixie main\n",
		"trixie-backports": "deb [o] u trixie-backports main\ndeb [o] u trixie main\n",
		"experimental":     "deb [o] u experimental main\ndeb [o] u sid main\n",
	} {
		if got := sourcesList(suite, "[o] ", "u"); got != want {
			t.Errorf("%s: %q, want %q", suite, got, want)
		}
	}
}

func TestFilesOf(t *testing.T) {
	a := archive{debs: "/cache/debs"}
	got := a.filesOf("'http://x/pool/l%2bx_1.deb' l+x_1_amd64.deb 123 SHA256:0\nWarning: no\n\n'http://x/y' y.deb 1 MD5Sum:0\n")
	want := []string{"/cache/debs/l+x_1_amd64.deb", "/cache/debs/y.deb"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestParseBuildNeeds(t *testing.T) {
	for depends, want := range map[string]buildNeeds{
		"linux-headers-5.10.0-32-common (= 5.10.223-1), linux-kbuild-5.10 (>= 5.10.223-1), linux-compiler-gcc-10-x86": {
			"10", "linux-kbuild-5.10", "linux-headers-5.10.0-32-common"},
		"linux-base (>= 4.12~), linux-headers-6.12.1+deb13-common-rt (= 6.12.1-1), linux-image-6.12.1+deb13-rt-amd64 (= 6.12.1-1) | linux-image-6.12.1+deb13-rt-amd64-unsigned (= 6.12.1-1), linux-kbuild-6.12.1+deb13, gcc-14": {
			"14", "linux-kbuild-6.12.1+deb13", "linux-headers-6.12.1+deb13-common-rt"},
		"gcc-16-for-host, linux-base (>= 4.12~), linux-base-7.3-amd64 (= 7.3-1), linux-headers-7.3-common (= 7.3-1), linux-kbuild-7.3": {
			"16", "linux-kbuild-7.3", "linux-headers-7.3-common"},
	} {
		got, err := parseBuildNeeds(packageRecord{Name: "x", Depends: depends})
		if err != nil || got != want {
			t.Errorf("%s:\ngot %+v, %v\nwant %+v", depends, got, err, want)
		}
	}
	if _, err := parseBuildNeeds(packageRecord{Name: "x", Depends: "gcc-14, linux-kbuild-7.3"}); err == nil {
		t.Error("headers without the common part were accepted")
	}
}

func TestParseModulesDep(t *testing.T) {
	got := parseModulesDep("kernel/a.ko.xz: kernel/b.ko.xz kernel/c-d.ko.xz\nkernel/b.ko.xz:\n")
	want := map[string][]string{"kernel/a.ko.xz": {"kernel/b.ko.xz", "kernel/c-d.ko.xz"}, "kernel/b.ko.xz": nil}
	if !maps.EqualFunc(got, want, slices.Equal) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := ModuleName("kernel/net/nf-conn_track.ko.xz"); got != "nf_conn_track" {
		t.Errorf("the module's name is %q", got)
	}
}

// An interrupted fill must leave nothing that passes for a good one.
func TestOnce(t *testing.T) {
	l, err := New(Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	dir := l.path("things", "one")
	failure := errors.New("no space")
	fills := 0
	fill := func(result error) func(context.Context, string) error {
		return func(ctx context.Context, tmp string) error {
			fills++
			if err := os.WriteFile(filepath.Join(tmp, "part"), nil, 0o644); err != nil {
				return err
			}
			// A fill may need something else of the cache.
			if err := l.once(ctx, l.path("things", "two"), func(context.Context, string) error { return nil }); err != nil {
				return err
			}
			return result
		}
	}
	if err := l.once(t.Context(), dir, fill(failure)); !errors.Is(err, failure) {
		t.Fatalf("got %v, want %v", err, failure)
	}
	if exists(dir) {
		t.Error("a failed fill left its directory")
	}
	for range 2 {
		if err := l.once(t.Context(), dir, fill(nil)); err != nil {
			t.Fatal(err)
		}
	}
	if fills != 2 || !exists(filepath.Join(dir, "part")) {
		t.Errorf("filled %d times, want twice: once failed, once well", fills)
	}
	left, err := filepath.Glob(l.path("things", ".making-*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestLockExcludes(t *testing.T) {
	l, err := New(Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, release, err := l.hold(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, again, err := l.hold(ctx); err != nil {
		t.Errorf("the holder cannot hold it once more: %v", err)
	} else {
		again()
	}
	other, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("gave up"))
	if _, _, err := l.hold(other); err == nil || !strings.Contains(err.Error(), "gave up") {
		t.Errorf("somebody else got a lock that is held, or no reason: %v", err)
	}
	release()
	if _, release, err := l.hold(t.Context()); err != nil {
		t.Errorf("the lock was not given back: %v", err)
	} else {
		release()
	}
}

func TestClean(t *testing.T) {
	l, err := New(Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	s := Matrix()[0]
	if err := writeJSON(l.note(s), candidate{Release: "5.10.0-32-amd64", Version: "5.10.223-1"}); err != nil {
		t.Fatal(err)
	}
	if err := writeJSON(l.path("trees", "t.json"), treeNote{Dir: "trees/t-new"}); err != nil {
		t.Fatal(err)
	}
	kept := []string{"kernels/5.10.0-32-amd64_5.10.223-1", "build/5.10.0-32-amd64_5.10.223-1", "trees/t-new"}
	gone := []string{"kernels/5.10.0-30-amd64_5.10.218-1", "build/5.10.0-30-amd64_5.10.218-1", "fixtures/5.10.0-32-amd64_5.10.223-1-oldsources", "trees/t-old", ".run-1"}
	for _, d := range append(kept, gone...) {
		if err := os.MkdirAll(l.path(d), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(l.path(d, "file"), []byte("1234567890"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	old := time.Now().Add(-48 * time.Hour)
	if err := os.Chtimes(l.path(".run-1"), old, old); err != nil {
		t.Fatal(err)
	}
	freed, err := l.Clean(t.Context())
	if want := int64(10 * len(gone)); err != nil || freed != want {
		t.Errorf("freed %d bytes, %v, want %d", freed, err, want)
	}
	for _, d := range kept {
		if !exists(l.path(d)) {
			t.Errorf("%s is in use and gone", d)
		}
	}
	for _, d := range gone {
		if exists(l.path(d)) {
			t.Errorf("%s is still there", d)
		}
	}
}
