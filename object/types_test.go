package object

import (
	"bytes"
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

// TestPickTypes picks what is asked for as it is, with all that it holds and
// nothing that it points to, and tells its number.
func TestPickTypes(t *testing.T) {
	list := someTypes()
	raw, numbers := made(t, list...)
	picked, err := pickTypes(raw, map[string]bool{"outer": true, "f": true, "nosuch": true})
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"far", "outer", "f", "g"} {
		_, err := picked.AnyTypeByName(name)
		var want []btf.TypeID
		if name == "outer" || name == "f" {
			want = numbers[i : i+1]
		}
		if diff := cmp.Diff(want, picked.numbers[name]); diff != "" || (err == nil) != (want != nil) {
			t.Errorf("%s: error %v, numbers (-want +got):\n%s", name, err, diff)
		}
	}
	var outer *btf.Struct
	if err := picked.TypeByName("outer", &outer); err != nil {
		t.Fatal(err)
	}
	want := list[1].(*btf.Struct)
	want.Members[0].Type.(*btf.Pointer).Target = (*btf.Void)(nil)
	if diff := cmp.Diff(want, outer); diff != "" {
		t.Errorf("outer (-want +got):\n%s", diff)
	}
}

// TestTypesOfTheRunningKernel finds fields where the library finds them when
// it reads all types.
func TestTypesOfTheRunningKernel(t *testing.T) {
	raw, err := os.ReadFile(kernelTypesFile)
	if errors.Is(err, os.ErrNotExist) {
		t.Skip("this kernel carries no types; each of the lab's does")
	}
	if err != nil {
		t.Fatal(err)
	}
	spec, err := bpf.LoadUnload()
	if err != nil {
		t.Fatal(err)
	}
	some, err := readKernelTypes(wanted(spec, nil))
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
		id, err := all.TypeID(want)
		if diff := cmp.Diff([]btf.TypeID{id}, some.numbers[name]); diff != "" || err != nil {
			t.Errorf("%s: %v, numbers (-want +got):\n%s", name, err, diff)
		}
		for i, m := range got.Members {
			if w := want.Members[i]; m.Name != w.Name || m.Offset != w.Offset || m.BitfieldSize != w.BitfieldSize {
				t.Errorf("%s: member %v is %v", name, w, m)
			}
		}
	}
}

// TestPickTypesDamaged refuses what is no types, and survives what is nearly so.
func TestPickTypesDamaged(t *testing.T) {
	raw, _ := made(t, someTypes()...)
	names := map[string]bool{"outer": true, "f": true}
	for _, bad := range [][]byte{nil, raw[:10], raw[:30], raw[:len(raw)-1], append([]byte{1}, raw[1:]...)} {
		if _, err := pickTypes(bad, names); !errors.Is(err, errNoTypes) {
			t.Errorf("%d bytes: error %v", len(bad), err)
		}
	}
	for i := range raw {
		for _, bits := range []byte{0x01, 0x80, 0xff} {
			damaged := bytes.Clone(raw)
			damaged[i] ^= bits
			if picked, err := pickTypes(damaged, names); err == nil && picked.Spec == nil {
				t.Errorf("byte %d ^ %#x: neither types nor an error", i, bits)
			}
		}
	}
}

// TestJoined reads the types of a module, whose numbers and names go on behind those of
// the kernel.
func TestJoined(t *testing.T) {
	raw, _ := made(t, someTypes()...)
	all, err := readTypes(raw)
	if err != nil {
		t.Fatal(err)
	}
	half := all.at[len(all.at)/2]
	again, err := joined(written(all.list[:half], all.names[:5]), written(all.list[half:], all.names[5:]))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(raw, again); diff != "" {
		t.Error(diff)
	}
	if _, err := joined(raw, raw[:10]); !errors.Is(err, errNoTypes) {
		t.Errorf("what is no types: %v", err)
	}
}
