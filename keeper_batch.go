package main

// One group of calls on its way: the rules are applied to it in one round,
// and once the round is stored, it is made visible and answered.

import (
	"log/slog"
	"runtime"
	"slices"
	"time"
)

// A group is one round on its way to the disk.
type group struct {
	*round
	calls    []*call
	requests int       // where the requests begin among calls; releases and renewals stand before them
	answers  []outcome // of calls; the zero outcome: none yet
	touched  []*environment
	late     []*call // gave up while their slot was being granted
	gaveUp   []*call // gave up while they were in line
	drop     int     // events that the commit deletes
	lean     bool    // there was no space: without history
	log      []slog.Record
}

// apply runs the rules: renewals, releases, expiries, then requests.
func (k *keeper) apply(calls []*call, ticked bool, now time.Time) *group {
	k.mu.Lock()
	defer k.mu.Unlock()
	inOrder(calls)
	g := &group{round: &round{now: now, next: k.next, past: k.past}, calls: calls, answers: make([]outcome, len(calls))}
	g.requests, _ = slices.BinarySearchFunc(calls, callRequest, func(c *call, kind callKind) int { return int(c.kind) - int(kind) })
	for i, c := range calls[:g.requests] {
		g.answers[i] = k.applyOne(g, c)
	}
	var due []*environment
	for e := k.due(ticked, now); e != nil; e = k.due(ticked, now) {
		if due = append(due, e); e.tick(g.round) || len(e.line) > 0 && e.free() > 0 {
			g.touched = append(g.touched, e)
		}
	}
	for _, e := range g.touched {
		e.serve(g.round)
	}
	for _, e := range due {
		k.agenda.addAll(e)
	}
	for i, c := range calls[g.requests:] {
		g.answers[g.requests+i] = k.applyOne(g, c)
	}
	return g
}

// due returns an environment that is to be looked at in this round.
func (k *keeper) due(ticked bool, now time.Time) *environment {
	if !ticked {
		return nil
	}
	return k.agenda.next(now)
}

// inOrder sorts calls by their kinds; those of one kind stay as they came.
func inOrder(calls []*call) {
	slices.SortStableFunc(calls, func(a, b *call) int { return int(a.kind) - int(b.kind) })
}

func (k *keeper) applyOne(g *group, c *call) outcome {
	e := k.environment(k.environments, c.environment)
	g.touched = append(g.touched, e)
	if e.slots == nil && (c.kind == callRequest || e.idle() && !k.endedHere(c)) {
		return outcome{err: errUndeclared}
	}
	switch c.kind {
	case callRenew:
		return e.renew(g.round, c.renewal)
	case callLeave:
		k.leave(g, e, c.of)
	case callRelease:
		return e.release(g.round, c.departure)
	case callRequest:
		return k.request(g, e, c)
	case callGiveUp:
		k.giveUp(g, e, c.of)
	}
	return outcome{}
}

// endedHere reports whether a release repeats one that is remembered.
func (k *keeper) endedHere(c *call) bool {
	return c.kind == callRelease && k.past.endOfLease(c.environment, c.departure.selector, time.Now()) != nil
}

func (k *keeper) request(g *group, e *environment, c *call) outcome {
	before := e.byID[c.request.id]
	known, away := before != nil || e.leaseOf(c.request.id) != nil, before != nil && !before.present
	switch {
	case c.gone || c.answered:
		return outcome{err: errGone}
	case !known && c.wait && k.waiters >= k.maxWaiters && e.free() <= len(e.line):
		return outcome{err: errBusy}
	case !known && k.tight:
		return outcome{err: errFull}
	}
	o := e.request(g.round, c.request, c.wait, c.claim)
	switch {
	case o.place == nil || o.lease != nil:
	case !c.wait: // a look of somebody who is in line: it is not a wait
		if away {
			k.absent(e, o.place, g.now)
		}
		o.err = errNoSlot
	default:
		c.place = o.place
		k.waiting[c.place] = append(k.waiting[c.place], c)
		k.waiters++
	}
	return o
}

// leave is told when a call's connection is gone.
func (k *keeper) leave(g *group, e *environment, c *call) {
	c.gone = true
	switch p := c.place; {
	case c.granted != nil && c.request.id == "":
		e.release(g.round, departure{selector: selector{fence: c.granted.fence}, undo: true})
	case p == nil:
	case !p.kept() && e.position(p) > 0:
		k.unwait(c, g.now)
		e.leave(g.round, p, left)
	case !c.answered:
		k.unwait(c, g.now)
	}
}

// giveUp ends the waiting of a call whose time is up.
func (k *keeper) giveUp(g *group, e *environment, c *call) {
	switch p := c.place; {
	case c.answered || p == nil:
	case e.position(p) == 0: // granted in this very round
		g.late = append(g.late, c)
	default:
		k.unwait(c, g.now)
		g.gaveUp = append(g.gaveUp, c)
		if !p.kept() {
			e.leave(g.round, p, left)
		}
	}
}

// unwait takes a call out of those that wait for its place. When it was the
// newest, the place is absent from now on.
func (k *keeper) unwait(c *call, now time.Time) {
	calls := k.waiting[c.place]
	i := slices.Index(calls, c)
	if i < 0 {
		return
	}
	if k.waiters--; i == len(calls)-1 {
		k.absent(k.environments[c.environment], c.place, now)
	}
	if k.waiting[c.place] = slices.Delete(calls, i, i+1); len(calls) == 1 {
		delete(k.waiting, c.place)
	}
}

// absent notes that nobody is connected for a place any more. The environment
// is nil when the place was not in its line after all.
func (k *keeper) absent(e *environment, p *place, now time.Time) {
	if p.present, p.absent = false, now; e != nil {
		k.agenda.add(e, now.Add(absence))
	}
}

func (k *keeper) absentUnlessWaiting(e *environment, p *place, now time.Time) {
	if len(k.waiting[p]) == 0 {
		k.absent(e, p, now)
	}
}

// stored reports whether the group must go to the disk.
func (g *group) stored() bool {
	return slices.ContainsFunc(g.changes, func(c change) bool {
		return c.event != nil || c.oldLease != nil || c.newLease != nil || c.newPlace != nil && c.newPlace.kept() || c.oldPlace != nil && c.oldPlace.kept()
	})
}

// publish makes a group visible, answers it and logs it.
func (k *keeper) publish(g *group) {
	k.show(g)
	runtime.Gosched() // whoever was answered runs before the log is written
	k.writeLog(g)
}

// show makes a group visible and answers it. It adds the lines for the log to
// the group.
func (k *keeper) show(g *group) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	for _, c := range g.changes {
		if l := c.newLease; l != nil {
			if l.start(now); !l.deadline.IsZero() {
				k.agenda.add(c.environment, l.deadline)
			}
		}
		if c.event == nil {
			k.environment(k.shown, c.environment.name).apply(c)
		} else {
			k.metrics.count(c.event)
		}
		g.logChange(c, now)
	}
	if g.lean {
		k.past.setAside()
		k.shrink = false
	}
	k.past.publish(g.drop, now)
	k.tellListeners(len(g.changes))
	k.answerCalls(g, 0, g.requests)
	k.answerLine(g) // after those who release: whoever is woken last runs first
	for _, c := range g.gaveUp {
		k.answer(c, outcome{err: errNoSlot, place: c.place})
	}
	k.answerCalls(g, g.requests, len(g.calls))
	k.forgetIdle(g)
}

// answerCalls answers a part of the calls: all but those that are in line now.
func (k *keeper) answerCalls(g *group, from, to int) {
	for i, c := range g.calls[from:to] {
		o := g.answers[from+i]
		if o.place == nil || o.lease != nil || o.err != nil {
			k.answer(c, o)
		}
		if c.kind == callRenew && o.err != nil {
			e := &event{environment: c.environment, id: c.renewal.id, holder: c.renewal.holder}
			g.logEvent(time.Now(), "renewal refused", e, slog.Any("error", o.err))
		}
	}
}

// tellListeners wakes those who watch, and never waits for one.
func (k *keeper) tellListeners(changes int) {
	if changes == 0 {
		return
	}
	for c := range k.listeners {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// forgetIdle makes an environment without lease and line cost nothing.
func (k *keeper) forgetIdle(g *group) {
	for _, e := range g.touched {
		if e.idle() {
			delete(k.environments, e.name)
			delete(k.shown, e.name)
			k.agenda.remove(e)
		}
	}
}

// answerLine answers those whose place in the line has ended.
func (k *keeper) answerLine(g *group) {
	for _, h := range g.handed {
		k.answerPlace(h.place, outcome{lease: h.lease})
	}
	for _, c := range g.changes {
		if p := c.oldPlace; p != nil && c.newPlace == nil {
			k.answerPlace(p, outcome{err: errEnded, ended: k.past.endOf(c.environment.name, idKey, p.id, g.now)})
		}
	}
}

func (k *keeper) answerPlace(p *place, o outcome) {
	calls := k.waiting[p]
	delete(k.waiting, p)
	k.waiters -= len(calls)
	for _, c := range calls {
		k.answer(c, o)
	}
}

// answer gives a call its one answer. The caller holds mu.
func (k *keeper) answer(c *call, o outcome) {
	if c.answered || c.reply == nil {
		return
	}
	c.answered = true
	a := answer{outcome: o}
	if o.lease != nil {
		c.granted = o.lease
		l := *o.lease
		a.lease = &l
	}
	if e := k.shown[c.environment]; e != nil && o.err != nil {
		a.held = e.leaseCopies()
		if o.place != nil {
			a.position = e.position(o.place)
		}
	}
	c.reply <- a
}
