package output

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/olekukonko/tablewriter"
	"github.com/olekukonko/tablewriter/renderer"
	"github.com/olekukonko/tablewriter/tw"
)

// gap is what is left blank between two columns, and left of the first.
const gap = 2

// column is one of a table. Its cells must be cut to fit by who makes them.
type column struct {
	head  string
	right bool // numbers
}

// row is one of a table. The lines of a cell are parted by \n.
type row struct {
	cells []string
	color color
}

// grid lays rows out under their headings, without borders, and gives the
// lines. Colour comes last, by whole lines: the table library takes escape
// sequences apart.
func (s screen) grid(cols []column, rows []row) ([]string, error) {
	var cells [][]string
	var colors []color
	headed := false
	for _, c := range cols {
		headed = headed || c.head != ""
	}
	if headed {
		colors = append(colors, dim)
	}
	for _, r := range rows {
		for _, line := range r.lines() {
			cells = append(cells, line)
			colors = append(colors, r.color)
		}
	}
	text, err := render(cols, headed, cells)
	if err != nil {
		return nil, fmt.Errorf("laying out a table: %w", err)
	}
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if len(lines) != len(colors) {
		return nil, fmt.Errorf("laying out a table: %d lines where there should be %d", len(lines), len(colors))
	}
	for i, line := range lines {
		lines[i] = s.paint(colors[i], s.fit(strings.Repeat(" ", gap)+line))
	}
	return lines, nil
}

// lines parts a row into rows of one line each: the table library drops lines
// that are blank within a cell.
func (r row) lines() [][]string {
	parted := make([][]string, len(r.cells))
	height := 1
	for i, cell := range r.cells {
		parted[i] = strings.Split(cell, "\n")
		height = max(height, len(parted[i]))
	}
	lines := make([][]string, height)
	for n := range lines {
		lines[n] = make([]string, len(r.cells))
		for i, cell := range parted {
			if n < len(cell) {
				lines[n][i] = cell[n]
			}
		}
	}
	return lines
}

// render has the table library align the columns.
func render(cols []column, headed bool, cells [][]string) (string, error) {
	var b bytes.Buffer
	t := tablewriter.NewTable(&b,
		tablewriter.WithConfig(layout(cols)),
		tablewriter.WithEastAsian(tw.Off), // as columns counts them
		tablewriter.WithRenderer(renderer.NewBlueprint(tw.Rendition{
			Borders:  tw.BorderNone,
			Settings: tw.Settings{Lines: tw.LinesNone, Separators: tw.SeparatorsNone},
		})),
	)
	if headed {
		heads := make([]string, len(cols))
		for i, c := range cols {
			heads[i] = c.head
		}
		t.Header(heads)
	}
	if err := t.Bulk(cells); err != nil {
		return "", err
	}
	if err := t.Render(); err != nil {
		return "", err
	}
	return b.String(), nil
}

// layout turns off all that the library would do to the text by itself.
func layout(cols []column) tablewriter.Config {
	aligns := make([]tw.Align, len(cols))
	for i, c := range cols {
		aligns[i] = tw.AlignLeft
		if c.right {
			aligns[i] = tw.AlignRight
		}
	}
	cell := tw.CellConfig{
		Formatting: tw.CellFormatting{AutoWrap: tw.WrapNone, AutoFormat: tw.Off},
		Padding:    tw.CellPadding{Global: tw.Padding{Right: strings.Repeat(" ", gap), Overwrite: true}},
		Alignment:  tw.CellAlignment{Global: tw.AlignLeft, PerColumn: aligns},
	}
	return tablewriter.Config{
		Header:   cell,
		Row:      cell,
		Behavior: tw.Behavior{TrimSpace: tw.Off, TrimTab: tw.Off, TrimLine: tw.Off, AutoHide: tw.Off},
	}
}

// widest is how many columns the widest line of a table's column takes.
func widest(rows []row, i int, head string) int {
	most := columns(head)
	for _, r := range rows {
		for _, line := range strings.Split(r.cells[i], "\n") {
			most = max(most, columns(line))
		}
	}
	return most
}
