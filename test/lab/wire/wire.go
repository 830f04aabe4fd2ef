// SPDX-License-Identifier: MIT

// Package wire is what the lab's host and the guest's init say to each other
// over the second serial port: frames with a checksum, so that a byte lost or
// added on the way is an error instead of a wrong result.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// Kind says what a frame carries.
type Kind byte

// The kinds of frame. Stdin, StdinEOF, Signal, Resize and Bye go to the guest,
// the others come from it.
const (
	Hello    Kind = iota + 1 // the guest is up; the payload is its kernel release
	Stdout                   // bytes that the command wrote
	Stderr                   // bytes that the command wrote
	Stdin                    // bytes for the command
	StdinEOF                 // nothing more to read for the command
	StdinAck                 // the command's stdin took the last Stdin frame
	Signal                   // a signal number for the command and its children, one byte
	Resize                   // the terminal's new Size as JSON
	File                     // a collected file begins; the payload is its name in the guest
	FileData                 // bytes of the file begun last
	Exit                     // the command ended; the payload is an ExitStatus as JSON
	Bye                      // everything arrived: the guest may power off
)

// MaxPayload bounds a frame, so that one corrupt length cannot make the reader
// wait for gigabytes.
const MaxPayload = 32 << 10

const headerLen = 11

var magic = [2]byte{0xA5, 'M'}

// ErrCorrupt is returned by Reader when the bytes on the line are not a frame.
var ErrCorrupt = errors.New("corrupt frame")

// Frame is one message.
type Frame struct {
	Kind    Kind
	Payload []byte
}

// Write sends one frame. Payloads longer than MaxPayload are refused; see
// WriteAll.
func Write(w io.Writer, kind Kind, payload []byte) error {
	if len(payload) > MaxPayload {
		return fmt.Errorf("frame of %d bytes is over the limit of %d", len(payload), MaxPayload)
	}
	buf := make([]byte, headerLen, headerLen+len(payload))
	copy(buf, magic[:])
	buf[2] = byte(kind)
	binary.LittleEndian.PutUint32(buf[3:], uint32(len(payload)))
	binary.LittleEndian.PutUint32(buf[7:], checksum(kind, payload))
	_, err := w.Write(append(buf, payload...))
	return err
}

// Reader splits a stream into frames.
type Reader struct {
	r io.Reader
}

// NewReader returns a Reader on r, which should be buffered.
func NewReader(r io.Reader) *Reader { return &Reader{r: r} }

// Next returns the next frame. A stream that ends between two frames gives
// io.EOF, one that ends inside a frame io.ErrUnexpectedEOF.
func (r *Reader) Next() (Frame, error) {
	var head [headerLen]byte
	if _, err := io.ReadFull(r.r, head[:]); err != nil {
		return Frame{}, err
	}
	if head[0] != magic[0] || head[1] != magic[1] {
		return Frame{}, fmt.Errorf("%w: begins with % x", ErrCorrupt, head[:2])
	}
	kind := Kind(head[2])
	size := binary.LittleEndian.Uint32(head[3:])
	if size > MaxPayload {
		return Frame{}, fmt.Errorf("%w: claims %d bytes", ErrCorrupt, size)
	}
	payload := make([]byte, size)
	if _, err := io.ReadFull(r.r, payload); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return Frame{}, err
	}
	if checksum(kind, payload) != binary.LittleEndian.Uint32(head[7:]) {
		return Frame{}, fmt.Errorf("%w: checksum of a frame of kind %d differs", ErrCorrupt, kind)
	}
	return Frame{Kind: kind, Payload: payload}, nil
}

func checksum(kind Kind, payload []byte) uint32 {
	sum := crc32.ChecksumIEEE([]byte{byte(kind)})
	return crc32.Update(sum, crc32.IEEETable, payload)
}
