// SPDX-License-Identifier: MIT

package main

import (
	"errors"
	"fmt"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/modtrace/modtrace/test/lab"
)

func newKernels(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "kernels",
		Short: "list the kernel series, what they stand for today and what is cached",
		Example: `  lab kernels
  lab kernels --refresh    # ask the archive again`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := a.open()
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "SERIES\tKERNEL\tPACKAGE\tSUITE\tMATRIX\tCACHED")
			var failed error
			for _, s := range lab.AllSeries() {
				k, err := l.Resolve(cmd.Context(), s)
				if err == nil {
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", s.Name, k.Release, k.Version, k.Suite, yesNo(!s.Extra), yesNo(l.Cached(k)))
					continue
				}
				state := "unknown"
				if errors.Is(err, lab.ErrMissing) {
					state = "missing"
				}
				fmt.Fprintf(w, "%s\t%s\t-\t-\t%s\tno\n", s.Name, state, yesNo(!s.Extra))
				// Nobody is held up by a series that is not part of the matrix.
				if !s.Extra && !a.excused(s, err) {
					failed = errors.Join(failed, err)
				}
			}
			return errors.Join(w.Flush(), failed)
		},
	}
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
