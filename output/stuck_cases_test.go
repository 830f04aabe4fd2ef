package output

import "github.com/modtrace/modtrace/unload"

// stuck are unloads that were found hanging.
func stuck() []stall {
	work := unload.Wait{
		Cause: unload.CauseWorkqueue, Count: 1, Duration: 5.2e9, Longest: 5.2e9,
		Blocker: unload.Blocker{Kind: unload.KindWork, PID: 12, Comm: "kworker/0:1+events", Function: "hang_work_fn", Module: "hang", Detail: "events",
			Stack: []string{"process_one_work+0x179", "worker_thread+0x33e"}},
		Stack: []string{"schedule+0x27", "schedule_timeout+0x12f", "wait_for_completion+0x8a", "__flush_work+0x269", "__do_sys_delete_module+0x1b8"},
	}
	workers := work
	workers.Blocker.PID, workers.Blocker.Comm, workers.Blocker.Candidates, workers.Blocker.Stack = 0, "", 3, nil
	return []stall{
		{"stuck-work", foundHanging(work)},
		{"stuck-workers", foundHanging(workers)},
		{"stuck-threads", foundHanging(unload.Wait{Cause: unload.CauseKthreadStop, Count: 1, Duration: 5.2e9, Blocker: unload.Blocker{Kind: unload.KindTask, Candidates: 2}})},
		{"stuck-netdev", foundHanging(unload.Wait{
			Cause: unload.CauseNetdevUsers, Count: 1, Duration: 5.2e9, Blocker: unload.Blocker{Kind: unload.KindInterface, Detail: "hang0", Users: 2},
			Stack: []string{"msleep+0x2b", "netdev_run_todo+0x333", "hang_in_netdev+0x15 [hang]"},
		})},
		{"stuck-only-one", foundHanging(unload.Wait{
			Cause: unload.CauseCompletion, Count: 1, Duration: 5.2e9, Stack: []string{"wait_for_completion+0x8a", "hang_exit+0x15 [hang]"},
			Blocker: unload.Blocker{Kind: unload.KindTask, PID: 77, Comm: "hang-helper", Detail: "the only task in the module's code", Stack: []string{"helper+0x31 [hang]"}},
		})},
		{"stuck-running", foundHanging(unload.Wait{})},
		{"stuck-unknown", unload.Stall{Unload: unload.Unload{Module: "hang", Outcome: unload.InFlight}, Found: true}},
		{"stuck-dead", dead()},
		{"stuck-dead-unknown", unload.Stall{Unload: unload.Unload{Module: "oops", Outcome: unload.Died}, Found: true}},
	}
}

// foundHanging hangs in its exit function, nobody knows since when.
func foundHanging(w unload.Wait) unload.Stall {
	st := stalled(w)
	st.Phases, st.Found = nil, true
	st.Elapsed, st.Duration = w.Duration, w.Duration
	st.Missing = []string{"it was found, not watched from its beginning"}
	if w.Count == 0 {
		st.Phases = []unload.Phase{{Name: unload.Exit, Hot: []unload.Hot{{Samples: 3, Stack: []string{"hang_spin+0x11 [hang]"}}}}}
	}
	return st
}

// dead was left by a task that died.
func dead() unload.Stall {
	st := foundHanging(unload.Wait{})
	st.Module, st.Outcome, st.Elapsed, st.Phases = "oops", unload.Died, 15.6e9, nil
	st.Caller = unload.Caller{PID: 176, TID: 176, Comm: "rmmod"}
	st.Wait.Stack = []string{"bad_exit+0x12 [oops]", "__do_sys_delete_module+0x1b8"}
	st.Log = []unload.LogLine{
		{Phase: unload.Exit, Level: 1, Text: "BUG: kernel NULL pointer dereference, address: 0000000000000008"},
		{Phase: unload.Exit, Level: 4, Text: "RIP: 0010:bad_exit+0x12/0xff0 [oops]"},
	}
	return st
}
