package main

// Changing the declared slots while the keeper runs, and other tasks that are done between
// two batches.

import (
	"fmt"
	"io"
	"time"
)

// betweenBatches calls task on the keeper's goroutine, at a moment when nothing is being
// saved, and returns true once it has returned. It returns false, without calling it, if
// the keeper has been closed. It waits for the disk, as a batch does.
func (k *keeper) betweenBatches(task func()) bool {
	done := make(chan struct{})
	select {
	case k.tasks <- func() { defer close(done); task() }:
		<-done
		return true
	case <-k.stopped:
		return false
	}
}

// A storeCopy is a file with what a store has, see copyableStore.
type storeCopy struct {
	io.ReadCloser
	size    int64 // in bytes
	patient bool
}

// openCopy returns a copy of what is stored, as a file that a server can start with. gap is
// added to the counter in it. Everything that was reported is in the copy (invariant 2).
// The error is errNoCopy if the store cannot be copied now, or errStopping.
func (k *keeper) openCopy(gap uint64) (copied storeCopy, err error) {
	asked := k.betweenBatches(func() {
		from, isCopyable := k.store.(copyableStore)
		if !isCopyable || k.fileBroken {
			err = errNoCopy
			return
		}
		counter := max(k.lastNumber, uint64(time.Now().UnixMilli()))
		copied.ReadCloser, copied.size, copied.patient, err = from.openCopy(counter + gap)
		if err != nil {
			err = fmt.Errorf("%w: %w", errNoCopy, err)
		}
	})
	if !asked {
		return storeCopy{}, errStopping
	}
	return copied, err
}

// declare replaces the function that returns the declared slots, which newKeeper describes.
// Slots that are added are offered to the queue at once. Leases stand, whatever is declared
// (invariant 1): they are renewed, released and expire as before, and so many of the
// declared slots are not free. The waiters of an environment that is not declared any more
// are removed and get errWithdrawn; if that cannot be saved, it is tried again.
func (k *keeper) declare(slots func(environment string) []string) {
	k.betweenBatches(func() {
		k.useSlots(slots)
		k.isTickDue = true
		k.step()
	})
}

// slots returns the declared slots of an environment, nil if it is undeclared. It may be
// called from any goroutine.
func (k *keeper) slots(environment string) []string { return (*k.declaration.Load())(environment) }

// useSlots gives both copies of the state the declared slots, which are not stored, and has
// the environments with a queue looked at. Between two batches the copies are equal.
func (k *keeper) useSlots(slots func(environment string) []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.declaration.Store(&slots)
	for name, e := range k.current {
		e.slots = slots(name)
	}
	k.noteEnds()
	for _, e := range k.current {
		for name := range e.queueNeeds() {
			if other := k.current[name]; other != nil {
				k.expiries.add(other, time.Now())
			}
		}
	}
	k.published.Store(k.newState(k.published.Load().history))
	k.noteAllKept(time.Now())
	k.notifyListeners(1)
}

// endUndeclared has the undeclared environments with a queue looked at. It is called at a
// start, after which the declaration may be another one.
func (k *keeper) endUndeclared(now time.Time) {
	for _, e := range k.current {
		if e.slots == nil && len(e.queue) > 0 {
			k.expiries.add(e, now)
		}
	}
}
