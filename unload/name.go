package unload

import (
	"path"
	"strings"
)

// Underscored is a module's name as the kernel has it: "-" and "_" are the same to those
// who load modules (kernel/module/main.c calls it by its object file).
func Underscored(name string) string { return strings.ReplaceAll(name, "-", "_") }

// Matches says whether a module is among those that globs name; all are if none is given.
func Matches(globs []string, module string) bool {
	if len(globs) == 0 {
		return true
	}
	for _, glob := range globs {
		if ok, _ := path.Match(Underscored(glob), Underscored(module)); ok {
			return true
		}
	}
	return false
}
