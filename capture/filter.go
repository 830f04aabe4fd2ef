package capture

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/modtrace/modtrace/unload"
)

// Filter says which records are wanted. What is not set lets all pass.
type Filter struct {
	// Modules are names or globs.
	Modules []string
	// Results are "ok", "refused", "unanswered", or reasons.
	Results []string
	// Least and Most bound how long an unload took.
	Least, Most time.Duration
	// Since and Until bound when a record's matter began.
	Since, Until time.Time
}

// Results lists what [Filter.Results] can have.
func Results() []string {
	all := []string{string(unload.Unloaded), string(unload.Refused), string(unload.Unanswered)}
	for _, r := range unload.Reasons() {
		all = append(all, string(r))
	}
	return all
}

// Check says what is wrong with a filter, in words for who has made it.
func (f Filter) Check() error {
	for _, r := range f.Results {
		if !slices.Contains(Results(), r) {
			return fmt.Errorf("there is no result %q, only %s", r, strings.Join(Results(), ", "))
		}
	}
	if f.Most > 0 && f.Least > f.Most {
		return fmt.Errorf("no unload takes at least %v and at most %v", f.Least, f.Most)
	}
	if !f.Since.IsZero() && !f.Until.IsZero() && f.Since.After(f.Until) {
		return fmt.Errorf("nothing is after %v and before %v", f.Since, f.Until)
	}
	return nil
}

// Wants says whether a record, given as a pointer to it, is wanted. Headers and trailers
// always are.
func (f Filter) Wants(record any) bool {
	switch v := record.(type) {
	case *unload.Unload:
		return f.about(v.Module, v.Start) && f.result(v) && f.took(v.Duration)
	case *unload.Stall:
		return f.about(v.Module, v.Start) && len(f.Results) == 0 && f.took(v.Duration)
	case *unload.Reload:
		return f.about(v.Module, v.Start) && f.all()
	case *unload.Why:
		return f.about(v.Module, v.Time) && f.all()
	case *unload.Ledger:
		return f.about(v.Balance.Module, v.Balance.Time) && f.all()
	case *unload.Ref:
		return f.about(v.Module, v.Time) && f.all()
	}
	return true
}

// all says that unloads of every kind are wanted, and with them what is none.
func (f Filter) all() bool { return len(f.Results) == 0 && f.Least == 0 && f.Most == 0 }

func (f Filter) about(module string, at time.Time) bool {
	return unload.Matches(f.Modules, module) &&
		(f.Since.IsZero() || !at.Before(f.Since)) && (f.Until.IsZero() || at.Before(f.Until))
}

func (f Filter) took(ns int64) bool {
	return ns >= int64(f.Least) && (f.Most == 0 || ns <= int64(f.Most))
}

func (f Filter) result(u *unload.Unload) bool {
	if len(f.Results) == 0 {
		return true
	}
	kind := u.Result.Kind()
	return slices.Contains(f.Results, string(kind)) || kind == unload.Refused && slices.Contains(f.Results, string(u.Result.Reason))
}
