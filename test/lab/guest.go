// SPDX-License-Identifier: MIT

package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// hostArch is the architecture that the compilers run on.
const hostArch = runtime.GOARCH

// toolSuite is where programs for guests come from.
const toolSuite = "trixie"

// GoBuild builds a package of this module for the guest: static, for arch.
func (l *Lab) GoBuild(ctx context.Context, arch, pkg, out string, flags ...string) error {
	args := append([]string{"build", "-trimpath", "-o", out}, flags...)
	return goRun(ctx, arch, append(args, pkg)...)
}

// ModtracePath is where AddModtrace puts it in the guest.
const ModtracePath = "/usr/bin/modtrace"

// AddModtrace builds modtrace for the guest and adds it.
func (l *Lab) AddModtrace(ctx context.Context, a *Initrd, k *Kernel) error {
	dir, err := os.MkdirTemp("", "modtrace-lab-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "modtrace")
	if err := l.GoBuild(ctx, k.Series.Arch, "./cmd/modtrace", file); err != nil {
		return err
	}
	return a.AddHostFile(ModtracePath, file)
}

// GoTestBuild builds the tests of a package for the guest.
func (l *Lab) GoTestBuild(ctx context.Context, arch, pkg, out string, flags ...string) error {
	args := append([]string{"test", "-c", "-trimpath", "-o", out}, flags...)
	return goRun(ctx, arch, append(args, pkg)...)
}

func goRun(ctx context.Context, arch string, args ...string) error {
	root, err := ModuleRoot(ctx)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOFLAGS=-buildvcs=false")
	if _, err := outputOf(cmd); err != nil {
		return fmt.Errorf("building %s for %s: %w", args[len(args)-1], arch, err)
	}
	return nil
}

// ModuleRoot returns where modtrace's sources are: the lab is a tool of the
// repository and works only in it.
func ModuleRoot(ctx context.Context) (string, error) {
	out, err := output(ctx, "go", "env", "GOMOD")
	if err != nil {
		return "", err
	}
	mod := strings.TrimSpace(out)
	if mod == "" || mod == os.DevNull {
		return "", fmt.Errorf("finding modtrace's sources: run this inside the repository")
	}
	return filepath.Dir(mod), nil
}

// baseInitrd has what every guest has: init, busybox and its applets.
func (l *Lab) baseInitrd(ctx context.Context, k *Kernel) (*Initrd, error) {
	arch := k.Series.Arch
	a := NewInitrd()
	for _, d := range []string{"proc", "sys", "dev", "run", "root", "mnt"} {
		a.AddDir(d, 0o755)
	}
	a.AddDir("tmp", 0o777)
	a.AddLink("bin", "usr/bin")
	a.AddLink("sbin", "usr/sbin")
	a.AddLink("lib", "usr/lib")
	a.AddLink("lib64", "usr/lib64")
	a.AddFile("etc/passwd", 0o644, []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n"))
	a.AddFile("etc/group", 0o644, []byte("root:x:0:\nnogroup:x:65534:\n"))
	a.AddFile("etc/hosts", 0o644, []byte("127.0.0.1 localhost lab\n"))

	if err := l.addInit(ctx, a, arch); err != nil {
		return nil, fmt.Errorf("adding init: %w", err)
	}
	if err := l.addBusybox(ctx, a, arch); err != nil {
		return nil, fmt.Errorf("adding busybox: %w", err)
	}
	// Busybox's shell runs its own applets without looking at the PATH, and
	// without exec: a tracer would see the shell's command line for rmmod.
	dash := TreeSpec{Suite: toolSuite, Arch: arch, Packages: []string{"dash"}}
	if err := l.AddPrograms(ctx, a, dash, "/usr/bin/dash"); err != nil {
		return nil, err
	}
	a.AddLink("usr/bin/sh", "dash")
	return a, nil
}

// addInit builds in a place of its own: two labs may do so at the same time.
func (l *Lab) addInit(ctx context.Context, a *Initrd, arch string) error {
	dir, err := os.MkdirTemp(l.dir, ".init-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	init := filepath.Join(dir, "init")
	if err := l.GoBuild(ctx, arch, "./test/guest", init, "-ldflags=-s -w"); err != nil {
		return err
	}
	return a.AddHostFile("init", init)
}

func (l *Lab) addBusybox(ctx context.Context, a *Initrd, arch string) error {
	spec := TreeSpec{Suite: toolSuite, Arch: arch, Packages: []string{"busybox-static"}}
	tree, err := l.Tree(ctx, spec)
	if err != nil {
		return err
	}
	if err := a.AddHostFile("usr/bin/busybox", filepath.Join(tree, "usr", "bin", "busybox")); err != nil {
		return err
	}
	// Only this machine's own busybox can be asked for its applets; the same
	// release for another architecture has the same ones.
	spec.Arch = hostArch
	if tree, err = l.Tree(ctx, spec); err != nil {
		return err
	}
	names, err := output(ctx, filepath.Join(tree, "usr", "bin", "busybox"), "--list")
	if err != nil {
		return err
	}
	for _, name := range strings.Fields(names) {
		if name != "busybox" {
			a.AddLink("usr/bin/"+name, "busybox")
		}
	}
	return nil
}

// Initrd returns an image for guests of k: the base system, and the fixture
// modules, which modprobe knows and which also lie in /fixtures.
func (l *Lab) Initrd(ctx context.Context, k *Kernel) (*Initrd, error) {
	a, err := l.baseInitrd(ctx, k)
	if err != nil {
		return nil, err
	}
	dir, err := l.Fixtures(ctx, k)
	if err != nil {
		return nil, err
	}
	modules, err := filepath.Glob(filepath.Join(dir, "*.ko"))
	if err != nil {
		return nil, err
	}
	extra := moduleDir(k) + "/extra"
	for _, ko := range modules {
		if err := a.AddHostFile(extra+"/"+filepath.Base(ko), ko); err != nil {
			return nil, err
		}
	}
	a.AddLink("fixtures", "/"+extra)
	return a, l.indexModules(ctx, a, k)
}

// AddInteractive adds what makes a prompt pleasant: bash, and the description of
// the terminal.
func (l *Lab) AddInteractive(ctx context.Context, a *Initrd, k *Kernel, term string) error {
	spec := TreeSpec{Suite: toolSuite, Arch: k.Series.Arch, Packages: []string{"bash", "ncurses-base"}}
	if err := l.AddPrograms(ctx, a, spec, "/usr/bin/bash"); err != nil {
		return err
	}
	tree, err := l.Tree(ctx, spec)
	if err != nil {
		return err
	}
	if term == "" || strings.ContainsRune(term, '/') {
		return nil
	}
	info := filepath.Join("usr", "share", "terminfo", term[:1], term)
	if !exists(filepath.Join(tree, info)) {
		return nil
	}
	return l.AddPrograms(ctx, a, spec, "/"+info)
}
