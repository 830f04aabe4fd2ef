// SPDX-License-Identifier: MIT

// Package lab boots real Debian kernels under plain emulation and runs programs
// and Go tests in them. Kernels, compilers and tools come from the Debian
// archive that the machine's apt uses, and are kept in a cache, so that a second
// run needs no network.
package lab

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// ErrMissing is returned for what the archive does not have today.
var ErrMissing = errors.New("not in the archive")

// Lab is a cache of kernels and tools, and the way to start machines with them.
// It may be used by several goroutines and processes at once.
type Lab struct {
	dir     string
	refresh bool
	log     io.Writer

	mu    sync.Mutex
	fresh map[string]bool // what this Lab has asked the archive about
}

// Options says how a Lab behaves.
type Options struct {
	// Dir is the cache; empty means $MODTRACE_LAB_CACHE, or modtrace-lab in the
	// user's cache directory.
	Dir string
	// Refresh asks the archive for newer versions of what is cached.
	Refresh bool
	// Log takes progress; nil means none.
	Log io.Writer
}

// New opens the cache.
func New(o Options) (*Lab, error) {
	dir := o.Dir
	if dir == "" {
		dir = os.Getenv("MODTRACE_LAB_CACHE")
	}
	if dir == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			return nil, fmt.Errorf("finding a place for the cache: %w", err)
		}
		dir = filepath.Join(base, "modtrace-lab")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("making the cache: %w", err)
	}
	log := o.Log
	if log == nil {
		log = io.Discard
	}
	return &Lab{dir: dir, refresh: o.Refresh, log: log, fresh: map[string]bool{}}, nil
}

// Dir returns the cache's directory.
func (l *Lab) Dir() string { return l.dir }

func (l *Lab) path(elem ...string) string {
	return filepath.Join(append([]string{l.dir}, elem...)...)
}

// stale says whether the archive is to be asked again about something.
func (l *Lab) stale(key string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.refresh && !l.fresh[key]
}

func (l *Lab) setFresh(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fresh[key] = true
}

// outdated makes the Lab ask the archive again, and says whether that can help:
// it cannot when everything was asked for just now.
func (l *Lab) outdated() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.refresh {
		return false
	}
	l.refresh = true
	return true
}

// once makes a directory of the cache by calling fill with a temporary one,
// which gets its name only when it is complete: an interrupted download or build
// is never mistaken for a good one.
func (l *Lab) once(ctx context.Context, dir string, fill func(ctx context.Context, tmp string) error) error {
	if exists(dir) {
		return nil
	}
	ctx, release, err := l.hold(ctx)
	if err != nil {
		return err
	}
	defer release()
	if exists(dir) {
		// Somebody else made it while we waited.
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), ".making-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := os.Chmod(tmp, 0o755); err != nil {
		return err
	}
	if err := fill(ctx, tmp); err != nil {
		return err
	}
	return os.Rename(tmp, dir)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func readJSON(path string, v any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("decoding %s: %w", path, err)
	}
	return nil
}

func writeJSON(path string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, append(data, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

func hashOf(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:8])
}
