package main

// Newest wins: a request with a key takes the place of the older one that waits with the same
// key and the same needs. And the removal of a waiter by its number.

import (
	"slices"
	"time"
)

// isRival reports whether two requests with supersede have the same text there, were made with
// keys of one name, and need the same slots. The caller looks at requests of one environment,
// see rival.
func (q request) isRival(p request) bool {
	return q.supersede == p.supersede && q.key == p.key && q.slot == p.slot && slices.Equal(q.needs, p.needs)
}

// rival returns the waiter that the request supersedes, nil if there is none or if it has no
// key. There is at most one: whoever enters the queue ends the one before it.
func (e *environment) rival(q request) *waiter {
	if q.supersede == "" {
		return nil
	}
	i := slices.IndexFunc(e.queue, func(w *waiter) bool { return q.isRival(w.request) })
	if i < 0 {
		return nil
	}
	return e.queue[i]
}

// newerRequest returns a request that waits or holds with the key of q, and is newer than q,
// which begins anew: its first number is larger. It returns nil if there is none, or if q does
// not begin anew.
func (e *environment) newerRequest(b *batch, q request) *request {
	if q.first == 0 {
		return nil
	}
	if w := e.rival(q); w != nil && w.first > q.first {
		return &w.request
	}
	for _, name := range q.environments(e.name) {
		for _, l := range b.environment(name).leases {
			if q.isRival(l.request) && l.first > q.first {
				return &l.request
			}
		}
	}
	return nil
}

// supersede applies a request whose id was never seen, and reports whether its key, if it has
// one, decides it. If a newer request has the key, the id ends as superseded, without having
// waited: the result is errEnded. Otherwise the waiter with the key ends, and the request takes
// its place: it entered the queue when that did, and has its own number and priority. A
// lease is never ended.
func (e *environment) supersede(b *batch, q request, claim time.Duration) (result, bool) {
	if newer := e.newerRequest(b, q); newer != nil {
		for _, name := range q.environments(e.name) {
			b.addEvent(&event{kind: eventSuperseded, environment: name, id: q.id, holder: q.holder,
				url: q.url, reason: q.reason, by: newer.holder, byURL: newer.url, byKey: newer.key,
				origin: q.origin})
		}
		return result{err: errEnded, ended: b.history.endOfID(e.name, q.id, b.now)}, true
	}
	older := e.rival(q)
	if older == nil {
		return result{}, false
	}
	e.endWaiter(b, older, eventSuperseded, releaseRequest{by: q.holder, byURL: q.url, origin: q.origin})
	return e.enterQueue(b, b.newWaiter(q, claim, older)), true
}

// endWaiter takes a waiter out of the queue of each environment that it needs, and adds an
// event of the kind to each, with the by, byURL, origin and why of q. It adds none for a waiter
// that is not stored, unless somebody has ended it.
func (e *environment) endWaiter(b *batch, w *waiter, kind eventKind, q releaseRequest) {
	for _, name := range w.environments(e.name) {
		gone := change{environment: b.environment(name), oldWaiter: w}
		if !w.isStored() && kind != eventRemoved {
			b.add(gone)
			continue
		}
		end := &event{kind: kind, environment: name, id: w.id, holder: w.holder, url: w.url,
			reason: w.reason, waited: max(0, b.now.Sub(w.since)),
			by: q.by, byURL: q.byURL, why: q.why, origin: w.origin.endedBy(q.origin), byKey: q.origin.key}
		b.addEvent(end)
		gone.end = end.number
		b.add(gone)
	}
}

// removeByNumber ends the waiter with the number of the request, in all environments that it
// needs. The error is errNotWaiting if none has it here: a number is never used again, so
// the request ends nobody else.
func (e *environment) removeByNumber(b *batch, q releaseRequest) result {
	i := slices.IndexFunc(e.queue, func(w *waiter) bool { return w.number == q.waiter })
	if i < 0 {
		return result{err: errNotWaiting}
	}
	e.endWaiter(b, e.queue[i], eventRemoved, q)
	return result{}
}
