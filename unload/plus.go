package unload

import "math"

// Plus adds what cannot be less than 0, and stops at the greatest number there is: the
// numbers of a capture can be anything.
func Plus(a, b int64) int64 {
	a, b = max(a, 0), max(b, 0)
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}
