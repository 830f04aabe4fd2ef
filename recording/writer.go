// Package recording writes captures, for as long as it takes: files of bounded size, that
// whoever kills it, a full disk, and a file that is moved away leave readable. Package
// capture reads them.
package recording

import (
	"bytes"
	"fmt"
	"maps"
	"os"

	"github.com/modtrace/modtrace/output"
	"github.com/modtrace/modtrace/unload"
)

// Options say how a capture is written.
type Options struct {
	// MaxSize bounds a file, in bytes; 0 does not. The record that would exceed it
	// begins the next one.
	MaxSize int64
	// Keep is how many older files are kept, as FILE.1, the newest, to FILE.N. With 0,
	// a new file replaces the older one.
	Keep int
	// Trailer gives the state of the trace, for a file that ends before the trace does.
	Trailer func() unload.Trailer
	// Note is told, in words, when writing fails and when it goes on.
	Note func(text string)
}

// Writer writes a capture: a report that has each record in the file before it takes the
// next, so that whoever kills it loses none that was reported, and has the disk hold it
// within a second. It is used by one goroutine.
type Writer struct {
	output.Report // as JSON, to add below
	path          string
	o             *Options // nil: somebody attends to it

	header  []byte
	file    *file
	lost    int64 // records that could not be written and are in no trailer yet
	failing string
}

// LostRecord is the kind of lost events that stands for records which could not be
// written.
const LostRecord = "record"

// Create begins a capture that somebody attends to: it replaces what was in the file, and
// what cannot be written is an error. Only its owner can read the file: a capture names
// processes and their arguments. A name that ends in .zst has it compressed.
func Create(path string) (*Writer, error) { return create(path, nil) }

// Record begins a capture that nobody attends to: what was in the file is kept as an older
// one, and where it cannot be written, it goes on later, and the trailer has what was
// lost. The error is that it cannot be begun.
func Record(path string, o Options) (*Writer, error) { return create(path, &o) }

func create(path string, o *Options) (*Writer, error) {
	w := &Writer{path: path, o: o}
	w.Report = output.NewJSON(lines{w})
	if err := w.open(); err != nil {
		return nil, fmt.Errorf("writing a capture: %w", err)
	}
	return w, nil
}

// lines takes records as the JSON report makes them, each at once.
type lines struct{ *Writer }

func (l lines) Write(line []byte) (int, error) { return len(line), l.add(line, 1) }

// Header begins the capture.
func (w *Writer) Header(h unload.Header) error {
	var b bytes.Buffer
	if err := output.NewJSON(&b).Header(h); err != nil {
		return err
	}
	w.header = b.Bytes()
	return w.failed(w.prepare(0), 0)
}

// Trailer ends it.
func (w *Writer) Trailer(t unload.Trailer) error {
	line, err := w.trailer(t)
	if err != nil {
		return err
	}
	return w.add(line, 0)
}

// trailer is a trailer with what could not be written.
func (w *Writer) trailer(t unload.Trailer) ([]byte, error) {
	if w.lost > 0 {
		lost := map[string]int64{LostRecord: w.lost}
		maps.Copy(lost, t.LostEvents)
		t.LostEvents = lost
	}
	var b bytes.Buffer
	err := output.NewJSON(&b).Trailer(t)
	return b.Bytes(), err
}

// Close closes the file. It is for good.
func (w *Writer) Close() error {
	if w.file == nil {
		return nil
	}
	err := w.file.close()
	w.file = nil
	return w.failed(err, 0)
}

// add adds a line, with which so many records would be lost.
func (w *Writer) add(line []byte, records int64) error {
	err := w.prepare(int64(len(line)))
	if err == nil {
		err = w.file.add(line)
	}
	return w.failed(err, records)
}

// failed notes what could not be done, or gives the error to the caller.
func (w *Writer) failed(err error, records int64) error {
	switch {
	case err == nil:
		return nil
	case w.o == nil:
		return fmt.Errorf("writing a capture: %w", err)
	}
	w.lost += records
	if w.failing != err.Error() {
		w.failing = err.Error()
		w.o.Note(fmt.Sprintf("the capture cannot be written (%v); tracing goes on, and what is lost is counted", err))
	}
	return nil
}

// roomForTrailer is what a file keeps free for one.
const roomForTrailer = 2 << 10

// prepare makes sure that there is a file, with a header and room for n bytes more, and
// that it says what was lost before it goes on.
func (w *Writer) prepare(n int64) error {
	if w.file != nil && w.o != nil && (w.file.moved() || w.full(n)) {
		w.finish()
	}
	if w.file == nil {
		if err := w.open(); err != nil {
			return err
		}
	}
	if !w.file.begun {
		if err := w.file.add(w.header); err != nil {
			return err
		}
		w.file.begun = true
	}
	if w.failing == "" {
		return nil
	}
	if err := w.interlude(); err != nil {
		return err
	}
	w.o.Note(fmt.Sprintf("the capture is written again; %d records were lost meanwhile", w.lost))
	w.lost, w.failing = 0, ""
	return nil
}

// full says that n bytes more are too many for the file.
func (w *Writer) full(n int64) bool {
	return w.o.MaxSize > 0 && w.file.begun && w.file.size+n+roomForTrailer > w.o.MaxSize
}

// interlude ends what is in the file with what was lost, and begins it anew.
func (w *Writer) interlude() error {
	line, err := w.trailer(w.o.Trailer())
	if err != nil {
		return err
	}
	return w.file.add(append(line, w.header...))
}

// finish ends a file before the trace ends. What fails here is in none of the records.
func (w *Writer) finish() {
	if line, err := w.trailer(w.o.Trailer()); err == nil && w.file.begun {
		if err := w.file.add(line); err == nil {
			w.lost = 0
		}
	}
	_ = w.file.close()
	w.file = nil
}

func (w *Writer) open() (err error) {
	if w.o == nil {
		w.file, err = openFile(w.path, os.O_TRUNC)
		return err
	}
	if err := shift(w.path, w.o.Keep); err != nil {
		return err
	}
	w.file, err = openFile(w.path, os.O_EXCL)
	return err
}
