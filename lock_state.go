package main

// What an environment is: its slots, leases and queue, and the changes that
// lock.go makes to them. Every change has its old value with it, so that it
// can be stored, shown, or taken back.

import (
	"cmp"
	"slices"
	"time"
)

// A request is what somebody asked for, and who they are. Two calls with the
// same id must be equal in all of it.
type request struct {
	id     string // known to its maker alone; empty: none was given
	holder string
	url    string
	reason string
	ttl    time.Duration // 0: until released
}

// A lease is a slot in someone's hands. It is never changed once it is
// stored, but for the last three fields, which live in memory only.
type lease struct {
	request
	slot   string
	fence  uint64        // larger than that of any lease before it
	since  time.Time     // when it was granted, by the wall clock
	waited time.Duration // from entering the queue until the grant
	ttl    time.Duration // as last renewed; request.ttl is what was asked

	claim     time.Duration // until the first renewal the lease ends after this time; 0: no such condition
	confirmed bool          // renewed at least once since the grant
	deadline  time.Time     // by the monotonic clock; zero: until released
}

// start begins the lease's time at now: after its grant has been stored,
// after its ttl has changed, after a restart of the server.
func (l *lease) start(now time.Time) {
	l.deadline = time.Time{}
	if l.ttl > 0 {
		l.deadline = now.Add(l.ttl)
	}
	if l.claim > 0 && !l.confirmed && (l.ttl == 0 || l.claim < l.ttl) {
		l.deadline = now.Add(l.claim)
	}
}

// renew gives the lease its full ttl from at, when the renewal arrived. It
// never takes away time that the holder was already promised.
func (l *lease) renew(at time.Time) {
	wasClaim := l.claim > 0 && !l.confirmed
	l.confirmed = true
	switch end := at.Add(l.ttl); {
	case l.ttl == 0:
		l.deadline = time.Time{}
	case wasClaim || end.After(l.deadline):
		l.deadline = end
	}
}

// over reports whether the lease's time has passed.
func (l *lease) isOver(now time.Time) bool {
	return !l.deadline.IsZero() && !now.Before(l.deadline)
}

// A place is a waiting request. It is never changed once it is stored, but
// for the last three fields, which live in memory only.
type waiter struct {
	request
	number uint64    // its order in the queue
	since  time.Time // when it entered the queue, by the wall clock

	claim          time.Duration // of the newest call
	connected      bool          // somebody is connected and waits
	disconnectedAt time.Time     // since when not, by the monotonic clock
}

// kept reports whether the place is stored: one without an id ends with its
// connection and never is.
func (p *waiter) isStored() bool { return p.id != "" }

// An environment is a named thing that tests run against: its slots, the
// leases on them and the line. One without leases and queue need not exist.
type environment struct {
	name        string
	slots       []string           // as declared; leases may stand on others, when the declaration has changed since
	leases      []*lease           // in the order of their fences
	queue       []*waiter          // in the order of their numbers
	waitersByID map[string]*waiter // the places of the queue that have an id

	expiryDue   time.Time // when the keeper looks at it next; zero: no such time
	expiryIndex int       // in the keeper's agenda
}

func newEnvironment(name string, slots []string) *environment {
	return &environment{name: name, slots: slots}
}

// idle reports that nothing is left to remember.
func (e *environment) isIdle() bool { return len(e.leases) == 0 && len(e.queue) == 0 }

// free counts the slots that nobody has: the declared ones less the live
// leases, whatever slots those stand on.
func (e *environment) freeSlots() int { return max(0, len(e.slots)-len(e.leases)) }

// open reports whether a caller who does not wait would be granted a slot:
// one is free and nobody is in the queue for it.
func (e *environment) isOpen() bool { return e.freeSlots() > 0 && len(e.queue) == 0 }

// leaseOf returns the lease that the request id owns, or nil.
func (e *environment) leaseByID(id string) *lease {
	for _, l := range e.leases {
		if id != "" && l.id == id {
			return l
		}
	}
	return nil
}

// position returns how many are served before the place, plus one; 0 when it
// is not in the queue.
func (e *environment) position(p *waiter) int {
	i, found := slices.BinarySearchFunc(e.queue, p.number, func(q *waiter, n uint64) int { return cmp.Compare(q.number, n) })
	if !found {
		return 0
	}
	return i + 1
}

// A round is a group of changes that are stored together: what the rules are
// given, and what they have changed so far.
type batch struct {
	now       time.Time
	next      func() uint64 // one counter for fences, places and events
	history   *history
	changes   []change
	handovers []handover
}

// A handover is a grant to a place in the queue.
type handover struct {
	waiter *waiter
	lease  *lease
}

// A change replaces one value of an environment by another; nil: there is
// none. Exactly one kind of value is set.
type change struct {
	environment          *environment
	oldLease, newLease   *lease
	oldWaiter, newWaiter *waiter
	event                *event
}

func (r *batch) setLease(e *environment, old, new *lease) {
	r.add(change{environment: e, oldLease: old, newLease: new})
}

func (r *batch) setWaiter(e *environment, old, new *waiter) {
	r.add(change{environment: e, oldWaiter: old, newWaiter: new})
}

// event appends to the history, under the next number.
func (r *batch) addEvent(ev *event) {
	ev.number, ev.at = r.next(), r.now
	r.add(change{event: ev})
}

func (r *batch) add(c change) {
	if c.event != nil {
		r.history.append(c.event)
	} else {
		c.environment.apply(c)
	}
	r.changes = append(r.changes, c)
}

// undo takes every change of the round back, the last one first.
func (r *batch) undo() {
	for _, c := range slices.Backward(r.changes) {
		if c.event != nil {
			r.history.undo(c.event)
		} else {
			c.environment.apply(c.reverse())
		}
	}
	r.changes, r.handovers = nil, nil
}

func (c change) reverse() change {
	return change{environment: c.environment, oldLease: c.newLease, newLease: c.oldLease, oldWaiter: c.newWaiter, newWaiter: c.oldWaiter}
}

// apply makes a change of a lease or a place; it knows no rule.
func (e *environment) apply(c change) {
	if c.oldLease != nil || c.newLease != nil {
		e.leases = replaceInOrder(e.leases, c.oldLease, c.newLease, func(l *lease) uint64 { return l.fence })
		return
	}
	e.queue = replaceInOrder(e.queue, c.oldWaiter, c.newWaiter, func(p *waiter) uint64 { return p.number })
	if p := c.oldWaiter; p != nil {
		delete(e.waitersByID, p.id)
	}
	if p := c.newWaiter; p != nil && p.isStored() {
		if e.waitersByID == nil {
			e.waitersByID = map[string]*waiter{}
		}
		e.waitersByID[p.id] = p
	}
}

// swap takes old out of a list that is in the order of number, and puts new
// where it belongs; either may be nil.
func replaceInOrder[T any](list []*T, old, new *T, number func(*T) uint64) []*T {
	search := func(x *T) (int, bool) {
		return slices.BinarySearchFunc(list, number(x), func(y *T, n uint64) int { return cmp.Compare(number(y), n) })
	}
	if old != nil {
		i, found := search(old)
		switch {
		case found && i == 0: // the head of a long line leaves without moving the rest
			list[0] = nil
			list = list[1:]
		case found:
			list = slices.Delete(list, i, i+1)
		}
	}
	if new != nil {
		i, _ := search(new)
		list = slices.Insert(list, i, new)
	}
	return list
}
