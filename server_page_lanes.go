package main

// The drawing of the status page: one lane for each slot, with a bar for each lease, and
// the figures of an environment. server_page.go collects what is drawn.

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// pageBars is how many bars the page shows, of all lanes together. If there are more, bars
// that are close are merged.
const pageBars = 800

// laneWidth is the width of a lane in the units of its SVG.
const laneWidth = 1000

// pageStats are the figures of one environment in the time that is drawn.
type pageStats struct {
	Busy       int // share of the time in which the slots were held, in per cent
	Grants     int
	Expiries   int
	Forced     int
	Median     time.Duration // of the waits before a grant
	NinetyFive time.Duration // their 95th percentile
}

// A lane is the timeline of one slot.
type lane struct {
	Slot string
	Bars []bar
}

// A bar is a lease in a lane, or several leases that are too close to draw separately.
// Positions and widths are in units of laneWidth.
type bar struct {
	X, Width              float64
	WaitX, WaitWidth      float64 // of the wait before the grant
	How                   string  // released, expired, forced, held
	Title                 string  // the tooltip
	from, to, requestedAt time.Time
	count                 int // leases in the bar
}

// barsOf returns the bars of each slot, not placed yet: one for each event that ended a
// lease, and one for each live lease.
func barsOf(events []*event, leases []lease, now time.Time) map[string][]bar {
	bars := map[string][]bar{}
	for _, e := range events {
		if e.kind != eventReleased && e.kind != eventExpired && e.kind != eventForced {
			continue
		}
		start, how := e.at.Add(-e.held), e.kind.String()
		end := how + " at " + e.at.UTC().Format("Jan 2 15:04 UTC")
		bars[e.slot] = append(bars[e.slot], bar{
			from: start, to: e.at, requestedAt: start.Add(-e.waited), How: how, count: 1,
			Title: tooltip(e.holder, e.held, e.waited, end),
		})
	}
	for _, l := range leases {
		bars[l.slot] = append(bars[l.slot], bar{
			from: l.since, to: now, requestedAt: l.since.Add(-l.waited), How: "held", count: 1,
			Title: tooltip(l.holder, now.Sub(l.since), l.waited, "held now"),
		})
	}
	return bars
}

// tooltip returns the tooltip of a bar. The holder stands between U+2068 and U+2069,
// which isolate its direction, so that letters from right to left do not reorder the text
// after it. A tooltip has no markup for that.
func tooltip(holder string, held, waited time.Duration, end string) string {
	name := cmp.Or(printable(holder), "somebody who gave no name")
	text := fmt.Sprintf("\u2068%s\u2069: %s, %s", name, durationText(held), end)
	if waited >= time.Second {
		text += ", after waiting " + durationText(waited)
	}
	return text
}

// placeBars returns the bars that are at least partly in the time from..to, with their
// positions and widths, cut to that time. A bar is at least one unit wide.
func placeBars(bars []bar, from, to time.Time) []bar {
	x := func(t time.Time) float64 {
		share := float64(t.Sub(from)) / float64(to.Sub(from))
		return laneWidth * min(1, max(0, share))
	}
	var kept []bar
	for _, b := range bars {
		if b.to.Before(from) {
			continue
		}
		b.X, b.WaitX = x(b.from), x(b.requestedAt)
		b.Width, b.WaitWidth = max(1, x(b.to)-b.X), b.X-b.WaitX
		kept = append(kept, b)
	}
	return kept
}

// thinBars merges bars of one lane that are close, if all environments together have more
// than pageBars. The width of a merged bar is limited so that pageBars bars of that width
// fill all lanes.
func thinBars(environments []pageEnvironment) {
	total, lanes := 0, 0
	for _, e := range environments {
		for _, l := range e.Lanes {
			total, lanes = total+len(l.Bars), lanes+1
		}
	}
	if total <= pageBars {
		return
	}
	grain := laneWidth * float64(lanes) / pageBars
	for i := range environments {
		for j := range environments[i].Lanes {
			lane := &environments[i].Lanes[j]
			lane.Bars = mergeBars(lane.Bars, grain)
		}
	}
}

// mergeBars merges successive bars that together are at most grain wide. A merged bar has
// the title of its last lease, and of the ends of its leases the last that is not released.
func mergeBars(bars []bar, grain float64) []bar {
	var merged []bar
	for _, b := range bars {
		last := len(merged) - 1
		if last < 0 || b.X+b.Width-merged[last].X > grain {
			merged = append(merged, b)
			continue
		}
		m := &merged[last]
		m.Width = b.X + b.Width - m.X
		m.WaitWidth = max(m.WaitWidth, b.WaitWidth)
		if b.How != "released" {
			m.How = b.How
		}
		m.count++
		m.Title = fmt.Sprintf("%d leases, the last: %s", m.count, b.Title)
	}
	return merged
}

// newStats returns the figures of the time from..to. slots is how many slots the
// environment has now; without slots, Busy is zero. Events before from are not counted, and
// the time of a lease before from is not busy time. Busy time includes slots that are no
// longer declared; Busy is 100 at most.
func newStats(events []*event, bars map[string][]bar, slots int, from, to time.Time) pageStats {
	var st pageStats
	var waits []time.Duration
	for _, e := range events {
		if e.at.Before(from) {
			continue
		}
		switch e.kind {
		case eventGranted:
			st.Grants++
			waits = append(waits, e.waited)
		case eventExpired:
			st.Expiries++
		case eventForced:
			st.Forced++
		}
	}
	slices.Sort(waits)
	st.Median, st.NinetyFive = percentile(waits, 50), percentile(waits, 95)
	busy := time.Duration(0)
	for _, lane := range bars {
		for _, b := range lane {
			if start := laterTime(b.from, from); b.to.After(start) {
				busy += b.to.Sub(start)
			}
		}
	}
	if slots > 0 {
		st.Busy = min(100, int(100*busy.Seconds()/(to.Sub(from).Seconds()*float64(slots))))
	}
	return st
}

// percentile returns the smallest of the sorted values that at least percent per cent of
// them do not exceed, zero if there are no values.
func percentile(sorted []time.Duration, percent int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[(len(sorted)*percent+99)/100-1]
}

// laterTime returns the later of two times.
func laterTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// Busyness returns high, medium or low: the CSS class of the busy share.
func (st pageStats) Busyness() string {
	switch {
	case st.Busy >= 80:
		return "high"
	case st.Busy >= 50:
		return "medium"
	}
	return "low"
}
