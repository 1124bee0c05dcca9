package main

// The rules of the lock: what a request, a renewal, a release and the passing of
// time do to one environment. Each rule is a change of memory: it does no I/O, reads
// no clock and starts no goroutine. The caller passes the time and the numbers in a
// batch; the rule returns a result, and adds its changes to the batch.
//
// What the rules change is in lock_state.go, what they remember in lock_history.go.

// The invariants of the product. Comments, tests and documents name them by number.
//
// Invariant 1: one live lease a slot: a slot never has two live leases.
//
// Invariant 2: durable before reported: what a reply says is in the store first, and
// readers see only what is committed. Renewals that keep the ttl are not stored: a start
// makes up for them (invariant 4).
//
// Invariant 3: order: the free slots of an environment go to its queue, first come,
// first served, also across a restart. A caller that does not wait overtakes no waiter.
//
// Invariant 4: never early: time ends a lease only by the server's monotonic clock,
// never before its ttl, at most a second and one commit after it. A start gives each its
// full ttl.
//
// Invariant 5: fences grow: every grant has a larger fence than any grant before it,
// also across restarts and restored copies of the store.
//
// Invariant 6: a failure is not a refusal: after a failed commit the outcome is reported
// as unknown (errUnknown), and the committed state stands.
//
// Invariant 7: an ended request stays ended: a delayed duplicate of an ended id cannot
// become a lease, for rememberAge after the end and while it is one of the last
// rememberEnds.

import (
	"slices"
	"time"
)

// maxAbsence is how long a waiter stays in the queue without a connection.
const maxAbsence = 10 * time.Second

// A selector selects leases of an environment. Every field that is set must match;
// the zero selector matches every lease.
type selector struct {
	id     string
	holder string
	fence  uint64
	slot   string
}

// matchingLeases returns the leases that match the selector, in the order of their fences.
func (e *environment) matchingLeases(s selector) []*lease {
	var found []*lease
	for _, l := range e.leases {
		if (s.id == "" || l.id == s.id) && (s.holder == "" || l.holder == s.holder) &&
			(s.fence == 0 || l.fence == s.fence) && (s.slot == "" || l.slot == s.slot) {
			found = append(found, l)
		}
	}
	return found
}

// A result is what a rule returns. The leases, the waiter and the event are those of
// the state, not copies.
type result struct {
	err     error    // nil if the call had the effect that the caller asked for
	lease   *lease   // the lease that was granted, found by its id, renewed or ended; nil if none
	waiter  *waiter  // the caller's waiter, if the call entered the queue or polled; nil if none
	several []*lease // with errSeveral: the leases that match
	ended   *event   // how the caller's lease or request ended; nil if that is not remembered
}

// request asks for a slot. claim is that of the lease, see lease.claim.
//
// The same id again is the same request: the result is the lease that the id owns, or
// the waiter, which keeps its position. An id with other terms is errDifferent, and an
// id whose request has ended is errEnded (invariant 7). Without wait, a request that
// cannot be granted is errNoSlot; with wait it enters the queue.
func (e *environment) request(b *batch, q request, wait bool, claim time.Duration) result {
	if q.id != "" {
		if l := e.leaseByID(q.id); l != nil {
			return sameRequest(q, l.request, result{lease: l})
		}
		if w := e.waitersByID[q.id]; w != nil {
			return e.poll(b, q, w, claim)
		}
		if end := b.history.endOf(e.name, endByID, q.id, b.now); end != nil {
			return result{err: errEnded, ended: end}
		}
	}
	switch {
	case e.isOpen(), wait && e.freeSlots() > len(e.queue): // invariant 3: each waiter has a free slot already
		return result{lease: e.grant(b, q, claim, 0)}
	case !wait:
		return result{err: errNoSlot}
	}
	w := &waiter{request: q, number: b.next(), since: b.now, claim: claim, connected: true}
	b.setWaiter(e, nil, w)
	return result{waiter: w}
}

// poll is a further call of a request that is in the queue. It connects the waiter, and
// grants it a slot that has been kept free for it. The result has the waiter, and the
// lease if there is one. The error is errDifferent if the terms are not the waiter's.
func (e *environment) poll(b *batch, q request, w *waiter, claim time.Duration) result {
	if q != w.request {
		return result{err: errDifferent}
	}
	w.connected, w.claim = true, claim
	e.serveQueue(b)
	return result{waiter: w, lease: e.leaseByID(q.id)}
}

// sameRequest returns r if q has the terms of the request before, else errDifferent.
func sameRequest(q, before request, r result) result {
	if q != before {
		return result{err: errDifferent}
	}
	return r
}

// A renewal extends the lease that its selector matches.
type renewal struct {
	selector
	ttl    time.Duration // the new ttl, if hasTTL; zero: until released
	hasTTL bool          // false: the lease keeps its ttl
	at     time.Time     // when the renewal arrived, by the monotonic clock
}

// renew gives the lease its full ttl, counted from the arrival of the renewal. A renewal
// that changes the ttl is a change that must be stored; one that does not changes memory
// only, and cannot be undone.
//
// The error is errNotHeld if no lease matches, and errSeveral if several do. A renewal
// grants nothing, so a late one is harmless.
func (e *environment) renew(b *batch, q renewal) result {
	found := e.matchingLeases(q.selector)
	switch {
	case len(found) == 0:
		return result{err: errNotHeld, ended: b.history.endOfLease(e.name, q.selector, b.now)}
	case len(found) > 1:
		return result{err: errSeveral, several: found}
	}
	l := found[0]
	if !q.hasTTL || q.ttl == l.ttl {
		l.renew(q.at)
		return result{lease: l}
	}
	changed := *l
	changed.ttl, changed.confirmed = q.ttl, true
	changed.start(q.at)
	b.setLease(e, l, &changed)
	return result{lease: &changed}
}

// A releaseRequest ends a lease, or removes a waiter.
type releaseRequest struct {
	selector
	is2019 bool   // the call of 2019: it names nothing, and its holder is a default
	force  bool   // end the lease of another holder
	isUndo bool   // the server takes back a grant that did not reach its caller
	by     string // with force: the name of the caller
	from   string // with force: the caller's address
}

// release ends the lease that the request matches; with an id, also its waiter. The
// result has the ended lease.
//
// A release that repeats an earlier one of the same id or holder has no effect and no
// error. The error is errNotHeld if the lease has expired or was ended by force, or if
// others have the slots, and errSeveral if several leases match. A call of 2019 without
// a lease of its holder ends the oldest lease that has neither holder nor id.
func (e *environment) release(b *batch, q releaseRequest) result {
	if q.id != "" {
		return e.releaseID(b, q)
	}
	found := e.matchingLeases(q.selector)
	if q.is2019 && (len(found) == 0 || q.holder == "") {
		isOwned := func(l *lease) bool { return l.holder != "" || l.id != "" }
		found = slices.DeleteFunc(e.matchingLeases(selector{}), isOwned)
		found = found[:min(1, len(found))]
	}
	switch {
	case len(found) > 1:
		return result{err: errSeveral, several: found}
	case len(found) == 0:
		return e.releaseNothing(b, q)
	case q.force:
		return result{lease: e.endLease(b, found[0], eventForced, q)}
	}
	return result{lease: e.endLease(b, found[0], eventReleased, q)}
}

// releaseID ends the request with the id: its lease, or its waiter. It closes an id that
// is not known, so that a request which arrives after its own release cannot become a
// lease that is never released (invariant 7). The error is errNotHeld if the lease has
// expired or was ended by force.
func (e *environment) releaseID(b *batch, q releaseRequest) result {
	if l := e.leaseByID(q.id); l != nil {
		return result{lease: e.endLease(b, l, eventReleased, q)}
	}
	if w := e.waitersByID[q.id]; w != nil {
		e.removeWaiter(b, w, eventLeft)
		return result{}
	}
	switch end := b.history.endOf(e.name, endByID, q.id, b.now); {
	case end == nil:
		b.addEvent(&event{kind: eventClosed, environment: e.name, id: q.id})
	case end.kind == eventExpired || end.kind == eventForced:
		return result{err: errNotHeld, ended: end}
	}
	return result{}
}

// releaseNothing returns the result of a release without id that no live lease matches.
// There is no error if the release repeats an earlier one, or if the environment has no
// lease; see the cases for the rest.
func (e *environment) releaseNothing(b *batch, q releaseRequest) result {
	end := b.history.endOfLease(e.name, q.selector, b.now)
	switch {
	case q.isUndo:
		return result{}
	case q.force && q.fence != 0: // exactly this lease, which is over
		return result{err: errNotHeld, ended: end}
	case q.force:
		return result{}
	case !q.is2019 && end != nil && end.kind == eventReleased:
		return result{}
	case !q.is2019 && end != nil, len(e.leases) > 0:
		return result{err: errNotHeld, ended: end}
	}
	return result{}
}

// removeWaiter takes a waiter out of the queue, and adds an event of the kind if the
// waiter is stored.
func (e *environment) removeWaiter(b *batch, w *waiter, kind eventKind) {
	b.setWaiter(e, w, nil)
	if w.isStored() {
		b.addEvent(&event{kind: kind, environment: e.name, id: w.id, holder: w.holder, url: w.url,
			reason: w.reason, waited: max(0, b.now.Sub(w.since))})
	}
}

// expire ends the leases whose deadline has passed, and removes the waiters that have
// been disconnected for maxAbsence. It reports whether it changed anything.
func (e *environment) expire(b *batch) bool {
	before := len(b.changes)
	for _, l := range slices.Clone(e.leases) {
		if l.isOver(b.now) {
			e.endLease(b, l, eventExpired, releaseRequest{})
		}
	}
	for i := 0; i < len(e.queue); {
		if w := e.queue[i]; !w.connected && !b.now.Before(w.disconnectedAt.Add(maxAbsence)) {
			e.removeWaiter(b, w, eventAbandoned)
		} else {
			i++
		}
	}
	return len(b.changes) > before
}

// serveQueue grants the free slots to the waiters, in the order of the queue (invariant
// 3). A disconnected waiter uses up a slot without a grant: the slot stays free for it
// until it polls again or is removed.
func (e *environment) serveQueue(b *batch) {
	for i, free := 0, e.freeSlots(); free > 0 && i < len(e.queue); free-- {
		if w := e.queue[i]; w.connected {
			b.setWaiter(e, w, nil)
			b.handovers = append(b.handovers, handover{w, e.grant(b, w.request, w.claim, b.now.Sub(w.since))})
		} else {
			i++
		}
	}
}

// grant makes a lease of a free slot, with a new fence, and adds its event. The caller
// has checked that a slot is free: grant panics if none is. waited is how long the
// request was in the queue; a negative one, of a clock that was set back, counts as zero.
func (e *environment) grant(b *batch, q request, claim, waited time.Duration) *lease {
	l := &lease{request: q, slot: e.firstFreeSlot(), fence: b.next(), since: b.now, waited: max(0, waited),
		ttl: q.ttl, claim: claim}
	l.start(b.now)
	b.setLease(e, nil, l)
	b.add(change{event: &event{number: l.fence, kind: eventGranted, at: b.now, environment: e.name,
		slot: l.slot, id: q.id, holder: q.holder, url: q.url,
		reason: q.reason, fence: l.fence, waited: l.waited}})
	return l
}

// firstFreeSlot returns the first declared slot without a lease. It panics if there is
// none, so that no bug makes a second lease of a slot (invariant 1).
func (e *environment) firstFreeSlot() string {
	for _, s := range e.slots {
		if !slices.ContainsFunc(e.leases, func(l *lease) bool { return l.slot == s }) {
			return s
		}
	}
	panic("granting a slot of " + e.name + " though none is free")
}

// endLease removes a lease, adds an event of the kind, and returns the lease. The event
// has the by and from of q.
func (e *environment) endLease(b *batch, l *lease, kind eventKind, q releaseRequest) *lease {
	b.setLease(e, l, nil)
	b.addEvent(&event{kind: kind, environment: e.name, slot: l.slot, id: l.id, holder: l.holder, url: l.url,
		reason: l.reason, fence: l.fence, waited: l.waited, held: max(0, b.now.Sub(l.since)),
		by: q.by, from: q.from})
	return l
}
