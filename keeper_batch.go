package main

// The life of one batch of calls: the rules are applied to it, and once its changes are
// stored, it is published and its calls get their replies. Saving is in keeper.go, what
// happens to a batch that cannot be saved in keeper_recovery.go.

import (
	"runtime"
	"slices"
	"time"
)

// A callBatch is the calls of a batch, and what the rules have made of them.
type callBatch struct {
	*batch
	calls          []*call
	firstRequest   int      // index of the first request in calls; renewals and releases are before it
	results        []result // of calls, with the same indexes; zero if there is nothing to reply
	touched        []*environment
	grantedLate    []*call // their time was up in this batch, in which their waiters were granted or ended
	gaveUp         []*call // their time was up while they were in the queue
	droppedEvents  int     // how many of the oldest events the commit deletes
	withoutHistory bool    // the commit does not store the events: the disk is full
	refused        []refusedRenewal
}

// apply applies the rules to calls, in this order: renewals, releases, expiries, requests.
// Renewals are before expiries, so that a lease that was renewed in time does not end
// (invariant 4). Requests are last, so that the slots that releases and expiries have freed
// go to the queue first (invariant 3). Expiries are applied only if ticked is true. apply
// sorts calls.
func (k *keeper) apply(calls []*call, ticked bool, now time.Time) *callBatch {
	k.mu.Lock()
	defer k.mu.Unlock()
	sortCalls(calls)
	b := &callBatch{batch: &batch{now: now, next: k.next, history: k.history}, calls: calls,
		results: make([]result, len(calls))}
	byKind := func(c *call, kind callKind) int { return int(c.kind) - int(kind) }
	b.firstRequest, _ = slices.BinarySearchFunc(calls, callRequest, byKind)
	for i, c := range calls[:b.firstRequest] {
		b.results[i] = k.applyCall(b, c)
	}
	var due []*environment
	for e := k.nextDue(ticked, now); e != nil; e = k.nextDue(ticked, now) {
		due = append(due, e)
		hasEnded := e.expire(b.batch)
		if hasEnded || len(e.queue) > 0 && e.freeSlots() > 0 {
			b.touched = append(b.touched, e)
		}
	}
	for _, e := range b.touched {
		e.serveQueue(b.batch)
	}
	for _, e := range due {
		k.expiries.addEnvironment(e)
	}
	for i, c := range calls[b.firstRequest:] {
		b.results[b.firstRequest+i] = k.applyCall(b, c)
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

// sortCalls sorts calls by their kinds. Calls of one kind stay in the order of their arrival.
func sortCalls(calls []*call) {
	slices.SortStableFunc(calls, func(x, y *call) int { return int(x.kind) - int(y.kind) })
}

// applyCall applies one call to the current state and returns its result. The result is
// errUndeclared if the environment is undeclared, except for renewals and releases while
// it has a lease or a waiter, and for releases that repeat a remembered one.
func (k *keeper) applyCall(b *callBatch, c *call) result {
	e := k.environment(k.current, c.environment)
	b.touched = append(b.touched, e)
	if e.slots == nil && (c.kind == callRequest || e.isIdle() && !k.isRepeatedRelease(c)) {
		return result{err: errUndeclared}
	}
	switch c.kind {
	case callRenew:
		return e.renew(b.batch, c.renewal)
	case callLeave:
		k.callerLeft(b, e, c.other)
	case callRelease:
		return e.release(b.batch, c.release)
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

// applyRequest applies a request, with what the rules do not know: the error is errGone if the
// caller has left, errBusy if too many calls wait, and errFull for a new request on a full
// disk. A call that is in the queue afterwards waits: its reply comes with a later batch.
func (k *keeper) applyRequest(b *callBatch, e *environment, c *call) result {
	before := e.waitersByID[c.request.id]
	known, away := before != nil || e.leaseByID(c.request.id) != nil, before != nil && !before.connected
	switch {
	case c.callerGone || c.replied:
		return result{err: errGone}
	case !known && c.wait && k.waitingCount >= k.maxWaiters && e.freeSlots() <= len(e.queue):
		return result{err: errBusy}
	case !known && k.diskFull:
		return result{err: errFull}
	}
	r := e.request(b.batch, c.request, c.wait, c.claim)
	switch {
	case r.waiter == nil || r.lease != nil:
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
	w.connected, w.disconnectedAt = false, now
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
// without id need not be.
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
		if c.event == nil {
			k.environment(k.published, c.environment.name).apply(c)
		} else {
			events = append(events, c.event)
		}
	}
	k.observer.published(events)
	if b.withoutHistory {
		k.history.setAside()
		k.mustDropHistory = false
	}
	k.history.publish(b.droppedEvents, now)
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

// replyToCalls replies to the calls with indexes from (included) to to (excluded), except
// for those that wait in the queue now. It collects the refused renewals.
func (k *keeper) replyToCalls(b *callBatch, from, to int) {
	for i, c := range b.calls[from:to] {
		r := b.results[from+i]
		if r.waiter == nil || r.lease != nil || r.err != nil {
			k.replyTo(c, r)
		}
		if c.kind == callRenew && r.err != nil {
			b.refused = append(b.refused, refusedRenewal{c.environment, c.renewal, r.err})
		}
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

// dropIdle deletes the touched environments that have neither leases nor a queue, from both
// copies of the state and from the expiry queue.
func (k *keeper) dropIdle(b *callBatch) {
	for _, e := range b.touched {
		if e.isIdle() {
			delete(k.current, e.name)
			delete(k.published, e.name)
			k.expiries.remove(e)
		}
	}
}

// replyToQueue replies to the calls of the waiters that the batch has removed from the
// queue: the lease if it was granted one, else errEnded.
func (k *keeper) replyToQueue(b *callBatch) {
	for _, h := range b.handovers {
		k.replyToWaiter(h.waiter, result{lease: h.lease})
	}
	for _, c := range b.changes {
		if w := c.oldWaiter; w != nil && c.newWaiter == nil {
			end := k.history.endOf(c.environment.name, endByID, w.id, b.now)
			k.replyToWaiter(w, result{err: errEnded, ended: end})
		}
	}
}

// replyToWaiter replies to every call that waits for the waiter, and ends their waiting.
// The caller holds mu.
func (k *keeper) replyToWaiter(w *waiter, r result) {
	calls := k.waitingCalls[w]
	delete(k.waitingCalls, w)
	k.waitingCount -= len(calls)
	for _, c := range calls {
		k.replyTo(c, r)
	}
}

// replyTo sends a call its only reply: r, and if r is an error, the leases and the position
// of the published state. It does nothing if the call has its reply already, or wants none.
// It never blocks. The caller holds mu.
func (k *keeper) replyTo(c *call, r result) {
	if c.replied || c.reply == nil {
		return
	}
	c.replied = true
	full := reply{result: r}
	if r.lease != nil {
		c.granted = r.lease
		l := *r.lease
		full.lease = &l
	}
	if e := k.published[c.environment]; e != nil && r.err != nil {
		full.leases = copyLeases(e)
		if r.waiter != nil {
			full.position = e.position(r.waiter)
		}
	}
	c.reply <- full
}
