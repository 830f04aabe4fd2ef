package holders

import (
	"errors"
	"fmt"
	"slices"

	"github.com/modtrace/modtrace/memory"
	"github.com/modtrace/modtrace/unload"
)

// search finds holders that no process leads to, by what the kernel lists: it follows
// the lists to whatever names a module as its owner. That takes longer than to look at
// open files, so it is left until something is not explained without.
type search struct {
	root
	*memory.Memory
	nets   namespaces
	names  []string          // the modules that are asked about
	owners map[uint64]string // names of modules, by their addresses
	found  []found
	taken  map[held]bool
}

// found is a holder, and which of the modules it holds.
type found struct {
	target int
	unload.Holder
}

// held is one reference: that of an object for one purpose.
type held struct {
	by   uint64
	what string
}

// searched are the kernel's own types that are looked at.
func searched() []string {
	return slices.Concat([]string{"module", "task_struct"}, networkTypes(), classifierTypes())
}

func openSearch(r root, btfFile string) (*search, error) {
	m, err := memory.Open(btfFile, searched()...)
	if err != nil {
		return nil, err
	}
	return &search{root: r, Memory: m}, nil
}

// look gives all that holds the modules. whole is false when a list changed under the
// look.
func (s *search) look(names []string) (list []found, whole bool) {
	s.names, s.owners, s.found, s.taken, s.Torn = names, map[uint64]string{}, nil, map[held]bool{}, false
	s.networks()
	return s.found, !s.Torn
}

// lacks says in words what could not be found out.
func (s *search) lacks() (list []string) {
	for _, field := range s.Unknown() {
		list = append(list, fmt.Sprintf("what is found by %s, which is %v", field, errors.ErrUnsupported))
	}
	return list
}

// hold notes that an object holds its owner, if that is one of the modules that are
// asked about. What is alike is one holder.
func (s *search) hold(owner uint64, by uint64, h unload.Holder) {
	target := s.target(owner)
	ref := held{by, string(h.Kind) + h.Detail}
	if target < 0 || s.taken[ref] {
		return
	}
	s.taken[ref] = true
	h.Refs, h.FD, h.Stack, h.Confidence = 1, -1, []string{}, unload.ByOwner
	for i := range s.found {
		if f := &s.found[i]; f.target == target && f.Kind == h.Kind && f.Path == h.Path && f.Detail == h.Detail {
			f.Refs++
			return
		}
	}
	s.found = append(s.found, found{target, h})
}

// target is the place of a module among those that are asked about, -1 if it is none.
func (s *search) target(owner uint64) int {
	if owner == 0 {
		return -1
	}
	name, ok := s.owners[owner]
	if !ok {
		name = s.At("module", owner).Text("name")
		s.owners[owner] = name
	}
	return slices.Index(s.names, name)
}
