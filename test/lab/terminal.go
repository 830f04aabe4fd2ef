// SPDX-License-Identifier: MIT

package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"github.com/modtrace/modtrace/test/lab/wire"
)

// escape ends a machine from its terminal, as it ends a telnet session.
const escape = 0x1d // Ctrl-]

// ErrEscaped is how a machine ends when Ctrl-] is typed on its terminal.
var ErrEscaped = errors.New("ended from the terminal")

// Terminal connects a person to a machine's serial console.
type Terminal struct {
	In, Out *os.File
}

// Raw hands every key to the guest, until the function that it returns is
// called.
func (t *Terminal) Raw() (restore func(), err error) {
	fd := int(t.In.Fd())
	old, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, fmt.Errorf("a shell needs a terminal on stdin: %w", err)
	}
	raw := *old
	raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	raw.Oflag &^= unix.OPOST
	raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	raw.Cflag = raw.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &raw); err != nil {
		return nil, fmt.Errorf("making the terminal raw: %w", err)
	}
	return func() { _ = unix.IoctlSetTermios(fd, unix.TCSETS, old) }, nil
}

func (t *Terminal) size() wire.Size {
	ws, err := unix.IoctlGetWinsize(int(t.Out.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return wire.Size{}
	}
	return wire.Size{Rows: ws.Row, Cols: ws.Col}
}

// Columns returns the width, or 0 when Out is no terminal.
func (t *Terminal) Columns() int { return int(t.size().Cols) }

// attach carries keys and sizes to the guest until the terminal ends.
func (t *Terminal) attach(s *session) {
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, unix.SIGWINCH)
	go func() {
		for range resized {
			if data, err := json.Marshal(t.size()); err == nil {
				_ = s.send(wire.Resize, data)
			}
		}
	}()
	buf := make([]byte, 256)
	for {
		n, err := t.In.Read(buf)
		for _, c := range buf[:n] {
			if c == escape {
				s.stop(ErrEscaped)
				return
			}
		}
		if _, werr := s.serial.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
}
