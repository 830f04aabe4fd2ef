// SPDX-License-Identifier: MIT

package lab

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// progress shows that something is going on, and for how long, when it takes
// more than a second: on a terminal as one line that rewrites itself, elsewhere
// as a line at the start and one every half a minute. The function it returns
// ends the display.
func (l *Lab) progress(format string, args ...any) func(error) {
	what := fmt.Sprintf(format, args...)
	start := time.Now()
	done := make(chan struct{})
	ended := make(chan struct{})
	f, ok := l.log.(*os.File)
	tty := ok && isTerminal(f)
	go func() {
		defer close(ended)
		l.show(what, start, tty, done)
	}()
	return func(err error) {
		close(done)
		<-ended
		took := time.Since(start)
		if took < time.Second {
			return
		}
		state := "done"
		if err != nil {
			state = "failed"
		}
		if tty {
			fmt.Fprintf(l.log, "\r\x1b[K")
		}
		fmt.Fprintf(l.log, "lab: %s: %s in %.1fs\n", what, state, took.Seconds())
	}
}

func (l *Lab) show(what string, start time.Time, tty bool, done <-chan struct{}) {
	select {
	case <-done:
		return
	case <-time.After(time.Second):
	}
	every := 30 * time.Second
	if tty {
		every = 200 * time.Millisecond
	} else {
		fmt.Fprintf(l.log, "lab: %s ...\n", what)
	}
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		if tty {
			fmt.Fprintf(l.log, "\r\x1b[Klab: %s ... %.0fs", what, time.Since(start).Seconds())
		}
		select {
		case <-done:
			return
		case <-t.C:
			if !tty {
				fmt.Fprintf(l.log, "lab: %s ... %.0fs\n", what, time.Since(start).Seconds())
			}
		}
	}
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
