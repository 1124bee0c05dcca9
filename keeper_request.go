package main

// What callers hand to the keeper, how they wait for its answer, and what
// they may look at without asking it.

import (
	"context"
	"sync"
	"time"
)

// A callKind says what a call wants. In one round the calls are taken in the
// order of their kinds.
type callKind int

const (
	callRenew   callKind = iota
	callLeave            // another call's connection is gone
	callRelease          // between this and the next: expiry
	callRequest
	callGiveUp // another call has waited for as long as it wanted
)

// A call is one question to the keeper. Its maker sets the first group of
// fields and then only reads the reply.
type call struct {
	kind        callKind
	environment string
	request     request
	wait        bool
	claim       time.Duration
	renewal     renewal
	release     releaseRequest
	about       *call // callLeave, callGiveUp: whose

	reply chan reply // takes the one answer; nil where nobody waits for it

	// The keeper's own.
	waiter     *waiter
	granted    *lease
	replied    bool
	callerGone bool // its connection is
}

// An answer is the outcome of a call, as it was when it was committed.
type reply struct {
	result
	held     []lease // on a refusal: who has the environment
	position int     // of a caller who was in the queue; 0: is not
}

// An inbox holds what has arrived for the keeper.
type inbox struct {
	wake chan struct{} // has a value when something may have arrived

	mu      sync.Mutex
	calls   []*call
	arrived int  // so many calls have, ever
	closed  bool // nothing is taken any more
}

func newInbox() inbox { return inbox{wake: make(chan struct{}, 1)} }

// put reports whether the call will be looked at.
func (b *inbox) put(c *call) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed {
		b.calls = append(b.calls, c)
		b.arrived++
	}
	return !b.closed
}

// rouse lets the keeper begin its next round, if it has none under way, or once
// more after that.
func (b *inbox) wakeUp() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// empty takes the calls out.
func (b *inbox) takeAll() []*call {
	b.mu.Lock()
	defer b.mu.Unlock()
	calls := b.calls
	b.calls = nil
	return calls
}

func (b *inbox) close() []*call {
	b.mu.Lock()
	defer b.mu.Unlock()
	calls := b.calls
	b.calls, b.closed = nil, true
	return calls
}

// count returns how many calls have come so far.
func (b *inbox) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.arrived
}

// ask hands the call to the keeper and waits for the answer: as long as one
// commit takes, or two.
func (k *keeper) ask(c *call) reply {
	c.reply = make(chan reply, 1)
	if !k.send(c) {
		return errorReply(errStopping)
	}
	return <-c.reply
}

func errorReply(err error) reply { return reply{result: result{err: err}} }

// send reports whether the keeper takes the call: then it answers it, in the end
// with errStopping.
func (k *keeper) send(c *call) bool {
	if !k.inbox.put(c) {
		return false
	}
	if c.kind != callRenew || !k.renewed(c) {
		k.inbox.wakeUp()
	}
	return true
}

// renewed reports whether a renewal that has arrived is done: it need not wait
// for the keeper, who may wait for the disk.
func (k *keeper) renewed(c *call) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.drainInbox()
	return c.replied
}

// askForSlot asks for a slot and waits in the queue for up to wait. It ends early
// with errGone when ctx does: the caller has left, and a grant to one without
// an id is taken back.
func (k *keeper) requestSlot(ctx context.Context, c *call, wait time.Duration) reply {
	if !c.wait {
		return k.ask(c)
	}
	c.reply = make(chan reply, 1)
	if !k.send(c) {
		return errorReply(errStopping)
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	var a reply
	select {
	case a = <-c.reply:
	case <-ctx.Done():
		return k.callerGone(c)
	case <-timer.C:
		k.send(&call{kind: callGiveUp, environment: c.environment, about: c})
		a = <-c.reply
	}
	if a.lease != nil && c.request.id == "" && ctx.Err() != nil {
		return k.callerGone(c)
	}
	return a
}

// gone tells the keeper that the caller has left.
func (k *keeper) callerGone(c *call) reply {
	k.send(c.leaveCall())
	return errorReply(errGone)
}
