package main

// The replies of the keeper: which call of a committed batch gets which, and what a reply
// says of the published state.

import "errors"

// replyToCalls replies to the calls with indexes from (included) to to (excluded), except
// for those that wait in the queue now. It collects the refused renewals.
func (k *keeper) replyToCalls(b *callBatch, from, to int) {
	for i, c := range b.calls[from:to] {
		r := b.results[from+i]
		if r.waiter == nil || len(r.own) > 0 || r.err != nil {
			k.replyTo(c, r)
		}
		if c.kind == callRenew && r.err != nil {
			b.refused = append(b.refused, refusedRenewal{c.environment, c.renewal, r.err})
		}
	}
}

// replyToQueue replies to the calls of the waiters that the batch has removed from the
// queue: the leases if it was granted them, errWithdrawn if an environment is not declared
// any more, else errEnded.
func (k *keeper) replyToQueue(b *callBatch) {
	for _, h := range b.handovers {
		k.replyToWaiter(h.waiter, result{own: h.leases})
	}
	for _, c := range b.changes {
		if w := c.oldWaiter; w != nil && c.newWaiter == nil {
			r := result{err: errEnded}
			if end := k.history.endWithNumber(c.end); end != nil {
				found := *end // the end itself loses its event when that leaves the ring
				r.ended = &found
			}
			isUndeclared := r.ended == nil && c.environment.slots == nil // of a waiter without id
			if isUndeclared || r.ended != nil && r.ended.kind == eventUndeclared {
				r = result{err: errWithdrawn}
			}
			k.replyToWaiter(w, r)
		}
	}
}

// replyToWaiter replies to every call that waits for the waiter, and ends their waiting.
// The caller holds mu.
func (k *keeper) replyToWaiter(w *waiter, r result) {
	calls := k.waitingCalls[w]
	delete(k.waitingCalls, w)
	k.waitingCount -= len(calls)
	for _, c := range calls {
		k.replyTo(c, r)
	}
}

// replyTo sends a call its only reply: r, and if r is an error, the leases and the position
// of the published state. It does nothing if the call has its reply already, or wants none.
// It never blocks. The caller holds mu.
func (k *keeper) replyTo(c *call, r result) {
	if c.replied || c.reply == nil {
		return
	}
	c.replied = true
	full := reply{err: r.err, ended: r.ended, pause: r.pause}
	if r.waiter != nil {
		full.number = r.waiter.number
	}
	for _, l := range r.own {
		c.granted = l
		full.own = append(full.own, newLeaseView(l))
	}
	for _, l := range r.given {
		full.given = append(full.given, newLeaseView(l))
	}
	isOfLeases := !errors.Is(r.err, errSlots) && !errors.Is(r.err, errForbidden)
	if r.err != nil && isOfLeases {
		k.describe(&full, c, r.waiter, r.lost)
	}
	c.reply <- full
}

// describe sets the fields of a reply with an error that say how things stand, as published.
// w is the caller's waiter, or nil; lost is the environment that a lease is lost of, or empty.
func (k *keeper) describe(r *reply, c *call, w *waiter, lost string) {
	s := k.published.Load()
	r.waiter, r.state = w, s
	if lost != "" {
		r.environment = lost
		if v := s.find(lost); v != nil {
			r.leases = v.leases
		}
		return
	}
	r.environment = c.environment
	if errors.Is(r.err, errNoSlot) {
		r.pauses = s.pausesOf(append([]string{c.environment}, c.others...))
	}
	for _, name := range append([]string{c.environment}, c.others...) {
		v := s.find(name)
		if v == nil {
			continue
		}
		position := 0
		if w != nil {
			position = v.position(w)
		}
		isWorse := position > r.position || position == r.position && len(v.open) == 0 && len(r.leases) == 0
		if name == c.environment || isWorse {
			r.environment, r.leases, r.position = name, v.leases, position
		}
	}
}
