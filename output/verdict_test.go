package output

import (
	"math"
	"strings"
	"testing"

	"github.com/modtrace/modtrace/unload"
)

func TestVerdict(t *testing.T) {
	want := map[string]string{
		"sample":                    "empty unloaded in 20.8 ms, 85% of it in free.unlink, asleep",
		"slow":                      "slow unloaded in 892 ms, 69% of it in exit(), asleep",
		"spinning":                  "spin unloaded in 1 min 35 s, 99% of it in exit(), running",
		"waits":                     "slow unloaded in 892 ms, 69% of it in exit(), waiting 600 ms for a work item",
		"why-work":                  "slow unloaded in 892 ms, 69% of it in exit(), waiting 600 ms for work item wfn [slow] of workqueue events, run by kworker/1:2 (pid 31)",
		"why-rcu":                   "can_bcm unloaded in 10.9 s, 99% of it in exit(), waiting 10.8 s for 1000 RCU grace periods",
		"why-spin":                  "spin unloaded in 1 min 35 s, 99% of it in exit(), running, mostly in spin_exit [spin]",
		"merged":                    "old unloaded in 17.3 ms, 99% of it in free.params + free.unlink + free.memory, asleep",
		"forced":                    "busy unloaded by force over 2 references in 2.4 ms, 89% of it in free.memory, running",
		"references":                "mac80211_hwsim unloaded in 280 µs, no more than 7% of it in any phase",
		"incomplete":                "slow unloaded in 904 ms, 68% of it in exit() + notify, asleep",
		"hang":                      "hang has not come back: in exit() for 3.2 s when tracing ended, asleep",
		"died":                      "oops is half unloaded until reboot: the task died in exit() after 11.8 ms",
		"lost-end":                  "gone: how it ended was not seen",
		"refused-dependents":        "busy refused: 1 dependent (user) and 2 other references",
		"refused-many-dependents":   "busy refused: 30 dependents (nft_masq_ipv4, nft_nat_ipv4, nft_reject_ipv4, 27 more)",
		"refused-referenced":        "busy refused: 2 references",
		"refused-force":             "busy refused in spite of force: 1 reference",
		"refused-no-exit":           "busy refused: it has no exit function, so it can never be unloaded",
		"refused-loading":           "busy refused: it is still loading",
		"refused-unloading":         "busy refused: it is being unloaded already",
		"refused-not-found":         "busy refused: no such module is loaded",
		"refused-no-capability":     "busy refused: the caller lacks CAP_SYS_MODULE",
		"refused-modules-disabled":  "busy refused: kernel.modules_disabled is set: nothing can be unloaded until reboot",
		"refused-interrupted":       "busy not unloaded after 31.0 s: interrupted by a signal while waiting for module_mutex",
		"refused-bad-address":       "(unnamed) refused: the caller's pointer to the name is bad (EFAULT)",
		"refused-denied":            "busy refused: denied by a security module (EACCES)",
		"refused-unknown":           "busy refused: the reason was not seen (EIO)",
		"refused-userspace":         "busy refused by rmmod itself: 2 references (the kernel was not asked)",
		"refused-userspace-unknown": "busy refused by rmmod itself: the kernel was not asked",
		"bare":                      "(unnamed): how it ended was not seen",
	}
	for _, s := range streams(t) {
		if text, ok := want[s.name]; ok {
			if got := Verdict(s.unloads[0]); got != text {
				t.Errorf("%s\n got %q\nwant %q", s.name, got, text)
			}
			delete(want, s.name)
		}
	}
	for name := range want {
		t.Errorf("no such case: %s", name)
	}
}

func TestVerdictOfOddities(t *testing.T) {
	change := func(u unload.Unload, f func(*unload.Unload)) unload.Unload {
		f(&u)
		return u
	}
	dead := func(name unload.PhaseName) unload.Unload {
		return change(died(), func(u *unload.Unload) { u.Phases[2].Name = name })
	}
	tests := []struct {
		u    unload.Unload
		want string
	}{
		{dead(unload.Check), "oops not unloaded: the task died in check after 11.8 ms"},
		{dead(unload.FreeUnlink), "oops is half unloaded until reboot: the task died in free.unlink after 11.8 ms"},
		{dead(unload.Return), "oops unloaded: the task died in return after 11.8 ms"},
		{change(slow(), func(u *unload.Unload) { u.Forced = true }),
			"slow unloaded (force was asked for) in 892 ms, 69% of it in exit(), asleep"},
		{change(slow(), func(u *unload.Unload) { u.Phases = nil }), "slow unloaded in 892 ms"},
		{change(slow(), func(u *unload.Unload) { u.Phases, u.Duration = nil, 0 }), "slow unloaded"},
		{change(waits(), func(u *unload.Unload) { u.Phases[2].Waits = []unload.Wait{{Cause: "brand_new"}} }),
			"slow unloaded in 892 ms, 69% of it in exit(), waiting for something called brand_new"},
		{refusal("EINTR", unload.ReasonInterrupted, func(u *unload.Unload) {
			interrupted(u)
			u.Phases[0].Waits = []unload.Wait{{Cause: unload.CauseMutex, Count: 1, Duration: 31e9, Blocker: unload.Blocker{PID: 55, Comm: "insmod"}}}
		}), "busy not unloaded after 31.0 s: interrupted by a signal while waiting for module_mutex held by insmod (pid 55)"},
		{change(hang(), func(u *unload.Unload) { u.Phases = nil }), "hang: how it ended was not seen"},
		{refusal("EAGAIN", unload.ReasonDependents, nil), "busy refused: other modules depend on it"},
		{refusal("EAGAIN", unload.ReasonReferenced, nil), "busy refused: it is in use"},
		{refusal("EIO", "brand_new", nil), "busy refused: brand_new (EIO)"},
		{refusal("EAGAIN", unload.ReasonDependents, func(u *unload.Unload) {
			u.Dependents, u.Refcount.Before = []string{"a", "b"}, 3
		}), "busy refused: 2 dependents (a, b) and 1 other reference"},
	}
	for _, tt := range tests {
		if got := Verdict(tt.u); got != tt.want {
			t.Errorf("\n got %q\nwant %q", got, tt.want)
		}
	}
}

func TestEveryCauseHasWords(t *testing.T) {
	for _, c := range unload.Causes() {
		w := unload.Wait{Cause: c, Count: 1, Duration: 2e9}
		got := screen{}.waiting(w)
		if !strings.Contains(got, "2.0 s") || strings.Contains(got, "_") || strings.HasSuffix(got, " ") {
			t.Errorf("%s: %q", c, got)
		}
	}
	for _, name := range unload.PhaseNames() {
		if doing(name) == "" {
			t.Errorf("nothing said of %s", name)
		}
	}
}

func TestDuration(t *testing.T) {
	for ns, want := range map[int64]string{
		0: "0 ns", 999: "999 ns", 1000: "1.0 µs", 20_769_913: "20.8 ms", 99_940_000: "99.9 ms", 99_960_000: "100 ms",
		999_499_999: "999 ms", 999_500_000: "1.0 s", 3_200_000_000: "3.2 s", 59_900_000_000: "59.9 s",
		60_000_000_000: "1 min 0 s", 1_564_000_000_000: "26 min 4 s", 7_380_000_000_000: "2 h 3 min",
		-5: "-5 ns", math.MaxInt64: "2562047 h 47 min",
	} {
		if got := (screen{}).duration(ns); got != want {
			t.Errorf("%d: %q, want %q", ns, got, want)
		}
	}
}

func TestColumnsOfTimes(t *testing.T) {
	tests := []struct {
		total, ns   int64
		time, share string
	}{
		{20_769_913, 17_716_626, "17.717", "85.3%"},
		{20_769_913, 499, "<0.001", "<0.1%"},
		{20_769_913, 500, "0.001", "<0.1%"}, // 0.0005 rounds up
		{20_769_913, 0, "-", "-"},
		{20_769_913, 20_769_913, "20.770", "100.0%"},
		{20_769_913, 20_769_912, "20.770", "99.9%"},
		{20_769_913, -1500, "-0.002", "-0.0%"},
		{18_000, 11_000, "11.0", "61.1%"},
		{18_000, 40, "<0.1", "0.2%"},
		{31_004_126_000, 14_000, "<0.001", "<0.1%"},
		{0, 5, "<0.1", "-"},
	}
	for _, tt := range tests {
		if got := (screen{}).unitFor(tt.total).time(tt.ns); got != tt.time {
			t.Errorf("%d of %d: %q, want %q", tt.ns, tt.total, got, tt.time)
		}
		if got := share(tt.ns, tt.total); got != tt.share {
			t.Errorf("%d of %d: %q, want %q", tt.ns, tt.total, got, tt.share)
		}
	}
}
