package profile

import (
	"encoding/binary"

	"github.com/modtrace/modtrace/cause"
)

// labels are told apart besides the stack. Those that are "" are not there.
type labels struct{ phase, cause, module, blocker, host string }

// number is how many labels stand in a key, before the frames.
const number = 5

// names gives numbers to texts, which are as they were read: they are made fit to be
// shown when they are written.
type names struct {
	ids  map[string]uint64
	list []string
}

// longest bounds a name, in bytes; the kernel's are shorter (KSYM_NAME_LEN).
const longest = 512

// key makes one of labels and stack, or says that there is no room for its names.
func (d *document) key(l labels, stack []string) (string, bool) {
	key := make([]byte, 0, 64)
	ok := true
	add := func(name string) {
		if ok {
			var id uint64
			id, ok = d.number(name)
			key = binary.AppendUvarint(key, id)
		}
	}
	for _, text := range []string{l.phase, l.cause, l.module, l.blocker, l.host} {
		add(text)
	}
	for i, frame := range stack {
		if i == d.bounds.frames {
			add("(more)" + separator)
			break
		}
		add(cause.Function(frame) + separator + cause.Module(frame))
	}
	if len(stack) == 0 {
		add(stackless(l.cause) + separator)
	}
	return string(key), ok
}

// separator stands between a function and its module.
const separator = "\x00"

// stackless stands for a stack that is not known.
func stackless(cause string) string {
	if cause == "" {
		return "(not known)"
	}
	return "(" + cause + ")"
}

// number gives the number of a name, or says that there is no room for another.
func (d *document) number(name string) (uint64, bool) {
	name = name[:min(len(name), longest)]
	if id, ok := d.names.ids[name]; ok {
		return id, true
	}
	if d.weight+len(name) > d.bounds.weight || len(d.names.list) >= 4*d.bounds.samples {
		return 0, false
	}
	id := uint64(len(d.names.list))
	d.names.ids[name] = id
	d.names.list = append(d.names.list, name)
	d.weight += len(name)
	return id, true
}

// hosts is how many there are in the samples.
func (d *document) hosts() int {
	seen := map[uint64]bool{}
	for key := range d.samples {
		seen[parts(key)[number-1]] = true
	}
	return len(seen)
}

// parts gives the numbers that a key is made of.
func parts(key string) (all []uint64) {
	b := []byte(key)
	for len(b) > 0 {
		id, n := binary.Uvarint(b)
		all = append(all, id)
		b = b[n:]
	}
	return all
}
