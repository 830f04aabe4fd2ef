package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Exit codes, a contract with users' scripts.
const (
	exitFailed     = 1
	exitUsage      = 2
	exitUnable     = 3
	exitIncomplete = 4
	exitInUse      = 10
	exitNotLoaded  = 11
	exitNever      = 12
	exitChanging   = 13
	exitTooSlow    = 20
	exitWorse      = 21
	exitRunFailed  = 125
	exitNotExec    = 126
	exitNotFound   = 127
)

// status is an exit code with an optional message.
type status struct {
	code int
	err  error
}

func (s *status) Error() string {
	if s.err == nil {
		return fmt.Sprintf("exit status %d", s.code)
	}
	return s.err.Error()
}

func (s *status) Unwrap() error { return s.err }

// execute runs the command line and gives its exit code.
func execute(args []string, stdout, stderr *os.File) int {
	c := &cli{stdout: stdout, stderr: stderr}
	root := c.root()
	root.SetArgs(args)
	// The report alone goes to stdout; help that was asked for does too.
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteC()
	if err == nil {
		return 0
	}
	var s *status
	if errors.As(err, &s) {
		if s.err != nil {
			complain(stderr, s.err)
		}
		return s.code
	}
	if !c.started {
		complain(stderr, err)
		fmt.Fprintf(stderr, "  try: %s --help\n", cmd.CommandPath())
		return exitUsage
	}
	complain(stderr, err)
	if isUnable(err) {
		return exitUnable
	}
	return exitFailed
}

// complain prints what failed, why, and what to do about it.
func complain(w io.Writer, err error) {
	var unable explained
	if !errors.As(err, &unable) {
		fmt.Fprintf(w, "modtrace: %v\n", err)
		return
	}
	what, why, remedy := unable.Explain()
	fmt.Fprintf(w, "modtrace: %s\n  why: %s\n  try: %s\n", what, why, remedy)
}

// explained is an error of a machine that cannot do what was asked for.
type explained interface {
	error
	Explain() (what, why, remedy string)
}

// cli holds what all commands share.
type cli struct {
	stdout, stderr *os.File
	started        bool // past the checks of the command line

	json    bool
	color   string
	verbose bool
	live
}

func (c *cli) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "modtrace",
		Short: "Say why a kernel module will not unload, or why that takes so long",
		Long: `modtrace watches the kernel unload modules and says, phase by phase, where the
time went, and for a refusal why it was refused.`,
		Example: `  sudo modtrace run -- rmmod tun       unload a module and see what happens
  sudo modtrace trace                  watch every unload on this machine
  sudo modtrace why tun                say who holds a module, without unloading it
  sudo modtrace refs tun               watch references on a module being taken and dropped
  sudo modtrace stuck                  say where the unloads that hang now do, and on whom
  sudo modtrace record -o FILE         record every unload, unattended
  modtrace report FILE                 read a capture, on any machine
  modtrace diff OLD NEW                say what became slower between two captures
  modtrace check                       what this kernel lets modtrace see`,
		Version:               version(),
		SilenceErrors:         true,
		SilenceUsage:          true,
		DisableFlagsInUseLine: true,

		SuggestionsMinimumDistance: 2,
		PersistentPreRunE:          c.prepare,
		Args:                       knownCommand,
		RunE:                       func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return misused(err) })
	root.SetVersionTemplate("modtrace {{.Version}}\n")
	flags := root.PersistentFlags()
	flags.BoolVar(&c.json, "json", false, "print NDJSON, one record a line, instead of tables")
	flags.StringVar(&c.color, "color", "auto", "colour tables: auto, always or never")
	flags.BoolVarP(&c.verbose, "verbose", "v", false, "show more of each unload")
	c.liveFlags(flags)
	_ = root.RegisterFlagCompletionFunc("color", cobra.FixedCompletions([]string{"auto", "always", "never"}, cobra.ShellCompDirectiveNoFileComp))
	root.AddCommand(c.liveCommands()...)
	root.AddCommand(c.reportCommand(), c.diffCommand(), c.completionCommand())
	root.InitDefaultHelpCmd()
	for _, cmd := range root.Commands() {
		if cmd.Name() == "help" {
			cmd.Args = knownCommand
			cmd.Short = "Say how a command is used"
			cmd.Long = cmd.Short + "."
			cmd.Example = "  modtrace help run"
		}
	}
	return root
}

// knownCommand checks words that are to name a command, or nothing.
func knownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	found, rest, err := cmd.Root().Find(args)
	if err == nil && found.HasParent() && len(rest) == 0 {
		return nil
	}
	message := fmt.Sprintf("there is no command %q", strings.Join(args, " "))
	if similar := cmd.Root().SuggestionsFor(args[0]); len(similar) > 0 && len(args) == 1 {
		message += "; did you mean " + strings.Join(similar, " or ") + "?"
	}
	return errors.New(message)
}

// noArguments checks the words behind a command that takes none.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%s takes no arguments, but was given %q", cmd.Name(), strings.Join(args, " "))
	}
	return nil
}

// checkGlobs checks words that are to name modules.
func checkGlobs(words []string) error {
	for _, glob := range words {
		if _, err := path.Match(glob, ""); err != nil || glob == "" {
			return fmt.Errorf("%q is not a name or glob of modules", glob)
		}
	}
	return nil
}

// prepare runs before every command, once its words are known to be right.
func (c *cli) prepare(*cobra.Command, []string) error {
	switch c.color {
	case "auto", "always", "never":
	default:
		return fmt.Errorf("--color is %q: it takes auto, always or never", c.color)
	}
	if err := c.checkLive(); err != nil {
		return err
	}
	c.started = true
	return nil
}

// note tells the user something that is not part of the report.
func (c *cli) note(format string, args ...any) {
	fmt.Fprintf(c.stderr, "modtrace: "+strings.TrimSuffix(format, "\n")+"\n", args...)
}

// unwritable says in plain words why a report cannot be written.
func unwritable(err error) error {
	switch {
	case errors.Is(err, syscall.EPIPE):
		return errors.New("writing the report: its reader has gone away")
	case errors.Is(err, syscall.ENOSPC):
		return errors.New("writing the report: the disk is full; free space, or write elsewhere")
	}
	return fmt.Errorf("writing the report: %w", err)
}

// version is that of the module, or of the checkout it was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(unknown)"
	}
	return info.Main.Version
}

func isUnable(err error) bool {
	var unable explained
	return errors.As(err, &unable)
}

// misused says in plain words what is wrong with a flag.
func misused(err error) error {
	var unknown *pflag.NotExistError
	var bare *pflag.ValueRequiredError
	var invalid *pflag.InvalidValueError
	switch {
	case errors.As(err, &unknown):
		return fmt.Errorf("there is no flag %q here", unknown.GetSpecifiedName())
	case errors.As(err, &bare):
		return fmt.Errorf("--%s needs a value", bare.GetFlag().Name)
	case errors.As(err, &invalid):
		flag := invalid.GetFlag()
		kind := flag.Value.Type()
		if kind == "duration" {
			kind = "duration such as 500ms or 2s"
		}
		return fmt.Errorf("--%s is %q: it takes a %s", flag.Name, invalid.GetValue(), kind)
	}
	return err
}
