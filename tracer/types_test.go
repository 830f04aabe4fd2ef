package tracer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"testing"

	"github.com/cilium/ebpf/btf"
	"github.com/google/go-cmp/cmp"

	"github.com/modtrace/modtrace/bpf"
)

// made gives the raw form of some types, and their numbers.
func made(t *testing.T, list ...btf.Type) (raw []byte, numbers []btf.TypeID) {
	t.Helper()
	b, err := btf.NewBuilder(list, nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err = b.Marshal(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	spec, err := btf.LoadSpecFromReader(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	for _, typ := range list {
		same, err := spec.AnyTypeByName(typ.TypeName())
		if err != nil {
			t.Fatal(err)
		}
		id, err := spec.TypeID(same)
		if err != nil {
			t.Fatal(err)
		}
		numbers = append(numbers, id)
	}
	return raw, numbers
}

func someTypes() []btf.Type {
	number := &btf.Int{Name: "int", Size: 4}
	far := &btf.Struct{Name: "far", Size: 4, Members: []btf.Member{{Name: "n", Type: number}}}
	inner := &btf.Struct{Name: "inner", Size: 4, Members: []btf.Member{{Name: "counter", Type: number}}}
	atomic := &btf.Typedef{Name: "atomic_t", Type: inner}
	outer := &btf.Struct{Name: "outer", Size: 32, Members: []btf.Member{
		{Name: "to", Type: &btf.Pointer{Target: far}},
		{Name: "refs", Type: &btf.Array{Index: number, Type: &btf.Const{Type: atomic}, Nelems: 2}, Offset: 64},
		{Name: "state", Type: &btf.Enum{Name: "state", Size: 4, Values: []btf.EnumValue{{Name: "LIVE", Value: 0}, {Name: "GOING", Value: 2}}}, Offset: 128},
	}}
	proto := &btf.FuncProto{Return: number, Params: []btf.FuncParam{{Name: "o", Type: &btf.Pointer{Target: outer}}}}
	return []btf.Type{far, outer, &btf.Func{Name: "f", Type: proto, Linkage: btf.GlobalFunc}, &btf.Func{Name: "g", Type: proto}}
}

// TestKeepTypes keeps what is asked for as it is, with its number and all that it
// holds, and nothing that it points to.
func TestKeepTypes(t *testing.T) {
	list := someTypes()
	raw, numbers := made(t, list...)
	kept, err := keepTypes(raw, map[string]bool{"outer": true, "f": true, "nosuch": true})
	if err != nil {
		t.Fatal(err)
	}
	spec, err := btf.LoadSpecFromReader(bytes.NewReader(kept))
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"far", "outer", "f", "g"} {
		typ, err := spec.AnyTypeByName(name)
		if wanted := name == "outer" || name == "f"; wanted != (err == nil) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil {
			continue
		}
		if id, err := spec.TypeID(typ); err != nil || id != numbers[i] {
			t.Errorf("%s was number %d and is %d, %v", name, numbers[i], id, err)
		}
	}
	var outer *btf.Struct
	if err := spec.TypeByName("outer", &outer); err != nil {
		t.Fatal(err)
	}
	whole := list[1].(*btf.Struct)
	for i, m := range outer.Members {
		if m.Name != whole.Members[i].Name || m.Offset != whole.Members[i].Offset {
			t.Errorf("member %d is %v", i, m)
		}
	}
	refs := btf.UnderlyingType(outer.Members[1].Type.(*btf.Array).Type).(*btf.Struct)
	if refs.Name != "inner" || refs.Members[0].Name != "counter" {
		t.Errorf("the array is of %v", refs)
	}
	if diff := cmp.Diff(whole.Members[2].Type, outer.Members[2].Type); diff != "" {
		t.Errorf("enum (-was +is):\n%s", diff)
	}
	if target, ok := outer.Members[0].Type.(*btf.Pointer).Target.(*btf.Fwd); !ok || target.Name != "" {
		t.Errorf("the pointer is to %v", outer.Members[0].Type)
	}
}

// TestKeepTypesOfTheRunningKernel finds fields where the library finds them when
// it reads all types.
func TestKeepTypesOfTheRunningKernel(t *testing.T) {
	raw, err := os.ReadFile(kernelTypesFile)
	if errors.Is(err, os.ErrNotExist) {
		t.Skip("this kernel carries no types; each of the lab's does")
	}
	if err != nil {
		t.Fatal(err)
	}
	l, err := newSpecs()
	if err != nil {
		t.Fatal(err)
	}
	some, err := kernelTypes(l.wanted())
	if err != nil {
		t.Fatal(err)
	}
	all, err := btf.LoadSpecFromReader(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"task_struct", "cred", "mm_struct", "kobject"} {
		var got, want *btf.Struct
		if err := errors.Join(some.TypeByName(name, &got), all.TypeByName(name, &want)); err != nil {
			t.Fatal(err)
		}
		if len(got.Members) != len(want.Members) || got.Size != want.Size {
			t.Errorf("%s has %d members in %d bytes, not %d in %d", name, len(got.Members), got.Size, len(want.Members), want.Size)
		}
		a, errA := some.TypeID(got)
		b, errB := all.TypeID(want)
		if a != b || errA != nil || errB != nil {
			t.Errorf("%s is number %d, not %d", name, a, b)
		}
	}
}

func newSpecs() (*loader, error) {
	spec, err := bpf.LoadUnload()
	return &loader{spec: spec}, err
}

// TestKeepTypesDamaged refuses what is no types, and survives what is nearly so.
func TestKeepTypesDamaged(t *testing.T) {
	raw, _ := made(t, someTypes()...)
	names := map[string]bool{"outer": true, "f": true}
	for _, bad := range [][]byte{nil, raw[:10], raw[:30], raw[:len(raw)-1], append([]byte{1}, raw[1:]...)} {
		if _, err := keepTypes(bad, names); !errors.Is(err, errNoTypes) {
			t.Errorf("%d bytes: error %v", len(bad), err)
		}
	}
	for i := range raw {
		for _, bits := range []byte{0x01, 0x80, 0xff} {
			damaged := bytes.Clone(raw)
			damaged[i] ^= bits
			if kept, err := keepTypes(damaged, names); err == nil && binary.NativeEndian.Uint16(kept) != btfMagic {
				t.Errorf("byte %d ^ %#x: no types were kept", i, bits)
			}
		}
	}
}
