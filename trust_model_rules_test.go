package main

// A model of the rules of the lock, written from the design and not from lock.go: plain
// lists that are searched from end to end. rapid generates scripts of requests, renewals,
// releases and passing time. After each step the rules and the model must have the same
// results and the same state.

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// A rulebook is the model of one environment.
type rulebook struct {
	now    time.Time
	slots  []string
	leases []modelLease // in the order of their grants
	line   []modelPlace // in the order of their ranks
	ended  []string     // the slots of the leases that have ended, the last one last
	ends   []modelEnd   // in the order of time
	pauses []modelPause // see trust_model_pause_test.go
	log    []string     // the history of the last step

	turns   int           // how many have entered the queue, without those that took a place
	numbers []uint64      // of all waiters and leases so far, of those with a key their first numbers too
	longest time.Duration // that the server allows
}

type modelLease struct {
	request
	slot         string
	fence        uint64 // zero until adopt or settle copies it from the real lease
	since, until time.Time
	waited, ttl  time.Duration
	claim        time.Duration // zero if the lease is claimed, or need not be
	waitedInLine bool          // the number of its waiter is not known
	last         time.Time     // no renewal goes beyond it; zero if there is no longest hold
}

type modelPlace struct {
	request
	claim   time.Duration
	present bool
	since   time.Time
	rank    time.Time
	turn    int // its order among those of one rank
	absent  time.Time
	number  uint64 // zero until it is copied from the real waiter
}

type modelEnd struct {
	id, holder, slot string // slot is empty for the end of a waiter
	fence            uint64
	how              string
	at               time.Time
}

// A modelAnswer is the result that the model expects.
type modelAnswer struct {
	err   error
	slot  string // of the lease; empty if none
	id    string // of the lease's request
	line  int    // the position in the queue; zero if none
	ended string // how the request ended; empty if it has not
}

func (a modelAnswer) String() string {
	return fmt.Sprintf("%v, slot %q of %q, place %d, ended %q", a.err, a.slot, a.id, a.line, a.ended)
}

// free returns the free slots of some of the slots, in the order in which they are given out:
// those that never had a lease, then those whose last lease ended earlier.
func (m *rulebook) free(slots []string) []string {
	var never, used []string
	for _, s := range slots {
		isHeld := slices.ContainsFunc(m.leases, func(l modelLease) bool { return l.slot == s })
		if !isHeld && !slices.Contains(m.ended, s) {
			never = append(never, s)
		}
	}
	for i, s := range m.ended {
		isHeld := slices.ContainsFunc(m.leases, func(l modelLease) bool { return l.slot == s })
		if !isHeld && slices.Contains(slots, s) && !slices.Contains(m.ended[i+1:], s) {
			used = append(used, s)
		}
	}
	all := append(never, used...)
	return all[:min(len(all), max(0, len(m.slots)-len(m.leases)))]
}

// walk gives the free slots to the waiters in the order of the queue, in thought: it returns
// the slot of each waiter, empty for none, and the slots that are left.
func (m *rulebook) walk() (given, left []string) {
	left = m.free(slices.DeleteFunc(slices.Clone(m.slots), m.isPaused))
	for _, p := range m.line {
		i := slices.IndexFunc(left, func(s string) bool { return p.request.slot == "" || p.request.slot == s })
		if i < 0 {
			given = append(given, "")
			continue
		}
		given = append(given, left[i])
		left = slices.Delete(left, i, i+1)
	}
	return given, left
}

// isOpen reports whether the walk leaves a slot.
func (m *rulebook) isOpen() bool {
	_, left := m.walk()
	return len(left) > 0
}

// matching returns the indices of the leases that the selector matches.
func (m *rulebook) matching(s selector) (found []int) {
	for i, l := range m.leases {
		switch {
		case s.key != "" && l.key != "" && s.key != l.key:
		case s.id != "" && s.id != l.id, s.holder != "" && s.holder != l.holder, s.fence != 0 && s.fence != l.fence, s.slot != "" && s.slot != l.slot:
		default:
			found = append(found, i)
		}
	}
	return found
}

// areOthers reports whether the selector matches no lease, but one if the key did not matter.
func (m *rulebook) areOthers(s selector) bool {
	found := len(m.matching(s))
	s.key = ""
	return found == 0 && len(m.matching(s)) > 0
}

// allows reports whether the limits of a key allow a new request, without its place.
func (l *keyLimits) allows(q request) bool {
	isTooLong := func(d, most time.Duration) bool { return most != 0 && d > most }
	return l == nil || !isTooLong(q.ttl, l.ttl) && !(l.ttl != 0 && q.ttl == 0) && !isTooLong(q.maxHold, l.hold) && q.priority <= l.priority
}

// hasPlace reports whether there is a place for one more request with the key.
func (m *rulebook) hasPlace(l *keyLimits, key string) bool {
	taken := 1
	for _, held := range m.leases {
		if held.key == key {
			taken++
		}
	}
	for _, p := range m.line {
		if p.key == key {
			taken++
		}
	}
	return l == nil || l.places == 0 || key == "" || taken <= l.places
}

// enter returns a new request as it is kept.
func enter(q request) request {
	if q.limits != nil {
		q.keyHold = q.limits.hold
	}
	q.limits = nil
	return q
}

// inLine returns the index of the waiter with the id in the queue, -1 if there is none.
func (m *rulebook) inLine(id string) int {
	return slices.IndexFunc(m.line, func(p modelPlace) bool { return id != "" && p.id == id })
}

// endOf returns the latest end that is less than an hour old and for which fits is true.
func (m *rulebook) endOf(fits func(modelEnd) bool) (modelEnd, bool) {
	for _, e := range slices.Backward(m.ends) {
		if fits(e) && m.now.Sub(e.at) < time.Hour {
			return e, true
		}
	}
	return modelEnd{}, false
}

func (m *rulebook) endOfID(id string) (modelEnd, bool) {
	return m.endOf(func(e modelEnd) bool { return e.id == id })
}

// endOfLease returns the latest end of a lease that the selector of a release or renewal
// without id matches. A selector with only a slot matches none.
func (m *rulebook) endOfLease(s selector) (modelEnd, bool) {
	if s.holder == "" && s.fence == 0 {
		return modelEnd{}, false
	}
	return m.endOf(func(e modelEnd) bool {
		return e.slot != "" && (s.holder == "" || s.holder == e.holder) && (s.fence == 0 || s.fence == e.fence) && (s.slot == "" || s.slot == e.slot)
	})
}

func (m *rulebook) grant(q request, slot string, claim time.Duration, waited time.Duration) modelAnswer {
	l := modelLease{request: q, slot: slot, since: m.now, waited: waited, ttl: q.ttl}
	if q.ttl > 0 {
		l.until = m.now.Add(q.ttl)
	}
	if claim > 0 && (q.ttl == 0 || claim < q.ttl) {
		l.until = m.now.Add(claim)
	}
	l.claim = claim
	for _, longest := range []time.Duration{q.maxHold, q.keyHold, m.longest} {
		if end := m.now.Add(longest); longest > 0 && (l.last.IsZero() || end.Before(l.last)) {
			l.last = end
		}
	}
	l.until = l.cut(l.until)
	m.leases = append(m.leases, l)
	m.write("granted", q, slot, waited, "")
	return modelAnswer{slot: slot, id: q.id}
}

// cut returns the end of the lease when a ttl would end it at the time given, zero for never.
func (l modelLease) cut(end time.Time) time.Time {
	if !l.last.IsZero() && (end.IsZero() || end.After(l.last)) {
		return l.last
	}
	return end
}

// offer grants the free slots to the waiters, in the order of the queue. A disconnected
// waiter uses up a slot without a grant: the slot stays free.
func (m *rulebook) offer() {
	given, _ := m.walk()
	var rest, granted []modelPlace
	var slots []string
	for i, p := range m.line {
		if given[i] != "" && p.present {
			granted, slots = append(granted, p), append(slots, given[i])
		} else {
			rest = append(rest, p)
		}
	}
	m.line = rest
	for i, p := range granted {
		m.grant(p.request, slots[i], p.claim, m.now.Sub(p.since))
		m.leases[len(m.leases)-1].waitedInLine = true
	}
}

// newest decides a new request with a key. It returns the waiter whose place the request
// takes, and whether the request may enter: a newer one with its key may have it instead.
func (m *rulebook) newest(q request) (older *modelPlace, by *request, ok bool) {
	var all []request
	for i, p := range m.line {
		if p.supersede == q.supersede && p.key == q.key && p.request.slot == q.slot {
			older, all = &m.line[i], append(all, p.request)
		}
	}
	for _, l := range m.leases {
		if l.supersede == q.supersede && l.key == q.key && l.request.slot == q.slot {
			all = append(all, l.request)
		}
	}
	for _, other := range all {
		if q.first != 0 && other.first > q.first {
			return nil, &other, false
		}
	}
	return older, nil, true
}

func (m *rulebook) post(q request, wait bool, claim time.Duration) modelAnswer {
	if q.id != "" {
		if found := m.matching(selector{id: q.id}); len(found) > 0 {
			if !m.leases[found[0]].request.equal(q) {
				return modelAnswer{err: errDifferent}
			}
			return modelAnswer{slot: m.leases[found[0]].slot, id: q.id}
		}
		if i := m.inLine(q.id); i >= 0 {
			if !m.line[i].request.equal(q) {
				return modelAnswer{err: errDifferent}
			}
			m.line[i].present, m.line[i].claim = true, claim
			m.offer()
			if i := m.inLine(q.id); i >= 0 {
				return modelAnswer{line: i + 1}
			}
			return modelAnswer{slot: m.leases[m.matching(selector{id: q.id})[0]].slot, id: q.id}
		}
		if e, ok := m.endOfID(q.id); ok {
			return modelAnswer{err: errEnded, ended: e.how}
		}
	}
	switch {
	case len(m.slots) == 0:
		return modelAnswer{err: errUndeclared}
	case q.slot != "" && !slices.Contains(m.slots, q.slot):
		return modelAnswer{err: errSlots}
	case !q.limits.allows(q):
		return modelAnswer{err: errForbidden}
	}
	limits := q.limits
	q = enter(q)
	p := modelPlace{request: q, claim: claim, present: true, since: m.now, rank: m.now, turn: m.turns + 1}
	var older *modelPlace
	if wait && q.supersede != "" {
		other, by, ok := m.newest(q)
		if !ok {
			m.ends = append(m.ends, modelEnd{id: q.id, holder: q.holder, how: "superseded", at: m.now})
			m.write("superseded", q, "", 0, fmt.Sprintf("by %q with %q at %q", by.holder, by.key, by.url))
			return modelAnswer{err: errEnded, ended: "superseded"}
		}
		older = other
	}
	if older != nil {
		p.since, p.turn = older.since, older.turn
		p.rank = older.rank.Add(10 * time.Minute * time.Duration(older.priority))
		m.leave(slices.IndexFunc(m.line, func(x modelPlace) bool { return x.id == older.id }), "superseded", fmt.Sprintf("by %q with %q at %q", q.holder, q.key, q.url))
	} else if !m.hasPlace(limits, q.key) {
		return modelAnswer{err: errForbidden}
	} else {
		_, left := m.walk()
		if i := slices.IndexFunc(left, func(s string) bool { return q.slot == "" || q.slot == s }); i >= 0 {
			return m.grant(q, left[i], claim, 0)
		}
		if !wait {
			return modelAnswer{err: errNoSlot}
		}
		m.turns++
	}
	p.rank = p.rank.Add(-10 * time.Minute * time.Duration(q.priority))
	i := slices.IndexFunc(m.line, func(x modelPlace) bool {
		return x.rank.After(p.rank) || x.rank.Equal(p.rank) && x.turn > p.turn
	})
	if i < 0 {
		i = len(m.line)
	}
	m.line = slices.Insert(m.line, i, p)
	given, _ := m.walk() // it may take what is offered to waiters behind it
	m.offer()
	if given[i] != "" {
		return modelAnswer{slot: given[i], id: q.id}
	}
	if older != nil { // one that was behind it may have got what was kept for it
		i = m.inLine(q.id)
	}
	return modelAnswer{line: i + 1}
}

func (m *rulebook) put(r renewal) modelAnswer {
	found := m.matching(r.selector)
	if m.areOthers(r.selector) {
		return modelAnswer{err: errOtherKey}
	}
	if len(found) == 0 {
		var e modelEnd
		if r.id != "" {
			e, _ = m.endOf(func(e modelEnd) bool {
				return e.id == r.id && (r.holder == "" || r.holder == e.holder) && (r.slot == "" || r.slot == e.slot)
			})
		} else {
			e, _ = m.endOfLease(r.selector)
		}
		return modelAnswer{err: errNotHeld, ended: e.how}
	}
	if len(found) > 1 {
		return modelAnswer{err: errSeveral}
	}
	l := &m.leases[found[0]]
	if r.hasTTL && r.ttl != l.ttl && !r.limits.allows(request{ttl: r.ttl}) {
		return modelAnswer{err: errForbidden}
	}
	unclaimed := l.claim > 0
	l.claim = 0
	end := r.at.Add(l.ttl)
	if r.hasTTL && r.ttl != l.ttl {
		l.ttl = r.ttl
		end, unclaimed = r.at.Add(l.ttl), true
	}
	end = l.cut(end)
	switch {
	case l.ttl == 0:
		l.until = l.last
	case unclaimed || l.until.Before(end): // a renewal never makes the end earlier
		l.until = end
	}
	return modelAnswer{slot: l.slot, id: l.id}
}

func (m *rulebook) end(i int, how string, d releaseRequest) modelAnswer {
	l := m.leases[i]
	m.leases = slices.Delete(m.leases, i, i+1)
	if len(m.slots) > 1 { // else there is no choice of slots, and nothing is noted
		m.ended = append(m.ended, l.slot)
	}
	m.ends = append(m.ends, modelEnd{l.id, l.holder, l.slot, l.fence, how, m.now})
	m.write(how, l.request, l.slot, l.waited, fmt.Sprintf("fence %d held %v by %q with %q from %q to %q because %q", l.fence, m.now.Sub(l.since), d.by, d.origin.key, d.from, d.to, d.why))
	return modelAnswer{slot: l.slot, id: l.id}
}

func (m *rulebook) leave(i int, how, by string) {
	p := m.line[i]
	m.line = slices.Delete(m.line, i, i+1)
	if p.id != "" || how == "removed" {
		m.ends = append(m.ends, modelEnd{id: p.id, holder: p.holder, how: how, at: m.now})
		m.write(how, p.request, "", m.now.Sub(p.since), by)
	}
}

// remove ends the waiter with the number, and nothing else.
func (m *rulebook) remove(d releaseRequest) modelAnswer {
	for i, p := range m.line {
		if p.number == d.waiter {
			m.leave(i, "removed", fmt.Sprintf("by %q with %q from %q: %s", d.by, d.origin.key, d.from, d.why))
			return modelAnswer{}
		}
	}
	return modelAnswer{err: errNotWaiting}
}

func (m *rulebook) deleteID(d releaseRequest) modelAnswer {
	if found := m.matching(selector{id: d.id}); len(found) > 0 {
		return m.end(found[0], "released", d)
	}
	if i := m.inLine(d.id); i >= 0 {
		m.leave(i, "left", "")
		return modelAnswer{}
	}
	e, ok := m.endOfID(d.id)
	switch {
	case !ok:
		m.ends = append(m.ends, modelEnd{id: d.id, how: "closed", at: m.now})
		m.write("closed", request{id: d.id, origin: d.origin}, "", 0, "")
	case e.how == "expired", e.how == "forced", e.how == "taken":
		return modelAnswer{err: errNotHeld, ended: e.how}
	}
	return modelAnswer{}
}

// take is a request that takes over the lease with the fence.
func (m *rulebook) take(q request, fence uint64, claim time.Duration) modelAnswer {
	waits := m.inLine(q.id)
	if waits < 0 {
		if found := m.matching(selector{id: q.id}); len(found) > 0 || m.isEnded(q.id) {
			return m.post(q, false, claim)
		}
	} else if !m.line[waits].request.equal(q) {
		return modelAnswer{err: errDifferent}
	}
	found := m.matching(selector{fence: fence, slot: q.slot})
	if len(found) == 0 {
		e, _ := m.endOfLease(selector{fence: fence, slot: q.slot})
		return modelAnswer{err: errOver, ended: e.how}
	}
	if m.isPaused(m.leases[found[0]].slot) {
		return modelAnswer{err: errPaused}
	}
	if waits < 0 {
		old := m.leases[found[0]]
		m.leases = slices.Delete(slices.Clone(m.leases), found[0], found[0]+1)
		isAllowed := q.limits.allows(q) && m.hasPlace(q.limits, q.key)
		m.leases = slices.Insert(m.leases, found[0], old)
		if !isAllowed {
			return modelAnswer{err: errForbidden}
		}
		q = enter(q)
	}
	slot := m.end(found[0], "taken", releaseRequest{by: q.holder, origin: origin{key: q.key, from: "10.0.0.9"}, why: q.reason}).slot
	waited := time.Duration(0)
	if waits >= 0 {
		waited, q = m.now.Sub(m.line[waits].since), m.line[waits].request
		m.line = slices.Delete(m.line, waits, waits+1)
	}
	a := m.grant(q, slot, claim, waited)
	for i := 0; i < len(m.line); {
		if q.holder != "" && m.line[i].holder == q.holder {
			m.leave(i, "left", "")
		} else {
			i++
		}
	}
	m.offer()
	return a
}

func (m *rulebook) isEnded(id string) bool {
	_, ended := m.endOfID(id)
	return ended
}

// hand is a release that hands its lease over.
func (m *rulebook) hand(d releaseRequest) modelAnswer {
	found := m.matching(d.selector)
	if len(found) > 1 {
		return modelAnswer{err: errSeveral}
	}
	if m.areOthers(d.selector) {
		return modelAnswer{err: errOtherKey}
	}
	if len(found) == 0 {
		how := m.put(renewal{selector: d.selector}).ended
		if how == "handed" {
			return modelAnswer{}
		}
		return modelAnswer{err: errNotHeld, ended: how}
	}
	old := m.leases[found[0]]
	m.end(found[0], "handed", d)
	q := request{holder: d.to, url: old.url, reason: d.why, ttl: d.ttl, origin: origin{key: old.key, from: d.from}}
	if old.keyHold > 0 {
		q.keyHold = max(1, old.keyHold-m.now.Sub(old.since))
	}
	if q.reason == "" {
		q.reason = old.reason
	}
	m.grant(q, old.slot, 0, 0)
	return modelAnswer{slot: old.slot, id: old.id}
}

func (m *rulebook) delete(d releaseRequest) modelAnswer {
	if d.id != "" {
		return m.deleteID(d)
	}
	if d.waiter != 0 {
		return m.remove(d)
	}
	found := m.matching(d.selector)
	if d.is2019 && (d.holder == "" || len(found) == 0) { // the oldest lease with neither holder nor id
		found = nil
		if i := slices.IndexFunc(m.leases, func(l modelLease) bool {
			return l.holder == "" && l.id == "" && (d.selector.key == "" || l.key == "" || l.key == d.selector.key)
		}); i >= 0 {
			found = []int{i}
		}
	}
	if len(found) > 1 {
		return modelAnswer{err: errSeveral}
	}
	if len(found) == 1 {
		if d.force {
			return m.end(found[0], "forced", d)
		}
		return m.end(found[0], "released", d)
	}
	e, known := m.endOfLease(d.selector)
	switch {
	case d.isUndo:
		return modelAnswer{}
	case m.areOthers(d.selector):
		return modelAnswer{err: errOtherKey}
	case d.force && d.fence == 0:
		return modelAnswer{} // there is no lease to end
	case d.force:
		return modelAnswer{err: errNotHeld, ended: e.how}
	case d.is2019 && len(m.leases) == 0:
		return modelAnswer{}
	case d.is2019:
		return modelAnswer{err: errNotHeld, ended: e.how}
	case known && (e.how == "released" || e.how == "handed"):
		return modelAnswer{}
	case known:
		return modelAnswer{err: errNotHeld, ended: e.how}
	case len(m.leases) > 0:
		return modelAnswer{err: errNotHeld}
	}
	return modelAnswer{}
}

// write adds an event to the history of the step.
func (m *rulebook) write(how string, q request, slot string, waited time.Duration, end string) {
	m.log = append(m.log, fmt.Sprintf("%v uat %s %q by %q with %q %q %q on %q waited %v %s", m.now, how, q.id, q.holder, q.key, q.url, q.reason, slot, waited, end))
}

// scan ends the leases that have expired, and removes the waiters that have been
// disconnected for ten seconds, and all of them if no slot is declared.
func (m *rulebook) scan() {
	for i := 0; i < len(m.leases); {
		if l := m.leases[i]; !l.until.IsZero() && !m.now.Before(l.until) {
			m.end(i, "expired", releaseRequest{})
		} else {
			i++
		}
	}
	m.endPauses(false)
	for i := 0; i < len(m.line); {
		switch p := m.line[i]; {
		case m.slots == nil:
			m.leave(i, "undeclared", "")
		case !p.present && m.now.Sub(p.absent) >= 10*time.Second:
			m.leave(i, "abandoned", "")
		default:
			i++
		}
	}
}

// String returns the state as text. The rules and the keeper must have the same text.
func (m *rulebook) String() string {
	var b strings.Builder
	for _, l := range m.leases {
		fmt.Fprintf(&b, "lease %v slot %q fence %d since %v waited %v ttl %v until %v\n", l.request, l.slot, l.fence, m.ago(l.since), l.waited, l.ttl, m.ago(l.until))
	}
	for i, p := range m.line {
		fmt.Fprintf(&b, "place %d number %d %v since %v present %v\n", i+1, p.number, p.request, m.ago(p.since), p.present)
	}
	fmt.Fprintf(&b, "free %q open %v %s\n", m.free(m.slots), m.isOpen(), m.pausesText(m.pauses))
	return b.String()
}

func (m *rulebook) ago(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return m.now.Sub(t).String()
}

// A duel applies the same steps to the rules and to the model, and compares them.
type duel struct {
	*bench
	m      rulebook
	fences []uint64 // of all leases so far
	events int      // how many events of the rules' history have been compared
	number uint64   // of the last event that has been compared
}

func (d *duel) String() string {
	var b strings.Builder
	for _, l := range d.e.leases {
		fmt.Fprintf(&b, "lease %v slot %q fence %d since %v waited %v ttl %v until %v\n", l.request, l.slot, l.fence, d.m.ago(l.since), l.waited, l.ttl, d.m.ago(l.deadline))
	}
	for _, p := range d.e.queue {
		fmt.Fprintf(&b, "place %d number %d %v since %v present %v\n", d.e.position(p), p.number, p.request, d.m.ago(p.since), p.connected.Load())
	}
	pauses := d.m.pausesOf(slices.Concat(d.find(everywhere).pauses, d.e.pauses))
	fmt.Fprintf(&b, "free %q open %v %s\n", d.e.freeSlots(d.e.slots), d.e.isOpen("", d.find), pauses)
	return b.String()
}

// adopt copies the fences of new leases from the rules to the model, which cannot know them.
// It fails the test if a fence is not larger than all before.
func (d *duel) adopt(t *rapid.T) {
	before := d.m.largest()
	for i := range d.m.leases {
		l := &d.m.leases[i]
		if l.fence != 0 {
			continue
		}
		found := d.e.matchingLeases(selector{slot: l.slot})
		if len(found) != 1 {
			t.Fatalf("slot %q has %d leases", l.slot, len(found))
		}
		if l.fence = found[0].fence; len(d.fences) > 0 && l.fence <= d.fences[len(d.fences)-1] {
			t.Fatalf("fence %d after %v", l.fence, d.fences)
		}
		d.fences = append(d.fences, l.fence)
		if err := d.m.numberLease(l, found[0].first, before); err != nil {
			t.Fatal(err)
		}
	}
	for i := range d.m.line {
		if p := &d.m.line[i]; p.number == 0 && i < len(d.e.queue) {
			if err := d.m.numberPlace(p, d.e.queue[i].number, before); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// numberPlace sets the number of a waiter, which is larger than any before the step, and its
// first one if it has a key.
func (m *rulebook) numberPlace(p *modelPlace, number, before uint64) error {
	if number <= before {
		return fmt.Errorf("a waiter has the number %d after %v", number, m.numbers)
	}
	p.number = number
	m.numbers = append(m.numbers, number)
	if p.supersede != "" && p.first == 0 {
		p.first = number
	}
	return nil
}

// numberLease sets the first number of a lease with a key: its fence, unless it has waited.
func (m *rulebook) numberLease(l *modelLease, first, before uint64) error {
	m.numbers = append(m.numbers, l.fence)
	switch {
	case l.supersede == "" || l.first != 0:
	case !l.waitedInLine:
		l.first = l.fence
	case first <= before || first >= l.fence:
		return fmt.Errorf("the first number of the lease %d is %d, after %v", l.fence, first, m.numbers)
	default:
		l.first = first // of the waiter, which was granted in the step in which it came
	}
	return nil
}

func (m *rulebook) largest() uint64 {
	if len(m.numbers) == 0 {
		return 0
	}
	return slices.Max(m.numbers)
}

// try applies a rule in a batch and undoes the batch, as after a failed commit. It fails the
// test if the state is not as before.
func (d *duel) try(t *rapid.T, rule func(r *batch)) {
	before := d.picture()
	r := d.batch()
	rule(r)
	r.undo()
	if after := d.picture(); after != before {
		t.Fatalf("before a round that was undone\n%s\nafter\n%s", before, after)
	}
}

// same compares the results and the new events of a step.
func (d *duel) same(t *rapid.T, o result, want modelAnswer) {
	d.adopt(t)
	got := modelAnswer{err: o.err}
	if o.err == nil && len(o.own) > 0 {
		got.slot, got.id = only(o.own).slot, only(o.own).id
	} else if o.waiter != nil {
		got.line = d.e.position(o.waiter)
	}
	if o.ended != nil {
		got.ended = o.ended.kind.String()
	}
	if errors.Is(got.err, want.err) {
		got.err = want.err // the same, without the slots that it names
	}
	if got != want {
		t.Fatalf("answered %v\nthe model says %v", got, want)
	}
	if many := len(d.m.leases); errors.Is(o.err, errSeveral) && (len(o.own) < 2 || len(o.own) > many) {
		t.Fatalf("%d leases are listed of %d", len(o.own), many)
	}
	var log []string
	for _, e := range d.past.events[d.events:] {
		end := ""
		if e.isEnd() && e.fence != 0 {
			end = fmt.Sprintf("fence %d held %v by %q with %q from %q to %q because %q", e.fence, e.held, e.by, e.byKey, e.from, e.to, e.why)
		}
		switch e.kind {
		case eventPaused, eventResumed:
			log = append(log, fmt.Sprintf("%v %s %s slot %q reason %q held %v by %q from %q", e.at, e.environment, e.kind, e.slot, e.reason, e.held, e.by, e.from))
			continue
		case eventSuperseded:
			end = fmt.Sprintf("by %q with %q at %q", e.by, e.byKey, e.byURL)
		case eventRemoved:
			end = fmt.Sprintf("by %q with %q from %q: %s", e.by, e.byKey, e.from, e.why)
		}
		log = append(log, fmt.Sprintf("%v %s %s %q by %q with %q %q %q on %q waited %v %s", e.at, e.environment, e.kind, e.id, e.holder, e.key, e.url, e.reason, e.slot, e.waited, end))
		if e.kind == eventGranted && e.number != e.fence || e.number <= d.number {
			t.Fatalf("event %+v after number %d", e, d.number)
		}
		d.number = e.number
	}
	if !slices.Equal(log, d.m.log) {
		t.Fatalf("the history is\n%q, the model's\n%q", log, d.m.log)
	}
	d.events, d.m.log = len(d.past.events), nil
}

// check compares the states. It fails the test if a waiter is not found by its id.
func (d *duel) check(t *rapid.T) {
	if got, want := d.String(), d.m.String(); got != want {
		t.Fatalf("the state is\n%s, the model's\n%s", got, want)
	}
	named := 0
	for _, p := range d.e.queue {
		if p.id != "" {
			named++
			if d.e.waitersByID[p.id] != p {
				t.Fatalf("%q is not found in the queue", p.id)
			}
		}
	}
	if named != len(d.e.waitersByID) || d.e.isIdle() != (len(d.m.leases)+len(d.m.line)+len(d.e.pauses) == 0) {
		t.Fatalf("%d places have an id, %d are known; idle %v", named, len(d.e.waitersByID), d.e.isIdle())
	}
}

// The values of the scripts. There are few names, so that the same name is often drawn again.
var (
	someID     = rapid.SampledFrom([]string{"", "a", "b", "c", "d", "ann"}) // ann is also a holder
	someHolder = rapid.SampledFrom([]string{"", "ann", "bob"})
	someSlot   = rapid.SampledFrom([]string{"", "", "", "blue", "green", "red"})
	someTTL    = rapid.SampledFrom([]time.Duration{0, 0, time.Second, 10 * time.Second, time.Minute, 2 * time.Hour})
	someKey    = rapid.SampledFrom([]string{"", "shop", "shop", "web"}) // the name of one
	someClaim  = rapid.SampledFrom([]time.Duration{0, 0, 5 * time.Second, 30 * time.Second})
	someTime   = rapid.SampledFrom([]time.Duration{1, time.Millisecond, time.Second, 5 * time.Second, 10*time.Second - 1, 10 * time.Second,
		time.Minute, time.Hour - 10*time.Second, time.Hour})
	someSlots = rapid.SampledFrom([][]string{nil, {"blue"}, {"blue", "green"}, {"green", "red"}, {"blue", "green", "red"}})

	someDeclared = rapid.SampledFrom([][]string{{"blue"}, {"blue", "green"}, {"green", "red"}, {"blue", "green", "red"}})
)

func (d *duel) someFence(t *rapid.T) uint64 {
	if len(d.fences) == 0 || rapid.IntRange(0, 3).Draw(t, "whose fence") > 0 {
		return 0
	}
	return rapid.SampledFrom(d.fences).Draw(t, "fence") + uint64(rapid.IntRange(0, 9).Draw(t, "off by")/9)
}

// someLimits draws the limits of a key, in half of the cases none.
func someLimits(t *rapid.T) *keyLimits {
	if rapid.Bool().Draw(t, "without limits") {
		return nil
	}
	return &keyLimits{ttl: rapid.SampledFrom([]time.Duration{0, 0, 10 * time.Second, time.Hour}).Draw(t, "max-ttl"),
		hold:   rapid.SampledFrom([]time.Duration{0, 0, time.Second, time.Minute}).Draw(t, "max-hold"),
		places: rapid.IntRange(0, 3).Draw(t, "max-places"), priority: rapid.SampledFrom([]int{0, 0, 1, 100}).Draw(t, "max-priority")}
}

// someRequest draws a request of a key: in most cases the existing one with the id, else a new
// one. Neither the key nor its limits are terms.
func (d *duel) someRequest(t *rapid.T) request {
	q := d.someTerms(t)
	q.origin, q.limits = origin{key: someKey.Draw(t, "of the key")}, someLimits(t)
	q.keyHold = 0
	return q
}

// someTerms draws the terms of a request.
func (d *duel) someTerms(t *rapid.T) request {
	id := someID.Draw(t, "id")
	same := rapid.IntRange(0, 5).Draw(t, "same") > 0
	if found := d.m.matching(selector{id: id}); id != "" && same && len(found) > 0 {
		return d.m.leases[found[0]].request
	}
	if i := d.m.inLine(id); i >= 0 && same {
		return d.m.line[i].request
	}
	q := request{id: id, holder: someHolder.Draw(t, "holder"), ttl: someTTL.Draw(t, "ttl"),
		priority: rapid.SampledFrom([]int{0, 0, 0, 1, -1, 100}).Draw(t, "priority")}
	if rapid.IntRange(0, 2).Draw(t, "certain") == 0 {
		q.slot = someSlot.Draw(t, "slot")
	}
	if rapid.IntRange(0, 4).Draw(t, "limited") == 0 {
		q.maxHold = someTime.Draw(t, "longest")
	}
	if rapid.IntRange(0, 9).Draw(t, "more") == 0 {
		q.url, q.reason = "https://ci/1", "tests"
	}
	if id != "" && rapid.Bool().Draw(t, "newest wins") {
		q.supersede = rapid.SampledFrom([]string{"main", "main", "main", "other"}).Draw(t, "key")
		if len(d.m.numbers) > 0 && rapid.IntRange(0, 2).Draw(t, "anew") == 0 {
			q.first = rapid.SampledFrom(d.m.numbers).Draw(t, "first")
		}
	}
	return q
}

func (d *duel) postStep(t *rapid.T) {
	q, wait, claim := d.someRequest(t), rapid.Bool().Draw(t, "wait"), someClaim.Draw(t, "claim")
	wait = wait || q.supersede != "" // the server refuses a key without wait
	rule := func(r *batch) result { return d.e.request(r, q, wait, claim) }
	if d.m.inLine(q.id) < 0 {
		d.try(t, func(r *batch) { rule(r) })
	}
	var o result
	d.step(func(r *batch) { o = rule(r) })
	d.same(t, o, d.m.post(q, wait, claim))
}

func (d *duel) putStep(t *rapid.T) {
	q := renewal{selector: selector{id: someID.Draw(t, "id"), holder: someHolder.Draw(t, "holder"), slot: someSlot.Draw(t, "slot")}, at: d.now.Add(-someTime.Draw(t, "under way for"))}
	if q.id == "" {
		q.fence = d.someFence(t)
	}
	if q.hasTTL = rapid.Bool().Draw(t, "with ttl"); q.hasTTL {
		q.ttl, q.limits = someTTL.Draw(t, "ttl"), someLimits(t)
	}
	if q.id == "" {
		q.key = someKey.Draw(t, "of the key")
	}
	if q.at.Before(d.now.Add(-time.Minute)) {
		q.at = d.now
	}
	var o result
	d.step(func(r *batch) { o = d.e.renew(r, q) })
	d.same(t, o, d.m.put(q))
}

// someDeparture draws a release, of one of the seven kinds.
func (d *duel) someDeparture(t *rapid.T) (q releaseRequest) {
	q.origin.key = someKey.Draw(t, "with the key")
	switch rapid.IntRange(0, 6).Draw(t, "kind") {
	case 0, 1:
		q.id = someID.Draw(t, "id")
	case 2:
		q.holder, q.slot, q.fence = rapid.SampledFrom([]string{"ann", "bob"}).Draw(t, "holder"), someSlot.Draw(t, "slot"), d.someFence(t)
		q.selector.key = someKey.Draw(t, "of the key")
	case 3:
		q.force, q.by, q.from = true, "root", "10.0.0.1:1"
		q.slot, q.fence = someSlot.Draw(t, "slot"), d.someFence(t)
	case 4:
		q.holder, q.is2019, q.selector.key = someHolder.Draw(t, "holder"), true, someKey.Draw(t, "of the key")
	case 5:
		q.fence, q.isUndo = d.someFence(t), true
	case 6:
		q.force, q.by, q.from, q.why = true, "root", "10.0.0.1:1", "stuck"
		q.waiter = d.someNumber(t)
		return q
	}
	if q.isUndo && q.fence == 0 || q.id == "" && !q.force && q.selector == (selector{key: q.selector.key}) {
		q.is2019, q.isUndo = true, false
	}
	return q
}

// someNumber draws the number of a waiter, or one that was used before.
func (d *duel) someNumber(t *rapid.T) uint64 {
	if len(d.m.line) > 0 && rapid.Bool().Draw(t, "waits") {
		return rapid.SampledFrom(d.m.line).Draw(t, "waiter").number
	}
	if len(d.m.numbers) > 0 {
		return rapid.SampledFrom(d.m.numbers).Draw(t, "number")
	}
	return 7
}

func (d *duel) deleteStep(t *rapid.T) {
	q := d.someDeparture(t)
	rule := func(r *batch) result {
		o := d.e.release(r, q)
		d.e.serveQueue(r)
		return o
	}
	d.try(t, func(r *batch) { rule(r) })
	var o result
	d.step(func(r *batch) { o = rule(r) })
	want := d.m.delete(q)
	d.m.offer()
	d.same(t, o, want)
}

// someTakeover draws the fence of a lease that lives, or in one of four cases any.
func (d *duel) someTakeover(t *rapid.T) uint64 {
	if len(d.m.leases) > 0 && rapid.IntRange(0, 3).Draw(t, "of a lease") > 0 {
		return rapid.SampledFrom(d.m.leases).Draw(t, "lease").fence
	}
	return rapid.Uint64Range(1, 999).Draw(t, "fence")
}

func (d *duel) takeOverStep(t *rapid.T) {
	q, claim, fence := d.someRequest(t), someClaim.Draw(t, "claim"), d.someTakeover(t)
	if q.id == "" {
		t.Skip("it needs an id")
	}
	rule := func(r *batch) result { return d.e.take(r, q, takeover{fence, "10.0.0.9"}, claim) }
	d.try(t, func(r *batch) { rule(r) })
	var o result
	d.step(func(r *batch) { o = rule(r) })
	d.same(t, o, d.m.take(q, fence, claim))
}

// someHandOver draws a release that hands its lease over.
func (d *duel) someHandOver(t *rapid.T) releaseRequest {
	q := releaseRequest{to: rapid.SampledFrom([]string{"ann", "bob"}).Draw(t, "to"), ttl: someTTL.Draw(t, "ttl"),
		why: rapid.SampledFrom([]string{"", "kept: exit 1"}).Draw(t, "why"), origin: origin{key: someKey.Draw(t, "with the key")}}
	if rapid.Bool().Draw(t, "by id") {
		q.id = rapid.SampledFrom([]string{"a", "b", "c", "d", "ann"}).Draw(t, "id")
	} else {
		q.holder, q.slot, q.fence = rapid.SampledFrom([]string{"ann", "bob"}).Draw(t, "holder"), someSlot.Draw(t, "slot"), d.someFence(t)
		q.selector.key = someKey.Draw(t, "of the key")
	}
	return q
}

func (d *duel) handOverStep(t *rapid.T) {
	q := d.someHandOver(t)
	d.try(t, func(r *batch) { d.e.handOver(r, q) })
	var o result
	d.step(func(r *batch) { o = d.e.handOver(r, q) })
	d.same(t, o, d.m.hand(q))
}

// someMoment draws how much time passes: half of the time any, else exactly until a lease, an
// absence or the memory of an end is over, or one nanosecond less.
func (d *duel) someMoment(t *rapid.T) time.Duration {
	var moments []time.Duration
	for _, l := range d.m.leases {
		if !l.until.IsZero() {
			moments = append(moments, l.until.Sub(d.now))
		}
	}
	for _, p := range d.m.line {
		if !p.present {
			moments = append(moments, p.absent.Add(10*time.Second).Sub(d.now))
		}
	}
	for _, p := range d.m.pauses {
		if !p.until.IsZero() {
			moments = append(moments, p.until.Sub(d.now))
		}
	}
	for _, e := range d.m.ends {
		moments = append(moments, e.at.Add(time.Hour).Sub(d.now))
	}
	moments = slices.DeleteFunc(moments, func(d time.Duration) bool { return d < 1 })
	if len(moments) == 0 || rapid.Bool().Draw(t, "any time") {
		return someTime.Draw(t, "time")
	}
	return rapid.SampledFrom(moments).Draw(t, "until") - time.Duration(rapid.IntRange(0, 1).Draw(t, "less"))
}

func (d *duel) passStep(t *rapid.T) {
	d.now = d.now.Add(d.someMoment(t))
	d.m.now = d.now
	ended := false
	rule := func(r *batch) {
		ended = d.find(everywhere).expire(r)
		ended = d.e.expire(r) || ended
		d.e.serveQueue(r)
	}
	d.try(t, rule)
	d.step(rule)
	before := len(d.m.leases) + len(d.m.line) + len(d.m.pauses)
	d.m.endPauses(true)
	d.m.scan()
	if want := len(d.m.leases)+len(d.m.line)+len(d.m.pauses) < before; ended != want {
		t.Fatalf("tick says that something ended: %v, the model %v", ended, want)
	}
	d.m.offer()
	d.same(t, result{}, modelAnswer{})
}

// goAwayStep disconnects a waiter. A waiter without id leaves the queue.
func (d *duel) goAwayStep(t *rapid.T) {
	if len(d.m.line) == 0 {
		t.Skip("nobody waits")
	}
	i := rapid.IntRange(0, len(d.m.line)-1).Draw(t, "who")
	p := d.e.queue[i]
	if p.id == "" {
		d.step(func(r *batch) { d.e.removeWaiter(r, p, eventLeft) })
		d.m.leave(i, "left", "")
	} else {
		d.goAway(p)
		d.m.line[i].present, d.m.line[i].absent = false, d.now
	}
	d.same(t, result{}, modelAnswer{})
}

func (d *duel) declareStep(t *rapid.T) {
	if rapid.IntRange(0, 4).Draw(t, "really") > 0 {
		t.Skip("seldom")
	}
	d.e.slots = someSlots.Draw(t, "slots")
	d.m.slots = d.e.slots
	d.step(func(r *batch) { d.e.serveQueue(r) })
	d.m.offer()
	d.same(t, result{}, modelAnswer{})
}

func TestTheRulesAgreeWithTheModel(t *testing.T) { rapid.Check(t, ruleScript(t)) }

// ruleScript returns a function that runs one script on the rules, without keeper and store.
func ruleScript(t *testing.T) func(*rapid.T) {
	return func(rt *rapid.T) {
		d := &duel{bench: newBench(t, someDeclared.Draw(rt, "slots")...)}
		d.longest = rapid.SampledFrom([]time.Duration{0, 0, time.Minute, time.Hour}).Draw(rt, "longest")
		d.m = rulebook{now: d.now, slots: d.e.slots, longest: d.longest}
		rt.Repeat(map[string]func(*rapid.T){
			"":        d.check,
			"post":    d.postStep,
			"post 2":  d.postStep,
			"put":     d.putStep,
			"delete":  d.deleteStep,
			"pause":   d.pauseStep,
			"pass":    d.passStep,
			"go away": d.goAwayStep,
			"declare": d.declareStep,
			"take":    d.takeOverStep,
			"hand":    d.handOverStep,
		})
	}
}
