package tracer

import (
	"errors"

	"github.com/modtrace/modtrace/object"
	"github.com/modtrace/modtrace/symbols"
	"github.com/modtrace/modtrace/unload"
)

// Inspection is what a machine lets modtrace see, and to whom.
type Inspection struct {
	Plan         Plan
	Tried        bool // the plan was attached and taken down again, not only looked up
	Capabilities []object.Capability
	Lockdown     string
	Problems     []*object.Unable // each alone forbids tracing
}

// Inspect finds out what could be traced here. With the privileges for it, it
// attaches everything for a moment, without arming it; without, it goes by
// what the kernel says of itself.
func Inspect(o Options) (Inspection, error) {
	in := Inspection{Lockdown: object.Lockdown()}
	var err error
	if in.Capabilities, err = object.Capabilities(); err != nil {
		return in, err
	}
	if err := object.HasModules(); err != nil {
		in.add(err)
		in.Plan = nothing("this kernel has no loadable modules")
		return in, nil
	}
	in.add(object.HasCapabilities())
	in.add(object.HasTypes(o.BTF))
	if len(in.Problems) > 0 {
		in.Plan = predict(o)
		return in, nil
	}
	l, err := newLoader(o)
	if err != nil {
		in.add(err)
		in.Plan = predict(o)
		return in, nil
	}
	in.add(l.attach(o.Mechanisms))
	in.Plan, in.Tried = l.plan, true
	return in, l.close()
}

func (in *Inspection) add(err error) {
	var u *object.Unable
	switch {
	case errors.As(err, &u):
		in.Problems = append(in.Problems, u)
	case err != nil:
		in.Problems = append(in.Problems, &object.Unable{What: "cannot trace", Why: err.Error(), Remedy: "report this as a bug"})
	}
}

// nothing is the plan of a machine on which nothing can be seen.
func nothing(reason string) Plan {
	var plan Plan
	for _, h := range hooks() {
		p := planned(h)
		settle(&p, h, len(h.candidates), reason)
		plan = append(plan, p)
	}
	return plan
}

// predict makes the plan from what the kernel says of itself to everybody: its
// types, and the names of its functions.
func predict(o Options) Plan {
	l := &loader{}
	l.Object, _ = object.Open(nil, o.BTF, targets()...) // without its types, nothing is known of the kernel
	symbols := symbolNames()
	var plan Plan
	for _, h := range hooks() {
		p := planned(h)
		if h.absentWithout != "" && l.Typed && !l.Knows(h.absentWithout) {
			settleAbsent(&p, h)
		} else {
			settle(&p, h, l.likely(h, symbols, o.Mechanisms), "not tried")
		}
		plan = append(plan, p)
	}
	return plan
}

// likely is the first candidate that the kernel seems to have.
func (l *loader) likely(h hook, symbols map[string]bool, only []string) int {
	for i, c := range h.candidates {
		if !object.Allowed(c.Mechanism, only) || c.NotWith != "" && l.Typed && l.Knows(c.NotWith) {
			continue
		}
		switch c.Mechanism {
		case object.Fentry, object.Fexit, object.TPBTF:
			if l.Typed && l.Knows(c.Target()) {
				return i
			}
		case object.Kprobe, object.Kretprobe:
			if symbols[c.Function] {
				return i
			}
		case object.RawTP:
			if symbols["__tracepoint_"+c.Function] {
				return i
			}
		}
	}
	return len(h.candidates)
}

// symbolNames reads the names in /proc/kallsyms that the plan asks about. What
// cannot be read has none.
func symbolNames() map[string]bool {
	wanted := map[string]bool{}
	for _, h := range hooks() {
		for _, c := range h.candidates {
			wanted[c.Function], wanted["__tracepoint_"+c.Function] = true, true
		}
	}
	found := map[string]bool{}
	_ = symbols.Each(func(s symbols.Symbol) bool {
		if wanted[string(s.Name)] && len(s.Module) == 0 {
			found[string(s.Name)] = true
		}
		return true
	})
	return found
}

// Missing lists the hooks of the plan that are not there.
func (p Plan) Missing() []unload.Hook {
	var missing []unload.Hook
	for _, h := range p {
		if h.Status == unload.StatusMissing {
			missing = append(missing, h)
		}
	}
	return missing
}
