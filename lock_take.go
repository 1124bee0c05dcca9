package main

// How a lease changes hands in one batch, so that its slot does not go to the queue: a
// request takes it over from its holder, or its owner hands it over to another holder, or
// keeps it without its id.

import (
	"cmp"
	"slices"
	"time"
)

// A takeover is what a call that takes a lease over has besides its request.
type takeover struct {
	fence uint64 // of the lease; zero if the call takes over none
	from  string // the caller's address
}

// take ends exactly the lease with the fence, as taken by the holder of the request for its
// reason, and grants the slot to the request before the queue. All places that the holder
// has in the queue end with it; a place of the request itself becomes the lease. A repeated
// call has no further effect, as with request.
//
// The error is errOver if no lease has the fence, or if that is not on the slot which the
// request names, errPaused with the pause if its slot is paused, and a limitError if the caller's
// key does not allow the request; otherwise the errors are those of an id that is known. The
// request has an id and needs one slot. claim is that of the lease.
func (e *environment) take(b *batch, q request, t takeover, claim time.Duration) result {
	w := e.waitersByID[q.id]
	if w == nil {
		r, isKnown := e.knownRequest(b, q, claim)
		if isKnown {
			return r
		}
	} else if !q.equal(w.request) {
		return result{err: errDifferent}
	}
	which := selector{fence: t.fence, slot: q.slot}
	found := e.matchingLeases(which)
	if len(found) == 0 {
		return result{err: errOver, ended: b.history.endOfLease(e.name, which, b.now)}
	}
	if p := e.pauseOf(found[0].slot, b.environment); p != nil {
		return result{err: errPaused, pause: p}
	}
	if w == nil {
		if err := b.checkTake(q, found[0]); err != nil {
			return result{err: err}
		}
		q = q.admitted()
	}
	first := len(b.touched)
	e.endLease(b, found[0], eventTaken, releaseRequest{by: q.holder, why: q.reason,
		origin: origin{key: q.key, from: t.from}})
	var waited time.Duration
	if w != nil {
		waited, q = b.now.Sub(w.since), w.request // which has its first number, see setFirst
		b.setWaiter(e, w, nil)
	}
	l := e.grant(b, q, found[0].slot, claim, waited)
	if w != nil {
		b.handovers = append(b.handovers, handover{waiter: w, leases: []*lease{l}})
	}
	for _, other := range slices.Clone(e.queue) {
		if q.holder != "" && other.holder == q.holder {
			b.endStep()
			e.removeWaiter(b, other, eventLeft)
		}
	}
	for i := first; i < len(b.touched); i++ { // what was kept for a place that has ended
		b.touched[i].serveQueue(b)
	}
	return result{own: []*lease{l}}
}

// handOver ends the leases that the request matches, as handed over, and grants each slot
// to the holder q.to in the same batch, before the queue. The new lease has a fence of its
// own and no id: its holder renews and releases it by name. It has the url of the old one,
// which may be the job that has prepared the slot. It has its key too, and what is left of the
// longest hold that this key allows: nobody gets around the limits of a key by handing over.
//
// The result has the ended leases, and the new ones as given. A call that repeats an earlier
// one has neither, and no error. The errors are those of renew; no lease is handed over then.
func (e *environment) handOver(b *batch, q releaseRequest, others ...string) result {
	var names []string
	for _, name := range append([]string{e.name}, others...) {
		end := b.history.endOfLease(name, q.selector, b.now)
		isLive := len(b.environment(name).matchingLeases(q.selector.ofAnyKey())) > 0
		if isLive || end == nil || end.kind != eventHanded {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return result{}
	}
	r := b.environment(names[0]).findHeld(b, q.selector, names[1:])
	if r.err != nil {
		return r
	}
	for _, l := range r.own {
		b.endStep()
		on := b.environment(l.environment)
		on.endLease(b, l, eventHanded, q)
		next := request{holder: q.to, url: l.url, reason: cmp.Or(q.why, l.reason), ttl: q.ttl,
			keyHold: l.restOfHold(b.now), origin: origin{key: l.key, from: q.from}}
		if q.to == l.holder { // it keeps the slot: what it has proved stays true
			next.verified = l.verified
		}
		r.given = append(r.given, on.grant(b, next, l.slot, 0, 0))
	}
	return r
}
