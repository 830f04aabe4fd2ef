package page

import (
	"testing"

	"github.com/modtrace/modtrace/output"
	"github.com/modtrace/modtrace/test/recorded"
)

// readAll reports captures into a document.
func readAll(t testing.TB, d output.Document, files ...string) {
	t.Helper()
	for _, file := range files {
		records, _ := recorded.Read(t, file)
		for _, record := range records {
			if err := output.Put(d, record); err != nil {
				t.Fatal(err)
			}
		}
	}
}
