package memory

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/modtrace/modtrace/bpf"
	"github.com/modtrace/modtrace/object"
)

// kernel is the running one.
type kernel struct {
	object  *object.Object
	program *ebpf.Program
	copied  *ebpf.Variable
	last    bpf.MemoryCopied
}

func openKernel(btfFile string, types []string) (*kernel, *object.Object, error) {
	spec, err := bpf.LoadMemory()
	if err != nil {
		return nil, nil, fmt.Errorf("reading the BPF object: %w", err)
	}
	k := &kernel{}
	if k.object, err = object.Open(spec, btfFile, types...); err != nil {
		return nil, nil, err
	}
	if err := k.object.CreateMaps(); err != nil {
		return nil, nil, err
	}
	k.copied = k.object.Vars[bpf.MemoryVarCopied]
	k.program, err = k.object.Load(object.Candidate{Program: bpf.MemoryProgCopy, Mechanism: object.Run})
	if err != nil {
		return nil, nil, errors.Join(object.Explain("reading the kernel's memory", err), k.object.Close())
	}
	if _, err := k.task(); err != nil {
		return nil, nil, errors.Join(object.Explain("reading the kernel's memory", err), k.Close())
	}
	return k, k.object, nil
}

func (k *kernel) Close() error { return errors.Join(k.program.Close(), k.object.Close()) }

func (k *kernel) task() (uint64, error) {
	if err := k.run(0, 0); err != nil {
		return 0, err
	}
	return k.last.Task, nil
}

func (k *kernel) copyOut(address uint64, into []byte) error {
	for len(into) > 0 {
		some := into[:min(len(into), len(k.last.Bytes))]
		if err := k.run(address, uint64(len(some))); err != nil {
			return err
		}
		copy(into, k.last.Bytes[:])
		into, address = into[len(some):], address+uint64(len(some))
	}
	return nil
}

var errFault = errors.New("there is no memory there")

// run has the kernel copy, on the thread that asks.
func (k *kernel) run(address, size uint64) error {
	result, err := k.program.Run(&ebpf.RunOptions{Context: []uint64{address, size}})
	if err != nil {
		return err
	}
	if result != 0 {
		return errFault
	}
	return k.copied.Get(&k.last)
}
