package page

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/modtrace/modtrace/capture"
	"github.com/modtrace/modtrace/output"
)

// readAll reports captures into a document.
func readAll(t testing.TB, d output.Document, files ...string) {
	t.Helper()
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		r, err := capture.NewReader(f)
		if err != nil {
			t.Fatal(err)
		}
		for {
			record, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			if err := output.Put(d, record); err != nil {
				t.Fatal(err)
			}
		}
		r.Close()
		f.Close()
	}
}

func realCaptures(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob("../../tracer/testdata/*.ndjson")
	if err != nil || len(files) < 50 {
		t.Fatalf("%d captures of real kernels, %v", len(files), err)
	}
	return files
}
