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

// minMargin and maxMargin limit the difference between the deadline and the end of the
// lease, besides the grace. It allows for a machine that is busy, on which a signal and
// the end of a process take time. The margin is a fifth of the ttl within these limits.
const (
	minMargin = 800 * time.Millisecond
	maxMargin = 4 * time.Second
)

// errLongestHold is the error of a lease that has been held for as long as is allowed.
var errLongestHold = errors.New(
	"it was held for as long as it may be (--max-hold, or what the server allows)")

// errDeadline is the error of a lease that could not be renewed before its deadline.
var errDeadline = errors.New("the server could not be asked to renew the lease in time")

// A renewer renews one lease. Its fields must be set before run is called.
type renewer struct {
	ttl        time.Duration         // of the lease
	grace      time.Duration         // of the command, between SIGTERM and SIGKILL
	onDeadline func(commandDeadline) // called with each new deadline
	limit      time.Time             // the end of the longest hold; zero if there is none

	// renew makes one attempt. Its limit is the end of the longest hold as the server counts it
	// now; zero if there is none. The error is errNotHeld if the lease is lost.
	renew func(ctx context.Context) (limit time.Time, err error)
}

// A commandDeadline is when the command must be asked to end.
type commandDeadline struct {
	at     time.Time
	isLast bool // it is that of the longest hold, and no renewal makes it later
}

// A renewalResult is what an attempt to renew returned.
type renewalResult struct {
	limit time.Time
	err   error
}

// shortGrace returns the grace of the command when the lease is lost: the configured
// one, but at most a sixth of the ttl.
func (r *renewer) shortGrace() time.Duration { return min(r.grace, r.ttl/6) }

// attemptTime returns how long an attempt to renew may take, if left is the time until
// the deadline. It is half of left, so that there is time for another attempt, but at
// least a tenth of the ttl and at most callTime.
func (r *renewer) attemptTime(left time.Duration) time.Duration {
	return min(callTime, max(left/2, r.ttl/10))
}

// deadline returns when the command must be asked to end, if sent is the time at which
// the last successful renewal was sent. After the deadline there is time for shortGrace and
// the margin before the lease ends, or the longest hold.
func (r *renewer) deadline(sent time.Time) time.Time {
	end := sent.Add(r.ttl)
	if r.isLimited(sent) {
		end = r.limit
	}
	return end.Add(-r.shortGrace() - max(minMargin, min(maxMargin, r.ttl/5)))
}

// lower lets the longest hold end at limit, if that is earlier. A server that has started, or that
// has taken over from another one, counts the hold by its own wall clock, which may be ahead.
func (r *renewer) lower(limit time.Time) {
	if !limit.IsZero() && limit.Before(r.limit) {
		r.limit = limit
	}
}

// newest returns the deadline as it is reported.
func (r *renewer) newest(sent time.Time) commandDeadline {
	return commandDeadline{r.deadline(sent), r.isLimited(sent)}
}

// isLimited reports whether the longest hold is over before the ttl.
func (r *renewer) isLimited(sent time.Time) bool {
	return !r.limit.IsZero() && r.limit.Before(sent.Add(r.ttl))
}

// nextAttempt returns when to make another attempt after a number of failures in a row. If
// none would follow before the deadline, the last one is a second before it, or a twentieth
// of the ttl if that is shorter: a server that is back by then is reached.
func (r *renewer) nextAttempt(now, deadline time.Time, failures int) time.Time {
	next := now.Add(min(backOff(failures), r.ttl/10))
	last := deadline.Add(-min(time.Second, r.ttl/20))
	if next.After(last) && now.Before(last) {
		return last
	}
	return next
}

// isPast reports whether t is not after now. Both are of clockNow.
func isPast(t, now time.Time) bool { return !now.Before(t) }

// run renews the lease after each third of the ttl, until ctx ends. It then returns nil.
// sent is the time at which the renewal that confirmed the lease was sent. After a
// failed attempt run makes another one, with an increasing delay of at most a tenth of
// the ttl. It returns an error that wraps errNotHeld if the server says that the lease
// has ended, and errLongestHold when that is over. When the deadline has passed, it returns
// errDeadline, together with the error of the last attempt if that failed.
func (r *renewer) run(ctx context.Context, sent time.Time) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		next     = sent.Add(r.ttl / 3) // when the next attempt is due
		attempt  chan renewalResult    // receives that of the attempt in progress; nil if none
		started  time.Time             // when that attempt was started
		failures int                   // in a row
		last     error                 // of the last attempt
	)
	r.onDeadline(r.newest(sent))
	for {
		// A timer does not advance while the machine is suspended, so it is a short one.
		wake, now := r.deadline(sent), clockNow()
		if attempt == nil && next.Before(wake) {
			wake = next
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(min(time.Second, r.ttl/20, max(0, wake.Sub(now)))):
		case result := <-attempt:
			attempt, last = nil, result.err
			switch {
			case last == nil:
				sent, failures = started, 0
				r.lower(result.limit)
				next = sent.Add(r.ttl / 3)
				r.onDeadline(r.newest(sent))
			case errors.Is(last, errNotHeld):
				return last
			default:
				failures++
				next = r.nextAttempt(clockNow(), r.deadline(sent), failures)
			}
		}
		now = clockNow()
		switch {
		case isPast(r.deadline(sent), now) && r.isLimited(sent):
			return errLongestHold
		case isPast(r.deadline(sent), now):
			if last != nil {
				return fmt.Errorf("%w: %w", errDeadline, last)
			}
			return errDeadline
		case attempt == nil && isPast(next, now):
			attempt, started = make(chan renewalResult, 1), now
			limit := r.attemptTime(r.deadline(sent).Sub(now))
			go func(result chan<- renewalResult) {
				limited, cancel := context.WithTimeout(ctx, limit)
				defer cancel()
				end, err := r.renew(limited)
				result <- renewalResult{end, err}
			}(attempt)
		}
	}
}

// renew makes one attempt to renew the lease. If the server rejects the key, renew reads
// the key again for the next attempt, since the operator may have changed it, or gets another
// token. Of several leases it renews those that were not handed over to another holder. It
// returns the end of the longest hold, see renewer. The error is errNotCallMe for a response with
// another fence, one of checkMissing, or one of do.
func (h *heldRun) renew(ctx context.Context) (limit time.Time, err error) {
	var renewed grantedJSON
	names := h.handed.left(h.options.names())
	values := requestSelector(names[0], h.grant.id, names[1:]...)
	values.Set("ttl", h.options.ttl.String()) // undoes a change of the ttl by call-me renew
	sent := clockNow()
	err = h.client.do(ctx, h.client.callLimit(), "PUT", "/maybe", values, &renewed)
	if h.handed.add(err, names) {
		return h.renew(ctx)
	}
	if refusesKey(err) {
		h.client.hasNewKey(ctx)
	}
	if err != nil {
		return limit, err
	}
	missing, areOwn := h.handed.missing(h.grant.grantedJSON, names, renewed)
	if !areOwn {
		return limit, fmt.Errorf("the server %w: it has another fence", errNotCallMe)
	}
	limit, _ = renewed.limit(sent)
	return limit, h.checkMissing(ctx, missing)
}
