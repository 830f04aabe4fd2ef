//go:build linux

package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/modtrace/modtrace/holders"
	"github.com/modtrace/modtrace/ledger"
	"github.com/modtrace/modtrace/object"
	"github.com/modtrace/modtrace/output"
	"github.com/modtrace/modtrace/tracer"
	"github.com/modtrace/modtrace/unload"
)

func (c *cli) checkCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Say what this kernel lets modtrace see",
		Long: `Say for each phase of an unload how modtrace would see it on this kernel, what is
missing and why, and for each missing privilege the remedy. As root everything
is attached for a moment, to be sure; otherwise it is looked up. As root it also says
how why finds who holds a module, and how refs watches references.`,
		Example: `  modtrace check
  sudo modtrace check --json | jq '.plan[] | select(.status == "missing")'`,
		Args: noArguments,
		RunE: func(*cobra.Command, []string) error { return c.check() },
	}
}

// checked is the record that check prints with --json: a capture's header, and
// what only check knows.
type checked struct {
	unload.Header
	Tried        bool                `json:"tried"`
	CanTrace     bool                `json:"can_trace"`
	Lockdown     string              `json:"lockdown"`
	Holders      []unload.Hook       `json:"holders"` // how why finds who holds a module
	Refs         []unload.Hook       `json:"refs"`    // how refs watches references
	Capabilities []object.Capability `json:"capabilities"`
	Problems     []problem           `json:"problems"`
}

type problem struct {
	What   string `json:"what"`
	Why    string `json:"why"`
	Remedy string `json:"remedy"`
}

func (c *cli) check() error {
	in, err := tracer.Inspect(c.options())
	if err != nil {
		return err
	}
	h, err := machine()
	if err != nil {
		return err
	}
	h.Type, h.Plan = "check", in.Plan
	record, err := newChecked(h, in, c.options())
	if err != nil {
		return err
	}
	if c.json {
		err = json.NewEncoder(c.stdout).Encode(record)
	} else {
		err = c.checkTable(record, in)
	}
	if err != nil {
		return unwritable(err)
	}
	for _, p := range in.Problems {
		complain(c.stderr, p)
	}
	if len(in.Problems) > 0 {
		return &status{code: exitUnable}
	}
	return nil
}

func newChecked(h unload.Header, in tracer.Inspection, o tracer.Options) (checked, error) {
	c := checked{
		Header: h, Tried: in.Tried, CanTrace: len(in.Problems) == 0, Lockdown: in.Lockdown,
		Holders: []unload.Hook{}, Refs: []unload.Hook{}, Capabilities: in.Capabilities, Problems: []problem{},
	}
	for _, p := range in.Problems {
		c.Problems = append(c.Problems, problem{p.What, p.Why, p.Remedy})
	}
	if !in.Tried {
		return c, nil
	}
	var err error
	if c.Holders, err = holders.Inspect(o.BTF); err != nil {
		return c, err
	}
	c.Refs, err = ledger.Inspect(ledger.Options{BTF: o.BTF, Mechanisms: o.Mechanisms})
	return c, err
}

// checkTable leads with the answer, then the plan, then the privileges.
func (c *cli) checkTable(h checked, in tracer.Inspection) error {
	seen := 0
	for _, hook := range in.Plan {
		if hook.Status != unload.StatusMissing {
			seen++
		}
	}
	verdict := "modtrace can trace here"
	switch {
	case len(in.Problems) > 0:
		verdict = "modtrace cannot trace here as things are (see below)"
	case seen < len(in.Plan):
		verdict = fmt.Sprintf("modtrace can trace here, but does not see everything: %d of %d hooks", seen, len(in.Plan))
	}
	verdict = fmt.Sprintf("%s: Linux %s %s", verdict, h.Kernel, h.Arch)
	if c.tableOptions().Color {
		const red, green, plain = "\x1b[31m", "\x1b[32m", "\x1b[0m"
		paint := green
		if len(in.Problems) > 0 {
			paint = red
		}
		verdict = paint + verdict + plain
	}
	if _, err := fmt.Fprintln(c.stdout, verdict); err != nil {
		return err
	}
	if seen > 0 {
		if _, err := fmt.Fprintln(c.stdout); err != nil {
			return err
		}
		if err := output.Plan(c.stdout, in.Plan, c.tableOptions()); err != nil {
			return err
		}
	}
	for _, more := range []struct {
		title string
		hooks []unload.Hook
	}{{"who holds a module (why, and refusals):", h.Holders}, {"references as they come and go (refs):", h.Refs}} {
		if err := output.Hooks(c.stdout, more.title, more.hooks, c.tableOptions()); err != nil {
			return err
		}
	}
	return c.privileges(in)
}

func (c *cli) privileges(in tracer.Inspection) error {
	lockdown := in.Lockdown
	if lockdown == "" {
		lockdown = "not known (securityfs is not mounted)"
	}
	if _, err := fmt.Fprintf(c.stdout, "\nlockdown: %s\n", lockdown); err != nil {
		return err
	}
	for _, cap := range in.Capabilities {
		state := "held"
		switch {
		case !cap.Held && cap.Required:
			state = "MISSING, needed"
		case !cap.Held:
			state = "missing, optional"
		}
		if _, err := fmt.Fprintf(c.stdout, "%-20s %-18s for %s\n", cap.Name, state, cap.For); err != nil {
			return err
		}
	}
	return nil
}
