package holders

import (
	"errors"
	"testing"

	"github.com/cilium/ebpf/btf"
)

// TestField finds fields where they are, also in structs and unions without a name.
func TestField(t *testing.T) {
	number := &btf.Int{Name: "int", Size: 4}
	card := &btf.Struct{Name: "card", Size: 4, Members: []btf.Member{{Name: "module", Type: number}}}
	inner := &btf.Struct{Members: []btf.Member{{Name: "first", Type: number}, {Name: "second", Type: number, Offset: 32}}}
	either := &btf.Union{Members: []btf.Member{{Name: "this", Type: number}, {Type: inner}}}
	outer := &btf.Struct{Name: "outer", Members: []btf.Member{
		{Name: "begin", Type: number},
		{Type: either, Offset: 64},
		{Name: "card", Type: &btf.Const{Type: &btf.Pointer{Target: card}}, Offset: 128},
	}}
	for name, want := range map[string]uint32{"begin": 0, "this": 8, "first": 8, "second": 12, "card": 16} {
		if got, _, err := field(outer, name); err != nil || got != want {
			t.Errorf("%s lies at %d, %v, want %d", name, got, err, want)
		}
	}
	if _, _, err := field(outer, "nosuch"); !errors.Is(err, errNoField) {
		t.Errorf("nosuch: %v", err)
	}
	_, typ, err := field(outer, "card")
	if err != nil || pointee(typ) != card {
		t.Errorf("card leads to %v, %v", pointee(typ), err)
	}
	if _, typ, _ := field(outer, "begin"); pointee(typ) != nil {
		t.Error("a number leads somewhere")
	}
}

// TestTrails are told apart by the module that they begin at.
func TestTrails(t *testing.T) {
	seen := map[string]bool{}
	for _, tr := range trails() {
		if seen[tr.module] || trailOf(tr.module) != tr {
			t.Errorf("%s is there twice", tr.module)
		}
		seen[tr.module] = true
	}
	if trailOf("nosuch") != (trail{}) {
		t.Error("there is one of nosuch")
	}
}
