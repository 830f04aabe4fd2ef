package page

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/modtrace/modtrace/cause"
	"github.com/modtrace/modtrace/output"
	"github.com/modtrace/modtrace/unload"
)

// flame is a drawing of stacks: who called stands above who was called, and the wider a
// function the more of the weight fell into it.
type flame struct {
	Title  string
	Label  string // in words what it shows
	Boxes  []box
	Height int // px
	Small  int // boxes that are too narrow to be drawn
	None   string
}

type box struct {
	X, W percent
	Y    int // px
	Text string
	Tip  string
	Ink  ink
}

const (
	boxHeight = 18  // px
	narrowest = 0.3 // percent; what is below is not drawn
	readable  = 2.5 // percent; what is below has no text
	mostBoxes = 400
)

// frame is a function within a flame.
type frame struct {
	name     string
	ink      ink
	weight   int64
	children []*frame
}

func (f *frame) child(name string, i ink) *frame {
	for _, c := range f.children {
		if c.name == name && c.ink == i {
			return c
		}
	}
	c := &frame{name: name, ink: i}
	f.children = append(f.children, c)
	return c
}

// frameInk sets off, from those of the kernel, the functions of modules, which are what one looks for.
func frameInk(frame string) ink {
	if cause.Module(frame) != "" {
		return ink{Class: "f-module"}
	}
	return ink{}
}

// put adds a stack, innermost frame first.
func (f *frame) put(stack []string, weight int64) *frame {
	f.weight = unload.Plus(f.weight, weight)
	for _, text := range slices.Backward(stack) {
		f = f.child(output.Frame(text), frameInk(text))
		f.weight = unload.Plus(f.weight, weight)
	}
	return f
}

// waitFlame draws where an attempt waited, by time; at the bottom of each stack stands
// the cause.
func waitFlame(u unload.Unload) *flame {
	root := &frame{name: "all waits", ink: ink{Class: "f-root"}}
	without := int64(0)
	for _, p := range u.Phases {
		for _, w := range p.Waits {
			if len(w.Stack) == 0 {
				without = unload.Plus(without, w.Duration)
				continue
			}
			leaf := root.put(w.Stack, w.Duration).child(string(known(w.Cause)), inkOf(w.Cause))
			leaf.weight = unload.Plus(leaf.weight, w.Duration)
		}
	}
	f := draw(root, output.Duration)
	if f == nil {
		return nil
	}
	f.Title = "Where it waited"
	f.Label = "Waits of " + output.Duration(root.weight) + " by stack, outermost function on top; width is time"
	if without > 0 {
		f.None = output.Duration(without) + " more of waits without a stack"
	}
	return f
}

// hotFlame draws where an attempt ran, by samples.
func hotFlame(u unload.Unload) *flame {
	root := &frame{name: "all samples", ink: ink{Class: "f-root"}}
	without := int64(0)
	for _, p := range u.Phases {
		for _, h := range p.Hot {
			if len(h.Stack) == 0 {
				without = unload.Plus(without, h.Samples)
				continue
			}
			root.put(h.Stack, h.Samples)
		}
	}
	samples := func(n int64) string { return output.Count(n, "sample", "samples") }
	f := draw(root, samples)
	if f == nil {
		return nil
	}
	f.Title = "Where it ran"
	f.Label = samples(root.weight) + " of the task running by stack, outermost function on top; width is the number of samples"
	if without > 0 {
		f.None = samples(without) + " more without a stack"
	}
	return f
}

// draw lays a tree of frames out, or gives nil if there is nothing to it.
func draw(root *frame, weight func(int64) string) *flame {
	if root.weight <= 0 {
		return nil
	}
	f := &flame{}
	f.lay(root, 0, 0, root.weight, weight)
	for _, b := range f.Boxes {
		f.Height = max(f.Height, b.Y+boxHeight)
	}
	return f
}

func (f *flame) lay(at *frame, x percent, depth int, whole int64, weight func(int64) string) {
	w := part(at.weight, whole)
	if w < narrowest || len(f.Boxes) >= mostBoxes {
		f.Small++
		return
	}
	b := box{X: x, W: w, Y: depth * boxHeight, Ink: at.ink}
	b.Tip = fmt.Sprintf("%s: %s, %s", at.name, weight(at.weight), output.Share(at.weight, whole))
	if w >= readable {
		b.Text = at.name
	}
	f.Boxes = append(f.Boxes, b)
	slices.SortStableFunc(at.children, func(a, b *frame) int { return cmp.Compare(b.weight, a.weight) })
	for _, c := range at.children {
		f.lay(c, x, depth+1, whole, weight)
		x += part(c.weight, whole)
	}
}
