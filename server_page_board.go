package main

// The board: the rows of the status page, rendered once for all who look, and when each of
// them has changed. A script asks for what has changed since it last asked.

import (
	"bytes"
	"encoding/json"
	"hash/fnv"
	"html/template"
	"slices"
	"strings"
	"time"
)

// pageRows is how many environments the page shows, at most, so that a browser can draw them.
const pageRows = 500

// boardAge is how long the rows stay as they are while nothing has changed in the published
// state: whether a waiter is connected, and the estimates, change without it.
const boardAge = time.Second

// boards has a board for the callers that see the same environments, by their scope. It is used in
// the turn of the server's renderer only. The zero value is ready to use.
type boards struct{ all map[string]*board }

// of returns the board of a caller.
func (b *boards) of(c caller) *board {
	found := b.all[c.scope()]
	if found == nil {
		found = &board{caller: c}
		if b.all == nil {
			b.all = map[string]*board{}
		}
		b.all[c.scope()] = found
	}
	return found
}

// A board has the rows of all environments that the page shows to a caller.
type board struct {
	caller  caller // or another that sees the same
	serial  uint64 // of the last change; grows, also from one process to the next
	state   *publishedState
	facts   map[string]environmentFacts
	holds   map[string][]time.Duration // see publishedState.holds
	at      time.Time
	rows    map[string]*boardRow
	order   []*boardRow // by name
	ordered uint64      // the serial of the last change of order
	more    int         // environments that are not shown
	seen    uint64      // the last event whose environment is in used
	used    map[string]time.Time
	pasts   map[time.Duration]*boardPast
}

// A boardRow is a row with what was rendered of it.
type boardRow struct {
	pageRow
	view     *view
	print    uint64    // of the pageRow: another one is another row
	changed  uint64    // the serial of the last change
	rendered time.Time // zero if it must be rendered
	before   template.HTML
	after    template.HTML
}

// A boardPast is what the table shows of the past, as of one minute.
type boardPast struct {
	at     time.Time
	charts map[string]template.HTML
}

// refresh brings the rows up to date.
func (b *board) refresh(s *server, now time.Time) {
	state := s.keeper.published.Load()
	if state == b.state && now.Sub(b.at) < boardAge && now.After(b.at) {
		return
	}
	if b.rows == nil {
		b.serial = uint64(now.UnixMilli())
		b.rows, b.used = map[string]*boardRow{}, map[string]time.Time{}
		b.pasts = map[time.Duration]*boardPast{}
	}
	b.state, b.at, b.facts = state, now, s.declared().facts
	b.noteUsed(state, now)
	views := b.views(s, state)
	b.holds = state.holds(func(string) bool { return true })
	next := b.serial + 1
	rows := make(map[string]*boardRow, len(views))
	var order []*boardRow
	for _, v := range views {
		row := b.rows[v.name]
		if row == nil {
			row = &boardRow{}
		}
		fresh := newPageRow(v, state, b.holds[v.name], factsToJSON(b.facts, v.name),
			viewer{caller: b.caller}, now)
		row.view = v
		if print := printOf(fresh); print != row.print {
			row.pageRow, row.print, row.changed, row.rendered = fresh, print, next, time.Time{}
			b.serial = next
		}
		rows[v.name], order = row, append(order, row)
	}
	if !slices.Equal(order, b.order) {
		b.serial, b.ordered = next, next
	}
	b.rows, b.order = rows, order
}

// noteUsed adds the environments of new events, and drops those that nobody has used for a
// week.
func (b *board) noteUsed(state *publishedState, now time.Time) {
	for _, e := range slices.Backward(state.history) {
		if e.number <= b.seen || now.Sub(e.at) > pageWeek {
			break
		}
		if e.kind != eventClosed && e.environment != everywhere && b.used[e.environment].Before(e.at) {
			b.used[e.environment] = e.at
		}
	}
	if n := len(state.history); n > 0 {
		b.seen = max(b.seen, state.history[n-1].number)
	}
	for name, at := range b.used {
		if now.Sub(at) > pageWeek {
			delete(b.used, name)
		}
	}
}

// views returns the environments of the page by name, and sets how many more there are: those
// that have a lease, a waiter or a pause, those that are declared, and those that were used in
// the last week. While environments are declared, those that are not and are idle are left
// out. If there are too many, those with a queue stay first, then those that are not idle.
func (b *board) views(s *server, state *publishedState) []*view {
	declared := s.declared()
	var views []*view
	for v := range state.all() {
		if b.caller.sees(v.name) {
			views = append(views, v)
		}
	}
	idle := map[string]bool{}
	for _, name := range declared.names {
		idle[name] = state.find(name) == nil && b.caller.sees(name)
	}
	for name := range b.used {
		if state.find(name) == nil && declared.slotsOf(name) != nil && b.caller.sees(name) {
			idle[name] = true
		}
	}
	count := 0
	for name, isIdle := range idle {
		if !isIdle {
			delete(idle, name)
		}
	}
	count = len(views) + len(idle)
	if len(views) > pageRows {
		slices.SortStableFunc(views, func(a, b *view) int { return len(b.queue) - len(a.queue) })
		views = views[:pageRows]
	}
	for _, name := range smallestNames(pageRows-len(views), idle) {
		views = append(views, state.idleView(name, declared.slotsOf(name)))
	}
	b.more = count - len(views)
	slices.SortFunc(views, func(a, b *view) int { return strings.Compare(a.name, b.name) })
	return views
}

// smallestNames returns the first n names of a set, sorted. It does not sort all of a large set.
func smallestNames(n int, set map[string]bool) []string {
	var names []string
	if n <= 0 {
		return nil
	}
	for name := range set {
		if len(names) == n && name >= names[n-1] {
			continue
		}
		i, _ := slices.BinarySearch(names, name)
		names = slices.Insert(names, i, name)
		names = names[:min(n, len(names))]
	}
	return names
}

// printOf returns a sum of all that a row shows.
func printOf(r pageRow) uint64 {
	text, _ := json.Marshal(r)
	sum := fnv.New64a()
	sum.Write(text)
	return sum.Sum64()
}

// render renders the row, unless that was done since a time.
func (r *boardRow) render(since, now time.Time) error {
	if !r.rendered.IsZero() && !r.rendered.Before(since) {
		return nil
	}
	var err error
	r.before, r.after, err = renderRow(r.pageRow, now)
	r.rendered = now
	return err
}

// renderRow returns the cells of a row before that of the chart, and those after it with the
// rows of the slots.
func renderRow(r pageRow, now time.Time) (before, after template.HTML, err error) {
	data := struct {
		pageRow
		Row pageRow
		Now time.Time
	}{r, r, now}
	var b bytes.Buffer
	if err := pageTemplate().ExecuteTemplate(&b, "before", data); err != nil {
		return "", "", err
	}
	before = template.HTML(b.String()) // #nosec G203 -- html/template has escaped it
	b.Reset()
	err = pageTemplate().ExecuteTemplate(&b, "after", data)
	return before, template.HTML(b.String()), err // #nosec G203 -- the same
}

// past returns what the table shows of the time before now. It is computed once a minute.
func (b *board) past(window time.Duration, now time.Time) (*boardPast, error) {
	p := b.pasts[window]
	if p != nil && now.Sub(p.at) < time.Minute && !now.Before(p.at) && p.hasAll(b.order) {
		return p, nil
	}
	p = &boardPast{at: now, charts: map[string]template.HTML{}}
	from := now.Add(-window)
	events := byEnvironment(b.state.eventsSince(from))
	for _, row := range b.order {
		chart := newPageChart(row.view, events[row.Name], from, now)
		var text bytes.Buffer
		if err := pageTemplate().ExecuteTemplate(&text, "chart", chart); err != nil {
			return nil, err
		}
		p.charts[row.Name] = template.HTML(text.String()) // #nosec G203 -- html/template has escaped it
	}
	b.pasts[window] = p
	return p, nil
}

// hasAll reports whether the past has all environments.
func (p *boardPast) hasAll(rows []*boardRow) bool {
	return !slices.ContainsFunc(rows, func(r *boardRow) bool { return p.charts[r.Name] == "" })
}

// A pageChart is the timeline of an environment with its figures.
type pageChart struct {
	pageStats
	Name  string
	Slots []string
	Paths []timelinePath
}

// newPageChart returns the timeline of an environment. events are its own, oldest first.
func newPageChart(v *view, events []*event, from, to time.Time) pageChart {
	var slots []string
	for _, row := range slotRows(v) {
		slots = append(slots, row.slot)
	}
	spans := spansOf(events, v.leases, to)
	stats, paths := newStats(events, spans, slots, from, to), drawTimeline(slots, spans, from, to)
	return pageChart{stats, v.name, slots, paths}
}

// Lanes returns the number of lanes.
func (c pageChart) Lanes() int { return len(c.Slots) }

// Busyness returns the class of the busy share.
func (c pageChart) Busyness() string { return busyness(c.Busy) }

// byEnvironment groups events by environment, in their order. It leaves out eventClosed and
// those of everywhere.
func byEnvironment(events []*event) map[string][]*event {
	all := map[string][]*event{}
	for _, e := range events {
		if e.kind != eventClosed && e.environment != everywhere {
			all[e.environment] = append(all[e.environment], e)
		}
	}
	return all
}
