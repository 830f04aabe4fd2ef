package tracer

import (
	"cmp"
	"regexp"
	"slices"
	"strings"

	"github.com/modtrace/modtrace/bpf"
	"github.com/modtrace/modtrace/unload"
)

// maxEffects bounds how many devices, and how many lines of the log, are kept of
// an unload.
const maxEffects = 4096

// addDevice keeps a device that was detached, the slowest first.
func (p *pending) addDevice(e *bpf.UnloadDeviceEvent) {
	d := unload.Device{Device: text(e.Name[:]), Driver: text(e.Driver[:]), Duration: int64(e.Until - e.Since)}
	i, _ := slices.BinarySearchFunc(p.devices, d, func(a, b unload.Device) int {
		return cmp.Or(cmp.Compare(b.Duration, a.Duration), -1) // behind its equals
	})
	p.devices = slices.Insert(p.devices, i, d)
	if len(p.devices) > maxEffects {
		p.devices = p.devices[:maxEffects]
	}
}

// logged is a line of the kernel's log.
type logged struct {
	time uint64
	text string
}

// addLog gives a line to the unload whose task wrote it. What somebody else wrote
// may have to do with any of those in flight.
func (a *assembler) addLog(e *bpf.UnloadLogEvent) {
	line := logged{e.Time, withoutStamp(strings.TrimRight(text(e.Text[:e.Length]), "\n"))}
	for key, p := range a.pending {
		own := key == taskKey{e.Header.Begin, e.Header.Tid}
		if (own || e.Header.Begin == 0) && e.Time >= key.begin && len(p.log) < maxEffects {
			p.log = append(p.log, line)
		}
	}
}

// stamp is what printk.time puts before a line; up to 5.10 the tracepoint is given
// it (kernel/printk/printk.c, print_prefix).
var stamp = regexp.MustCompile(`^\[ *[0-9]+\.[0-9]{6}\] `)

func withoutStamp(line string) string { return line[len(stamp.FindString(line)):] }

// lines are those that were logged by the end of an unload, each with the phase
// that it fell in.
func (p *pending) lines(e *bpf.UnloadEnd) []unload.LogLine {
	list := []unload.LogLine{}
	for _, l := range p.log {
		if l.time > e.At[bpf.UnloadBoundaryAT_END] {
			continue
		}
		phase := uint32(0)
		for b := range uint32(bpf.UnloadBoundaryAT_END) {
			if at := e.At[b]; at != 0 && at <= l.time {
				phase = b
			}
		}
		list = append(list, unload.LogLine{
			Offset: int64(l.time - e.Header.Begin),
			Phase:  stageName(phase),
			Level:  level(l.text),
			Text:   l.text,
		})
	}
	return list
}

// Levels of lines (include/linux/kern_levels.h).
const (
	levelCritical = 2
	levelWarning  = 4
	levelUnknown  = -1 // the tracepoint does not tell
)

// level knows warnings and oopses by how they begin (kernel/panic.c, lib/bug.c,
// arch/*/kernel/traps.c).
func level(text string) int {
	for _, mark := range []string{"BUG:", "Oops", "kernel BUG at", "Internal error:", "Unable to handle kernel", "general protection fault"} {
		if strings.HasPrefix(text, mark) {
			return levelCritical
		}
	}
	if strings.HasPrefix(text, "WARNING:") || strings.HasPrefix(text, "------------[ cut here ]") {
		return levelWarning
	}
	return levelUnknown
}
