package main

// The life of one batch of calls: the rules are applied to it, and once its changes are
// stored, it is published and its calls get their replies. Saving is in keeper.go, what
// happens to a batch that cannot be saved in keeper_recovery.go.

import (
	"errors"
	"runtime"
	"slices"
	"time"
)

// A callBatch is the calls of a batch, and what the rules have made of them.
type callBatch struct {
	*batch
	calls          []*call
	firstRequest   int      // index of the first request in calls; but for callGiveUp all others are before
	results        []result // of calls, with the same indexes; zero if there is nothing to reply
	grantedLate    []*call  // their time was up in this batch, in which their waiters were granted or ended
	gaveUp         []*call  // their time was up while they were in the queue
	dropped        trim     // what the commit deletes of the history
	leftOut        int      // how many events the commit deletes that a start has left out
	withoutHistory bool     // the commit does not store the events: the disk is full
	refused        []refusedRenewal
}

// apply applies the rules to calls, in this order: renewals, releases, pauses, expiries,
// requests. Renewals are before expiries, so that a lease that was renewed in time does not
// end (invariant 4). Requests are last, so that the slots that releases and expiries have freed
// go to the queue first (invariant 3), unless a pause of the batch covers them. Expiries are
// applied only if ticked is true. apply sorts calls.
func (k *keeper) apply(calls []*call, ticked bool, now time.Time) *callBatch {
	k.mu.Lock()
	defer k.mu.Unlock()
	sortCalls(calls)
	b := k.newBatch(now)
	b.calls, b.results = calls, make([]result, len(calls))
	byKind := func(c *call, kind callKind) int { return int(c.kind) - int(kind) }
	b.firstRequest, _ = slices.BinarySearchFunc(calls, callRequest, byKind)
	for i, c := range calls[:b.firstRequest] {
		b.results[i] = k.applyCall(b, c)
	}
	var due []*environment
	for e := k.nextDue(ticked, now); e != nil; e = k.nextDue(ticked, now) {
		due = append(due, e)
		hasEnded := e.expire(b.batch)
		if hasEnded || len(e.queue) > 0 && len(e.freeSlots(e.slots)) > 0 {
			b.touched = append(b.touched, e)
		}
	}
	for i := 0; i < len(b.touched); i++ { // what is granted, or is no longer kept, touches further ones
		b.touched[i].serveQueue(b.batch)
	}
	for _, e := range due {
		k.expiries.addEnvironment(e)
	}
	for i, c := range calls[b.firstRequest:] {
		b.results[b.firstRequest+i] = k.applyCall(b, c)
	}
	return b
}

// newBatch returns a batch without calls. An environment that its rules look at is dropped
// with the batch if it is idle.
func (k *keeper) newBatch(now time.Time) *callBatch {
	b := &callBatch{batch: &batch{now: now, next: k.next, latestEntry: &k.latestEntry, history: k.history,
		longestHold: k.limits.longestHold, places: k.places}}
	b.queues = k.queues
	b.environment = func(name string) *environment {
		isNew := k.current[name] == nil && name != everywhere
		e := k.environment(name)
		if isNew {
			b.touched = append(b.touched, e)
		}
		return e
	}
	return b
}

// nextDue takes an environment that is due out of the expiry queue; nil if none is left, or if
// ticked is false.
func (k *keeper) nextDue(ticked bool, now time.Time) *environment {
	if !ticked {
		return nil
	}
	return k.expiries.next(now)
}

// queues returns the current environments that have a queue.
func (k *keeper) queues() (all []*environment) {
	for _, e := range k.current {
		if len(e.queue) > 0 {
			all = append(all, e)
		}
	}
	return all
}

// sortCalls sorts calls by their kinds. Calls of one kind stay in the order of their arrival.
func sortCalls(calls []*call) {
	slices.SortStableFunc(calls, func(x, y *call) int { return int(x.kind) - int(y.kind) })
}

// applyCall applies one call to the current state and returns its result. The result is
// errUndeclared if the environment is undeclared, except for renewals and releases while
// it has a lease or a waiter, and for releases that repeat a remembered one.
func (k *keeper) applyCall(b *callBatch, c *call) result {
	b.endStep()
	e := b.environment(c.environment)
	b.touched = append(b.touched, e)
	if c.kind == callPause {
		return k.applyPause(b, e, c)
	}
	if e.slots == nil && (c.kind == callRequest || e.isIdle() && !k.isRepeatedRelease(c)) {
		return result{err: errUndeclared}
	}
	switch c.kind {
	case callRenew:
		for _, name := range c.others {
			b.touched = append(b.touched, b.environment(name))
		}
		return e.renew(b.batch, c.renewal, c.others...)
	case callLeave:
		k.callerLeft(b, e, c.other)
	case callRelease:
		if c.release.to != "" {
			return e.handOver(b.batch, c.release, c.others...)
		}
		return e.release(b.batch, c.release, c.others...)
	case callRequest:
		return k.applyRequest(b, e, c)
	case callGiveUp:
		k.callerGaveUp(b, e, c.other)
	}
	return result{}
}

// isRepeatedRelease reports whether a call is a release of a lease or a request whose end
// is remembered.
func (k *keeper) isRepeatedRelease(c *call) bool {
	return c.kind == callRelease && k.history.endOfLease(c.environment, c.release.selector, time.Now()) != nil
}

// applyPause applies a call that pauses or resumes. On a full disk, a pause is errFull.
func (k *keeper) applyPause(b *callBatch, e *environment, c *call) result {
	if k.diskFull && !c.pause.resume {
		return result{err: errFull}
	}
	return e.pause(b.batch, c.pause)
}

// applyRequest applies a request, with what the rules do not know: the error is errGone if the
// caller has left, errBusy if too many calls wait, and errFull for a new request on a full
// disk. A call that takes a lease over does not wait. Any other that is in the queue afterwards
// waits: its reply comes with a later batch.
func (k *keeper) applyRequest(b *callBatch, e *environment, c *call) result {
	before := e.waitersByID[c.request.id]
	isKnown := before != nil || e.leaseByID(c.request.id) != nil
	away := before != nil && !before.connected.Load()
	switch {
	case c.callerGone || c.replied:
		return result{err: errGone}
	case !isKnown && k.diskFull:
		return result{err: errFull}
	case !isKnown && c.wait && k.waitingCount >= k.limits.waiters && e.rival(c.request) == nil:
		r := e.request(b.batch, c.request, false, c.claim)
		if errors.Is(r.err, errNoSlot) {
			r.err = errBusy
		}
		return r
	case c.take.fence != 0:
		return e.take(b.batch, c.request, c.take, c.claim)
	}
	r := e.request(b.batch, c.request, c.wait, c.claim)
	switch {
	case r.waiter == nil || len(r.own) > 0:
	case !c.wait: // the request is in the queue, but this call does not keep its waiter connected
		if away {
			k.markDisconnected(e, r.waiter, b.now)
		}
		r.err = errNoSlot
	default:
		c.waiter = r.waiter
		k.waitingCalls[c.waiter] = append(k.waitingCalls[c.waiter], c)
		k.waitingCount++
	}
	return r
}

// callerLeft handles the end of the connection of c. A grant to a call without id is
// undone, and a waiter without id is removed; another one becomes disconnected.
func (k *keeper) callerLeft(b *callBatch, e *environment, c *call) {
	c.callerGone = true
	switch w := c.waiter; {
	case c.granted != nil && c.request.id == "":
		e.release(b.batch, releaseRequest{selector: selector{fence: c.granted.fence}, isUndo: true})
	case w == nil:
	case !w.isStored() && e.position(w) > 0:
		k.stopWaiting(c, b.now)
		e.removeWaiter(b.batch, w, eventLeft)
	case !c.replied:
		k.stopWaiting(c, b.now)
	}
}

// callerGaveUp handles a call that has waited for its time. The call gets errNoSlot when the
// batch is published, and its waiter is removed if it has no id. A call that has its reply,
// or gets one with this batch, is left as it is.
func (k *keeper) callerGaveUp(b *callBatch, e *environment, c *call) {
	switch w := c.waiter; {
	case c.replied || w == nil:
	case e.position(w) == 0: // granted or ended in this batch
		b.grantedLate = append(b.grantedLate, c)
	default:
		k.stopWaiting(c, b.now)
		b.gaveUp = append(b.gaveUp, c)
		if !w.isStored() {
			e.removeWaiter(b.batch, w, eventLeft)
		}
	}
}

// stopWaiting removes a call from those that wait for its waiter. If it was the newest of
// them, the waiter is disconnected from now on. It does nothing if the call does not wait.
func (k *keeper) stopWaiting(c *call, now time.Time) {
	calls := k.waitingCalls[c.waiter]
	i := slices.Index(calls, c)
	if i < 0 {
		return
	}
	k.waitingCount--
	if i == len(calls)-1 {
		k.markDisconnected(k.current[c.environment], c.waiter, now)
	}
	calls = slices.Delete(calls, i, i+1)
	k.waitingCalls[c.waiter] = calls
	if len(calls) == 0 {
		delete(k.waitingCalls, c.waiter)
	}
}

// markDisconnected makes a waiter disconnected, and has its environment looked at when
// maxAbsence has passed. e is nil if the environment has been dropped: the waiter is not
// in a queue then.
func (k *keeper) markDisconnected(e *environment, w *waiter, now time.Time) {
	w.connected.Store(false)
	w.disconnectedAt = now
	if e != nil {
		k.expiries.add(e, now.Add(maxAbsence))
	}
}

// markDisconnectedUnlessWaiting calls markDisconnected if no call waits for the waiter.
func (k *keeper) markDisconnectedUnlessWaiting(e *environment, w *waiter, now time.Time) {
	if len(k.waitingCalls[w]) == 0 {
		k.markDisconnected(e, w, now)
	}
}

// needsStore reports whether the batch has changes that must be stored. Those of waiters
// without id need not be. A change of a pause has an event.
func (b *callBatch) needsStore() bool {
	return slices.ContainsFunc(b.changes, func(c change) bool {
		return c.event != nil || c.oldLease != nil || c.newLease != nil ||
			c.newWaiter != nil && c.newWaiter.isStored() || c.oldWaiter != nil && c.oldWaiter.isStored()
	})
}

// publish makes a committed batch visible to readers, replies to its calls and notifies
// the observer.
func (k *keeper) publish(b *callBatch) {
	at := k.publishState(b)
	runtime.Gosched() // the callers that have their replies run before the observer does
	k.observer.replied(at, b.changes, b.refused)
}

// publishState makes a committed batch visible to readers and replies to its calls
// (invariant 2). It returns the time at which it did so. The new leases have their full
// ttl from this time, which is after the commit, however long that took (invariant 4).
func (k *keeper) publishState(b *callBatch) time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	var events []*event
	for _, c := range b.changes {
		if l := c.newLease; l != nil {
			l.start(now)
			if !l.deadline.IsZero() {
				k.expiries.add(c.environment, l.deadline)
			}
		}
		if p := c.newPause; p != nil && p.length > 0 {
			k.expiries.add(c.environment, p.until)
		}
		if c.event != nil {
			events = append(events, c.event)
		}
	}
	k.observer.published(events)
	if b.withoutHistory {
		k.history.setAside()
		k.mustDropHistory = false
	}
	k.history.publish(b.dropped)
	k.leftOut = k.leftOut[b.leftOut:]
	k.replacePublished(b)
	k.notifyListeners(len(b.changes))
	k.replyToCalls(b, 0, b.firstRequest)
	k.replyToQueue(b) // after the releases: the goroutine that is woken last runs first
	for _, c := range b.gaveUp {
		k.replyTo(c, result{err: errNoSlot, waiter: c.waiter})
	}
	k.replyToCalls(b, b.firstRequest, len(b.calls))
	k.dropIdle(b)
	return now
}

// replacePublished replaces the published state by one that has the changes of a committed
// batch. Between batches the current environments have what is committed. The caller holds mu.
func (k *keeper) replacePublished(b *callBatch) {
	before := k.published.Load()
	s := before.copied()
	// Readers may have the array of the history, so that its dropped events cannot be
	// erased. A new array lets the old one go.
	k.stillInArray += b.dropped.events
	if k.stillInArray > len(k.history.events)/16 {
		k.history.events, k.stillInArray = slices.Clone(k.history.events), 0
	}
	s.history = k.history.events
	changed := map[*environment]bool{}
	for _, c := range b.changes {
		if c.environment != nil {
			changed[c.environment] = true
		}
	}
	for _, e := range b.touched { // also those of renewals, which are no changes
		changed[e] = true
	}
	if changed[k.everywhere] {
		s = k.newState(s.history)
	}
	for e := range changed {
		if e != k.everywhere {
			s.update(e, k.find)
		}
	}
	k.published.Store(s)
	for e := range changed {
		k.noteKept(e.name, b.now)
	}
	if changed[k.everywhere] {
		k.noteAllKept(b.now)
	}
}

// notifyListeners notifies every listener of a number of changes, unless it is zero. It
// never blocks: a listener that has not read the last notification gets no second one.
func (k *keeper) notifyListeners(changes int) {
	if changes == 0 {
		return
	}
	for c := range k.listeners {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// dropIdle deletes the touched environments that are idle, also from the expiry queue. One of
// several slots is kept once one of them was used: there are only as many as are declared.
func (k *keeper) dropIdle(b *callBatch) {
	for _, e := range b.touched {
		if e.isIdle() && (len(e.slots) < 2 || e.lastEnds == nil) {
			delete(k.current, e.name)
			k.expiries.remove(e)
		}
	}
}
