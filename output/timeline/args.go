package timeline

import (
	"time"

	"github.com/modtrace/modtrace/output"
	"github.com/modtrace/modtrace/unload"
)

// unloadArgs is what is shown of an attempt beside its slice. Names are those of records.
type unloadArgs struct {
	Verdict    string         `json:"verdict"`
	Result     string         `json:"result"` // unloaded, refused, or unanswered
	Reason     text           `json:"reason,omitempty"`
	Errno      text           `json:"errno,omitempty"`
	By         text           `json:"by,omitempty"`
	Outcome    text           `json:"outcome,omitempty"`
	Start      string         `json:"start"` // wall clock
	Duration   int64          `json:"duration_ns"`
	Caller     callerArgs     `json:"caller"`
	Refcount   int64          `json:"refcount"`
	Flags      []text         `json:"flags,omitempty"`
	Dependents []text         `json:"dependents,omitempty"`
	Notifiers  []notifierArgs `json:"notifiers,omitempty"`
	Devices    []deviceArgs   `json:"devices,omitempty"`
	Convoy     []waiterArgs   `json:"convoy,omitempty"`
	Freed      int64          `json:"freed_bytes"`
	Residue    []text         `json:"residue,omitempty"`
	Complete   bool           `json:"complete"`
	Lost       int64          `json:"lost_events"`
	Missing    []text         `json:"missing,omitempty"`
	NoTime     []text         `json:"phases_without_time,omitempty"`
	// NotPlaced counts phases, log lines and references of the record that are not
	// within its time, and so not on the timeline.
	NotPlaced int `json:"not_placed,omitempty"`
}

type callerArgs struct {
	PID       int    `json:"pid"`
	TID       int    `json:"tid"`
	UID       int    `json:"uid"`
	Comm      text   `json:"comm,omitempty"`
	Cmdline   string `json:"cmdline,omitempty"`
	Cgroup    text   `json:"cgroup,omitempty"`
	Ancestors string `json:"ancestors,omitempty"`
}

type notifierArgs struct {
	Callback text  `json:"callback,omitempty"`
	Module   text  `json:"module,omitempty"`
	Duration int64 `json:"duration_ns"`
	Exact    bool  `json:"exact"`
}

type deviceArgs struct {
	Device   text  `json:"device,omitempty"`
	Driver   text  `json:"driver,omitempty"`
	Duration int64 `json:"duration_ns"`
}

type waiterArgs struct {
	PID      int   `json:"pid"`
	Comm     text  `json:"comm,omitempty"`
	Lock     text  `json:"lock,omitempty"`
	Duration int64 `json:"duration_ns"`
}

type phaseArgs struct {
	Duration int64      `json:"duration_ns"`
	OnCPU    int64      `json:"on_cpu_ns"`
	OffCPU   int64      `json:"off_cpu_ns"`
	Exact    bool       `json:"exact"`
	Merged   []text     `json:"merged,omitempty"`
	Waits    []waitArgs `json:"waits,omitempty"`
	Hot      []hotArgs  `json:"hot,omitempty"`
}

type waitArgs struct {
	Cause     text   `json:"cause,omitempty"`
	Count     int64  `json:"count"`
	Duration  int64  `json:"duration_ns"`
	Longest   int64  `json:"longest_ns"`
	Blocker   string `json:"blocker,omitempty"`
	Waker     string `json:"waker,omitempty"`
	Stack     stack  `json:"stack,omitempty"`
	Callbacks int64  `json:"callbacks,omitempty"`
}

type hotArgs struct {
	Samples int64 `json:"samples"`
	Stack   stack `json:"stack,omitempty"`
}

type logArgs struct {
	Text  text `json:"text"`
	Level int  `json:"level"`
	Phase text `json:"phase,omitempty"`
}

type referenceArgs struct {
	Op     text  `json:"op"`
	Module text  `json:"module"`
	Site   text  `json:"site,omitempty"`
	Count  int64 `json:"count"`
	Phase  text  `json:"phase,omitempty"`
}

type stallArgs struct {
	Phase   text       `json:"phase"`
	Elapsed int64      `json:"elapsed_ns"`
	Found   bool       `json:"found"`
	Wait    *waitArgs  `json:"wait,omitempty"`
	Caller  callerArgs `json:"caller"`
	Time    string     `json:"time"`
}

type reloadArgs struct {
	After  int64      `json:"after_ns"`
	Loader callerArgs `json:"loader"`
	Time   string     `json:"time"`
}

func argsOf(u unload.Unload, a attempt) unloadArgs {
	args := unloadArgs{
		Verdict: output.Verdict(u), Result: "unanswered",
		Reason: text(u.Result.Reason), Errno: text(u.Result.Errno), By: text(u.Result.By), Outcome: text(u.Outcome),
		Start: wall(u.Start), Duration: u.Duration, Caller: callerArgsOf(u.Caller), Refcount: u.Refcount.Before,
		Flags: texts(u.Flags), Dependents: texts(u.Dependents),
		Freed: u.Memory.Freed, Residue: texts(u.Residue),
		Complete: u.Complete, Lost: u.LostEvents, Missing: texts(u.Missing), NoTime: a.noTime, NotPlaced: a.leftOut,
	}
	switch {
	case u.Result.Kind() == unload.Unloaded:
		args.Result = "unloaded"
	case u.Result.Kind() == unload.Refused:
		args.Result = "refused"
	}
	for _, n := range u.Notifiers {
		args.Notifiers = append(args.Notifiers, notifierArgs{text(n.Callback), text(n.Module), n.Duration, n.Exact})
	}
	for _, d := range u.Devices {
		args.Devices = append(args.Devices, deviceArgs{text(d.Device), text(d.Driver), d.Duration})
	}
	for _, w := range u.Convoy {
		args.Convoy = append(args.Convoy, waiterArgs{w.PID, text(w.Comm), text(w.Lock), w.Duration})
	}
	return args
}

func callerArgsOf(c unload.Caller) callerArgs {
	return callerArgs{
		PID: c.PID, TID: c.TID, UID: c.UID, Comm: text(c.Comm),
		Cmdline: output.CommandLine(c), Cgroup: text(c.Cgroup), Ancestors: output.Parents(c),
	}
}

func phaseArgsOf(p unload.Phase) phaseArgs {
	a := phaseArgs{Duration: p.Duration, OnCPU: p.OnCPU, OffCPU: p.OffCPU, Exact: p.Exact, Merged: texts(p.Merged)}
	for _, w := range p.Waits {
		a.Waits = append(a.Waits, waitArgsOf(w))
	}
	for _, h := range p.Hot {
		a.Hot = append(a.Hot, hotArgs{h.Samples, h.Stack})
	}
	return a
}

func waitArgsOf(w unload.Wait) waitArgs {
	return waitArgs{
		Cause: text(w.Cause), Count: w.Count, Duration: w.Duration, Longest: w.Longest,
		Blocker: output.Agent(w.Blocker), Waker: output.Agent(w.Waker), Stack: w.Stack, Callbacks: w.Callbacks,
	}
}

func stallArgsOf(st unload.Stall) stallArgs {
	a := stallArgs{
		Phase: text(st.Phase), Elapsed: st.Elapsed, Found: st.Found, Caller: callerArgsOf(st.Caller),
		Time: wall(st.Start.Add(time.Duration(st.Duration))),
	}
	if st.Wait.Count > 0 {
		w := waitArgsOf(st.Wait)
		a.Wait = &w
	}
	return a
}

func reloadArgsOf(r unload.Reload) reloadArgs {
	return reloadArgs{After: r.After, Loader: callerArgsOf(r.Loader), Time: wall(r.Start)}
}

func wall(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
