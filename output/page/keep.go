package page

import (
	"cmp"
	"slices"

	"github.com/modtrace/modtrace/unload"
)

// state is how an attempt ended, as the page tells it. Its values are names of CSS
// classes too.
type state string

const (
	stateUnloaded state = "unloaded"
	stateRefused  state = "refused"
	stateHanging  state = "hanging" // not back when tracing ended
	stateDied     state = "died"    // its task died in the kernel
	stateUnseen   state = "unseen"  // the record of its end was lost
)

func states() []state {
	return []state{stateUnloaded, stateRefused, stateHanging, stateDied, stateUnseen}
}

func stateOf(u unload.Unload) state {
	switch {
	case u.Result.Kind() == unload.Unloaded:
		return stateUnloaded
	case u.Result.Kind() == unload.Refused:
		return stateRefused
	case u.Outcome == unload.InFlight:
		return stateHanging
	case u.Outcome == unload.Died:
		return stateDied
	}
	return stateUnseen
}

// like is the state that is as grave.
func (s state) like() state {
	if s == stateHanging {
		return stateDied
	}
	return s
}

// answered says that the caller got an answer.
func (s state) answered() bool { return s == stateUnloaded || s == stateRefused }

// entry is an attempt that is kept.
type entry struct {
	seq         int64 // in the order in which they came, from 1
	capture     *recording
	state       state
	duration    int64
	hang        *hang // that was reported meanwhile
	verdict     string
	record      unload.Unload // what there is room for
	more        rest          // what there was no room for
	unexplained int64         // references whose holder was not found
	dropped     bool
}

// graver orders attempts: those that never came back, refusals, those of which the end
// was not seen, and the rest; of each the longest first.
func graver(a, b *entry) int {
	rank := func(e *entry) int {
		return slices.Index([]state{stateDied, stateRefused, stateUnseen, stateUnloaded}, e.state.like())
	}
	return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(b.duration, a.duration), cmp.Compare(a.seq, b.seq))
}

// keep keeps the gravest attempts. Neither refusals, of which there may be a storm, nor
// the others get more than half of the room while there is not enough for both.
type keep struct {
	most    int
	trouble []*entry // gravest first
	slow    []*entry // longest first
	left    int64    // out
}

// offer keeps an entry if there is room for it, or it is graver than one that is kept.
// Fill is called before that.
func (k *keep) offer(e *entry, fill func()) {
	list := &k.slow
	if e.state != stateUnloaded {
		list = &k.trouble
	}
	full := len(k.slow)+len(k.trouble) >= k.most
	if n := len(*list); full && n > 0 && n >= k.share(list) && graver(e, (*list)[n-1]) > 0 {
		e.dropped = true
		k.left++
		return
	}
	fill()
	at, _ := slices.BinarySearchFunc(*list, e, graver)
	*list = slices.Insert(*list, at, e)
	if len(k.slow)+len(k.trouble) > k.most {
		k.drop()
	}
}

// share is how many of a list are safe.
func (k *keep) share(list *[]*entry) int {
	if list == &k.trouble {
		return (k.most + 1) / 2
	}
	return k.most / 2
}

func (k *keep) drop() {
	list := &k.slow
	if len(k.trouble) > k.share(&k.trouble) {
		list = &k.trouble
	}
	last := len(*list) - 1
	e := (*list)[last]
	(*list)[last] = nil
	*list = (*list)[:last]
	e.dropped, e.record = true, unload.Unload{}
	k.left++
}

// all gives what is kept, gravest first.
func (k *keep) all() []*entry {
	return slices.SortedFunc(slices.Values(slices.Concat(k.trouble, k.slow)), graver)
}
