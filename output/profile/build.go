package profile

import (
	"strings"

	"github.com/google/pprof/profile"

	"github.com/modtrace/modtrace/output"
)

// builder makes the message.
type builder struct {
	profile   *profile.Profile
	names     []string
	hosts     bool // are labelled
	mappings  map[string]*profile.Mapping
	locations map[uint64]*profile.Location
}

func newBuilder(names []string, hosts int) *builder {
	b := &builder{
		profile: &profile.Profile{
			SampleType: []*profile.ValueType{
				{Type: "offcpu", Unit: "nanoseconds"},
				{Type: "waits", Unit: "count"},
				{Type: "oncpu_samples", Unit: "count"},
			},
			DefaultSampleType: "offcpu",
		},
		names: names, hosts: hosts > 1,
		mappings: map[string]*profile.Mapping{}, locations: map[uint64]*profile.Location{},
	}
	b.mapping("") // the first is taken for the program that was profiled
	return b
}

// sample adds a stack with its labels.
func (b *builder) sample(key string, v values) {
	ids := parts(key)
	s := &profile.Sample{Value: []int64{v.offCPU, v.waits, v.onCPU}, Label: map[string][]string{}}
	for i, label := range []string{"phase", "cause", "module", "blocker", "host"} {
		text := output.Clean(b.names[ids[i]])
		if label == "host" && !b.hosts {
			continue
		}
		if label == "host" && text == "" {
			text = "(unknown)"
		}
		if text != "" {
			s.Label[label] = []string{text}
		}
	}
	for _, id := range ids[number:] {
		s.Location = append(s.Location, b.location(id))
	}
	b.profile.Sample = append(b.profile.Sample, s)
}

// rest adds what was not kept apart.
func (b *builder) rest(v values) {
	l := &profile.Location{ID: uint64(len(b.profile.Location) + 1), Line: []profile.Line{{Function: b.function("(others)")}}}
	b.profile.Location = append(b.profile.Location, l)
	b.profile.Sample = append(b.profile.Sample, &profile.Sample{
		Value: []int64{v.offCPU, v.waits, v.onCPU}, Location: []*profile.Location{l},
	})
}

// location stands for a function: records do not say addresses.
func (b *builder) location(id uint64) *profile.Location {
	if l := b.locations[id]; l != nil {
		return l
	}
	function, module, _ := strings.Cut(b.names[id], separator)
	function, module = output.Clean(function), output.Clean(module)
	if function == "" {
		function = "?"
	}
	l := &profile.Location{ID: uint64(len(b.profile.Location) + 1)}
	if !strings.HasPrefix(function, "(") {
		l.Mapping = b.mapping(module)
	}
	if module != "" {
		function += " [" + module + "]"
	}
	l.Line = []profile.Line{{Function: b.function(function)}}
	b.profile.Location = append(b.profile.Location, l)
	b.locations[id] = l
	return l
}

func (b *builder) function(name string) *profile.Function {
	f := &profile.Function{ID: uint64(len(b.profile.Function) + 1), Name: name}
	b.profile.Function = append(b.profile.Function, f)
	return f
}

// mapping stands for the code of a module, or of the kernel itself. pprof looks for no
// symbols in what is named in brackets.
func (b *builder) mapping(module string) *profile.Mapping {
	if m := b.mappings[module]; m != nil {
		return m
	}
	file := "[kernel]"
	if module != "" {
		file = "[" + module + "]"
	}
	m := &profile.Mapping{ID: uint64(len(b.profile.Mapping) + 1), File: file, HasFunctions: true}
	b.profile.Mapping = append(b.profile.Mapping, m)
	b.mappings[module] = m
	return m
}
