// SPDX-License-Identifier: MIT

package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func newClean(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "clean",
		Short: "remove from the cache what newer versions have replaced",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := a.open()
			if err != nil {
				return err
			}
			freed, err := l.Clean(cmd.Context())
			fmt.Printf("freed %d MB in %s\n", freed>>20, l.Dir())
			return err
		},
	}
}
