package main

// The rules of the lock: what a request, a renewal, a release and the passing of
// time do to one environment. Each rule is a change of memory: it does no I/O, reads
// no clock and starts no goroutine. The caller passes the time and the numbers in a
// batch; the rule returns a result, and adds its changes to the batch.
//
// Renewals are in lock_renewal.go, the limits of a key in lock_limits.go. The order of the queue
// is in lock_queue.go, the rules by which a request ends another one in lock_take.go and
// lock_supersede.go. What the rules change is in lock_state.go, what they remember in
// lock_history.go and lock_ends.go.

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
	key    string // only leases that were taken with a key of this name, or with one that has none
}

// matchingLeases returns the leases that match the selector, in the order of their fences.
func (e *environment) matchingLeases(s selector) []*lease {
	var found []*lease
	for _, l := range e.leases {
		if (s.id == "" || l.id == s.id) && (s.holder == "" || l.holder == s.holder) &&
			(s.fence == 0 || l.fence == s.fence) && (s.slot == "" || l.slot == s.slot) && l.isOf(s.key) {
			found = append(found, l)
		}
	}
	return found
}

// A result is what a rule returns. The leases, the waiter and the event are those of
// the state, not copies.
type result struct {
	err    error       // nil if the call had the effect that the caller asked for
	own    []*lease    // the caller's: granted, found, renewed or ended; with errSeveral: that match
	waiter *waiter     // the caller's waiter, if the call entered the queue or polled; nil if none
	ended  *requestEnd // how the caller's lease or request ended; nil if that is not remembered
	pause  *pause      // that begins, is changed or ends; with errPaused: that of another caller
	lost   string      // with errNotHeld: the environment in which the caller has no lease
	given  []*lease    // those that a hand-over has made of own
}

// request asks for a slot of the environment, or for all slots of q.needs, which has the
// environment. claim is that of the leases, see lease.claim.
//
// The same id again is the same request: the result is the leases that the id owns, or
// the waiter, which keeps its position. An id with other terms is errDifferent, and an
// id whose request has ended, or has lost one of its leases, is errEnded (invariant 7).
// Without wait, a request that cannot be granted is errNoSlot; with wait it enters the
// queue of each environment. A request is granted all that it needs at once, or nothing.
// The error is that of checkNeeds if it can never be granted, and a limitError if the caller's
// key does not allow it. With wait, a request with supersede may end another one, or be ended:
// see supersede.
func (e *environment) request(b *batch, q request, wait bool, claim time.Duration) result {
	if r, isKnown := e.knownRequest(b, q, claim); isKnown {
		return r
	}
	if err := b.checkNeeds(e, q); err != nil {
		return result{err: err}
	}
	limits := q.limits
	if err := limits.check(q); err != nil {
		return result{err: err}
	}
	q = q.admitted()
	if wait {
		if r, isDecided := e.supersede(b, q, claim); isDecided {
			return r
		}
	}
	if err := b.checkPlaces(limits, q, 0); err != nil {
		return result{err: err}
	}
	if leases := e.grantNow(b, q, claim); leases != nil {
		return result{own: leases}
	}
	if !wait {
		return result{err: errNoSlot}
	}
	return e.enterQueue(b, b.newWaiter(q, claim, nil))
}

// knownRequest returns the result of a request whose id is known in one of the environments
// that it needs, and whether it is.
func (e *environment) knownRequest(b *batch, q request, claim time.Duration) (result, bool) {
	if q.id == "" {
		return result{}, false
	}
	var leases []*lease
	var w *waiter
	var end *requestEnd
	for _, name := range q.environments(e.name) {
		other := b.environment(name)
		leases = append(leases, other.matchingLeases(selector{id: q.id})...)
		if w == nil {
			w = other.waitersByID[q.id]
		}
		if end == nil {
			end = b.history.endOfID(name, q.id, b.now)
		}
	}
	switch {
	case w != nil && !q.equal(w.request):
		return result{err: errDifferent}, true
	case w != nil:
		w.connected.Store(true)
		w.claim = claim
		return e.serveWaiter(b, w), true
	case slices.ContainsFunc(leases, func(l *lease) bool { return !q.equal(l.request) }):
		return result{err: errDifferent}, true
	case len(leases) == max(1, len(q.needs)):
		return result{own: leases}, true
	}
	return result{err: errEnded, ended: end}, end != nil || len(leases) > 0
}

// enterQueue adds a waiter to the queue of each environment that it needs, and serves these.
func (e *environment) enterQueue(b *batch, w *waiter) result {
	for _, name := range w.environments(e.name) {
		b.setWaiter(b.environment(name), nil, w)
	}
	return e.serveWaiter(b, w)
}

// serveWaiter serves the queues of a waiter that is connected. The result has the waiter, and
// its leases if it is granted.
func (e *environment) serveWaiter(b *batch, w *waiter) result {
	for _, name := range w.environments(e.name) {
		b.environment(name).serveQueue(b)
	}
	r := result{waiter: w}
	for _, h := range b.handovers {
		if h.waiter == w {
			r.own = h.leases
		}
	}
	return r
}

// A releaseRequest ends a lease, or removes a waiter.
type releaseRequest struct {
	selector
	is2019 bool   // the call of 2019: it names nothing, and its holder is a default
	force  bool   // end the lease of another holder
	isUndo bool   // the server takes back a grant that did not reach its caller
	waiter uint64 // with force: end the waiter with this number, and no lease
	by     string // with force: the name of the caller
	byURL  string // the link of the caller's job
	origin        // of the caller

	// Of a hand-over, see handOver.
	to  string        // the new holder; empty if it is none
	ttl time.Duration // of the new lease; zero: until released
	why string        // the reason; empty: that of the ended lease. With force: that of the caller
}

// release ends the lease that the request matches; with an id, also its waiter. The
// result has the ended lease.
//
// A release that repeats an earlier one of the same id or holder has no effect and no
// error; neither has that of a lease which was handed over. The error is errNotHeld if the
// lease has expired, was ended by force or taken over, or if others have the slots,
// errSeveral if several leases match, and errNotWaiting if the request names the number of
// no waiter. A call of 2019 without a lease of its holder ends the oldest lease that has
// neither holder nor id.
//
// others are further environments in which the leases of the id are ended too. Those that
// have not ended yet are ended, whatever the error says of another.
func (e *environment) release(b *batch, q releaseRequest, others ...string) result {
	if q.id != "" {
		r := e.releaseID(b, q)
		for _, name := range others {
			b.endStep()
			other := b.environment(name).releaseID(b, q)
			r.own = append(r.own, other.own...)
			if r.err == nil {
				r.err, r.ended, r.lost = other.err, other.ended, name
			}
		}
		return r
	}
	if q.waiter != 0 {
		return e.removeByNumber(b, q)
	}
	found := e.matchingLeases(q.selector)
	if q.is2019 && (len(found) == 0 || q.holder == "") {
		isOwned := func(l *lease) bool { return l.holder != "" || l.id != "" }
		found = slices.DeleteFunc(e.matchingLeases(selector{key: q.selector.key}), isOwned)
		found = found[:min(1, len(found))]
	}
	switch {
	case len(found) > 1:
		return result{err: errSeveral, own: found}
	case len(found) == 0:
		return e.releaseNothing(b, q)
	case q.force:
		e.endLease(b, found[0], eventForced, q)
	default:
		e.endLease(b, found[0], eventReleased, q)
	}
	return result{own: found}
}

// releaseID ends the request with the id: its leases in the environment, or its waiter,
// wherever that waits. It closes an id that is not known, so that a request which arrives
// after its own release cannot become a lease that is never released (invariant 7). The
// error is errNotHeld if the lease has expired, was ended by force or taken over.
func (e *environment) releaseID(b *batch, q releaseRequest) result {
	if found := e.matchingLeases(selector{id: q.id}); len(found) > 0 {
		for _, l := range found {
			e.endLease(b, l, eventReleased, q)
		}
		return result{own: found}
	}
	if w := e.waitersByID[q.id]; w != nil {
		e.endWaiter(b, w, eventLeft, q)
		return result{}
	}
	switch end := b.history.endOfID(e.name, q.id, b.now); {
	case end == nil:
		b.addEvent(&event{kind: eventClosed, environment: e.name, id: q.id, origin: q.origin})
	case end.kind == eventExpired || end.kind == eventForced || end.kind == eventTaken:
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
	case e.isOfOthers(q.selector):
		return result{err: errOtherKey}
	case q.force && q.fence != 0: // exactly this lease, which is over
		return result{err: errNotHeld, ended: end}
	case q.force:
		return result{}
	case !q.is2019 && end != nil && (end.kind == eventReleased || end.kind == eventHanded):
		return result{}
	case !q.is2019 && end != nil, len(e.leases) > 0:
		return result{err: errNotHeld, ended: end}
	}
	return result{}
}

// removeWaiter takes a waiter out of the queue of each environment that it needs, and adds
// an event of the kind to each if the waiter is stored.
func (e *environment) removeWaiter(b *batch, w *waiter, kind eventKind) {
	e.endWaiter(b, w, kind, releaseRequest{})
}

// expire ends the leases whose deadline has passed, and removes the waiters that have
// been disconnected for maxAbsence; all of them if the environment is undeclared, since no
// slot will be free for them. It ends the pauses that are over. It reports whether it
// changed anything.
func (e *environment) expire(b *batch) bool {
	before := len(b.changes)
	for _, l := range slices.Clone(e.leases) {
		b.endStep()
		if l.isOver(b.now) {
			e.endLease(b, l, eventExpired, releaseRequest{})
		}
	}
	for _, p := range slices.Clone(e.pauses) {
		b.endStep()
		if p.isOver(b.now) {
			e.endPause(b, p, pauseRequest{})
		}
	}
	for i := 0; i < len(e.queue); {
		b.endStep()
		w := e.queue[i]
		switch {
		case e.slots == nil:
			e.removeWaiter(b, w, eventUndeclared)
		case !w.connected.Load() && !b.now.Before(w.disconnectedAt.Add(maxAbsence)):
			e.removeWaiter(b, w, eventAbandoned)
		default:
			i++
		}
	}
	return len(b.changes) > before
}

// grant makes a lease of a free slot, with a new fence, and adds its event. It panics if the
// slot has a lease, so that no bug makes a second one (invariant 1). waited is how long the
// request was in the queue; a negative one, of a clock that was set back, counts as zero.
func (e *environment) grant(b *batch, q request, slot string, claim, waited time.Duration) *lease {
	if len(e.matchingLeases(selector{slot: slot})) > 0 {
		panic("granting " + slot + " of " + e.name + " though it is not free")
	}
	l := &lease{request: q, environment: e.name, slot: slot, fence: b.next(), since: b.now,
		waited: max(0, waited), ttl: q.ttl, claim: claim,
		longest: maxHoldOf(maxHoldOf(q.maxHold, q.keyHold), b.longestHold)}
	if l.longest > 0 {
		l.limit = b.now.Add(l.longest)
	}
	l.setFirst(l.fence)
	l.start(b.now)
	b.addLease(e, l)
	b.add(change{event: &event{number: l.fence, kind: eventGranted, at: b.now, environment: e.name,
		slot: l.slot, id: q.id, holder: q.holder, url: q.url,
		reason: q.reason, fence: l.fence, waited: l.waited, origin: q.origin}})
	return l
}

// endLease removes a lease and adds an event of the kind. The event has by, to and why of q, the
// key and the address of its caller, and the key and the verified holder of the lease.
func (e *environment) endLease(b *batch, l *lease, kind eventKind, q releaseRequest) {
	end := &event{kind: kind, environment: e.name, slot: l.slot, id: l.id, holder: l.holder, url: l.url,
		reason: l.reason, fence: l.fence, waited: l.waited, held: max(0, b.now.Sub(l.since)),
		by: q.by, to: q.to, why: q.why, origin: l.origin.endedBy(q.origin), byKey: q.origin.key}
	b.addEvent(end)
	b.add(change{environment: e, oldLease: l, end: end.number})
}
