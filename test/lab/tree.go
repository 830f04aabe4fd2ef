// SPDX-License-Identifier: MIT

package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
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

// treeNote is what the cache remembers about a tree.
type treeNote struct {
	Dir   string   // below the cache
	Files []string // the packages
}

// Tree returns the directory with the files of the packages and of all they
// depend on. No maintainer script runs.
func (l *Lab) Tree(ctx context.Context, spec TreeSpec) (string, error) {
	names := slices.Sorted(slices.Values(spec.Packages))
	key := fmt.Sprintf("%s-%s-%s", spec.Suite, spec.Arch, hashOf(names...))
	note := l.path("trees", key+".json")
	var n treeNote
	if readJSON(note, &n) == nil && exists(l.path(n.Dir)) && !l.stale("tree "+key) {
		return l.path(n.Dir), nil
	}
	stop := l.progress("packages %s of %s for %s", strings.Join(names, ", "), spec.Suite, spec.Arch)
	dir, err := l.makeTree(ctx, spec, key, note)
	stop(err)
	if err != nil {
		return "", fmt.Errorf("making a tree of %s: %w", strings.Join(names, ", "), err)
	}
	l.setFresh("tree " + key)
	return dir, nil
}

func (l *Lab) makeTree(ctx context.Context, spec TreeSpec, key, note string) (string, error) {
	ctx, release, err := l.hold(ctx)
	if err != nil {
		return "", err
	}
	defer release()
	a, err := l.archive(ctx, spec.Suite, spec.Arch)
	if err != nil {
		return "", err
	}
	files, err := a.closure(ctx, spec.Packages...)
	if err != nil {
		return "", err
	}
	n := treeNote{Dir: filepath.Join("trees", key+"-"+hashOf(files...)), Files: baseNames(files)}
	err = l.once(ctx, l.path(n.Dir), func(ctx context.Context, tmp string) error {
		return extract(ctx, tmp, files)
	})
	if err != nil {
		return "", err
	}
	return l.path(n.Dir), writeJSON(note, n)
}

func baseNames(files []string) []string {
	var names []string
	for _, f := range files {
		names = append(names, filepath.Base(f))
	}
	return names
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

// quoteName makes a package name safe in a regular expression: many have a plus.
func quoteName(s string) string { return regexp.QuoteMeta(s) }
