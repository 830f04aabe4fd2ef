package cause

import (
	"slices"
	"strings"
	"testing"

	"github.com/modtrace/modtrace/unload"
)

// TestRulesAreReached: a name that an earlier rule takes away, or one that
// builds on what nothing within can have said, is a mistake in the table.
func TestRulesAreReached(t *testing.T) {
	table := rules()
	said := []unload.Cause{open}
	for i := range table {
		said = append(said, table[i].cause)
	}
	for i := range table {
		r := &table[i]
		for _, over := range r.over {
			if !slices.Contains(said, over) {
				t.Errorf("no rule says %q, over which %v is %q", over, r.functions, r.cause)
			}
		}
		for _, name := range r.functions {
			for _, over := range before(r) {
				if got := find(table, strings.TrimSuffix(name, "*"), over); got != r {
					t.Errorf("%s is %q over %q; an earlier rule takes it", name, r.cause, over)
				}
			}
		}
	}
}

// before is what may have been said when a rule is asked.
func before(r *rule) []unload.Cause {
	if r.cause == open {
		return append(unload.Causes(), open)
	}
	return append([]unload.Cause{r.cause}, r.over...)
}

// TestPatterns: a star is at the end, and a name that a pattern of the same
// rule covers is too many.
func TestPatterns(t *testing.T) {
	for _, r := range rules() {
		for i, name := range r.functions {
			if strings.Contains(strings.TrimSuffix(name, "*"), "*") || strings.Trim(name, "*") == "" {
				t.Errorf("pattern %q", name)
			}
			for j, other := range r.functions {
				if i != j && match(other, strings.TrimSuffix(name, "*")) {
					t.Errorf("%s is covered by %s", name, other)
				}
			}
		}
	}
}

// TestEveryCause: each cause but other has a rule, and no rule a cause that is
// not in the model.
func TestEveryCause(t *testing.T) {
	said := map[unload.Cause]bool{open: true, unload.CauseOther: true}
	for _, r := range rules() {
		said[r.cause] = true
	}
	for _, c := range unload.Causes() {
		if !said[c] {
			t.Errorf("no rule for %q", c)
		}
		delete(said, c)
	}
	delete(said, open)
	if len(said) > 0 {
		t.Errorf("not in the model: %v", said)
	}
}

func FuzzOf(f *testing.F) {
	f.Add("schedule+0x1/0x2\nschedule_timeout\nwait_for_completion\n__flush_work.isra.0\nslow_exit+0x1f [slow]")
	f.Add("msleep\n\n[\n]\n+\n*\n.cold\n [x")
	f.Fuzz(func(t *testing.T, text string) {
		stack := strings.Split(text, "\n")
		if c := Of(stack); !slices.Contains(unload.Causes(), c) {
			t.Errorf("Of(%q) = %q", stack, c)
		}
		if i := Site(stack); i < 0 || i > len(stack) {
			t.Errorf("Site(%q) = %d", stack, i)
		}
		for _, frame := range stack {
			Function(frame)
			Module(frame)
		}
	})
}
