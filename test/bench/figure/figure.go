// SPDX-License-Identifier: MIT

// Package figure holds what the benchmark measures. The guest writes it and the
// host reads it, so it depends on nothing.
package figure

import "slices"

// Names of the tracers, in the order in which they are measured.
const (
	None           = "none"
	Modtrace       = "modtrace"
	ModtraceTable  = "modtrace-table"
	BpftraceFentry = "bpftrace-fentry"
	BpftraceKprobe = "bpftrace-kprobe"
	FunctionGraph  = "function_graph"
	// Empty is a program that does nothing, where only switches are measured.
	Empty = "empty program"
	// What references cost under modtrace refs: those of the module that is watched,
	// the same with each reported, and those of others.
	RefsWatched = "refs"
	RefsRaw     = "refs --raw"
	RefsOther   = "refs of another"
)

// Report is what one boot gives. All times are in nanoseconds of the guest's
// clock, which counts instructions.
type Report struct {
	Series string `json:"series"`
	Kernel string `json:"kernel"`
	// Versions of the tools, by program.
	Versions map[string]string `json:"versions"`
	// Rounds that are measured, and rounds before them that are not.
	Rounds int `json:"rounds"`
	Warmup int `json:"warmup"`

	Costs    []Cost    `json:"costs"`
	Starts   []Start   `json:"starts"`
	Programs []Program `json:"programs"`
	Switches []Switch  `json:"switches"`

	References []Reference `json:"references"`
	Whys       []Why       `json:"whys"`
}

// Why is what it takes to say who holds a module.
type Why struct {
	// Files that are open on the machine, by one process, and modules that are loaded.
	Files   int `json:"files"`
	Modules int `json:"modules"`
	// Explained says that open files alone account for all references. Otherwise all
	// that the kernel lists is gone through as well.
	Explained bool `json:"explained"`
	// CPU is the time of the program and of the kernel for it.
	CPU int64 `json:"cpu_ns"`
}

// Reference is what a reference taken or dropped costs more under a tracer.
type Reference struct {
	Tracer string  `json:"tracer"`
	Time   float64 `json:"ns"`
}

// Switch is what a switch of tasks costs while nothing is unloaded.
type Switch struct {
	Tracer string  `json:"tracer"`
	Time   float64 `json:"ns"`
}

// Cost is what unloading costs under a tracer.
type Cost struct {
	Tracer string `json:"tracer"`
	// Modules that were loaded meanwhile, without the one that is unloaded.
	Modules int `json:"modules"`
	// OnCPU is the time that the unloading thread ran.
	OnCPU Spread `json:"on_cpu_ns"`
	// Machine is the time that the machine was not idle, from the system call's
	// beginning until the tracer had time to read.
	Machine Spread `json:"machine_ns"`
	// Error says why a tracer could not be measured.
	Error string `json:"error,omitempty"`
}

// Start is what starting a tracer costs.
type Start struct {
	Tracer  string `json:"tracer"`
	Modules int    `json:"modules"`
	// Cold says that nothing like it ran before in this boot.
	Cold bool `json:"cold"`
	// Ready is the time from exec until unloads are seen.
	Ready int64 `json:"ready_ns"`
	// Peak is the most memory that was resident, of all its processes.
	Peak  int64  `json:"peak_kb"`
	Error string `json:"error,omitempty"`
}

// Program is what one of modtrace's BPF programs costs.
type Program struct {
	Name string `json:"name"`
	// Runs counts how often it ran in an unload and its load.
	Runs float64 `json:"runs_per_round"`
	// Time is how long one run took, by the kernel's count of the program alone,
	// without the way in and out.
	Time float64 `json:"ns_per_run"`
}

// Spread describes measurements of the same thing.
type Spread struct {
	Median int64 `json:"median"`
	Mean   int64 `json:"mean"`
	Min    int64 `json:"min"`
	Max    int64 `json:"max"`
}

// Of describes measurements; there must be one at least.
func Of(values []int64) Spread {
	sorted := slices.Sorted(slices.Values(values))
	var sum int64
	for _, v := range sorted {
		sum += v
	}
	n := len(sorted)
	return Spread{
		Median: (sorted[(n-1)/2] + sorted[n/2]) / 2,
		Mean:   sum / int64(n),
		Min:    sorted[0],
		Max:    sorted[n-1],
	}
}

// Cost returns the first measurement of a tracer with so many modules, or nil.
func (r *Report) Cost(tracer string, modules int) *Cost {
	for i, c := range r.Costs {
		if c.Tracer == tracer && c.Modules == modules && c.Error == "" {
			return &r.Costs[i]
		}
	}
	return nil
}

// Start returns how a tracer started, or nil.
func (r *Report) Start(tracer string, modules int, cold bool) *Start {
	for i, s := range r.Starts {
		if s.Tracer == tracer && s.Modules == modules && s.Cold == cold && s.Error == "" {
			return &r.Starts[i]
		}
	}
	return nil
}

// Switch returns what a switch of tasks costs under a tracer, in ns, or 0.
func (r *Report) Switch(tracer string) float64 {
	for _, s := range r.Switches {
		if s.Tracer == tracer {
			return s.Time
		}
	}
	return 0
}

// Why returns what it takes with so many open files, or nil.
func (r *Report) Why(files int, explained bool) *Why {
	for i, w := range r.Whys {
		if w.Files == files && w.Explained == explained {
			return &r.Whys[i]
		}
	}
	return nil
}

// Reference returns what a reference costs more under a tracer, in ns, or 0.
func (r *Report) Reference(tracer string) float64 {
	for _, ref := range r.References {
		if ref.Tracer == tracer {
			return ref.Time
		}
	}
	return 0
}
