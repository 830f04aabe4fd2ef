// SPDX-License-Identifier: MIT

package main

import (
	"bytes"
	"os"
	"os/exec"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/modtrace/modtrace/test/bench/figure"
)

// programs measures each BPF program of a tracer by itself. The kernel's
// counting costs time of its own, so this is not done while the unload is
// measured.
func (b *bench) programs(t tracer) error {
	const knob = "/proc/sys/kernel/bpf_stats_enabled"
	if err := os.WriteFile(knob, []byte("1"), 0); err != nil {
		return err
	}
	defer func() { _ = os.WriteFile(knob, []byte("0"), 0) }()
	_, err := b.start(t, false, func() error {
		before, err := programStats()
		if err != nil {
			return err
		}
		if _, _, err := b.rounds(); err != nil {
			return err
		}
		after, err := programStats()
		if err != nil {
			return err
		}
		rounds := float64(2 * (b.report.Warmup + b.report.Rounds))
		for id, s := range after {
			runs := s.runs - before[id].runs
			if runs == 0 {
				continue
			}
			b.report.Programs = append(b.report.Programs, figure.Program{
				Name: s.name,
				Runs: float64(runs) / rounds,
				Time: float64(s.ns-before[id].ns) / float64(runs),
			})
		}
		return nil
	})
	return err
}

type programStat struct {
	name     string
	runs, ns int64
}

func programStats() (map[ebpf.ProgramID]programStat, error) {
	all := map[ebpf.ProgramID]programStat{}
	for id := ebpf.ProgramID(0); ; {
		next, err := ebpf.ProgramGetNextID(id)
		if err != nil {
			return all, nil // there is no next
		}
		id = next
		p, err := ebpf.NewProgramFromID(id)
		if err != nil {
			return nil, err
		}
		info, err := p.Info()
		if err != nil {
			return nil, err
		}
		s, err := p.Stats()
		if err != nil {
			return nil, err
		}
		p.Close()
		all[id] = programStat{info.Name, int64(s.RunCount), s.Runtime.Nanoseconds()}
	}
}

// versions asks each tool for its own.
func (b *bench) versions() {
	b.report.Versions = map[string]string{}
	for name, args := range map[string][]string{
		"modtrace":  {"/usr/bin/modtrace", "--version"},
		"bpftrace":  {"/usr/bin/bpftrace", "--version"},
		"trace-cmd": {"/usr/bin/trace-cmd", "--version"},
	} {
		// Some print their version on stderr, or with a status of failure.
		out, _ := exec.Command(args[0], args[1:]...).CombinedOutput()
		line, _, _ := bytes.Cut(bytes.TrimSpace(out), []byte("\n"))
		b.report.Versions[name] = strings.TrimSpace(string(line))
	}
}
