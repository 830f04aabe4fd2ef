package object

// Unable says that this machine, or this user on it, cannot trace: what was
// tried, why it is thought to have failed, and what would help.
type Unable struct {
	What   string
	Why    string
	Remedy string
	Err    error // what the kernel or a library said, for those who debug; may be nil
}

func (e *Unable) Error() string { return e.What + ": " + e.Why }

// Explain gives the parts by themselves.
func (e *Unable) Explain() (what, why, remedy string) { return e.What, e.Why, e.Remedy }

func (e *Unable) Unwrap() error { return e.Err }
