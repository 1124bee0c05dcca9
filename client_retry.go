package main

// How long a client goes on after calls that failed.

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/url"
	"time"
)

const (
	firstAnswer       = time.Minute // within which a server must have been heard once
	maxBackOff        = 2 * time.Second
	maxForeignAnswers = 3 // answers in a row that are not call-me's
)

// retryable reports whether the same call may have another outcome soon.
func retryable(err error) bool {
	return errors.Is(err, errUnreachable) || errors.Is(err, errUnavailable) || errors.Is(err, errInternal) || errors.Is(err, errNotCallMe)
}

// A patience is how long a client goes on after calls that failed.
type retrier struct {
	deadline time.Time // zero: none
	started  time.Time
	sent     time.Time // when the last call was
	answered bool      // a call-me has answered
	repeated bool      // a call was sent more than once
	failures int       // in a row
	foreign  int       // in a row
	onRetry  func(error)
}

// bear waits before the next try after a failed one, or returns why there is
// none: the failure is final, nobody has answered for too long, or ctx ended.
// After a call that was answered it returns nil at once.
func (p *retrier) wait(ctx context.Context, err error) error {
	if err == nil || !retryable(err) {
		p.answered, p.failures, p.foreign = true, 0, 0
		return err
	}
	p.repeated = true
	p.failures++
	if p.foreign++; !errors.Is(err, errNotCallMe) && !errors.Is(err, errInternal) {
		p.foreign = 0
	}
	if errors.Is(err, errUnavailable) {
		p.answered = true
	}
	now := time.Now()
	switch {
	case p.foreign >= maxForeignAnswers, !p.answered && now.Sub(p.started) >= firstAnswer:
		return err
	case p.isLate():
		return err
	case p.failures == 1 && p.onRetry != nil:
		p.onRetry(err)
	}
	return sleep(ctx, backOff(p.failures))
}

// late reports whether the deadline has passed.
func (p *retrier) isLate() bool { return !p.deadline.IsZero() && !time.Now().Before(p.deadline) }

// backOff grows from 50 ms to mostBackOff, and is never the same twice: those
// whom one restart has cut off must not come back at once.
func backOff(failures int) time.Duration {
	most := min(maxBackOff, 100*time.Millisecond<<min(failures-1, 10))
	return most/2 + rand.N(most/2) // #nosec G404 -- only spreads retries
}

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

// try repeats a call that may be repeated until it is answered. A key that is
// refused is read again: the operator may have changed it.
func (c *client) try(ctx context.Context, p *retrier, each time.Duration, method, path string, values url.Values, into any) error {
	for {
		if !p.deadline.IsZero() { // a server that hangs must not stretch it
			each = max(time.Second, min(each, time.Until(p.deadline)+time.Second))
		}
		limited, cancel := context.WithTimeout(ctx, each)
		p.sent = time.Now()
		err := c.do(limited, method, path, values, into)
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if refusesKey(err) && c.hasNewKey() {
			continue
		}
		if err != nil && retryable(err) {
			if err = p.wait(ctx, err); err == nil {
				continue
			}
			return err
		}
		return p.wait(ctx, err)
	}
}
