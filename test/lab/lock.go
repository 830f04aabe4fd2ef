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
	f, err := l.lockFile(ctx, "lock", "waiting for another lab that fills the cache")
	if err != nil {
		return nil, nil, err
	}
	return context.WithValue(ctx, holding{}, l), func() { f.Close() }, nil
}

// enter waits until this computer has processors to spare for one more machine:
// emulators that share one run into their timeouts. Machines with a terminal do
// not count, because somebody may look at them for hours.
func (l *Lab) enter(ctx context.Context, m *Machine) (leave func(), err error) {
	if m.Terminal != nil {
		return func() {}, nil
	}
	slots := max(1, runtime.NumCPU()/2)
	for i := range slots - 1 {
		f, err := l.openLock(fmt.Sprintf("machine-%d", i))
		if err != nil {
			return nil, err
		}
		ok, err := tryLock(f)
		if ok {
			return func() { f.Close() }, nil
		}
		if err != nil {
			return nil, err
		}
		f.Close()
	}
	f, err := l.lockFile(ctx, fmt.Sprintf("machine-%d", slots-1), "waiting for another machine to end")
	if err != nil {
		return nil, err
	}
	return func() { f.Close() }, nil
}

func (l *Lab) openLock(name string) (*os.File, error) {
	f, err := os.OpenFile(l.path(name), os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return nil, fmt.Errorf("locking the cache: %w", err)
	}
	return f, nil
}

// lockFile takes a lock of the cache; closing the file gives it back. Separate
// opens exclude each other, also within one process.
func (l *Lab) lockFile(ctx context.Context, name, waiting string) (*os.File, error) {
	f, err := l.openLock(name)
	if err != nil {
		return nil, err
	}
	ok, err := tryLock(f)
	if ok || err != nil {
		return f, err
	}
	stop := l.progress("%s", waiting)
	for {
		select {
		case <-ctx.Done():
			err := context.Cause(ctx)
			stop(err)
			f.Close()
			return nil, err
		case <-time.After(lockPoll):
		}
		if ok, err := tryLock(f); ok || err != nil {
			stop(err)
			return f, err
		}
	}
}

// tryLock closes f when it fails for good.
func tryLock(f *os.File) (bool, error) {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, unix.EWOULDBLOCK), errors.Is(err, unix.EINTR):
		return false, nil
	}
	f.Close()
	return false, fmt.Errorf("locking the cache: %w", err)
}
