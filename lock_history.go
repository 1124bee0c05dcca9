package main

// What has happened: a ring of events, and the ended requests that the rules need
// (invariant 7). All of it is loaded from the store at a start, except for events that
// did not fit on a full disk. What readers may ask of it is in keeper_view.go.

import (
	"slices"
	"time"
)

// The history has at most this many events, of this age; a longer one gets shorter by
// a few events with each batch, see surplus.
const (
	historyEvents = 100_000
	historyAge    = 30 * 24 * time.Hour
)

// An ended request is remembered for rememberAge, if it is one of the last rememberEnds.
// The ring keeps the events of these for as long, even if that makes it longer than
// historyEvents.
const (
	rememberAge  = time.Hour
	rememberEnds = 200_000
)

// An eventKind is what happened. Its number is stored.
type eventKind uint8

// The kinds of events. Their numbers are stored: never change one.
const (
	eventGranted   eventKind = 1 // a request was granted a slot
	eventReleased  eventKind = 2 // the id or the holder of the lease ended it
	eventExpired   eventKind = 3 // the lease's deadline passed
	eventForced    eventKind = 4 // another caller ended the lease by force
	eventLeft      eventKind = 5 // a waiter was removed by its own id
	eventAbandoned eventKind = 6 // a waiter was disconnected for maxAbsence
	eventClosed    eventKind = 7 // an unknown id was released; not in the history that people see
)

var eventNames = map[eventKind]string{eventGranted: "granted", eventReleased: "released",
	eventExpired: "expired", eventForced: "forced", eventLeft: "left",
	eventAbandoned: "abandoned", eventClosed: "closed"}

// String returns the kind's name as the API and the log have it; empty for an unknown kind.
func (k eventKind) String() string { return eventNames[k] }

// An event is one entry of the history. It is never changed once it is in a batch.
type event struct {
	number      uint64 // its key in the store; for a grant, the fence of the lease
	kind        eventKind
	at          time.Time // by the wall clock
	environment string
	slot        string
	id          string // to remember that the request has ended; never shown to callers
	holder      string
	url         string
	reason      string
	fence       uint64        // of the lease; zero if the event is not about one
	waited      time.Duration // in the queue
	held        time.Duration // from the grant to the end of the lease
	by          string        // if forced: the name of the caller
	from        string        // if forced: the caller's address
}

// isEnd reports whether the event is the end of a request.
func (e *event) isEnd() bool { return e.kind != eventGranted }

// An endKey is the kind of name by which an end is remembered.
type endKey int

const (
	endByID endKey = iota
	endByHolder
)

// An endRef is a name of an end: the latest end that has it is remembered under it.
type endRef struct {
	environment string
	by          endKey
	name        string // the id or the holder
	slot        string // with endByHolder: the end of a lease of this slot; empty: of any slot
}

// A history is the ring of events, and the index of the ends. The rules see appended
// events at once. Readers see only published ones (invariant 2); until then an event can
// be undone.
type history struct {
	events       []*event // published, oldest first
	appended     []*event // of the current batch
	endCount     int      // how many of both lists are ends
	remembered   []*event // ends that are not in the ring any more, but still remembered, oldest first
	lastEnds     map[endRef]*event
	byFence      map[uint64]*event          // the ends of leases, by the fence
	environments map[string]*environmentUse // of the published events, by the name
}

// An environmentUse is how much of the history is about one environment.
type environmentUse struct {
	first  uint64 // the number of its first event, even if the ring has dropped that
	events int    // how many events the ring has of it; never zero
}

// newHistory returns a history without events.
func newHistory() *history {
	return &history{lastEnds: map[endRef]*event{}, byFence: map[uint64]*event{},
		environments: map[string]*environmentUse{}}
}

// endRefs returns the names under which an end is remembered, besides its fence: its id,
// and the holder of its lease with and without the slot. It returns nil for a grant.
func (e *event) endRefs() []endRef {
	if !e.isEnd() {
		return nil
	}
	var refs []endRef
	if e.id != "" {
		refs = append(refs, endRef{e.environment, endByID, e.id, ""})
	}
	if e.fence != 0 && e.holder != "" {
		refs = append(refs, endRef{e.environment, endByHolder, e.holder, ""},
			endRef{e.environment, endByHolder, e.holder, e.slot})
	}
	return refs
}

// append adds an event of the current batch. The rules see it at once, readers when it
// is published.
func (h *history) append(e *event) {
	h.appended = append(h.appended, e)
	h.remember(e)
}

// undo removes e, which must be the event that was appended last. An older end of the same
// holder, which e had replaced, is remembered again.
func (h *history) undo(e *event) {
	h.appended = h.appended[:len(h.appended)-1]
	h.forget(e)
	for _, ref := range e.endRefs() {
		if ref.by == endByHolder {
			h.restoreLastEnd(ref)
		}
	}
}

// restoreLastEnd remembers the latest end of a holder that the history still has; none if
// it has none. It searches all events, and is called only after a failed commit.
func (h *history) restoreLastEnd(ref endRef) {
	var last *event
	for _, list := range [][]*event{h.appended, h.events, h.remembered} {
		for _, e := range slices.Backward(list) {
			if e.isEnd() && e.fence != 0 && e.environment == ref.environment && e.holder == ref.name &&
				(ref.slot == "" || e.slot == ref.slot) {
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

// remember makes an end known under its fence and its names. It ignores a grant.
func (h *history) remember(e *event) {
	if e.isEnd() {
		h.endCount++
		if e.fence != 0 {
			h.byFence[e.fence] = e
		}
	}
	for _, ref := range e.endRefs() {
		h.lastEnds[ref] = e
	}
}

// forget is the reverse of remember, for an event that is still counted.
func (h *history) forget(e *event) {
	if e.isEnd() {
		h.endCount--
	}
	h.unlink(e)
}

// unlink removes an end from the index. Names that a later end has taken stay.
func (h *history) unlink(e *event) {
	delete(h.byFence, e.fence)
	for _, ref := range e.endRefs() {
		if h.lastEnds[ref] == e {
			delete(h.lastEnds, ref)
		}
	}
}

// publish makes the appended events visible to readers. It drops as many of the oldest
// events as the same commit has deleted from the store.
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

// setAside removes the appended events without publishing them: there was no space to
// store them. Their ends are still remembered (invariant 7), see moveOut.
func (h *history) setAside() {
	for _, e := range h.appended {
		h.leaveRing(e)
	}
	h.appended = nil
}

// drop removes the n oldest events from the ring, and forgets the ends outside of it that
// are older than rememberAge or more than rememberEnds.
func (h *history) drop(n int, now time.Time) {
	for i, e := range h.events[:n] {
		h.leaveRing(e)
		use := h.environments[e.environment]
		use.events--
		if use.events == 0 {
			delete(h.environments, e.environment)
		}
		h.events[i] = nil
	}
	h.events = h.events[n:]
	for len(h.remembered) > 0 &&
		(now.Sub(h.remembered[0].at) >= rememberAge || len(h.remembered) > rememberEnds) {
		h.unlink(h.remembered[0])
		h.remembered = h.remembered[1:]
	}
}

// leaveRing notes that an event is not in the ring. An end is remembered for as long as any
// other, but only until the server stops: it is not stored.
func (h *history) leaveRing(e *event) {
	if e.isEnd() {
		h.endCount--
		h.remembered = append(h.remembered, e)
	}
}

// surplus returns how many of the oldest events the current batch should delete: those
// that are too old or too many, unless they are ends that must be remembered (invariant
// 7). It is at most twice the number of events that the batch adds, so that a commit
// stays small.
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

// endOf returns the latest end that is remembered under an id or a holder; nil if none is.
func (h *history) endOf(environment string, by endKey, name string, now time.Time) *event {
	return h.ifRecent(h.lastEnds[endRef{environment, by, name, ""}], now)
}

// ifRecent returns e if it is younger than rememberAge, else nil; e may be nil.
func (h *history) ifRecent(e *event, now time.Time) *event {
	if e == nil || now.Sub(e.at) >= rememberAge {
		return nil
	}
	return e
}

// endOfLease returns the end that the selector matches; nil if that is not remembered, or
// if no end matches all of its fields. It searches by the id, else by the fence, else by
// the holder with the slot.
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
	if e == nil || e.environment != environment ||
		s.holder != "" && e.holder != s.holder || s.slot != "" && e.slot != s.slot {
		return nil
	}
	return e
}
