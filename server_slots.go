package main

// The slots of an environment as answers have them: with their leases, and which are free.

import (
	"slices"
	"time"
)

// freeSlots returns the number of declared slots less that of the leases, zero if there are
// more leases than slots. Slots that are paused are not free.
func freeSlots(v *view) int {
	free := max(0, len(v.slots)-len(v.leases))
	if free == 0 || len(v.pauses) == 0 {
		return free
	}
	count := 0
	for _, row := range slotRows(v) {
		if row.lease == nil && !row.isPaused {
			count++
		}
	}
	return min(free, count)
}

// A slotRow is a slot of an environment with its lease; nil if it has none.
type slotRow struct {
	slot     string
	lease    *leaseView
	isPaused bool

	// isBlocked is true if nobody has the slot and nobody can get it: a lease of a slot that is
	// not declared any more counts in its place.
	isBlocked bool
}

// slotRows returns the declared slots of an environment, and after them the slots that have
// a lease although they are not declared.
func slotRows(v *view) []slotRow {
	bySlot := make(map[string]*leaseView, len(v.leases))
	for i := range v.leases {
		bySlot[v.leases[i].slot] = &v.leases[i]
	}
	rows := make([]slotRow, 0, max(len(v.slots), len(v.leases)))
	for _, s := range v.slots {
		row := slotRow{slot: s, lease: bySlot[s], isPaused: v.pauseOf(s) != nil}
		row.isBlocked = row.lease == nil && !row.isPaused && v.keptFor(s) == nil && !slices.Contains(v.open, s)
		rows = append(rows, row)
		delete(bySlot, s)
	}
	for _, l := range v.leases {
		if other := bySlot[l.slot]; other != nil {
			rows = append(rows, slotRow{slot: l.slot, lease: other, isPaused: v.pauseOf(l.slot) != nil})
		}
	}
	return rows
}

// slotToJSON returns a slot of a view as c sees it. s is the state that has the view.
func slotToJSON(v *view, s *publishedState, row slotRow, c caller, now time.Time) slotJSON {
	j := slotJSON{Slot: untrusted(row.slot), Blocked: row.isBlocked}
	if row.lease != nil {
		l := leaseToJSON(v.name, *row.lease, now)
		j.Lease = &l
	} else if w := v.keptFor(row.slot); w != nil {
		kept := keptSlotToJSON(v, s, keptSlot{waiter: w}, c)
		j.Kept = &kept
	}
	return j
}
