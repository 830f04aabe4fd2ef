package output

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/modtrace/modtrace/unload"
)

// effects tells what the unload did besides taking its time, and to whom.
func (s screen) effects(u unload.Unload) []fact {
	var all []fact
	add := func(key string, lines []string) {
		if len(lines) > 0 {
			all = append(all, fact{key: key, lines: lines, whole: true})
		}
	}
	add("notifiers", s.ranking(s.notifiers(u.Notifiers), u.Duration, "callback", "callbacks"))
	add("devices", s.ranking(s.devices(u.Devices), u.Duration, "device", "devices"))
	add("convoy", s.convoy(u.Convoy))
	all = append(all, s.log(u.Log)...)
	add("residue", s.residue(u))
	if u.Memory.Freed > 0 {
		add("freed", []string{bytesOf(u.Memory.Freed)})
	}
	return all
}

// timed is something that took its time.
type timed struct {
	ns   int64
	text string
}

func (s screen) notifiers(all []unload.Notifier) []timed {
	items := make([]timed, len(all))
	for i, n := range all {
		text := s.function(unload.Blocker{Function: n.Callback, Module: n.Module})
		text = either("", text, "(unnamed)")
		if !n.Exact {
			text += ", not seen apart from others"
		}
		items[i] = timed{n.Duration, text}
	}
	return items
}

func (s screen) devices(all []unload.Device) []timed {
	items := make([]timed, len(all))
	for i, d := range all {
		text := s.name(d.Device, longestDetail)
		if d.Driver != "" {
			text += " (driver " + s.name(d.Driver, longestName) + ")"
		}
		items[i] = timed{d.Duration, text}
	}
	return items
}

// ranking lists what took longest, and sums up the rest.
func (s screen) ranking(items []timed, whole int64, one, many string) []string {
	if len(items) == 0 {
		return nil
	}
	items = slices.Clone(items)
	slices.SortStableFunc(items, func(a, b timed) int { return cmp.Compare(b.ns, a.ns) })
	shown := len(items)
	if !s.verbose {
		shown = 1
		for shown < min(len(items), maxLines) && matters(items[shown].ns, whole) {
			shown++
		}
	}
	var rest int64
	for _, it := range items[shown:] {
		rest += it.ns
	}
	if n := int64(len(items) - shown); n > 0 {
		items = append(items[:shown], timed{rest, count(n, "other "+one, "other "+many)})
	}
	return s.aligned(items)
}

// aligned puts times in front, right-aligned.
func (s screen) aligned(items []timed) []string {
	width := 0
	for _, it := range items {
		width = max(width, columns(s.duration(it.ns)))
	}
	lines := make([]string, len(items))
	for i, it := range items {
		ns := s.duration(it.ns)
		lines[i] = strings.Repeat(" ", width-columns(ns)) + ns + "  " + it.text
	}
	return lines
}

// convoy tells who could not go on meanwhile: with module_mutex, no module is
// loaded or unloaded.
func (s screen) convoy(all []unload.Waiter) []string {
	if len(all) == 0 {
		return nil
	}
	items := make([]timed, len(all))
	for i, w := range all {
		who := s.who(unload.Blocker{PID: w.PID, Comm: w.Comm})
		items[i] = timed{w.Duration, either("", who, "a task that is not known")}
	}
	slices.SortStableFunc(items, func(a, b timed) int { return cmp.Compare(b.ns, a.ns) })
	if len(all) == 1 {
		return []string{fmt.Sprintf("1 task waited %s for %s behind it: %s", s.duration(items[0].ns), s.locks(all), items[0].text)}
	}
	text := fmt.Sprintf("%d tasks waited for %s behind it, the longest %s: %s",
		len(all), s.locks(all), s.duration(items[0].ns), items[0].text)
	if !s.verbose {
		return []string{text}
	}
	return append([]string{text}, s.aligned(items)...)
}

// locks names what was waited for, if it was one lock.
func (s screen) locks(all []unload.Waiter) string {
	for _, w := range all[1:] {
		if w.Lock != all[0].Lock {
			return "locks"
		}
	}
	if all[0].Lock == "" {
		return "a lock"
	}
	return s.name(all[0].Lock, longestDetail)
}

func (s screen) residue(u unload.Unload) []string {
	all := u.Residue
	if len(all) == 0 && s.verbose && u.Result.OK && !u.ResidueKnown {
		return []string{"not looked for"}
	}
	lines := make([]string, 0, len(all))
	for _, r := range all {
		if len(lines) == maxLines && !s.verbose {
			return append(lines, fmt.Sprintf("%d more", len(all)-maxLines))
		}
		lines = append(lines, s.name(r, longestDetail))
	}
	return lines
}

// bytesOf writes a size exactly, and so that it can be taken in.
func bytesOf(n int64) string {
	text := count(n, "byte", "bytes")
	switch {
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB (%s)", float64(n)/(1<<20), text)
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB (%s)", float64(n)/(1<<10), text)
	}
	return text
}
