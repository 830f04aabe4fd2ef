// SPDX-License-Identifier: MIT

// Package bench measures what modtrace and its rivals cost: the unload that is
// watched, the machine, the start. All is measured in one boot whose clock
// counts instructions, so that the same sources give the same figures anywhere.
package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/modtrace/modtrace/test/bench/figure"
	"github.com/modtrace/modtrace/test/lab"
)

// Options say what to measure.
type Options struct {
	// Series is the kernel's; empty means amd64-6.12.
	Series string
	// Rounds is how often the module is unloaded for a figure; 0 means 100.
	Rounds int
	// Modtrace is a program to measure instead of the sources' own.
	Modtrace string
	// Only one thing is measured: [OnlyReferences] or [OnlyWhy]. Empty means all.
	Only string
	// Log takes progress; nil means none.
	Log io.Writer
}

// What can be measured alone, in a minute or two.
const (
	OnlyReferences = "references" // what a reference taken or dropped costs
	OnlyWhy        = "why"        // what it takes to say who holds a module
)

// DefaultSeries is the kernel of most servers today.
const DefaultSeries = "amd64-6.12"

const (
	defaultRounds = 100
	warmup        = 10
	toolSuite     = "trixie"
	// bpftrace's compiler alone takes a few hundred megabytes.
	memoryMB = 3072
	timeout  = 30 * time.Minute
)

// Run boots a machine and measures everything in it.
func Run(ctx context.Context, l *lab.Lab, o Options) (*figure.Report, error) {
	if o.Series == "" {
		o.Series = DefaultSeries
	}
	if o.Rounds == 0 {
		o.Rounds = defaultRounds
	}
	if o.Log == nil {
		o.Log = io.Discard
	}
	series, err := lab.FindSeries(o.Series)
	if err != nil {
		return nil, err
	}
	k, err := l.Kernel(ctx, series)
	if err != nil {
		return nil, err
	}
	image, err := image(ctx, l, k, o)
	if err != nil {
		return nil, err
	}
	args := []string{"/usr/bin/bench", "-rounds", strconv.Itoa(o.Rounds), "-warmup", strconv.Itoa(warmup)}
	if o.Only != "" {
		args = append(args, "-only", o.Only)
	}
	var stdout bytes.Buffer
	result, err := l.Run(ctx, &lab.Machine{
		Kernel: k,
		Args:   args,
		// A raw system call that lasts is no reason to send the thread signals.
		Env:    []string{"GODEBUG=asyncpreemptoff=1"},
		Stdout: &stdout, Stderr: o.Log,
		Initrd:            image,
		MemoryMB:          memoryMB,
		CountInstructions: true,
		Timeout:           timeout,
	})
	if err != nil {
		return nil, err
	}
	if result.ExitCode != 0 {
		return nil, fmt.Errorf("the benchmark in the guest ended with status %d; the console's end:\n%s", result.ExitCode, result.Console)
	}
	r := &figure.Report{}
	if err := json.Unmarshal(stdout.Bytes(), r); err != nil {
		return nil, fmt.Errorf("reading what the guest measured: %w", err)
	}
	r.Series, r.Kernel = o.Series, result.Release
	if o.Modtrace == "" && r.Versions != nil {
		r.Versions["modtrace"] = "modtrace " + sources(ctx)
	}
	return r, nil
}

// image makes the guest's file system.
func image(ctx context.Context, l *lab.Lab, k *lab.Kernel, o Options) (*lab.Initrd, error) {
	a, err := l.Initrd(ctx, k)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	arch := k.Series.Arch
	for _, p := range []struct{ name, pkg, file string }{
		{"bench", "./test/bench/guest", ""},
		{"modtrace", "./cmd/modtrace", o.Modtrace},
	} {
		if p.file == "" {
			p.file = filepath.Join(dir, p.name)
			if err := l.GoBuild(ctx, arch, p.pkg, p.file); err != nil {
				return nil, err
			}
		}
		if err := a.AddHostFile("/usr/bin/"+p.name, p.file); err != nil {
			return nil, err
		}
	}
	for _, program := range []string{"bpftrace", "trace-cmd"} {
		spec := lab.TreeSpec{Suite: toolSuite, Arch: arch, Packages: []string{program}}
		if err := l.AddPrograms(ctx, a, spec, "/usr/bin/"+program); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// sources names the state that modtrace was built from; the build itself does
// not know it, so that it is the same wherever it is made.
func sources(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "git", "describe", "--tags", "--always", "--dirty").Output()
	if err != nil {
		return "(devel)"
	}
	return strings.TrimSpace(string(out))
}
