// Package holders says who holds a kernel module now: other modules, open files,
// mappings, mounts, sockets, terminals and disks, found by the owner that the
// kernel notes in each, and accounted for against the module's reference count.
//
// It only looks: it takes no reference, loads nothing into a module and asks for no
// unload. What the machine does meanwhile is told apart by looking again.
package holders
