package timeline

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/modtrace/modtrace/output"
)

// event is one of Chrome's trace events, in the words of its format ("Trace Event
// Format", the JSON array format).
type event struct {
	Name     string `json:"name"`
	Category string `json:"cat,omitempty"`
	Phase    string `json:"ph"`
	Time     *stamp `json:"ts,omitempty"`
	Duration *stamp `json:"dur,omitempty"`
	PID      uint32 `json:"pid"`
	TID      uint32 `json:"tid"`
	ID       int64  `json:"id,omitempty"`
	Scope    string `json:"s,omitempty"`
	Bind     string `json:"bp,omitempty"`
	Args     any    `json:"args,omitempty"`
}

// The phases of events that are used here.
const (
	complete  = "X"
	instant   = "i"
	metadata  = "M"
	flowStart = "s"
	flowEnd   = "f"
)

// stamp is a time or duration in nanoseconds. The format counts in microseconds.
type stamp int64

// MarshalJSON writes microseconds with a fraction, digit by digit: a float64 in between
// would lose some.
func (s stamp) MarshalJSON() ([]byte, error) {
	if s%1000 == 0 {
		return fmt.Appendf(nil, "%d", int64(s)/1000), nil
	}
	return fmt.Appendf(nil, "%d.%03d", int64(s)/1000, int64(s)%1000), nil
}

// text is from a capture: what it hides becomes visible.
type text string

// MarshalJSON writes it so that it is safe to print.
func (t text) MarshalJSON() ([]byte, error) { return json.Marshal(output.Clean(string(t))) }

// stack is shown as one text, a frame a line.
type stack []string

// MarshalJSON writes it so that each frame is safe to print.
func (s stack) MarshalJSON() ([]byte, error) {
	lines := make([]string, len(s))
	for i, frame := range s {
		lines[i] = output.Clean(frame)
	}
	return json.Marshal(strings.Join(lines, "\n"))
}

// texts makes a list safe to print.
func texts[T ~string](all []T) []text {
	list := make([]text, len(all))
	for i, t := range all {
		list[i] = text(t)
	}
	return list
}

// longestName bounds what is written beside a slice, in characters.
const longestName = 120

// name makes a name of text from a capture.
func name(from string) string {
	clean, count := output.Clean(from), 0
	for i := range clean {
		if count == longestName {
			return clean[:i] + "…"
		}
		count++
	}
	return clean
}
