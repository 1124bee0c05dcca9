package main

// Newest wins and the removal of a waiter on the client's side: what a request tells of itself,
// what it is told when somebody else has ended it, and the call that removes another one.

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
)

// A newestWins is what a request for newest wins has besides its other terms.
type newestWins struct {
	key   string // of what the request is about; empty: newest does not win
	first uint64 // the number that its first request was given; zero until it is known
}

// set adds the parameters of a request.
func (n *newestWins) set(v url.Values) {
	if n == nil || n.key == "" {
		return
	}
	v.Set("supersede", n.key)
	if n.first != 0 {
		v.Set("first", strconv.FormatUint(n.first, 10))
	}
}

// note keeps the number that a request in the queue was given, if it is the first one.
func (n *newestWins) note(number uint64) {
	if n != nil && n.first == 0 {
		n.first = number
	}
}

// noteGranted keeps the number of a request that was granted at once: the smallest fence of its
// leases.
func (n *newestWins) noteGranted(leases []leaseJSON) {
	smallest := leases[0].Fence
	for _, l := range leases {
		smallest = min(smallest, l.Fence)
	}
	n.note(smallest)
}

// endedByOthers returns errSuperseded or errRemoved if the answer says that somebody else has
// ended the caller's request, which waited; nil otherwise.
func (e *apiError) endedByOthers() error {
	if e.Code != http.StatusGone || e.Ended == nil {
		return nil
	}
	switch e.Ended.How {
	case endedByNewer:
		return errSuperseded
	case endedByRemoval:
		return errRemoved
	}
	return nil
}

// isEndedByOthers reports whether somebody else has ended the request for good: its client does
// not begin anew.
func isEndedByOthers(err error) bool {
	return errors.Is(err, errSuperseded) || errors.Is(err, errRemoved)
}

// A removal names a waiter that is removed, and says who does so and why.
type removal struct {
	environment string
	number      uint64
	by, reason  string
}

// remove removes a waiter from the queue, and from all others that it is in. It repeats a call
// that fails as release does. The error is errNotWaiting if the number waits no more; nothing
// is ended then. Other errors: *apiError and those of try.
func (c *client) remove(ctx context.Context, which removal, onRetry onRetry) error {
	r := c.newRetrier(maxFirstResponse, onRetry)
	r.insists = true
	values := url.Values{"environment": {which.environment}, "force": {"1"}, "holder": {which.by},
		"waiter": {strconv.FormatUint(which.number, 10)}}
	if which.reason != "" {
		values.Set("reason", which.reason)
	}
	err := c.try(ctx, r, c.callLimit(), http.MethodDelete, "/maybe", values, nil)
	if errors.Is(err, errNotHeld) {
		err = fmt.Errorf("%w: %d has its slot on %s, or has ended",
			errNotWaiting, which.number, which.environment)
		if r.repeated {
			err = fmt.Errorf("%w, perhaps by an earlier attempt of this call", err)
		}
	}
	return err
}
