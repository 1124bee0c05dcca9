package main

// What the keeper does when the disk fails: the group is undone and told that
// its outcome is unknown, the committed memory stands, and the file is written
// anew from it before anything else is granted.

import (
	"errors"
	"slices"
	"time"
)

// fail takes a group back whose commit failed. Who was in line before it is
// in line still. Where only space was missing, the same calls are tried once
// more: what takes something away works on a full disk too.
func (k *keeper) fail(g *group, err error) {
	noSpace := errors.Is(err, errNoSpace) && k.recovery != nil
	k.undo(g, noSpace && !k.tight)
	if k.healthy.Swap(false) {
		k.log.Error("storing failed", "error", err)
	}
	k.probe = time.Now().Add(probePeriod)
	if k.tight, k.shrink = noSpace, noSpace; !noSpace {
		k.broken = true
		k.tryDisk()
	}
}

func (k *keeper) undo(g *group, again bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now, changes, requeued := time.Now(), g.changes, []*call{}
	g.undo()
	for _, e := range g.touched { // what was to end, or to be served, still is
		k.agenda.add(e, now)
	}
	for _, c := range slices.Concat(g.late, g.gaveUp) {
		k.unwait(c, now)
		k.answer(c, outcome{err: errUnknown})
		requeued = append(requeued, c.departs()) // where it has no id, its place ends
	}
	for _, c := range changes {
		switch {
		case c.newPlace != nil && !again: // entered the line in this group
			k.answerPlace(c.newPlace, outcome{err: errUnknown})
		case c.newPlace != nil:
			k.waiters -= len(k.waiting[c.newPlace])
			delete(k.waiting, c.newPlace)
		case c.oldPlace != nil: // granted or ended in this group
			k.absentUnlessWaiting(c.environment, c.oldPlace, now)
		}
	}
	for _, c := range g.calls {
		switch {
		case c.answered, len(k.waiting[c.place]) > 0: // was in line before, and waits
		case c.reply == nil, again:
			c.place = nil
			requeued = append(requeued, c)
		default:
			k.answer(c, outcome{err: errUnknown})
		}
	}
	if k.queue = append(requeued, k.queue...); len(requeued) > 0 {
		k.inbox.rouse()
	}
	k.forgetIdle(g)
}

// departs makes the call which tells that another's connection is gone.
func (c *call) departs() *call { return &call{kind: callLeave, environment: c.environment, of: c} }

// tryDisk finds out whether the disk works, if the store can recover: when the file cannot be trusted, all
// of it is written anew; when it was full, the reserve is set aside again.
func (k *keeper) tryDisk() {
	k.probe = time.Now().Add(probePeriod)
	switch {
	case k.recovery == nil:
	case k.broken:
		_, records := k.committed()
		k.diskTried(k.recovery.rewrite(k.last, records))
	default:
		k.diskTried(k.recovery.reserve())
	}
}

// diskTried goes on after tryDisk. Who is in line could not poll while the
// disk was broken: as after a start, their absence begins now.
func (k *keeper) diskTried(err error) {
	if err != nil {
		k.broken = k.broken || !errors.Is(err, errNoSpace)
		return
	}
	if !k.healthy.Swap(true) {
		k.log.Info("storing works again")
	}
	if k.tight = false; !k.broken {
		return
	}
	k.broken = false
	k.putBack(k.deferred)
	k.deferred = nil
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	for _, e := range k.environments {
		for _, p := range e.line {
			if !p.present {
				p.absent = now
			}
		}
	}
}

// refuse answers calls while nothing can be stored. Who leaves is noted.
func (k *keeper) refuse(calls []*call) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	for _, c := range calls {
		switch {
		case c.kind == callGiveUp && !c.of.answered && c.of.place != nil:
			k.unwait(c.of, now)
			k.answer(c.of, outcome{err: errUnknown})
			k.deferred = append(k.deferred, c.of.departs())
		case c.kind == callLeave:
			k.deferred = append(k.deferred, c)
		default:
			k.answer(c, outcome{err: errUnknown})
		}
	}
}
