package capture

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// maxWindow bounds what a compressed file may have its reader keep in memory: what
// modtrace writes needs a fraction of it.
const maxWindow = 8 << 20

// decompress gives what is in r, which may be compressed by zstd, or by gzip as
// logrotate(8) does it. What a file begins with tells, its name may have been changed.
func decompress(r io.Reader) (plain io.Reader, stop func(), err error) {
	b := bufio.NewReaderSize(r, 64<<10)
	magic, err := b.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, fmt.Errorf("reading a capture: %w", err)
	}
	switch {
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}): // RFC 8878
		d, err := zstd.NewReader(b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, nil, fmt.Errorf("reading a capture: %w", err)
		}
		return d, d.Close, nil
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}): // RFC 1952
		z, err := gzip.NewReader(b)
		if err != nil {
			return nil, nil, fmt.Errorf("reading a capture: %w", err)
		}
		return z, func() {}, nil
	}
	return b, func() {}, nil
}
