package main

// Repetition: which failed calls are repeated, after what delay and for how long.
// docs/design.md has the rules in "A server that is away".

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"time"
)

const (
	maxFirstResponse = time.Minute      // within which a call-me must have responded once
	maxForeign       = 10 * time.Second // the same, if the responses are foreign; or failing
	maxBackOff       = 2 * time.Second
	firstReportTime  = 15 * time.Second // between two reports of retries before the first response
	reportTime       = time.Minute      // between two reports of retries later
)

// An onRetry is called when a call has failed and is to be repeated: after the first
// failure in a row, and every firstReportTime or reportTime. The zero time means that it
// is repeated until the server answers.
type onRetry func(err error, until time.Time)

// A retrier decides whether a failed call is repeated, and keeps what that depends on.
// One retrier may serve several calls, one after the other.
type retrier struct {
	client   *client
	deadline time.Time // after which nothing is repeated; zero if none
	once     bool      // repeat nothing before a call-me has answered
	insists  bool      // repeat even what is hopeless, for maxForeign: the server was right before
	onRetry  onRetry   // nil if not needed

	started      time.Time
	sent         time.Time // when the last call was sent, by clockNow
	repeated     bool      // a call has failed and may have been sent again
	failures     int       // in a row
	strangeSince time.Time // the first failure in a row that was neither unreachable nor noTrouble
	reported     time.Time // when onRetry was called last in this row of failures
}

// newRetrier returns a retrier that repeats for the given time, for ever if it is zero.
func (c *client) newRetrier(limit time.Duration, report onRetry) *retrier {
	r := &retrier{client: c, started: time.Now(), onRetry: report}
	if limit > 0 {
		r.deadline = r.started.Add(limit)
	}
	return r
}

// wait waits before the next attempt after err, the result of the last one. It returns
// nil when the call is to be repeated. A call that took longer than the longest delays is repeated
// as after the first failure. It returns err if err is nil or means no trouble
// with the server, and when the time of until has passed. It returns ctx's error if ctx
// ends.
func (r *retrier) wait(ctx context.Context, err error) error {
	kind := troubleOf(err)
	if kind == noTrouble {
		r.failures, r.strangeSince, r.reported = 0, time.Time{}, time.Time{}
		return err
	}
	r.repeated = true
	if !r.sent.IsZero() && clockNow().Sub(r.sent) > maxBackOff/2 { // a poll whose server has ended
		r.failures = 0
	}
	r.failures++
	now := time.Now()
	switch {
	case kind == unreachable:
		r.strangeSince = time.Time{}
	case r.strangeSince.IsZero():
		r.strangeSince = now
	}
	until, limited := r.until(kind, r.insists && !errors.Is(err, errVersion1))
	if limited && !now.Before(until) {
		return err
	}
	r.report(err, until, now)
	pause := backOff(r.failures)
	if limited {
		pause = min(pause, until.Sub(now))
	}
	return sleep(ctx, pause)
}

// until returns when the call is repeated no more, if the trouble goes on. It reports
// false if there is no such time: a call-me has answered before, so that everything else
// means that it is away for a moment. With insists, what is hopeless is repeated like a
// foreign response.
func (r *retrier) until(kind trouble, insists bool) (time.Time, bool) {
	limit := r.started.Add(maxFirstResponse)
	switch {
	case kind == failing:
		limit = r.strangeSince.Add(maxForeign)
	case r.client.answered.Load():
		return r.deadline, !r.deadline.IsZero()
	case r.once, kind == hopeless && !insists:
		limit = r.started
	case kind != unreachable:
		limit = r.strangeSince.Add(maxForeign)
	}
	if !r.deadline.IsZero() && r.deadline.Before(limit) {
		limit = r.deadline
	}
	return limit, true
}

// report calls onRetry if it is time to.
func (r *retrier) report(err error, until, now time.Time) {
	period := firstReportTime
	if r.client.answered.Load() {
		period = reportTime
	}
	if r.onRetry == nil || !r.reported.IsZero() && now.Sub(r.reported) < period {
		return
	}
	r.reported = now
	r.onRetry(err, until)
}

// retryText returns the line about a call that is repeated.
func retryText(err error, until time.Time) string {
	if until.IsZero() {
		return fmt.Sprintf("%s; trying until it answers", printable(err.Error()))
	}
	return fmt.Sprintf("%s; trying until %s", printable(err.Error()), clockTime(until))
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

// try makes a call and repeats it as r decides. each is the time limit of one attempt at
// one server. An attempt ends at most a second after the deadline of r, or after a second
// if that is later, so that a server that hangs does not exceed the deadline by more. If
// the server rejects the key and the operator has changed it, try repeats the call with the
// new key at once; with another token it does so once. The server must accept the call
// repeatedly. Errors: those of do, and ctx's.
func (c *client) try(
	ctx context.Context, r *retrier, each time.Duration, method, path string, values url.Values, into any,
) error {
	renewed := false // another token was had, which is done once
	for {
		if !r.deadline.IsZero() {
			each = max(time.Second, min(each, time.Until(r.deadline)+time.Second))
		}
		r.sent = clockNow()
		first := c.current.Load()
		err := c.do(ctx, each, method, path, values, into)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if refusesKey(err) && !renewed && c.hasNewKey(ctx) {
			renewed = c.tokens != nil
			continue
		}
		if c.current.Load() != first { // the call was made to another server before
			r.repeated = true
		}
		repeat := troubleOf(err) != noTrouble
		err = r.wait(ctx, err)
		if err != nil || !repeat {
			return err
		}
	}
}
