//go:build linux

package main

import (
	"time"

	"github.com/modtrace/modtrace/holders"
	"github.com/modtrace/modtrace/unload"
)

// explainer says of refused unloads who holds the module, right after the refusal.
type explainer struct {
	btf    string
	finder *holders.Finder // once it is needed
	failed bool            // it cannot be had
	next   time.Time
}

// explainShare is the part of the time, one in so many, that is spent on looking for
// holders: a tool may try again a thousand times a second.
const explainShare = 10

// explain adds the holders of a module that is in use, unless it is too early to
// look again.
func (e *explainer) explain(u *unload.Unload) {
	if r := u.Result.Reason; r != unload.ReasonReferenced && r != unload.ReasonDependents {
		return
	}
	began := time.Now()
	if e.failed || began.Before(e.next) {
		return
	}
	if e.finder == nil {
		var err error
		if e.finder, err = holders.Open(e.btf); err != nil {
			e.failed = true // the unload is reported without
			return
		}
	}
	list, err := e.finder.Why([]string{u.Module})
	e.next = time.Now().Add(explainShare * time.Since(began))
	if err != nil || e.finder.Unable != nil {
		return
	}
	u.Holders, u.HoldersKnown = list[0].Holders, true
	if u.Result.By == unload.ByUserspace { // the kernel said nothing of these
		u.Dependents = list[0].Dependents
	}
}

func (e *explainer) close() error {
	if e.finder == nil {
		return nil
	}
	return e.finder.Close()
}
