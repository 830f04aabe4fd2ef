// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/modtrace/modtrace/test/lab"
)

func newFetch(a *app) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "fetch [KERNEL...]",
		Short: "bring all that kernels need into the cache, so that later runs work offline",
		Example: `  lab fetch                      # the matrix
  lab fetch arm64-6.12 amd64-7
  lab fetch --all --allow-missing amd64-7`,
		ValidArgsFunction: completeSeries,
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := a.open()
			if err != nil {
				return err
			}
			series, err := chosen(args, all)
			if err != nil {
				return err
			}
			var failed error
			for _, s := range series {
				k, err := fetch(cmd.Context(), l, s)
				if err != nil {
					if !a.excused(s, err) {
						failed = errors.Join(failed, err)
					}
					continue
				}
				fmt.Printf("%s\t%s\t%s\n", s.Name, k.Release, k.Suite)
			}
			return failed
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "also the series that are not part of the matrix")
	return cmd
}

// fetch makes a whole image of what machines of the series may have, which
// brings everything that it is made of.
func fetch(ctx context.Context, l *lab.Lab, s lab.Series) (*lab.Kernel, error) {
	k, err := l.Kernel(ctx, s)
	if err != nil {
		return nil, err
	}
	if err := l.NeedEmulator(ctx, s.Arch); err != nil {
		return nil, err
	}
	image, err := l.Initrd(ctx, k)
	if err != nil {
		return nil, err
	}
	if err := l.AddInteractive(ctx, image, k, ""); err != nil {
		return nil, err
	}
	return k, l.AddKmod(ctx, image, k)
}
