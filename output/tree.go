package output

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/modtrace/modtrace/unload"
)

// limb is a heading with what belongs to it.
type limb struct {
	head     string
	branches []branch
}

// branch is one line of a tree, wrapped if need be, and what follows below it.
type branch struct {
	label string // a time or a share
	text  string
	more  []string // each a line of its own
	color color
}

// matters says whether ns are worth a line in an account of all.
func matters(ns, all int64) bool { return ns >= all/100 }

// times says whether where the time went is of interest. After a refusal it is
// not, unless it took its time.
func times(u unload.Unload) bool {
	return u.Result.Kind() != unload.Refused || u.Duration >= noticeable
}

// tree tells for each phase that matters what was waited for and what ran.
func (s screen) tree(u unload.Unload) []string {
	if !times(u) && !s.verbose {
		return nil
	}
	limbs, rest := s.limbs(u)
	return append(s.grow(limbs), s.short(rest, len(limbs) > 0)...)
}

// limbs makes those of the phases that matter, and gives the waits of others.
func (s screen) limbs(u unload.Unload) (limbs []limb, rest []unload.Wait) {
	for _, p := range u.Phases {
		switch {
		case len(p.Waits) == 0:
		case s.verbose || matters(waited(p.Waits), u.Duration):
			limbs = append(limbs, s.waitLimb(p, u.Duration))
		default:
			rest = append(rest, p.Waits...)
		}
		n := samples(p.Hot)
		looked := p.OnCPU == 0 // and not watched, so that one is all there is
		if n > 0 && (s.verbose || looked || n >= fewSamples && matters(p.OnCPU, u.Duration)) {
			limbs = append(limbs, s.hotLimb(p))
		}
	}
	return limbs, rest
}

// short sums up waits in phases that do not matter.
func (s screen) short(rest []unload.Wait, others bool) []string {
	if len(rest) == 0 {
		return nil
	}
	where := ""
	if others {
		where = " elsewhere"
	}
	return s.aside(fmt.Sprintf("%s%s, %s in all", count(number(rest), "short wait", "short waits"), where, s.duration(waited(rest))))
}

func waited(waits []unload.Wait) (ns int64) {
	for _, w := range waits {
		ns += w.Duration
	}
	return ns
}

// number is how many waits there were before they were folded.
func number(waits []unload.Wait) (n int64) {
	for _, w := range waits {
		n += max(w.Count, 1)
	}
	return n
}

// waitLimb tells what a phase waited for, longest first.
func (s screen) waitLimb(p unload.Phase, whole int64) limb {
	l := limb{head: fmt.Sprintf("%s waited %s for", s.place(p), s.duration(p.OffCPU))}
	waits := longestFirst(p.Waits)
	shown := len(waits)
	if !s.verbose {
		waits = s.alike(waits)
		shown = 1
		for shown < min(len(waits), maxLines) && matters(waits[shown].Duration, whole) {
			shown++
		}
	}
	for _, w := range waits[:shown] {
		l.branches = append(l.branches, s.waitBranch(w, "was"))
	}
	if rest := waits[shown:]; len(rest) > 0 {
		l.branches = append(l.branches, branch{s.duration(waited(rest)), count(number(rest), "shorter wait", "shorter waits"), nil, dim})
	}
	if unseen := p.OffCPU - waited(waits); unseen > 0 && matters(unseen, whole) {
		l.branches = append(l.branches, branch{s.duration(unseen), "waits that were not seen", nil, red})
	}
	return l
}

// alike adds up waits that would read the same, although their stacks differ
// farther in, and sorts them anew.
func (s screen) alike(waits []unload.Wait) []unload.Wait {
	type key struct{ target, spot string }
	at := map[key]int{}
	var all []unload.Wait
	for _, w := range waits {
		k := key{s.target(w.Cause, w.Blocker), s.spot(w.Stack)}
		i, ok := at[k]
		if !ok {
			at[k] = len(all)
			all = append(all, w)
			continue
		}
		all[i].Count = max(all[i].Count, 1) + max(w.Count, 1)
		all[i].Duration += w.Duration
		all[i].Callbacks = max(all[i].Callbacks, w.Callbacks)
		if w.Longest > all[i].Longest {
			all[i].Longest, all[i].Waker = w.Longest, w.Waker
		}
	}
	return longestFirst(all)
}

// waitBranch tells of one wait, or of many of one kind: for what, on whom,
// from where, and who ended it where that is not clear from the rest. Was is
// the tense of what the blocker does.
func (s screen) waitBranch(w unload.Wait, was string) branch {
	text := s.target(w.Cause, w.Blocker)
	if w.Count > 1 {
		text = s.several(w)
		if w.Longest > 0 {
			text += ", the longest " + s.duration(w.Longest)
		}
	}
	text += suffix(", ", pendingCallbacks(w))
	text += suffix("; in ", s.spot(w.Stack))
	text += suffix("; ", s.busy(w.Blocker, was))
	if informs(w) {
		text += suffix("; woken by ", s.agent(w.Waker))
	}
	b := branch{label: s.duration(w.Duration), text: text}
	if s.verbose {
		b.more = s.stacks(w)
	}
	return b
}

// pendingCallbacks says how many RCU callbacks were waited for, if that is known.
func pendingCallbacks(w unload.Wait) string {
	switch {
	case w.Callbacks == 0:
		return ""
	case w.Count > 1:
		return fmt.Sprintf("up to %d pending", w.Callbacks)
	}
	return fmt.Sprintf("%d pending", w.Callbacks)
}

// several names what was waited for many times.
func (s screen) several(w unload.Wait) string {
	if many := plural(w.Cause); many != "" && s.agent(w.Blocker) == "" {
		return fmt.Sprintf("%d %s", w.Count, many)
	}
	times := "×"
	if s.ascii {
		times = "x"
	}
	return fmt.Sprintf("%s%d %s", times, w.Count, s.target(w.Cause, w.Blocker))
}

// busy says what the blocker was doing, if that is more than its name says.
func (s screen) busy(b unload.Blocker, was string) string {
	at := s.spot(b.Stack)
	if at == "" || at == s.function(b) {
		return ""
	}
	name := "it"
	if b.Comm != "" {
		name = s.name(b.Comm, 32)
	}
	return name + " " + was + " in " + at
}

// informs says whether the waker adds something: not if it was the one that
// was waited for, and not where it is always the same.
func informs(w unload.Wait) bool {
	switch w.Cause {
	case unload.CauseRCU, unload.CauseSRCU, unload.CauseSleep, unload.CausePreempted:
		return false
	case unload.CauseIO, unload.CauseTimer:
		return w.Waker.Kind != unload.KindInterrupt && !same(w.Waker, w.Blocker)
	}
	return !same(w.Waker, w.Blocker)
}

// stacks lists every frame that is known of a wait.
func (s screen) stacks(w unload.Wait) []string {
	lines := s.frames(w.Stack)
	if who := s.agent(w.Waker); who != "" || len(w.Waker.Stack) > 0 {
		end := ""
		if len(w.Waker.Stack) > 0 {
			end = ", in:"
		}
		lines = append(lines, "woken by "+either("", who, "somebody")+end)
		lines = append(lines, s.frames(w.Waker.Stack)...)
	}
	if len(w.Blocker.Stack) > 0 {
		lines = append(lines, "stack of "+either("", s.agent(w.Blocker), "who was waited for")+":")
		lines = append(lines, s.frames(w.Blocker.Stack)...)
	}
	return lines
}

func (s screen) frames(stack []string) []string {
	lines := make([]string, len(stack))
	for i, f := range stack {
		lines[i] = "  " + s.clean(f)
	}
	return lines
}

// fewSamples are so many that they say nothing of a phase.
const fewSamples = 4

// hotLimb tells where a phase ran, by the share of the samples of it.
func (s screen) hotLimb(p unload.Phase) limb {
	l := limb{head: fmt.Sprintf("%s ran %s in", s.place(p), s.duration(p.OnCPU))}
	if p.OnCPU == 0 { // it was only looked at
		l.head = s.place(p) + " ran in"
	}
	if s.verbose {
		l.branches = s.eachHot(p.Hot)
		return l
	}
	spots, total := tally(p.Hot, s.runs)
	var told int64
	for i, h := range spots {
		if i > 0 && (i == maxLines || h.samples < max(2, total/20)) {
			break
		}
		l.branches = append(l.branches, branch{label: share(h.samples, total), text: fmt.Sprintf("%s, %d of %s", h.name, h.samples, count(total, "sample", "samples"))})
		told += h.samples
	}
	if rest := total - told; rest > 0 {
		text := "other places"
		if len(spots) == 0 {
			text = "a place that is not known"
		}
		l.branches = append(l.branches, branch{share(rest, total), text, nil, dim})
	}
	return l
}

func samples(hot []unload.Hot) (n int64) {
	for _, h := range hot {
		n += h.Samples
	}
	return n
}

func (s screen) eachHot(hot []unload.Hot) []branch {
	total := samples(hot)
	hot = slices.Clone(hot)
	slices.SortStableFunc(hot, func(a, b unload.Hot) int { return cmp.Compare(b.Samples, a.Samples) })
	all := make([]branch, len(hot))
	for i, h := range hot {
		text := either("", s.runs(h.Stack), "a place that is not known")
		all[i] = branch{label: share(h.Samples, total), text: text + ", " + count(h.Samples, "sample", "samples"), more: s.frames(h.Stack)}
	}
	return all
}

// grow draws limbs. Labels line up over all of them.
func (s screen) grow(limbs []limb) []string {
	label := 0
	for _, l := range limbs {
		for _, b := range l.branches {
			label = max(label, columns(b.label))
		}
	}
	var lines []string
	for _, l := range limbs {
		for _, line := range hanging(strings.Repeat(" ", gap)+l.head, s.width, strings.Repeat(" ", gap)) {
			lines = append(lines, s.fit(line))
		}
		for i, b := range l.branches {
			lines = append(lines, s.branch(b, label, i == len(l.branches)-1)...)
		}
	}
	return lines
}

// leastText is how narrow the text of a branch may get before it is set below
// its label.
const leastText = 20

// branch draws a branch with its twig; labels are right-aligned.
func (s screen) branch(b branch, label int, last bool) []string {
	first, next := s.twigs(last)
	width, lead := max(s.width-gap-columns(first), 1), label+gap
	head := strings.Repeat(" ", label-columns(b.label)) + b.label + strings.Repeat(" ", gap)
	text := b.text
	if width-lead < leastText {
		head, text, lead = "", b.label+" "+text, 0
	}
	texts := wrap(text, width-lead, "")
	for _, more := range b.more {
		texts = append(texts, hanging(more, width-lead, strings.Repeat(" ", gap))...)
	}
	texts = shift(texts, strings.Repeat(" ", lead))
	texts[0] = head + texts[0][lead:]
	lines := make([]string, len(texts))
	for i, text := range texts {
		twig := next
		if i == 0 {
			twig = first
		}
		lines[i] = s.paint(b.color, s.fit(strings.Repeat(" ", gap)+twig+text))
	}
	return lines
}

// twigs are what is left of a branch's first line, and of its others.
func (s screen) twigs(last bool) (first, next string) {
	switch {
	case s.ascii && last:
		return "` ", "  "
	case s.ascii:
		return "+ ", "| "
	case last:
		return "└ ", "  "
	}
	return "├ ", "│ "
}

// aside is a line of second interest.
func (s screen) aside(text string) []string {
	indent := strings.Repeat(" ", gap)
	lines := shift(wrap(text, max(s.width-gap, 1), indent), indent)
	for i, line := range lines {
		lines[i] = s.paint(dim, s.fit(line))
	}
	return lines
}
