package klog

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	for record, want := range map[string]Line{
		"6,1,5,-;Linux version 6.12\n":                                {5 * time.Microsecond, 6, "Linux version 6.12"},
		"28,339,5140900,-;a; b, c\n SUBSYSTEM=net\n DEVICE=n2\n":      {5140900 * time.Microsecond, 4, "a; b, c"},
		"1,340,5140901,c,caller=T1;unregister_netdevice: waiting for": {5140901 * time.Microsecond, 1, "unregister_netdevice: waiting for"},
	} {
		if got, ok := parse(record); !ok || got != want {
			t.Errorf("parse(%q) = %+v, %v", record, got, ok)
		}
	}
	for _, record := range []string{"", ";", "6,1;text", "x,1,2,-;text", "6,1,y,-;text"} {
		if got, ok := parse(record); ok {
			t.Errorf("parse(%q) = %+v", record, got)
		}
	}
}

// logged makes lines a millisecond apart.
func logged(text string) []Line {
	var lines []Line
	for line := range strings.Lines(strings.Trim(text, "\n")) {
		lines = append(lines, Line{At: time.Duration(len(lines)+1) * time.Millisecond, Level: 4, Text: strings.TrimSuffix(line, "\n")})
	}
	return lines
}

const x86 = `
release: loading out-of-tree module taints kernel.
WARNING: CPU: 0 PID: 1 Comm: init at fs/proc/generic.c:717 remove_proc_entry+0x192/0x1a0
CPU: 0 UID: 0 PID: 1 Comm: init Tainted: G           OE      6.12.107+deb13-amd64 #1
Call Trace:
 remove_proc_entry+0x192/0x1a0
---[ end trace 0000000000000000 ]---
BUG: kernel NULL pointer dereference, address: 0000000000000008
#PF: supervisor read access in kernel mode
Oops: Oops: 0000 [#1] PREEMPT SMP NOPTI
CPU: 0 UID: 0 PID: 178 Comm: my rmmod Tainted: G           OE      6.12.107+deb13-amd64 #1  Debian 6.12.107-1
RIP: 0010:bad_exit+0x12/0xff0 [oops]
Code: Unable to access opcode bytes at 0xffffffffc02f9ff8.
Call Trace:
 <TASK>
 ? __die_body.cold+0x1a/0x1f
 ? bad_exit+0xe/0x1000 [oops]
 __do_sys_delete_module+0x1b8/0x330
 do_syscall_64+0x87/0x1b0
RIP: 0033:0x4cefc9
 </TASK>
Modules linked in: oops(OE-) release(OE) loading(+) [last unloaded: hang(OE)]
---[ end trace 0000000000000000 ]---
RIP: 0010:bad_exit+0x12/0xff0 [oops]
`

const arm64 = `
Unable to handle kernel NULL pointer dereference at virtual address 0000000000000008
Mem abort info:
Internal error: Oops: 0000000096000005 [#2] SMP
Modules linked in: oops(OE-)
CPU: 0 UID: 0 PID: 90 Comm: rmmod Not tainted 6.12.107+deb13-arm64 #1
pc : bad_exit+0x18/0x388 [oops]
lr : __arm64_sys_delete_module+0x1a4/0x360
Call trace:
 bad_exit+0x18/0x388 [oops]
 __arm64_sys_delete_module+0x1a4/0x360
 invoke_syscall+0x60/0xe0
---[ end trace 0000000000000000 ]---
`

func TestOopses(t *testing.T) {
	all := Oopses(logged(x86 + strings.TrimSpace(arm64)))
	if len(all) != 2 {
		t.Fatalf("%d oopses: %+v", len(all), all)
	}
	want := Oops{
		At: 7 * time.Millisecond, PID: 178, Comm: "my rmmod", Going: []string{"oops"},
		Stack: []string{"bad_exit+0x12/0xff0 [oops]", "__do_sys_delete_module+0x1b8/0x330", "do_syscall_64+0x87/0x1b0"},
		Lines: slices.Concat(logged(x86)[6:9], logged(x86)[10:11]),
	}
	if diff := cmp.Diff(want, all[0]); diff != "" {
		t.Errorf("x86 (-want +got):\n%s", diff)
	}
	got := all[1]
	if got.PID != 90 || got.Comm != "rmmod" || !slices.Equal(got.Going, []string{"oops"}) || got.Lines[0].Text != strings.SplitN(arm64, "\n", 3)[1] {
		t.Errorf("arm64: %+v", got)
	}
	if diff := cmp.Diff([]string{"bad_exit+0x18/0x388 [oops]", "__arm64_sys_delete_module+0x1a4/0x360", "invoke_syscall+0x60/0xe0"}, got.Stack); diff != "" {
		t.Errorf("arm64's stack (-want +got):\n%s", diff)
	}
}

// TestCutShort: a log may begin or end anywhere.
func TestCutShort(t *testing.T) {
	lines := logged(x86 + strings.TrimSpace(arm64))
	for i := range lines {
		for _, o := range append(Oopses(lines[i:]), Oopses(lines[:i])...) {
			if len(o.Lines) == 0 {
				t.Errorf("cut at %d: %+v", i, o)
			}
		}
	}
}

func TestInterfaces(t *testing.T) {
	at := func(seconds int, name string) Line {
		return Line{time.Duration(seconds) * time.Second, 0, "unregister_netdevice: waiting for " + name + " to become free. Usage count = 2"}
	}
	lines := []Line{at(10, "old0"), at(10, "hang0"), at(100, "hang0"), at(110, "hang0"), at(120, "other"), at(120, "hang0"), {121 * time.Second, 6, "else"}}
	want := []Interface{{"hang0", 2, 100 * time.Second}, {"other", 2, 120 * time.Second}}
	if diff := cmp.Diff(want, Interfaces(lines, 125*time.Second, 20*time.Second)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := Interfaces(lines, time.Hour, 20*time.Second); got != nil {
		t.Errorf("much later: %+v", got)
	}
}
