package holders

import (
	"errors"
	"path/filepath"

	"github.com/modtrace/modtrace/object"
	"github.com/modtrace/modtrace/unload"
)

// Inspect says by which means holders would be found on this kernel, and what would not
// be. btf is as in [Open].
func Inspect(btf string) (plan []unload.Hook, err error) {
	f, err := Open(btf)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if f.Unable != nil {
		return []unload.Hook{{Sees: "who holds a module", Required: true, Status: unload.StatusMissing, Reason: f.Unable.What}}, nil
	}
	f.canSearch()
	if described, known := f.describesModules(); known {
		reason := ""
		if !described {
			reason = "the types of no module that is loaded are described"
		}
		f.kernel.note("what modules list by types of their own", "/sys/kernel/btf", object.Run, reason)
	}
	return f.kernel.plan, nil
}

// describesModules says whether the kernel describes the types of its modules (since
// 5.11, with CONFIG_DEBUG_INFO_BTF_MODULES). It is not known when none is loaded.
func (r root) describesModules() (described, known bool) {
	loaded, err := filepath.Glob(r.path("sys/module/*/initstate"))
	if err != nil || len(loaded) == 0 {
		return false, false
	}
	all, err := filepath.Glob(r.path("sys/kernel/btf/*"))
	return len(all) > 1, err == nil // besides the kernel's own
}
