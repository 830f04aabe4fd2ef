package holders

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/modtrace/modtrace/bpf"
	"github.com/modtrace/modtrace/object"
	"github.com/modtrace/modtrace/unload"
)

// kernel looks for references inside the kernel.
type kernel struct {
	object *object.Object
	// descriptors goes over open files without holding any; files, which does, is for
	// kernels that cannot (before 5.17) or do not permit that.
	descriptors, files *link.Iter
	// name finds out where a file is, without holding it either.
	name               *ebpf.Program
	mappings           *link.Iter
	superblocks, disks *link.Iter
	plan               []unload.Hook
	lacks              []string // in words, what this kernel does not show of some modules
}

// openKernel loads the programs that look. The error is an [*object.Unable] when
// the machine is at fault.
func openKernel(btfFile string) (*kernel, error) {
	if err := object.Preflight(btfFile); err != nil {
		return nil, err
	}
	spec, err := bpf.LoadHolders()
	if err != nil {
		return nil, fmt.Errorf("reading the BPF object: %w", err)
	}
	k := &kernel{}
	if k.object, err = object.Open(spec, btfFile); err != nil {
		return nil, err
	}
	if err := spec.Variables[bpf.HoldersVarCanProbe].Set(k.object.CanProbe); err != nil {
		return nil, fmt.Errorf("setting can_probe: %w", err)
	}
	if err := k.object.CreateMaps(); err != nil {
		return nil, err
	}
	if err := k.prepareFiles(); err != nil {
		return nil, errors.Join(err, k.close())
	}
	k.prepareLists()
	k.object.Forget()
	return k, nil
}

// prepareFiles has open files looked through: without that nothing is known.
func (k *kernel) prepareFiles() (err error) {
	const sees = "who has files open, and what these lead to"
	if k.object.CanProbe {
		k.descriptors, _ = k.object.Iterate(bpf.HoldersProgDescriptors, "task") // there is another way
	}
	if k.descriptors != nil {
		k.note(sees, "task", object.Iterator, "")
		if k.name, err = k.object.Load(object.Candidate{Program: bpf.HoldersProgName, Mechanism: object.Run}); err != nil {
			return object.Explain("finding out where open files are", err)
		}
		return nil
	}
	reason := lockedDown
	if k.object.CanProbe {
		reason = "the kernel does not take a program that loops over descriptors" // it does since 5.17
	}
	if k.files, err = k.object.Iterate(bpf.HoldersProgFiles, "task_file"); err != nil {
		return object.Explain("looking through open files", err)
	}
	k.note(sees, "task_file", object.Iterator, "")
	last := &k.plan[len(k.plan)-1]
	last.Status, last.Reason = unload.StatusFallback, reason+"; a file that is closed while it is looked at stays open until the look is over"
	return nil
}

const lockedDown = "the kernel is locked down (confidentiality)"

// prepareLists has the kernel's lists followed, as far as it permits.
func (k *kernel) prepareLists() {
	iterate := func(sees, program, over string) *link.Iter {
		it, err := k.object.Iterate(program, over)
		reason := ""
		if err != nil {
			reason = object.Shortly(err)
		}
		k.note(sees, over, object.Iterator, reason)
		return it
	}
	k.mappings = iterate("files that are mapped and not open", bpf.HoldersProgMappings, "task_vma") // since 5.12
	if !k.object.CanProbe {
		k.note("sockets, terminals, disks, mounts and what only the kernel lists", "task", object.Iterator, lockedDown)
		return
	}
	if k.superblocks = iterate("mounts", bpf.HoldersProgSuperblocks, "task"); k.superblocks != nil {
		k.disks = iterate("who has disks open inside the kernel", bpf.HoldersProgDisks, "task")
	}
}

// note notes by which means something is seen, or why it is not.
func (k *kernel) note(sees, function, mechanism, reason string) {
	h := unload.Hook{Sees: sees, Function: function, Mechanism: mechanism, Status: unload.StatusOK, Reason: reason}
	if reason != "" {
		h.Mechanism, h.Status = "", unload.StatusMissing
	}
	k.plan = append(k.plan, h)
}

// missing says in words what cannot be seen on this kernel.
func (k *kernel) missing() []string {
	list := slices.Clone(k.lacks)
	for _, h := range k.plan {
		if h.Status == unload.StatusMissing {
			list = append(list, h.Sees+": "+h.Reason)
		}
	}
	return list
}

func (k *kernel) close() error {
	err := k.object.Close()
	if k.name != nil {
		err = errors.Join(err, k.name.Close())
	}
	return err
}

// ask says which modules are looked for, by their place in the list.
func (k *kernel) ask(names []string) error {
	targets := k.object.Maps[bpf.HoldersMapTargets]
	for i, name := range names {
		var key [56]byte
		copy(key[:len(key)-1], name)
		if err := targets.Put(key, uint32(i)); err != nil {
			return fmt.Errorf("asking for %s: %w", name, err)
		}
	}
	return nil
}

// forget ends an ask.
func (k *kernel) forget(names []string) error {
	var errs []error
	for _, name := range names {
		var key [56]byte
		copy(key[:len(key)-1], name)
		errs = append(errs, k.object.Maps[bpf.HoldersMapTargets].Delete(key))
	}
	return errors.Join(errs...)
}

// look gives all that holds the modules. whole is false when a list changed under
// the look.
func (k *kernel) look(names []string) (found []bpf.HoldersHolding, whole bool, err error) {
	if err := k.ask(names); err != nil {
		return nil, false, err
	}
	defer func() { err = errors.Join(err, k.forget(names)) }()
	if found, err = k.lookThroughFiles(); err != nil {
		return nil, false, err
	}
	if k.mappings != nil {
		mapped, err := readAll(k.mappings)
		if err != nil {
			return nil, false, err
		}
		found = append(found, mapped...)
	}
	mounted, whole, err := k.lookForMounts()
	return append(found, mounted...), whole, err
}

// lookThroughFiles goes over all open files: at once over so many of each process as
// the kernel gives room for. What is found twice is so for who looks at it.
func (k *kernel) lookThroughFiles() (found []bpf.HoldersHolding, err error) {
	if k.descriptors == nil {
		return readAll(k.files)
	}
	const none = ^uint32(0) // NO_DESCRIPTOR
	from, next := k.object.Vars[bpf.HoldersVarFromDescriptor], k.object.Vars[bpf.HoldersVarNextDescriptor]
	for first := uint32(0); first != none; {
		if err := errors.Join(from.Set(first), next.Set(none)); err != nil {
			return nil, fmt.Errorf("looking through files: %w", err)
		}
		some, err := readAll(k.descriptors)
		if err != nil {
			return nil, err
		}
		found = append(found, some...)
		if err := next.Get(&first); err != nil {
			return nil, fmt.Errorf("looking through files: %w", err)
		}
	}
	return found, nil
}

// unowned gives the open files whose operations lie in a module's memory and name no
// owner, so that they do not hold it.
func (k *kernel) unowned(in []span) (found []bpf.HoldersHolding, err error) {
	var spans, none [8]bpf.HoldersSpan // SPANS
	for i, s := range in[:min(len(in), len(spans))] {
		spans[i].From, spans[i].To = s.from, s.to
	}
	return k.only(bpf.HoldersWayWAY_UNOWNED, bpf.HoldersVarSpans, &spans, &none)
}

// openers gives the open files of a BPF program or of its link, by their addresses.
func (k *kernel) openers(program, link uint64) (found []bpf.HoldersHolding, err error) {
	return k.only(bpf.HoldersWayWAY_SOUGHT, bpf.HoldersVarSought, &[2]uint64{program, link}, &[2]uint64{})
}

// only gives the open files that are found in one way when a variable says what to look
// for.
func (k *kernel) only(way bpf.HoldersWay, variable string, wanted, nothing any) (found []bpf.HoldersHolding, err error) {
	v := k.object.Vars[variable]
	if err := v.Set(wanted); err != nil {
		return nil, fmt.Errorf("looking through files: %w", err)
	}
	defer func() { err = errors.Join(err, v.Set(nothing)) }()
	all, err := k.lookThroughFiles()
	return slices.DeleteFunc(all, func(r bpf.HoldersHolding) bool { return bpf.HoldersWay(r.Way) != way }), err
}

// path is where an open file is, in the words of /proc (fs/d_path.c). It is errGone when
// everybody has closed it.
func (k *kernel) path(file uint64) (string, error) {
	if _, err := k.name.Run(&ebpf.RunOptions{Context: []uint64{file, 0}}); err != nil {
		return "", fmt.Errorf("finding out where a file is: %w", err)
	}
	var n bpf.HoldersNamed
	if err := k.object.Vars[bpf.HoldersVarNamed].Get(&n); err != nil {
		return "", fmt.Errorf("finding out where a file is: %w", err)
	}
	if n.Closed != 0 {
		return "", errGone
	}
	return pathOfNamed(&n), nil
}

// pathOfNamed writes down what was found out. Names that a file system makes up are
// made here again.
func pathOfNamed(n *bpf.HoldersNamed) string {
	path := string(n.Path[min(n.Begins, pathSize):pathSize])
	if n.MadeUp != 0 {
		switch name, typ := strings.TrimPrefix(path, "/"), unix.ByteSliceToString(n.Type[:]); typ {
		case "sockfs":
			return fmt.Sprintf("socket:[%d]", n.Inode)
		case "pipefs":
			return fmt.Sprintf("pipe:[%d]", n.Inode)
		case "anon_inodefs":
			return "anon_inode:" + name
		default:
			return typ + ":" + name
		}
	}
	switch {
	case n.Whole == 0:
		path = "..." + path
	case path == "":
		path = "/"
	}
	if n.Deleted != 0 {
		path += " (deleted)"
	}
	return path
}

const pathSize = 256 // PATH_SIZE

// lookForMounts follows the list of superblocks, and that of disks, which it leads
// to. whole is false when one was not followed to its end, since it changed.
func (k *kernel) lookForMounts() (found []bpf.HoldersHolding, whole bool, err error) {
	if k.superblocks == nil {
		return nil, true, nil
	}
	vars := k.object.Vars
	err = errors.Join(vars[bpf.HoldersVarFirstSuperblock].Set(uint64(0)), vars[bpf.HoldersVarLastDisk].Set(uint64(0)))
	if err != nil {
		return nil, false, fmt.Errorf("looking for mounts: %w", err)
	}
	found, whole, err = follow(k.superblocks, vars[bpf.HoldersVarNextSuperblock])
	if err != nil || k.disks == nil {
		return found, whole, err
	}
	disks, all, err := follow(k.disks, vars[bpf.HoldersVarNextDisk])
	return append(found, disks...), whole && all, err
}

// follow has a list followed to its end, where next is 0.
func follow(it *link.Iter, next *ebpf.Variable) (found []bpf.HoldersHolding, whole bool, err error) {
	const most = 1000 // as often as it is gone over the tasks
	for range most {
		some, err := readAll(it)
		if err != nil {
			return nil, false, err
		}
		found = append(found, some...)
		var entry uint64
		if err := next.Get(&entry); err != nil || entry == 0 {
			return found, err == nil, err
		}
	}
	return found, false, nil
}

func readAll(it *link.Iter) ([]bpf.HoldersHolding, error) {
	all, err := object.Records[bpf.HoldersHolding](it)
	if err != nil {
		return nil, fmt.Errorf("looking for holders: %w", err)
	}
	return all, nil
}
