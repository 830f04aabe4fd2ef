package diff

// tailTest asks whether one side has more than its part of the slowest twentieth of all
// unloads: what hangs once in ten times leaves the median where it was, and hardly moves
// the ranks. The bound is that of both sides together, so that it does not depend on which
// is which, and those beyond it are dealt out to the sides as failures are (the quantile
// test of Johnson, Verrill and Moore, "Two-Sample Rank Tests for Detecting Changes That
// Occur in a Small Proportion of the Treated Population", Biometrics 43, 1987).
func tailTest(all []tie) tested {
	const slowest = 20 // one of so many
	var old, now int64
	for _, t := range all {
		old, now = old+t.old, now+t.now
	}
	most := (old + now) / slowest
	var beyond tie
	for i := len(all) - 1; i >= 0 && beyond.size()+all[i].size() <= most; i-- {
		beyond.old, beyond.now = beyond.old+all[i].old, beyond.now+all[i].now
	}
	return fisher(beyond.old, old, beyond.now, now)
}
