package holders

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/modtrace/modtrace/bpf"
	"github.com/modtrace/modtrace/memory"
	"github.com/modtrace/modtrace/unload"
)

// search finds holders that no process leads to, by what the kernel lists: it follows
// the lists to whatever names a module as its owner. That takes longer than to look at
// open files, so it is left until something is not explained without.
type search struct {
	root
	*memory.Memory
	openers    func(program, link uint64) ([]bpf.HoldersHolding, error)
	lacking    []string          // in words, what the kernel does not show
	unseen     []string          // in words, what was not looked at this time
	registered uint64            // where framebuffers are listed, once it is known
	described  map[string]bool   // modules whose types are known
	socketsAt  []uint64          // in a namespace, where there are any
	names      []string          // the modules that are asked about
	owners     map[uint64]string // names of modules, by their addresses
	found      []*found
	alike      map[alike]*found
	taken      map[held]bool
	spans      map[string][]span // of modules, where it was asked
}

// found is a holder, and which of the modules it holds.
type found struct {
	target int
	unload.Holder
	facts []string
	step  string // how to free it, "" if that is not known
}

// note adds what is not told by what kind of a holder it is and where.
func (f *found) note(fact string) {
	if f != nil && !slices.Contains(f.facts, fact) {
		f.facts = append(f.facts, fact)
	}
}

// freeBy notes how to free it.
func (f *found) freeBy(step string) {
	if f != nil {
		f.step = step
	}
}

// alike are those references that make one holder.
type alike struct {
	target       int
	kind         unload.HolderKind
	path, detail string
}

// held is one reference: that of an object on one of the modules.
type held struct {
	by     uint64
	target int
}

// searched are the kernel's own types that are looked at.
func searched() []string {
	list := slices.Concat([]string{"module", "module_memory", "task_struct"}, networkTypes(), classifierTypes(), diskTypes(), programTypes(), consoleTypes())
	for _, d := range describers() {
		list = append(list, d.types...)
	}
	return list
}

// describer is a module with types that are looked at. What it leads to has put itself
// there by calling a module, and so is among the dependents of that.
type describer struct {
	module, called string
	types          []string
}

func describers() []describer { return slices.Concat(netfilterTypes(), xtablesTypes(), driverTypes()) }

func openSearch(r root, btfFile string, openers func(program, link uint64) ([]bpf.HoldersHolding, error)) (*search, error) {
	m, err := memory.Open(btfFile, searched()...)
	if err != nil {
		return nil, err
	}
	return &search{root: r, Memory: m, openers: openers, described: map[string]bool{}}, nil
}

// describe makes the types known of those modules by which the ones that are asked
// about can be held. To read types takes a while.
func (s *search) describe() {
	for _, d := range describers() {
		if s.described[d.module] || !s.among(d.called) {
			continue
		}
		m, err := s.module(d.module)
		if err != nil || m.state == "" || m.state == builtIn { // then its types are among the kernel's
			continue
		}
		s.described[d.module] = true
		err = s.AddModule(d.module, d.types...)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			s.lacking = append(s.lacking, fmt.Sprintf("what %s holds: the kernel does not describe its types", d.module))
		case err != nil:
			s.lacking = append(s.lacking, fmt.Sprintf("what %s holds: %v", d.module, err))
		}
	}
}

// among says whether one that is asked about is that module, or one of its dependents.
func (s *search) among(module string) bool {
	order, err := s.order(module)
	return err == nil && slices.ContainsFunc(s.names, func(name string) bool {
		m, err := s.module(module)
		return slices.Contains(order, name) || err == nil && m.state == builtIn
	})
}

// look gives all that holds the modules. whole is false when a list changed under the
// look.
func (s *search) look(names []string) (list []*found, whole bool) {
	s.names, s.owners, s.found = names, map[uint64]string{}, nil
	s.unseen, s.spans = nil, map[string][]span{}
	s.alike, s.taken, s.Torn = map[alike]*found{}, map[held]bool{}, false
	s.describe()
	s.eachNetwork(s.network)
	s.newQdiscs()
	s.disks()
	s.algorithms()
	s.patches()
	s.programs()
	s.consoles()
	return s.found, !s.Torn
}

// lacks says in words what could not be found out.
func (s *search) lacks() []string {
	list := slices.Concat(s.lacking, s.unseen)
	for _, field := range s.Unknown() {
		list = append(list, fmt.Sprintf("what %s leads to: this kernel has no such field", field))
	}
	return list
}

// hold notes that an object holds its owner, if that is one of the modules that are
// asked about.
func (s *search) hold(owner uint64, by uint64, h unload.Holder) *found {
	if target := s.target(owner); target >= 0 {
		return s.holdTarget(target, by, h)
	}
	return nil
}

func (s *search) holdTarget(target int, by uint64, h unload.Holder) *found {
	if s.taken[held{by, target}] { // what shares the object leads to it as well
		return nil
	}
	s.taken[held{by, target}] = true
	key := alike{target, h.Kind, h.Path, h.Detail}
	f := s.alike[key]
	if f == nil {
		h.FD, h.Stack, h.Confidence = -1, []string{}, unload.ByOwner
		f = &found{target: target, Holder: h}
		s.alike[key] = f
		s.found = append(s.found, f)
	}
	f.Refs++
	return f
}

// relate notes that a module is held so many times, by what the kernel says of it.
func (s *search) relate(module string, refs int64, h unload.Holder) {
	if target := slices.Index(s.names, module); target >= 0 && refs > 0 {
		h.Refs, h.FD, h.Stack, h.Confidence = refs, -1, []string{}, unload.ByRelation
		s.found = append(s.found, &found{target: target, Holder: h})
	}
}

// target is the place of a module among those that are asked about, -1 if it is none.
func (s *search) target(owner uint64) int {
	if owner == 0 {
		return -1
	}
	return slices.Index(s.names, s.ownerName(owner))
}

func (s *search) ownerName(owner uint64) string {
	name, ok := s.owners[owner]
	if !ok {
		name = s.At("module", owner).Text("name")
		s.owners[owner] = name
	}
	return name
}

// span is a piece of a module's memory.
type span struct{ from, to uint64 }

// spansOf are those of a module.
func (s *search) spansOf(name string) []span {
	list, ok := s.spans[name]
	if !ok {
		list = s.findSpans(name)
		s.spans[name] = list
	}
	return list
}

// findSpans asks sysfs where a module is (kernel/module/sysfs.c, module_sect_read).
func (s *search) findSpans(name string) (list []span) {
	b, err := os.ReadFile(s.path("sys/module", name, "sections/.gnu.linkonce.this_module"))
	if err != nil {
		return nil // it is built in or gone, or this process may not know addresses
	}
	at, err := strconv.ParseUint(strings.TrimPrefix(strings.TrimSpace(string(b)), "0x"), 16, 64)
	if err != nil || at == 0 {
		return nil
	}
	m := s.At("module", at)
	if m.Text("name") != name {
		return nil
	}
	if !s.Knows("module", "mem") { // since 6.4
		base := m.Uint("core_layout.base")
		return []span{{base, base + m.Uint("core_layout.size")}}
	}
	for _, part := range m.Array("mem", "module_memory") {
		list = append(list, span{part.Uint("base"), part.Uint("base") + part.Uint("size")})
	}
	return list
}

func within(list []span, address uint64) bool {
	return slices.ContainsFunc(list, func(s span) bool { return s.from <= address && address < s.to })
}
