// SPDX-License-Identifier: MIT

package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
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
	for _, p := range []string{
		filepath.Join(k.Dir, "boot", "vmlinuz-"+k.Release),
		filepath.Join(k.ModuleDir(), "vmlinuz"),
	} {
		if exists(p) {
			return p
		}
	}
	return ""
}

// ModuleDir returns the directory of the kernel's own modules.
func (k *Kernel) ModuleDir() string {
	return filepath.Join(k.Dir, "usr", "lib", "modules", k.Release)
}

// Config returns the file with the kernel's configuration, or "" when there is
// none.
func (k *Kernel) Config() string {
	for _, p := range []string{
		filepath.Join(k.Dir, "boot", "config-"+k.Release),
		filepath.Join(k.ModuleDir(), "config"),
	} {
		if exists(p) {
			return p
		}
	}
	return ""
}

// resolved is what the cache remembers about a series.
type resolved struct {
	Candidate candidate
	// Files are the packages, names without directory.
	Files []string
}

// Resolve finds the newest kernel of a series. It asks the archive only when
// the cache has no answer, or when the Lab was told to refresh.
func (l *Lab) Resolve(ctx context.Context, s Series) (*Kernel, error) {
	var r resolved
	note := l.path("series", s.Name+".json")
	if l.refresh && !l.updated["series "+s.Name] || readJSON(note, &r) != nil {
		best, err := l.search(ctx, s)
		if err != nil {
			return nil, err
		}
		r = resolved{Candidate: *best}
		if err := os.MkdirAll(filepath.Dir(note), 0o755); err != nil {
			return nil, err
		}
		if err := writeJSON(note, r); err != nil {
			return nil, err
		}
		l.updated["series "+s.Name] = true
	}
	c := r.Candidate
	return &Kernel{
		Series: s, Release: c.Release, Version: c.Version, Package: c.Package, Suite: c.Suite,
		Dir: l.path("kernels", c.Release+"_"+c.Version),
	}, nil
}

func (l *Lab) search(ctx context.Context, s Series) (*candidate, error) {
	var best *candidate
	for _, suite := range s.Suites {
		a, err := l.archive(ctx, suite, s.Arch)
		if err != nil {
			return nil, err
		}
		pkgs, err := a.search(ctx, "^linux-image-")
		if err != nil {
			return nil, err
		}
		best = s.newest(suite, pkgs, best)
	}
	if best == nil {
		return nil, fmt.Errorf("kernel series %s: %w", s.Name, ErrMissing)
	}
	return best, nil
}

// Kernel returns the newest kernel of a series, downloaded and extracted.
func (l *Lab) Kernel(ctx context.Context, s Series) (*Kernel, error) {
	k, err := l.Resolve(ctx, s)
	if err != nil {
		return nil, err
	}
	err = l.once(k.Dir, func(tmp string) error {
		stop := l.progress("kernel %s (%s)", k.Release, k.Suite)
		err := l.fetchKernel(ctx, k, tmp)
		stop(err)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("fetching kernel %s: %w", k.Release, err)
	}
	if k.Vmlinuz() == "" {
		return nil, fmt.Errorf("kernel %s: no boot image among its packages", k.Release)
	}
	return k, nil
}

func (l *Lab) fetchKernel(ctx context.Context, k *Kernel, dir string) error {
	a, err := l.archive(ctx, k.Suite, k.Series.Arch)
	if err != nil {
		return err
	}
	pkgs := []string{k.Package}
	// From 7.0 on the image package is empty and these two hold the kernel.
	split, err := a.search(ctx, "^linux-(binary|modules)-"+regexpQuote(k.Release)+"$")
	if err != nil {
		return err
	}
	for _, p := range split {
		pkgs = append(pkgs, p.Name)
	}
	files, err := a.download(ctx, pkgs...)
	if err != nil {
		return err
	}
	if err := extract(ctx, dir, files); err != nil {
		return err
	}
	return pruneKernel(dir)
}

// pruneKernel drops what no machine of the lab reads.
func pruneKernel(dir string) error {
	return os.RemoveAll(filepath.Join(dir, "usr", "share"))
}
