package main

// The renewer: it renews the lease of a run, and computes the deadline at which the
// command must be asked to end, because the server may grant the slot to another
// request after the lease.
//
// Not here: ending the command, which run.go and run_watchdog.go do.

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// maxMargin is the largest difference between the deadline and the end of the lease,
// besides the grace. It allows for the clocks and the network. The margin is a tenth of
// the ttl, but not more than maxMargin.
const maxMargin = 2 * time.Second

// errDeadline is the error of a lease that could not be renewed before its deadline.
var errDeadline = errors.New("the server could not be asked to renew the lease in time")

// A renewer renews one lease. Its fields must be set before run is called.
type renewer struct {
	ttl        time.Duration                   // of the lease
	grace      time.Duration                   // of the command, between SIGTERM and SIGKILL
	renew      func(ctx context.Context) error // makes one attempt; errNotHeld if the lease is lost
	onDeadline func(deadline time.Time)        // called with each new deadline
}

// shortGrace returns the grace of the command when the lease is lost: the configured
// one, but at most a quarter of the ttl.
func (r *renewer) shortGrace() time.Duration { return min(r.grace, r.ttl/4) }

// attemptTime returns how long an attempt to renew may take, if left is the time until
// the deadline. It is half of left, so that there is time for another attempt, but at
// least a tenth of the ttl and at most callTime.
func (r *renewer) attemptTime(left time.Duration) time.Duration {
	return min(callTime, max(left/2, r.ttl/10))
}

// deadline returns when the command must be asked to end, if sent is the time at which
// the last successful renewal was sent. After the deadline there is time for shortGrace
// and the margin before the lease ends.
func (r *renewer) deadline(sent time.Time) time.Time {
	return sent.Add(r.ttl - r.shortGrace() - min(maxMargin, r.ttl/10))
}

// isPast reports whether t is not after now, by the monotonic clock or by the wall
// clock. While a machine is suspended, only the wall clock advances.
func isPast(t, now time.Time) bool {
	return !now.Before(t) || !now.Round(0).Before(t.Round(0))
}

// deadlineFrom returns the earlier one of two times: wall, by the wall clock, and left
// from now, by the monotonic clock. The result has a reading of both clocks.
func deadlineFrom(wall time.Time, left time.Duration) time.Time {
	now := time.Now()
	return now.Add(min(left, wall.Sub(now.Round(0))))
}

// run renews the lease after each third of the ttl, until ctx ends. It then returns nil.
// sent is the time at which the renewal that confirmed the lease was sent. After a
// failed attempt run makes another one, with an increasing delay of at most a tenth of
// the ttl. It returns an error that wraps errNotHeld if the server says that the lease
// has ended. When the deadline has passed, it returns errDeadline, together with the
// error of the last attempt if that failed.
func (r *renewer) run(ctx context.Context, sent time.Time) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ticker := time.NewTicker(min(time.Second, r.ttl/20))
	defer ticker.Stop()
	var (
		next     = sent.Add(r.ttl / 3) // when the next attempt is due
		attempt  chan error            // receives the result of the attempt in progress; nil if none
		started  time.Time             // when that attempt was started
		failures int                   // in a row
		last     error                 // of the last attempt
	)
	r.onDeadline(r.deadline(sent))
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
				next = sent.Add(r.ttl / 3)
				r.onDeadline(r.deadline(sent))
			case errors.Is(err, errNotHeld):
				return err
			default:
				failures++
				next = time.Now().Add(min(backOff(failures), r.ttl/10))
			}
		}
		now := time.Now()
		switch {
		case isPast(r.deadline(sent), now):
			if last != nil {
				return fmt.Errorf("%w: %w", errDeadline, last)
			}
			return errDeadline
		case attempt == nil && isPast(next, now):
			attempt, started = make(chan error, 1), now
			limit := r.attemptTime(r.deadline(sent).Sub(now))
			go func(result chan<- error) {
				limited, cancel := context.WithTimeout(ctx, limit)
				defer cancel()
				result <- r.renew(limited)
			}(attempt)
		}
	}
}
