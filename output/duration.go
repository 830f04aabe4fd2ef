package output

import (
	"fmt"
	"math"
	"strconv"
)

// duration writes ns for a sentence, with no more digits than the eye takes in
// at once.
func (s screen) duration(ns int64) string {
	const second = 1e9
	switch whole := ns / second; {
	case whole >= 3600:
		return fmt.Sprintf("%d h %d min", whole/3600, whole%3600/60)
	case whole >= 60:
		return fmt.Sprintf("%d min %d s", whole/60, whole%60)
	}
	for _, u := range []unit{{name: "s", ns: second}, {name: "ms", ns: 1e6}, {name: s.micro(), ns: 1e3}} {
		// What would be rounded up to 1000 ms is a second.
		if x := float64(ns) / float64(u.ns); x >= 0.9995 {
			return significant(x) + " " + u.name
		}
	}
	return fmt.Sprintf("%d ns", ns)
}

// significant writes x with one decimal when it is short of a hundred.
func significant(x float64) string {
	if x < 99.95 {
		return strconv.FormatFloat(x, 'f', 1, 64)
	}
	return strconv.FormatFloat(x, 'f', 0, 64)
}

// micro is the short name of a microsecond.
func (s screen) micro() string {
	if s.ascii {
		return "us"
	}
	return "µs"
}

// unit is what all the times of one table are in, so that they can be
// compared by eye.
type unit struct {
	name string
	ns   int64
	step int64 // the smallest difference that is shown, in ns
}

// unitFor picks the unit for times that add up to total.
func (s screen) unitFor(total int64) unit {
	switch {
	case total >= 10e9:
		return unit{"s", 1e9, 1e6}
	case total >= 1e6:
		return unit{"ms", 1e6, 1e3}
	}
	return unit{s.micro(), 1e3, 1e2}
}

// time writes ns for a column: - for nothing at all, which is not the same as
// less than can be shown.
func (u unit) time(ns int64) string {
	switch {
	case ns == 0:
		return "-"
	case ns > 0 && ns < u.step/2:
		return "<" + u.format(u.step)
	}
	return u.format(ns)
}

func (u unit) format(ns int64) string {
	decimals := int(math.Log10(float64(u.ns / u.step)))
	return strconv.FormatFloat(float64(ns)/float64(u.ns), 'f', decimals, 64)
}

// share writes the part that ns is of total for a column. Only all of it is
// 100%, and only nothing is a dash.
func share(ns, total int64) string {
	if ns == 0 || total <= 0 {
		return "-"
	}
	percent := 100 * float64(ns) / float64(total)
	if percent > 0 && percent < 0.05 {
		return "<0.1%"
	}
	if ns < total {
		percent = math.Min(percent, 99.9)
	}
	return strconv.FormatFloat(percent, 'f', 1, 64) + "%"
}

// percent writes a share for a sentence.
func percent(ns, total int64) string {
	p := math.Round(100 * float64(ns) / float64(total))
	if ns < total {
		p = math.Min(p, 99)
	}
	return strconv.FormatFloat(p, 'f', 0, 64) + "%"
}
