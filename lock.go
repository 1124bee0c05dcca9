package main

// The rules of the lock: what a request, a renewal, a release and the passing
// of time do to one environment. Everything here is a plain change of memory:
// no I/O, no clock, no goroutine. The caller gives the time and the numbers in
// a round, gets an answer, and finds the changes in the round.

import (
	"slices"
	"time"
)

// absence is how long a place in the queue outlives the connection of the one
// who waits.
const maxAbsence = 10 * time.Second

// A selector names leases of an environment: every field that is set must
// match.
type selector struct {
	id     string
	holder string
	fence  uint64
	slot   string
}

// find returns the leases that the selector names, oldest first.
func (e *environment) find(s selector) []*lease {
	var found []*lease
	for _, l := range e.leases {
		if (s.id == "" || l.id == s.id) && (s.holder == "" || l.holder == s.holder) &&
			(s.fence == 0 || l.fence == s.fence) && (s.slot == "" || l.slot == s.slot) {
			found = append(found, l)
		}
	}
	return found
}

// An outcome is what a rule answers.
type result struct {
	err     error    // nil: it is as the caller wished
	lease   *lease   // the lease that was granted, told again, renewed or ended
	waiter  *waiter  // the caller is in the queue and waits
	several []*lease // with errSeveral
	ended   *event   // how the caller's lease or request ended, where that is remembered
}

// request asks for a slot. The same id again is the same request: it is told
// the lease that it has, or keeps its place. Only wait enters the queue.
func (e *environment) request(r *batch, q request, wait bool, claim time.Duration) result {
	if q.id != "" {
		if l := e.leaseByID(q.id); l != nil {
			return sameRequest(q, l.request, result{lease: l})
		}
		if p := e.waitersByID[q.id]; p != nil {
			return e.poll(r, q, p, claim)
		}
		if end := r.history.endOf(e.name, endByID, q.id, r.now); end != nil {
			return result{err: errEnded, ended: end}
		}
	}
	switch {
	case e.isOpen(), wait && e.freeSlots() > len(e.queue):
		return result{lease: e.grant(r, q, claim, 0)}
	case !wait:
		return result{err: errNoSlot}
	}
	p := &waiter{request: q, number: r.next(), since: r.now, claim: claim, connected: true}
	r.setWaiter(e, nil, p)
	return result{waiter: p}
}

// poll is a further call of a request that is in the queue: it is present again,
// and takes what was offered to it meanwhile.
func (e *environment) poll(r *batch, q request, p *waiter, claim time.Duration) result {
	if q != p.request {
		return result{err: errDifferent}
	}
	p.connected, p.claim = true, claim
	e.serveQueue(r)
	return result{waiter: p, lease: e.leaseByID(q.id)}
}

func sameRequest(q, before request, o result) result {
	if q != before {
		return result{err: errDifferent}
	}
	return o
}

// renewal extends leases: a new ttl, where one is given, or the one they have.
type renewal struct {
	selector
	ttl    time.Duration
	hasTTL bool
	at     time.Time // when it arrived
}

// renew extends the one lease that the renewal names, counted from when it
// arrived. It grants nothing, so a late one is harmless. Another ttl is a
// change that must be stored; all else happens in memory.
func (e *environment) renew(r *batch, q renewal) result {
	found := e.find(q.selector)
	switch {
	case len(found) == 0:
		return result{err: errNotHeld, ended: r.history.endOfLease(e.name, q.selector, r.now)}
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
	r.setLease(e, l, &changed)
	return result{lease: &changed}
}

// A departure ends a lease, or a place in the queue.
type releaseRequest struct {
	selector
	is2019 bool   // the 2019 call: it named nothing, the holder is a default
	force  bool   // end it whoever holds it
	isUndo bool   // the server takes a grant back that nobody has heard of
	by     string // with force: who
	from   string // with force: from which address
}

// release ends what the departure names. It says nil also for what the same
// caller has already released; an end that the caller did not bring about
// (expired, forced) is errNotHeld.
func (e *environment) release(r *batch, d releaseRequest) result {
	if d.id != "" {
		return e.releaseID(r, d)
	}
	found := e.find(d.selector)
	if d.is2019 && (len(found) == 0 || d.holder == "") {
		found = slices.DeleteFunc(e.find(selector{}), func(l *lease) bool { return l.holder != "" || l.id != "" })
		found = found[:min(1, len(found))]
	}
	switch {
	case len(found) > 1:
		return result{err: errSeveral, several: found}
	case len(found) == 0:
		return e.releaseNothing(r, d)
	case d.force:
		return result{lease: e.endLease(r, found[0], eventForced, d)}
	}
	return result{lease: e.endLease(r, found[0], eventReleased, d)}
}

// releaseID ends a request: its lease, or its place in the queue. It uses the
// id up, known or not, so that a request which the release has overtaken
// cannot become a lease that nobody releases.
func (e *environment) releaseID(r *batch, d releaseRequest) result {
	if l := e.leaseByID(d.id); l != nil {
		return result{lease: e.endLease(r, l, eventReleased, d)}
	}
	if p := e.waitersByID[d.id]; p != nil {
		e.removeWaiter(r, p, eventLeft)
		return result{}
	}
	switch end := r.history.endOf(e.name, endByID, d.id, r.now); {
	case end == nil:
		r.addEvent(&event{kind: eventClosed, environment: e.name, id: d.id})
	case end.kind == eventExpired || end.kind == eventForced:
		return result{err: errNotHeld, ended: end}
	}
	return result{}
}

// releaseNothing answers a departure that no live lease matches.
func (e *environment) releaseNothing(r *batch, d releaseRequest) result {
	end := r.history.endOfLease(e.name, d.selector, r.now)
	switch {
	case d.isUndo:
		return result{}
	case d.force && d.fence != 0:
		return result{err: errNotHeld, ended: end}
	case d.force:
		return result{}
	case !d.is2019 && end != nil && end.kind == eventReleased:
		return result{}
	case !d.is2019 && end != nil, len(e.leases) > 0:
		return result{err: errNotHeld, ended: end}
	}
	return result{}
}

// leave takes a place out of the queue, for the reason that kind gives. One
// that was never stored leaves no event either.
func (e *environment) removeWaiter(r *batch, p *waiter, kind eventKind) {
	r.setWaiter(e, p, nil)
	if p.isStored() {
		r.addEvent(&event{kind: kind, environment: e.name, id: p.id, holder: p.holder, url: p.url, reason: p.reason,
			waited: max(0, r.now.Sub(p.since))})
	}
}

// tick ends what time has ended: leases whose deadline has passed, and places
// whose owner has been away for too long. It reports whether anything ended.
func (e *environment) expire(r *batch) bool {
	before := len(r.changes)
	for _, l := range slices.Clone(e.leases) {
		if l.isOver(r.now) {
			e.endLease(r, l, eventExpired, releaseRequest{})
		}
	}
	for i := 0; i < len(e.queue); {
		if p := e.queue[i]; !p.connected && !r.now.Before(p.disconnectedAt.Add(maxAbsence)) {
			e.removeWaiter(r, p, eventAbandoned)
		} else {
			i++
		}
	}
	return len(r.changes) > before
}

// serve gives the free slots to the line in its order. Who is absent keeps
// the slot that is due, which stays empty, until the place ends.
func (e *environment) serveQueue(r *batch) {
	for i, free := 0, e.freeSlots(); free > 0 && i < len(e.queue); free-- {
		if p := e.queue[i]; p.connected {
			r.setWaiter(e, p, nil)
			r.handovers = append(r.handovers, handover{p, e.grant(r, p.request, p.claim, r.now.Sub(p.since))})
		} else {
			i++
		}
	}
}

// grant puts a free slot in the requester's hands. The caller has made sure
// that one is free.
func (e *environment) grant(r *batch, q request, claim, waited time.Duration) *lease {
	l := &lease{request: q, slot: e.firstFreeSlot(), fence: r.next(), since: r.now, waited: max(0, waited), ttl: q.ttl, claim: claim}
	l.start(r.now)
	r.setLease(e, nil, l)
	r.add(change{event: &event{number: l.fence, kind: eventGranted, at: r.now, environment: e.name, slot: l.slot, id: q.id,
		holder: q.holder, url: q.url, reason: q.reason, fence: l.fence, waited: l.waited}})
	return l
}

func (e *environment) firstFreeSlot() string {
	for _, s := range e.slots {
		if !slices.ContainsFunc(e.leases, func(l *lease) bool { return l.slot == s }) {
			return s
		}
	}
	panic("granting a slot of " + e.name + " though none is free")
}

// end takes a lease away and remembers how.
func (e *environment) endLease(r *batch, l *lease, kind eventKind, d releaseRequest) *lease {
	r.setLease(e, l, nil)
	r.addEvent(&event{kind: kind, environment: e.name, slot: l.slot, id: l.id, holder: l.holder, url: l.url, reason: l.reason,
		fence: l.fence, waited: l.waited, held: max(0, r.now.Sub(l.since)), by: d.by, from: d.from})
	return l
}
