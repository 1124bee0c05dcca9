package main

// What a renewal does, and how the leases are found that it and a hand-over are about.

import "time"

// A renewal extends the lease that its selector matches.
type renewal struct {
	selector
	ttl    time.Duration // the new ttl, if hasTTL; zero: until released
	hasTTL bool          // false: the lease keeps its ttl
	at     time.Time     // when the renewal arrived, by the monotonic clock

	by     origin     // who renews
	limits *keyLimits // of another ttl; nil: none
}

// renew gives the lease its full ttl, counted from the arrival of the renewal. With an id, it
// renews every lease of the id in the environment. A renewal that changes the ttl is a
// change that must be stored; one that does not changes memory only, and cannot be undone.
//
// others are further environments in which the leases of the id are renewed too.
//
// The error is errNotHeld if no lease matches in one of the environments, errSeveral if
// several do, and a limitError if the caller's key does not allow the ttl that it changes one to;
// then none is renewed. A renewal grants nothing, so a late one is harmless.
func (e *environment) renew(b *batch, q renewal, others ...string) result {
	r := e.findHeld(b, q.selector, others)
	if r.err != nil {
		return r
	}
	found := r.own
	for _, l := range found {
		if q.hasTTL && q.ttl != l.ttl {
			if err := q.limits.checkTTL(q.by.key, q.ttl); err != nil {
				return result{err: err}
			}
		}
	}
	for i, l := range found {
		if !q.hasTTL || q.ttl == l.ttl {
			l.renew(q.at, q.id != "")
			continue
		}
		b.endStep()
		changed := *l
		changed.ttl, changed.confirmed = q.ttl, true
		changed.start(q.at)
		b.add(change{environment: b.environment(l.environment), oldLease: l, newLease: &changed, by: q.by})
		found[i] = &changed
	}
	return result{own: found}
}

// findHeld returns, as own, the leases of the environment and of others that the selector
// matches: one of each, or with an id all. The error is errNotHeld if none matches in one of
// them, errOtherKey if none does because of the key, and errSeveral if several do.
func (e *environment) findHeld(b *batch, s selector, others []string) result {
	var found []*lease
	for _, name := range append([]string{e.name}, others...) {
		matching := b.environment(name).matchingLeases(s)
		switch {
		case b.environment(name).isOfOthers(s):
			return result{err: errOtherKey}
		case len(matching) == 0:
			end := b.history.endOfLease(name, s, b.now)
			return result{err: errNotHeld, ended: end, lost: name}
		case len(matching) > 1 && s.id == "":
			return result{err: errSeveral, own: matching}
		}
		found = append(found, matching...)
	}
	return result{own: found}
}
