package main

// What has happened: a ring of events for people, beside the ends of requests that the
// rules need (lock_ends.go). All of it is loaded from the store at a start, except for ends
// that did not fit on a full disk. What readers may ask of it is in keeper_view.go.

import (
	"cmp"
	"slices"
	"time"
)

// The ring has at most this many events, of this age, besides the limit in bytes that the
// history is made with. A longer one gets shorter with the next batches, see surplus.
const (
	historyEvents = 100_000
	historyAge    = 30 * 24 * time.Hour
)

// eventSize is the memory of an event without its texts, in bytes.
// TestTheSizeOfTheHistoryIsItsMemory measures it.
const eventSize = 300

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

	eventUndeclared eventKind = 8 // a waiter's environment is not declared any more

	eventTaken      eventKind = 9  // another request took the lease over
	eventHanded     eventKind = 10 // the id or the holder of the lease handed it over to a holder
	eventSuperseded eventKind = 11 // a newer request took the place of a waiter
	eventRemoved    eventKind = 12 // somebody removed a waiter

	eventPaused  eventKind = 20 // a pause has begun, or was changed
	eventResumed eventKind = 21 // a pause has ended; by itself if there is no from
)

var eventNames = map[eventKind]string{eventGranted: "granted", eventReleased: "released",
	eventExpired: "expired", eventForced: "forced", eventLeft: "left",
	eventAbandoned: "abandoned", eventClosed: "closed",
	eventUndeclared: "undeclared", eventTaken: "taken", eventHanded: "handed",
	eventPaused: "paused", eventResumed: "resumed",
	eventSuperseded: "superseded", eventRemoved: "removed"}

// String returns the kind's name as the API and the log have it; empty for an unknown kind.
func (k eventKind) String() string { return eventNames[k] }

// An event is one entry of the history. It is never changed once it is in a batch.
type event struct {
	number      uint64 // its key in the store; for a grant, the fence of the lease
	kind        eventKind
	at          time.Time // by the wall clock
	environment string    // everywhere: of the pause of all
	slot        string
	id          string // of the request; never shown to callers
	holder      string
	url         string
	reason      string
	fence       uint64        // of the lease; zero if the event is not about one
	waited      time.Duration // in the queue
	held        time.Duration // from the grant to the end of the lease; or of a pause
	by          string        // if somebody else did it: the name of the caller, or the newer holder
	byKey       string        // the name of the key with which the request was ended; empty if time did it
	to          string        // if handed: the new holder
	why         string        // the reason of who did it, if reason is that of the request
	byURL       string        // if superseded: the link of the newer request

	// The key and the verified holder are those of the request, or of who paused or resumed;
	// from is the address of the call that was granted, or that did it, and empty if time did.
	origin
}

// isEnd reports whether the event is the end of a request.
func (e *event) isEnd() bool {
	return e.kind != eventGranted && e.kind != eventPaused && e.kind != eventResumed
}

// size returns the memory that the event takes, in bytes. Texts count even if a lease has
// them too: after a start each has its own.
func (e *event) size() int {
	texts := len(e.environment) + len(e.slot) + len(e.id) + len(e.holder) + len(e.url) + len(e.reason)
	texts += len(e.key) + len(e.verified) + len(e.byKey)
	return eventSize + texts + len(e.by) + len(e.from) + len(e.to) + len(e.why) + len(e.byURL)
}

// A history is the ring of events, and the remembered ends with their index. The rules
// see appended events and their ends at once. Readers see only published events
// (invariant 2); until then an event can be undone.
type history struct {
	limit        int                        // of size, in bytes
	size         int                        // of events, appended and ends, in bytes
	events       []*event                   // published, oldest first; readers have it: replace nothing in it
	appended     []*event                   // of the current batch
	ends         []*requestEnd              // in the order of their numbers
	index        map[digest]*requestEnd     // the latest end of each name
	environments map[string]*environmentUse // of the published events, by the name
}

// An environmentUse is how much of the history is about one environment.
type environmentUse struct {
	first  uint64 // the number of its first event, even if the ring has dropped that
	events int    // how many events the ring has of it; never zero
}

// newHistory returns a history without events. The ring gets shorter if events and ends
// take more than limit bytes of memory. The ends do not, so that they may take up to
// rememberEnds times endSize even if the limit is lower.
func newHistory(limit int) *history {
	return &history{limit: limit, index: map[digest]*requestEnd{},
		environments: map[string]*environmentUse{}}
}

// append adds an event of the current batch. The rules see its end at once, readers the
// event when it is published.
func (h *history) append(e *event) {
	h.appended = append(h.appended, e)
	h.size += e.size()
	if e.isEnd() {
		h.remember(newRequestEnd(e))
	}
}

// undo removes e, which must be the event that was appended last. An older end of the same
// holder, which e had replaced, is found again.
func (h *history) undo(e *event) {
	h.appended = h.appended[:len(h.appended)-1]
	h.size -= e.size()
	if !e.isEnd() {
		return
	}
	end := h.ends[len(h.ends)-1]
	h.ends = h.ends[:len(h.ends)-1]
	h.forget(end)
	if end.fence != 0 {
		h.restore(end.holder, func(x *requestEnd) digest { return x.holder })
		h.restore(end.holderAndSlot, func(x *requestEnd) digest { return x.holderAndSlot })
	}
}

// A trim is how many of the oldest events and of the oldest ends are dropped.
type trim struct{ events, ends int }

// publish makes the appended events visible to readers, and drops what the same commit
// has deleted from the store.
func (h *history) publish(t trim) {
	for _, e := range h.appended {
		if h.environments[e.environment] == nil {
			h.environments[e.environment] = &environmentUse{first: e.number}
		}
		h.environments[e.environment].events++
	}
	h.events = append(h.events, h.appended...)
	h.appended = nil
	h.drop(t)
}

// setAside removes the appended events without publishing them: there was no space to
// store them. Their ends are still remembered (invariant 7), but only until the server
// stops.
func (h *history) setAside() {
	for _, e := range h.appended {
		h.leaveRing(e)
	}
	h.appended = nil
}

// drop removes the oldest events from the ring, and forgets the oldest ends.
func (h *history) drop(t trim) {
	for _, e := range h.events[:t.events] {
		h.leaveRing(e)
		use := h.environments[e.environment]
		use.events--
		if use.events == 0 {
			delete(h.environments, e.environment)
		}
	}
	h.events = h.events[t.events:]
	for i, end := range h.ends[:t.ends] {
		h.forget(end)
		h.ends[i] = nil
	}
	h.ends = h.ends[t.ends:]
}

// leaveRing notes that the ring does not have an event. Its end loses its texts.
func (h *history) leaveRing(e *event) {
	h.size -= e.size()
	if end := h.endWithNumber(e.number); end != nil {
		end.event = nil
	}
}

// surplus returns what the current batch should drop: events that are too old, too many,
// or take too many bytes, and ends that need not be remembered any more. Of each it is at
// most twice the number of events that the batch adds, and more events only if they take
// no more bytes than what the batch adds. So a commit stays small.
func (h *history) surplus(now time.Time) trim {
	var t trim
	most := 2 * len(h.appended)
	for t.ends < min(most, len(h.ends)) &&
		(!isRecent(h.ends[t.ends], now) || len(h.ends)-t.ends > rememberEnds) {
		t.ends++
	}
	size := h.size - t.ends*endSize
	total := len(h.events) + len(h.appended)
	for ; t.events < len(h.events); t.events++ {
		e := h.events[t.events]
		isSurplus := now.Sub(e.at) > historyAge || total-t.events > historyEvents
		if size <= h.limit && (!isSurplus || t.events >= most) {
			break
		}
		size -= e.size()
	}
	return t
}

// loadEvent adds an event of the store. Events are loaded in the order of their numbers,
// and before any end.
func (h *history) loadEvent(e *event, now time.Time) {
	h.appended = append(h.appended, e)
	h.size += e.size()
	if e.isEnd() && now.Sub(e.at) < rememberAge {
		h.remember(newRequestEnd(e))
	}
	h.publish(trim{})
}

// loadEnd adds an end of the store. finishLoading is called after the last one.
func (h *history) loadEnd(end *requestEnd) { h.remember(end) }

// loadWithin drops the oldest events until the history takes at most limit bytes, or has
// none, and returns their numbers. It is called while events are loaded, and after
// finishLoading.
func (h *history) loadWithin(limit int) (dropped []uint64) {
	for h.size > limit && len(h.events) > 0 {
		dropped = append(dropped, h.events[0].number)
		h.drop(trim{events: 1})
	}
	return dropped
}

// finishLoading puts the loaded ends into their order.
func (h *history) finishLoading() {
	slices.SortFunc(h.ends, func(x, y *requestEnd) int { return cmp.Compare(x.number, y.number) })
	for _, end := range h.ends {
		for _, name := range end.names() {
			h.index[name] = end
		}
	}
}
