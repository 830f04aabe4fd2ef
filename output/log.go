package output

import (
	"fmt"
	"slices"
	"strings"

	"github.com/modtrace/modtrace/unload"
)

// maxLog bounds how much of the kernel's log is shown, unless all is wanted:
// the dump of one warning alone has some fifty lines.
const maxLog = 8

// gravity ranks a line of the kernel's log.
type gravity int

const (
	ordinary gravity = iota
	warning
	failure
	oops
)

// graveness judges by the level, which the kernel's headers define
// (include/linux/kern_levels.h), and by how the kernel begins its complaints.
func graveness(l unload.LogLine) gravity {
	begins := func(p string) bool { return strings.HasPrefix(l.Text, p) }
	if slices.ContainsFunc([]string{
		"BUG:", "kernel BUG at", "Oops:", "Internal error:", "general protection fault", "Unable to handle kernel", "Kernel panic",
	}, begins) {
		return oops
	}
	switch {
	case begins("---"): // the frame around a complaint
		return ordinary
	case begins("WARNING:"), l.Level == 4:
		return warning
	case l.Level >= 0 && l.Level < 4:
		return failure
	}
	return ordinary
}

// log tells what the kernel logged, phase by phase, what is grave in red. If
// there is much of it the gravest lines stay.
func (s screen) log(all []unload.LogLine) []fact {
	var facts []fact
	key := "log"
	kept := s.gravest(all)
	for i, l := range all {
		if !kept[i] {
			continue
		}
		f := fact{key: key, lines: []string{s.logLine(l)}, whole: true}
		if graveness(l) > ordinary {
			f.color = red
		}
		facts, key = append(facts, f), ""
	}
	if n := int64(len(all) - len(kept)); n > 0 {
		facts = append(facts, fact{lines: []string{count(n, "more line", "more lines")}, color: dim})
	}
	return facts
}

// gravest picks the lines to show; of equals, the first.
func (s screen) gravest(all []unload.LogLine) map[int]bool {
	kept := map[int]bool{}
	for g := oops; g >= ordinary; g-- {
		for i, l := range all {
			if graveness(l) == g && (s.verbose || len(kept) < maxLog) {
				kept[i] = true
			}
		}
	}
	return kept
}

func (s screen) logLine(l unload.LogLine) string {
	where := s.phase(l.Phase)
	if l.Phase == "" {
		where = "?"
	}
	if s.verbose {
		where += " at " + s.duration(l.Offset)
	}
	mark := ""
	switch graveness(l) {
	case oops:
		mark = "oops: "
	case failure:
		mark = "error: "
	case warning:
		if !strings.HasPrefix(l.Text, "WARNING:") {
			mark = "warning: "
		}
	}
	return fmt.Sprintf("%s: %s%s", where, mark, s.clean(strings.TrimRight(l.Text, "\r\n ")))
}
