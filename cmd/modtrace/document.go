package main

import (
	"io"

	"github.com/modtrace/modtrace/output"
	"github.com/modtrace/modtrace/output/page"
	"github.com/modtrace/modtrace/output/profile"
	"github.com/modtrace/modtrace/output/timeline"
	"github.com/modtrace/modtrace/stats"
	"github.com/modtrace/modtrace/unload"
)

// What a report can be made as.
const (
	formatTable    = "table"
	formatJSON     = "json"
	formatCSV      = "csv"
	formatHTML     = "html"
	formatTimeline = "timeline"
	formatProfile  = "profile"
)

func formats() []string {
	return []string{formatTable, formatJSON, formatCSV, formatHTML, formatTimeline, formatProfile}
}

// document takes the records of captures, each as a pointer to it, and is closed behind
// the last.
type document struct {
	take  func(record any) error
	close func() error
}

// of takes records for a report that is laid out by output.
func of(d output.Document) document {
	return document{func(record any) error { return output.Put(d, record) }, d.Close}
}

// document is what the records go to. notes gives what was missing from the captures.
func (c *cli) document(to io.Writer, o reportOptions, notes func() []string) (document, error) {
	table := c.tableOptions()
	if o.to != "" {
		table.Color = c.color == "always" // it depends on no terminal
	}
	sorted := o.sort != "" || o.limit != 0
	var doc output.Document
	switch o.format {
	case formatCSV:
		doc = output.NewCSV(to)
	case formatHTML:
		doc, sorted = page.New(to, page.Options{Most: o.limit, Notes: notes}), false
	case formatTimeline:
		doc = timeline.New(to)
	case formatProfile:
		doc = profile.New(to)
	case formatJSON:
		doc = output.Ends(output.NewJSON(to))
	default:
		doc = output.Ends(output.NewTable(to, table))
	}
	switch {
	case o.summary:
		return summarized(func(s unload.Summary) error { return c.printSummary(to, s, table) })
	case sorted:
		doc = output.Sorted(doc, o.sort, o.limit)
	case o.format == formatTable && !o.full:
		return briefly(of(doc), func(s unload.Summary) error { return c.printSummary(to, s, table) })
	}
	return of(doc), nil
}

func (c *cli) printSummary(to io.Writer, s unload.Summary, table output.TableOptions) error {
	if c.json {
		return output.SummaryJSON(to, s)
	}
	return output.Summary(to, s, table)
}

// summarized makes a summary of all records.
func summarized(report func(unload.Summary) error) (document, error) {
	s, err := stats.New()
	return document{
		take:  func(record any) error { s.Take(record); return nil },
		close: func() error { return report(s.Summary()) },
	}, err
}

// few is how many unloads are reported one by one: what more of them say is in a summary.
const few = 20

// briefly reports a few unloads, and of more a summary. What is kept until it is known
// which does not grow with them.
func briefly(each document, report func(unload.Summary) error) (document, error) {
	var held []any
	unloads := 0
	all, err := summarized(report)
	isFew := func() bool { return unloads <= few && len(held) <= 10*few }
	take := func(record any) error {
		if _, ok := record.(*unload.Unload); ok {
			unloads++
		}
		if isFew() {
			held = append(held, record)
		}
		return all.take(record)
	}
	return document{take, func() error {
		if !isFew() {
			return all.close()
		}
		for _, record := range held {
			if err := each.take(record); err != nil {
				return err
			}
		}
		return each.close()
	}}, err
}
