package unload

// Answer is what a caller can meet with.
type Answer int

// The answers.
const (
	Unanswered Answer = iota // none was seen: it hangs, its task died, or the record was lost
	Unloaded
	Refused
)

// Answer says what the caller met with. A record of a tool that refused by itself has no
// error number, and one whose end was lost has neither that nor a reason.
func (u *Unload) Answer() Answer {
	switch r := u.Result; {
	case r.OK:
		return Unloaded
	case r.Errno != "" || r.By == ByUserspace:
		return Refused
	case r.Reason == "" || r.Reason == ReasonNone || r.Reason == ReasonUnknown:
		return Unanswered
	}
	return Refused
}

// String is the answer in a word.
func (a Answer) String() string {
	switch a {
	case Unloaded:
		return "unloaded"
	case Refused:
		return "refused"
	}
	return "unanswered"
}

// MarshalText writes the answer in a word.
func (a Answer) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads what MarshalText wrote; any other word is [Unanswered].
func (a *Answer) UnmarshalText(text []byte) error {
	*a = Unanswered
	for _, one := range []Answer{Unloaded, Refused} {
		if string(text) == one.String() {
			*a = one
		}
	}
	return nil
}
