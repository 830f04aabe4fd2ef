//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/modtrace/modtrace/holders"
	"github.com/modtrace/modtrace/object"
	"github.com/modtrace/modtrace/output"
	"github.com/modtrace/modtrace/unload"
)

func (c *cli) whyCommand() *cobra.Command {
	w := &whyOptions{}
	cmd := &cobra.Command{
		Use:   "why [flags] MODULE...",
		Short: "Say who holds a module now, without unloading it",
		Long: `Say who holds each module now: other modules, and the processes that have its
files, mappings, mounts, sockets, terminals or disks in use, in every container.
Every reference that the kernel counts is accounted for; what is not found is said
to be unexplained. Nothing is unloaded, and no reference is taken. A path to a .ko
file stands for the module in it, and "-" and "_" are the same.

The exit status is that of the first module that cannot be unloaded:
   0  each can be unloaded now
  10  in use
  11  not loaded
  12  can never be unloaded: built in, no exit function, or unloading disabled
  13  being loaded or unloaded right now`,
		Example: `  sudo modtrace why tun
  sudo modtrace why --json kvm_intel | jq -r '.holders[] | [.pid, .comm, .path] | @tsv'
  sudo modtrace why --wait 10s loop && sudo rmmod loop
  sudo modtrace why --watch tun`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("why needs the name of a module")
			}
			if w.wait < 0 {
				return fmt.Errorf("--wait is %v: it takes a duration", w.wait)
			}
			if w.watch && w.wait > 0 {
				return errors.New("--watch and --wait cannot be given together: the one reports each change, the other once")
			}
			for _, word := range args {
				if _, err := holders.Name(word); err != nil {
					return err
				}
			}
			return nil
		},
		RunE:              func(_ *cobra.Command, args []string) error { return c.why(args, *w) },
		ValidArgsFunction: loadedModules,
	}
	cmd.Flags().BoolVar(&w.watch, "watch", false, "report again whenever the holders change, until each can be unloaded")
	cmd.Flags().DurationVar(&w.wait, "wait", 0, "wait for up to `DURATION` until each can be unloaded, then report once")
	return cmd
}

// whyOptions say how long to go on asking.
type whyOptions struct {
	watch bool
	wait  time.Duration
}

// loadedModules completes names.
func loadedModules(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	b, err := os.ReadFile("/proc/modules")
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for line := range strings.Lines(string(b)) {
		name, _, _ := strings.Cut(line, " ")
		names = append(names, name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func (c *cli) why(words []string, o whyOptions) (err error) {
	if err := object.HasModules(); err != nil {
		return err
	}
	f, err := holders.Open(c.btf)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	ctx, _ := interruptible()
	a := &asking{cli: c, finder: f, words: words, report: c.onStdout()}
	code := 0
	switch {
	case o.watch:
		code, err = a.watch(ctx)
	default:
		code, err = a.wait(ctx, time.Now().Add(o.wait))
	}
	if err != nil {
		return err
	}
	if f.Unable != nil && (code == 0 || code == exitInUse) {
		return fmt.Errorf("who holds it cannot be seen: %w", f.Unable)
	}
	if code != 0 {
		return &status{code: code}
	}
	return nil
}

// asking asks the same again.
type asking struct {
	*cli
	finder *holders.Finder
	words  []string
	report output.Report
}

// askEvery is how often.
const askEvery = 200 * time.Millisecond

// wait asks until nothing can come of waiting any more, and reports that.
func (a *asking) wait(ctx context.Context, end time.Time) (int, error) {
	for {
		list, err := a.finder.Why(a.words)
		if err != nil {
			return 0, err
		}
		if code := firstCode(list); !mayChange(code) || ctx.Err() != nil || !time.Now().Before(end) {
			return code, a.tell(list)
		}
		pause(ctx, askEvery)
	}
}

// watch reports whenever the answer changes, until nothing can come of it any more.
func (a *asking) watch(ctx context.Context) (int, error) {
	before := ""
	for {
		list, err := a.finder.Why(a.words)
		if err != nil {
			return 0, err
		}
		if now := answer(list); now != before {
			before = now
			if err := a.tell(list); err != nil {
				return 0, err
			}
		}
		if code := firstCode(list); !mayChange(code) || ctx.Err() != nil {
			return code, nil
		}
		pause(ctx, askEvery)
	}
}

// answer is what is the same as long as the answer is: all but the time.
func answer(list []unload.Why) string {
	var b strings.Builder
	for _, w := range list {
		w.Time = time.Time{}
		fmt.Fprintf(&b, "%+v\n", w)
	}
	return b.String()
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func (a *asking) tell(list []unload.Why) error {
	for _, w := range list {
		if err := a.report.Why(w); err != nil {
			return unwritable(err)
		}
	}
	return nil
}

// mayChange says that it may be another once somebody lets go.
func mayChange(code int) bool { return code == exitInUse || code == exitChanging }

// firstCode is the exit status for the first module that cannot be unloaded.
func firstCode(list []unload.Why) int {
	for _, w := range list {
		if code := codeOf(w.Reason); code != 0 {
			return code
		}
	}
	return 0
}

// codeOf is the exit status that stands for a reason.
func codeOf(r unload.Reason) int {
	switch r {
	case unload.ReasonNone:
		return 0
	case unload.ReasonNotFound:
		return exitNotLoaded
	case unload.ReasonBuiltIn, unload.ReasonNoExit, unload.ReasonNoUnload, unload.ReasonModulesDisabled:
		return exitNever
	case unload.ReasonLoading, unload.ReasonUnloading:
		return exitChanging
	}
	return exitInUse
}
