package main

// What an environment is: its slots, its leases and its queue, and the changes that the
// rules make to them. Every change has its old value with it, so that it can be stored,
// published and undone. The rules themselves are in lock.go.

import (
	"cmp"
	"slices"
	"time"
)

// A request is what a caller asks for, and the caller's holder name. Two calls with the
// same id must be equal in all fields.
type request struct {
	id     string // known only to the client that made it; empty if none
	holder string
	url    string
	reason string
	ttl    time.Duration // zero: until released
}

// A lease is a slot that a holder has. It is never changed once it is stored, except for
// claim, confirmed and deadline, which are in memory only.
type lease struct {
	request
	slot   string
	fence  uint64        // larger than that of any lease before it (invariant 5)
	since  time.Time     // when it was granted, by the wall clock
	waited time.Duration // from entering the queue until the grant
	ttl    time.Duration // as last renewed, zero: until released; request.ttl is what was asked for

	claim     time.Duration // until the first renewal the lease ends after this time; zero if none
	confirmed bool          // it was renewed at least once since the grant
	deadline  time.Time     // by the monotonic clock; zero: until released
}

// start sets the deadline for a ttl, or a claim that is shorter, that begins at now. It is
// called for a grant and for a new ttl, again when these have been stored, and after a
// start of the server.
func (l *lease) start(now time.Time) {
	l.deadline = time.Time{}
	if l.ttl > 0 {
		l.deadline = now.Add(l.ttl)
	}
	if l.claim > 0 && !l.confirmed && (l.ttl == 0 || l.claim < l.ttl) {
		l.deadline = now.Add(l.claim)
	}
}

// renew gives the lease its full ttl, counted from at, the arrival of the renewal. Apart
// from the end of a claim, it never makes the deadline earlier (invariant 4).
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

// isOver reports whether the lease's deadline has passed. It is false for a lease that
// lasts until released.
func (l *lease) isOver(now time.Time) bool {
	return !l.deadline.IsZero() && !now.Before(l.deadline)
}

// A waiter is a request in the queue. It is never changed once it is stored, except for
// claim, connected and disconnectedAt, which are in memory only.
type waiter struct {
	request
	number uint64    // its order in the queue
	since  time.Time // when it entered the queue, by the wall clock

	claim          time.Duration // of the newest call, for the lease; see lease.claim
	connected      bool          // a call of this request waits
	disconnectedAt time.Time     // if not connected: since when, by the monotonic clock
}

// isStored reports whether the waiter is stored. One without an id is not: it ends with
// its connection.
func (w *waiter) isStored() bool { return w.id != "" }

// An environment is a named thing that tests run against: its slots, the leases on them
// and the queue. One without leases and queue need not exist.
type environment struct {
	name        string
	slots       []string           // as declared, nil if undeclared; leases may have slots that are not
	leases      []*lease           // in the order of their fences
	queue       []*waiter          // in the order of their numbers
	waitersByID map[string]*waiter // the waiters of the queue that have an id; nil until there is one

	expiryDue   time.Time // when the keeper must call expire; zero if the expiry queue does not have it
	expiryIndex int       // its index in the keeper's expiry queue
}

// newEnvironment returns an environment without leases and queue. slots is kept; it is nil
// if the environment is undeclared.
func newEnvironment(name string, slots []string) *environment {
	return &environment{name: name, slots: slots}
}

// isIdle reports whether the environment has neither leases nor a queue.
func (e *environment) isIdle() bool { return len(e.leases) == 0 && len(e.queue) == 0 }

// freeSlots returns the number of declared slots less the number of live leases, whatever
// slots the leases have; zero if there are more leases than slots.
func (e *environment) freeSlots() int { return max(0, len(e.slots)-len(e.leases)) }

// isOpen reports whether a caller that does not wait is granted a slot: one is free, and
// the queue is empty (invariant 3).
func (e *environment) isOpen() bool { return e.freeSlots() > 0 && len(e.queue) == 0 }

// leaseByID returns the lease that the request id owns; nil if there is none, or if the
// id is empty.
func (e *environment) leaseByID(id string) *lease {
	for _, l := range e.leases {
		if id != "" && l.id == id {
			return l
		}
	}
	return nil
}

// position returns the waiter's position in the queue, counted from one; zero if it is
// not in the queue.
func (e *environment) position(w *waiter) int {
	byNumber := func(x *waiter, n uint64) int { return cmp.Compare(x.number, n) }
	i, found := slices.BinarySearchFunc(e.queue, w.number, byNumber)
	if !found {
		return 0
	}
	return i + 1
}

// A batch is what the rules are given, and the changes that they have made so far. The
// changes of a batch are stored together, or undone together.
type batch struct {
	now       time.Time
	next      func() uint64 // returns a larger number at each call: for fences, waiters and events
	history   *history
	changes   []change
	handovers []handover
}

// A handover is a grant to a waiter.
type handover struct {
	waiter *waiter
	lease  *lease
}

// A change replaces a lease or a waiter of an environment, or adds an event. Exactly one
// kind of value is set. The old value is nil if one is added, the new one if one is
// removed. environment is nil for an event.
type change struct {
	environment          *environment
	oldLease, newLease   *lease
	oldWaiter, newWaiter *waiter
	event                *event
}

// setLease replaces old by new; either may be nil.
func (b *batch) setLease(e *environment, old, new *lease) {
	b.add(change{environment: e, oldLease: old, newLease: new})
}

// setWaiter replaces old by new; either may be nil.
func (b *batch) setWaiter(e *environment, old, new *waiter) {
	b.add(change{environment: e, oldWaiter: old, newWaiter: new})
}

// addEvent gives the event the next number and the time of the batch, and appends it to
// the history.
func (b *batch) addEvent(ev *event) {
	ev.number, ev.at = b.next(), b.now
	b.add(change{event: ev})
}

// add applies a change at once, and keeps it for the store and for undo.
func (b *batch) add(c change) {
	if c.event != nil {
		b.history.append(c.event)
	} else {
		c.environment.apply(c)
	}
	b.changes = append(b.changes, c)
}

// undo reverses every change of the batch, the last one first. Fields that are in memory
// only are not restored; numbers are never used again (invariant 5).
func (b *batch) undo() {
	for _, c := range slices.Backward(b.changes) {
		if c.event != nil {
			b.history.undo(c.event)
		} else {
			c.environment.apply(c.reverse())
		}
	}
	b.changes, b.handovers = nil, nil
}

// reverse returns the change that undoes c, which is not that of an event.
func (c change) reverse() change {
	return change{environment: c.environment, oldLease: c.newLease, newLease: c.oldLease,
		oldWaiter: c.newWaiter, newWaiter: c.oldWaiter}
}

// apply makes a change of a lease or a waiter, and checks no rule. The keeper applies each
// change twice: to the current state, and once it is committed to the published one.
func (e *environment) apply(c change) {
	if c.oldLease != nil || c.newLease != nil {
		e.leases = replaceInOrder(e.leases, c.oldLease, c.newLease, func(l *lease) uint64 { return l.fence })
		return
	}
	e.queue = replaceInOrder(e.queue, c.oldWaiter, c.newWaiter, func(w *waiter) uint64 { return w.number })
	if w := c.oldWaiter; w != nil {
		delete(e.waitersByID, w.id)
	}
	if w := c.newWaiter; w != nil && w.isStored() {
		if e.waitersByID == nil {
			e.waitersByID = map[string]*waiter{}
		}
		e.waitersByID[w.id] = w
	}
}

// replaceInOrder removes old from a list that is in the order of its numbers, inserts new
// where its number belongs, and returns the list. Either may be nil; an old one that is
// not in the list is ignored. It changes the list that it is given.
func replaceInOrder[T any](list []*T, old, new *T, number func(*T) uint64) []*T {
	search := func(x *T) (int, bool) {
		byNumber := func(y *T, n uint64) int { return cmp.Compare(number(y), n) }
		return slices.BinarySearchFunc(list, number(x), byNumber)
	}
	if old != nil {
		i, found := search(old)
		switch {
		case found && i == 0: // the head of a long queue is removed without moving the rest
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
