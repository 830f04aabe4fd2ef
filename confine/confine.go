//go:build linux

// Package confine takes from this process what it does not need any more, for good: if
// something in it goes wrong, there is little left to go wrong with.
package confine

import (
	"errors"
	"fmt"
	"strings"

	"kernel.org/pub/linux/libs/security/libcap/cap"
	"kernel.org/pub/linux/libs/security/libcap/psx"

	"golang.org/x/sys/unix"
)

// Capabilities drops all capabilities but those named ("CAP_BPF"), from every thread and
// for what it may execute (capabilities(7)), and forbids to gain any (PR_SET_NO_NEW_PRIVS).
// What is named and not held is no error.
func Capabilities(names ...string) error {
	had := cap.GetProc()
	set := cap.NewSet()
	for _, name := range names {
		c, err := cap.FromName(strings.ToLower(name))
		if err != nil {
			return fmt.Errorf("dropping capabilities: %w", err)
		}
		if held, err := had.GetFlag(cap.Permitted, c); err != nil || !held {
			continue
		}
		if err := errors.Join(set.SetFlag(cap.Permitted, true, c), set.SetFlag(cap.Effective, true, c)); err != nil {
			return fmt.Errorf("dropping capabilities: %w", err)
		}
	}
	if err := dropOthers(had, set); err != nil {
		return fmt.Errorf("dropping capabilities: %w", err)
	}
	if _, _, errno := psx.Syscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); errno != 0 {
		return fmt.Errorf("forbidding new privileges: %w", errno)
	}
	return nil
}

// dropOthers leaves the threads with a set, and takes all else from the bounding set where
// that is allowed.
func dropOthers(had, set *cap.Set) error {
	if may, err := had.GetFlag(cap.Effective, cap.SETPCAP); err == nil && may {
		for c := cap.Value(0); c < cap.MaxBits(); c++ {
			if keep, err := set.GetFlag(cap.Permitted, c); err == nil && keep {
				continue
			}
			if err := cap.DropBound(c); err != nil {
				return err
			}
		}
	}
	return errors.Join(cap.ResetAmbient(), set.SetProc())
}
