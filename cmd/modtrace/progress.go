package main

import (
	"fmt"
	"io"
	"os"
	"time"
)

// progress is a file that is read, and says how far that has come.
type progress struct {
	io.Reader
	cli        *cli
	name       string
	size, read int64
	next       time.Time
	told       bool
}

// watched gives a reader of f that says on a terminal how far it has come, once that
// takes more than a second. done ends it.
func (c *cli) watched(f *os.File, name string) (r io.Reader, done func()) {
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || !isTerminal(c.stderr) {
		return f, func() {}
	}
	p := &progress{Reader: f, cli: c, name: name, size: info.Size(), next: time.Now().Add(time.Second)}
	return p, p.end
}

// Read reads, and says so now and then.
func (p *progress) Read(b []byte) (int, error) {
	n, err := p.Reader.Read(b)
	p.read += int64(n)
	if now := time.Now(); now.After(p.next) && p.size > 0 {
		p.next, p.told = now.Add(200*time.Millisecond), true
		fmt.Fprintf(p.cli.stderr, "\rmodtrace: reading %s: %d%%", p.name, min(100, 100*p.read/p.size))
	}
	return n, err
}

func (p *progress) end() {
	if p.told {
		fmt.Fprintf(p.cli.stderr, "\r\x1b[K")
	}
}
