package main

// Pauses: nobody new gets a slot that is paused, by a request or from the queue. Holders keep
// and renew what they have, and waiters stay. A slot is paused while a pause covers it: its
// own, that of its environment, or that of all environments.

import (
	"cmp"
	"slices"
	"time"
)

// everywhere is the name of the environment that stands for all of them, also for those that
// nobody has named yet. It has no slots, no leases and no queue, only their pause.
const everywhere = ""

// A pause is never changed once it is in a batch.
type pause struct {
	environment string        // everywhere: all of them
	slot        string        // empty: all slots of the environment
	by          string        // the name of the caller; empty if it gave none
	key         string        // the name of the caller's key; empty if it has none
	reason      string        // empty if none was given
	since       time.Time     // when it began, by the wall clock
	length      time.Duration // from its last change to its end; zero: until it is resumed

	// until is when it ends, zero if length is; by the monotonic clock, see restart. The wall
	// clock of it is stored.
	until time.Time
}

// restart returns the pause as it is after a start of the server at now: it ends when the wall
// clock says so, at length from the start at the latest.
func (p *pause) restart(now time.Time) *pause {
	if p.length == 0 {
		return p
	}
	again := *p
	again.until = now.Add(min(p.until.Sub(now), p.length))
	return &again
}

// isOver reports whether time has ended the pause.
func (p *pause) isOver(now time.Time) bool { return p.length > 0 && !now.Before(p.until) }

// covers reports whether the pause covers a slot of an environment.
func (p *pause) covers(environment, slot string) bool {
	return p.environment == everywhere || p.environment == environment && (p.slot == "" || p.slot == slot)
}

// pauseOf returns a pause that covers the slot of the environment, the widest one; nil if the
// slot is not paused. find returns the other environments.
func (e *environment) pauseOf(slot string, find func(name string) *environment) *pause {
	for _, p := range slices.Concat(find(everywhere).pauses, e.pauses) {
		if p.covers(e.name, slot) {
			return p
		}
	}
	return nil
}

// ownPause returns the pause that names exactly the slot, or the environment itself if slot is
// empty; nil if there is none.
func (e *environment) ownPause(slot string) *pause {
	i := slices.IndexFunc(e.pauses, func(p *pause) bool { return p.slot == slot })
	if i < 0 {
		return nil
	}
	return e.pauses[i]
}

// unpausedSlots returns the declared slots that are not paused.
func (e *environment) unpausedSlots(find func(name string) *environment) []string {
	if len(e.pauses) == 0 && len(find(everywhere).pauses) == 0 {
		return e.slots
	}
	isPaused := func(slot string) bool { return e.pauseOf(slot, find) != nil }
	return slices.DeleteFunc(slices.Clone(e.slots), isPaused)
}

// A pauseRequest begins, changes or ends a pause.
type pauseRequest struct {
	slot   string // empty: the environment itself
	resume bool   // end it
	length time.Duration
	reason string
	force  bool   // replace the pause of another caller
	by     string // the name of the caller
	origin        // of the caller
}

// pause pauses the environment, or one of its slots, and ends the pause if q.resume is true.
// The result has the pause that begins, is changed or ends; none if there was none to end.
//
// A caller changes its own pause: the length counts from now. That of another caller is
// errPaused, and the result has that one, unless q.force is true. What has no pause and
// is not declared is errUndeclared or errSlots.
func (e *environment) pause(b *batch, q pauseRequest) result {
	before := e.ownPause(q.slot)
	if before == nil && e.name != everywhere {
		if err := b.checkNeeds(e, request{slot: q.slot}); err != nil {
			return result{err: err}
		}
	}
	switch {
	case q.resume && before == nil:
		return result{}
	case q.resume:
		e.endPause(b, before, q)
		return result{pause: before}
	case before != nil && before.by != q.by && !q.force:
		return result{err: errPaused, pause: before}
	}
	p := &pause{environment: e.name, slot: q.slot, by: q.by, key: q.key, reason: q.reason,
		since: b.now, length: q.length}
	if before != nil && before.by == q.by {
		p.since = before.since
	}
	if q.length > 0 {
		p.until = b.now.Add(q.length)
	}
	e.setPause(b, before, p)
	b.addEvent(&event{kind: eventPaused, environment: e.name, slot: q.slot, reason: q.reason,
		by: q.by, byKey: q.key, origin: q.origin})
	return result{pause: p}
}

// endPause ends a pause. The event has the by and origin of q; none of them if time has ended it.
func (e *environment) endPause(b *batch, p *pause, q pauseRequest) {
	e.setPause(b, p, nil)
	b.addEvent(&event{kind: eventResumed, environment: e.name, slot: p.slot, reason: p.reason,
		held: max(0, b.now.Sub(p.since)), by: q.by, byKey: q.key, origin: q.origin})
}

// setPause replaces old by new; either may be nil. All environments are served in this batch
// that have a waiter whose slots may be kept no longer, or can be given to it again.
func (e *environment) setPause(b *batch, old, new *pause) {
	b.add(change{environment: e, oldPause: old, newPause: new})
	affected := []*environment{e}
	if e.name == everywhere {
		affected = b.queues()
	}
	for _, a := range affected {
		for name := range a.queueNeeds() {
			b.touched = append(b.touched, b.environment(name))
		}
	}
}

// bySlot is the order of the pauses of an environment: its own, then those of its slots.
func bySlot(a, b *pause) int { return cmp.Compare(a.slot, b.slot) }
