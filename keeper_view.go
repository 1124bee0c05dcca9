package main

// What readers see: copies of the published state, the history, and notifications of
// changes (invariant 2). Readers never wait for the store, and may be any goroutine.

import (
	"slices"
	"strings"
	"time"
)

// A view is a copy of the published state of an environment. It has the request ids, which
// its caller must not show: an id is the proof that a caller owns a lease.
type view struct {
	name   string
	slots  []string // as declared, nil if undeclared; not a copy, and never changed
	leases []lease
	queue  []waiter
}

// isOpen reports whether a request without wait would be granted a slot now. The error is
// errUndeclared if the environment is undeclared and has neither leases nor a queue.
func (k *keeper) isOpen(name string) (bool, error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if e := k.published[name]; e != nil && (e.slots != nil || !e.isIdle()) {
		return e.isOpen(), nil
	}
	if k.slots(name) == nil {
		return false, errUndeclared
	}
	return true, nil
}

// view returns the view of one environment. The error is errUndeclared if the environment
// is undeclared and has neither leases nor a queue.
func (k *keeper) view(name string) (view, error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if e := k.published[name]; e != nil {
		return viewOf(e), nil
	}
	slots := k.slots(name)
	if slots == nil {
		return view{}, errUndeclared
	}
	return view{name: name, slots: slots}, nil
}

// views returns the views of the declared environments, and of all others that have a lease
// or a queue, in the order of their names.
func (k *keeper) views(declared []string) []view {
	k.mu.RLock()
	defer k.mu.RUnlock()
	views := make([]view, 0, len(k.published)+len(declared))
	for _, e := range k.published {
		views = append(views, viewOf(e))
	}
	for _, name := range declared {
		if k.published[name] == nil {
			views = append(views, view{name: name, slots: k.slots(name)})
		}
	}
	slices.SortFunc(views, func(a, b view) int { return strings.Compare(a.name, b.name) })
	return views
}

// eachPublished calls f for every published environment that has a lease or a queue, in no order.
// The keeper waits for f: it must be quick, must not change the environment or call the
// keeper, and must not use the environment later.
func (k *keeper) eachPublished(f func(e *environment)) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	for _, e := range k.published {
		f(e)
	}
}

// viewOf returns the view of e. The caller holds mu.
func viewOf(e *environment) view {
	v := view{name: e.name, slots: e.slots, leases: copyLeases(e), queue: make([]waiter, len(e.queue))}
	for i, w := range e.queue {
		v.queue[i] = *w
	}
	return v
}

// copyLeases returns copies of the leases of e. The caller holds mu.
func copyLeases(e *environment) []lease {
	copies := make([]lease, len(e.leases))
	for i, l := range e.leases {
		copies[i] = *l
	}
	return copies
}

// An eventFilter selects events of the history.
type eventFilter struct {
	environment, holder string    // only events of these; empty: of all
	since               time.Time // only events of this time or later; zero: all
	before              uint64    // only events with smaller numbers; zero: all
	limit               int       // the number of events, at most
}

// events returns the published events that f selects, newest first, without those of kind
// eventClosed. more is true if the limit has left some out.
func (k *keeper) events(f eventFilter) (found []*event, more bool) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	for _, e := range slices.Backward(k.history.events) {
		switch {
		case e.at.Before(f.since):
			return found, false
		case e.kind == eventClosed, f.before != 0 && e.number >= f.before,
			f.environment != "" && e.environment != f.environment, f.holder != "" && e.holder != f.holder:
		case len(found) == f.limit:
			return found, true
		default:
			found = append(found, e)
		}
	}
	return found, false
}

// eventsAfter returns the published events with numbers larger than number, oldest first,
// without those of kind eventClosed. last is the largest number of them all, or number if
// no event has a larger one.
func (k *keeper) eventsAfter(number uint64) (found []*event, last uint64) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	all := k.history.events
	for len(all) > 0 && all[len(all)-1].number > number {
		all = all[:len(all)-1]
	}
	newer := k.history.events[len(all):]
	for _, e := range newer {
		if e.kind != eventClosed {
			found = append(found, e)
		}
	}
	if len(newer) > 0 {
		number = newer[len(newer)-1].number
	}
	return found, number
}

// eventsSince returns the published events of time t or later, oldest first, also those of
// kind eventClosed.
func (k *keeper) eventsSince(t time.Time) []*event {
	k.mu.RLock()
	defer k.mu.RUnlock()
	byTime := func(e *event, t time.Time) int { return e.at.Compare(t) }
	from, _ := slices.BinarySearchFunc(k.history.events, t, byTime)
	return slices.Clone(k.history.events[from:])
}

// listen returns a channel that gets a value after each batch with changes, and a function
// that ends this. A slow reader gets one value for several batches. The channel is never
// closed.
func (k *keeper) listen() (changed <-chan struct{}, stop func()) {
	c := make(chan struct{}, 1)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.listeners[c] = true
	return c, func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		delete(k.listeners, c)
	}
}

// snapshot returns the records of the published state, and a counter that is no smaller
// than any number in them or than the time in Unix milliseconds. It may be called from any
// goroutine: it copies leases and waiters while it holds mu, and encodes the copies
// afterwards. Events never change.
func (k *keeper) snapshot() (counter uint64, records []write) {
	type named[T any] struct {
		environment string
		of          T
	}
	var leases []named[lease]
	var waiters []named[waiter]
	k.mu.RLock()
	for name, e := range k.published {
		for _, l := range e.leases {
			leases = append(leases, named[lease]{name, *l})
		}
		for _, w := range e.queue {
			if w.isStored() {
				waiters = append(waiters, named[waiter]{name, *w})
			}
		}
	}
	events := slices.Clone(k.history.events)
	k.mu.RUnlock()
	for _, l := range leases {
		counter = max(counter, l.of.fence)
		records = append(records, encodeLease(l.environment, &l.of))
	}
	for _, w := range waiters {
		counter = max(counter, w.of.number)
		records = append(records, encodeWaiter(w.environment, &w.of))
	}
	for _, e := range events {
		counter = max(counter, e.number)
		records = append(records, encodeEvent(e))
	}
	return max(counter, uint64(time.Now().UnixMilli())), records
}
