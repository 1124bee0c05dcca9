package main

// What readers see: the published state, which has what is committed and nothing else
// (invariant 2), and notifications of changes. Readers take the state and need no lock:
// neither they nor the keeper wait for one another, or for the store. They may be any
// goroutine.

import (
	"slices"
	"strings"
	"time"
)

// isOpen reports whether a request without wait would be granted a slot now. The error is
// errUndeclared if the environment is undeclared and idle.
func (k *keeper) isOpen(name string) (bool, error) {
	v, err := k.view(name)
	return err == nil && v.isOpen(""), err
}

// view returns the view of one environment. The error is errUndeclared if the environment
// is undeclared and idle.
func (k *keeper) view(name string) (*view, error) { return k.viewIn(k.published.Load(), name) }

// viewIn returns what view does, of a published state.
func (k *keeper) viewIn(s *publishedState, name string) (*view, error) {
	if v := s.find(name); v != nil {
		return v, nil
	}
	slots := k.slots(name)
	if slots == nil {
		return nil, errUndeclared
	}
	return s.idleView(name, slots), nil
}

// idleView returns the view of an environment that is idle.
func (s *publishedState) idleView(name string, slots []string) *view {
	v := &view{name: name, slots: slots, open: slots, pauses: s.pauses}
	if len(s.pauses) > 0 {
		v.open = nil
	}
	return v
}

// knowsID reports whether a request with the id has a lease in the environment, waits for it, or
// has ended there and is remembered.
func (k *keeper) knowsID(environment, id string) bool {
	if id == "" {
		return false
	}
	if v := k.published.Load().find(environment); v != nil {
		hasLease := func(l leaseView) bool { return l.id == id }
		waits := func(w *waiter) bool { return w.id == id }
		if slices.ContainsFunc(v.leases, hasLease) || slices.ContainsFunc(v.queue, waits) {
			return true
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.history.endOfID(environment, id, time.Now()) != nil
}

// views returns the views of a state and those of the declared environments, in the order of
// their names. declared need not be sorted.
func (k *keeper) views(s *publishedState, declared []string) []*view {
	views := make([]*view, 0, s.count+len(declared))
	for v := range s.all() {
		views = append(views, v)
	}
	for _, name := range declared {
		if s.find(name) == nil {
			views = append(views, s.idleView(name, k.slots(name)))
		}
	}
	if len(views) > s.count {
		slices.SortFunc(views, func(a, b *view) int { return strings.Compare(a.name, b.name) })
	}
	return views
}

// isRequestOf reports whether a request with the id that is known in the environment, see knowsID,
// was made by the same key or token. Of one that has ended that is known while the history has it.
func (k *keeper) isRequestOf(environment, id string, o origin) bool {
	isSame := func(made origin) bool { return made.key == o.key && made.verified == o.verified }
	if v := k.published.Load().find(environment); v != nil && id != "" {
		isLease := func(l leaseView) bool { return l.id == id && isSame(l.origin) }
		isWaiter := func(w *waiter) bool { return w.id == id && isSame(w.origin) }
		if slices.ContainsFunc(v.leases, isLease) || slices.ContainsFunc(v.queue, isWaiter) {
			return true
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	end := k.history.endOfID(environment, id, time.Now())
	return end != nil && end.event != nil && isSame(end.event.origin)
}

// heldUnder returns how many of the slots that a pause covers have a lease.
func (s *publishedState) heldUnder(p *pause) (held int) {
	for v := range s.all() {
		for _, l := range v.leases {
			if p.covers(v.name, l.slot) {
				held++
			}
		}
	}
	return held
}

// stillPaused returns the pauses that cover what is named, or a part of it: of everywhere all
// that there are, of an environment its own and those of its slots, of a slot those that cover
// it; and the pause of all.
func (s *publishedState) stillPaused(environment, slot string) []*pause {
	var found []*pause
	if environment == everywhere {
		found = slices.Clone(s.pauses)
		for v := range s.all() {
			found = append(found, v.pauses[len(s.pauses):]...)
		}
		return found
	}
	for _, p := range s.pausesOf([]string{environment}) {
		if slot == "" || p.covers(environment, slot) {
			found = append(found, p)
		}
	}
	return found
}

// An eventFilter selects events of the history.
type eventFilter struct {
	environment string    // only events of it, and those of all environments at once; empty: of all
	holder      string    // only events of it; empty: of all
	since       time.Time // only events of this time or later; zero: all
	before      uint64    // only events with smaller numbers; zero: all

	seen  func(environment string) bool // only events of the environments for which it is true; nil: of all
	limit int                           // the number of events, at most
}

// events returns the published events that f selects, newest first, without those of kind
// eventClosed. more is true if the limit has left some out.
func (k *keeper) events(f eventFilter) (found []*event, more bool) {
	for _, e := range slices.Backward(k.published.Load().history) {
		switch {
		case e.at.Before(f.since):
			return found, false
		case e.kind == eventClosed, f.before != 0 && e.number >= f.before,
			!isAbout(e, f.environment), f.holder != "" && e.holder != f.holder,
			f.seen != nil && !f.seen(e.environment):
		case len(found) == f.limit:
			return found, true
		default:
			found = append(found, e)
		}
	}
	return found, false
}

// isAbout reports whether an event is of the environment, or of all environments; every event
// is if the name is empty.
func isAbout(e *event, environment string) bool {
	return environment == "" || e.environment == environment || e.environment == everywhere
}

// lastEvent returns the number of the newest published event; zero if there is none.
func (k *keeper) lastEvent() uint64 {
	all := k.published.Load().history
	if len(all) == 0 {
		return 0
	}
	return all[len(all)-1].number
}

// eventsAfter returns the published events with numbers larger than number, oldest first,
// without those of kind eventClosed. last is the largest number of them all, or number if
// no event has a larger one.
func (k *keeper) eventsAfter(number uint64) (found []*event, last uint64) {
	published := k.published.Load().history
	all := published
	for len(all) > 0 && all[len(all)-1].number > number {
		all = all[:len(all)-1]
	}
	newer := published[len(all):]
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

// eventsSince returns the events of the state that are of time t or later, oldest first, also
// those of kind eventClosed. The list is that of the state, and must not be changed.
func (s *publishedState) eventsSince(t time.Time) []*event {
	byTime := func(e *event, t time.Time) int { return e.at.Compare(t) }
	from, _ := slices.BinarySearchFunc(s.history, t, byTime)
	return s.history[from:]
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
// goroutine.
func (k *keeper) snapshot() (counter uint64, records []write) {
	k.mu.Lock()
	s := k.published.Load()
	for _, end := range k.history.ends {
		if end.event == nil {
			counter = max(counter, end.number)
			records = append(records, encodeEnd(end))
		}
	}
	k.mu.Unlock()
	for _, p := range s.pauses {
		records = append(records, encodePause(p))
	}
	for v := range s.all() {
		for _, p := range v.pauses[len(s.pauses):] {
			records = append(records, encodePause(p))
		}
		for _, l := range v.leases {
			counter = max(counter, l.fence)
			records = append(records, encodeLease(v.name, l.lease))
		}
		for _, w := range v.queue {
			if w.isStored() {
				counter = max(counter, w.number)
				records = append(records, encodeWaiter(v.name, w))
			}
		}
	}
	for _, e := range s.history {
		counter = max(counter, e.number)
		records = append(records, encodeEvent(e))
	}
	return max(counter, uint64(time.Now().UnixMilli())), records
}

// historyUse returns how much of its limits the history uses, in bytes or in events, whichever
// is more: from 0 to 1, and more until it has been shortened.
func (k *keeper) historyUse() float64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	h := k.history
	return max(float64(h.size)/float64(h.limit), float64(len(h.events))/historyEvents)
}
