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
	granted  eventKind = 1 // a request got a slot
	released eventKind = 2 // its owner ended the lease
	expired  eventKind = 3 // time ended the lease
	forced   eventKind = 4 // somebody ended the lease by force
	left     eventKind = 5 // a waiting request gave up
	lapsed   eventKind = 6 // a waiting request was absent for too long
	usedUp   eventKind = 7 // an id was ended that was not known; not a part of the history that people see
)

var eventNames = map[eventKind]string{granted: "granted", released: "released", expired: "expired", forced: "forced",
	left: "left", lapsed: "lapsed", usedUp: "used up"}

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
func (e *event) ends() bool { return e.kind != granted }

// What an end is remembered by.
type endKey int

const (
	idKey endKey = iota
	holderKey
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
	events   []*event // published, oldest first
	appended []*event // of the round under way
	ends     int      // how many of both end a request
	loose    []*event // ends that are out of the ring, but still remembered, oldest first
	lastEnds map[endRef]*event
	byFence  map[uint64]*event   // the ends of leases
	names    map[string]*nameUse // the environments of the published events
}

// A nameUse says how much of the history is about one environment.
type nameUse struct {
	first  uint64 // the number of its first event, also when the ring has dropped that
	events int    // in the ring
}

func newHistory() *history {
	return &history{lastEnds: map[endRef]*event{}, byFence: map[uint64]*event{}, names: map[string]*nameUse{}}
}

// refs are the names by which the end of a request is found again, besides its
// fence.
func (e *event) refs() []endRef {
	if !e.ends() {
		return nil
	}
	var refs []endRef
	if e.id != "" {
		refs = append(refs, endRef{e.environment, idKey, e.id, ""})
	}
	if e.fence != 0 && e.holder != "" {
		refs = append(refs, endRef{e.environment, holderKey, e.holder, ""}, endRef{e.environment, holderKey, e.holder, e.slot})
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
func (h *history) takeBack(e *event) {
	h.appended = h.appended[:len(h.appended)-1]
	h.forget(e)
	for _, ref := range e.refs() {
		if ref.by == holderKey {
			h.findAgain(ref)
		}
	}
}

// findAgain looks for the latest end of a holder. It is slow, and needed only
// after a failed commit.
func (h *history) findAgain(ref endRef) {
	var last *event
	for _, list := range [][]*event{h.appended, h.events, h.loose} {
		for _, e := range slices.Backward(list) {
			if e.ends() && e.fence != 0 && e.environment == ref.environment && e.holder == ref.name && (ref.slot == "" || e.slot == ref.slot) {
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
	if e.ends() {
		if h.ends++; e.fence != 0 {
			h.byFence[e.fence] = e
		}
	}
	for _, ref := range e.refs() {
		h.lastEnds[ref] = e
	}
}

func (h *history) forget(e *event) {
	if e.ends() {
		h.ends--
	}
	h.unlink(e)
}

func (h *history) unlink(e *event) {
	delete(h.byFence, e.fence)
	for _, ref := range e.refs() {
		if h.lastEnds[ref] == e {
			delete(h.lastEnds, ref)
		}
	}
}

// publish makes the events of the round visible and drops the oldest ones,
// which the same commit has deleted.
func (h *history) publish(drop int, now time.Time) {
	for _, e := range h.appended {
		if h.names[e.environment] == nil {
			h.names[e.environment] = &nameUse{first: e.number}
		}
		h.names[e.environment].events++
	}
	h.events = append(h.events, h.appended...)
	h.appended = nil
	h.drop(drop, now)
}

// setAside keeps the events of the round out of the ring: there was no space
// to store them.
func (h *history) setAside() {
	for _, e := range h.appended {
		h.loosen(e)
	}
	h.appended = nil
}

func (h *history) drop(n int, now time.Time) {
	for i, e := range h.events[:n] {
		h.loosen(e)
		use := h.names[e.environment]
		use.events--
		if use.events == 0 {
			delete(h.names, e.environment)
		}
		h.events[i] = nil
	}
	h.events = h.events[n:]
	for len(h.loose) > 0 && (now.Sub(h.loose[0].at) >= rememberAge || len(h.loose) > rememberEnds) {
		h.unlink(h.loose[0])
		h.loose = h.loose[1:]
	}
}

// loosen takes an event out of the ring. An end is remembered for as long as
// any other, but only until the server stops.
func (h *history) loosen(e *event) {
	if e.ends() {
		h.ends--
		h.loose = append(h.loose, e)
	}
}

// surplus returns how many of the oldest events the round under way should
// delete: never more than twice what it adds, so that a commit stays small.
func (h *history) surplus(now time.Time) int {
	most := min(2*len(h.appended), len(h.events))
	total := len(h.events) + len(h.appended)
	ends, n := h.ends, 0
	for ; n < most; n++ {
		e := h.events[n]
		old := now.Sub(e.at) > historyAge || total-n > historyEvents
		needed := e.ends() && now.Sub(e.at) < rememberAge && ends <= rememberEnds
		if !old || needed {
			break
		}
		if e.ends() {
			ends--
		}
	}
	return n
}

// endOf returns how a request ended that is known by an id or a holder; the
// latest one where several are; nil when that is not remembered.
func (h *history) endOf(environment string, by endKey, name string, now time.Time) *event {
	return h.young(h.lastEnds[endRef{environment, by, name, ""}], now)
}

// young returns the end if it is still remembered, and nil otherwise.
func (h *history) young(e *event, now time.Time) *event {
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
		e = h.endOf(environment, idKey, s.id, now)
	case s.fence != 0:
		e = h.young(h.byFence[s.fence], now)
	case s.holder != "":
		e = h.young(h.lastEnds[endRef{environment, holderKey, s.holder, s.slot}], now)
	}
	if e == nil || e.environment != environment || s.holder != "" && e.holder != s.holder || s.slot != "" && e.slot != s.slot {
		return nil
	}
	return e
}
