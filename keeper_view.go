package main

// What anyone may read of the committed state. Readers never wait for the store.

import (
	"slices"
	"strings"
	"time"
)

// A view is what anyone may know of an environment: copies, as committed.
// Nothing in it is a proof of ownership.
type view struct {
	name   string
	slots  []string // declared
	leases []lease
	queue  []waiter
}

// open reports whether a POST without wait would be granted now; errUndeclared
// where there is no such environment.
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

// view returns one environment; errUndeclared where there is no such.
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

// views returns the declared environments and all that have a lease or a
// line, in the order of their names.
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

// each calls f for every environment that has a lease or a queue, as committed.
// f must be quick, and keep nothing.
func (k *keeper) each(f func(e *environment)) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	for _, e := range k.published {
		f(e)
	}
}

func viewOf(e *environment) view {
	v := view{name: e.name, slots: e.slots, leases: copyLeases(e), queue: make([]waiter, len(e.queue))}
	for i, w := range e.queue {
		v.queue[i] = *w
	}
	return v
}

func copyLeases(e *environment) []lease {
	copies := make([]lease, len(e.leases))
	for i, l := range e.leases {
		copies[i] = *l
	}
	return copies
}

// A lookBack says which events are asked for.
type eventFilter struct {
	environment, holder string    // empty: all
	since               time.Time // zero: from the beginning
	before              uint64    // numbers below this only; 0: all
	limit               int
}

// events returns what has happened, newest first, and whether there are more.
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

// eventsAfter returns the events with larger numbers, oldest first, and the
// largest number there is.
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

// eventsSince returns the events of a time, oldest first.
func (k *keeper) eventsSince(t time.Time) []*event {
	k.mu.RLock()
	defer k.mu.RUnlock()
	from, _ := slices.BinarySearchFunc(k.history.events, t, func(e *event, t time.Time) int { return e.at.Compare(t) })
	return slices.Clone(k.history.events[from:])
}

// listen returns a channel that gets a value after each published change,
// one for many where its reader is slow, and a function that ends that.
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

// committed returns the records of the committed state, and the largest number
// in it. It may be called from any goroutine: leases and places are copied
// while nothing changes, and events never do.
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
