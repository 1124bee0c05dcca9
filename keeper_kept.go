package main

// Kept slots: the free slots that are assigned to a waiter which is not granted yet, because
// it needs more than is free (kept) or because its caller is away (offered). For whom they are
// is in the published state; for how long they are kept is counted here.

import (
	"slices"
	"time"
)

// A keptSlot is a free slot that is assigned to a waiter.
type keptSlot struct {
	slot   string
	waiter *waiter
}

// keptSlots returns the slots of assignments, in the order of the queue.
func keptSlots(assigned []assignment) []keptSlot {
	var kept []keptSlot
	for _, a := range assigned {
		for _, s := range a.slots {
			kept = append(kept, keptSlot{s, a.waiter})
		}
	}
	return kept
}

// keptFor returns for whom a slot is kept; nil if it is held, or may be had.
func (v *view) keptFor(slot string) *waiter {
	i := slices.IndexFunc(v.kept, func(k keptSlot) bool { return k.slot == slot })
	if i < 0 {
		return nil
	}
	return v.kept[i].waiter
}

// lacks returns what a waiter in the queue of the named environment needs and has not been
// assigned in this state. If that is nothing, the slots are offered to it: it is granted when
// its caller is there again.
func (s *publishedState) lacks(w *waiter, name string) []need {
	var missing []need
	for _, name := range w.environments(name) {
		kept := []keptSlot{}
		if v := s.find(name); v != nil {
			kept = slices.DeleteFunc(slices.Clone(v.kept), func(k keptSlot) bool { return k.waiter != w })
		}
		for _, slot := range w.slotsIn(name) {
			i := slices.IndexFunc(kept, func(k keptSlot) bool { return slot == "" || slot == k.slot })
			if i < 0 {
				missing = append(missing, need{name, slot})
				continue
			}
			kept = slices.Delete(kept, i, i+1)
		}
	}
	return missing
}

// A keptCount is how many slots of an environment are kept for requests that need several, and
// since when that was not reported.
type keptCount struct {
	slots int
	since time.Time
}

// noteKept reports for how long slots of an environment were kept, and begins to count those
// that are kept in the published state now.
func (k *keeper) noteKept(name string, now time.Time) {
	k.reportKept(name, now)
	count := 0
	if v := k.published.Load().find(name); v != nil {
		for _, kept := range v.kept {
			if kept.waiter.needs != nil {
				count++
			}
		}
	}
	if count == 0 {
		delete(k.keptCounts, name)
		return
	}
	k.keptCounts[name] = keptCount{count, now}
}

// noteAllKept does what noteKept does for all environments of the published state, which a
// start or a declaration has replaced.
func (k *keeper) noteAllKept(now time.Time) {
	for name := range k.keptCounts {
		k.noteKept(name, now)
	}
	for v := range k.published.Load().all() {
		if len(v.kept) > 0 {
			k.noteKept(v.name, now)
		}
	}
}

// reportKept reports the time since the last report, for each slot of the environment that was
// kept in it.
func (k *keeper) reportKept(name string, now time.Time) {
	if c, isKept := k.keptCounts[name]; isKept {
		k.observer.kept(name, time.Duration(c.slots)*now.Sub(c.since))
		k.keptCounts[name] = keptCount{c.slots, now}
	}
}

// reportAllKept calls reportKept for each environment with kept slots, so that the count of a
// slot that is kept for long grows meanwhile.
func (k *keeper) reportAllKept(now time.Time) {
	for name := range k.keptCounts {
		k.reportKept(name, now)
	}
}
