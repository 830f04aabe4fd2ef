package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

func (c *cli) completionCommand() *cobra.Command {
	shells := []string{"bash", "zsh", "fish"}
	return &cobra.Command{
		Use:   "completion " + strings.Join(shells, "|"),
		Short: "Print a script that completes commands in a shell",
		Long: `Print a script with which a shell completes modtrace's commands and flags. bash
needs the package bash-completion for it, zsh its own compinit.`,
		Example: `  source <(modtrace completion bash)                                   in this shell
  modtrace completion bash | sudo tee /etc/bash_completion.d/modtrace  in every new one
  modtrace completion zsh > "${fpath[1]}/_modtrace"
  modtrace completion fish > ~/.config/fish/completions/modtrace.fish`,
		ValidArgs: shells,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("completion needs one shell: %s", strings.Join(shells, ", "))
			}
			if !slices.Contains(shells, args[0]) {
				return fmt.Errorf("there is no completion for %q, only for %s", args[0], strings.Join(shells, ", "))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return c.completion(cmd.Root(), args[0]) },
	}
}

func (c *cli) completion(root *cobra.Command, shell string) error {
	var err error
	switch shell {
	case "bash":
		err = root.GenBashCompletionV2(c.stdout, true)
	case "zsh":
		err = root.GenZshCompletion(c.stdout)
	case "fish":
		err = root.GenFishCompletion(c.stdout, true)
	}
	if err != nil {
		return fmt.Errorf("writing the script: %w", err)
	}
	return nil
}
