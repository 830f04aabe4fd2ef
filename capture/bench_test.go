package capture

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/modtrace/modtrace/unload"
)

// unloads are those that were recorded on real kernels, a line each.
func unloads(b *testing.B) string {
	b.Helper()
	files, err := filepath.Glob("../tracer/testdata/*.ndjson")
	if err != nil || len(files) == 0 {
		b.Fatal(files, err)
	}
	var lines strings.Builder
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			b.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if strings.HasPrefix(line, `{"type":"unload"`) {
				lines.WriteString(line)
			}
		}
	}
	return lines.String()
}

// BenchmarkReader reads records as they come in captures.
func BenchmarkReader(b *testing.B) {
	lines := unloads(b)
	b.SetBytes(int64(len(lines)))
	for b.Loop() {
		r, err := NewReader(strings.NewReader(lines))
		if err != nil {
			b.Fatal(err)
		}
		for err == nil {
			_, err = r.Next()
		}
		if !errors.Is(err, io.EOF) {
			b.Fatal(err)
		}
		r.Close()
	}
}

// BenchmarkStandardLibrary does what could be done instead.
func BenchmarkStandardLibrary(b *testing.B) {
	lines := unloads(b)
	b.SetBytes(int64(len(lines)))
	for b.Loop() {
		d := json.NewDecoder(strings.NewReader(lines))
		var err error
		for err == nil {
			var u unload.Unload
			err = d.Decode(&u)
		}
		if !errors.Is(err, io.EOF) {
			b.Fatal(err)
		}
	}
}
