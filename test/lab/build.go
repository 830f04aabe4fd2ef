// SPDX-License-Identifier: MIT

package lab

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/modtrace/modtrace/test/fixtures"
)

// buildTools is what kbuild runs besides the compiler.
var buildTools = []string{"make", "bash", "dash", "coreutils", "sed", "grep", "mawk", "findutils", "diffutils"}

var (
	compilerDep = regexp.MustCompile(`\b(?:linux-compiler-)?gcc-(\d+)(?:-for-host|-x86|-arm)?\b`)
	kbuildDep   = regexp.MustCompile(`\blinux-kbuild-[^\s,|(]+`)
	commonDep   = regexp.MustCompile(`\blinux-headers-[^\s,|(]+-common(?:-rt)?\b`)
)

// buildNeeds is what a kernel's headers package says about building for it.
type buildNeeds struct {
	compiler string // gcc's major version
	kbuild   string
	common   string
}

func parseBuildNeeds(headers packageRecord) (buildNeeds, error) {
	var n buildNeeds
	if m := compilerDep.FindStringSubmatch(headers.Depends); m != nil {
		n.compiler = m[1]
	}
	n.kbuild = kbuildDep.FindString(headers.Depends)
	n.common = commonDep.FindString(headers.Depends)
	if n.compiler == "" || n.kbuild == "" || n.common == "" {
		return n, fmt.Errorf("package %s: no compiler, kbuild or common headers among its dependencies: %s", headers.Name, headers.Depends)
	}
	return n, nil
}

func (l *Lab) buildDir(k *Kernel) string { return l.path("build", k.Release+"_"+k.Version) }

// buildRoot returns a tree in which modules for k can be built, always with
// programs of the machine's own architecture.
func (l *Lab) buildRoot(ctx context.Context, k *Kernel) (string, error) {
	dir := l.buildDir(k)
	err := l.once(ctx, dir, func(ctx context.Context, tmp string) error {
		stop := l.progress("compiler and headers for %s", k.Release)
		err := l.fillBuildRoot(ctx, k, tmp)
		stop(err)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("making a build root for %s: %w", k.Release, err)
	}
	return dir, nil
}

func (l *Lab) fillBuildRoot(ctx context.Context, k *Kernel, dir string) error {
	target, err := l.archive(ctx, k.Suite, k.Series.Arch)
	if err != nil {
		return err
	}
	host, err := l.archive(ctx, k.Suite, hostArch)
	if err != nil {
		return err
	}
	found, err := target.search(ctx, "^linux-headers-"+quoteName(k.Release)+"$")
	if err != nil {
		return err
	}
	if len(found) == 0 {
		return fmt.Errorf("headers of %s: %w", k.Release, ErrMissing)
	}
	needs, err := parseBuildNeeds(found[0])
	if err != nil {
		return err
	}
	headers, err := target.download(ctx, found[0].Name, needs.common)
	if err != nil {
		return err
	}
	gcc := "gcc-" + needs.compiler
	if k.Series.Arch != hostArch {
		gcc += "-" + crossPackage(k.Series.Arch)
	}
	tools, err := host.closure(ctx, append([]string{gcc, needs.kbuild}, buildTools...)...)
	if err != nil {
		return err
	}
	if err := extract(ctx, dir, append(tools, headers...)); err != nil {
		return err
	}
	return finishRoot(dir)
}

// finishRoot makes what the packages' scripts would have made.
func finishRoot(dir string) error {
	for link, to := range map[string]string{"bin/sh": "dash", "bin/awk": "mawk"} {
		path := filepath.Join(dir, "usr", link)
		if exists(path) {
			continue
		}
		if err := os.Symlink(to, path); err != nil {
			return err
		}
	}
	for _, d := range []string{"dev", "proc", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o777); err != nil {
			return err
		}
	}
	return os.RemoveAll(filepath.Join(dir, "usr", "share", "doc"))
}

// Fixtures returns the directory with the fixture modules built for k.
func (l *Lab) Fixtures(ctx context.Context, k *Kernel) (string, error) {
	src, err := fs.Sub(fixtures.Sources, "src")
	if err != nil {
		return "", err
	}
	hash, err := fixturesHash()
	if err != nil {
		return "", err
	}
	dir := l.path("fixtures", k.Release+"_"+k.Version+"-"+hash)
	err = l.once(ctx, dir, func(ctx context.Context, tmp string) error {
		stop := l.progress("building fixtures for %s", k.Release)
		err := l.buildModules(ctx, k, src, tmp)
		stop(err)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("building fixtures for %s: %w", k.Release, err)
	}
	return dir, nil
}

// buildModules builds the sources for k and puts the modules into dir.
func (l *Lab) buildModules(ctx context.Context, k *Kernel, src fs.FS, dir string) error {
	root, err := l.buildRoot(ctx, k)
	if err != nil {
		return err
	}
	// The cache's lock is held, so nobody else builds in this root.
	work := filepath.Join(root, "modules")
	if err := os.RemoveAll(work); err != nil {
		return err
	}
	defer os.RemoveAll(work)
	if err := os.CopyFS(work, src); err != nil {
		return err
	}
	cross := ""
	build := []string{"make", "-s", "-j2", "-C", "/usr/src/linux-headers-" + k.Release, "M=/modules", "modules"}
	if k.Series.Arch != hostArch {
		cross = crossPackage(k.Series.Arch) + "-"
		build = append(build, "ARCH="+kbuildArch(k.Series.Arch), "CROSS_COMPILE="+cross)
	}
	if err := inRoot(ctx, root, build); err != nil {
		return err
	}
	built, err := filepath.Glob(filepath.Join(work, "*.ko"))
	if err != nil {
		return err
	}
	if len(built) == 0 {
		return errors.New("the build left no module")
	}
	// Nine tenths of a module are debug information that no guest reads.
	strip := []string{cross + "strip", "--strip-debug"}
	for _, ko := range built {
		strip = append(strip, "/modules/"+filepath.Base(ko))
	}
	if err := inRoot(ctx, root, strip); err != nil {
		return err
	}
	for _, ko := range built {
		if err := copyFile(filepath.Join(dir, filepath.Base(ko)), ko); err != nil {
			return err
		}
	}
	return nil
}

// inRoot runs a command with root as its file system. The mounts are in a
// namespace of their own, gone with the command.
func inRoot(ctx context.Context, root string, args []string) error {
	unshare := []string{"unshare", "--mount"}
	if os.Geteuid() != 0 {
		unshare = append(unshare, "--map-root-user")
	}
	chroot := append([]string{"chroot", root, "/usr/bin/env", "-i", "PATH=/usr/sbin:/usr/bin", "HOME=/tmp", "LC_ALL=C"}, args...)
	if _, err := output(ctx, unshare[0], append(unshare[1:], "true")...); err != nil {
		// Containers seldom allow mounts, and root in them may still chroot.
		if err := fakeMounts(root); err != nil {
			return fmt.Errorf("preparing %s for want of mounts: %w", root, err)
		}
		_, err := output(ctx, chroot[0], chroot[1:]...)
		return err
	}
	const script = `set -e
mount --rbind /dev "$0/dev"
mount --rbind /proc "$0/proc"
exec "$@"`
	mounted := slices.Concat(unshare[1:], []string{"sh", "-c", script, root}, chroot)
	_, err := output(ctx, unshare[0], mounted...)
	return err
}

// fakeMounts puts into a root what compilers look for in /dev and /proc.
func fakeMounts(root string) error {
	null := filepath.Join(root, "dev", "null")
	if !exists(null) {
		if err := unix.Mknod(null, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); err != nil {
			return fmt.Errorf("making /dev/null: %w", err)
		}
	}
	self := filepath.Join(root, "proc", "self")
	if err := os.MkdirAll(self, 0o755); err != nil {
		return err
	}
	// The objtool of 7.x looks for its stack, to tell an overflow from another
	// crash; any stack will do.
	return copyFile(filepath.Join(self, "maps"), "/proc/self/maps")
}

func copyFile(to, from string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o644)
}

// fixturesHash identifies the fixtures' sources.
func fixturesHash() (string, error) { return hashFS(fixtures.Sources) }

// hashFS identifies the content of a file system.
func hashFS(fsys fs.FS) (string, error) {
	h := sha256.New()
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(fsys, name)
		if err != nil {
			return err
		}
		fmt.Fprintf(h, "%s %d\n", name, len(data))
		_, err = h.Write(data)
		return err
	})
	return hex.EncodeToString(h.Sum(nil)[:8]), err
}

// crossPackage returns the name by which Debian calls the cross compiler.
func crossPackage(arch string) string {
	return map[string]string{"amd64": "x86-64-linux-gnu", "arm64": "aarch64-linux-gnu"}[arch]
}

// kbuildArch returns the name by which the kernel calls an architecture.
func kbuildArch(arch string) string {
	return map[string]string{"amd64": "x86", "arm64": "arm64"}[arch]
}
