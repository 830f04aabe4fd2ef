// SPDX-License-Identifier: MIT

package wire

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
)

func frames(t *testing.T, all ...Frame) []byte {
	t.Helper()
	var b bytes.Buffer
	for _, f := range all {
		if err := Write(&b, f.Kind, f.Payload); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func TestRoundTrip(t *testing.T) {
	want := []Frame{
		{Hello, []byte("6.12.1-amd64")},
		{Stdout, bytes.Repeat([]byte{0xA5, 'M', 0, 255}, MaxPayload/4)},
		{StdinEOF, []byte{}},
	}
	r := NewReader(bytes.NewReader(frames(t, want...)))
	for i, w := range want {
		got, err := r.Next()
		if err != nil {
			t.Fatalf("frame %d: %v", i, err)
		}
		if got.Kind != w.Kind || !bytes.Equal(got.Payload, w.Payload) {
			t.Errorf("frame %d is %v with %d bytes, want %v with %d", i, got.Kind, len(got.Payload), w.Kind, len(w.Payload))
		}
	}
	if _, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("after the last frame: %v, want %v", err, io.EOF)
	}
}

func TestTooLong(t *testing.T) {
	var b bytes.Buffer
	if err := Write(&b, Stdout, make([]byte, MaxPayload+1)); err == nil || b.Len() != 0 {
		t.Errorf("a payload over the limit gave %v and wrote %d bytes", err, b.Len())
	}
}

// No damage to a frame may pass for another frame.
func TestDamage(t *testing.T) {
	good := frames(t, Frame{Exit, []byte(`{"code":0}`)})
	for i := range good {
		for _, flip := range []byte{0x01, 0x80} {
			bad := bytes.Clone(good)
			bad[i] ^= flip
			f, err := NewReader(bytes.NewReader(bad)).Next()
			if err == nil {
				t.Errorf("byte %d changed by %#x was read as %v %q", i, flip, f.Kind, f.Payload)
			}
		}
	}
	for _, bad := range [][]byte{
		append([]byte("Kernel panic"), good...),
		bytes.Repeat([]byte{0xA5, 'M', 1, 0xff}, 8),
	} {
		if _, err := NewReader(bytes.NewReader(bad)).Next(); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%.20q gave %v, want %v", bad, err, ErrCorrupt)
		}
	}
}

func TestCutShort(t *testing.T) {
	good := frames(t, Frame{Stdout, []byte("hello")})
	for n := 1; n < len(good); n++ {
		if _, err := NewReader(bytes.NewReader(good[:n])).Next(); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("the first %d bytes of %d: %v, want %v", n, len(good), err, io.ErrUnexpectedEOF)
		}
	}
}

func FuzzReader(f *testing.F) {
	var b bytes.Buffer
	if err := Write(&b, Stdout, []byte("hello")); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte(strings.Repeat("\xa5M", 20)))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := NewReader(bytes.NewReader(data))
		for {
			frame, err := r.Next()
			if err != nil {
				return
			}
			var again bytes.Buffer
			if err := Write(&again, frame.Kind, frame.Payload); err != nil {
				t.Fatal(err)
			}
			if !bytes.Contains(data, again.Bytes()) {
				t.Fatalf("read a frame that is not in the input: %v %q", frame.Kind, frame.Payload)
			}
		}
	})
}
