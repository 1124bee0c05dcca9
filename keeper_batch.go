package main

// One group of calls on its way: the rules are applied to it in one round,
// and once the round is stored, it is made visible and answered.

import (
	"runtime"
	"slices"
	"time"
)

// A group is one round on its way to the disk.
type callBatch struct {
	*batch
	calls          []*call
	firstRequest   int      // where the requests begin among calls; releases and renewals stand before them
	results        []result // of calls; the zero outcome: none yet
	touched        []*environment
	late           []*call // gave up while their slot was being granted
	gaveUp         []*call // gave up while they were in the queue
	droppedEvents  int     // events that the commit deletes
	withoutHistory bool    // there was no space: without history
	refused        []refusedRenewal
}

// apply runs the rules: renewals, releases, expiries, then requests.
func (k *keeper) apply(calls []*call, ticked bool, now time.Time) *callBatch {
	k.mu.Lock()
	defer k.mu.Unlock()
	inOrder(calls)
	g := &callBatch{batch: &batch{now: now, next: k.next, history: k.history}, calls: calls, results: make([]result, len(calls))}
	g.firstRequest, _ = slices.BinarySearchFunc(calls, callRequest, func(c *call, kind callKind) int { return int(c.kind) - int(kind) })
	for i, c := range calls[:g.firstRequest] {
		g.results[i] = k.applyCall(g, c)
	}
	var due []*environment
	for e := k.due(ticked, now); e != nil; e = k.due(ticked, now) {
		if due = append(due, e); e.expire(g.batch) || len(e.queue) > 0 && e.freeSlots() > 0 {
			g.touched = append(g.touched, e)
		}
	}
	for _, e := range g.touched {
		e.serveQueue(g.batch)
	}
	for _, e := range due {
		k.expiries.addEnvironment(e)
	}
	for i, c := range calls[g.firstRequest:] {
		g.results[g.firstRequest+i] = k.applyCall(g, c)
	}
	return g
}

// due returns an environment that is to be looked at in this round.
func (k *keeper) due(ticked bool, now time.Time) *environment {
	if !ticked {
		return nil
	}
	return k.expiries.next(now)
}

// inOrder sorts calls by their kinds; those of one kind stay as they came.
func inOrder(calls []*call) {
	slices.SortStableFunc(calls, func(a, b *call) int { return int(a.kind) - int(b.kind) })
}

func (k *keeper) applyCall(g *callBatch, c *call) result {
	e := k.environment(k.current, c.environment)
	g.touched = append(g.touched, e)
	if e.slots == nil && (c.kind == callRequest || e.isIdle() && !k.isRepeatedRelease(c)) {
		return result{err: errUndeclared}
	}
	switch c.kind {
	case callRenew:
		return e.renew(g.batch, c.renewal)
	case callLeave:
		k.callerLeft(g, e, c.about)
	case callRelease:
		return e.release(g.batch, c.release)
	case callRequest:
		return k.request(g, e, c)
	case callGiveUp:
		k.giveUp(g, e, c.about)
	}
	return result{}
}

// endedHere reports whether a release repeats one that is remembered.
func (k *keeper) isRepeatedRelease(c *call) bool {
	return c.kind == callRelease && k.history.endOfLease(c.environment, c.release.selector, time.Now()) != nil
}

func (k *keeper) request(g *callBatch, e *environment, c *call) result {
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
	o := e.request(g.batch, c.request, c.wait, c.claim)
	switch {
	case o.waiter == nil || o.lease != nil:
	case !c.wait: // a look of somebody who is in the queue: it is not a wait
		if away {
			k.markDisconnected(e, o.waiter, g.now)
		}
		o.err = errNoSlot
	default:
		c.waiter = o.waiter
		k.waitingCalls[c.waiter] = append(k.waitingCalls[c.waiter], c)
		k.waitingCount++
	}
	return o
}

// leave is told when a call's connection is gone.
func (k *keeper) callerLeft(g *callBatch, e *environment, c *call) {
	c.callerGone = true
	switch p := c.waiter; {
	case c.granted != nil && c.request.id == "":
		e.release(g.batch, releaseRequest{selector: selector{fence: c.granted.fence}, isUndo: true})
	case p == nil:
	case !p.isStored() && e.position(p) > 0:
		k.stopWaiting(c, g.now)
		e.removeWaiter(g.batch, p, eventLeft)
	case !c.replied:
		k.stopWaiting(c, g.now)
	}
}

// giveUp ends the waiting of a call whose time is up.
func (k *keeper) giveUp(g *callBatch, e *environment, c *call) {
	switch p := c.waiter; {
	case c.replied || p == nil:
	case e.position(p) == 0: // granted in this very round
		g.late = append(g.late, c)
	default:
		k.stopWaiting(c, g.now)
		g.gaveUp = append(g.gaveUp, c)
		if !p.isStored() {
			e.removeWaiter(g.batch, p, eventLeft)
		}
	}
}

// unwait takes a call out of those that wait for its place. When it was the
// newest, the place is absent from now on.
func (k *keeper) stopWaiting(c *call, now time.Time) {
	calls := k.waitingCalls[c.waiter]
	i := slices.Index(calls, c)
	if i < 0 {
		return
	}
	if k.waitingCount--; i == len(calls)-1 {
		k.markDisconnected(k.current[c.environment], c.waiter, now)
	}
	if k.waitingCalls[c.waiter] = slices.Delete(calls, i, i+1); len(calls) == 1 {
		delete(k.waitingCalls, c.waiter)
	}
}

// absent notes that nobody is connected for a place any more. The environment
// is nil when the place was not in its line after all.
func (k *keeper) markDisconnected(e *environment, p *waiter, now time.Time) {
	if p.connected, p.disconnectedAt = false, now; e != nil {
		k.expiries.add(e, now.Add(maxAbsence))
	}
}

func (k *keeper) markDisconnectedUnlessWaiting(e *environment, p *waiter, now time.Time) {
	if len(k.waitingCalls[p]) == 0 {
		k.markDisconnected(e, p, now)
	}
}

// stored reports whether the group must go to the disk.
func (g *callBatch) needsStore() bool {
	return slices.ContainsFunc(g.changes, func(c change) bool {
		return c.event != nil || c.oldLease != nil || c.newLease != nil || c.newWaiter != nil && c.newWaiter.isStored() || c.oldWaiter != nil && c.oldWaiter.isStored()
	})
}

// publish makes a batch visible and answers its callers.
func (k *keeper) publish(g *callBatch) {
	at := k.publishState(g)
	runtime.Gosched() // the callers that were answered run before the observer works
	k.observer.answered(at, g.changes, g.refused)
}

// publishState makes a batch visible to readers and answers its callers. It returns
// when that was: from then on the new leases have their whole ttl.
func (k *keeper) publishState(g *callBatch) time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	var events []*event
	for _, c := range g.changes {
		if l := c.newLease; l != nil {
			if l.start(now); !l.deadline.IsZero() {
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
	if g.withoutHistory {
		k.history.setAside()
		k.mustDropHistory = false
	}
	k.history.publish(g.droppedEvents, now)
	k.notifyListeners(len(g.changes))
	k.replyToCalls(g, 0, g.firstRequest)
	k.replyToQueue(g) // after those who release: whoever is woken last runs first
	for _, c := range g.gaveUp {
		k.replyTo(c, result{err: errNoSlot, waiter: c.waiter})
	}
	k.replyToCalls(g, g.firstRequest, len(g.calls))
	k.dropIdle(g)
	return now
}

// answerCalls answers a part of the calls: all but those that are in the queue now.
func (k *keeper) replyToCalls(g *callBatch, from, to int) {
	for i, c := range g.calls[from:to] {
		o := g.results[from+i]
		if o.waiter == nil || o.lease != nil || o.err != nil {
			k.replyTo(c, o)
		}
		if c.kind == callRenew && o.err != nil {
			g.refused = append(g.refused, refusedRenewal{c.environment, c.renewal, o.err})
		}
	}
}

// tellListeners wakes those who watch, and never waits for one.
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

// forgetIdle makes an environment without lease and queue cost nothing.
func (k *keeper) dropIdle(g *callBatch) {
	for _, e := range g.touched {
		if e.isIdle() {
			delete(k.current, e.name)
			delete(k.published, e.name)
			k.expiries.remove(e)
		}
	}
}

// answerLine answers those whose place in the queue has ended.
func (k *keeper) replyToQueue(g *callBatch) {
	for _, h := range g.handovers {
		k.replyToWaiter(h.waiter, result{lease: h.lease})
	}
	for _, c := range g.changes {
		if p := c.oldWaiter; p != nil && c.newWaiter == nil {
			k.replyToWaiter(p, result{err: errEnded, ended: k.history.endOf(c.environment.name, endByID, p.id, g.now)})
		}
	}
}

func (k *keeper) replyToWaiter(p *waiter, o result) {
	calls := k.waitingCalls[p]
	delete(k.waitingCalls, p)
	k.waitingCount -= len(calls)
	for _, c := range calls {
		k.replyTo(c, o)
	}
}

// answer gives a call its one answer. The caller holds mu.
func (k *keeper) replyTo(c *call, o result) {
	if c.replied || c.reply == nil {
		return
	}
	c.replied = true
	a := reply{result: o}
	if o.lease != nil {
		c.granted = o.lease
		l := *o.lease
		a.lease = &l
	}
	if e := k.published[c.environment]; e != nil && o.err != nil {
		a.held = copyLeases(e)
		if o.waiter != nil {
			a.position = e.position(o.waiter)
		}
	}
	c.reply <- a
}
