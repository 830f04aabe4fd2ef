package timeline

import "time"

// clock places times on the timeline.
//
// Those who read the format keep times as float64 microseconds. The years since 1970 leave
// no room for nanoseconds in these, so that times count from an origin: midnight UTC, a
// month before the first record. What is before that cannot be shown, because negative
// times are not read.
type clock struct{ origin time.Time }

const (
	day    = 24 * time.Hour
	margin = 31 * day
	// exact is how far from the origin each nanosecond has a float64 of its own, when it
	// is read as microseconds, multiplied and rounded: 2^43 µs, 101 days.
	exact = int64(1) << 43 * 1000
	// lasting bounds durations: nobody waits longer.
	lasting = int64(50 * 365 * day)
)

// Years that a clock can be in; a machine without a battery starts in 1970.
const (
	firstYear = 1970
	lastYear  = 2169 // all of them are in reach of a time.Duration
)

// at gives the nanoseconds from the origin to t, or says that t cannot be shown.
func (c *clock) at(t time.Time) (int64, bool) {
	if y := t.UTC().Year(); y < firstYear || y > lastYear {
		return 0, false
	}
	if c.origin.IsZero() {
		c.origin = t.UTC().Add(-margin).Truncate(day)
	}
	ns := int64(t.Sub(c.origin))
	return ns, ns >= 0
}

// place makes a stamp of a time that can be shown. Far from the origin it is one of whole
// microseconds, which are read as integers: nanoseconds would be moved there, by no more
// than that but some one way and some the other, and slices that follow each other would
// overlap.
func place(ns int64) stamp {
	if ns >= exact {
		ns -= ns % 1000
	}
	return stamp(ns)
}
