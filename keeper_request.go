package main

// What callers hand to the keeper, how they wait for its answer, and what
// they may look at without asking it.

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"
)

// What the keeper answers besides the refusals of the rules.
var (
	errUndeclared = errors.New("no such environment")
	errStopping   = errors.New("the server is stopping")
	errBusy       = errors.New("too many are waiting")
	errUnknown    = errors.New("the disk failed: it is unknown whether this took effect") // retry with the same id
	errFull       = errors.New("the server's disk is full: nothing new is taken in")
	errGone       = errors.New("the caller has left")
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
	departure   departure
	of          *call // callLeave, callGiveUp: whose

	reply chan answer // takes the one answer; nil where nobody waits for it

	// The keeper's own.
	place    *place
	granted  *lease
	answered bool
	gone     bool // its connection is
}

// An answer is the outcome of a call, as it was when it was committed.
type answer struct {
	outcome
	held     []lease // on a refusal: who has the environment
	position int     // of a caller who was in line; 0: is not
}

// An inbox holds what has arrived for the keeper.
type inbox struct {
	wake chan struct{} // has a value when something may have arrived

	mu     sync.Mutex
	calls  []*call
	came   int  // so many calls have, ever
	closed bool // nothing is taken any more
}

func newInbox() inbox { return inbox{wake: make(chan struct{}, 1)} }

// put reports whether the call will be looked at.
func (b *inbox) put(c *call) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed {
		b.calls = append(b.calls, c)
		b.came++
	}
	return !b.closed
}

// rouse lets the keeper begin its next round, if it has none under way, or once
// more after that.
func (b *inbox) rouse() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// empty takes the calls out.
func (b *inbox) empty() []*call {
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
	return b.came
}

// ask hands the call to the keeper and waits for the answer: as long as one
// commit takes, or two.
func (k *keeper) ask(c *call) answer {
	c.reply = make(chan answer, 1)
	if !k.send(c) {
		return errorAnswerOf(errStopping)
	}
	return <-c.reply
}

func errorAnswerOf(err error) answer { return answer{outcome: outcome{err: err}} }

// send reports whether the keeper takes the call: then it answers it, in the end
// with errStopping.
func (k *keeper) send(c *call) bool {
	if !k.inbox.put(c) {
		return false
	}
	if c.kind != callRenew || !k.renewed(c) {
		k.inbox.rouse()
	}
	return true
}

// renewed reports whether a renewal that has arrived is done: it need not wait
// for the keeper, who may wait for the disk.
func (k *keeper) renewed(c *call) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.take()
	return c.answered
}

// askForSlot asks for a slot and waits in line for up to wait. It ends early
// with errGone when ctx does: the caller has left, and a grant to one without
// an id is taken back.
func (k *keeper) askForSlot(ctx context.Context, c *call, wait time.Duration) answer {
	if !c.wait {
		return k.ask(c)
	}
	c.reply = make(chan answer, 1)
	if !k.send(c) {
		return errorAnswerOf(errStopping)
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	var a answer
	select {
	case a = <-c.reply:
	case <-ctx.Done():
		return k.gone(c)
	case <-timer.C:
		k.send(&call{kind: callGiveUp, environment: c.environment, of: c})
		a = <-c.reply
	}
	if a.lease != nil && c.request.id == "" && ctx.Err() != nil {
		return k.gone(c)
	}
	return a
}

// gone tells the keeper that the caller has left.
func (k *keeper) gone(c *call) answer {
	k.send(c.departs())
	return errorAnswerOf(errGone)
}

// A view is what anyone may know of an environment: copies, as committed.
// Nothing in it is a proof of ownership.
type view struct {
	name   string
	slots  []string // declared
	leases []lease
	line   []place
}

// open reports whether a POST without wait would be granted now; errUndeclared
// where there is no such environment.
func (k *keeper) open(name string) (bool, error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if e := k.shown[name]; e != nil && (e.slots != nil || !e.idle()) {
		return e.open(), nil
	}
	if k.slots(name) == nil {
		return false, errUndeclared
	}
	return true, nil
}

// view returns one environment; errUndeclared where there is no such.
func (k *keeper) view(name string) (view, error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if e := k.shown[name]; e != nil {
		return e.view(), nil
	}
	slots := k.slots(name)
	if slots == nil {
		return view{}, errUndeclared
	}
	return view{name: name, slots: slots}, nil
}

// views returns the declared environments and all that have a lease or a
// line, in the order of their names.
func (k *keeper) views(declared []string) []view {
	k.mu.RLock()
	defer k.mu.RUnlock()
	views := make([]view, 0, len(k.shown)+len(declared))
	for _, e := range k.shown {
		views = append(views, e.view())
	}
	for _, name := range declared {
		if k.shown[name] == nil {
			views = append(views, view{name: name, slots: k.slots(name)})
		}
	}
	slices.SortFunc(views, func(a, b view) int { return strings.Compare(a.name, b.name) })
	return views
}

// each calls f for every environment that has a lease or a line, as committed.
// f must be quick, and keep nothing.
func (k *keeper) each(f func(e *environment)) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	for _, e := range k.shown {
		f(e)
	}
}

func (e *environment) view() view {
	v := view{name: e.name, slots: e.slots, leases: e.leaseCopies(), line: make([]place, len(e.line))}
	for i, p := range e.line {
		v.line[i] = *p
	}
	return v
}

func (e *environment) leaseCopies() []lease {
	copies := make([]lease, len(e.leases))
	for i, l := range e.leases {
		copies[i] = *l
	}
	return copies
}
