package main

// The order of the queue: which waiters get the free slots of an environment, and which
// slots are kept for a waiter that needs more than is free (invariant 3).

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// priorityStep is by how much a waiter's rank is earlier for each point of its priority.
const priorityStep = 10 * time.Minute

// newWaiter returns a waiter that enters the queue now, or takes the place of older, if that
// is not nil: it has entered when older did then. Its rank is the time at which it entered,
// less priorityStep for each point of its priority, and never changes: with the largest
// priority, 100, it passes at most those that entered in the last 16 h 40 min, so nobody
// waits forever. The time counts as no earlier than that of any waiter before it, so that
// waiters of one priority stay in order when the clock is set back.
func (b *batch) newWaiter(q request, claim time.Duration, older *waiter) *waiter {
	w := &waiter{request: q, number: b.next(), since: b.now, claim: claim}
	w.setFirst(w.number)
	w.connected.Store(true)
	entry := max(b.now.UnixNano(), *b.latestEntry)
	*b.latestEntry = entry
	if older != nil {
		entry, w.place, w.since = older.entry(), older.turn(), older.since
	}
	w.rank = entry - int64(q.priority)*int64(priorityStep)
	return w
}

// entry returns when the waiter entered the queue, in nanoseconds since 1970, as newWaiter
// counted it.
func (w *waiter) entry() int64 { return w.rank + int64(w.priority)*int64(priorityStep) }

// turn returns the order of the waiter among those of one rank.
func (w *waiter) turn() uint64 { return cmp.Or(w.place, w.number) }

// freeSlots returns the slots of the list without a lease, those first whose last lease
// ended the longest ago. The list is of declared slots. A slot without a known lease
// precedes these; slots that are equal are in the order of their declaration. There are at
// most as many as there are more slots than leases: a lease of a slot that is no longer
// declared uses up a declared one.
func (e *environment) freeSlots(slots []string) []string {
	most := len(e.slots) - len(e.leases)
	if most <= 0 {
		return nil
	}
	held := map[string]bool{}
	for _, l := range e.leases {
		held[l.slot] = true
	}
	free := slices.DeleteFunc(slices.Clone(slots), func(s string) bool { return held[s] })
	slices.SortStableFunc(free, func(a, b string) int { return cmp.Compare(e.lastEnds[a], e.lastEnds[b]) })
	return free[:min(most, len(free))]
}

// An assignment is the free slots of one environment that a waiter gets, or that are kept
// for it.
type assignment struct {
	waiter  *waiter
	slots   []string
	isWhole bool // they are all that the waiter needs in this environment
}

// assign assigns the free slots that are not paused to the first waiters of the queue. A waiter for a certain
// slot is assigned only that one, and holds up nobody who can have another. A waiter that is
// passed over is assigned none. It returns the assignments in the order of the queue, and
// the free slots that no waiter is assigned. find returns the other environments.
func (e *environment) assign(find func(name string) *environment) (assigned []assignment, left []string) {
	left = e.freeSlots(e.unpausedSlots(find))
	if len(e.queue) == 0 {
		return nil, left
	}
	next := map[string]int{} // of the queue of each slot: the first waiter that was not looked at
	for len(left) > 0 {
		w := e.nextWaiter(left, next)
		if w == nil {
			break
		}
		if w.isPassedOver(find) {
			continue
		}
		a := assignment{waiter: w, isWhole: true}
		for _, s := range w.slotsIn(e.name) {
			i := slices.IndexFunc(left, func(f string) bool { return s == "" || f == s })
			if i < 0 {
				a.isWhole = false
				continue
			}
			a.slots = append(a.slots, left[i])
			left = slices.Delete(left, i, i+1)
		}
		assigned = append(assigned, a)
	}
	return assigned, left
}

// nextWaiter returns the first waiter for any slot, or for one of the free slots, that it has
// not returned before; nil if there is none. next is its memory.
func (e *environment) nextWaiter(free []string, next map[string]int) *waiter {
	var first *waiter
	for _, s := range append([]string{""}, free...) {
		queue := e.slotQueues[s]
		if i := next[s]; i < len(queue) && (first == nil || byRank(queue[i], first) < 0) {
			first = queue[i]
		}
	}
	if first == nil {
		return nil
	}
	for _, s := range first.slotsIn(e.name) {
		if queue := e.slotQueues[s]; next[s] < len(queue) && queue[next[s]] == first {
			next[s]++
		}
	}
	return first
}

// isPassedOver reports whether the waiter needs several slots, and does not get all of them
// until somebody resumes or declares one, whatever leases end. While that is so, nothing is
// kept for it, and it retains its rank.
func (w *waiter) isPassedOver(find func(name string) *environment) bool {
	if w.needs == nil {
		return false
	}
	for _, name := range w.environments("") {
		slots, needed := find(name).unpausedSlots(find), w.slotsIn(name)
		isMissing := func(s string) bool { return s != "" && !slices.Contains(slots, s) }
		if len(needed) > len(slots) || slices.ContainsFunc(needed, isMissing) {
			return true
		}
	}
	return false
}

// isOpen reports whether a caller that does not wait is granted a slot, or the certain one
// if slot is not empty: one is free, and the queue leaves it (invariant 3).
func (e *environment) isOpen(slot string, find func(name string) *environment) bool {
	_, left := e.assign(find)
	return len(left) > 0 && (slot == "" || slices.Contains(left, slot))
}

// serveQueue grants the free slots to the waiters, in the order of the queue (invariant 3).
// A disconnected waiter, and one that needs more than it is assigned, use up their slots
// without a grant: these stay free for them until they are granted, or leave the queue.
func (e *environment) serveQueue(b *batch) {
	assigned, _ := e.assign(b.environment)
	for _, a := range assigned {
		if a.waiter.connected.Load() && a.isWhole {
			b.endStep()
			e.grantWaiter(b, a)
		}
	}
}

// grantWaiter grants a waiter what it is assigned in the environment, and in all others that
// it needs: nothing if it lacks a slot in one of these.
func (e *environment) grantWaiter(b *batch, a assignment) {
	w := a.waiter
	slots := map[string][]string{e.name: a.slots}
	names := w.environments(e.name)
	for _, name := range names {
		if name == e.name {
			continue
		}
		assigned, _ := b.environment(name).assign(b.environment)
		i := slices.IndexFunc(assigned, func(a assignment) bool { return a.waiter == w && a.isWhole })
		if i < 0 {
			return
		}
		slots[name] = assigned[i].slots
	}
	given := handover{waiter: w}
	for _, name := range names {
		b.setWaiter(b.environment(name), w, nil)
	}
	for _, name := range names {
		for _, s := range slots[name] {
			l := b.environment(name).grant(b, w.request, s, w.claim, b.now.Sub(w.since))
			given.leases = append(given.leases, l)
		}
	}
	b.handovers = append(b.handovers, given)
}

// grantNow grants a request the slots that the queues leave; nil if they lack one.
func (e *environment) grantNow(b *batch, q request, claim time.Duration) []*lease {
	names := q.environments(e.name)
	slots := map[string][]string{}
	for _, name := range names {
		_, left := b.environment(name).assign(b.environment)
		for _, s := range q.slotsIn(name) {
			i := slices.IndexFunc(left, func(f string) bool { return s == "" || f == s })
			if i < 0 {
				return nil
			}
			slots[name] = append(slots[name], left[i])
			left = slices.Delete(left, i, i+1)
		}
	}
	var leases []*lease
	for _, name := range names {
		for _, s := range slots[name] {
			l := b.environment(name).grant(b, q, s, claim, 0)
			q.setFirst(l.fence) // of all leases of a request it is the same
			leases = append(leases, l)
		}
	}
	return leases
}

// checkNeeds returns an error unless the environments have the slots that the request needs:
// errUndeclared for an environment that is undeclared, errSlots for a slot that is not
// declared, or for more slots than there are.
func (b *batch) checkNeeds(e *environment, q request) error {
	for _, name := range q.environments(e.name) {
		slots, declared := q.slotsIn(name), b.environment(name).slots
		if len(declared) == 0 {
			return fmt.Errorf("%w: %q is not declared", errUndeclared, name)
		}
		if len(slots) > len(declared) {
			return fmt.Errorf("%w: %q has %d, fewer than were asked for", errSlots, name, len(declared))
		}
		for i, s := range slots {
			if s != "" && slices.Contains(slots[:i], s) {
				return fmt.Errorf("%w: %q of %q is asked for twice", errSlots, s, name)
			}
			if s != "" && !slices.Contains(declared, s) {
				some := strings.Join(declared[:min(len(declared), 5)], ", ")
				return fmt.Errorf("%w: %q has no slot %q; it has %s", errSlots, name, s, some)
			}
		}
	}
	return nil
}

// queueNeeds returns the environments that the waiters of the queue need, itself included. All
// of them must be served when its slots have changed: something may be kept no longer, or
// from now on, for a waiter that needs several.
func (e *environment) queueNeeds() map[string]bool {
	names := map[string]bool{}
	for _, w := range e.queue {
		names[e.name] = true
		for _, n := range w.needs {
			names[n.environment] = true
		}
	}
	return names
}
