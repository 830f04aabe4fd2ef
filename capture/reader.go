// Package capture reads captures: what modtrace has reported, one JSON object
// a line, as it is or compressed by zstd.
package capture

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/modtrace/modtrace/unload"
)

// Bounds on what a line may cost; a file can hold anything. A module with ten thousand
// holders takes a third of these.
const (
	maxLine    = 8 << 20 // bytes
	maxObjects = 200_000 // each takes some hundred bytes when it is read
)

// patience is how many lines that are none of a capture's are read before it is held to
// be none.
const patience = 1000

// ErrNotCapture says that a file is not a capture at all.
var ErrNotCapture = errors.New("this is not a capture of modtrace's")

// SchemaError says that a capture was written by a modtrace that is newer than this one.
type SchemaError struct {
	Schema int
	Tool   string
}

func (e *SchemaError) Error() string {
	by := ""
	if e.Tool != "" {
		by = fmt.Sprintf(" by modtrace %q", e.Tool)
	}
	return fmt.Sprintf("the capture was written%s in schema %d, and this modtrace reads %d: use a newer one", by, e.Schema, unload.Schema)
}

// Reader reads the records of a capture, in its order, and in memory that does not depend
// on its length. It is used by one goroutine.
type Reader struct {
	lines *bufio.Reader
	close func()
	long  []byte // a line that is longer than the buffer
	stats Stats
	open  bool // a header has come, and no trailer since
	over  bool
	next  any // read already
}

// Stats are what is known of what was read.
type Stats struct {
	Records int64 // given, headers and trailers too
	// CutShort says how many times a trailer was missing: the recorder was killed, or the
	// file is a part of one.
	CutShort int64
	// Skipped are lines that were left out, by why.
	Skipped map[Skip]int64
	// Damage says why the file could not be read to its end, "" if it could.
	Damage string
}

// Skip is why a line was left out.
type Skip string

// The reasons.
const (
	SkipGarbage Skip = "not a record"
	SkipUnknown Skip = "of a type that is not known"
	SkipLong    Skip = "too long"
	SkipTorn    Skip = "torn off at the end"
)

// NewReader reads from r, which it does not close. The error says that r cannot be read,
// or begins like no capture does.
func NewReader(r io.Reader) (*Reader, error) {
	plain, stop, err := decompress(r)
	if err != nil {
		return nil, err
	}
	return &Reader{lines: bufio.NewReaderSize(plain, 256<<10), close: stop, stats: Stats{Skipped: map[Skip]int64{}}}, nil
}

// Stats gives what is known so far; all is after Next has given [io.EOF].
func (r *Reader) Stats() Stats { return r.stats }

// Close frees what reading took.
func (r *Reader) Close() { r.close() }

// maxEntries bounds those of one ledger.
const maxEntries = 10_000

// Next gives the next record: a pointer to an [unload.Header], [unload.Unload],
// [unload.Stall], [unload.Reload], [unload.Why], [unload.Ledger], [unload.Ref] or
// [unload.Trailer]. The error is [io.EOF] at the end; [ErrNotCapture] or a
// [*SchemaError] when none of it can be read.
func (r *Reader) Next() (any, error) {
	for {
		record, err := r.record()
		switch v := record.(type) {
		case *unload.Balance:
			return r.ledger(v)
		case *unload.Refs:
			r.stats.Skipped[SkipUnknown]++ // entries of no balance
			continue
		}
		return record, err
	}
}

// ledger gathers the entries that follow a balance.
func (r *Reader) ledger(b *unload.Balance) (*unload.Ledger, error) {
	l := &unload.Ledger{Balance: *b}
	for {
		record, err := r.record()
		entry, ok := record.(*unload.Refs)
		switch {
		case err != nil && !errors.Is(err, io.EOF):
			return nil, err
		case !ok:
			r.next = record // none at the end, which comes again
			return l, nil
		case len(l.Entries) < maxEntries:
			l.Entries = append(l.Entries, *entry)
		default:
			r.stats.Skipped[SkipLong]++
		}
	}
}

// record gives the next, with a balance and each of its entries by themselves.
func (r *Reader) record() (any, error) {
	if next := r.next; next != nil {
		r.next = nil
		return next, nil
	}
	for !r.over {
		line, err := r.line()
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, ErrNotCapture) {
				r.stats.Damage = err.Error()
			}
			r.over = true
			break
		}
		record, err := r.take(line)
		if record != nil || err != nil {
			return record, err
		}
	}
	if r.open {
		r.stats.CutShort++
		r.open = false
	}
	if r.stats.Records == 0 {
		return nil, ErrNotCapture
	}
	return nil, io.EOF
}

// take gives the record of a line, or neither that nor an error if it is to be left out.
func (r *Reader) take(line []byte) (any, error) {
	if len(line) == 0 {
		return nil, nil
	}
	record, why := decode(line)
	if record == nil {
		r.stats.Skipped[why]++
		if r.stats.Records == 0 && r.skipped() >= patience {
			return nil, ErrNotCapture
		}
		return nil, nil
	}
	switch h := record.(type) {
	case *unload.Header:
		if h.Schema != unload.Schema {
			return nil, &SchemaError{h.Schema, h.Tool}
		}
		if r.open {
			r.stats.CutShort++
		}
		r.open = true
	case *unload.Trailer:
		r.open = false
	}
	r.stats.Records++
	return record, nil
}

func (r *Reader) skipped() (n int64) {
	for _, k := range r.stats.Skipped {
		n += k
	}
	return n
}

// line gives the next line, valid until the one after it; nothing for one that is left
// out. The last one counts only if it ends: a recorder that is killed may leave a part.
func (r *Reader) line() ([]byte, error) {
	r.long = r.long[:0]
	length := 0
	for {
		part, err := r.lines.ReadSlice('\n')
		length += len(part)
		if err == nil && length == len(part) {
			return part[:len(part)-1], nil
		}
		if length <= maxLine {
			r.long = append(r.long, part...)
		}
		switch {
		case length > maxLine && r.stats.Records == 0:
			return nil, ErrNotCapture
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err != nil && length > 0:
			r.stats.Skipped[SkipTorn]++
			return nil, err
		case err != nil:
			return nil, err
		case length > maxLine:
			r.stats.Skipped[SkipLong]++
			return nil, nil
		}
		return r.long[:length-1], nil
	}
}

// lenient is how records are read: fields that are not known are left out, names that
// come twice and bytes that are not UTF-8 are no error.
var lenient = json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))

// records gives an empty record for each type.
func records(kind string) any {
	switch kind {
	case unload.TypeHeader:
		return &unload.Header{}
	case unload.TypeUnload:
		return &unload.Unload{}
	case unload.TypeStall:
		return &unload.Stall{}
	case unload.TypeReload:
		return &unload.Reload{}
	case unload.TypeWhy:
		return &unload.Why{}
	case unload.TypeBalance:
		return &unload.Balance{}
	case unload.TypeRefs:
		return &unload.Refs{}
	case unload.TypeRef:
		return &unload.Ref{}
	case unload.TypeTrailer:
		return &unload.Trailer{}
	}
	return nil
}

// decode reads one line.
func decode(line []byte) (record any, why Skip) {
	if bytes.Count(line, []byte{'{'})+bytes.Count(line, []byte{'['})+bytes.Count(line, []byte{','}) > maxObjects {
		return nil, SkipLong
	}
	kind, err := typeOf(line)
	if err != nil {
		return nil, SkipGarbage
	}
	if record = records(kind); record == nil {
		return nil, SkipUnknown
	}
	if err := json.Unmarshal(line, record, lenient); err != nil {
		return nil, SkipGarbage
	}
	return record, ""
}

// typeOf reads a record's type, which stands first in those that modtrace writes; other
// tools may have put it elsewhere.
func typeOf(line []byte) (string, error) {
	const first = `{"type":"`
	if bytes.HasPrefix(line, []byte(first)) {
		rest := line[len(first):]
		if end := bytes.IndexByte(rest, '"'); end >= 0 {
			return string(rest[:end]), nil
		}
	}
	var record struct {
		Type string `json:"type"`
	}
	err := json.Unmarshal(line, &record, lenient)
	return record.Type, err
}
