package page

import (
	"math"
	"strconv"
	"time"

	"github.com/modtrace/modtrace/output"
)

// overview shows every attempt that is kept as a point: when it began, and how long it
// took, on a scale on which each step is ten times the one before.
type overview struct {
	Points []point
	Times  []tick
	Scale  []level
	Height int
}

type point struct {
	ID    int64
	X     percent
	Y     string // px
	State state
	Tip   string
}

type level struct {
	Y    int
	Text string
}

const (
	decade = 26 // px for a factor of ten
	margin = 14
)

func newOverview(kept []*entry) *overview {
	const worthwhile = 4
	var first, last time.Time
	low, high := math.MaxFloat64, 0.0
	n := 0
	for _, e := range kept {
		t := e.record.Start
		if t.IsZero() {
			continue
		}
		n++
		if first.IsZero() || t.Before(first) {
			first = t
		}
		if t.After(last) {
			last = t
		}
		low, high = min(low, decades(e.duration)), max(high, decades(e.duration))
	}
	if n < worthwhile {
		return nil
	}
	low, high = math.Floor(low), max(math.Ceil(high), math.Floor(low)+2)
	o := &overview{Height: int(high-low)*decade + 2*margin, Times: clock(first, last)}
	for l := low; l <= high; l++ {
		o.Scale = append(o.Scale, level{int(high-l)*decade + margin, tickText(math.Pow(10, l))})
	}
	span := since(last, first)
	for _, e := range kept {
		if e.record.Start.IsZero() {
			continue
		}
		x := 50.0
		if span > 0 {
			x = 1 + 98*since(e.record.Start, first)/span
		}
		y := (high-decades(e.duration))*decade + margin
		o.Points = append(o.Points, point{
			e.seq, percent(x), strconv.FormatFloat(y, 'f', 1, 64), e.state,
			output.Name(e.record.Module) + ", " + e.state.Label() + ", " + output.Duration(e.record.Duration),
		})
	}
	return o
}

// decades is the logarithm of a time, of which no more than a microsecond counts.
func decades(ns int64) float64 { return math.Log10(max(float64(ns), 1e3)) }

// since is in seconds, also where a [time.Duration] would overflow.
func since(t, start time.Time) float64 {
	return float64(t.Unix()-start.Unix()) + float64(t.Nanosecond()-start.Nanosecond())/1e9
}

// clock gives some round times between two.
func clock(first, last time.Time) []tick {
	span := since(last, first)
	if span <= 0 {
		return nil
	}
	steps := []float64{1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 3 * 3600, 6 * 3600, 12 * 3600,
		86400, 2 * 86400, 7 * 86400, 30 * 86400, 365 * 86400}
	format := "15:04:05"
	step := span
	for _, s := range steps {
		if span/s <= 7 {
			step = s
			break
		}
	}
	switch {
	case step >= 86400:
		format = "2006-01-02"
	case span >= 86400:
		format = "Jan 2 15:04"
	case step >= 60:
		format = "15:04"
	}
	var all []tick
	at := math.Ceil(float64(first.Unix())/step) * step
	for i := 0; at <= float64(last.Unix())+1 && i < 8; i++ {
		x := percent(1 + 98*(at-float64(first.Unix()))/span)
		if x >= 0 && x <= 100 {
			all = append(all, tick{X: x, Text: time.Unix(int64(at), 0).UTC().Format(format), Odd: i%2 == 1, End: x > 92})
		}
		at += step
	}
	return all
}
