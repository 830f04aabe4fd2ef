package tracer

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/modtrace/modtrace/object"
)

// attachToEach attaches a program to each callback that was on a chain, by its
// address: two callbacks may have one name.
func attachToEach(callbacks []uint64, prog *ebpf.Program) (*kprobes, error) {
	kind, err := kprobeEvents()
	if err != nil {
		return nil, err
	}
	k := &kprobes{}
	for _, address := range callbacks {
		fd, err := kprobeAt(kind, address, prog)
		if err != nil {
			k.refused = append(k.refused, err)
			continue
		}
		k.events = append(k.events, fd)
	}
	if len(k.events) == 0 {
		return nil, fmt.Errorf("%d callbacks cannot be probed: %w", len(callbacks), errors.Join(k.refused...))
	}
	return k, nil
}

// readChain gives the addresses of the functions on the module notifier chain.
func (l *loader) readChain() ([]uint64, error) {
	if !l.CanProbe {
		return nil, object.ErrNoTarget
	}
	l.locate()
	var head uint64
	if err := l.Vars["module_chain"].Get(&head); err != nil {
		return nil, err
	}
	if head == 0 {
		return nil, unix.EPERM // everybody's kallsyms are 0 without CAP_SYSLOG
	}
	walk, err := l.Load(object.Candidate{Program: "read_chain", Mechanism: object.Run})
	if err != nil {
		return nil, err
	}
	defer walk.Close()
	if _, err := walk.Run(&ebpf.RunOptions{}); err != nil {
		return nil, err
	}
	var chain []uint64
	all := make([]uint64, l.Vars["chain"].Size()/8)
	if err := l.Vars["chain"].Get(all); err != nil {
		return nil, err
	}
	for _, address := range all {
		if address != 0 {
			chain = append(chain, address)
		}
	}
	return chain, nil
}

// kprobes are events in the kernel, by their descriptors.
type kprobes struct {
	events  []int
	refused []error // those that could not be made
}

// lacks says how many are missing, "" when none is: the kernel refuses those on
// functions that its own tracing is made of (CONFIG_KPROBE_EVENTS_ON_NOTRACE).
func (k *kprobes) lacks() string {
	if len(k.refused) == 0 {
		return ""
	}
	return fmt.Sprintf("%d of %d callbacks %s and count into the one before them",
		len(k.refused), len(k.refused)+len(k.events), object.Shortly(k.refused[0]))
}

// Close takes the program off them.
func (k *kprobes) Close() error {
	var errs []error
	for _, fd := range k.events {
		errs = append(errs, unix.Close(fd))
	}
	return errors.Join(errs...)
}

// kprobeEvents is the type of events that are kprobes (Documentation/ABI/testing/
// sysfs-bus-event_source-devices).
func kprobeEvents() (uint32, error) {
	b, err := os.ReadFile("/sys/bus/event_source/devices/kprobe/type")
	if err != nil {
		return 0, object.ErrNoTarget
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 32)
	return uint32(n), err
}

// kprobeAt attaches a program to an address, which libraries do by name only
// (perf_event_open(2), kprobe_addr).
func kprobeAt(kind uint32, address uint64, prog *ebpf.Program) (int, error) {
	attr := unix.PerfEventAttr{Type: kind, Size: unix.PERF_ATTR_SIZE_VER1, Ext2: address}
	const anyTask, firstCPU, noGroup = -1, 0, -1 // it fires on all processors
	fd, err := unix.PerfEventOpen(&attr, anyTask, firstCPU, noGroup, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return -1, err
	}
	err = unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_SET_BPF, prog.FD())
	if err == nil {
		err = unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_ENABLE, 0)
	}
	if err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}
