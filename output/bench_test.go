package output

import (
	"io"
	"testing"
)

func BenchmarkTable(b *testing.B) {
	u := sample(b)
	r := NewTable(io.Discard, TableOptions{})
	for b.Loop() {
		if err := r.Unload(u); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkJSON(b *testing.B) {
	u := sample(b)
	r := NewJSON(io.Discard)
	for b.Loop() {
		if err := r.Unload(u); err != nil {
			b.Fatal(err)
		}
	}
}
