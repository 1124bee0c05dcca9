package main

// A start: the state of the keeper is made of the records in the store.

import (
	"cmp"
	"time"
)

// load reads the records into current and history, and publishes them. The error is that of the
// store or of the first record that cannot be decoded; the keeper is not usable then. What a start
// gives leases and waiters begins when the store has read all: until then nobody is answered.
func (k *keeper) load() error {
	var now time.Time
	size := 0                       // of the leases, waiters and pauses
	several := map[uint64]*waiter{} // the waiters, by their numbers
	counter, err := k.store.load(func(bucket string, key, value []byte) error {
		if now.IsZero() {
			now = time.Now()
		}
		switch bucket {
		case leaseBucket, queueBucket, pauseBucket:
			size += loadedSize + len(value)
			return k.loadCurrent(bucket, key, value, several, now)
		case historyBucket:
			e, err := decodeEvent(key, value)
			if err != nil {
				return err
			}
			k.history.loadEvent(e, now)
			k.leaveOut(size)
		case endBucket:
			end, err := decodeEnd(key, value)
			if err != nil {
				return err
			}
			k.history.loadEnd(end)
		}
		return nil
	})
	if err != nil {
		return err
	}
	now = cmp.Or(now, time.Now())
	// Invariant 5: a restored copy of the store has an old counter, the clock is past it.
	k.lastNumber = max(counter, uint64(now.UnixMilli())-1)
	k.history.finishLoading()
	k.leaveOut(size)
	k.leftAtStart = len(k.leftOut)
	k.noteEnds()
	for _, e := range k.current {
		k.expiries.addEnvironment(e)
	}
	k.expiries.addEnvironment(k.everywhere)
	k.endUndeclared(now)
	k.published.Store(k.newState(k.history.events))
	k.noteAllKept(now)
	return nil
}

// loadCurrent adds a lease, a waiter or a pause to the current environments. several has the
// waiters that were loaded before, by their numbers. The error is that of decoding.
func (k *keeper) loadCurrent(
	bucket string, key, value []byte, several map[uint64]*waiter, now time.Time,
) error {
	switch bucket {
	case leaseBucket:
		name, l, err := decodeLease(key, value)
		if err != nil {
			return err
		}
		l.start(now) // invariant 4: the full ttl, however long the server was stopped
		l.limitAfterStart(now)
		k.applyLoaded(change{environment: k.environment(name), newLease: l})
	case queueBucket:
		name, w, err := decodeWaiter(key, value)
		if err != nil {
			return err
		}
		if first := several[w.number]; first != nil {
			w = first // it waits in the queues of several environments
		}
		several[w.number] = w
		w.disconnectedAt = now.Add(k.limits.absence)
		k.latestEntry = max(k.latestEntry, w.entry())
		k.applyLoaded(change{environment: k.environment(name), newWaiter: w})
	case pauseBucket:
		p, err := decodePause(key, value)
		if err != nil {
			return err
		}
		k.environment(p.environment).apply(change{newPause: p.restart(now)})
	}
	return nil
}

// applyLoaded applies a change that adds what was loaded.
func (k *keeper) applyLoaded(c change) {
	c.environment.apply(c)
	k.places.add(c)
}

// noteEnds notes when the last lease of each slot ended, of the environments that have
// several slots.
func (k *keeper) noteEnds() {
	for _, ev := range k.history.events {
		if ev.isEnd() && ev.fence != 0 && len(k.slots(ev.environment)) > 1 {
			k.environment(ev.environment).noteEnd(ev.slot, ev.number)
		}
	}
}
