package main

// Who makes a request, and what its key allows: how long, how soon, and how many slots at once.
// Each of them binds what is new. What was granted or waits stays as it is, whatever becomes of
// the limits.

import (
	"fmt"
	"time"
)

// An origin is who makes a call. It is recorded, and is no term of a request: a call with the
// same id from elsewhere is the same request.
type origin struct {
	key      string // the name of the key; empty if it has none
	verified string // the beginning of the holder that the caller has proved; empty for a key
	from     string // the address
}

// endedBy returns the origin of a request for the event of its end: with the address of the call
// that has ended it.
func (o origin) endedBy(by origin) origin {
	o.from = by.from
	return o
}

// keyLimits are what a key allows its requests. A zero is no limit, but for priority.
type keyLimits struct {
	ttl      time.Duration // the longest
	hold     time.Duration // the longest
	places   int           // slots that all requests with the name of the key have and wait for
	priority int           // the highest; zero or more
}

// A limitError is what a key does not allow. It is errForbidden.
type limitError struct {
	key    string // its name
	limit  string // max-ttl, max-hold, max-places or max-priority
	length time.Duration
	number int // instead of length
}

// Error names the key and the limit.
func (e limitError) Error() string {
	if e.length > 0 {
		return fmt.Sprintf("the key %q allows %s=%s", e.key, e.limit, e.length)
	}
	return fmt.Sprintf("the key %q allows %s=%d", e.key, e.limit, e.number)
}

// Is reports that the error is errForbidden.
func (limitError) Is(target error) bool { return target == errForbidden }

// checkTTL returns a limitError if a ttl is longer than is allowed; one without end is. A nil
// receiver allows any.
func (l *keyLimits) checkTTL(key string, ttl time.Duration) error {
	if l != nil && l.ttl > 0 && (ttl == 0 || ttl > l.ttl) {
		return limitError{key: key, limit: "max-ttl", length: l.ttl}
	}
	return nil
}

// check returns a limitError if a new request asks for more than its key allows, but for the
// number of places.
func (l *keyLimits) check(q request) error {
	if err := l.checkTTL(q.key, q.ttl); err != nil {
		return err
	}
	switch {
	case l == nil:
	case l.hold > 0 && q.maxHold > l.hold:
		return limitError{key: q.key, limit: "max-hold", length: l.hold}
	case q.priority > l.priority:
		return limitError{key: q.key, limit: "max-priority", number: l.priority}
	}
	return nil
}

// admitted returns a new request as the rules keep it: with the longest hold that the key
// allows now, and without the limits.
func (q request) admitted() request {
	if q.limits != nil {
		q.keyHold = q.limits.hold
	}
	q.limits = nil
	return q
}

// checkPlaces returns a limitError if a new request with the name of the key would be more than
// the limits allow, of which freed are given up for it.
func (b *batch) checkPlaces(l *keyLimits, q request, freed int) error {
	if l == nil || l.places == 0 {
		return nil
	}
	if b.places[q.key]-freed+max(1, len(q.needs)) > l.places {
		return limitError{key: q.key, limit: "max-places", number: l.places}
	}
	return nil
}

// checkTake returns a limitError if a new request may not take over a lease.
func (b *batch) checkTake(q request, taken *lease) error {
	if err := q.limits.check(q); err != nil {
		return err
	}
	freed := 0
	if taken.key == q.key {
		freed = 1
	}
	return b.checkPlaces(q.limits, q, freed)
}

// placeCounts has how many slots the requests with the name of each key have and wait for, of
// all environments. Names that have none are not in it.
type placeCounts map[string]int

// add counts a change. A waiter counts once for each slot that it needs.
func (p placeCounts) add(c change) {
	if c.oldLease != nil {
		p.count(c.oldLease.key, -1)
	}
	if c.newLease != nil {
		p.count(c.newLease.key, 1)
	}
	if c.oldWaiter != nil {
		p.count(c.oldWaiter.key, -c.oldWaiter.countIn(c.environment.name))
	}
	if c.newWaiter != nil {
		p.count(c.newWaiter.key, c.newWaiter.countIn(c.environment.name))
	}
}

// count adds n to the count of a name, unless that is empty.
func (p placeCounts) count(key string, n int) {
	if key == "" {
		return
	}
	p[key] += n
	if p[key] == 0 {
		delete(p, key)
	}
}

// isOf reports whether a caller with the name of a key may touch a lease that it does not name
// by its id: that was taken with a key of the same name, or with one that has none. An empty
// name may touch every lease.
func (l *lease) isOf(key string) bool { return key == "" || l.key == "" || l.key == key }

// ofAnyKey returns the selector without the name of a key.
func (s selector) ofAnyKey() selector {
	s.key = ""
	return s
}

// isOfOthers reports whether the selector matches no lease of the environment only because they
// were taken with other keys.
func (e *environment) isOfOthers(s selector) bool {
	return len(e.matchingLeases(s)) == 0 && len(e.matchingLeases(s.ofAnyKey())) > 0
}

// restOfHold returns how much is left of the longest hold that the key of a lease allows; zero
// if there is no limit.
func (l *lease) restOfHold(now time.Time) time.Duration {
	if l.keyHold == 0 {
		return 0
	}
	return max(1, l.keyHold-max(0, now.Sub(l.since)))
}
