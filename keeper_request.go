package main

// How the keeper is called: the calls, the inbox that takes them from any goroutine, and
// the functions that send a call and wait for its reply. What the keeper does with a call
// is in keeper_batch.go; reading needs no call, see keeper_view.go.

import (
	"context"
	"sync"
	"time"
)

// A callKind is what a call asks for. The calls of one batch are applied in the order of
// their kinds: keeper.apply says why.
type callKind int

const (
	callRenew callKind = iota
	callLeave          // the connection of another call has ended
	callRelease
	callPause // expiries are applied after pauses, before requests
	callRequest
	callGiveUp // another call has waited for its time
)

// A call is one call of the keeper. The caller sets the fields of the first group that its
// kind needs, sends the call once, and then only receives from reply.
type call struct {
	kind        callKind
	environment string
	others      []string // further environments that the call names
	request     request
	wait        bool          // callRequest: enter the queue if no slot is free
	claim       time.Duration // callRequest: that of the lease; zero if none
	take        takeover      // callRequest: without wait, take a lease over
	renewal     renewal
	release     releaseRequest // callRelease: a hand-over if it has a new holder
	pause       pauseRequest   // callPause: the environment of the call may be everywhere
	other       *call          // callLeave, callGiveUp: the other call

	reply chan reply // with space for the only reply; nil if none is wanted

	// The fields that follow are used by the keeper only.
	waiter     *waiter // whose grant the call waits for; nil if none
	granted    *lease  // the lease that the reply has; nil if none
	replied    bool    // the reply has been sent
	callerGone bool    // the connection has ended
}

// A reply is the result of a call when it was committed. Its leases are as they
// were then.
type reply struct {
	err    error
	own    []leaseView // the caller's, see result
	given  []leaseView // see result
	ended  *requestEnd
	pause  *pause // see result
	number uint64 // of the caller's waiter; zero if it has none

	// With an error: an environment that the call names, its leases, and the waiter's position
	// in its queue, zero if it is not there. Of several it is the one in which the waiter has
	// the largest position.
	environment string
	leases      []leaseView
	position    int
	pauses      []*pause        // with errNoSlot: those of all environments that the call names
	waiter      *waiter         // the caller's; nil if it is not in a queue
	state       *publishedState // that these are of; nil without an error
}

// An inbox has the calls that have arrived and that the keeper has not taken yet. Its
// methods may be called from any goroutine.
type inbox struct {
	wake chan struct{} // has a value if the keeper should begin a batch

	mu      sync.Mutex
	calls   []*call
	arrived int  // how many calls have arrived since the start
	closed  bool // no call is accepted any more
}

// newInbox returns an open inbox without calls.
func newInbox() inbox { return inbox{wake: make(chan struct{}, 1)} }

// put adds a call. It returns false, and ignores the call, if the inbox is closed.
func (in *inbox) put(c *call) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if !in.closed {
		in.calls = append(in.calls, c)
		in.arrived++
	}
	return !in.closed
}

// wakeUp makes the keeper begin a batch, now or when it has finished the current one. It
// never blocks.
func (in *inbox) wakeUp() {
	select {
	case in.wake <- struct{}{}:
	default:
	}
}

// takeAll removes the calls from the inbox and returns them in the order of their arrival.
func (in *inbox) takeAll() []*call {
	in.mu.Lock()
	defer in.mu.Unlock()
	calls := in.calls
	in.calls = nil
	return calls
}

// close returns the calls that are left. After it put accepts none.
func (in *inbox) close() []*call {
	in.mu.Lock()
	defer in.mu.Unlock()
	calls := in.calls
	in.calls, in.closed = nil, true
	return calls
}

// count returns how many calls have arrived since the start.
func (in *inbox) count() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.arrived
}

// ask sends a call that does not wait in the queue, and returns its reply. That takes as
// long as one commit or two. The error is errStopping after close.
func (k *keeper) ask(c *call) reply {
	c.reply = make(chan reply, 1)
	if !k.send(c) {
		return errorReply(errStopping)
	}
	return <-c.reply
}

// errorReply returns a reply that has only an error.
func errorReply(err error) reply { return reply{err: err} }

// send sends a call to the keeper, and does not wait for the reply. It returns false, and
// there is no reply, if the keeper has been closed. Otherwise there is one, which may be
// errStopping.
func (k *keeper) send(c *call) bool {
	if !k.inbox.put(c) {
		return false
	}
	if c.kind != callRenew || !k.applyRenewals(c) {
		k.inbox.wakeUp()
	}
	return true
}

// applyRenewals applies the renewals in the inbox that need no store, and reports whether c has
// its reply. A renewal does not wait for the keeper, which may be waiting for the disk.
func (k *keeper) applyRenewals(c *call) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.drainInbox()
	return c.replied
}

// requestSlot sends a request and returns its reply. If c.wait is true, the request waits
// in the queue for up to wait, and then gets errNoSlot. If ctx ends before the reply, or
// together with a grant to a request without id, the caller has left: the error is errGone,
// and a grant to a request without id is undone. Without c.wait, ctx has no effect.
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
	var r reply
	select {
	case r = <-c.reply:
	case <-ctx.Done():
		return k.sendLeave(c)
	case <-timer.C:
		k.send(&call{kind: callGiveUp, environment: c.environment, other: c})
		r = <-c.reply
	}
	if len(r.own) > 0 && c.request.id == "" && ctx.Err() != nil {
		return k.sendLeave(c)
	}
	return r
}

// sendLeave notifies the keeper that the caller of c has left, and returns errGone.
func (k *keeper) sendLeave(c *call) reply {
	k.send(c.leaveCall())
	return errorReply(errGone)
}
