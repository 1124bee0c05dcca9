package main

import (
	"fmt"
	"testing"
	"time"
)

// endOfAnn returns an event: the release of a lease of the holder ann.
func endOfAnn(number uint64, environment, id string, at time.Time) *event {
	return &event{number: number, kind: eventReleased, at: at, environment: environment, slot: "uat", id: id, holder: "ann", fence: number}
}

func (h *history) ids(t *testing.T, now time.Time, want ...string) {
	t.Helper()
	for _, id := range want {
		if h.endOf("uat", endByID, id, now) == nil {
			t.Errorf("%s is forgotten", id)
		}
	}
	if len(h.remembered)+h.endCount != len(want) {
		t.Errorf("%d ends in the ring and %d outside of it, want %d", h.endCount, len(h.remembered), len(want))
	}
}

func TestAnEndOutsideOfTheRingIsRememberedForAnHour(t *testing.T) {
	h, now := newHistory(), time.Now()
	h.append(&event{number: 1, kind: eventGranted, at: now})
	h.append(endOfAnn(2, "uat", "a", now))
	h.append(endOfAnn(3, "uat", "b", now.Add(time.Minute)))
	h.publish(2, now.Add(rememberAge-1)) // both leave the ring, as if it were full
	h.ids(t, now.Add(rememberAge-1), "a", "b")
	if len(h.events) != 1 || len(h.remembered) != 1 {
		t.Fatalf("%d events, %d outside of the ring", len(h.events), len(h.remembered))
	}
	h.drop(0, now.Add(rememberAge))
	h.ids(t, now.Add(rememberAge), "b")
	h.drop(1, now.Add(time.Minute+rememberAge))
	h.ids(t, now)
	if len(h.lastEnds)+len(h.byFence) != 0 {
		t.Errorf("%d ends are kept for ever", len(h.lastEnds)+len(h.byFence))
	}
}

func TestAFenceIsFoundInItsEnvironmentOnly(t *testing.T) {
	h, now := newHistory(), time.Now()
	e := endOfAnn(2, "uat", "a", now)
	h.append(e)
	for name, want := range map[string]*event{"uat": e, "prod": nil} {
		if got := h.endOfLease(name, selector{fence: e.fence}, now); got != want {
			t.Errorf("in %s it is %+v", name, got)
		}
	}
}

func TestWhatCouldNotBeStoredIsRememberedToo(t *testing.T) {
	h, now := newHistory(), time.Now()
	h.append(endOfAnn(1, "uat", "a", now))
	h.setAside()
	h.publish(0, now)
	h.ids(t, now, "a")
	if len(h.events) != 0 {
		t.Error("it is in the ring")
	}
}

func TestTheEndThatLeavesTheRingDoesNotTakeALaterOneAlong(t *testing.T) {
	h, now := newHistory(), time.Now()
	h.append(endOfAnn(1, "uat", "a", now))
	h.append(endOfAnn(2, "uat", "b", now.Add(rememberAge)))
	h.publish(1, now.Add(rememberAge))
	if end := h.endOf("uat", endByHolder, "ann", now.Add(rememberAge)); end == nil || end.id != "b" {
		t.Errorf("the last end of the holder is %+v", end)
	}
}

// After the undo of an end, endOf returns the end before it, in the ring or outside of it.
func TestAnEndThatIsTakenBackShowsTheOneBefore(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		ring, loose uint64
		want        string
	}{{2, 0, "ring"}, {0, 2, "loose"}, {2, 3, "loose"}, {3, 2, "ring"}} {
		h := newHistory()
		if c.loose > 0 {
			h.append(endOfAnn(c.loose, "uat", "loose", now))
			h.setAside()
		}
		if c.ring > 0 {
			h.append(endOfAnn(1, "uat", "older", now))
			h.append(endOfAnn(c.ring, "uat", "ring", now))
		}
		h.append(endOfAnn(4, "prod", "elsewhere", now))
		h.publish(0, now)
		e := endOfAnn(9, "uat", "undone", now)
		h.append(e)
		h.undo(e)
		if end := h.endOf("uat", endByHolder, "ann", now); end == nil || end.id != c.want {
			t.Errorf("%+v: found %+v", c, end)
		}
	}
	h := newHistory()
	h.append(endOfAnn(4, "prod", "elsewhere", now))
	h.publish(0, now)
	known := len(h.lastEnds) + len(h.byFence)
	e := endOfAnn(9, "uat", "undone", now)
	h.append(e)
	h.undo(e)
	if end := h.endOf("uat", endByHolder, "ann", now); end != nil || len(h.lastEnds)+len(h.byFence) != known {
		t.Errorf("the end in another environment was found: %+v", end)
	}
}

func TestEventsAreKeptForExactly30Days(t *testing.T) {
	h, now := newHistory(), time.Now()
	h.append(&event{number: 1, kind: eventGranted, at: now})
	h.publish(0, now)
	h.append(&event{number: 2, kind: eventGranted, at: now.Add(historyAge)})
	if n := h.surplus(now.Add(historyAge)); n != 0 {
		t.Errorf("after 30 days %d would be deleted", n)
	}
	if n := h.surplus(now.Add(historyAge + 1)); n != 1 {
		t.Errorf("a moment later %d would be deleted, want 1", n)
	}
}

func TestNoMoreThan200000EndsAreRemembered(t *testing.T) {
	if testing.Short() {
		t.Skip("many events")
	}
	h, now := newHistory(), time.Now()
	h.append(&event{number: 1, kind: eventGranted, at: now})
	for i := range rememberEnds + 1 {
		h.append(&event{number: uint64(2 + i), kind: eventClosed, environment: "uat", id: fmt.Sprint(i), at: now})
	}
	h.publish(0, now)
	h.append(&event{number: 1 << 40, kind: eventGranted, at: now})
	h.append(&event{number: 1<<40 + 1, kind: eventGranted, at: now})
	if n := h.surplus(now); n != 2 { // the grant, and one end more than rememberEnds
		t.Errorf("%d would be deleted", n)
	}
	h.drop(rememberEnds+1, now)
	if len(h.remembered) != rememberEnds || h.endOf("uat", endByID, "0", now) == nil {
		t.Errorf("%d are remembered outside of the ring", len(h.remembered))
	}
	h.drop(1, now)
	if len(h.remembered) != rememberEnds || h.endOf("uat", endByID, "0", now) != nil || h.endOf("uat", endByID, "1", now) == nil {
		t.Errorf("%d are remembered outside of the ring", len(h.remembered))
	}
}

// The history knows an environment while the ring has an event of it, with the number of its
// first event.
func TestNamesAreKnownForAsLongAsTheRingKnowsThem(t *testing.T) {
	h, now := newHistory(), time.Now()
	h.append(&event{number: 5, kind: eventGranted, at: now, environment: "uat"})
	if len(h.environments) != 0 {
		t.Error("a name is known before its event is published")
	}
	h.append(&event{number: 6, kind: eventGranted, at: now, environment: "perf"})
	h.append(&event{number: 7, kind: eventGranted, at: now, environment: "uat"})
	h.publish(0, now)
	h.append(&event{number: 8, kind: eventGranted, at: now, environment: "lost"})
	h.setAside()
	h.publish(1, now)
	if len(h.environments) != 2 || *h.environments["uat"] != (environmentUse{5, 1}) || *h.environments["perf"] != (environmentUse{6, 1}) {
		t.Errorf("known are %+v", h.environments)
	}
	h.drop(2, now)
	if len(h.environments) != 0 {
		t.Errorf("known without an event: %v", h.environments)
	}
}
