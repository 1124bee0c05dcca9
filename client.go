package main

// The client: request, renew and release over HTTP, with everything that can
// happen on the way there. It prints nothing; terminal.go does.

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
	pollTime  = 25 * time.Second // under every proxy's idle limit
	pollLate  = 3 * time.Second  // later than that no answer to a poll comes: it is dead, and the next one must arrive within claimTime
	claimTime = 30 * time.Second // a grant that nobody confirms ends after this
	callTime  = 10 * time.Second // for any other answer to arrive
	leaveTime = 2 * time.Second  // for leaving the queue when we are stopped
)

// An asking is one wish for a slot.
type acquireOptions struct {
	environment string
	holder      string
	url         string
	reason      string
	ttl         time.Duration // 0: until released
	timeout     time.Duration // 0: for as long as it takes
	noWait      bool
}

// A listener hears how an asking goes.
type acquireListener interface {
	queued(refused errorJSON) // in the queue, after each poll
	retrying(err error)       // the server cannot be reached or cannot answer, for the first time in a row
	restarted(why errorJSON)  // back to the end of the queue
	acquired(lease leaseJSON, waited time.Duration)
}

func (a acquireOptions) values(id string) url.Values {
	v := url.Values{"environment": {a.environment}, "id": {id}, "holder": {a.holder}, "ttl": {a.ttl.String()}}
	if a.url != "" {
		v.Set("url", a.url)
	}
	if a.reason != "" {
		v.Set("reason", a.reason)
	}
	return v
}

// A grant is a lease that is ours, and that the server knows we know of.
type grant struct {
	leaseJSON
	id     string    // owns it
	sent   time.Time // when the renewal was sent from which its time counts
	waited time.Duration
}

// acquire waits in the queue for a slot until it is granted and confirmed. When it fails, or ctx ends, nothing of the request is left at the
// server, as far as it can be told. Errors: errNoSlot, *apiError and those of
// do.
func (c *client) acquire(ctx context.Context, a acquireOptions, tell acquireListener) (grant, error) {
	p := &retrier{started: time.Now(), onRetry: tell.retrying}
	switch {
	case a.timeout > 0:
		p.deadline = p.started.Add(a.timeout)
	case a.noWait:
		p.deadline = p.started.Add(callTime)
	}
	for {
		id := newID()
		lease, err := c.waitInQueue(ctx, a, id, p, tell)
		similar := lease.Similar
		if err == nil {
			lease, err = c.confirm(ctx, a.environment, id, p)
			lease.Similar = similar
		}
		var refused *apiError
		switch {
		case err == nil:
			g := grant{leaseJSON: lease, id: id, sent: p.sent, waited: time.Since(p.started)}
			tell.acquired(lease, g.waited)
			return g, nil
		case errors.As(err, &refused) && (errors.Is(err, errEnded) || errors.Is(err, errNotHeld)):
			tell.restarted(refused.errorJSON)
			if err := sleep(ctx, backOff(1)); err != nil {
				return grant{}, err
			}
			continue
		case refusesKey(err), errors.Is(err, errUntrusted), errors.Is(err, errPlain), errors.Is(err, errSecure),
			errors.Is(err, errMalformed),
			a.noWait && errors.Is(err, errNoSlot): // nothing was left behind
			return grant{}, err
		case retryable(err) && p.answered && p.isLate():
			err = fmt.Errorf("%w in time: %w", errNoSlot, err)
		}
		c.leave(a.environment, id)
		return grant{}, err
	}
}

// waitInLine polls until the slot is granted.
func (c *client) waitInQueue(ctx context.Context, a acquireOptions, id string, p *retrier, tell acquireListener) (lease leaseJSON, err error) {
	values := a.values(id)
	values.Set("claim", claimTime.String())
	early := false
	for wait := time.Duration(0); ; wait = pollTime { // the first poll only enters the queue: it tells who is ahead
		if !p.deadline.IsZero() {
			wait = min(wait, max(0, time.Until(p.deadline)))
		}
		if !a.noWait {
			values.Set("wait", wait.String())
		}
		err := c.try(ctx, p, max(callTime, wait+pollLate), http.MethodPost, "/maybe", values, &lease)
		var refused *apiError
		switch {
		case err == nil:
			return lease, nil
		case !errors.As(err, &refused) || !errors.Is(err, errNoSlot):
			return lease, err
		case a.noWait || p.isLate():
			return lease, err
		}
		tell.queued(refused.errorJSON)
		if early = early || time.Since(p.sent) < wait/2; early { // something between us and the server does not wait
			if err := sleep(ctx, maxBackOff); err != nil {
				return lease, err
			}
		}
	}
}

// confirm renews the lease for the first time: only then is it known that we
// know of it. The answer to the grant may have been late; errNotHeld then.
func (c *client) confirm(ctx context.Context, environment, id string, p *retrier) (lease leaseJSON, err error) {
	err = c.try(ctx, p, callTime, http.MethodPut, "/maybe", requestSelector(environment, id), &lease)
	return lease, err
}

// end ends a request: its lease, or its place in the queue. It repeats the
// call until it is answered, or ctx ends.
func (c *client) end(ctx context.Context, environment, id string) error {
	p := &retrier{started: time.Now()}
	return c.try(ctx, p, callTime, http.MethodDelete, "/maybe", requestSelector(environment, id), nil)
}

// holdingID names a request by its id.
func requestSelector(environment, id string) url.Values {
	return url.Values{"environment": {environment}, "id": {id}}
}

// leave ends a request, once, within leaveTime, also when we are being
// stopped. When it fails, the server notices that we have gone.
func (c *client) leave(environment, id string) {
	ctx, cancel := context.WithTimeout(context.Background(), leaveTime)
	defer cancel()
	c.do(ctx, http.MethodDelete, "/maybe", requestSelector(environment, id), nil)
}

// renewHeld extends the lease that is named; ttl nil: by what it has. It
// repeats the call until it is answered, for up to a minute.
func (c *client) renewHeld(ctx context.Context, which leaseSelector, ttl *time.Duration, tell func(error)) (lease leaseJSON, err error) {
	values := which.values()
	if ttl != nil {
		values.Set("ttl", ttl.String())
	}
	p := &retrier{started: time.Now(), deadline: time.Now().Add(firstAnswer), onRetry: tell}
	err = c.try(ctx, p, callTime, http.MethodPut, "/maybe", values, &lease)
	return lease, err
}

// A holding names a lease that somebody holds.
type leaseSelector struct {
	environment string
	holder      string
	fence       uint64
	slot        string
}

func (h leaseSelector) values() url.Values {
	values := url.Values{"environment": {h.environment}, "holder": {h.holder}}
	if h.fence != 0 {
		values.Set("fence", strconv.FormatUint(h.fence, 10))
	}
	if h.slot != "" {
		values.Set("slot", h.slot)
	}
	return values
}

// release ends a lease; with force whoever holds it. It repeats the call
// until it is answered, for up to a minute: the server knows a repeated
// release from somebody else's lease, and a force names its lease.
func (c *client) release(ctx context.Context, which leaseSelector, force bool, tell func(error)) error {
	p := &retrier{started: time.Now(), deadline: time.Now().Add(firstAnswer), onRetry: tell}
	values := which.values()
	if force {
		fence, err := c.fenceToForce(ctx, p, which)
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
	err := c.try(ctx, p, callTime, http.MethodDelete, "/maybe", values, nil)
	var refused *apiError
	if force && p.repeated && errors.As(err, &refused) && refused.Ended != nil && refused.Ended.How == endedByForce && string(refused.Ended.By) == which.holder {
		return nil // the answer to our first try was lost
	}
	return err
}

// errFree is that nobody holds what is to be freed by force: a call could only
// end the lease of whoever comes meanwhile.
var errFree = errors.New("it is free")

// fenceToForce looks which lease is meant, so that a repeated call cannot end
// the next holder's. 0: the server has to say why it is none.
func (c *client) fenceToForce(ctx context.Context, p *retrier, which leaseSelector) (uint64, error) {
	all := environmentsJSON{}
	err := c.try(ctx, p, callTime, http.MethodGet, "/environments", url.Values{"environment": {which.environment}}, &all)
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

// environments returns the state of one environment, or of all when name is
// empty. It tries once.
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

// history returns what has happened since then, newest first: all of it, from
// as many pages as it takes.
func (c *client) history(ctx context.Context, environment, since string) (historyJSON, error) {
	all := historyJSON{Events: []eventJSON{}}
	values := url.Values{"since": {since}, "limit": {strconv.Itoa(largestPage)}}
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

// follow sends to changed whenever something happens at the server, until ctx
// ends or the connection does. A beat is not a change.
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
		case field == "": // a comment, or the end of an event
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

// newID returns a request id that nobody can guess: 128 bits and more.
func newID() string { return rand.Text() }
