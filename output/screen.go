package output

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/olekukonko/tablewriter/pkg/twwidth"
)

// screen is what text is laid out for, and knows how to make text fit it.
type screen struct {
	width   int
	color   bool
	ascii   bool
	verbose bool
}

// color is a rendition that means something; there are only these.
type color string

const (
	plain color = ""
	red   color = "31" // it went wrong, or not all of it is known
	green color = "32" // it went well
	dim   color = "2"  // of second interest
)

// paint colours a line that is laid out already.
func (s screen) paint(c color, line string) string {
	if !s.color || c == plain || line == "" {
		return line
	}
	return "\x1b[" + string(c) + "m" + line + "\x1b[0m"
}

// ellipsis stands for what was cut off.
func (s screen) ellipsis() string {
	if s.ascii {
		return "..."
	}
	return "…"
}

// maxMarks bounds the combining marks on one letter. Written languages do with
// two; more are there to climb into the lines above.
const maxMarks = 2

// clean makes text from outside safe to print: what a terminal would obey,
// hide or draw over its surroundings becomes a visible escape. Backslashes
// stay as they are, for the names of systemd's units are full of them.
func (s screen) clean(text string) string {
	var b strings.Builder
	marks := maxMarks // none at the beginning, where there is no letter
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRuneInString(text[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, text[i])
			marks = maxMarks
		case unicode.In(r, unicode.Mn, unicode.Mc) && marks < maxMarks && s.drawable(r):
			b.WriteRune(r)
			marks++
		case unicode.Is(unicode.M, r) || !s.drawable(r):
			b.WriteString(escape(r))
			marks = maxMarks
		default:
			b.WriteRune(r)
			marks = 0
			if !unicode.IsLetter(r) {
				marks = maxMarks
			}
		}
		i += size
	}
	return b.String()
}

// drawable says that r can be drawn and takes as many columns as we think.
// Variation selectors change the width of what they follow.
func (s screen) drawable(r rune) bool {
	if r < utf8.RuneSelf {
		return r >= ' ' && r < 0x7f
	}
	return !s.ascii && unicode.IsPrint(r) && !unicode.Is(unicode.Variation_Selector, r)
}

func escape(r rune) string {
	switch {
	case r < utf8.RuneSelf:
		return fmt.Sprintf(`\x%02x`, r)
	case r > 0xffff:
		return fmt.Sprintf(`\U%08x`, r)
	}
	return fmt.Sprintf(`\u%04x`, r)
}

// columns is how many columns of a terminal text takes. Characters that are
// wide in East Asian fonts alone count as one, as terminals draw them today.
func columns(text string) int {
	return twwidth.WidthWithOptions(text, twwidth.Options{})
}

// cut shortens text to at most width columns and marks that it did.
func (s screen) cut(text string, width int) string {
	if columns(text) <= width {
		return text
	}
	mark := s.ellipsis()
	if width <= columns(mark) {
		mark = ""
	}
	head, _ := split(text, width-columns(mark))
	return head + mark
}

// fit is the last resort against a line that is too wide for the screen, and
// takes off the blanks at its end.
func (s screen) fit(line string) string {
	return strings.TrimRight(s.cut(strings.TrimRight(line, " "), s.width), " ")
}

// split parts text so that head takes at most width columns.
func split(text string, width int) (head, tail string) {
	used := 0
	for i, r := range text {
		used += columns(string(r))
		if used > width {
			return text[:i], text[i:]
		}
	}
	return text, ""
}

// wrap parts text into lines of at most width columns, at blanks if it can;
// the lines behind the first begin with indent. It gives at least one line,
// and no blank ones besides.
func wrap(text string, width int, indent string) []string {
	w := wrapper{width: width, indent: indent}
	for i, word := range words(text) {
		w.gap = i > 0
		w.add(word)
	}
	w.flush()
	if len(w.lines) == 0 {
		return []string{""}
	}
	return w.lines
}

// words parts text at its blanks, but for those in the names of tasks, comm
// (pid 1), and of functions, function [module].
func words(text string) []string {
	var all []string
	for i, word := range strings.Split(text, " ") {
		if i > 0 && (strings.HasPrefix(word, "[") || all[len(all)-1] == "(pid") {
			all[len(all)-1] += " " + word
			continue
		}
		all = append(all, word)
	}
	return all
}

// hanging wraps text like wrap, but keeps the blanks that it begins with, for
// every line.
func hanging(text string, width int, indent string) []string {
	rest := strings.TrimLeft(text, " ")
	lead := min(len(text)-len(rest), width/2)
	return shift(wrap(rest, width-lead, indent), strings.Repeat(" ", lead))
}

// wrapper is the state of wrap: the lines done, and the one being filled.
type wrapper struct {
	width  int
	indent string
	lines  []string
	line   string
	filled bool // line holds more than its indent
	gap    bool // the next word has a blank before it
}

func (w *wrapper) add(word string) {
	if w.filled && w.gap {
		if columns(w.line)+1+columns(word) > w.width {
			w.flush()
		} else {
			w.line += " "
		}
	}
	for columns(w.line)+columns(word) > w.width {
		head, tail := split(word, w.width-columns(w.line))
		if head == "" && !w.filled {
			break // not even one character fits: there is no better place
		}
		w.line += head
		w.flush()
		word = tail
	}
	w.line += word
	w.filled = w.filled || word != ""
}

func (w *wrapper) flush() {
	if strings.TrimSpace(w.line) != "" {
		w.lines = append(w.lines, strings.TrimRight(w.line, " "))
	}
	w.line, w.filled = w.indent, false
}

// shift moves lines to the right.
func shift(lines []string, by string) []string {
	for i := range lines {
		lines[i] = by + lines[i]
	}
	return lines
}

// clip keeps the first lines and marks that there were more.
func (s screen) clip(lines []string, most, width int) []string {
	if s.verbose || len(lines) <= most {
		return lines
	}
	lines = lines[:most]
	last := lines[most-1] + " " + s.ellipsis()
	if columns(last) > width {
		head, _ := split(lines[most-1], width-columns(s.ellipsis()))
		last = head + s.ellipsis()
	}
	lines[most-1] = last
	return lines
}
