package capture

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// TestRecorded reads what was recorded on real kernels.
func TestRecorded(t *testing.T) {
	files, err := filepath.Glob("../tracer/testdata/*.ndjson")
	if err != nil || len(files) < 50 {
		t.Fatalf("%d recordings, %v", len(files), err)
	}
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		r, err := NewReader(f)
		if err != nil {
			t.Fatal(err)
		}
		for {
			if _, err = r.Next(); err != nil {
				break
			}
		}
		if s := r.Stats(); !errors.Is(err, io.EOF) || s.Records < 3 || len(s.Skipped) > 0 || s.CutShort != 0 || s.Damage != "" {
			t.Errorf("%s: %v, %+v", name, err, s)
		}
	}
}
