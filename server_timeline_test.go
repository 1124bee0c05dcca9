package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"
)

// ink returns the share of a drawing with so many lanes that its paths of a kind fill, of all
// kinds if how is empty, in per cent. It fails the test if bars of one path overlap.
func ink(t *testing.T, paths []timelinePath, lanes int, how string) float64 {
	t.Helper()
	area := 0.0
	for _, p := range paths {
		if how != "" && p.How != how {
			continue
		}
		end := 0.0
		for _, bar := range strings.Split(strings.TrimSuffix(p.D, "z"), "z") {
			var x, y, right, left float64
			if _, err := fmt.Sscanf(bar, "M%g %gH%gv1H%g", &x, &y, &right, &left); err != nil || left != x {
				t.Fatalf("no bar: %q", bar)
			}
			if x < end-.05 || right > timelineWidth || y < 0 || y > float64(lanes-1) {
				t.Fatalf("%q begins before %g or lies outside", bar, end)
			}
			end = right
			area += right - x
		}
	}
	return 100 * area / float64(lanes*timelineWidth)
}

// The drawing has as much ink as the figure beside it says, and each colour as much as its
// leases had time, however many there are.
func TestTheInkOfATimelineIsTheBusyTime(t *testing.T) {
	r := rand.New(rand.NewPCG(27, 1))
	to := time.Date(2026, 3, 29, 14, 50, 0, 0, time.UTC)
	for _, c := range []struct {
		slots, leases int // of each slot
		window        time.Duration
		load          float64
	}{
		{1, 5, 24 * time.Hour, .1}, {1, 200, 24 * time.Hour, .95}, {4, 239, 24 * time.Hour, .5}, {1, 3000, 24 * time.Hour, .38},
		{18, 2000, 7 * 24 * time.Hour, .38}, {18, 40, 7 * 24 * time.Hour, .38}, {3, 10_000, 7 * 24 * time.Hour, .9}, {1, 1, 7 * 24 * time.Hour, 1},
	} {
		from := to.Add(-c.window)
		var slots []string
		var spans []span
		time7 := 0.0 // of all leases that are not released, as the drawing should have it
		for i := range c.slots {
			slot := "slot-" + strconv.Itoa(i)
			slots = append(slots, slot)
			gap := c.window / time.Duration(c.leases)
			for j := range c.leases {
				at := from.Add(time.Duration(j) * gap)
				how := "released"
				held := time.Duration(float64(gap) * min(1, c.load*(.5+r.Float64())))
				if r.Float64() < .07 {
					how = []string{"expired", "forced", "taken"}[r.IntN(3)]
					time7 += held.Seconds()
				}
				spans = append(spans, span{slot, at, at.Add(held), how})
			}
		}
		spans = append(spans, span{"not-drawn", from, to, spanHeld})
		paths, busy := drawTimeline(slots, spans, from, to), busyShare(spans, slots, from, to)
		if got := ink(t, paths, c.slots, ""); math.Abs(got-float64(busy)) > 1.5 {
			t.Errorf("%+v: %.1f %% ink beside %d %% busy", c, got, busy)
		}
		want := 100 * time7 / c.window.Seconds() / float64(c.slots)
		if got := ink(t, paths, c.slots, "expired") + ink(t, paths, c.slots, "forced") + ink(t, paths, c.slots, "taken"); math.Abs(got-want) > .5 {
			t.Errorf("%+v: %.1f %% of the ink is of leases that were not released, want %.1f %%", c, got, want)
		}
		kinds := map[string]int{}
		for _, p := range paths {
			kinds[p.How]++
			if kinds[p.How] > c.slots {
				t.Errorf("%+v: %s has more than a path a lane", c, p.How)
			}
			if len(p.D) > 40*laneColumns {
				t.Errorf("%+v: a path has %d bytes", c, len(p.D))
			}
		}
	}
}

func TestATimelineDrawsOnlyItsTime(t *testing.T) {
	to := time.Date(2026, 3, 29, 14, 50, 0, 0, time.UTC)
	from := to.Add(-24 * time.Hour)
	at := func(hours float64) time.Time { return from.Add(time.Duration(hours * float64(time.Hour))) }
	spans := []span{
		{"a", at(-5), at(-1), "released"}, {"a", at(-1), at(6), "expired"}, {"a", at(12), at(30), spanHeld},
		{"b", at(6), at(6), "released"}, {"b", at(18), at(24), "forced"}, {"gone", at(0), at(24), "released"},
	}
	want := []timelinePath{
		{"expired", "M0 0H500v1H0z"}, {"held", "M1000 0H2000v1H1000z"}, {"forced", "M1500 1H2000v1H1500z"},
	}
	if got := drawTimeline([]string{"a", "b"}, spans, from, to); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("drawn: %v\nwant:  %v", got, want)
	}
	if busy := busyShare(spans, []string{"a", "b"}, from, to); busy != 50 {
		t.Errorf("busy: %d %%", busy)
	}
	if busy := busyShare(spans, nil, from, to); busy != 0 {
		t.Errorf("busy without slots: %d %%", busy)
	}
	if hours := busyHours(spans, []string{"a"}, at(5), at(8)); fmt.Sprint(hours) != "[100 0 0]" {
		t.Errorf("hours: %v", hours)
	}
}

func TestManySlotsThatAreHeldForAWeekAreBusy(t *testing.T) {
	to := time.Date(2026, 3, 29, 14, 50, 0, 0, time.UTC)
	from := to.Add(-7 * 24 * time.Hour)
	var slots []string
	var spans []span
	for i := range maxSlots {
		slots = append(slots, fmt.Sprint("slot-", i))
		spans = append(spans, span{slots[i], from.Add(-time.Hour), to, spanHeld})
	}
	if busy := busyShare(spans, slots, from, to); busy != 100 {
		t.Errorf("busy for %d per cent of the time", busy)
	}
}
