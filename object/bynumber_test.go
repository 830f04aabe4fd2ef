package object

import (
	"testing"
	"unsafe"
)

// TestProgramAttributes holds the layout against the kernel's, in which
// attach_btf_id lies at 108 (include/uapi/linux/bpf.h).
func TestProgramAttributes(t *testing.T) {
	var attr programAttributes
	for name, at := range map[string][2]uintptr{
		"license":              {unsafe.Offsetof(attr.license), 16},
		"prog_name":            {unsafe.Offsetof(attr.name), 48},
		"expected_attach_type": {unsafe.Offsetof(attr.attachType), 68},
		"prog_btf_fd":          {unsafe.Offsetof(attr.types), 72},
		"func_info":            {unsafe.Offsetof(attr.functions), 80},
		"func_info_cnt":        {unsafe.Offsetof(attr.functionsLen), 88},
		"attach_btf_id":        {unsafe.Offsetof(attr.attachTo), 108},
	} {
		if at[0] != at[1] {
			t.Errorf("%s lies at %d, want %d", name, at[0], at[1])
		}
	}
}
