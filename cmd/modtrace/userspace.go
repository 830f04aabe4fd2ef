package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/modtrace/modtrace/holders"
	"github.com/modtrace/modtrace/unload"
)

// refusedItself reports what rmmod and modprobe -r refuse without asking the kernel,
// which they do for a module whose count is not 0: those that the command names and
// that are in use when it has failed.
func (s *session) refusedItself(child *exec.Cmd, began time.Time) error {
	if child.ProcessState == nil || child.ProcessState.Success() {
		return nil
	}
	for _, name := range modulesOf(child.Args) {
		if s.asked[name] {
			continue
		}
		u := itself(child, began)
		u.Module, u.Result.Reason = name, unload.ReasonReferenced
		s.holders.next = time.Time{} // there are only so many
		s.holders.explain(&u)
		if u.Refcount.Before == 0 {
			continue // it failed for another reason
		}
		if len(u.Dependents) > 0 {
			u.Result.Reason = unload.ReasonDependents
		}
		s.own++
		if err := s.report(u); err != nil {
			return err
		}
	}
	return nil
}

// modulesOf are the modules that a command line asks to be unloaded, if it is one
// that does so.
func modulesOf(args []string) (names []string) {
	rest := args[1:]
	removes := func(arg string) bool { return arg == "-r" || arg == "--remove" }
	switch filepath.Base(args[0]) {
	case "rmmod":
	case "modprobe":
		if !slices.ContainsFunc(rest, removes) {
			return nil
		}
	default:
		return nil
	}
	for _, arg := range rest {
		if name, err := holders.Name(arg); err == nil && !strings.HasPrefix(arg, "-") {
			names = append(names, name)
		}
	}
	return names
}

// itself is a refusal by the command.
func itself(child *exec.Cmd, began time.Time) unload.Unload {
	return unload.Unload{
		Type: unload.TypeUnload, Start: began.UTC(), Outcome: unload.Returned,
		Result: unload.Result{By: unload.ByUserspace},
		Caller: unload.Caller{
			PID: child.ProcessState.Pid(), TID: child.ProcessState.Pid(), PPID: os.Getpid(), UID: os.Getuid(),
			Comm: filepath.Base(child.Args[0]), Exe: child.Path, Cmdline: child.Args,
			Ancestors: []unload.Ancestor{{PID: os.Getpid(), Comm: "modtrace"}},
		},
		Complete: true,
	}
}
