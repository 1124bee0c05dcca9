package main

// The timeline of the status page: when the slots of an environment were held, as the paths of
// a drawing and as figures. There is no I/O and no clock: times are given, paths and figures
// come out. The area of the paths is the time in which slots were held, so that what is drawn
// is as much as the figure beside it says.

import (
	"math"
	"slices"
	"strconv"
	"time"
)

const (
	timelineWidth = 2000 // of a drawing, in its units; each lane is one unit high
	laneSpans     = 240  // spans that a lane draws one by one; with more it draws shares of columns
	laneColumns   = 240  // of a lane with more spans
)

// A span is the time for which a slot was held. How is what ended it, the name of an eventKind,
// or spanHeld.
type span struct {
	slot     string
	from, to time.Time
	how      string
}

// spanHeld is how of a lease that has not ended.
const spanHeld = "held"

// spanKinds are the kinds of spans in the order in which a column shows their shares.
var spanKinds = []string{"released", "handed", "expired", "taken", "forced", spanHeld}

// A timelinePath is all spans of one kind in one lane, as the data of an SVG path.
type timelinePath struct {
	How string
	D   string
}

// spansOf returns the spans of the leases that events have ended, and of those that are live.
func spansOf(events []*event, leases []leaseView, now time.Time) []span {
	var spans []span
	for _, e := range events {
		if e.isEnd() && e.fence != 0 {
			spans = append(spans, span{e.slot, e.at.Add(-e.held), e.at, e.kind.String()})
		}
	}
	for _, l := range leases {
		spans = append(spans, span{l.slot, l.since, now, spanHeld})
	}
	return spans
}

// drawTimeline returns the paths of the spans in the time from..to, one for each kind in each
// lane. slots are the lanes from top to bottom; spans of other slots are not drawn.
func drawTimeline(slots []string, spans []span, from, to time.Time) []timelinePath {
	bySlot := map[string][]span{}
	for _, s := range spans {
		if s.to.After(from) && s.from.Before(to) {
			bySlot[s.slot] = append(bySlot[s.slot], s)
		}
	}
	var paths []timelinePath
	for i, slot := range slots {
		lane := bySlot[slot]
		draw := drawSpans
		if len(lane) > laneSpans {
			draw = drawColumns
		}
		drawn := draw(lane, float64(i), from, to)
		for _, how := range spanKinds {
			if d := drawn[how]; len(d) > 0 {
				paths = append(paths, timelinePath{how, string(d)})
			}
		}
	}
	return paths
}

// timelinePlace returns where a time is in a drawing of from..to.
func timelinePlace(t, from, to time.Time) float64 {
	share := float64(t.Sub(from)) / float64(to.Sub(from))
	return timelineWidth * min(1, max(0, share))
}

// drawSpans draws each span, at its time and as wide as it was long.
func drawSpans(spans []span, y float64, from, to time.Time) map[string][]byte {
	drawn := map[string][]byte{}
	for _, s := range spans {
		x := timelinePlace(s.from, from, to)
		drawn[s.how] = appendBar(drawn[s.how], x, timelinePlace(s.to, from, to)-x, y)
	}
	return drawn
}

// drawColumns draws, in columns of equal width, how much of their time each kind takes. It
// needs as much space for any number of spans, and has the area of what it shows.
func drawColumns(spans []span, y float64, from, to time.Time) map[string][]byte {
	const width = float64(timelineWidth) / laneColumns
	shares := map[string]*[laneColumns]float64{}
	for _, s := range spans {
		if shares[s.how] == nil {
			shares[s.how] = new([laneColumns]float64)
		}
		begin, end := timelinePlace(s.from, from, to)/width, timelinePlace(s.to, from, to)/width
		for c := int(begin); c < laneColumns && float64(c) < end; c++ {
			shares[s.how][c] += min(end, float64(c+1)) - max(begin, float64(c))
		}
	}
	drawn := map[string][]byte{}
	for c := range laneColumns {
		x, last := float64(c)*width, float64(c+1)*width
		for _, how := range spanKinds {
			if shares[how] == nil || shares[how][c] == 0 {
				continue
			}
			wide := min(shares[how][c]*width, last-x)
			drawn[how] = appendBar(drawn[how], x, wide, y)
			x += wide
		}
	}
	return drawn
}

// appendBar appends a bar of a lane to the data of a path. Both ends are rounded to a tenth of
// a unit, and bars that touch still touch.
func appendBar(d []byte, x, width, y float64) []byte {
	left, right := math.Round(10*x)/10, math.Round(10*(x+width))/10
	if right <= left {
		return d
	}
	number := func(letter byte, n float64) {
		d = append(d, letter)
		d = strconv.AppendFloat(d, math.Round(10*n)/10, 'f', -1, 64)
	}
	number('M', left)
	number(' ', y)
	number('H', right)
	d = append(d, "v1"...)
	number('H', left)
	return append(d, 'z')
}

// pageStats are the figures of one environment in the time that is drawn.
type pageStats struct {
	Busy       int // share of the time in which the slots were held, in per cent
	Grants     int
	Expiries   int
	Forced     int           // also those that were taken over
	Median     time.Duration // of the waits before a grant
	NinetyFive time.Duration // their 95th percentile
	Waited     time.Duration // their sum
}

// newStats returns the figures of the time from..to. slots are those that are drawn; without
// any Busy is zero. Events before from do not count, nor does the time of a lease before it.
func newStats(events []*event, spans []span, slots []string, from, to time.Time) pageStats {
	var st pageStats
	var waits []time.Duration
	for _, e := range events {
		if e.at.Before(from) {
			continue
		}
		switch e.kind {
		case eventGranted:
			st.Grants++
			st.Waited += e.waited
			waits = append(waits, e.waited)
		case eventExpired:
			st.Expiries++
		case eventForced, eventTaken:
			st.Forced++
		}
	}
	slices.Sort(waits)
	st.Median, st.NinetyFive = percentile(waits, 50), percentile(waits, 95)
	st.Busy = busyShare(spans, slots, from, to)
	return st
}

// busyShare returns how much of the time from..to the slots were held, in per cent; 100 at
// most, and zero without slots.
func busyShare(spans []span, slots []string, from, to time.Time) int {
	if len(slots) == 0 || !to.After(from) {
		return 0
	}
	isDrawn := map[string]bool{}
	for _, s := range slots {
		isDrawn[s] = true
	}
	busy := 0.0 // in seconds: a sum of durations of many slots would not fit
	for _, s := range spans {
		if isDrawn[s.slot] {
			busy += max(0, earlierTime(s.to, to).Sub(laterTime(s.from, from)).Seconds())
		}
	}
	return min(100, int(math.Round(100*busy/(to.Sub(from).Seconds()*float64(len(slots))))))
}

// busyHours returns for each hour of from..to, from the first on, how much of it the slots
// were held, in per cent.
func busyHours(spans []span, slots []string, from, to time.Time) []int {
	var hours []int
	for t := from; t.Before(to); t = t.Add(time.Hour) {
		hours = append(hours, busyShare(spans, slots, t, earlierTime(t.Add(time.Hour), to)))
	}
	return hours
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

// earlierTime returns the earlier of two times.
func earlierTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// busyness returns the class of a busy share: high, medium or low.
func busyness(busy int) string {
	switch {
	case busy >= 80:
		return "high"
	case busy >= 60:
		return "medium"
	}
	return "low"
}
