// Package profile renders captures as a profile that go tool pprof opens: where unloads
// waited, and where they ran.
package profile

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/modtrace/modtrace/output"
	"github.com/modtrace/modtrace/unload"
)

// New writes a profile to w when it is closed: a gzipped message of pprof's profile.proto.
//
// Its samples have three values: offcpu, the nanoseconds for which unloading tasks were
// off the CPU, and waits, how many times, both by the stack in which they waited; and
// oncpu_samples, how many times they were found running, by the stack they ran in. They
// are labelled by phase, cause, module (the one that is unloaded), blocker where its name
// is known, and host if there is more than one. A wait whose stack is not known has its
// cause, in brackets, for a function.
//
// Functions are those of the kernel and its modules, which the profile's mappings stand
// for. None has an address: records do not say any.
//
// Memory is bounded. Of stacks with their labels, the first hundred thousand are kept
// apart, or less if they are long; the rest is added up in one sample, (others), and a
// comment of the profile says how many records' parts that were.
func New(w io.Writer) output.Document {
	return &document{w: w, bounds: normal(), samples: map[string]*values{}, names: names{ids: map[string]uint64{}}}
}

// bounds are what a profile may take.
type bounds struct {
	samples int // stacks with their labels
	weight  int // bytes of names, and of stacks
	frames  int // of a stack; the kernel gives up to 127 (kernel.perf_event_max_stack)
}

func normal() bounds { return bounds{samples: 100_000, weight: 64 << 20, frames: 256} }

// values are in the order of the profile's sample types.
type values struct{ offCPU, waits, onCPU int64 }

func (v *values) add(o values) {
	v.offCPU = unload.Plus(v.offCPU, o.offCPU)
	v.waits = unload.Plus(v.waits, o.waits)
	v.onCPU = unload.Plus(v.onCPU, o.onCPU)
}

type document struct {
	output.Silent
	w       io.Writer
	bounds  bounds
	samples map[string]*values // by their keys
	names   names
	weight  int // of keys and names
	host    string

	others   values
	folded   int64 // into others
	unloads  int64
	captures int64
	from, to time.Time // of the captures
}

// Header is of the records that follow.
func (d *document) Header(h unload.Header) error {
	d.host = h.Host
	d.captures++
	d.span(h.Started)
	return nil
}

// Trailer is the end of a capture.
func (d *document) Trailer(t unload.Trailer) error {
	d.span(t.Ended)
	return nil
}

func (d *document) span(t time.Time) {
	if t.IsZero() {
		return
	}
	if d.from.IsZero() || t.Before(d.from) {
		d.from = t
	}
	if t.After(d.to) {
		d.to = t
	}
}

// Unload adds the waits of an attempt, and where it ran.
func (d *document) Unload(u unload.Unload) error {
	d.unloads++
	for _, p := range u.Phases {
		for _, w := range p.Waits {
			d.add(labels{
				phase: string(p.Name), cause: string(w.Cause), module: u.Module, blocker: blocker(w.Blocker), host: d.host,
			}, w.Stack, values{offCPU: w.Duration, waits: max(w.Count, 1)})
		}
		for _, h := range p.Hot {
			d.add(labels{phase: string(p.Name), module: u.Module, host: d.host}, h.Stack, values{onCPU: h.Samples})
		}
	}
	return nil
}

// blocker names who was waited for so that waits for the same in other unloads have the
// same name: without the numbers of processes.
func blocker(b unload.Blocker) string {
	if b.Candidates > 1 {
		b.Comm = "" // one of them
	}
	b.PID, b.Candidates, b.Users, b.Stack = 0, 0, 0, nil
	if b.Function == "" && b.Comm == "" && b.Detail == "" && b.Module == "" {
		return ""
	}
	if b.Function != "" && (b.Kind == unload.KindWork || b.Kind == unload.KindWorkqueue) {
		b.Comm = "" // whichever worker it was
	}
	return output.Agent(b)
}

// add counts values to their stack and labels.
func (d *document) add(l labels, stack []string, v values) {
	key, ok := d.key(l, stack)
	s := d.samples[key]
	if s == nil {
		if !ok || len(d.samples) >= d.bounds.samples || d.weight+len(key) > d.bounds.weight {
			d.others.add(v)
			d.folded++
			return
		}
		s = &values{}
		d.samples[key] = s
		d.weight += len(key)
	}
	s.add(v)
}

// Close writes the profile.
func (d *document) Close() error {
	b := newBuilder(d.names.list, d.hosts())
	for _, key := range slices.Sorted(maps.Keys(d.samples)) { // the same captures give the same file
		b.sample(key, *d.samples[key])
	}
	if d.folded > 0 {
		b.rest(d.others)
	}
	p := b.profile
	p.Comments = d.comments()
	if !d.from.IsZero() {
		p.TimeNanos = nanoseconds(d.from)
		p.DurationNanos = int64(d.to.Sub(d.from))
	}
	if err := p.Write(d.w); err != nil {
		return fmt.Errorf("writing a profile: %w", err)
	}
	return nil
}

func (d *document) comments() []string {
	all := []string{
		fmt.Sprintf("modtrace: %s in %s", output.Count(d.unloads, "unload", "unloads"), output.Count(d.captures, "capture", "captures")),
		"offcpu and waits: by the stacks that unloading tasks waited in; oncpu_samples: by those they were found running in",
	}
	if d.folded > 0 {
		all = append(all, fmt.Sprintf("(others) stands for %s whose stacks were not kept apart: there were too many, or too long ones",
			output.Count(d.folded, "wait or place", "waits and places")))
	}
	return all
}

// nanoseconds since 1970, 0 for years that an int64 does not reach.
func nanoseconds(t time.Time) int64 {
	if y := t.UTC().Year(); y < 1970 || y > 2200 {
		return 0
	}
	return t.UnixNano()
}
