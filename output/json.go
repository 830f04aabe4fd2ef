package output

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/modtrace/modtrace/unload"
)

// NewJSON reports to w as JSON, one object a line. Each record is a single
// Write, so that a reader of a pipe never waits for half of one.
func NewJSON(w io.Writer) Report { return jsonReport{w} }

type jsonReport struct{ w io.Writer }

func (j jsonReport) Header(h unload.Header) error {
	h.Type = unload.TypeHeader
	return j.write(&h)
}

func (j jsonReport) Unload(u unload.Unload) error {
	u.Type = unload.TypeUnload
	return j.write(&u)
}

func (j jsonReport) Stall(s unload.Stall) error {
	s.Type = unload.TypeStall
	return j.write(&s)
}

func (j jsonReport) Reload(r unload.Reload) error {
	r.Type = unload.TypeReload
	return j.write(&r)
}

func (j jsonReport) Why(w unload.Why) error {
	w.Type = unload.TypeWhy
	return j.write(&w)
}

// Ledger writes the balance, and then each entry.
func (j jsonReport) Ledger(l unload.Ledger) error {
	l.Balance.Type = unload.TypeBalance
	if err := j.write(&l.Balance); err != nil {
		return err
	}
	for _, r := range l.Entries {
		r.Type = unload.TypeRefs
		if err := j.write(&r); err != nil {
			return err
		}
	}
	return nil
}

func (j jsonReport) Ref(r unload.Ref) error {
	r.Type = unload.TypeRef
	return j.write(&r)
}

func (j jsonReport) Trailer(t unload.Trailer) error {
	t.Type = unload.TypeTrailer
	return j.write(&t)
}

// write writes the record that the pointer leads to.
func (j jsonReport) write(record any) error {
	fill(reflect.ValueOf(record).Elem())
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(record); err != nil {
		return fmt.Errorf("encoding a record: %w", err)
	}
	if err := writeAll(j.w, escapeUnprintable(b.Bytes())); err != nil {
		return fmt.Errorf("writing a record: %w", err)
	}
	return nil
}

// fill makes nil slices and maps in v empty ones, because scripts loop over
// [] but fall over null. Slices that hold others are copied first: the record
// is the caller's.
func fill(v reflect.Value) {
	if !v.CanSet() {
		return // the inside of a type that is not ours, such as time.Time
	}
	switch v.Kind() {
	case reflect.Struct:
		for _, field := range v.Fields() {
			fill(field)
		}
	case reflect.Map:
		if v.IsNil() {
			v.Set(reflect.MakeMap(v.Type()))
		}
	case reflect.Slice:
		elements := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
		reflect.Copy(elements, v)
		for i := range elements.Len() {
			fill(elements.Index(i))
		}
		v.Set(elements)
	}
}

// escapeUnprintable writes what encoding/json leaves as it is but a terminal
// obeys (DEL, C1 controls, marks that turn the direction of writing) as \u
// escapes. Outside of strings JSON has none of these, so that the value stays.
func escapeUnprintable(line []byte) []byte {
	if bytes.IndexFunc(line, unprintable) < 0 {
		return line
	}
	out := make([]byte, 0, len(line)+16)
	for len(line) > 0 {
		r, size := utf8.DecodeRune(line)
		switch {
		case !unprintable(r):
			out = append(out, line[:size]...)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
		line = line[size:]
	}
	return out
}

func unprintable(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }

// writeAll writes b in one go; a short write is an error.
func writeAll(w io.Writer, b []byte) error {
	n, err := w.Write(b)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	return err
}
