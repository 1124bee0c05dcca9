package main

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// endOfAnn returns an event: the release of a lease of the holder ann.
func endOfAnn(number uint64, environment, id string, at time.Time) *event {
	return &event{number: number, kind: eventReleased, at: at, environment: environment, slot: "uat",
		id: id, holder: "ann", fence: number}
}

// ids fails the test unless exactly these ids are remembered.
func (h *history) ids(t *testing.T, now time.Time, want ...string) {
	t.Helper()
	for _, id := range want {
		if h.endOfID("uat", id, now) == nil {
			t.Errorf("%s is forgotten", id)
		}
	}
	if len(h.ends) != len(want) {
		t.Errorf("%d ends are remembered, want %d", len(h.ends), len(want))
	}
}

// checkSize fails the test unless the size is that of all events and ends.
func (h *history) checkSize(t *testing.T) {
	t.Helper()
	size := len(h.ends) * endSize
	for _, e := range slices.Concat(h.events, h.appended) {
		size += e.size()
	}
	if h.size != size {
		t.Errorf("the size is %d, want %d", h.size, size)
	}
}

// An end is remembered for an hour, whether its event is in the ring or not, and with its texts
// only while it is.
func TestAnEndIsRememberedForAnHour(t *testing.T) {
	h, now := newHistory(testHistory), time.Now()
	h.append(&event{number: 1, kind: eventGranted, at: now})
	h.append(endOfAnn(2, "uat", "a", now))
	h.append(endOfAnn(3, "uat", "b", now.Add(time.Minute)))
	h.publish(trim{})
	with := h.endOfID("uat", "a", now)
	if with == nil || with.event != h.events[1] {
		t.Fatalf("%+v has no event", with)
	}
	h.append(&event{number: 4, kind: eventGranted, at: now})
	if got := h.surplus(now.Add(rememberAge - 1)); got != (trim{}) {
		t.Errorf("just before an hour %+v would be deleted", got)
	}
	h.publish(trim{events: 2}) // as if the ring were full
	h.checkSize(t)
	h.ids(t, now.Add(rememberAge-1), "a", "b")
	if end := h.endOfID("uat", "a", now); end.event != nil || end.kind != eventReleased || !end.at.Equal(now) || with.event == nil {
		t.Errorf("the end outside of the ring is %+v, the one from before %+v", end, with)
	}
	if h.endOfID("uat", "b", now).event == nil {
		t.Error("b, which is in the ring, has no event")
	}
	if h.endOfID("uat", "a", now.Add(rememberAge)) != nil {
		t.Error("after an hour it is still found")
	}
	h.append(&event{number: 5, kind: eventGranted, at: now})
	got := h.surplus(now.Add(rememberAge))
	if got != (trim{ends: 1}) {
		t.Errorf("after an hour %+v would be deleted", got)
	}
	h.publish(got)
	h.ids(t, now, "b")
	h.publish(trim{ends: 1})
	h.ids(t, now)
	h.checkSize(t)
	if len(h.index) != 0 {
		t.Errorf("%d names are kept for ever", len(h.index))
	}
}

func TestAnEndIsFoundInItsEnvironmentOnly(t *testing.T) {
	h, now := newHistory(testHistory), time.Now()
	h.append(endOfAnn(2, "uat", "a", now))
	for name, s := range map[string]selector{"fence": {fence: 2}, "id": {id: "a"}, "holder": {holder: "ann"},
		"slot": {holder: "ann", slot: "uat"}, "fence and slot": {fence: 2, slot: "uat"}, "id and holder": {id: "a", holder: "ann"}} {
		if end := h.endOfLease("uat", s, now); end == nil || end.number != 2 {
			t.Errorf("by its %s it is %+v", name, end)
		}
		if end := h.endOfLease("prod", s, now); end != nil {
			t.Errorf("by its %s in prod it is %+v", name, end)
		}
	}
	for _, s := range []selector{{}, {slot: "uat"}, {fence: 3}, {id: "ann"}, {holder: "a"}, {holder: "uat"}, {id: "a", holder: "bob"},
		{fence: 2, slot: "blue"}, {fence: 2, holder: "bob"}, {holder: "ann", slot: "blue"}, {id: "2"}} {
		if end := h.endOfLease("uat", s, now); end != nil {
			t.Errorf("by %+v it is %+v", s, end)
		}
	}
}

// The digests are stored, so they must not change.
func TestDigestsStayAsTheyAre(t *testing.T) {
	got := fmt.Sprintf("%x %x %x", newDigest("uat", digestOfID, "12345678"), fenceDigest("uat", 7),
		newDigest("uat", digestOfHolderAndSlot, "blue", "ann"))
	if want := "85014757bc8902e9 ae5bc1f27f33aabd b2b19239eda55112"; got != want {
		t.Errorf("they are %s, want %s", got, want)
	}
}

func TestWhatCouldNotBeStoredIsRememberedToo(t *testing.T) {
	h, now := newHistory(testHistory), time.Now()
	h.append(endOfAnn(1, "uat", "a", now))
	h.setAside()
	h.publish(trim{})
	h.ids(t, now, "a")
	h.checkSize(t)
	if len(h.events) != 0 || h.endOfID("uat", "a", now).event != nil {
		t.Error("it is in the ring")
	}
}

func TestTheEndThatIsForgottenDoesNotTakeALaterOneAlong(t *testing.T) {
	h, now := newHistory(testHistory), time.Now()
	h.append(endOfAnn(1, "uat", "a", now))
	h.append(endOfAnn(2, "uat", "b", now.Add(rememberAge)))
	h.publish(trim{events: 1, ends: 1})
	for _, s := range []selector{{holder: "ann"}, {holder: "ann", slot: "uat"}} {
		if end := h.endOfLease("uat", s, now.Add(rememberAge)); end == nil || end.number != 2 {
			t.Errorf("the last end of %+v is %+v", s, end)
		}
	}
}

// After the undo of an end, the end before it is found, in the ring or outside of it.
func TestAnEndThatIsTakenBackShowsTheOneBefore(t *testing.T) {
	now := time.Now()
	h := newHistory(testHistory)
	h.append(endOfAnn(1, "uat", "older", now))
	h.append(endOfAnn(2, "uat", "before", now))
	h.append(endOfAnn(3, "prod", "elsewhere", now))
	h.append(&event{number: 4, kind: eventLeft, at: now, environment: "uat", id: "waiter", holder: "ann"})
	h.publish(trim{})
	for _, dropped := range []int{0, 2} {
		h.drop(trim{events: dropped})
		known := len(h.index)
		for _, e := range []*event{endOfAnn(9, "uat", "undone", now),
			{number: 9, kind: eventLeft, at: now, environment: "uat", id: "undone", holder: "ann"}} {
			h.append(e)
			h.undo(e)
			h.checkSize(t)
			for _, s := range []selector{{holder: "ann"}, {holder: "ann", slot: "uat"}} {
				if end := h.endOfLease("uat", s, now); end == nil || end.number != 2 {
					t.Errorf("%+v: found %+v", s, end)
				}
			}
			if len(h.index) != known {
				t.Errorf("%d names are known, before %d", len(h.index), known)
			}
		}
		other := &event{number: 9, kind: eventReleased, at: now, environment: "uat", slot: "uat", id: "undone", fence: 9}
		h.append(other)
		h.undo(other)
		if len(h.index) != known || h.index[0] != nil {
			t.Errorf("%d names are known, before %d", len(h.index), known)
		}
	}
}

func TestEventsAreKeptForExactly30Days(t *testing.T) {
	h, now := newHistory(testHistory), time.Now()
	h.append(&event{number: 1, kind: eventGranted, at: now})
	h.publish(trim{})
	h.append(&event{number: 2, kind: eventGranted, at: now.Add(historyAge)})
	if n := h.surplus(now.Add(historyAge)); n != (trim{}) {
		t.Errorf("after 30 days %+v would be deleted", n)
	}
	if n := h.surplus(now.Add(historyAge + 1)); n != (trim{events: 1}) {
		t.Errorf("a moment later %+v would be deleted, want 1", n)
	}
}

// The history has at most as many bytes as its limit: a batch drops as many events as are needed
// for what it adds, which may be more than it adds, and no event more.
func TestTheHistoryIsLimitedInBytes(t *testing.T) {
	now := time.Now()
	small := func(n int) *event { return &event{number: uint64(n), kind: eventGranted, at: now} }
	h := newHistory(10 * eventSize)
	for i := range 10 {
		h.append(small(i))
		if n := h.surplus(now); n != (trim{}) {
			t.Fatalf("%d events are within the limit, and %+v would be deleted", i+1, n)
		}
		h.publish(trim{})
	}
	h.append(&event{number: 20, kind: eventGranted, at: now, reason: strings.Repeat("r", 3*eventSize+1)})
	n := h.surplus(now)
	if n != (trim{events: 5}) {
		t.Fatalf("%+v would be deleted, want 5 events", n)
	}
	h.publish(n)
	h.checkSize(t)
	e := endOfAnn(21, "uat", "a", now)
	h.append(e)
	h.publish(h.surplus(now))
	h.checkSize(t)
	if h.size > h.limit || h.size+eventSize <= h.limit {
		t.Errorf("the size is %d, the limit %d", h.size, h.limit)
	}
	h.limit = 0 // as if ends took all of it
	h.append(small(22))
	if n = h.surplus(now); n != (trim{events: len(h.events)}) {
		t.Errorf("%+v would be deleted of %d", n, len(h.events))
	}
	h.publish(n)
	if len(h.events) != 1 || len(h.ends) != 1 {
		t.Errorf("%d events and %d ends are left", len(h.events), len(h.ends))
	}
}

// Every text of an event counts.
func TestTheSizeOfAnEventHasAllItsTexts(t *testing.T) {
	e := event{environment: "1", slot: "22", id: "333", holder: "4444", url: "55555", reason: "666666", by: "7777777",
		to: "999999999", why: "aaaaaaaaaa", origin: origin{key: "bbbbbbbbbbb", verified: "cccccccccccc", from: "88888888"}, byKey: "ddddddddddddd"}
	if got := e.size() - eventSize; got != 91 {
		t.Errorf("it counts %d bytes of text", got)
	}
}

// What the history counts is what it takes, within a quarter.
func TestTheSizeOfTheHistoryIsItsMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("many events")
	}
	const n = 50_000
	heap := func() int {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	now := time.Now()
	for name, dropped := range map[string]int{"with their events": 0, "alone": n} {
		before, h := heap(), newHistory(testHistory)
		for i := range n {
			text := func(of string) string { return fmt.Sprintf("%s-%029d", of, i) }
			h.append(&event{number: uint64(i), kind: eventReleased, at: now, environment: text("e"), slot: text("s"), id: text("i"),
				holder: text("h"), url: text("u"), reason: text("r"), fence: uint64(i + 1)})
		}
		h.publish(trim{events: dropped})
		h.events = slices.Clone(h.events) // as the keeper does: readers may have the old array
		got := heap() - before
		t.Logf("%d ends %s: counted %d, taken %d bytes", n, name, h.size, got)
		if got > h.size*5/4 || got < h.size*3/5 {
			t.Errorf("%d ends %s: counted %d, taken %d bytes", n, name, h.size, got)
		}
		runtime.KeepAlive(h)
	}
}

func TestNoMoreThan200000EndsAreRemembered(t *testing.T) {
	if testing.Short() {
		t.Skip("many events")
	}
	h, now := newHistory(1<<30), time.Now()
	closed := func(i int) *event {
		return &event{number: uint64(i), kind: eventClosed, environment: "uat", id: fmt.Sprint(i), at: now}
	}
	for i := range rememberEnds {
		h.append(closed(i))
	}
	h.publish(trim{})
	h.append(&event{number: rememberEnds, kind: eventGranted, at: now})
	if n := h.surplus(now); n.ends != 0 {
		t.Errorf("%d would be forgotten of %d", n.ends, rememberEnds)
	}
	h.append(closed(rememberEnds + 1))
	n := h.surplus(now)
	if n.ends != 1 {
		t.Errorf("%d would be forgotten, want 1", n.ends)
	}
	h.publish(n)
	if len(h.ends) != rememberEnds || h.endOfID("uat", "0", now) != nil || h.endOfID("uat", "1", now) == nil {
		t.Errorf("%d are remembered", len(h.ends))
	}
	h.append(&event{number: 1 << 40, kind: eventGranted, at: now})
	if n := h.surplus(now.Add(rememberAge)); n.ends != 2 {
		t.Errorf("all are too old, %d would be forgotten with one event that is added", n.ends)
	}
}

// The history knows an environment while the ring has an event of it, with the number of its
// first event.
func TestNamesAreKnownForAsLongAsTheRingKnowsThem(t *testing.T) {
	h, now := newHistory(testHistory), time.Now()
	h.append(&event{number: 5, kind: eventGranted, at: now, environment: "uat"})
	if len(h.environments) != 0 {
		t.Error("a name is known before its event is published")
	}
	h.append(&event{number: 6, kind: eventGranted, at: now, environment: "perf"})
	h.append(&event{number: 7, kind: eventGranted, at: now, environment: "uat"})
	h.publish(trim{})
	h.append(&event{number: 8, kind: eventGranted, at: now, environment: "lost"})
	h.setAside()
	h.publish(trim{events: 1})
	uat, perf := environmentUse{5, 1}, environmentUse{6, 1}
	if len(h.environments) != 2 || *h.environments["uat"] != uat || *h.environments["perf"] != perf {
		t.Errorf("known are %+v", h.environments)
	}
	h.drop(trim{events: 2})
	if len(h.environments) != 0 {
		t.Errorf("known without an event: %v", h.environments)
	}
}

// A history that is loaded remembers what it did before, in the order of the numbers, and drops the
// oldest events that do not fit.
func TestALoadedHistoryRemembersTheSame(t *testing.T) {
	now := time.Now()
	older, newer := newRequestEnd(endOfAnn(2, "uat", "older", now)), newRequestEnd(endOfAnn(9, "uat", "newer", now))
	older.event, newer.event = nil, nil
	h := newHistory(testHistory)
	h.loadEvent(&event{number: 3, kind: eventGranted, at: now, environment: "uat"}, now)
	h.loadEvent(endOfAnn(4, "uat", "long ago", now.Add(-rememberAge)), now)
	h.loadEvent(endOfAnn(5, "uat", "in the ring", now), now)
	h.loadEnd(newer)
	h.loadEnd(older)
	h.finishLoading()
	h.checkSize(t)
	h.ids(t, now, "older", "in the ring", "newer")
	if end := h.endOfLease("uat", selector{holder: "ann"}, now); end == nil || end.number != 9 {
		t.Errorf("the last end of the holder is %+v", end)
	}
	if len(h.events) != 3 || len(h.appended) != 0 || h.endOfID("uat", "in the ring", now).event != h.events[2] {
		t.Errorf("%d events are published", len(h.events))
	}
	if dropped := h.loadWithin(h.size); len(dropped) != 0 {
		t.Errorf("it fits, and %v are dropped", dropped)
	}
	if dropped := h.loadWithin(h.size - 1); !slices.Equal(dropped, []uint64{3}) {
		t.Errorf("one byte is too many, and %v are dropped", dropped)
	}
	if dropped := h.loadWithin(0); !slices.Equal(dropped, []uint64{4, 5}) {
		t.Errorf("%v are dropped", dropped)
	}
	h.checkSize(t)
	h.ids(t, now, "older", "in the ring", "newer")
	if len(h.environments) != 0 || h.endOfID("uat", "in the ring", now).event != nil {
		t.Error("a dropped event is still known")
	}
}
