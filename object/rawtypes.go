package object

import (
	"errors"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// rawTypes reads the running kernel's types in one go where that is permitted
// (CAP_SYS_ADMIN; since 5.11), or else from the file, which the kernel gives a page at
// a time: that takes a tenth of the time until a trace is ready.
func rawTypes() ([]byte, error) {
	if _, err := os.Stat(kernelTypesFile); err != nil {
		return nil, err
	}
	if raw, err := typesByNumber(); err == nil {
		return raw, nil
	}
	return os.ReadFile(kernelTypesFile)
}

// typesInfo is struct bpf_btf_info (include/uapi/linux/bpf.h).
type typesInfo struct {
	types    unsafe.Pointer
	size     uint32
	id       uint32
	name     unsafe.Pointer
	nameSize uint32
	kernel   uint32
}

// typesByNumber reads those of the first number, which are the kernel's own if it has
// looked at them before anything else was loaded.
func typesByNumber() ([]byte, error) {
	const first = 1
	byID := struct{ id, next, flags uint32 }{id: first}
	fd, err := bpfCall(unix.BPF_BTF_GET_FD_BY_ID, unsafe.Pointer(&byID), unsafe.Sizeof(byID))
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var name [8]byte // vmlinux
	info := typesInfo{name: unsafe.Pointer(&name), nameSize: uint32(len(name))}
	if err := typesInfoOf(fd, &info); err != nil {
		return nil, err
	}
	if info.kernel == 0 || unix.ByteSliceToString(name[:]) != "vmlinux" {
		return nil, errors.New("the first types are not the kernel's")
	}
	raw := make([]byte, info.size)
	info = typesInfo{types: unsafe.Pointer(&raw[0]), size: uint32(len(raw))}
	if err := typesInfoOf(fd, &info); err != nil {
		return nil, err
	}
	return raw, nil
}

func typesInfoOf(fd int, info *typesInfo) error {
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(info)
	if info.types != nil {
		pin.Pin(info.types)
	}
	if info.name != nil {
		pin.Pin(info.name)
	}
	attr := struct {
		fd, size uint32
		info     unsafe.Pointer
	}{uint32(fd), uint32(unsafe.Sizeof(*info)), unsafe.Pointer(info)}
	_, err := bpfCall(unix.BPF_OBJ_GET_INFO_BY_FD, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	return err
}

// bpfCall is bpf(2), made again when a signal has interrupted the verifier.
func bpfCall(command uintptr, attr unsafe.Pointer, size uintptr) (int, error) {
	for {
		n, _, errno := unix.Syscall(unix.SYS_BPF, command, uintptr(attr), size)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EAGAIN:
		default:
			return -1, errno
		}
	}
}
