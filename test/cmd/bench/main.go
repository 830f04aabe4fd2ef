// SPDX-License-Identifier: MIT

// Bench measures what modtrace costs, next to what else one could use.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/modtrace/modtrace/test/bench"
	"github.com/modtrace/modtrace/test/lab"
)

func main() {
	o := bench.Options{Log: os.Stderr}
	flag.StringVar(&o.Series, "kernel", bench.DefaultSeries, "kernel `series` of the lab")
	flag.IntVar(&o.Rounds, "rounds", 0, "unloads for a figure (default 100)")
	flag.StringVar(&o.Modtrace, "modtrace", "", "measure this `program` instead of the sources")
	flag.StringVar(&o.Only, "only", "", "measure nothing but `references` that are taken and dropped, or `why`")
	asJSON := flag.Bool("json", false, "print the figures as JSON")
	flag.Parse()
	known := slices.Contains([]string{"", bench.OnlyReferences, bench.OnlyWhy}, o.Only)
	if flag.NArg() > 0 || o.Rounds < 0 || !known {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(o, *asJSON); err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

func run(o bench.Options, asJSON bool) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	l, err := lab.New(lab.Options{Log: os.Stderr})
	if err != nil {
		return err
	}
	r, err := bench.Run(ctx, l, o)
	if err != nil {
		return err
	}
	if asJSON {
		e := json.NewEncoder(os.Stdout)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	return bench.Table(os.Stdout, r)
}
