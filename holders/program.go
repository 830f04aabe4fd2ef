package holders

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/modtrace/modtrace/memory"
	"github.com/modtrace/modtrace/procfs"
	"github.com/modtrace/modtrace/unload"
)

func programTypes() []string {
	return []string{
		"files_struct", "fdtable", "file", "bpf_prog", "bpf_prog_aux", "btf_mod_pair", "bpf_kfunc_btf_tab",
		"bpf_kfunc_btf", "bpf_link", "bpf_tracing_link", "bpf_trampoline", "bpf_kprobe_multi_link",
		"bpf_raw_tp_link",
	}
}

// programs are those of BPF that are loaded, and the links by which they are attached.
// The kernel gives a descriptor of each, by which it is found among what this process
// has open.
func (s *search) programs() {
	s.numbered("BPF programs", unix.BPF_PROG_GET_NEXT_ID, unix.BPF_PROG_GET_FD_BY_ID, func(object uint64) {
		s.program(s.At("bpf_prog", object).Follow("aux", "bpf_prog_aux"))
	})
	s.numbered("BPF links", unix.BPF_LINK_GET_NEXT_ID, unix.BPF_LINK_GET_FD_BY_ID, s.link)
}

// numbered looks at all objects of BPF's of a kind (bpf(2)).
func (s *search) numbered(what string, next, open uintptr, look func(object uint64)) {
	for id := uint32(0); ; {
		attributes := [3]uint32{id}
		if _, err := bpfCall(next, &attributes); err != nil {
			if !errors.Is(err, unix.ENOENT) {
				s.unseen = append(s.unseen, fmt.Sprintf("%s: %v", what, err))
			}
			return
		}
		id = attributes[1]
		attributes = [3]uint32{id}
		fd, err := bpfCall(open, &attributes)
		if err != nil {
			continue // it is gone
		}
		look(s.opened(fd).Uint("private_data"))
		s.Torn = unix.Close(fd) != nil || s.Torn
	}
}

func bpfCall(command uintptr, attributes *[3]uint32) (int, error) {
	fd, _, errno := unix.Syscall(unix.SYS_BPF, command, uintptr(unsafe.Pointer(attributes)), unsafe.Sizeof(*attributes))
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}

// eventOperations is where the operations of perf events are: those of one that this
// process opens for a moment, and that counts nothing.
func (s *search) eventOperations() (uint64, error) {
	event := unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_DUMMY, Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{}))}
	fd, err := unix.PerfEventOpen(&event, 0, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return 0, fmt.Errorf("opening a perf event: %w", err)
	}
	defer unix.Close(fd)
	return s.opened(fd).Uint("f_op"), nil
}

// opened is a file that this process has open.
func (s *search) opened(fd int) memory.Value {
	table := s.Task().Follow("files", "files_struct").Follow("fdt", "fdtable")
	return s.At("file", s.Pointers(table.Uint("fd")+8*uint64(fd), 1)[0])
}

// program holds the module whose function it was loaded for (kernel/bpf/verifier.c,
// bpf_check_attach_target; since 6.3), and those whose variables and functions it uses.
func (s *search) program(aux memory.Value) {
	held := func(owner, by uint64, what string) { s.holdBPF(owner, by, aux, 0, what) }
	if s.Knows("bpf_prog_aux", "mod") {
		held(aux.Uint("mod"), aux.Address, "is for a function of it")
	}
	if s.Knows("bpf_prog_aux", "used_btfs") { // since 5.11
		used := aux.Uint("used_btfs")
		for range min(aux.Uint("used_btf_cnt"), 1<<10) {
			pair := s.At("btf_mod_pair", used)
			held(pair.Uint("module"), used, "uses its variables")
			used = pair.End()
		}
	}
	if !s.Knows("bpf_prog_aux", "kfunc_btf_tab") { // since 5.16
		return
	}
	functions := aux.Follow("kfunc_btf_tab", "bpf_kfunc_btf_tab")
	at := functions.Part("descs")
	for range min(functions.Uint("nr_descs"), 1<<10) {
		f := s.At("bpf_kfunc_btf", at)
		held(f.Uint("module"), at, "calls its functions")
		at = f.End()
	}
}

// link holds the module whose functions it is attached to: up to 6.2 one of fentry's
// by what they share for a function (kernel/bpf/trampoline.c, bpf_trampoline_module_get),
// one to many functions by itself (kernel/trace/bpf_trace.c, get_modules_for_addrs), one to
// a tracepoint as well (bpf_get_raw_tracepoint_module).
func (s *search) link(object uint64) {
	const rawTracepoint, tracing, kprobeMulti = 1, 2, 8 // include/uapi/linux/bpf.h, enum bpf_link_type
	link := s.At("bpf_link", object)
	aux := link.Follow("prog", "bpf_prog").Follow("aux", "bpf_prog_aux")
	switch link.Uint("type") {
	case rawTracepoint:
		at := s.At("bpf_raw_tp_link", object).Uint("btp")
		for target, name := range s.names {
			if within(s.spansOf(name), at) {
				s.holdTarget(target, object, s.byBPF(aux, object, "is attached to a tracepoint of it"))
			}
		}
	case tracing:
		if s.Knows("bpf_trampoline", "mod") {
			shared := s.At("bpf_tracing_link", object).Follow("trampoline", "bpf_trampoline")
			s.holdBPF(shared.Uint("mod"), shared.Address, aux, object, "is attached to a function of it")
		}
	case kprobeMulti:
		multi := s.At("bpf_kprobe_multi_link", object)
		for i, owner := range s.Pointers(multi.Uint("mods"), int(min(multi.Uint("mods_cnt"), 1<<10))) {
			s.holdBPF(owner, object+uint64(i), aux, object, "is attached to functions of it")
		}
	}
}

func (s *search) holdBPF(owner, by uint64, aux memory.Value, link uint64, what string) {
	if target := s.target(owner); target >= 0 {
		s.holdTarget(target, by, s.byBPF(aux, link, what))
	}
}

// byBPF is a BPF program, with somebody who has it or its link open.
func (s *search) byBPF(aux memory.Value, link uint64, what string) unload.Holder {
	h := unload.Holder{
		Kind: unload.HolderBPF, Path: aux.Text("name"),
		Detail: fmt.Sprintf("BPF program %d, %s", aux.Uint("id"), what),
	}
	open, err := s.openers(aux.Uint("prog"), link)
	if err != nil {
		s.unseen = append(s.unseen, fmt.Sprintf("who has BPF program %d open: %v", aux.Uint("id"), err))
	}
	for _, r := range open {
		if pid := int(r.Pid); pid != os.Getpid() {
			h.PID, h.Comm, h.Cgroup = pid, unix.ByteSliceToString(r.Comm[:]), procfs.Cgroup(s.path("proc", fmt.Sprint(pid)))
			h.Container = containerOf(h.Cgroup)
			break
		}
	}
	return h
}
