package main

// The clockwork of run: a lease is renewed while its command lives, and there
// is a moment, known in advance, from which the command must not be running
// any more, because the server may give the slot to another.

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// margin is what a tenure ends early by, for what the clocks and the network
// do: 2 s, and a tenth of a short ttl.
const maxMargin = 2 * time.Second

// errDeadline is the end of a tenure that could not be renewed in time.
var errDeadline = errors.New("the server could not be asked to renew the lease in time")

// A tenure keeps one lease. The fields are set once, before keep.
type renewer struct {
	ttl        time.Duration
	grace      time.Duration                   // how long the command may take to end when it must
	renew      func(ctx context.Context) error // one attempt; errNotHeld: it is lost; other errors: try again
	onDeadline func(deadline time.Time)        // hears each new deadline
}

// shortGrace is the part of the grace that a lost lease leaves: at most a
// quarter of the ttl.
func (t *renewer) shortGrace() time.Duration { return min(t.grace, t.ttl/4) }

// attemptTime is how long an attempt may take: half of what is left, so that
// there is time for another one.
func (t *renewer) attemptTime(left time.Duration) time.Duration {
	return min(callTime, max(left/2, t.ttl/10))
}

// deadline is when the command must be told to end, if the last renewal that
// succeeded was sent then: so early that it is dead when the lease is over.
func (t *renewer) deadline(sent time.Time) time.Time {
	return sent.Add(t.ttl - t.shortGrace() - min(maxMargin, t.ttl/10))
}

// passed reports whether a time is over, by the monotonic clock or by the
// wall clock: while a machine is suspended only the latter goes on.
func isPast(t, now time.Time) bool {
	return !now.Before(t) || !now.Round(0).Before(t.Round(0))
}

// earlier makes a deadline of both clocks out of a wall time and what is left
// until then.
func deadlineFrom(wall time.Time, left time.Duration) time.Time {
	now := time.Now()
	return now.Add(min(left, wall.Sub(now.Round(0))))
}

// keep renews the lease, whose time counts from sent, until ctx ends; then it
// returns nil. Otherwise it returns why the lease must be taken as lost: an
// error that is errNotHeld, or errDeadline.
func (t *renewer) run(ctx context.Context, sent time.Time) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ticker := time.NewTicker(min(time.Second, t.ttl/20))
	defer ticker.Stop()
	var (
		next     = sent.Add(t.ttl / 3)
		attempt  chan error // under way
		started  time.Time
		failures int
		last     error // of the last attempt
	)
	t.onDeadline(t.deadline(sent))
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		case err := <-attempt:
			attempt, last = nil, err
			switch {
			case err == nil:
				sent, failures = started, 0
				next = sent.Add(t.ttl / 3)
				t.onDeadline(t.deadline(sent))
			case errors.Is(err, errNotHeld):
				return err
			default:
				failures++
				next = time.Now().Add(min(backOff(failures), t.ttl/10))
			}
		}
		now := time.Now()
		switch {
		case isPast(t.deadline(sent), now):
			if last != nil {
				return fmt.Errorf("%w: %w", errDeadline, last)
			}
			return errDeadline
		case attempt == nil && isPast(next, now):
			attempt, started = make(chan error, 1), now
			limit := t.attemptTime(t.deadline(sent).Sub(now))
			go func(result chan<- error) {
				limited, cancel := context.WithTimeout(ctx, limit)
				defer cancel()
				result <- t.renew(limited)
			}(attempt)
		}
	}
}
