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

// document is what the records go to. notes gives what was missing from the captures.
func (c *cli) document(to io.Writer, o reportOptions, notes func() []string) (output.Document, error) {
	table := c.tableOptions()
	if o.to != "" {
		table.Color = c.color == "always" // it depends on no terminal
	}
	if o.summary {
		return c.summarized(to, output.Silent{}, table)
	}
	sorted := o.sort != "" || o.limit != 0
	var doc output.Document
	switch o.format {
	case formatCSV:
		doc = output.NewCSV(to)
	case formatHTML:
		return page.New(to, page.Options{Most: o.limit, Notes: notes}), nil
	case formatTimeline:
		return timeline.New(to), nil
	case formatProfile:
		return profile.New(to), nil
	case formatJSON:
		doc = output.Ends(output.NewJSON(to))
	default:
		if !o.full && !sorted {
			return c.summarized(to, output.NewFew(to, table), table)
		}
		doc = output.Ends(output.NewTable(to, table))
	}
	if sorted {
		doc = output.Sorted(doc, o.sort, o.limit)
	}
	return doc, nil
}

// summarized has a summary follow when there were too many records to be told one by one.
func (c *cli) summarized(to io.Writer, few output.Document, table output.TableOptions) (output.Document, error) {
	s, err := stats.New()
	if err != nil {
		return nil, err
	}
	return &summary{Document: few, json: c.json, to: to, table: table, stats: s}, nil
}

type summary struct {
	output.Document
	json  bool
	to    io.Writer
	table output.TableOptions
	stats *stats.Stats
}

func (s *summary) Header(h unload.Header) error {
	s.stats.Take(&h)
	return s.Document.Header(h)
}

func (s *summary) Unload(u unload.Unload) error {
	s.stats.Take(&u)
	return s.Document.Unload(u)
}

func (s *summary) Stall(st unload.Stall) error {
	s.stats.Take(&st)
	return s.Document.Stall(st)
}

func (s *summary) Reload(r unload.Reload) error {
	s.stats.Take(&r)
	return s.Document.Reload(r)
}

func (s *summary) Trailer(t unload.Trailer) error {
	s.stats.Take(&t)
	return s.Document.Trailer(t)
}

// Close writes the summary, unless each record was told.
func (s *summary) Close() error {
	if few, ok := s.Document.(*output.Few); ok && few.All() {
		return few.Close()
	}
	sum := s.stats.Summary()
	if s.json {
		return output.SummaryJSON(s.to, sum)
	}
	return output.Summary(s.to, sum, s.table)
}
