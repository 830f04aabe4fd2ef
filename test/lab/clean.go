// SPDX-License-Identifier: MIT

package lab

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Clean removes from the cache what nothing refers to any more: superseded
// kernels with their build roots and fixtures, old trees, downloaded packages,
// and what was left by labs that were killed. It returns the bytes freed.
func (l *Lab) Clean(ctx context.Context) (int64, error) {
	_, release, err := l.hold(ctx)
	if err != nil {
		return 0, err
	}
	defer release()
	keep, err := l.referenced()
	if err != nil {
		return 0, err
	}
	var freed int64
	for _, kind := range []string{"kernels", "build", "fixtures", "trees", "debs"} {
		entries, err := os.ReadDir(l.path(kind))
		if err != nil && !os.IsNotExist(err) {
			return freed, err
		}
		for _, e := range entries {
			name := filepath.Join(kind, e.Name())
			if keep[name] || filepath.Ext(name) == ".json" {
				continue
			}
			if freed, err = l.remove(name, freed); err != nil {
				return freed, err
			}
		}
	}
	return l.removeAbandoned(freed)
}

// referenced returns the directories in use, relative to the cache.
func (l *Lab) referenced() (map[string]bool, error) {
	keep := map[string]bool{filepath.Join("debs", "partial"): true}
	hash, err := fixturesHash()
	if err != nil {
		return nil, err
	}
	for _, s := range AllSeries() {
		k, ok := l.Known(s)
		if !ok {
			continue
		}
		id := k.Release + "_" + k.Version
		keep[filepath.Join("kernels", id)] = true
		keep[filepath.Join("build", id)] = true
		keep[filepath.Join("fixtures", id+"-"+hash)] = true
	}
	notes, err := filepath.Glob(l.path("trees", "*.json"))
	if err != nil {
		return nil, err
	}
	for _, note := range notes {
		var n treeNote
		if err := readJSON(note, &n); err != nil {
			return nil, err
		}
		keep[n.Dir] = true
	}
	return keep, nil
}

// removeAbandoned removes temporary directories. One of a running machine is
// never a day old, unless somebody sits in its shell: that one has been read.
func (l *Lab) removeAbandoned(freed int64) (int64, error) {
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		return freed, err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !e.IsDir() || !strings.HasPrefix(e.Name(), ".") || time.Since(info.ModTime()) < 24*time.Hour {
			continue
		}
		if freed, err = l.remove(e.Name(), freed); err != nil {
			return freed, err
		}
	}
	return freed, nil
}

func (l *Lab) remove(name string, freed int64) (int64, error) {
	size := sizeOf(l.path(name))
	if err := os.RemoveAll(l.path(name)); err != nil {
		return freed, fmt.Errorf("cleaning the cache: %w", err)
	}
	return freed + size, nil
}

func sizeOf(path string) int64 {
	var size int64
	_ = filepath.WalkDir(path, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if info, err := d.Info(); err == nil && info.Mode().IsRegular() {
			size += info.Size()
		}
		return nil
	})
	return size
}
