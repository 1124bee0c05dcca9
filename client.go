package main

// The client's operations: acquire and renew a slot, and end a request.
//
// Not here: the release by a holder (client_release.go), reading the state
// (client_state.go) and the history (client_view.go), the stream of events
// (client_events.go), one HTTP call (client_http.go), when a call is repeated
// (client_retry.go), and output. The client prints nothing; terminal*.go does.

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"
)

const (
	pollTime  = 25 * time.Second // how long the server may hold a poll: less than every proxy's idle limit
	pollGrace = 3 * time.Second  // for the response to a poll after its wait; see waitInQueue
	claimTime = 30 * time.Second // after which the server ends a grant that is not confirmed
	callTime  = 10 * time.Second // for the response to any other call
	leaveTime = 2 * time.Second  // for leave
)

// acquireOptions are what a request for a slot asks for.
type acquireOptions struct {
	environment string
	holder      string
	url         string
	reason      string
	ttl         time.Duration // of the lease; zero if it lasts until it is released
	slot        string        // that it must be; empty: any
	needs       []slotNeed    // of a request for several slots, of which environment is the first
	priority    int           // from -maxPriority to maxPriority
	maxHold     time.Duration // the longest hold; zero: what the server allows
	timeout     time.Duration // for the whole acquire; zero if there is no limit
	noWait      bool          // do not enter the queue
	forRun      bool          // run requests the slot for its command
	newest      *newestWins   // nil if newest does not win
	anyTTL      bool          // the user has named no ttl: that which the key allows will do
	leastTTL    time.Duration // with anyTTL: none that is shorter
	notes       acquireNotes  // nil if none are made
	server      string        // URL of the first server, for links to its page; empty if not known
}

// An acquireNotes makes notes of the requests of acquire, so that the other commands of
// the same job or script know of them.
type acquireNotes interface {
	// asked is called before a request is sent for the first time.
	asked(id string)

	// granted is called when the server has granted the slots, before acquire confirms them.
	granted(id string, leases []leaseJSON)

	// refused is called when the request has ended without a slot.
	refused(id string)

	// dropped is called instead if the server accepts no call of this client.
	dropped(id string)

	// has reports whether an earlier request of this job or script got the lease with the
	// fence.
	has(fence uint64) bool
}

// noNotes are the notes of an acquire that makes none.
type noNotes struct{}

func (noNotes) asked(string)                {}
func (noNotes) granted(string, []leaseJSON) {}
func (noNotes) refused(string)              {}
func (noNotes) dropped(string)              {}
func (noNotes) has(uint64) bool             { return false }

// isOwn reports whether a lease is of this very job or script: of a run around this
// process, or of an earlier request, by its notes.
func (o acquireOptions) isOwn(l leaseJSON) bool {
	return isFenceOfRun(l.Fence) ||
		string(l.Holder) == o.holder && o.notes != nil && o.notes.has(l.Fence)
}

// waitsForItself reports whether all slots of an environment that a refusal is about are held
// by this very job or script, so that none can come free while it waits.
func (o acquireOptions) waitsForItself(reply errorJSON) bool {
	isOther := func(l leaseJSON) bool { return !o.isOwn(l) }
	return slices.ContainsFunc(reply.lacks(), func(l lackJSON) bool {
		return len(l.HeldBy) > 0 && len(l.Kept) == 0 && !slices.ContainsFunc(l.HeldBy, isOther)
	})
}

// An acquireListener is notified of the progress of acquire.
type acquireListener interface {
	// queued reports the state of the queue after each poll without a grant.
	queued(body errorJSON)

	// retrying is the onRetry of acquire.
	retrying(err error, until time.Time)

	// restarted reports that the request ended at the server. A new request enters
	// the end of the queue.
	restarted(why errorJSON)

	// acquired reports that the leases are confirmed, and the time since acquire began.
	acquired(granted grantedJSON, waited time.Duration)
}

// values returns the parameters of a request with this id.
func (o acquireOptions) values(id string) url.Values {
	v := url.Values{"id": {id}, "holder": {o.holder}, "ttl": {o.ttl.String()}}
	o.setNeeds(v)
	if o.url != "" {
		v.Set("url", o.url)
	}
	if o.reason != "" {
		v.Set("reason", o.reason)
	}
	if o.priority != 0 {
		v.Set("priority", strconv.Itoa(o.priority))
	}
	if o.maxHold != 0 {
		v.Set("max_hold", o.maxHold.String())
	}
	o.newest.set(v)
	return v
}

// A grant is what a request was granted and the client has confirmed.
type grant struct {
	ttl time.Duration // that was asked for, or is allowed, see withAllowedTTL
	grantedJSON
	id     string        // of the request that owns the leases
	sent   time.Time     // when the confirming renewal was sent, by clockNow; the ttl counts from then
	waited time.Duration // since acquire began
}

// limit returns when the first of the leases has been held for as long as it may be, by
// clockNow, and how long that is; a zero time if there is no limit. It is never later than the
// server's: sent is when the call was sent of which this is the answer, and a slow call makes it
// earlier by its time.
func (g grantedJSON) limit(sent time.Time) (at time.Time, longest time.Duration) {
	for _, l := range g.all() {
		end := sent.Add(seconds(l.MaxHoldSeconds - l.HeldSeconds))
		if l.MaxHoldSeconds > 0 && (at.IsZero() || end.Before(at)) {
			at, longest = end, seconds(l.MaxHoldSeconds)
		}
	}
	return at, longest
}

// acquire requests a slot, waits in the queue until it is granted, and confirms the
// grant. If the request ends at the server meanwhile, acquire begins again with a new
// request. If acquire fails or ctx ends, it makes one attempt to end the request at the
// server (leave). Errors: errNoSlot without a free slot in time, if this very job or script
// has all slots itself, or if its holder has taken one over by another call; errSuperseded and
// errRemoved if somebody else has ended the request; *apiError, those of do, and ctx's.
func (c *client) acquire(ctx context.Context, o acquireOptions, listener acquireListener) (grant, error) {
	limit := o.timeout
	if o.noWait {
		limit = callTime
	}
	r := c.newRetrier(limit, listener.retrying)
	if o.notes == nil {
		o.notes = noNotes{}
	}
	for {
		id := newID()
		o.notes.asked(id)
		granted, err := c.waitInQueue(ctx, o, id, r, listener)
		similar := granted.Similar
		if err == nil {
			o.notes.granted(id, granted.all())
			o.newest.noteGranted(granted.all())
			granted, err = c.confirm(ctx, o, id, r)
			granted.Similar = similar
		}
		if err == nil {
			g := grant{ttl: o.ttl, grantedJSON: granted, id: id, sent: r.sent, waited: time.Since(r.started)}
			listener.acquired(granted, g.waited)
			return g, nil
		}
		var reply *apiError
		isHopeless := troubleOf(err) == hopeless && !c.answered.Load()
		isAccepted := !refusesKey(err) && !errors.Is(err, errMalformed) && !isHopeless
		o.noteFailure(id, isAccepted)
		allowed, mayBegin := o.withAllowedTTL(err)
		switch {
		case mayBegin:
			o = allowed
			continue
		case isEndedByOthers(err):
			return grant{}, err
		case errors.As(err, &reply) && hasLeft(reply.Ended):
			return grant{}, fmt.Errorf("%w: %s has taken over a slot of %s, and this request has left "+
				"its queue", errNoSlot, o.holder, reply.Environment)
		case errors.As(err, &reply) && (errors.Is(err, errEnded) || errors.Is(err, errNotHeld)):
			listener.restarted(reply.errorJSON)
			if o.needs != nil { // of several leases some may be left
				c.endOnce(o.environment, id, o.names()[1:]...)
			}
			if err := sleep(ctx, backOff(1)); err != nil {
				return grant{}, err
			}
			continue
		case !isAccepted,
			o.noWait && errors.Is(err, errNoSlot): // the server has nothing of this request
			return grant{}, err
		case !o.noWait && troubleOf(err) != noTrouble && c.answered.Load() && r.isLate():
			err = lateError{err}
		}
		c.endOnce(o.environment, id, o.names()[1:]...)
		return grant{}, err
	}
}

// A lateError ends a request whose server was in trouble when the time was over. It is errNoSlot,
// but does not say that no slot was free, which nobody knows.
type lateError struct{ trouble error }

func (e lateError) Error() string { return "no slot in time: " + e.trouble.Error() }

// Unwrap returns errNoSlot and the trouble.
func (e lateError) Unwrap() []error { return []error{errNoSlot, e.trouble} }

// noteFailure notes that a request has ended without a slot, or that the server accepts no call
// of this client.
func (o acquireOptions) noteFailure(id string, isAccepted bool) {
	if isAccepted {
		o.notes.refused(id)
	} else {
		o.notes.dropped(id)
	}
}

// waitInQueue polls until the slot is granted. The first poll does not wait: it enters
// the queue, and its response says who is ahead. Each later poll waits for pollTime at
// the server. A poll without a response pollGrace after its wait is given up, because the
// next one must reach the server within claimTime of a grant. Errors: errNoSlot after
// the deadline, with noWait or for a request that waits for itself, and those of try.
func (c *client) waitInQueue(
	ctx context.Context, o acquireOptions, id string, r *retrier, listener acquireListener,
) (granted grantedJSON, err error) {
	values := o.values(id)
	values.Set("claim", claimTime.String())
	wait, early := time.Duration(0), false
	for {
		if !r.deadline.IsZero() {
			wait = min(wait, max(0, time.Until(r.deadline)))
		}
		if !o.noWait {
			values.Set("wait", wait.String())
		}
		err := c.try(ctx, r, max(c.callLimit(), wait+pollGrace), http.MethodPost, "/maybe", values, &granted)
		var reply *apiError
		switch {
		case err == nil:
			return granted, nil
		case !errors.As(err, &reply) || !errors.Is(err, errNoSlot):
			return granted, err
		case o.noWait || r.isLate() || o.waitsForItself(reply.errorJSON):
			return granted, err
		}
		o.newest.note(reply.Number)
		o.newest.set(values) // for a server that has forgotten the request
		listener.queued(reply.errorJSON)
		if clockNow().Sub(r.sent) < wait/2 { // something between client and server cuts polls short
			early = true
		}
		if early {
			if err := sleep(ctx, maxBackOff); err != nil {
				return granted, err
			}
		}
		wait = pollTime
	}
}

// confirm renews the leases for the first time. The server ends a grant that is not
// renewed within claimTime, because the response with the grant may have been lost. If
// confirm comes later than that, its error is errNotHeld.
func (c *client) confirm(
	ctx context.Context, o acquireOptions, id string, r *retrier,
) (granted grantedJSON, err error) {
	selected := requestSelector(o.environment, id, o.names()[1:]...)
	err = c.try(ctx, r, c.callLimit(), http.MethodPut, "/maybe", selected, &granted)
	granted.arrange(o.needs)
	return granted, err
}

// endRequest ends a request: it releases its leases, or removes it from the queues. others
// are its further environments. It repeats the call while that may help (try), without a
// deadline but that of ctx. The error is errNotHeld if a lease of the request has ended
// otherwise.
func (c *client) endRequest(ctx context.Context, environment, id string, others ...string) error {
	r := c.newRetrier(0, nil)
	r.insists = true
	selected := requestSelector(environment, id, others...)
	return c.try(ctx, r, c.callLimit(), http.MethodDelete, "/maybe", selected, nil)
}

// requestSelector returns the parameters that select a request by its id. others are its
// further environments.
func requestSelector(environment, id string, others ...string) url.Values {
	return url.Values{"environment": append([]string{environment}, others...), "id": {id}}
}

// endOnce ends a request with one call of at most leaveTime. It has no context, so that it
// also works after an interrupt. Errors are ignored: the server also ends a request
// whose client is disconnected.
func (c *client) endOnce(environment, id string, others ...string) {
	ctx, cancel := context.WithTimeout(context.Background(), leaveTime)
	defer cancel()
	c.do(ctx, leaveTime, http.MethodDelete, "/maybe", requestSelector(environment, id, others...), nil)
}

// renewHeld renews the selected lease with the ttl, or with its own ttl if ttl is nil. It
// repeats a call that fails, for up to maxFirstResponse, and calls onRetry before the first
// repetition in a row. Errors: errNotHeld, errSeveral, *apiError and those of try.
func (c *client) renewHeld(
	ctx context.Context, which leaseSelector, ttl *time.Duration, report onRetry,
) (lease leaseJSON, err error) {
	values := which.values()
	if ttl != nil {
		values.Set("ttl", ttl.String())
	}
	r := c.newRetrier(maxFirstResponse, report)
	r.insists = true
	err = c.try(ctx, r, c.callLimit(), http.MethodPut, "/maybe", values, &lease)
	return lease, err
}

// A leaseSelector selects a lease by its holder and what else is known of it.
type leaseSelector struct {
	environment string
	holder      string
	fence       uint64 // zero if any
	slot        string // empty if any
}

// values returns the parameters that select the lease.
func (s leaseSelector) values() url.Values {
	values := url.Values{"environment": {s.environment}, "holder": {s.holder}}
	if s.fence != 0 {
		values.Set("fence", strconv.FormatUint(s.fence, 10))
	}
	if s.slot != "" {
		values.Set("slot", s.slot)
	}
	return values
}

// newID returns a random request id that cannot be guessed. It has at least 128 bits.
func newID() string { return rand.Text() }
