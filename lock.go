package main

// The rules of the lock: what a request, a renewal, a release and the passing
// of time do to one environment. Everything here is a plain change of memory:
// no I/O, no clock, no goroutine. The caller gives the time and the numbers in
// a round, gets an answer, and finds the changes in the round.

import (
	"slices"
	"time"
)

// absence is how long a place in the line outlives the connection of the one
// who waits.
const absence = 10 * time.Second

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
type outcome struct {
	err     error    // nil: it is as the caller wished
	lease   *lease   // the lease that was granted, told again, renewed or ended
	place   *place   // the caller is in line and waits
	several []*lease // with errSeveral
	ended   *event   // how the caller's lease or request ended, where that is remembered
}

// request asks for a slot. The same id again is the same request: it is told
// the lease that it has, or keeps its place. Only wait enters the line.
func (e *environment) request(r *round, q request, wait bool, claim time.Duration) outcome {
	if q.id != "" {
		if l := e.leaseOf(q.id); l != nil {
			return again(q, l.request, outcome{lease: l})
		}
		if p := e.byID[q.id]; p != nil {
			return e.poll(r, q, p, claim)
		}
		if end := r.past.endOf(e.name, idKey, q.id, r.now); end != nil {
			return outcome{err: errEnded, ended: end}
		}
	}
	switch {
	case e.open(), wait && e.free() > len(e.line):
		return outcome{lease: e.grant(r, q, claim, 0)}
	case !wait:
		return outcome{err: errNoSlot}
	}
	p := &place{request: q, number: r.next(), since: r.now, claim: claim, present: true}
	r.place(e, nil, p)
	return outcome{place: p}
}

// poll is a further call of a request that is in line: it is present again,
// and takes what was offered to it meanwhile.
func (e *environment) poll(r *round, q request, p *place, claim time.Duration) outcome {
	if q != p.request {
		return outcome{err: errDifferent}
	}
	p.present, p.claim = true, claim
	e.serve(r)
	return outcome{place: p, lease: e.leaseOf(q.id)}
}

func again(q, before request, o outcome) outcome {
	if q != before {
		return outcome{err: errDifferent}
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
func (e *environment) renew(r *round, q renewal) outcome {
	found := e.find(q.selector)
	switch {
	case len(found) == 0:
		return outcome{err: errNotHeld, ended: r.past.endOfLease(e.name, q.selector, r.now)}
	case len(found) > 1:
		return outcome{err: errSeveral, several: found}
	}
	l := found[0]
	if !q.hasTTL || q.ttl == l.ttl {
		l.renew(q.at)
		return outcome{lease: l}
	}
	changed := *l
	changed.ttl, changed.confirmed = q.ttl, true
	changed.start(q.at)
	r.lease(e, l, &changed)
	return outcome{lease: &changed}
}

// A departure ends a lease, or a place in the line.
type departure struct {
	selector
	plain bool   // the 2019 call: it named nothing, the holder is a default
	force bool   // end it whoever holds it
	undo  bool   // the server takes a grant back that nobody has heard of
	by    string // with force: who
	from  string // with force: from which address
}

// release ends what the departure names. It says nil also for what the same
// caller has already released; an end that the caller did not bring about
// (expired, forced) is errNotHeld.
func (e *environment) release(r *round, d departure) outcome {
	if d.id != "" {
		return e.releaseID(r, d)
	}
	found := e.find(d.selector)
	if d.plain && (len(found) == 0 || d.holder == "") {
		found = slices.DeleteFunc(e.find(selector{}), func(l *lease) bool { return l.holder != "" || l.id != "" })
		found = found[:min(1, len(found))]
	}
	switch {
	case len(found) > 1:
		return outcome{err: errSeveral, several: found}
	case len(found) == 0:
		return e.releaseNothing(r, d)
	case d.force:
		return outcome{lease: e.end(r, found[0], forced, d)}
	}
	return outcome{lease: e.end(r, found[0], released, d)}
}

// releaseID ends a request: its lease, or its place in the line. It uses the
// id up, known or not, so that a request which the release has overtaken
// cannot become a lease that nobody releases.
func (e *environment) releaseID(r *round, d departure) outcome {
	if l := e.leaseOf(d.id); l != nil {
		return outcome{lease: e.end(r, l, released, d)}
	}
	if p := e.byID[d.id]; p != nil {
		e.leave(r, p, left)
		return outcome{}
	}
	switch end := r.past.endOf(e.name, idKey, d.id, r.now); {
	case end == nil:
		r.event(&event{kind: usedUp, environment: e.name, id: d.id})
	case end.kind == expired || end.kind == forced:
		return outcome{err: errNotHeld, ended: end}
	}
	return outcome{}
}

// releaseNothing answers a departure that no live lease matches.
func (e *environment) releaseNothing(r *round, d departure) outcome {
	end := r.past.endOfLease(e.name, d.selector, r.now)
	switch {
	case d.undo:
		return outcome{}
	case d.force && d.fence != 0:
		return outcome{err: errNotHeld, ended: end}
	case d.force:
		return outcome{}
	case !d.plain && end != nil && end.kind == released:
		return outcome{}
	case !d.plain && end != nil, len(e.leases) > 0:
		return outcome{err: errNotHeld, ended: end}
	}
	return outcome{}
}

// leave takes a place out of the line, for the reason that kind gives. One
// that was never stored leaves no event either.
func (e *environment) leave(r *round, p *place, kind eventKind) {
	r.place(e, p, nil)
	if p.kept() {
		r.event(&event{kind: kind, environment: e.name, id: p.id, holder: p.holder, url: p.url, reason: p.reason,
			waited: max(0, r.now.Sub(p.since))})
	}
}

// tick ends what time has ended: leases whose deadline has passed, and places
// whose owner has been away for too long. It reports whether anything ended.
func (e *environment) tick(r *round) bool {
	before := len(r.changes)
	for _, l := range slices.Clone(e.leases) {
		if l.over(r.now) {
			e.end(r, l, expired, departure{})
		}
	}
	for i := 0; i < len(e.line); {
		if p := e.line[i]; !p.present && !r.now.Before(p.absent.Add(absence)) {
			e.leave(r, p, lapsed)
		} else {
			i++
		}
	}
	return len(r.changes) > before
}

// serve gives the free slots to the line in its order. Who is absent keeps
// the slot that is due, which stays empty, until the place ends.
func (e *environment) serve(r *round) {
	for i, free := 0, e.free(); free > 0 && i < len(e.line); free-- {
		if p := e.line[i]; p.present {
			r.place(e, p, nil)
			r.handed = append(r.handed, handover{p, e.grant(r, p.request, p.claim, r.now.Sub(p.since))})
		} else {
			i++
		}
	}
}

// grant puts a free slot in the requester's hands. The caller has made sure
// that one is free.
func (e *environment) grant(r *round, q request, claim, waited time.Duration) *lease {
	l := &lease{request: q, slot: e.freeSlot(), fence: r.next(), since: r.now, waited: max(0, waited), ttl: q.ttl, claim: claim}
	l.start(r.now)
	r.lease(e, nil, l)
	r.add(change{event: &event{number: l.fence, kind: granted, at: r.now, environment: e.name, slot: l.slot, id: q.id,
		holder: q.holder, url: q.url, reason: q.reason, fence: l.fence, waited: l.waited}})
	return l
}

func (e *environment) freeSlot() string {
	for _, s := range e.slots {
		if !slices.ContainsFunc(e.leases, func(l *lease) bool { return l.slot == s }) {
			return s
		}
	}
	panic("granting a slot of " + e.name + " though none is free")
}

// end takes a lease away and remembers how.
func (e *environment) end(r *round, l *lease, kind eventKind, d departure) *lease {
	r.lease(e, l, nil)
	r.event(&event{kind: kind, environment: e.name, slot: l.slot, id: l.id, holder: l.holder, url: l.url, reason: l.reason,
		fence: l.fence, waited: l.waited, held: max(0, r.now.Sub(l.since)), by: d.by, from: d.from})
	return l
}
