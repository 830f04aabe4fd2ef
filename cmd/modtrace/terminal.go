package main

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/modtrace/modtrace/output"
)

func (c *cli) tableOptions() output.TableOptions {
	return output.TableOptions{
		Width:   columns(c.stdout),
		Color:   c.color == "always" || c.color == "auto" && os.Getenv("NO_COLOR") == "" && isTerminal(c.stdout),
		ASCII:   !speaksUTF8(),
		Verbose: c.verbose,
	}
}

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// columns is the terminal's width, or what COLUMNS says, or 80.
func columns(f *os.File) int {
	if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
		return width
	}
	var n int
	if _, err := fmt.Sscanf(os.Getenv("COLUMNS"), "%d", &n); err == nil && n > 0 {
		return n
	}
	return 80
}

// speaksUTF8 goes by the locale as locale(7) ranks its variables.
func speaksUTF8() bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := os.Getenv(name); v != "" {
			v = strings.ToUpper(v)
			return strings.Contains(v, "UTF-8") || strings.Contains(v, "UTF8")
		}
	}
	return false
}
