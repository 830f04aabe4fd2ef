package ledger

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/modtrace/modtrace/unload"
)

// took is a process that took references at the times given, and has not dropped
// them itself.
func took(pid int, times ...uint64) row {
	r := row{Refs: unload.Refs{PID: pid, Gets: int64(len(times))}, open: times}
	if len(times) > 0 {
		r.first = times[0]
	}
	return r
}

// dropped is one that dropped as many of others, until then.
func dropped(pid int, n int64, last uint64) row {
	return row{Refs: unload.Refs{PID: pid, Puts: n}, strays: n, last: last}
}

func past(r row, load int64) row {
	r.Load = load
	return r
}

// outcome is what there is to settle.
type outcome struct {
	Before, Outstanding, HandedOver, Unsettled, Unseen, Unexplained int64
}

func TestSettle(t *testing.T) {
	for _, tt := range []struct {
		name     string
		refcount int64
		before   initial
		load     int64
		rows     []row
		want     outcome
		each     []int64 // outstanding of each
	}{
		{name: "nothing"},
		{name: "all are there", refcount: 3, before: initial{refs: 1}, rows: []row{took(1, 10), took(2, 20)},
			want: outcome{Before: 1, Outstanding: 2}, each: []int64{1, 1}},
		{name: "one of before went, by whom held it", refcount: 1, before: initial{refs: 1, by: map[int]int64{9: 1}}, rows: []row{took(1, 10), dropped(9, 1, 30)},
			want: outcome{Outstanding: 1}, each: []int64{1, 0}},
		{name: "the only one was handed over", rows: []row{took(1, 10), dropped(2, 1, 30)},
			want: outcome{HandedOver: 1}, each: []int64{0, 0}},
		{name: "the oldest is taken to be it", refcount: 1, rows: []row{took(1, 20), took(2, 10), dropped(3, 1, 30)},
			want: outcome{Outstanding: 1, HandedOver: 1, Unsettled: 1}, each: []int64{1, 0, 0}},
		{name: "which of one process' does not matter", refcount: 1, rows: []row{took(1, 10, 20), dropped(3, 1, 30)},
			want: outcome{Outstanding: 1, HandedOver: 1}, each: []int64{1, 0}},
		{name: "what was taken later it was not", refcount: 1, before: initial{refs: 1}, rows: []row{took(1, 40), dropped(3, 1, 30)},
			want: outcome{Outstanding: 1}, each: []int64{1, 0}},
		{name: "one of before may have been it", refcount: 1, before: initial{refs: 1}, rows: []row{took(1, 10), dropped(3, 1, 30)},
			want: outcome{Before: 1, HandedOver: 1, Unsettled: 1}, each: []int64{0, 0}},
		{name: "nobody had taken it", refcount: 0, before: initial{refs: 2}, rows: []row{dropped(3, 2, 30)}, want: outcome{}, each: []int64{0}},
		{name: "more were dropped than were seen", refcount: 0, rows: []row{dropped(3, 2, 30)}, want: outcome{}, each: []int64{0}},
		{name: "one was not seen to be taken", refcount: 2, rows: []row{took(1, 10)}, want: outcome{Outstanding: 1, Unexplained: 1}, each: []int64{1}},
		{name: "one was not seen to be dropped", refcount: 0, rows: []row{took(1, 10)}, want: outcome{HandedOver: 1, Unseen: 1}, each: []int64{0}},
		{name: "one of two was not seen to be dropped", refcount: 1, rows: []row{took(1, 20), took(2, 10)},
			want: outcome{Outstanding: 1, HandedOver: 1, Unseen: 1, Unsettled: 1}, each: []int64{1, 0}},
		{name: "one of before was not seen to be dropped", refcount: 0, before: initial{refs: 1}, want: outcome{Before: 1, Unexplained: -1}},
		{name: "by when it is noted and when it was taken are not the same", rows: []row{{first: 5, open: []uint64{40}}, dropped(2, 1, 30)},
			want: outcome{HandedOver: 1}, each: []int64{0, 0}},
		{name: "the module has gone and come back", refcount: 1, before: initial{refs: 4, by: map[int]int64{1: 4}}, load: 1, rows: []row{took(1, 10), past(took(2, 20), 1)},
			want: outcome{Outstanding: 1, HandedOver: 1}, each: []int64{0, 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := unload.Balance{State: "live", Refcount: tt.refcount}
			settle(&b, tt.rows, tt.before, tt.load)
			got := outcome{b.Before, b.Outstanding, b.HandedOver, b.Unsettled, b.Unseen, b.Unexplained}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			for i, want := range tt.each {
				if got := tt.rows[i].Outstanding; got != want {
					t.Errorf("row %d has %d outstanding, want %d", i, got, want)
				}
			}
			if b.Before+b.Outstanding+b.Unexplained != b.Refcount {
				t.Errorf("it does not add up: %+v", b)
			}
		})
	}
}

// TestSettleWithoutModule: what is outstanding when the module has gone was dropped.
func TestSettleWithoutModule(t *testing.T) {
	b := unload.Balance{}
	rows := []row{took(1, 10, 20)}
	settle(&b, rows, initial{refs: 1}, 0)
	if b.Outstanding != 0 || b.Before != 0 || b.HandedOver != 2 || b.Unexplained != 0 {
		t.Errorf("%+v", b)
	}
}

// TestLeftHolders: who has dropped what it held before is not named as a holder.
func TestLeftHolders(t *testing.T) {
	holders := []unload.Holder{{PID: 1, Refs: 2}, {Module: "user", Refs: 1}, {PID: 2, Refs: 1}}
	b := unload.Balance{State: "live", Refcount: 2, Holders: holders}
	settle(&b, []row{dropped(1, 1, 30), dropped(2, 1, 30)}, initial{refs: 4, by: map[int]int64{1: 2, 2: 1}}, 0)
	want := []unload.Holder{{PID: 1, Refs: 1}, {Module: "user", Refs: 1}}
	if diff := cmp.Diff(want, b.Holders); diff != "" || b.Before != 2 {
		t.Errorf("%d before (-want +got):\n%s", b.Before, diff)
	}
}

func TestInOrder(t *testing.T) {
	flicker, old, young := took(1), took(2, 10), took(3, 20)
	flicker.Gets = 1000
	old.Outstanding, young.Outstanding = 1, 1
	rows := []row{dropped(4, 1, 1), flicker, young, old}
	inOrder(rows)
	var got []int
	for _, r := range rows {
		got = append(got, r.PID)
	}
	if diff := cmp.Diff([]int{2, 3, 1, 4}, got); diff != "" {
		t.Error(diff)
	}
}
