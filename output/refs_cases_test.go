package output

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/modtrace/modtrace/unload"
)

// account is a ledger.
type account struct {
	name string
	unload.Ledger
}

var dawn = time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)

// watched is the balance of tun, which was watched for 12.5 s.
func watched(b unload.Balance) unload.Balance {
	b.Module, b.Start, b.Time = "tun", dawn, dawn.Add(12500*time.Millisecond)
	if b.State == "" {
		b.State = "live"
	}
	return b
}

// leaked is a reference that was taken and not dropped.
func leaked() unload.Refs {
	return unload.Refs{Module: "tun", Site: "leak_take [leak]", PID: 812, Comm: "vpnd", Gets: 2, Puts: 1, Outstanding: 1,
		HeldMax: 3.2e9, Held: 3.4e9, First: dawn, Last: dawn.Add(time.Second), Since: dawn.Add(time.Second), Dropped: "leak_drop [leak]", Gone: true, Processes: 1,
		Stack: []string{"leak_take+0x11 [leak]", "leak_set+0x67 [leak]", "param_attr_store+0x98", "module_attr_store+0x21", "kernfs_fop_write_iter+0x14f",
			"vfs_write+0x28c", "ksys_write+0x6d", "do_syscall_64+0x87", "entry_SYSCALL_64_after_hwframe+0x76"}}
}

// flickering is what pollers do.
func flickering() unload.Refs {
	return unload.Refs{Module: "tun", Site: "misc_open", PID: 4711, Comm: "blkid", Gets: 1203, Puts: 1203, HeldMax: 12.4e6, Held: 1.203e9,
		First: dawn, Last: dawn.Add(12 * time.Second), Dropped: "__fput", Gone: true, Processes: 1203, Stack: []string{"misc_open+0x78", "chrdev_open+0xb5"}}
}

// accountsKept are the ledgers that there are.
func accountsKept() []account {
	qemu := helds()[0].Holders[0]
	stray := unload.Refs{Site: "__fput", PID: 99, Comm: "child", Puts: 3, Processes: 1, Stack: []string{"__fput+0xe4"}}
	handed := leaked()
	handed.HandedOver, handed.Gets, handed.Gone = 3, 5, false
	lookup, lasting := leaked(), leaked()
	lookup.Site, lookup.Gets, lookup.Puts, lookup.Ambiguous, lookup.Dropped, lookup.PID = "__get_fs_type", 1, 0, 2, "", 12
	lasting.Site, lasting.Gets, lasting.Puts, lasting.Outstanding, lasting.Ambiguous, lasting.PID = "get_filesystem", 2, 2, 0, 2, 12
	crowd := account{"refs-crowd", unload.Ledger{Balance: watched(unload.Balance{Refcount: 25, Gets: 50, Puts: 25, Outstanding: 25})}}
	for i := range 25 {
		r := leaked()
		r.PID, r.Gone = 100+i, false
		crowd.Entries = append(crowd.Entries, r)
	}
	hostile := unload.Refs{Site: nasty, PID: -1, Comm: nasty, Gets: -1, Puts: -7, HandedOver: 1, Outstanding: 3, HeldMax: -5, Dropped: nasty, Stack: []string{nasty}, Processes: 2}
	return []account{
		{"refs-leak", unload.Ledger{
			Balance: watched(unload.Balance{Refcount: 3, Initial: 2, Before: 2, Gets: 1205, Puts: 1204, Outstanding: 1, Holders: []unload.Holder{qemu}}),
			Entries: []unload.Refs{leaked(), flickering()}}},
		{"refs-flicker", unload.Ledger{Balance: watched(unload.Balance{Gets: 1203, Puts: 1203}), Entries: []unload.Refs{flickering()}}},
		{"refs-before", unload.Ledger{Balance: watched(unload.Balance{Refcount: 3, Initial: 3, Before: 3, Holders: []unload.Holder{qemu}})}},
		{"refs-dropped", unload.Ledger{Balance: watched(unload.Balance{Initial: 1, Puts: 3, Gets: 2, HandedOver: 2}), Entries: []unload.Refs{stray}}},
		{"refs-unsettled", unload.Ledger{
			Balance: watched(unload.Balance{Refcount: 2, Initial: 1, Before: 1, Gets: 5, Puts: 4, Outstanding: 1, HandedOver: 3, Unsettled: 3, Unseen: 1}),
			Entries: []unload.Refs{handed, stray}}},
		{"refs-unexplained", unload.Ledger{Balance: watched(unload.Balance{
			Refcount: 2, Gets: 3, Puts: 3, Unexplained: 2, Missing: []string{"how many references there were at the beginning"}})}},
		{"refs-too-many", unload.Ledger{Balance: watched(unload.Balance{Refcount: 1, Gets: 3, Puts: 1, Outstanding: 2, Unexplained: -1})}},
		{"refs-ambiguous", unload.Ledger{
			Balance: watched(unload.Balance{Refcount: 1, Gets: 3, Puts: 2, Outstanding: 1}),
			Entries: []unload.Refs{lookup, lasting}}},
		{"refs-quiet", unload.Ledger{Balance: watched(unload.Balance{})}},
		{"refs-never", unload.Ledger{Balance: unload.Balance{Module: "tnu", Start: dawn, Time: dawn.Add(2e9)}}},
		{"refs-unloaded", unload.Ledger{Balance: unload.Balance{Module: "tun", Start: dawn, Time: dawn.Add(2e9), Gets: 1, Puts: 1, Loads: 1}, Entries: []unload.Refs{
			{Site: "misc_open", PID: 5, Comm: "cat", Gets: 1, Puts: 1, HeldMax: 1.2e6, Held: 1.2e6, Processes: 1, Stack: []string{"misc_open+0x78"}}}}},
		crowd,
		{"refs-hostile", unload.Ledger{
			Balance: unload.Balance{Module: nasty, State: nasty, Refcount: -1, Before: 3, Gets: -1, Unsettled: -2, Unexplained: -3, Missing: []string{nasty}, Holders: helds()[6].Holders},
			Entries: []unload.Refs{hostile, {}}}},
		{"refs-bare", unload.Ledger{}},
	}
}

// events are references as they are taken and dropped.
func events() []unload.Ref {
	get := unload.Ref{Op: "get", Module: "tun", Time: dawn, PID: 812, TID: 813, Comm: "vpnd", Site: "misc_open", Held: -1}
	put := get
	put.Op, put.Site, put.Taken, put.Held = "put", "__fput", "misc_open", 12.4e6
	untimed, others, hostile := put, put, put
	untimed.Held = -1
	others.Held, others.Taken = -1, ""
	hostile.Op, hostile.Comm, hostile.Site, hostile.Taken = nasty, nasty, nasty, nasty
	return []unload.Ref{get, put, untimed, others, hostile, {}}
}

func TestBalance(t *testing.T) {
	want := map[string]string{
		"refs-leak":        "tun has 3 references: 2 taken before, 1 outstanding of 1205 taken since; process 812 (vpnd), which has ended, took one in leak_take [leak], 3.2 s ago",
		"refs-flicker":     "tun has no references: 1203 were taken and dropped in 12.5 s; 1203 processes (blkid) took 1203 of them and held one for 12.4 ms at most",
		"refs-before":      "tun has 3 references: 3 taken before, none taken since",
		"refs-dropped":     "tun has no references: 1 of before was dropped, and 2 were taken and dropped in 12.5 s",
		"refs-unsettled":   "tun has 2 references: 1 taken before, 1 outstanding of 5 taken since; process 812 (vpnd) took one in leak_take [leak], 3.2 s ago",
		"refs-unexplained": "tun has 2 references: none outstanding of 3 taken since, 2 unexplained",
		"refs-too-many":    "tun has 1 reference: 2 outstanding of 3 taken since",
		"refs-ambiguous":   "tun has 1 reference: 1 outstanding of 3 taken since; process 12 (vpnd), which has ended, took one in __get_fs_type or get_filesystem, 3.2 s ago",
		"refs-quiet":       "tun has no references, and none was taken in 12.5 s",
		"refs-never":       "tnu is not loaded, and was not in 2.0 s",
		"refs-unloaded":    "tun is not loaded any more: 1 was taken and dropped in 2.0 s; process 5 (cat) held one for 1.2 ms",
	}
	for _, a := range accountsKept() {
		if text, ok := want[a.name]; ok {
			if got := (screen{}).balance(a.Ledger); got != text {
				t.Errorf("%s\n got %q\nwant %q", a.name, got, text)
			}
			delete(want, a.name)
		}
	}
	for name := range want {
		t.Errorf("no such case: %s", name)
	}
}

// TestLedgerInJSON has the balance first, and a line for each entry.
func TestLedgerInJSON(t *testing.T) {
	var b bytes.Buffer
	if err := NewJSON(&b).Ledger(accountsKept()[0].Ledger); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	if len(lines) != 3 || !strings.HasPrefix(lines[0], `{"type":"balance","module":"tun",`) || !strings.HasPrefix(lines[1], `{"type":"refs","module":"tun",`) {
		t.Errorf("%q", lines)
	}
}
