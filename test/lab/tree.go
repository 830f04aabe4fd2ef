// SPDX-License-Identifier: MIT

package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
)

// TreeSpec names packages whose files, with those of all they depend on, make a
// tree.
type TreeSpec struct {
	// Suite and Arch say where from.
	Suite, Arch string
	// Packages are installed with their dependencies.
	Packages []string
}

// Tree returns the directory with the files of the packages and of all they
// depend on. No maintainer script runs.
func (l *Lab) Tree(ctx context.Context, spec TreeSpec) (string, error) {
	names := append([]string(nil), spec.Packages...)
	sort.Strings(names)
	dir := l.path("trees", fmt.Sprintf("%s-%s-%s", spec.Suite, spec.Arch, hashOf(names...)))
	if l.refresh && !l.updated[dir] {
		if err := os.RemoveAll(dir); err != nil {
			return "", err
		}
	}
	l.updated[dir] = true
	err := l.once(dir, func(tmp string) error {
		stop := l.progress("packages %s of %s for %s", strings.Join(names, ", "), spec.Suite, spec.Arch)
		err := l.fillTree(ctx, spec, tmp)
		stop(err)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("making a tree of %s: %w", strings.Join(names, ", "), err)
	}
	return dir, nil
}

func (l *Lab) fillTree(ctx context.Context, spec TreeSpec, dir string) error {
	a, err := l.archive(ctx, spec.Suite, spec.Arch)
	if err != nil {
		return err
	}
	files, err := a.closure(ctx, spec.Packages...)
	if err != nil {
		return err
	}
	return extract(ctx, dir, files)
}

// extract unpacks packages over a merged /usr, whatever directory the package
// was made for: the links are there first and tar follows them.
func extract(ctx context.Context, dir string, debs []string) error {
	for _, d := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := os.MkdirAll(filepath.Join(dir, "usr", d), 0o755); err != nil {
			return err
		}
		if exists(filepath.Join(dir, d)) {
			continue
		}
		if err := os.Symlink(filepath.Join("usr", d), filepath.Join(dir, d)); err != nil {
			return err
		}
	}
	for _, deb := range debs {
		const script = `dpkg-deb --fsys-tarfile "$1" | tar -x -C "$2" --keep-directory-symlink --no-same-owner --exclude=./dev`
		if _, err := output(ctx, "bash", "-o", "pipefail", "-c", script, "extract", deb, dir); err != nil {
			return fmt.Errorf("extracting %s: %w", filepath.Base(deb), err)
		}
	}
	return nil
}

func regexpQuote(s string) string { return regexp.QuoteMeta(s) }
