package main

// The longest hold: a lease ends when it has lasted for so long, whatever is renewed.

import "time"

// maxHoldOf returns the longest hold of a lease for which a request asks for one and the
// server allows another, which is the shorter of two times; zero is no limit.
func maxHoldOf(asked, allowed time.Duration) time.Duration {
	if asked == 0 || allowed != 0 && allowed < asked {
		return allowed
	}
	return asked
}

// lasts returns how long the lease lasts from its grant, unless it is renewed; zero: until it
// is released.
func (l *lease) lasts() time.Duration { return maxHoldOf(l.ttl, l.longest) }

// limitAfterStart sets the limit after a start of the server: to what is left of the longest
// hold by the wall clock, never more than all of it. The full ttl that a start gives stands
// (invariant 4); only a lease without a ttl gets its deadline here.
func (l *lease) limitAfterStart(now time.Time) {
	if l.longest == 0 {
		return
	}
	held := now.Sub(l.since)
	l.since = now.Add(-held) // from here on by the monotonic clock, as the limit
	rest := l.longest - held
	l.limit = now.Add(max(0, min(rest, l.longest)))
	if l.ttl == 0 {
		l.deadline = l.limit
	}
}

// limited returns the earlier of a deadline and the limit. Either may be zero, for none.
func (l *lease) limited(deadline time.Time) time.Time {
	if deadline.IsZero() || !l.limit.IsZero() && l.limit.Before(deadline) {
		return l.limit
	}
	return deadline
}
