package main

// What the keeper does when a commit fails: the batch is undone, its calls get errUnknown,
// and the published state stands (invariant 6). After any failure but a full disk, the file
// is rewritten from the published state before anything else is saved. On a full disk,
// calls that free space still work.

import (
	"errors"
	"slices"
	"time"
)

// failBatch undoes a batch whose commit has failed with err. Waiters that were in the queue
// before the batch are still in it. If only space was missing, and the disk was not known
// to be full, the same calls are applied once more: those that delete more than they add
// work on a full disk, too.
func (k *keeper) failBatch(b *callBatch, err error) {
	noSpace := errors.Is(err, errNoSpace) && k.recovery != nil
	if errors.Is(err, errNoSpace) && k.recovery == nil {
		k.undoBatch(b, false)
		k.cannotSave = true
		k.becomeUnhealthy(err)
		return
	}
	k.undoBatch(b, noSpace && !k.diskFull)
	k.diskFull, k.mustDropHistory = noSpace, noSpace
	if !noSpace {
		k.breakFile(err)
		return
	}
	k.becomeUnhealthy(err)
	k.nextProbe = time.Now().Add(probePeriod)
}

// withoutSpace returns what of calls is applied now, and whether ended leases are looked for,
// while a store without a reserve has no space: renewals go first, in a batch of their own,
// since they need none. If ticked is true it tries to save.
func (k *keeper) withoutSpace(calls []*call, ticked bool) ([]*call, bool) {
	if ticked && k.store.save(k.lastNumber, nil, nil) == nil {
		k.cannotSave = false
		k.isHealthy.Store(true)
		k.observer.recovered()
		return calls, ticked
	}
	sortCalls(calls)
	isOther := func(c *call) bool { return c.kind != callRenew }
	others := slices.IndexFunc(calls, isOther)
	if others < 0 {
		others = len(calls)
	}
	if others == 0 || others == len(calls) && !ticked {
		return calls, ticked
	}
	k.requeue(calls[others:])
	k.isTickDue = ticked
	k.inbox.wakeUp()
	return calls[:others], false
}

// breakFile notes that the file cannot be trusted, for the reason err. Nothing is saved
// until it has been rewritten, which is tried at once.
func (k *keeper) breakFile(err error) {
	k.becomeUnhealthy(err)
	k.fileBroken = true
	k.probeStore()
}

// becomeUnhealthy notes that saving has failed with err, and notifies the observer if it
// did not fail before.
func (k *keeper) becomeUnhealthy(err error) {
	if k.isHealthy.Swap(false) {
		k.observer.failed(err)
	}
}

// undoBatch undoes the changes of a batch. Calls whose waiters were in the queue before the
// batch still wait. All other calls become pending again if again is true; if not, they get
// errUnknown, and only those that want no reply become pending again. Calls whose time was
// up in this batch always get errUnknown.
func (k *keeper) undoBatch(b *callBatch, again bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now, changes, requeued := time.Now(), b.changes, []*call{}
	b.undo()
	for _, e := range b.touched { // expiries and grants that are undone are still due
		k.expiries.add(e, now)
	}
	for _, c := range slices.Concat(b.grantedLate, b.gaveUp) {
		k.stopWaiting(c, now)
		k.replyTo(c, result{err: errUnknown})
		requeued = append(requeued, c.leaveCall()) // this removes a waiter without id
	}
	for _, c := range changes {
		switch {
		case c.newWaiter != nil && !again: // entered the queue in this batch
			k.replyToWaiter(c.newWaiter, result{err: errUnknown})
		case c.newWaiter != nil:
			k.waitingCount -= len(k.waitingCalls[c.newWaiter])
			delete(k.waitingCalls, c.newWaiter)
		case c.oldWaiter != nil: // granted or ended in this batch
			k.markDisconnectedUnlessWaiting(c.environment, c.oldWaiter, now)
		}
	}
	for _, c := range b.calls {
		switch {
		case c.replied, len(k.waitingCalls[c.waiter]) > 0: // its waiter was in the queue before; it waits
		case c.reply == nil, again:
			c.waiter = nil
			requeued = append(requeued, c)
		default:
			k.replyTo(c, result{err: errUnknown})
		}
	}
	k.pending = append(requeued, k.pending...)
	if len(requeued) > 0 {
		k.inbox.wakeUp()
	}
	k.dropIdle(b)
}

// leaveCall returns the call that notifies the keeper that the connection of c has ended.
func (c *call) leaveCall() *call { return &call{kind: callLeave, environment: c.environment, other: c} }

// probeStore checks whether the store works again: it rewrites the whole file after a
// failure; on a full disk it sets the reserve aside. It does nothing if the store is not
// recoverable.
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

// storeProbed handles the result of a probe. After an error that is not errNoSpace the
// file is broken. After a success the keeper is healthy. If the file was broken, deferred
// calls become pending, and the disconnected waiters, which could not poll meanwhile, count
// as disconnected from now on, as after a start.
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
	k.diskFull = false
	if !k.fileBroken {
		return
	}
	k.fileBroken = false
	k.requeue(k.deferred)
	k.deferred = nil
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	for _, e := range k.current {
		for _, w := range e.queue {
			if !w.connected.Load() {
				w.disconnectedAt = now
			}
		}
	}
}

// refuseCalls replies errUnknown to calls while nothing can be stored. Calls that end a wait
// or a connection are deferred until the file has been rewritten.
func (k *keeper) refuseCalls(calls []*call) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	for _, c := range calls {
		switch {
		case c.kind == callGiveUp && !c.other.replied && c.other.waiter != nil:
			k.stopWaiting(c.other, now)
			k.replyTo(c.other, result{err: errUnknown})
			k.deferred = append(k.deferred, c.other.leaveCall())
		case c.kind == callLeave:
			k.deferred = append(k.deferred, c)
		default:
			k.replyTo(c, result{err: errUnknown})
		}
	}
}
