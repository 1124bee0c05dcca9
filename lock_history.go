package main

// What has happened: a ring of events, and the memory of ended requests that
// the rules need. It holds no state of its own that is not in the file.

import (
	"slices"
	"time"
)

// The history keeps this many events, for this long.
const (
	historyEvents = 100_000
	historyAge    = 30 * 24 * time.Hour
)

// An ended request is remembered for rememberAge, but no more than
// rememberEnds of them. The ring keeps their events for as long, even where
// that makes it longer than historyEvents.
const (
	rememberAge  = time.Hour
	rememberEnds = 200_000
)

// An eventKind says what happened.
type eventKind uint8

// The kinds of events. Their numbers are on disk: never change one.
const (
	eventGranted   eventKind = 1 // a request got a slot
	eventReleased  eventKind = 2 // its owner ended the lease
	eventExpired   eventKind = 3 // time ended the lease
	eventForced    eventKind = 4 // somebody ended the lease by force
	eventLeft      eventKind = 5 // a waiting request gave up
	eventAbandoned eventKind = 6 // a waiting request was absent for too long
	eventClosed    eventKind = 7 // an id was ended that was not known; not a part of the history that people see
)

var eventNames = map[eventKind]string{eventGranted: "granted", eventReleased: "released", eventExpired: "expired", eventForced: "forced",
	eventLeft: "left", eventAbandoned: "abandoned", eventClosed: "closed"}

func (k eventKind) String() string { return eventNames[k] }

// An event is one line of the history. It is never changed.
type event struct {
	number      uint64 // its key; that of a grant is the fence
	kind        eventKind
	at          time.Time // by the wall clock
	environment string
	slot        string
	id          string // for the memory of ended requests; shown to nobody
	holder      string
	url         string
	reason      string
	fence       uint64
	waited      time.Duration
	held        time.Duration
	by          string // forced: who
	from        string // forced: from which address
}

// ends reports whether the event is the end of a request.
func (e *event) isEnd() bool { return e.kind != eventGranted }

// What an end is remembered by.
type endKey int

const (
	endByID endKey = iota
	endByHolder
)

type endRef struct {
	environment string
	by          endKey
	name        string
	slot        string // with holderKey: of this slot; empty: whichever was the last
}

// history is the ring. Appended events can be taken back until they are
// published; only published ones are visible to readers.
type history struct {
	events       []*event // published, oldest first
	appended     []*event // of the round under way
	endCount     int      // how many of both end a request
	remembered   []*event // ends that are out of the ring, but still remembered, oldest first
	lastEnds     map[endRef]*event
	byFence      map[uint64]*event          // the ends of leases
	environments map[string]*environmentUse // the environments of the published events
}

// A nameUse says how much of the history is about one environment.
type environmentUse struct {
	first  uint64 // the number of its first event, also when the ring has dropped that
	events int    // in the ring
}

func newHistory() *history {
	return &history{lastEnds: map[endRef]*event{}, byFence: map[uint64]*event{}, environments: map[string]*environmentUse{}}
}

// refs are the names by which the end of a request is found again, besides its
// fence.
func (e *event) endRefs() []endRef {
	if !e.isEnd() {
		return nil
	}
	var refs []endRef
	if e.id != "" {
		refs = append(refs, endRef{e.environment, endByID, e.id, ""})
	}
	if e.fence != 0 && e.holder != "" {
		refs = append(refs, endRef{e.environment, endByHolder, e.holder, ""}, endRef{e.environment, endByHolder, e.holder, e.slot})
	}
	return refs
}

// append adds the event of a round under way: the rules see it at once,
// readers when it is published.
func (h *history) append(e *event) {
	h.appended = append(h.appended, e)
	h.remember(e)
}

// takeBack forgets the event that was appended last. What it had hidden, an
// older end of the same holder, is found again.
func (h *history) undo(e *event) {
	h.appended = h.appended[:len(h.appended)-1]
	h.forget(e)
	for _, ref := range e.endRefs() {
		if ref.by == endByHolder {
			h.restoreLastEnd(ref)
		}
	}
}

// findAgain looks for the latest end of a holder. It is slow, and needed only
// after a failed commit.
func (h *history) restoreLastEnd(ref endRef) {
	var last *event
	for _, list := range [][]*event{h.appended, h.events, h.remembered} {
		for _, e := range slices.Backward(list) {
			if e.isEnd() && e.fence != 0 && e.environment == ref.environment && e.holder == ref.name && (ref.slot == "" || e.slot == ref.slot) {
				if last == nil || e.number > last.number {
					last = e
				}
				break
			}
		}
	}
	if last != nil {
		h.lastEnds[ref] = last
	}
}

func (h *history) remember(e *event) {
	if e.isEnd() {
		if h.endCount++; e.fence != 0 {
			h.byFence[e.fence] = e
		}
	}
	for _, ref := range e.endRefs() {
		h.lastEnds[ref] = e
	}
}

func (h *history) forget(e *event) {
	if e.isEnd() {
		h.endCount--
	}
	h.unlink(e)
}

func (h *history) unlink(e *event) {
	delete(h.byFence, e.fence)
	for _, ref := range e.endRefs() {
		if h.lastEnds[ref] == e {
			delete(h.lastEnds, ref)
		}
	}
}

// publish makes the events of the round visible and drops the oldest ones,
// which the same commit has deleted.
func (h *history) publish(drop int, now time.Time) {
	for _, e := range h.appended {
		if h.environments[e.environment] == nil {
			h.environments[e.environment] = &environmentUse{first: e.number}
		}
		h.environments[e.environment].events++
	}
	h.events = append(h.events, h.appended...)
	h.appended = nil
	h.drop(drop, now)
}

// setAside keeps the events of the round out of the ring: there was no space
// to store them.
func (h *history) setAside() {
	for _, e := range h.appended {
		h.moveOut(e)
	}
	h.appended = nil
}

func (h *history) drop(n int, now time.Time) {
	for i, e := range h.events[:n] {
		h.moveOut(e)
		use := h.environments[e.environment]
		use.events--
		if use.events == 0 {
			delete(h.environments, e.environment)
		}
		h.events[i] = nil
	}
	h.events = h.events[n:]
	for len(h.remembered) > 0 && (now.Sub(h.remembered[0].at) >= rememberAge || len(h.remembered) > rememberEnds) {
		h.unlink(h.remembered[0])
		h.remembered = h.remembered[1:]
	}
}

// loosen takes an event out of the ring. An end is remembered for as long as
// any other, but only until the server stops.
func (h *history) moveOut(e *event) {
	if e.isEnd() {
		h.endCount--
		h.remembered = append(h.remembered, e)
	}
}

// surplus returns how many of the oldest events the round under way should
// delete: never more than twice what it adds, so that a commit stays small.
func (h *history) surplus(now time.Time) int {
	most := min(2*len(h.appended), len(h.events))
	total := len(h.events) + len(h.appended)
	ends, n := h.endCount, 0
	for ; n < most; n++ {
		e := h.events[n]
		old := now.Sub(e.at) > historyAge || total-n > historyEvents
		needed := e.isEnd() && now.Sub(e.at) < rememberAge && ends <= rememberEnds
		if !old || needed {
			break
		}
		if e.isEnd() {
			ends--
		}
	}
	return n
}

// endOf returns how a request ended that is known by an id or a holder; the
// latest one where several are; nil when that is not remembered.
func (h *history) endOf(environment string, by endKey, name string, now time.Time) *event {
	return h.ifRecent(h.lastEnds[endRef{environment, by, name, ""}], now)
}

// young returns the end if it is still remembered, and nil otherwise.
func (h *history) ifRecent(e *event, now time.Time) *event {
	if e == nil || now.Sub(e.at) >= rememberAge {
		return nil
	}
	return e
}

// endOfLease returns how the lease ended that the selector names; nil when
// that is not remembered, or when the names do not belong together.
func (h *history) endOfLease(environment string, s selector, now time.Time) *event {
	var e *event
	switch {
	case s.id != "":
		e = h.endOf(environment, endByID, s.id, now)
	case s.fence != 0:
		e = h.ifRecent(h.byFence[s.fence], now)
	case s.holder != "":
		e = h.ifRecent(h.lastEnds[endRef{environment, endByHolder, s.holder, s.slot}], now)
	}
	if e == nil || e.environment != environment || s.holder != "" && e.holder != s.holder || s.slot != "" && e.slot != s.slot {
		return nil
	}
	return e
}
