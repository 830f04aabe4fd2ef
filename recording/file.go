package recording

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/klauspost/compress/zstd"
)

// file is a file to which whole lines are added: one that cannot be added leaves the file
// as it was.
type file struct {
	f     *os.File
	size  int64
	begun bool // it has a header

	z         *zstd.Encoder // nil: not compressed
	frame     bool          // the encoder has begun one
	abandoned bool          // the file ends in one that the encoder knows nothing of

	dirty atomic.Bool
	stop  chan struct{}
	done  chan struct{}
}

// openFile opens a file for writing, one that is not there unless flag says otherwise.
func openFile(path string, flag int) (*file, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|flag, 0o600)
	if err != nil {
		return nil, err
	}
	c := &file{f: f, stop: make(chan struct{}), done: make(chan struct{})}
	if strings.HasSuffix(path, ".zst") {
		// Without a checksum, a frame can be ended after the encoder has failed.
		c.z, err = zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20),
			zstd.WithEncoderCRC(false), zstd.WithLowerEncoderMem(true))
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		c.z.Reset(c)
	}
	go c.sync()
	return c, nil
}

// syncEvery is how long the disk may lag behind.
const syncEvery = time.Second

// sync has the disk hold what was added. That can take long on a busy disk, and nobody
// waits for it.
func (c *file) sync() {
	defer close(c.done)
	t := time.NewTicker(syncEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			if c.dirty.Swap(false) {
				_ = c.f.Sync() // it comes again when the file is closed
			}
		case <-c.stop:
			return
		}
	}
}

// Write writes to the file itself.
func (c *file) Write(b []byte) (int, error) {
	n, err := c.f.Write(b)
	c.size += int64(n)
	return n, err
}

// add adds lines. When it fails, the file is cut back to what it was.
func (c *file) add(lines []byte) error {
	before := c.size
	err := c.write(lines)
	if err == nil {
		c.frame, c.abandoned = c.z != nil, false
		c.dirty.Store(true)
		return nil
	}
	if c.z != nil {
		c.z.Reset(c)
		c.abandoned, c.frame = c.abandoned || c.frame, false
	}
	c.size = before
	_, sought := c.f.Seek(before, io.SeekStart)
	return errors.Join(plainly(err), sought, c.f.Truncate(before))
}

func (c *file) write(lines []byte) error {
	if c.z == nil {
		_, err := c.Write(lines)
		return err
	}
	if c.abandoned {
		if err := c.endFrame(); err != nil {
			return err
		}
	}
	if _, err := c.z.Write(lines); err != nil {
		return err
	}
	return c.z.Flush()
}

// endFrame ends a frame in the encoder's place, by a last block that is empty (RFC 8878,
// 3.1.1.2).
func (c *file) endFrame() error {
	_, err := c.Write([]byte{1, 0, 0})
	return err
}

// close has the disk hold everything.
func (c *file) close() error {
	close(c.stop)
	<-c.done
	var err error
	switch {
	case c.frame:
		err = c.z.Close()
	case c.abandoned:
		err = c.endFrame()
	}
	return errors.Join(plainly(err), ignoreUnsynced(c.f.Sync()), c.f.Close())
}

// ignoreUnsynced lets pass that a pipe or a device cannot be synced (fsync(2)).
func ignoreUnsynced(err error) error {
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		return nil
	}
	return err
}

// moved says that the path leads to another file by now, or to none.
func (c *file) moved() bool {
	mine, err := c.f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Stat(c.f.Name())
	return errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(mine, there)
}

// shift makes room for a new file: what is there becomes the newest of keep older ones.
func shift(path string, keep int) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is there, and no regular file", path)
	case info.Size() == 0 || keep == 0:
		return os.Remove(path)
	}
	name := func(n int) string { return fmt.Sprintf("%s.%d", path, n) }
	for n := keep; n > 1; n-- {
		if err := os.Rename(name(n-1), name(n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return os.Rename(path, name(1))
}

// plainly drops from an error what the user has said: the file's name.
func plainly(err error) error {
	var at *fs.PathError
	if errors.As(err, &at) {
		return at.Err
	}
	return err
}
