package main

// The client's operations: acquire, renew and release a slot, and read the state and
// the history of the server.
//
// Not here: one HTTP call (client_http.go), when a call is repeated (client_retry.go),
// and output. The client prints nothing; terminal*.go does.

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
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
	timeout     time.Duration // for the whole acquire; zero if there is no limit
	noWait      bool          // do not enter the queue
}

// An acquireListener is notified of the progress of acquire.
type acquireListener interface {
	// queued reports the state of the queue after each poll without a grant.
	queued(body errorJSON)

	// retrying reports the first failure in a row: the server could not be reached
	// or could not serve the call. The call is repeated.
	retrying(err error)

	// restarted reports that the request ended at the server. A new request enters
	// the end of the queue.
	restarted(why errorJSON)

	// acquired reports that the lease is confirmed, and the time since acquire began.
	acquired(lease leaseJSON, waited time.Duration)
}

// values returns the parameters of a request with this id.
func (o acquireOptions) values(id string) url.Values {
	v := url.Values{"environment": {o.environment}, "id": {id}, "holder": {o.holder}, "ttl": {o.ttl.String()}}
	if o.url != "" {
		v.Set("url", o.url)
	}
	if o.reason != "" {
		v.Set("reason", o.reason)
	}
	return v
}

// A grant is a lease that the client has confirmed.
type grant struct {
	leaseJSON
	id     string        // of the request that owns the lease
	sent   time.Time     // when the confirming renewal was sent; the ttl counts from then
	waited time.Duration // since acquire began
}

// acquire requests a slot, waits in the queue until it is granted, and confirms the
// grant. If the request ends at the server meanwhile, acquire begins again with a new
// request. If acquire fails or ctx ends, it makes one attempt to end the request at the
// server (leave). Errors: errNoSlot without a free slot in time, *apiError, those of do,
// and ctx's.
func (c *client) acquire(ctx context.Context, o acquireOptions, listener acquireListener) (grant, error) {
	r := &retrier{started: time.Now(), onRetry: listener.retrying}
	switch {
	case o.timeout > 0:
		r.deadline = r.started.Add(o.timeout)
	case o.noWait:
		r.deadline = r.started.Add(callTime)
	}
	for {
		id := newID()
		lease, err := c.waitInQueue(ctx, o, id, r, listener)
		similar := lease.Similar
		if err == nil {
			lease, err = c.confirm(ctx, o.environment, id, r)
			lease.Similar = similar
		}
		var reply *apiError
		switch {
		case err == nil:
			g := grant{leaseJSON: lease, id: id, sent: r.sent, waited: time.Since(r.started)}
			listener.acquired(lease, g.waited)
			return g, nil
		case errors.As(err, &reply) && (errors.Is(err, errEnded) || errors.Is(err, errNotHeld)):
			listener.restarted(reply.errorJSON)
			if err := sleep(ctx, backOff(1)); err != nil {
				return grant{}, err
			}
			continue
		case refusesKey(err),
			errors.Is(err, errUntrusted), errors.Is(err, errPlain), errors.Is(err, errSecure),
			errors.Is(err, errMalformed),
			o.noWait && errors.Is(err, errNoSlot): // the server has nothing of this request
			return grant{}, err
		case retryable(err) && r.responded && r.isLate():
			err = fmt.Errorf("%w in time: %w", errNoSlot, err)
		}
		c.endOnce(o.environment, id)
		return grant{}, err
	}
}

// waitInQueue polls until the slot is granted. The first poll does not wait: it enters
// the queue, and its response says who is ahead. Each later poll waits for pollTime at
// the server. A poll without a response pollGrace after its wait is given up, because the
// next one must reach the server within claimTime of a grant. Errors: errNoSlot after
// the deadline or with noWait, and those of try.
func (c *client) waitInQueue(
	ctx context.Context, o acquireOptions, id string, r *retrier, listener acquireListener,
) (lease leaseJSON, err error) {
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
		err := c.try(ctx, r, max(callTime, wait+pollGrace), http.MethodPost, "/maybe", values, &lease)
		var reply *apiError
		switch {
		case err == nil:
			return lease, nil
		case !errors.As(err, &reply) || !errors.Is(err, errNoSlot):
			return lease, err
		case o.noWait || r.isLate():
			return lease, err
		}
		listener.queued(reply.errorJSON)
		if time.Since(r.sent) < wait/2 { // something between client and server cuts polls short
			early = true
		}
		if early {
			if err := sleep(ctx, maxBackOff); err != nil {
				return lease, err
			}
		}
		wait = pollTime
	}
}

// confirm renews the lease for the first time. The server ends a grant that is not
// renewed within claimTime, because the response with the grant may have been lost. If
// confirm comes later than that, its error is errNotHeld.
func (c *client) confirm(
	ctx context.Context, environment, id string, r *retrier,
) (lease leaseJSON, err error) {
	err = c.try(ctx, r, callTime, http.MethodPut, "/maybe", requestSelector(environment, id), &lease)
	return lease, err
}

// endRequest ends a request: it releases its lease, or removes it from the queue. It repeats
// the call while that may help (try), without a deadline but that of ctx. The error is
// errNotHeld if the request has ended otherwise.
func (c *client) endRequest(ctx context.Context, environment, id string) error {
	r := &retrier{started: time.Now()}
	return c.try(ctx, r, callTime, http.MethodDelete, "/maybe", requestSelector(environment, id), nil)
}

// requestSelector returns the parameters that select a request by its id.
func requestSelector(environment, id string) url.Values {
	return url.Values{"environment": {environment}, "id": {id}}
}

// endOnce ends a request with one call of at most leaveTime. It has no context, so that it
// also works after an interrupt. Errors are ignored: the server also ends a request
// whose client is disconnected.
func (c *client) endOnce(environment, id string) {
	ctx, cancel := context.WithTimeout(context.Background(), leaveTime)
	defer cancel()
	c.do(ctx, http.MethodDelete, "/maybe", requestSelector(environment, id), nil)
}

// renewHeld renews the selected lease with the ttl, or with its own ttl if ttl is nil. It
// repeats a call that fails, for up to maxFirstResponse, and calls onRetry before the first
// repetition in a row. Errors: errNotHeld, errSeveral, *apiError and those of try.
func (c *client) renewHeld(
	ctx context.Context, which leaseSelector, ttl *time.Duration, onRetry func(error),
) (lease leaseJSON, err error) {
	values := which.values()
	if ttl != nil {
		values.Set("ttl", ttl.String())
	}
	r := &retrier{started: time.Now(), deadline: time.Now().Add(maxFirstResponse), onRetry: onRetry}
	err = c.try(ctx, r, callTime, http.MethodPut, "/maybe", values, &lease)
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

// release ends the selected lease. With force it ends the lease of any holder, and
// returns nil if the slot is free already. It repeats a call that fails, for up to
// maxFirstResponse, and calls onRetry before the first repetition in a row. Repetition is
// safe: the server recognises a repeated release, and a forced one names the fence of
// its lease. Errors: errNotHeld, errSeveral, *apiError and those of try.
func (c *client) release(ctx context.Context, which leaseSelector, force bool, onRetry func(error)) error {
	r := &retrier{started: time.Now(), deadline: time.Now().Add(maxFirstResponse), onRetry: onRetry}
	values := which.values()
	if force {
		fence, err := c.fenceToForce(ctx, r, which)
		if errors.Is(err, errFree) {
			return nil
		}
		if err != nil {
			return err
		}
		values.Set("force", "1")
		if fence != 0 {
			values.Set("fence", strconv.FormatUint(fence, 10))
		}
	}
	err := c.try(ctx, r, callTime, http.MethodDelete, "/maybe", values, nil)
	var reply *apiError
	if force && r.repeated && errors.As(err, &reply) && reply.Ended != nil &&
		reply.Ended.How == endedByForce && string(reply.Ended.By) == which.holder {
		return nil // an earlier attempt succeeded, and its response was lost
	}
	return err
}

// errFree is the error of fenceToForce for a slot without a holder. A forced release
// could then only end the lease of a request that is granted meanwhile.
var errFree = errors.New("it is free")

// fenceToForce returns the fence of the lease that a forced release means, so that a
// repeated call cannot end the next holder's lease. It returns zero if no single lease
// matches; the server then says why. Errors: errFree and those of try.
func (c *client) fenceToForce(ctx context.Context, r *retrier, which leaseSelector) (uint64, error) {
	all := environmentsJSON{}
	values := url.Values{"environment": {which.environment}}
	err := c.try(ctx, r, callTime, http.MethodGet, "/environments", values, &all)
	if err != nil || which.fence != 0 {
		return which.fence, err
	}
	fences, known := []uint64{}, which.slot == ""
	for _, e := range all.Environments {
		for _, s := range e.Slots {
			known = known || string(s.Slot) == which.slot
			if s.Lease != nil && (which.slot == "" || string(s.Slot) == which.slot) {
				fences = append(fences, s.Lease.Fence)
			}
		}
	}
	switch {
	case len(fences) == 1:
		return fences[0], nil
	case len(fences) == 0 && known:
		return 0, errFree
	}
	return 0, nil
}

// environments returns the state of one environment, or of all if name is empty. It
// makes one attempt of at most callTime. Its errors are those of do.
func (c *client) environments(ctx context.Context, name string) (environmentsJSON, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	values, all := url.Values{}, environmentsJSON{}
	if name != "" {
		values.Set("environment", name)
	}
	err := c.do(ctx, http.MethodGet, "/environments", values, &all)
	return all, err
}

// history returns all events of an environment, or of all environments if the name is
// empty, the newest first. since is how far to look back, such as 24h or 7d. history
// reads as many pages as there are, with one attempt of at most callTime for each. After
// an error it returns the events read so far, and an error of do.
func (c *client) history(ctx context.Context, environment, since string) (historyJSON, error) {
	all := historyJSON{Events: []eventJSON{}}
	values := url.Values{"since": {since}, "limit": {strconv.Itoa(maxPage)}}
	if environment != "" {
		values.Set("environment", environment)
	}
	for {
		page := historyJSON{}
		limited, cancel := context.WithTimeout(ctx, callTime)
		err := c.do(limited, http.MethodGet, "/history", values, &page)
		cancel()
		if err != nil {
			return all, err
		}
		all.Events = append(all.Events, page.Events...)
		if page.Next == 0 {
			return all, nil
		}
		values.Set("before", strconv.FormatUint(page.Next, 10))
	}
}

// follow sends to changed after each change at the server, until ctx or the connection
// ends. It never blocks: without a receiver or room in the channel the notification is
// dropped. Beats, which keep the connection open, are no changes. The error is never
// nil: errUnreachable, errNotCallMe or an error of newRequest.
func (c *client) follow(ctx context.Context, changed chan<- struct{}) error {
	request, err := c.newRequest(ctx, http.MethodGet, "/events", url.Values{})
	if err != nil {
		return err
	}
	response, err := c.http.Do(request)
	if err != nil {
		return fmt.Errorf("%w %s: %w", errUnreachable, c.base, plainNetError(err))
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK || response.Header.Get("Content-Type") != "text/event-stream" {
		return errNotCallMe
	}
	lines := bufio.NewScanner(response.Body)
	kind := ""
	for lines.Scan() {
		field, value, _ := strings.Cut(lines.Text(), ":")
		switch {
		case field == "": // a comment line, or the end of an event
			kind = ""
		case field == "event":
			kind = strings.TrimSpace(value)
		case field == "data" && kind != "beat":
			select {
			case changed <- struct{}{}:
			default:
			}
		}
	}
	return fmt.Errorf("%w %s: the connection has ended", errUnreachable, c.base)
}

// newID returns a random request id that cannot be guessed. It has at least 128 bits.
func newID() string { return rand.Text() }
