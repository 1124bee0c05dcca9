package main

// Repetition: which failed calls are repeated, after what delay and for how long.

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/url"
	"time"
)

const (
	maxFirstResponse    = time.Minute // within which a call-me must have responded once
	maxBackOff          = 2 * time.Second
	maxForeignResponses = 3 // responses in a row that are errNotCallMe or errInternal
)

// retryable reports whether repeating the call may give another result soon.
func retryable(err error) bool {
	return errors.Is(err, errUnreachable) || errors.Is(err, errUnavailable) ||
		errors.Is(err, errInternal) || errors.Is(err, errNotCallMe)
}

// A retrier decides whether a failed call is repeated, and keeps what that depends on.
// One retrier may serve several calls, one after the other.
type retrier struct {
	deadline         time.Time // after which nothing is repeated; zero if none
	started          time.Time
	sent             time.Time   // when the last call was sent
	responded        bool        // a call-me has responded
	repeated         bool        // a call has failed and may have been sent again
	failures         int         // in a row
	foreignResponses int         // responses in a row that count for maxForeignResponses
	onRetry          func(error) // called after the first failure in a row; nil if not needed
}

// wait waits before the next attempt after err, the result of the last one. It returns
// nil when the call is to be repeated. It returns err at once if err is nil or not
// retryable, if the deadline has passed, after maxForeignResponses, or if no call-me has
// responded within maxFirstResponse. It returns ctx's error if ctx ends.
func (r *retrier) wait(ctx context.Context, err error) error {
	if err == nil || !retryable(err) {
		r.responded, r.failures, r.foreignResponses = true, 0, 0
		return err
	}
	r.repeated = true
	r.failures++
	if errors.Is(err, errNotCallMe) || errors.Is(err, errInternal) {
		r.foreignResponses++
	} else {
		r.foreignResponses = 0
	}
	if errors.Is(err, errUnavailable) {
		r.responded = true
	}
	now := time.Now()
	switch {
	case r.foreignResponses >= maxForeignResponses, !r.responded && now.Sub(r.started) >= maxFirstResponse:
		return err
	case r.isLate():
		return err
	case r.failures == 1 && r.onRetry != nil:
		r.onRetry(err)
	}
	return sleep(ctx, backOff(r.failures))
}

// isLate reports whether the deadline has passed.
func (r *retrier) isLate() bool { return !r.deadline.IsZero() && !time.Now().Before(r.deadline) }

// backOff returns the delay after a number of failures in a row, which is at least 1. It
// grows from between 50 and 100 ms to between half of maxBackOff and maxBackOff. It is
// random, so that the clients of a server that restarts do not return all at once.
func backOff(failures int) time.Duration {
	most := min(maxBackOff, 100*time.Millisecond<<min(failures-1, 10))
	return most/2 + rand.N(most/2) // #nosec G404 -- only spreads retries
}

// sleep waits for d. It returns ctx's error if ctx ends before.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// try makes a call and repeats it as r decides. each is the time limit of one attempt. An
// attempt ends at most a second after the deadline of r, or after a second if that is
// later, so that a server that hangs does not exceed the deadline by more. If the server
// rejects the key and the operator has changed it, try repeats the call with the new key
// at once. The server must accept the call repeatedly. Errors: those of do, and ctx's.
func (c *client) try(
	ctx context.Context, r *retrier, each time.Duration, method, path string, values url.Values, into any,
) error {
	for {
		if !r.deadline.IsZero() {
			each = max(time.Second, min(each, time.Until(r.deadline)+time.Second))
		}
		limited, cancel := context.WithTimeout(ctx, each)
		r.sent = time.Now()
		err := c.do(limited, method, path, values, into)
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if refusesKey(err) && c.hasNewKey() {
			continue
		}
		repeat := err != nil && retryable(err)
		err = r.wait(ctx, err)
		if err != nil || !repeat {
			return err
		}
	}
}
