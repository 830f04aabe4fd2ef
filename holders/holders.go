package holders

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/modtrace/modtrace/bpf"
	"github.com/modtrace/modtrace/object"
	"github.com/modtrace/modtrace/unload"
)

// Finder finds holders, as often as it is asked.
type Finder struct {
	root
	btf    string
	kernel *kernel
	search *search // nil: not prepared, or the kernel does not permit it
	// searched and trailed say that it was tried to prepare that and the trails.
	searched, trailed bool
	// further says that it is looked for what takes more effort, too.
	further bool
	// Unable says why the kernel cannot be looked into; nil when it can. Without,
	// only what the kernel tells everybody is known: dependents and the count.
	Unable *object.Unable
}

// Open prepares to look. btf, if not "", is a file with the kernel's types. Where
// the machine does not permit to look into the kernel, the finder says so in
// Unable.
func Open(btf string) (*Finder, error) {
	f := &Finder{btf: btf}
	var err error
	if f.kernel, err = openKernel(btf); err != nil {
		f.kernel = nil
		if !errors.As(err, &f.Unable) {
			return nil, err
		}
	}
	return f, nil
}

// Close frees what looking needs.
func (f *Finder) Close() error {
	var errs []error
	if f.search != nil {
		errs = append(errs, f.search.Close())
	}
	if f.kernel != nil {
		errs = append(errs, f.kernel.close())
	}
	return errors.Join(errs...)
}

// looks is how often to look for a moment at which nothing changes.
const looks = 3

// Why says who holds each of some modules, named as users name them. The error says
// that a word is no module's name, or that looking failed.
func (f *Finder) Why(words []string) ([]unload.Why, error) {
	var names []string
	for _, word := range words {
		name, err := Name(word)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	list, err := f.lookOften(names)
	if err != nil {
		return nil, err
	}
	for i := range list {
		if list[i].Unloadable {
			list[i].Hazards = f.hazards(list[i].Module)
		}
	}
	return list, nil
}

func (f *Finder) lookOften(names []string) (list []unload.Why, err error) {
	f.further = false
	for range looks {
		var steady bool
		if list, steady, err = f.look(names); err != nil {
			return nil, err
		}
		again, err := f.lookFurther(list)
		if err != nil || steady && !again {
			return list, err
		}
	}
	for i := range list {
		list[i].Missing = append(list[i].Missing, "the state changed under the look, each time")
	}
	return list, nil
}

// lookFurther says whether to look again for what is only found with more effort.
func (f *Finder) lookFurther(list []unload.Why) (again bool, err error) {
	unexplained := func(w unload.Why) bool { return w.Unexplained > 0 }
	if f.further || f.kernel == nil || !f.kernel.object.CanProbe || !slices.ContainsFunc(list, unexplained) {
		return false, nil
	}
	f.canSearch() // without, more is missing
	f.further = true
	if f.trailed {
		return true, nil
	}
	f.trailed = true
	return true, errors.Join(f.kernel.followTrails(), f.followEvents())
}

// followEvents has perf events told from other files, by their operations.
func (f *Finder) followEvents() error {
	if f.search == nil {
		return nil // that is said already
	}
	at, err := f.search.eventOperations()
	if err != nil {
		f.kernel.lacks = append(f.kernel.lacks, fmt.Sprintf("perf events on tracepoints: %v", err))
		return nil
	}
	return f.kernel.object.Vars[bpf.HoldersVarEventOperations].Set(at)
}

// canSearch prepares to follow the kernel's lists, once.
func (f *Finder) canSearch() bool {
	if f.searched || f.kernel == nil || !f.kernel.object.CanProbe {
		return f.search != nil
	}
	f.searched = true
	var err error
	reason := ""
	if f.search, err = openSearch(f.root, f.btf, f.kernel.openers); err != nil {
		reason = err.Error()
	}
	f.kernel.note("qdiscs and what else only the kernel lists", "bpf_probe_read_kernel", object.Run, reason)
	return f.search != nil
}

// hazards are what would go wrong when a module that nobody holds is unloaded.
func (f *Finder) hazards(name string) []string {
	list := f.root.hazards(name)
	if f.canSearch() {
		for _, i := range f.search.interfaces(name) {
			if hazard := wouldGo(i); !slices.Contains(list, hazard) {
				list = append(list, hazard)
			}
		}
		list = append(list, f.unowned(name)...)
	}
	return list
}

// maxUnowned bounds how many open files are named.
const maxUnowned = 8

// unowned are the open files that do not hold the module although their operations are
// its own: whoever uses them once it is gone jumps into nothing.
func (f *Finder) unowned(name string) (list []string) {
	found, err := f.kernel.unowned(f.search.findSpans(name))
	if err != nil {
		return nil // only a warning is lost
	}
	a := f.newAccount([]string{name})
	for i := range found {
		h := a.describe(&found[i])
		hazard := fmt.Sprintf("process %d (%s) has %s open without holding the module: unloading it would crash whoever uses that", h.PID, h.Comm, h.Path)
		if h.gone || h.PID == a.self || slices.Contains(list, hazard) {
			continue
		}
		if len(list) == maxUnowned {
			return append(list, "more files are open that do not hold it")
		}
		list = append(list, hazard)
	}
	return list
}

// look looks once. steady says that nothing changed meanwhile.
func (f *Finder) look(names []string) (list []unload.Why, steady bool, err error) {
	before, err := f.modules(names)
	if err != nil {
		return nil, false, err
	}
	a := f.newAccount(names)
	steady = true
	if f.kernel != nil {
		found, whole, err := f.kernel.look(names)
		if err != nil {
			return nil, false, err
		}
		steady = whole
		a.add(found)
	}
	if f.further && f.search != nil {
		found, whole := f.search.look(names)
		steady = steady && whole
		a.addFound(found)
	}
	after, err := f.modules(names)
	if err != nil {
		return nil, false, err
	}
	for i, m := range after {
		steady = steady && m.refcount == before[i].refcount && m.state == before[i].state && slices.Equal(m.users, before[i].users)
		w, err := f.why(m, a.of(i), a.steps(i))
		if err != nil {
			return nil, false, err
		}
		steady = steady && w.Unexplained >= 0
		list = append(list, w)
	}
	return list, steady && !a.gone, nil
}

func (f *Finder) newAccount(names []string) *account {
	a := newAccount(f.root, names)
	if f.kernel != nil && f.kernel.name != nil {
		a.place = f.kernel.path
	}
	return a
}

func (f *Finder) modules(names []string) ([]module, error) {
	var list []module
	for _, name := range names {
		m, err := f.module(name)
		if err != nil {
			return nil, err
		}
		list = append(list, m)
	}
	return list, nil
}

// why joins what is known of a module.
func (f *Finder) why(m module, found []unload.Holder, steps []string) (unload.Why, error) {
	w := unload.Why{
		Type: unload.TypeWhy, Module: m.name, Time: time.Now().UTC(), State: m.state, Refcount: m.refcount,
		Holders: []unload.Holder{}, Dependents: []string{}, Plan: []string{}, Similar: []string{},
	}
	w.Reason, w.Missing = f.refusal(m)
	w.Unloadable = w.Reason == unload.ReasonNone
	if w.Reason == unload.ReasonNotFound {
		w.Similar = f.missing(m.name)
		return w, nil
	}
	for _, user := range m.users {
		w.Holders = append(w.Holders, unload.Holder{Kind: unload.HolderModule, Refs: 1, Module: user, FD: -1, Confidence: unload.ByRelation})
	}
	w.Holders = append(w.Holders, found...)
	for _, h := range w.Holders {
		w.Explained += h.Refs
	}
	w.Unexplained = w.Refcount - w.Explained
	if m.state != builtIn {
		order, err := f.order(m.name)
		if err != nil {
			return w, err
		}
		w.Plan, w.Dependents = order, order[:len(order)-1]
	}
	switch {
	case f.Unable != nil:
		w.Missing = append(w.Missing, fmt.Sprintf("everything but modules: %s; %s", f.Unable.What, f.Unable.Remedy))
	case w.Unexplained != 0:
		w.Missing = append(w.Missing, f.kernel.missing()...)
		if f.search != nil {
			w.Missing = append(w.Missing, f.search.lacks()...)
		}
	}
	if w.Unexplained < 0 {
		w.Missing = append(w.Missing, "more was found than the kernel counts")
	}
	w.Advice = advice(w, steps)
	if w.Unexplained > 0 && f.Unable == nil {
		w.Advice = append(w.Advice, catch(w.Module))
	}
	return w, nil
}
