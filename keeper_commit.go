package main

// How much a keeper may take, and the commit of a batch, which keeps the history within
// its limits: what a batch adds and what it deletes is one transaction. Which events and
// ends are too many is decided in lock_history.go.

import "time"

// keeperLimits is how much a keeper may take.
type keeperLimits struct {
	waiters int // with so many calls waiting, a new one gets errBusy
	history int // the memory of the history in bytes, see newHistory
	memory  int // the memory of all that a start loads in bytes; zero: without a limit

	// absence is how much longer than maxAbsence the waiters that a start loads stay in the
	// queue without a connection.
	absence time.Duration

	longestHold time.Duration // of each lease, see lease.longest; zero: without a limit
}

// loadedSize is the memory of a lease or a waiter without its texts, and of its
// environment, in bytes.
const loadedSize = 1000

// maxLeftOut is the largest number of events that a start has left out and that one commit
// deletes.
const maxLeftOut = 1000

// leaveOut drops the oldest events while a start loads more than the limits allow: a start
// must not need more memory than the server had before. size is that of the leases and
// waiters, in bytes, which are loaded in any case.
func (k *keeper) leaveOut(size int) {
	limit := k.limits.history
	if k.limits.memory > 0 {
		limit = min(limit, k.limits.memory-size)
	}
	k.leftOut = append(k.leftOut, k.history.loadWithin(limit)...)
}

// commit saves the changes of a batch in one transaction, and deletes what the history has
// too much. On a full disk the events of the batch are not saved, and the first commit that
// succeeds deletes the oldest tenth of the history, unless events that were left out at the
// start are deleted. The error is that of save.
func (k *keeper) commit(b *callBatch) error {
	save := k.store.save
	b.dropped = k.history.surplus(b.now)
	b.leftOut = min(len(k.leftOut), maxLeftOut)
	if k.diskFull {
		save = k.recovery.saveOnFullDisk
		b.withoutHistory = true
		b.dropped = trim{}
		if k.mustDropHistory && b.leftOut == 0 {
			b.dropped.events = len(k.history.events) / 10
		}
	}
	writes, ends := k.batchWrites(b)
	start := time.Now()
	err := save(k.lastNumber, writes, ends)
	k.observer.saved(time.Since(start), err)
	return err
}

// batchWrites returns what a batch stores and deletes, and where its steps end, see
// keeperStore.save. The end of the last step is left out.
func (k *keeper) batchWrites(b *callBatch) (writes []write, ends []int) {
	steps := b.ends
	for i, c := range b.changes {
		for len(steps) > 0 && steps[0] <= i {
			ends = append(ends, len(writes))
			steps = steps[1:]
		}
		if w, isStored := encodeChange(c); isStored && !(b.withoutHistory && c.event != nil) {
			writes = append(writes, w)
		}
	}
	for _, w := range k.trimWrites(b) {
		if w.value == nil { // an end that stays remembered is stored in the step of its event
			ends = append(ends, len(writes))
		}
		writes = append(writes, w)
	}
	return writes, ends
}

// trimWrites returns the writes that delete what a batch drops from the history. An end that
// stays remembered is stored in place of its event. On a full disk it is not: it is
// remembered until the server stops.
func (k *keeper) trimWrites(b *callBatch) (writes []write) {
	forgotten := uint64(0) // the number of the last end that the batch drops
	for _, end := range k.history.ends[:b.dropped.ends] {
		forgotten = end.number
		if end.event == nil {
			writes = append(writes, deleteEnd(end.number))
		}
	}
	numbers := k.leftOut[:b.leftOut:b.leftOut]
	for _, e := range k.history.events[:b.dropped.events] {
		numbers = append(numbers, e.number)
	}
	for _, number := range numbers {
		writes = append(writes, deleteEvent(number))
		end := k.history.endWithNumber(number)
		if end != nil && number > forgotten && !b.withoutHistory {
			writes = append(writes, encodeEnd(end))
		}
	}
	return writes
}
