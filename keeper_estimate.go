package main

// How long a waiter is likely to wait, from how long the last holders had the environment.

import (
	"slices"
	"time"
)

const (
	estimateHolds = 20     // the holds of an environment that an estimate is made of, at most
	minHolds      = 5      // with fewer there is no estimate
	estimateDepth = 20_000 // events of the history, from the newest on, in which they are looked for
)

// unknownWait is in the place of an estimate where there is none.
const unknownWait time.Duration = -1

// holds returns how long the last holders had each environment for which isWanted is true, the
// newest first, and at most estimateHolds.
func (s *publishedState) holds(isWanted func(environment string) bool) map[string][]time.Duration {
	all := map[string][]time.Duration{}
	for i := len(s.history) - 1; i >= max(0, len(s.history)-estimateDepth); i-- {
		e := s.history[i]
		isHold := e.isEnd() && e.fence != 0
		if isHold && len(all[e.environment]) < estimateHolds && isWanted(e.environment) {
			all[e.environment] = append(all[e.environment], e.held)
		}
	}
	return all
}

// holdsOf returns the holds of one environment.
func (s *publishedState) holdsOf(name string) []time.Duration {
	return s.holds(func(environment string) bool { return environment == name })[name]
}

// estimates returns how long each waiter of the queue is likely to wait from now on, in their
// order, and last a request that comes now. An estimate is unknownWait for a waiter that needs
// a certain slot or several environments, and where nothing is known of the leases. There is
// none at all, nil, with fewer than minHolds holds and while something is paused.
//
// Each waiter gets the slot that comes free first, and has it for the median of the holds.
func (v *view) estimates(holds []time.Duration, now time.Time) []time.Duration {
	if len(holds) < minHolds || len(v.pauses) > 0 {
		return nil
	}
	sorted := slices.Sorted(slices.Values(holds))
	usual := median(sorted)
	free := v.frees(sorted, now)
	var all []time.Duration
	for _, w := range append(slices.Clone(v.queue), nil) {
		if len(free) == 0 {
			all = append(all, unknownWait)
			continue
		}
		estimate := free[0]
		free = insertSorted(free[1:], estimate+usual)
		if w != nil && (w.slot != "" || w.needs != nil) {
			estimate = unknownWait
		}
		all = append(all, estimate)
	}
	return all
}

// frees returns when the slots are likely to come free, from now on and in order: at once those
// without a lease. It leaves out a lease of which nothing is known, and so many leases as there
// are more of them than slots.
func (v *view) frees(sorted []time.Duration, now time.Time) []time.Duration {
	var free []time.Duration
	for _, l := range v.leases {
		if left := l.likelyLeft(sorted, now); left != unknownWait {
			free = insertSorted(free, left)
		}
	}
	if more := len(v.leases) - len(v.slots); more > 0 {
		return free[min(more, len(free)):]
	}
	return append(make([]time.Duration, len(v.slots)-len(v.leases)), free...)
}

// likelyLeft returns how long the lease is likely to last from now on: until the median of
// those holds that were longer than it has lasted already. If nobody renews it, it does not
// last beyond its deadline. It is unknownWait if it has lasted longer than all of them and has
// no such deadline.
func (l leaseView) likelyLeft(sorted []time.Duration, now time.Time) time.Duration {
	lasted := max(0, now.Sub(l.since))
	i, _ := slices.BinarySearch(sorted, lasted+1)
	left := unknownWait
	if longer := sorted[i:]; len(longer) > 0 {
		left = median(longer) - lasted
	}
	if l.kept || l.deadline.IsZero() {
		return left
	}
	until := max(0, l.deadline.Sub(now))
	if left == unknownWait {
		return until
	}
	return min(left, until)
}

// median returns the median of durations in order, at least one.
func median(sorted []time.Duration) time.Duration {
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// insertSorted inserts a duration into a list in order, and returns the list.
func insertSorted(list []time.Duration, d time.Duration) []time.Duration {
	i, _ := slices.BinarySearch(list, d)
	return slices.Insert(list, i, d)
}
