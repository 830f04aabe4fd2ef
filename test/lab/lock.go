// SPDX-License-Identifier: MIT

package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// lockPoll is how often a lock that another process holds is tried again.
const lockPoll = 50 * time.Millisecond

type holding struct{}

// hold keeps other processes and goroutines from filling the cache meanwhile.
// The returned context says that the lock is held: with it, hold does nothing.
func (l *Lab) hold(ctx context.Context) (context.Context, func(), error) {
	if ctx.Value(holding{}) == l {
		return ctx, func() {}, nil
	}
	f, err := l.lockFile(ctx, "waiting for another lab that fills the cache", "lock")
	if err != nil {
		return nil, nil, err
	}
	return context.WithValue(ctx, holding{}, l), func() { f.Close() }, nil
}

// enter waits until this computer has room for one more machine: emulators in a
// crowd run into their timeouts. There may be three a processor, because guests
// that test tracing wait for the kernel most of the time. Machines with a terminal do not
// count, because somebody may look at them for hours.
func (l *Lab) enter(ctx context.Context, m *Machine) (leave func(), err error) {
	if m.Terminal != nil {
		return func() {}, nil
	}
	var slots []string
	for i := range 3 * runtime.NumCPU() {
		slots = append(slots, fmt.Sprintf("machine-%d", i))
	}
	f, err := l.lockFile(ctx, "waiting for another machine to end", slots...)
	if err != nil {
		return nil, err
	}
	return func() { f.Close() }, nil
}

// lockFile takes one of the cache's locks, whichever is free first; closing the
// file gives it back. Separate opens exclude each other, also within one process.
func (l *Lab) lockFile(ctx context.Context, waiting string, names ...string) (*os.File, error) {
	if f, err := l.tryLocks(names); f != nil || err != nil {
		return f, err
	}
	stop := l.progress("%s", waiting)
	for {
		select {
		case <-ctx.Done():
			err := context.Cause(ctx)
			stop(err)
			return nil, err
		case <-time.After(lockPoll):
		}
		if f, err := l.tryLocks(names); f != nil || err != nil {
			stop(err)
			return f, err
		}
	}
}

// tryLocks returns nil when all are taken.
func (l *Lab) tryLocks(names []string) (*os.File, error) {
	for _, name := range names {
		f, err := os.OpenFile(l.path(name), os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o644)
		if err != nil {
			return nil, fmt.Errorf("locking the cache: %w", err)
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, fmt.Errorf("locking the cache: %w", err)
		}
	}
	return nil, nil
}
