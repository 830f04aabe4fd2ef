// SPDX-License-Identifier: MIT

package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Kernel is one kernel of the archive, in the cache.
type Kernel struct {
	Series  Series
	Release string // uname -r
	Version string // of the package
	Package string
	Suite   string
	// Dir holds the extracted packages.
	Dir string
}

// Vmlinuz returns the boot image.
func (k *Kernel) Vmlinuz() string {
	return firstOf(
		filepath.Join(k.Dir, "boot", "vmlinuz-"+k.Release),
		filepath.Join(k.ModuleDir(), "vmlinuz"),
		filepath.Join(k.ModuleDir(), "vmlinuz.unsigned"),
	)
}

// ModuleDir returns the directory of the kernel's own modules.
func (k *Kernel) ModuleDir() string {
	return filepath.Join(k.Dir, "usr", "lib", "modules", k.Release)
}

// Config returns the file with the kernel's configuration, or "" when there is
// none.
func (k *Kernel) Config() string {
	return firstOf(filepath.Join(k.Dir, "boot", "config-"+k.Release), filepath.Join(k.ModuleDir(), "config"))
}

// Cached says whether the kernel and what builds modules for it are there.
func (l *Lab) Cached(k *Kernel) bool { return exists(k.Dir) && exists(l.buildDir(k)) }

// Known returns the kernel that the cache has for a series, without asking the
// archive; ok is false when there is none.
func (l *Lab) Known(s Series) (k *Kernel, ok bool) {
	var c candidate
	if readJSON(l.note(s), &c) != nil {
		return nil, false
	}
	return l.kernelOf(s, c), true
}

func (l *Lab) note(s Series) string { return l.path("series", s.Name+".json") }

func (l *Lab) kernelOf(s Series, c candidate) *Kernel {
	return &Kernel{
		Series: s, Release: c.Release, Version: c.Version, Package: c.Package, Suite: c.Suite,
		Dir: l.path("kernels", c.Release+"_"+c.Version),
	}
}

// Resolve finds the newest kernel of a series. It asks the archive only when
// the cache has no answer, or when the Lab was told to refresh.
func (l *Lab) Resolve(ctx context.Context, s Series) (*Kernel, error) {
	key := "series " + s.Name
	if k, ok := l.Known(s); ok && !l.stale(key) {
		return k, nil
	}
	ctx, release, err := l.hold(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	best, err := l.search(ctx, s)
	if err != nil {
		return nil, fmt.Errorf("finding a kernel for %s: %w", s.Name, err)
	}
	if err := writeJSON(l.note(s), best); err != nil {
		return nil, err
	}
	l.setFresh(key)
	return l.kernelOf(s, *best), nil
}

func (l *Lab) search(ctx context.Context, s Series) (*candidate, error) {
	var best *candidate
	for _, suite := range s.Suites {
		a, err := l.archive(ctx, suite, s.Arch)
		if err != nil {
			return nil, err
		}
		pkgs, err := a.search(ctx, "^linux-(image|binary-unsigned)-")
		if err != nil {
			return nil, err
		}
		best = s.newest(suite, pkgs, best)
	}
	if best == nil {
		return nil, ErrMissing
	}
	return best, nil
}

// Kernel returns the newest kernel of a series, ready to boot and with all that
// building modules for it takes.
func (l *Lab) Kernel(ctx context.Context, s Series) (*Kernel, error) {
	k, err := l.tryKernel(ctx, s)
	// Versions vanish from the archive within weeks: what an old index names can
	// often not be had any more, but its successor can.
	if err != nil && ctx.Err() == nil && l.outdated() {
		var again error
		if k, again = l.tryKernel(ctx, s); again != nil {
			return nil, errors.Join(err, again)
		}
		return k, nil
	}
	return k, err
}

func (l *Lab) tryKernel(ctx context.Context, s Series) (*Kernel, error) {
	k, err := l.Resolve(ctx, s)
	if err != nil {
		return nil, err
	}
	err = l.once(ctx, k.Dir, func(ctx context.Context, tmp string) error {
		stop := l.progress("kernel %s of %s", k.Release, k.Suite)
		err := l.fetchKernel(ctx, k, tmp)
		stop(err)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("fetching kernel %s: %w", k.Release, err)
	}
	if _, err := l.buildRoot(ctx, k); err != nil {
		return nil, err
	}
	return k, nil
}

func (l *Lab) fetchKernel(ctx context.Context, k *Kernel, dir string) error {
	a, err := l.archive(ctx, k.Suite, k.Series.Arch)
	if err != nil {
		return err
	}
	pkgs := []string{k.Package}
	// From 7.0 on the image package is empty and these hold the kernel.
	split, err := a.search(ctx, "^linux-(base|binary|modules)-"+quoteName(k.Release)+"$")
	if err != nil {
		return err
	}
	for _, p := range split {
		if !strings.HasPrefix(p.Name, "linux-binary-") || !strings.HasPrefix(k.Package, "linux-binary-unsigned-") {
			pkgs = append(pkgs, p.Name)
		}
	}
	files, err := a.download(ctx, pkgs...)
	if err != nil {
		return err
	}
	if err := extract(ctx, dir, files); err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(dir, "usr", "share")); err != nil {
		return err
	}
	// Packages leave this to the machine that they are installed on.
	if _, err := output(ctx, "depmod", "-b", dir, k.Release); err != nil {
		return fmt.Errorf("listing the modules of %s: %w", k.Release, err)
	}
	here := *k
	here.Dir = dir
	if here.Vmlinuz() == "" {
		return fmt.Errorf("no boot image in %v", pkgs)
	}
	return nil
}

// firstOf returns the first of the paths that is there, or "".
func firstOf(paths ...string) string {
	for _, p := range paths {
		if exists(p) {
			return p
		}
	}
	return ""
}
