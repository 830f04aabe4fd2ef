// SPDX-License-Identifier: MIT

package lab

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// AddPrograms adds programs of Debian packages to a guest, each with the shared
// libraries that it is linked with. Paths are those in the packages; links are
// followed and kept.
func (l *Lab) AddPrograms(ctx context.Context, a *Initrd, spec TreeSpec, programs ...string) error {
	tree, err := l.Tree(ctx, spec)
	if err != nil {
		return err
	}
	c := closure{tree: tree, image: a, arch: spec.Arch, done: map[string]bool{}}
	for _, p := range programs {
		if err := c.add(p); err != nil {
			return fmt.Errorf("adding %s: %w", p, err)
		}
	}
	return nil
}

// AddKmod adds Debian's own modprobe, rmmod, insmod, lsmod and modinfo, which
// come before busybox's in the PATH. Users have these: they look at the count in
// sysfs and refuse by themselves, which busybox does not.
func (l *Lab) AddKmod(ctx context.Context, a *Initrd, k *Kernel) error {
	return l.AddTools(ctx, a, k, "kmod", "/usr/sbin/modprobe", "/usr/sbin/rmmod", "/usr/sbin/insmod",
		"/usr/sbin/lsmod", "/usr/sbin/modinfo", "/usr/sbin/depmod", "/usr/bin/kmod")
}

// AddTools adds programs of a package of Debian's. They come before busybox's in the
// PATH.
func (l *Lab) AddTools(ctx context.Context, a *Initrd, k *Kernel, pkg string, programs ...string) error {
	return l.AddPrograms(ctx, a, TreeSpec{Suite: toolSuite, Arch: k.Series.Arch, Packages: []string{pkg}}, programs...)
}

// closure adds files of a tree with what they are linked with.
type closure struct {
	tree  string
	image *Initrd
	arch  string
	done  map[string]bool
}

// add takes a path as it is inside the tree.
func (c *closure) add(name string) error {
	name = c.merged(name)
	if c.done[name] {
		return nil
	}
	c.done[name] = true
	file := filepath.Join(c.tree, name)
	info, err := os.Lstat(file)
	if err != nil {
		return err
	}
	if info.Mode()&os.ModeSymlink != 0 {
		target, err := os.Readlink(file)
		if err != nil {
			return err
		}
		c.image.AddLink(name, target)
		if !path.IsAbs(target) {
			target = path.Join(path.Dir(name), target)
		}
		return c.add(target)
	}
	if err := c.image.AddHostFile(name, file); err != nil {
		return err
	}
	return c.addLinked(name, file)
}

// merged maps /lib/x to /usr/lib/x: the image and the tree both have a merged
// /usr, and a file must not come in under two names.
func (c *closure) merged(name string) string {
	name = path.Clean("/" + name)
	first, _, _ := strings.Cut(name[1:], "/")
	switch first {
	case "bin", "sbin", "lib", "lib64":
		return "/usr" + name
	}
	return name
}

func (c *closure) addLinked(name, file string) error {
	f, err := elf.Open(file)
	if err != nil {
		var format *elf.FormatError
		if errors.As(err, &format) {
			// A script; its interpreter is the caller's affair.
			return nil
		}
		return err
	}
	defer func() { _ = f.Close() }()
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		interp := make([]byte, p.Filesz)
		if _, err := p.ReadAt(interp, 0); err != nil {
			return err
		}
		if err := c.add(strings.TrimRight(string(interp), "\x00")); err != nil {
			return err
		}
	}
	libs, err := f.ImportedLibraries()
	if err != nil {
		return err
	}
	dirs := c.libraryDirs(name, f)
	for _, lib := range libs {
		if err := c.addLibrary(lib, dirs); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func (c *closure) addLibrary(lib string, dirs []string) error {
	for _, d := range dirs {
		p := path.Join(d, lib)
		if exists(filepath.Join(c.tree, c.merged(p))) {
			return c.add(p)
		}
	}
	return fmt.Errorf("no library %s in %s", lib, strings.Join(dirs, ", "))
}

// libraryDirs is where the loader will look.
func (c *closure) libraryDirs(name string, f *elf.File) []string {
	var dirs []string
	for _, tag := range []elf.DynTag{elf.DT_RUNPATH, elf.DT_RPATH} {
		paths, _ := f.DynString(tag)
		for _, p := range paths {
			for _, d := range strings.Split(p, ":") {
				dirs = append(dirs, strings.ReplaceAll(d, "$ORIGIN", path.Dir(name)))
			}
		}
	}
	triplet := map[string]string{"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}[c.arch]
	return append(dirs, "/usr/lib/"+triplet, "/usr/lib", "/usr/lib64")
}
