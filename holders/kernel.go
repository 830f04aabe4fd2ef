package holders

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/modtrace/modtrace/bpf"
	"github.com/modtrace/modtrace/object"
)

// kernel looks for references inside the kernel.
type kernel struct {
	object *object.Object
	// descriptors goes over open files without holding any; files, which does, is for
	// kernels that cannot (before 5.17) or do not permit that.
	descriptors, files *link.Iter
	mappings           *link.Iter
	superblocks, disks *link.Iter
	lacks              []string // in words, what this kernel does not show
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
	if k.object.CanProbe {
		k.descriptors, _ = k.object.Iterate(bpf.HoldersProgDescriptors, "task") // there is another way
	}
	if k.descriptors == nil {
		if k.files, err = k.object.Iterate(bpf.HoldersProgFiles, "task_file"); err != nil {
			return nil, errors.Join(object.Explain("looking through open files", err), k.close())
		}
	}
	// Since 5.12.
	if k.mappings, err = k.object.Iterate(bpf.HoldersProgMappings, "task_vma"); err != nil {
		k.lacks = append(k.lacks, "files that are mapped and not open: "+object.Shortly(err))
	}
	if !k.object.CanProbe {
		k.lacks = append(k.lacks, "sockets, terminals, disks, mounts and what only the kernel lists: it is locked down (confidentiality)")
	} else if k.superblocks, err = k.object.Iterate(bpf.HoldersProgSuperblocks, "task"); err != nil {
		k.lacks = append(k.lacks, "mounts: "+object.Shortly(err))
	} else if k.disks, err = k.object.Iterate(bpf.HoldersProgDisks, "task"); err != nil {
		k.lacks = append(k.lacks, "who has disks open inside the kernel: "+object.Shortly(err))
	}
	k.object.Forget()
	return k, nil
}

func (k *kernel) close() error { return k.object.Close() }

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
