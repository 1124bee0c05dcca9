package main

// What an environment is: its slots, its leases and its queue, and the changes that the
// rules make to them. Every change has its old value with it, so that it can be stored,
// published and undone. The rules themselves are in lock.go.

import (
	"cmp"
	"slices"
	"sync/atomic"
	"time"
)

// A request is what a caller asks for, and the caller's holder name. Two calls with the
// same id must be equal in all fields.
type request struct {
	id       string // known only to the client that made it; empty if none
	holder   string
	url      string
	reason   string
	ttl      time.Duration // zero: until released
	slot     string        // the slot that it must be, of one environment; empty: any
	priority int           // from -100 to 100, see newWaiter
	maxHold  time.Duration // how long it may have a slot, whatever is renewed; zero: no limit
	keyHold  time.Duration // the same, as the key allowed when the request was new
	needs    []need        // of a request for several slots: one for each, in their order

	supersede string // the key by which newer requests end older ones; empty if none
	first     uint64 // with a key: the number of its first waiter, see setFirst; zero if it has none yet

	origin            // who made it
	limits *keyLimits // of a request that is new, see admitted; nil: none
}

// A need is one of the slots that a request for several asks for.
type need struct {
	environment string
	slot        string // the slot that it must be; empty: any
}

// equal reports whether two requests have the same terms. first, the origin, and what its key
// allows are none: they count only when the id is first seen.
func (q request) equal(p request) bool {
	return q.id == p.id && q.holder == p.holder && q.url == p.url && q.reason == p.reason && q.ttl == p.ttl &&
		q.slot == p.slot && q.priority == p.priority && q.maxHold == p.maxHold &&
		q.supersede == p.supersede &&
		slices.Equal(q.needs, p.needs)
}

// setFirst sets first of a request with a key when it gets its number: to that number, unless
// the client began with an earlier one.
func (q *request) setFirst(number uint64) {
	if q.supersede != "" && (q.first == 0 || q.first > number) {
		q.first = number
	}
}

// slotsIn returns the slots that the request needs in an environment, those that it must
// have first: a name for each of these, and an empty text for each that may be any.
func (q request) slotsIn(environment string) []string {
	if q.needs == nil {
		return []string{q.slot}
	}
	var slots []string
	for _, n := range slices.Backward(q.needs) {
		if n.environment == environment {
			slots = append(slots, n.slot)
		}
	}
	return slots
}

// countIn returns how many slots the request needs in an environment.
func (q request) countIn(environment string) int {
	if q.needs == nil {
		return 1
	}
	count := 0
	for _, n := range q.needs {
		if n.environment == environment {
			count++
		}
	}
	return count
}

// environments returns the names of the environments that the request needs; of one for a
// single slot that is the name given.
func (q request) environments(name string) []string {
	if q.needs == nil {
		return []string{name}
	}
	var names []string
	for _, n := range q.needs {
		if len(names) == 0 || names[len(names)-1] != n.environment {
			names = append(names, n.environment)
		}
	}
	return names
}

// A lease is a slot that a holder has. It is never changed once it is stored, except for
// claim, confirmed, kept and deadline, which are in memory only.
type lease struct {
	request
	environment string
	slot        string        // that it has; request.slot is what was asked for
	fence       uint64        // larger than that of any lease before it (invariant 5)
	since       time.Time     // when it was granted, by the wall clock
	waited      time.Duration // from entering the queue until the grant
	ttl         time.Duration // as last renewed, zero: until released; request.ttl is what was asked for
	longest     time.Duration // how long it lasts at most, whatever is renewed; zero: no limit

	claim     time.Duration // until the first renewal the lease ends after this time; zero if none
	confirmed bool          // it was renewed at least once since the grant
	kept      bool          // it was renewed by its id after that, as run does all the time
	deadline  time.Time     // by the monotonic clock; zero: until released
	limit     time.Time     // no renewal makes the deadline later; zero if longest is
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
	l.deadline = l.limited(l.deadline)
}

// renew gives the lease its full ttl, counted from at, the arrival of the renewal. Apart
// from the end of a claim, it never makes the deadline earlier (invariant 4). byID is true
// if the renewal has the id of the request.
func (l *lease) renew(at time.Time, byID bool) {
	wasClaim := l.claim > 0 && !l.confirmed
	if byID && l.confirmed {
		l.kept = true
	}
	l.confirmed = true
	switch end := l.limited(at.Add(l.ttl)); {
	case l.ttl == 0:
		l.deadline = l.limit
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
	number uint64    // what it is called by, never used again
	place  uint64    // the turn of the waiter whose place it took; zero if it took none
	rank   int64     // its order in the queue, in nanoseconds since 1970; see newWaiter
	since  time.Time // when it entered the queue, or the one whose place it took; by the wall clock

	claim          time.Duration // of the newest call, for the lease; see lease.claim
	connected      atomic.Bool   // a call of this request waits; readers load it while it changes
	disconnectedAt time.Time     // if not connected: since when, by the monotonic clock
}

// isStored reports whether the waiter is stored. One without an id is not: it ends with
// its connection.
func (w *waiter) isStored() bool { return w.id != "" }

// An environment is a named thing that tests run against: its slots, the leases on them
// and the queue. One that is idle need not exist.
type environment struct {
	name        string
	slots       []string             // as declared, nil if undeclared; leases may have slots that are not
	leases      []*lease             // in the order of their fences
	pauses      []*pause             // of itself and of its slots, see pauseOf
	queue       []*waiter            // in the order of their ranks and numbers
	waitersByID map[string]*waiter   // the waiters of the queue that have an id; nil until there is one
	slotQueues  map[string][]*waiter // the waiters for each slot, in the same order; those for any under ""
	lastEnds    map[string]uint64    // of each of several slots: the event that ended its last lease

	expiryDue   time.Time // when the keeper must call expire; zero if the expiry queue does not have it
	expiryIndex int       // its index in the keeper's expiry queue
}

// newEnvironment returns an environment without leases and queue. slots is kept; it is nil
// if the environment is undeclared.
func newEnvironment(name string, slots []string) *environment {
	return &environment{name: name, slots: slots}
}

// isIdle reports whether the environment has neither leases, nor a queue, nor a pause.
func (e *environment) isIdle() bool {
	return len(e.leases) == 0 && len(e.queue) == 0 && len(e.pauses) == 0
}

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
	i, found := slices.BinarySearchFunc(e.queue, w, byRank)
	if !found {
		return 0
	}
	return i + 1
}

// A batch is what the rules are given, and the changes that they have made so far. The
// changes of a batch are stored together, or undone together.
type batch struct {
	now         time.Time
	next        func() uint64                  // returns a larger number at each call
	environment func(name string) *environment // returns any environment; it has no slots if it is undeclared
	queues      func() []*environment          // returns the environments that have a queue
	longestHold time.Duration                  // of each lease that is granted; zero: no limit
	places      placeCounts
	latestEntry *int64 // when the last waiter entered a queue, see newWaiter
	history     *history
	changes     []change
	handovers   []handover
	touched     []*environment // those that are changed, perhaps more than once
	ends        []int          // of the steps, see endStep
}

// A handover is a grant to a waiter.
type handover struct {
	waiter *waiter
	leases []*lease // one for each slot that it needs
}

// A change replaces a lease, a waiter or a pause of an environment, or adds an event. Exactly one
// kind of value is set. The old value is nil if one is added, the new one if one is
// removed. environment is nil for an event.
type change struct {
	environment          *environment
	oldLease, newLease   *lease
	oldWaiter, newWaiter *waiter
	oldPause, newPause   *pause
	event                *event
	end                  uint64 // of one that is removed: the number of the event that ended it, if any
	by                   origin // of a lease with another ttl: who renewed it
}

// addLease adds a lease to an environment.
func (b *batch) addLease(e *environment, l *lease) {
	b.add(change{environment: e, newLease: l})
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

// endStep notes that the changes so far need none of those that follow: a store that cannot
// save a large batch at once may save it up to here first. A grant with all its leases, and a
// request that takes the place of another, are one step.
func (b *batch) endStep() { b.ends = append(b.ends, len(b.changes)) }

// add applies a change at once, and keeps it for the store and for undo.
func (b *batch) add(c change) {
	if c.event != nil {
		b.history.append(c.event)
	} else {
		c.environment.apply(c)
		b.places.add(c)
		b.touched = append(b.touched, c.environment)
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
			b.places.add(c.reverse())
		}
	}
	b.changes, b.handovers, b.ends = nil, nil, nil
}

// reverse returns the change that undoes c, which is not that of an event.
func (c change) reverse() change {
	return change{environment: c.environment, oldLease: c.newLease, newLease: c.oldLease,
		oldWaiter: c.newWaiter, newWaiter: c.oldWaiter, oldPause: c.newPause, newPause: c.oldPause}
}

// apply makes a change of a lease, a waiter or a pause, and checks no rule. The keeper applies each
// change twice: to the current state, and once it is committed to the published one.
func (e *environment) apply(c change) {
	if c.oldLease != nil || c.newLease != nil {
		e.leases = replaceInOrder(e.leases, c.oldLease, c.newLease, byFence)
		if c.end != 0 && len(e.slots) > 1 {
			e.noteEnd(c.oldLease.slot, c.end)
		}
		return
	}
	if c.oldPause != nil || c.newPause != nil {
		e.pauses = replaceInOrder(e.pauses, c.oldPause, c.newPause, bySlot)
		return
	}
	e.queue = replaceInOrder(e.queue, c.oldWaiter, c.newWaiter, byRank)
	if w := c.oldWaiter; w != nil {
		delete(e.waitersByID, w.id)
		e.changeSlotQueues(w, func(list []*waiter) []*waiter { return replaceInOrder(list, w, nil, byRank) })
	}
	if w := c.newWaiter; w != nil {
		e.changeSlotQueues(w, func(list []*waiter) []*waiter { return replaceInOrder(list, nil, w, byRank) })
		if w.isStored() {
			if e.waitersByID == nil {
				e.waitersByID = map[string]*waiter{}
			}
			e.waitersByID[w.id] = w
		}
	}
}

// changeSlotQueues changes the queue of each slot that the waiter needs in the environment.
func (e *environment) changeSlotQueues(w *waiter, change func([]*waiter) []*waiter) {
	if e.slotQueues == nil {
		e.slotQueues = map[string][]*waiter{}
	}
	slots := w.slotsIn(e.name)
	for i, s := range slots {
		if i > 0 && s == slots[i-1] { // several of any
			continue
		}
		list := change(e.slotQueues[s])
		if len(list) == 0 {
			delete(e.slotQueues, s)
		} else {
			e.slotQueues[s] = list
		}
	}
}

// noteEnd notes the event that ended the last lease of a slot, see freeSlots.
func (e *environment) noteEnd(slot string, number uint64) {
	if e.lastEnds == nil {
		e.lastEnds = map[string]uint64{}
	}
	e.lastEnds[slot] = number
}

// byFence is the order of leases.
func byFence(a, b *lease) int { return cmp.Compare(a.fence, b.fence) }

// byRank is the order of waiters: by rank, and by turn where the ranks are equal.
func byRank(a, b *waiter) int {
	return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.turn(), b.turn()))
}

// replaceInOrder removes old from a list that is in order, inserts new where it belongs,
// and returns the list. Either may be nil; an old one that is not in the list is ignored.
// It changes the list that it is given.
func replaceInOrder[T any](list []*T, old, new *T, order func(a, b *T) int) []*T {
	if old != nil {
		i, found := slices.BinarySearchFunc(list, old, order)
		switch {
		case found && i == 0: // the head of a long queue is removed without moving the rest
			list[0] = nil
			list = list[1:]
		case found:
			list = slices.Delete(list, i, i+1)
		}
	}
	if new != nil {
		i, _ := slices.BinarySearchFunc(list, new, order)
		list = slices.Insert(list, i, new)
	}
	return list
}
