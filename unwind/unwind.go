// Package unwind finds the frames that the kernel leaves out of the stack of a
// sleeping task: those of its scheduler, of which mutexes and completions are
// part (kernel/stacktrace.c, stack_trace_save_tsk), and the lock that it waits for. It
// reads the kernel's memory in /proc/kcore and changes nothing.
package unwind

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
)

// Memory is the kernel's, by address.
type Memory interface {
	Read(address uint64, b []byte) error
}

// Place is where a task left the CPU: its stack pointer and, on machines whose
// calls keep one, its frame pointer.
type Place struct{ SP, FP uint64 }

// Kernel knows how frames lie on the stacks of the running kernel.
type Kernel struct {
	memory Memory
	orc    *orc                 // nil where frames are linked by their pointers
	find   func() (*orc, error) // does so once it is needed: it takes a tenth of a second
	// switched reads where a task goes on when it is switched to.
	switched func(Memory, Place) (frame, error)
}

// frame is the state of a walk from callee to caller.
type frame struct{ ip, sp, fp uint64 }

// Open prepares for the running kernel. It takes CAP_SYS_RAWIO, and CAP_SYSLOG
// for the addresses of symbols.
func Open() (*Kernel, error) {
	m, err := openCore("/proc/kcore")
	if err != nil {
		return nil, fmt.Errorf("reading the kernel's memory: %w", err)
	}
	k := &Kernel{memory: m, switched: switchedARM64}
	if runtime.GOARCH == "amd64" {
		k.switched, k.find = switchedX86, findORC
	}
	return k, nil
}

// Close lets go of the kernel's memory.
func (k *Kernel) Close() error {
	if c, ok := k.memory.(*core); ok {
		return c.Close()
	}
	return nil
}

// Bounds of a walk: frames of the scheduler are few and small.
const (
	maxFrames = 24
	maxBytes  = 16384
)

var errLost = errors.New("the stack leads elsewhere")

// Until gives the frames of a sleeping task, innermost first, that are within
// the one whose address is known. A walk that does not arrive there gives an
// error and no frames.
func (k *Kernel) Until(at Place, known uint64) ([]uint64, error) {
	if k.find != nil {
		var err error
		if k.orc, err = k.find(); err != nil {
			return nil, err
		}
		k.find = nil
	}
	f, err := k.switched(k.memory, at)
	var list []uint64
	for err == nil && len(list) < maxFrames {
		if f.ip == known {
			return list, nil
		}
		list = append(list, f.ip)
		last := f.sp
		if f, err = k.caller(f); err == nil && (f.sp <= last || f.sp-at.SP > maxBytes) {
			err = errLost
		}
	}
	if err == nil {
		err = errLost
	}
	return nil, err
}

func (k *Kernel) caller(f frame) (frame, error) {
	if k.orc != nil {
		return k.orc.caller(k.memory, f)
	}
	return linked(k.memory, f)
}

// linked goes by the frame pointer, where the caller's lies and above it the
// address to return to.
func linked(m Memory, f frame) (frame, error) {
	words, err := read(m, f.fp, 2)
	if err != nil {
		return frame{}, err
	}
	return frame{ip: plain(words[1]), sp: f.fp + 16, fp: words[0]}, nil
}

// plain takes off what signs an address (Documentation/arch/arm64/
// pointer-authentication.rst); addresses of kernel code have these bits set.
func plain(address uint64) uint64 {
	const signature = 0xffff << 48
	if runtime.GOARCH == "arm64" {
		address |= signature
	}
	return address
}

// switchedX86 reads what __switch_to_asm has pushed
// (arch/x86/include/asm/switch_to.h, struct inactive_task_frame).
func switchedX86(m Memory, at Place) (frame, error) {
	const words, bp, ip = 7, 5, 6
	saved, err := read(m, at.SP, words)
	if err != nil {
		return frame{}, err
	}
	return frame{ip: saved[ip], sp: at.SP + words*8, fp: saved[bp]}, nil
}

// switchedARM64 begins in the caller of cpu_switch_to, whose frame the pointer
// leads to (arch/arm64/include/asm/processor.h, struct cpu_context).
func switchedARM64(m Memory, at Place) (frame, error) {
	return linked(m, frame{fp: at.FP})
}

func read(m Memory, address uint64, n int) ([]uint64, error) {
	b := make([]byte, 8*n)
	if err := m.Read(address, b); err != nil {
		return nil, err
	}
	words := make([]uint64, n)
	for i := range words {
		words[i] = binary.NativeEndian.Uint64(b[8*i:])
	}
	return words, nil
}
