package main

// The table of the status page for one viewer: which rows, the numbers above it, what needs
// somebody, and what is the viewer's own.

import (
	"strings"
	"time"
)

// pageIndex is up to how many environments the page has an index of, for small screens.
const pageIndex = 24

// fillTable sets the table of the page. With after, only rows that have changed since that
// serial number are in it.
func (s *server) fillTable(d *pageData, after *uint64) error {
	b := s.boards.of(d.Viewer.caller)
	b.refresh(s, d.Now)
	d.Serial, d.More = b.serial, b.more
	if after != nil && *after > b.serial { // of a server whose clock was ahead
		*after = 0
	}
	for _, p := range b.state.pauses {
		d.Pause = pagePause(p, d.Now)
	}
	past, err := b.past(d.Window, d.Now)
	if err != nil {
		return err
	}
	var all []pageRow
	for _, row := range s.tableRows(d) {
		r, isOwn := row.pageRow, involves(row.view, d.Viewer.Name)
		if isOwn {
			r = newPageRow(row.view, b.state, b.holds[r.Name], r.Facts, d.Viewer, d.Now)
			s.attend(row.view, d.Viewer.Name, d.Viewer.caller, d.Now)
		}
		all = append(all, r)
		if after != nil && row.changed <= *after {
			continue
		}
		shown := pageTableRow{pageRow: r, Chart: past.charts[r.Name],
			IsHidden: !r.isShown(d.Show) || d.Find != "" && !r.has(d.Find)}
		if isOwn {
			shown.Before, shown.After, err = renderRow(r, d.Now)
		} else {
			err = row.render(d.renderedSince(), d.Now)
			shown.Before, shown.After = row.before, row.after
		}
		if err != nil {
			return err
		}
		d.Rows = append(d.Rows, shown)
	}
	if after != nil && b.ordered > *after {
		d.Order = orderText(all)
	}
	d.setHead(all)
	return nil
}

// renderedSince returns since when a row must have been rendered: what the script asks for has
// its durations brought up to date by the script.
func (d *pageData) renderedSince() time.Time {
	if d.Changed {
		return time.Time{}
	}
	return d.Now.Add(-time.Second)
}

// tableRows returns the rows of the board. If some are not on it, and the viewer looks for a
// text, it looks for that in all environments.
func (s *server) tableRows(d *pageData) []*boardRow {
	b := s.boards.of(d.Viewer.caller)
	if d.Find == "" || b.more == 0 || d.Changed {
		return b.order
	}
	var found []*boardRow
	for _, v := range s.keeper.views(b.state, s.declared().names) {
		r := newPageRow(v, b.state, nil, factsToJSON(b.facts, v.name), viewer{caller: b.caller}, d.Now)
		if b.caller.sees(v.name) && r.has(d.Find) && len(found) < pageRows {
			found = append(found, &boardRow{pageRow: r, view: v})
		}
	}
	return found
}

// orderText returns the ids of rows with spaces between them.
func orderText(rows []pageRow) string {
	var ids []string
	for _, r := range rows {
		ids = append(ids, r.ID())
	}
	return strings.Join(ids, " ")
}

// setHead sets what stands above the table.
func (d *pageData) setHead(rows []pageRow) {
	d.Counts = []pageCount{{"", "All", len(rows) + d.More}, {"free", "Free", 0}, {"held", "Held", 0},
		{"queue", "With a queue", 0}}
	if d.Viewer.MayAct() {
		d.Counts = append(d.Counts, pageCount{"mine", "Mine", 0})
	}
	d.Counts = append(d.Counts, pageCount{"paused", "Paused", 0})
	for _, r := range rows {
		for i := range d.Counts[1:] {
			if r.isShown(d.Counts[i+1].Show) {
				d.Counts[i+1].Count++
			}
		}
		d.Needs = append(d.Needs, r.needs(d.Now)...)
		if r.isShown("mine") {
			d.Yours = append(d.Yours, r)
		}
	}
	if last := len(d.Counts) - 1; d.Counts[last].Count == 0 && d.Show != "paused" {
		d.Counts = d.Counts[:last]
	}
	if len(rows) <= pageIndex {
		d.Index = rows
	}
}
