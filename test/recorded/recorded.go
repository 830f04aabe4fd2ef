// Package recorded gives tests the captures that were recorded on real kernels, and what
// is in captures.
package recorded

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/modtrace/modtrace/capture"
)

// Files are the captures in tracer/testdata.
func Files(t testing.TB) []string {
	t.Helper()
	const least = 50 // there are more
	files, err := filepath.Glob(File(t, "*"))
	if err != nil || len(files) < least {
		t.Fatalf("%d recordings, %v", len(files), err)
	}
	return files
}

// File is where one of them is, by its name such as amd64-6.12-slow.
func File(t testing.TB, name string) string {
	t.Helper()
	dir, err := os.Getwd()
	for ; err == nil; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return filepath.Join(dir, "tracer", "testdata", name+".ndjson")
		}
		if dir == filepath.Dir(dir) {
			break
		}
	}
	t.Fatalf("the tests do not run below the project: %v", err)
	return ""
}

// Records reads a capture as far as it can be read. The error is nil at its end.
func Records(from io.Reader) (all []any, stats capture.Stats, err error) {
	r, err := capture.NewReader(from)
	if err != nil {
		return nil, stats, err
	}
	defer r.Close()
	for {
		record, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all, r.Stats(), nil
		}
		if err != nil {
			return all, r.Stats(), err
		}
		all = append(all, record)
	}
}

// Read reads the capture in a file to its end.
func Read(t testing.TB, file string) ([]any, capture.Stats) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all, stats, err := Records(f)
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return all, stats
}
