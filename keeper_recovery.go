package main

// What the keeper does when the disk fails: the group is undone and told that
// its outcome is unknown, the committed memory stands, and the file is written
// anew from it before anything else is granted.

import (
	"errors"
	"slices"
	"time"
)

// fail takes a group back whose commit failed. Who was in the queue before it is
// still in the queue. Where only space was missing, the same calls are tried once
// more: what takes something away works on a full disk too.
func (k *keeper) failBatch(g *callBatch, err error) {
	noSpace := errors.Is(err, errNoSpace) && k.recovery != nil
	k.undoBatch(g, noSpace && !k.diskFull)
	k.diskFull, k.mustDropHistory = noSpace, noSpace
	if !noSpace {
		k.breakFile(err)
		return
	}
	k.becomeUnhealthy(err)
	k.nextProbe = time.Now().Add(probePeriod)
}

// breakFile is called when the file cannot be trusted: nothing is saved any more
// before it has been written anew, which is tried at once.
func (k *keeper) breakFile(err error) {
	k.becomeUnhealthy(err)
	k.fileBroken = true
	k.probeStore()
}

func (k *keeper) becomeUnhealthy(err error) {
	if k.isHealthy.Swap(false) {
		k.observer.failed(err)
	}
}

// checkStore finds out, once in probePeriod, whether the store is still as the last
// save left it.
func (k *keeper) checkStore(now time.Time) {
	if k.recovery == nil || k.fileBroken || now.Before(k.nextCheck) {
		return
	}
	k.nextCheck = now.Add(probePeriod)
	if err := k.recovery.checkIntact(); err != nil {
		k.breakFile(err)
	}
}

func (k *keeper) undoBatch(g *callBatch, again bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now, changes, requeued := time.Now(), g.changes, []*call{}
	g.undo()
	for _, e := range g.touched { // what was to end, or to be served, still is
		k.expiries.add(e, now)
	}
	for _, c := range slices.Concat(g.late, g.gaveUp) {
		k.stopWaiting(c, now)
		k.replyTo(c, result{err: errUnknown})
		requeued = append(requeued, c.leaveCall()) // where it has no id, its place ends
	}
	for _, c := range changes {
		switch {
		case c.newWaiter != nil && !again: // entered the queue in this group
			k.replyToWaiter(c.newWaiter, result{err: errUnknown})
		case c.newWaiter != nil:
			k.waitingCount -= len(k.waitingCalls[c.newWaiter])
			delete(k.waitingCalls, c.newWaiter)
		case c.oldWaiter != nil: // granted or ended in this group
			k.markDisconnectedUnlessWaiting(c.environment, c.oldWaiter, now)
		}
	}
	for _, c := range g.calls {
		switch {
		case c.replied, len(k.waitingCalls[c.waiter]) > 0: // was in the queue before, and waits
		case c.reply == nil, again:
			c.waiter = nil
			requeued = append(requeued, c)
		default:
			k.replyTo(c, result{err: errUnknown})
		}
	}
	if k.pending = append(requeued, k.pending...); len(requeued) > 0 {
		k.inbox.wakeUp()
	}
	k.dropIdle(g)
}

// departs makes the call which tells that another's connection is gone.
func (c *call) leaveCall() *call { return &call{kind: callLeave, environment: c.environment, about: c} }

// tryDisk finds out whether the disk works, if the store can recover: when the file cannot be trusted, all
// of it is written anew; when it was full, the reserve is set aside again.
func (k *keeper) probeStore() {
	k.nextProbe = time.Now().Add(probePeriod)
	switch {
	case k.recovery == nil:
	case k.fileBroken:
		_, records := k.snapshot()
		k.storeProbed(k.recovery.rewrite(k.lastNumber, records))
	default:
		k.storeProbed(k.recovery.reserve())
	}
}

// diskTried goes on after tryDisk. Who is in the queue could not poll while the
// disk was broken: as after a start, their absence begins now.
func (k *keeper) storeProbed(err error) {
	if errors.Is(err, errInUse) {
		select {
		case k.taken <- err:
		default: // reported before
		}
	}
	if err != nil {
		k.fileBroken = k.fileBroken || !errors.Is(err, errNoSpace)
		return
	}
	if !k.isHealthy.Swap(true) {
		k.observer.recovered()
	}
	if k.diskFull = false; !k.fileBroken {
		return
	}
	k.fileBroken = false
	k.requeue(k.deferred)
	k.deferred = nil
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	for _, e := range k.current {
		for _, p := range e.queue {
			if !p.connected {
				p.disconnectedAt = now
			}
		}
	}
}

// refuse answers calls while nothing can be stored. Who leaves is noted.
func (k *keeper) refuseCalls(calls []*call) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	for _, c := range calls {
		switch {
		case c.kind == callGiveUp && !c.about.replied && c.about.waiter != nil:
			k.stopWaiting(c.about, now)
			k.replyTo(c.about, result{err: errUnknown})
			k.deferred = append(k.deferred, c.about.leaveCall())
		case c.kind == callLeave:
			k.deferred = append(k.deferred, c)
		default:
			k.replyTo(c, result{err: errUnknown})
		}
	}
}
