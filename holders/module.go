package holders

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/modtrace/modtrace/unload"
)

// root is where /sys, /proc and the rest are found: "" but in tests.
type root string

func (r root) path(parts ...string) string {
	return filepath.Join(append([]string{string(r) + "/"}, parts...)...)
}

// States of a module that is not live.
const (
	builtIn = "built_in"
	live    = "live"
)

// module is what the kernel tells everybody of a module.
type module struct {
	name     string
	state    string // "" when it is not loaded
	refcount int64
	counted  bool     // the kernel counts references
	users    []string // modules that need it, by name
}

// module reads what /sys/module says (kernel/module/sysfs.c). To read /proc/modules
// one waits for module_mutex, which an unload that hangs may hold.
func (r root) module(name string) (module, error) {
	dir := r.path("sys/module", name)
	// What is built in has a directory too, without a state. So has, for a moment,
	// what is just being loaded or unloaded; that may last where it waits for a CPU.
	const looks, pause = 50, 10 * time.Millisecond
	for range looks {
		if _, err := os.Stat(dir); err != nil {
			return module{name: name}, ignore(err, fs.ErrNotExist)
		}
		m, err := readModule(dir)
		if !isGone(err) {
			m.name = name
			return m, err
		}
		if r.listedAsBuiltIn(name) {
			break
		}
		time.Sleep(pause)
	}
	return module{name: name, state: builtIn}, nil
}

// listedAsBuiltIn says that the kernel's build lists a module as built in
// (Documentation/kbuild/kbuild.rst, modules.builtin). It does not list all that have
// a directory in /sys/module, and need not be installed.
func (r root) listedAsBuiltIn(name string) bool {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return false
	}
	list, err := os.ReadFile(r.path("lib/modules", unix.ByteSliceToString(u.Release[:]), "modules.builtin"))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(list)) {
		if listed, err := Name(strings.TrimSpace(line)); err == nil && listed == name {
			return true
		}
	}
	return false
}

// isGone says that a file of a module is not there, or not any more.
func isGone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) }

// readModule reads the files of a module that can be unloaded. The error says so
// by isGone when it is none, or is none yet, or not any more.
func readModule(dir string) (m module, err error) {
	state, err := os.ReadFile(filepath.Join(dir, "initstate"))
	if err != nil {
		return m, fmt.Errorf("reading a module's state: %w", err)
	}
	m.state = strings.TrimSpace(string(state))
	count, err := os.ReadFile(filepath.Join(dir, "refcnt"))
	if err == nil {
		m.counted = true
		m.refcount, err = strconv.ParseInt(strings.TrimSpace(string(count)), 10, 64)
	}
	if err = ignore(err, fs.ErrNotExist); err != nil { // which is so where modules cannot be unloaded
		return m, fmt.Errorf("reading a module's count: %w", err)
	}
	users, err := os.ReadDir(filepath.Join(dir, "holders"))
	if err = ignore(err, fs.ErrNotExist); err != nil {
		return m, fmt.Errorf("reading a module's users: %w", err)
	}
	for _, u := range users {
		m.users = append(m.users, u.Name())
	}
	slices.Sort(m.users)
	return m, nil
}

func ignore(err, harmless error) error {
	if errors.Is(err, harmless) {
		return nil
	}
	return err
}

// order gives the modules to unload, in order, for that one to go: those that need
// it, and those that need these, before it. They are also its dependents, without
// itself.
func (r root) order(name string) ([]string, error) {
	var order []string
	seen := map[string]bool{}
	var visit func(string) error
	visit = func(name string) error {
		if seen[name] {
			return nil
		}
		seen[name] = true
		m, err := r.module(name)
		if err != nil {
			return err
		}
		for _, user := range m.users {
			if err := visit(user); err != nil {
				return err
			}
		}
		order = append(order, name)
		return nil
	}
	err := visit(name)
	return order, err
}

// patience is how long to wait for /proc/modules.
const patience = time.Second

// permanent says that a module has no exit function (kernel/module/procfs.c,
// print_unload_info). known is false when it could not be read in time.
func (r root) permanent(name string) (permanent, known bool) {
	read := make(chan []byte, 1)
	go func() {
		b, _ := os.ReadFile(r.path("proc/modules")) // nothing is as good as an error here
		read <- b
	}()
	select {
	case b := <-read:
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			if len(f) > 3 && f[0] == name {
				return strings.Contains(f[3], "[permanent]"), true
			}
		}
	case <-time.After(patience):
	}
	return false, false
}

// disabled says that no module can be unloaded any more (Documentation/admin-guide/
// sysctl/kernel.rst, modules_disabled).
func (r root) disabled() bool {
	b, err := os.ReadFile(r.path("proc/sys/kernel/modules_disabled"))
	return err == nil && strings.TrimSpace(string(b)) == "1"
}

// missing makes the answer for a name that no module has, with what may be meant.
func (r root) missing(name string) []string {
	entries, err := os.ReadDir(r.path("sys/module"))
	if err != nil {
		return nil
	}
	var similar []string
	for _, e := range entries {
		if d := distance(name, e.Name()); d <= max(1, len(name)/4) {
			similar = append(similar, e.Name())
		}
	}
	slices.SortFunc(similar, func(a, b string) int { return distance(name, a) - distance(name, b) })
	return similar[:min(len(similar), 3)]
}

// distance is how many letters must be put in, left out, changed or swapped with
// the next to make a of b.
func distance(a, b string) int {
	rows := [][]int{make([]int, len(b)+1)}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			changed := rows[i-1][j-1]
			if a[i-1] != b[j-1] {
				changed++
			}
			row[j] = min(changed, rows[i-1][j]+1, row[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], rows[i-2][j-2]+1)
			}
		}
		rows = append(rows, row)
	}
	return rows[len(a)][len(b)]
}

// Name is the kernel's name for what a user calls a module: a dash is an
// underscore, and a file's name stands for the module in it.
func Name(word string) (string, error) {
	name := word
	if strings.Contains(word, "/") || strings.Contains(word, ".ko") {
		name, _, _ = strings.Cut(filepath.Base(word), ".ko")
	}
	name = unload.Underscored(name)
	const longest = 55 // include/linux/moduleparam.h, MODULE_NAME_LEN
	if name == "" || name == "." || name == ".." || len(name) > longest || strings.ContainsFunc(name, odd) {
		return "", fmt.Errorf("%q is not a module's name", word)
	}
	return name, nil
}

func odd(r rune) bool { return r <= ' ' || r >= 0x7f || r == '/' }

// unloadsAtAll says whether the kernel can unload modules.
func unloadsAtAll(m module) bool { return m.state != live || m.counted }

// refusal is why a module cannot be unloaded, from what the kernel tells
// everybody.
func (r root) refusal(m module) (reason unload.Reason, missing []string) {
	switch {
	case m.state == "":
		return unload.ReasonNotFound, nil
	case m.state == builtIn:
		return unload.ReasonBuiltIn, nil
	case m.state == "coming":
		return unload.ReasonLoading, nil
	case m.state == "going":
		return unload.ReasonUnloading, nil
	case !unloadsAtAll(m):
		return unload.ReasonNoUnload, nil
	case r.disabled():
		return unload.ReasonModulesDisabled, nil
	}
	permanent, known := r.permanent(m.name)
	if !known {
		missing = append(missing, "whether it has an exit function: /proc/modules could not be read")
	}
	switch {
	case permanent:
		return unload.ReasonNoExit, missing
	case len(m.users) > 0:
		return unload.ReasonDependents, missing
	case m.refcount != 0:
		return unload.ReasonReferenced, missing
	}
	return unload.ReasonNone, missing
}
