// Package klog reads the kernel's log, and what it says of unloads that hang:
// tasks that died, network interfaces in use.
package klog

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Line is a line of the log.
type Line struct {
	At    time.Duration // by the kernel's clock, since it was booted
	Level int           // as in syslog(2)
	Text  string
}

// Read gives the log as far back as the kernel keeps it. It takes CAP_SYSLOG
// where kernel.dmesg_restrict is set.
func Read() ([]Line, error) {
	f, err := os.OpenFile("/dev/kmsg", os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("reading the kernel's log: %w", err)
	}
	defer f.Close()
	return read(int(f.Fd()))
}

// read takes one record a call (Documentation/ABI/testing/dev-kmsg).
func read(fd int) ([]Line, error) {
	var lines []Line
	record := make([]byte, 8192)
	for {
		n, err := unix.Read(fd, record)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return lines, nil
		case errors.Is(err, unix.EPIPE), errors.Is(err, unix.EINTR):
			continue // overwritten before it was read; the next call goes on
		case err != nil:
			return nil, fmt.Errorf("reading the kernel's log: %w", err)
		case n == 0:
			return lines, nil
		}
		if line, ok := parse(string(record[:n])); ok {
			lines = append(lines, line)
		}
	}
}

// parse reads "priority,number,microseconds,flags;text", which lines with the
// device may follow.
func parse(record string) (Line, bool) {
	head, text, ok := strings.Cut(record, ";")
	fields := strings.Split(head, ",")
	if !ok || len(fields) < 3 {
		return Line{}, false
	}
	priority, err := strconv.Atoi(fields[0])
	if err != nil {
		return Line{}, false
	}
	us, err := strconv.ParseInt(fields[2], 10, 64)
	if err != nil {
		return Line{}, false
	}
	text, _, _ = strings.Cut(text, "\n")
	return Line{time.Duration(us) * time.Microsecond, priority & 7, text}, true
}
