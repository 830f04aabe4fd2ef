package holders

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/modtrace/modtrace/bpf"
	"github.com/modtrace/modtrace/unload"
)

// trail says how a module that gives files or sockets holds another one for each of
// them, whose driver stands behind it: from what it keeps of it, by its own types.
type trail struct {
	module string // that gives the files, or whose socket operations they are
	from   string // the type of what it keeps
	fields string
	kind   unload.HolderKind
	fact   string
}

// trails are those that are known. A wrong one finds nothing: what it leads to must
// be a module that is asked about.
func trails() []trail {
	return []trail{
		// sound/core/pcm_native.c, snd_pcm_open; control.c, rawmidi.c, hwdep.c, timer.c
		{"snd_pcm", "snd_pcm_file", "substream.pcm.card.module", unload.HolderSound, "its sound card"},
		{"snd", "snd_ctl_file", "card.module", unload.HolderSound, "its sound card"},
		{"snd_rawmidi", "snd_rawmidi_file", "rmidi.card.module", unload.HolderSound, "its sound card"},
		{"snd_hwdep", "snd_hwdep", "card.module", unload.HolderSound, "its sound card"},
		{"snd_timer", "snd_timer_user", "timeri.timer.module", unload.HolderSound, "its timer"},
		// net/vmw_vsock/af_vsock.c, vsock_assign_transport
		{"vsock", "vsock_sock", "transport.module", unload.HolderSocket, "its transport"},
		// crypto/af_alg.c, alg_bind
		{"af_alg", "alg_sock", "type.owner", unload.HolderCrypto, "its kind of algorithm"},
	}
}

// trailOf is the trail that begins at a module.
func trailOf(module string) trail {
	for _, t := range trails() {
		if t.module == module {
			return t
		}
	}
	return trail{}
}

// followTrails has the trails followed whose modules are loaded. That takes a while
// to prepare, so it is left until something is not explained without.
func (k *kernel) followTrails() error {
	found := false
	for _, t := range trails() {
		if _, err := os.Stat("/sys/module/" + t.module); err != nil {
			continue
		}
		value, err := t.resolve()
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, ebpf.ErrNotSupported) {
			k.lacks = append(k.lacks, fmt.Sprintf("what is held behind %s: the kernel does not describe its types", t.module))
			continue
		}
		if err != nil {
			k.lacks = append(k.lacks, fmt.Sprintf("what %s holds: %v", t.module, err))
			continue
		}
		var key [56]byte
		copy(key[:len(key)-1], t.module)
		if err := k.object.Maps[bpf.HoldersMapTrails].Put(key, value); err != nil {
			return fmt.Errorf("setting trails: %w", err)
		}
		found = true
	}
	return k.object.Vars[bpf.HoldersVarHasTrails].Set(found)
}

// resolve finds the offsets in the types of the module that is loaded.
func (t trail) resolve() (bpf.HoldersTrail, error) {
	var steps bpf.HoldersTrail
	spec, err := btf.LoadKernelModuleSpec(t.module)
	if err != nil {
		return steps, fmt.Errorf("reading its types: %w", err)
	}
	var at *btf.Struct
	if err := spec.TypeByName(t.from, &at); err != nil {
		return steps, err
	}
	for _, name := range strings.Split(t.fields, ".") {
		if at == nil || int(steps.Steps) == len(steps.Offset) {
			return steps, fmt.Errorf("no %s in %s", t.fields, t.from)
		}
		offset, typ, err := field(at, name)
		if err != nil {
			return steps, err
		}
		steps.Offset[steps.Steps] = offset
		steps.Steps++
		at = pointee(typ)
	}
	return steps, nil
}

var errNoField = errors.New("no such field")

// field finds a field of a struct, also in what has no name of its own in it.
func field(s *btf.Struct, name string) (offset uint32, typ btf.Type, err error) {
	for _, m := range s.Members {
		if m.Name == name {
			return m.Offset.Bytes(), m.Type, nil
		}
		if m.Name != "" {
			continue
		}
		inner, ok := m.Type.(*btf.Struct)
		if u, isUnion := m.Type.(*btf.Union); isUnion {
			inner, ok = &btf.Struct{Members: u.Members}, true
		}
		if ok {
			if offset, typ, err := field(inner, name); err == nil {
				return m.Offset.Bytes() + offset, typ, nil
			}
		}
	}
	return 0, nil, fmt.Errorf("%w: %s.%s", errNoField, s.Name, name)
}

// pointee is the struct that a type is a pointer to, nil if it is none.
func pointee(typ btf.Type) *btf.Struct {
	p, ok := btf.As[*btf.Pointer](typ)
	if !ok {
		return nil
	}
	s, _ := btf.As[*btf.Struct](p.Target)
	return s
}
