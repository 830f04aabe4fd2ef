package output

import "github.com/modtrace/modtrace/unload"

// Reload prints who brought a module back.
func (t *table) Reload(r unload.Reload) error { return t.print(t.sentence(plain, t.returned(r))) }

// returned answers in one line who loaded a module again, and how soon.
func (s screen) returned(r unload.Reload) string {
	by := s.who(unload.Blocker{PID: r.Loader.PID, Comm: r.Loader.Comm})
	text := s.name(r.Module, longestName) + " was loaded again " + s.duration(r.After) + " later by " +
		either("", by, "a task that is not known")
	if len(r.Loader.Ancestors) > 0 {
		parent := r.Loader.Ancestors[0]
		text += suffix(", started by ", s.who(unload.Blocker{PID: parent.PID, Comm: parent.Comm}))
	}
	return text
}
