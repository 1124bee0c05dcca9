package tests

// What the clients of an attack do in the environments with the new rules: requests for two
// environments and for certain slots, with priorities and keys, their removal, and pauses.

import (
	"slices"
	"time"
)

// busyNew are the environments that visitNewRules uses, for the reason that busy has.
var busyNew = []string{"n", "p2", "x", "y2"}

// leavePair ends in some way a request for two environments, for which a slot is kept. Another
// client waits for that slot.
func (v *visitor) leavePair() {
	first, both := v.pair("left")
	both.wait, both.beside = time.Millisecond, "next"
	_, next := v.pair("next")
	next.wait = 300 * time.Millisecond
	if v.insist(first, false).status == 201 {
		kept := v.insist(both, false)
		v.beside(next, func() {
			time.Sleep(50 * time.Millisecond)
			leave := both.again(endID)
			switch v.random.IntN(3) {
			case 0:
				leave.beside = ""
			case 1:
				if kept.number != 0 {
					leave = entry{kind: removeForced, environment: "left", name: both.name, waiter: kept.number}
				}
			}
			v.insist(leave, false)
		})
	}
	for _, e := range []entry{first, both, next} {
		v.end(e)
	}
}

// waitForResume resumes an environment while a client waits for it, or lets the pause end.
func (v *visitor) waitForResume() {
	_, next := v.pair("idle")
	next.wait = 300 * time.Millisecond
	p := entry{kind: pauseSlots, environment: "idle", other: "boss"}
	if v.chance(20) {
		p.ttl, next.wait = time.Second, 3*time.Second+slack
	}
	if v.call(p, faithful, 0).status == 200 {
		v.beside(next, func() {
			time.Sleep(50 * time.Millisecond)
			if p.ttl == 0 {
				v.insist(entry{kind: resumeSlots, environment: "idle", other: "boss"}, false)
			}
		})
	}
	v.insist(entry{kind: resumeSlots, environment: "idle", other: "boss"}, false)
	v.end(next)
}

// visitNewRules makes one request of a random kind, from its begin to its end, or pauses
// something.
func (v *visitor) visitNewRules() {
	e := v.newRequest()
	switch n := v.random.IntN(100); {
	case n < 60:
		v.waitAndHold(e)
	case n < 66:
		e.key = ""
		v.tryNow(e)
	case n < 70:
		v.withoutID(entry{environment: e.environment, slot: e.slot, name: e.name})
	case n < 73:
		v.as2019(entry{environment: e.environment})
	case n < 76:
		v.force(e)
	case n < 79:
		v.takeOver(entry{environment: e.environment, name: e.name})
	case n < 84:
		v.remove(e.all()[v.random.IntN(len(e.all()))])
	case n < 92:
		v.pause(e.all()[v.random.IntN(len(e.all()))])
	case n < 93:
		v.pauseAll()
	default:
		for _, environment := range e.all() {
			v.call(entry{kind: look, environment: environment}, faithful, 0)
		}
		v.rest(5 * time.Millisecond)
	}
}

// newRequest returns a request that has no kind yet.
func (v *visitor) newRequest() entry {
	e := entry{name: v.newName(), environment: busyNew[v.random.IntN(len(busyNew))]}
	if v.chance(50) {
		e.priority = []int{-5, 3, 10}[v.random.IntN(3)]
	}
	isKeyed := v.chance(25)
	switch e.environment {
	case "n":
		isKeyed = v.chance(70)
	case "p2":
		e.slot = []string{"", "", "p2-1", "p2-2"}[v.random.IntN(4)]
	case "x":
		if v.chance(70) {
			e.beside, e.besideSlot = "y2", []string{"", "", "", "y2-1"}[v.random.IntN(4)]
		}
	}
	if isKeyed {
		e.key = []string{"main", "branch"}[v.random.IntN(2)]
	}
	return e
}

// beginAnew makes a request with the key of one that has ended, as a client that has lost its
// place in the queue does: with the number that it got at first.
func (v *visitor) beginAnew(e entry, number uint64) {
	if e.first == 0 {
		e.first = number
	}
	e.name = v.newName()
	v.waitAndHold(e)
}

// partly renews or ends a part of what a request for two environments has.
func (v *visitor) partly(e entry) {
	if e.beside == "" || !v.chance(20) {
		return
	}
	part := e.again([]askKind{renewID, endID}[v.random.IntN(2)])
	part.environment, part.beside = e.all()[v.random.IntN(2)], ""
	v.insist(part, false)
	if v.chance(50) {
		v.insist(e.again(renewID), true)
	}
	if v.chance(30) {
		v.insist(e, false)
	}
}

// remove removes somebody from the queue of an environment, by the number that a look shows.
func (v *visitor) remove(environment string) {
	queue := v.call(entry{kind: look, environment: environment}, faithful, 0).view.Queue
	if len(queue) == 0 {
		return
	}
	w := queue[v.random.IntN(len(queue))]
	v.rest(30 * time.Millisecond)
	v.insist(entry{kind: removeForced, environment: environment, name: w.Holder, waiter: w.Number}, false)
	v.call(entry{kind: look, environment: environment}, faithful, 0)
}

// pause pauses an environment or a slot of it. Meanwhile it looks, and tries to take what it
// has paused. It resumes it, or leaves that to the time.
func (v *visitor) pause(environment string) {
	p := entry{kind: pauseSlots, environment: environment, other: []string{"boss", "chief"}[v.random.IntN(2)], force: v.chance(15)}
	if slots := v.slotsOf(environment); len(slots) > 1 && v.chance(60) {
		p.slot = slots[v.random.IntN(len(slots))]
	}
	if v.chance(40) {
		p.ttl = time.Second
	}
	switch v.call(p, faithful, 0).status {
	case 200:
	case 409:
		return
	default: // not again: on a full disk there is no pause
		v.insist(entry{kind: resumeSlots, environment: environment, slot: p.slot, other: "boss"}, false)
		return
	}
	v.call(entry{kind: look, environment: environment}, faithful, 0)
	if v.chance(30) {
		v.takeOver(entry{environment: environment, name: v.newName()})
	}
	if v.chance(20) {
		p.ttl, p.force = time.Second, true
		v.call(p, faithful, 0)
	}
	v.rest(80 * time.Millisecond)
	if v.chance(30) {
		v.call(entry{kind: plainLook, environment: environment}, faithful, 0)
	}
	if p.ttl == 0 || v.chance(60) {
		v.insist(entry{kind: resumeSlots, environment: environment, slot: p.slot, other: "boss"}, false)
	}
}

// pauseAll pauses all environments for a moment.
func (v *visitor) pauseAll() {
	v.call(entry{kind: pauseSlots, other: "boss", ttl: time.Second, force: true}, faithful, 0)
	v.rest(30 * time.Millisecond)
	v.insist(entry{kind: resumeSlots, other: "boss"}, false)
}

// slotsOf returns the names of the slots of an environment.
func (v *visitor) slotsOf(environment string) []string {
	for _, g := range v.parts {
		if i := slices.Index(g.environments, environment); i >= 0 {
			from, to := g.slotsOf(i)
			return g.slots[from:to]
		}
	}
	return nil
}
