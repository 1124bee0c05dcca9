package main

// Pausing and resuming, and waiting until nobody holds what is paused.

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"time"
)

// A pauseTarget is what a pause names: a slot, an environment, or all environments.
type pauseTarget struct {
	environment string // empty: all of them
	slot        string // empty: all of the environment
}

// values returns the parameters that name the target.
func (p pauseTarget) values() url.Values {
	if p.environment == "" {
		return url.Values{"all": {"1"}}
	}
	v := url.Values{"environment": {p.environment}}
	if p.slot != "" {
		v.Set("slot", p.slot)
	}
	return v
}

// pauseOptions are the terms of a pause.
type pauseOptions struct {
	holder string
	reason string
	length time.Duration // zero: until it is resumed
	force  bool          // replace the pause of another
}

// A pausedError is the error of a pause that another caller has made. errors.Is reports that it
// is errPaused.
type pausedError struct{ *apiError }

func (pausedError) Is(target error) bool { return target == errPaused }

// Unwrap hides the error of the status, which says that the caller holds no slot.
func (pausedError) Unwrap() error { return nil }

// pause pauses the target, or changes the caller's pause. It repeats a call that fails, for up
// to maxFirstResponse, and calls onRetry as a retrier does. Errors: errPaused for the pause of
// another, *apiError and those of try.
func (c *client) pause(
	ctx context.Context, p pauseTarget, o pauseOptions, report onRetry,
) (pausedJSON, error) {
	values := p.values()
	values.Set("holder", o.holder)
	if o.reason != "" {
		values.Set("reason", o.reason)
	}
	if o.length > 0 {
		values.Set("for", o.length.String())
	}
	if o.force {
		values.Set("force", "1")
	}
	var made pausedJSON
	r := c.newRetrier(maxFirstResponse, report)
	err := c.try(ctx, r, c.callLimit(), http.MethodPut, "/pause", values, &made)
	var reply *apiError
	if errors.As(err, &reply) && reply.Code == http.StatusConflict {
		return made, pausedError{reply}
	}
	return made, err
}

// resume ends the pause of exactly the target, whoever has made it. It repeats a call as pause
// does. Errors: *apiError and those of try.
func (c *client) resume(
	ctx context.Context, p pauseTarget, holder string, report onRetry,
) (ended resumedJSON, err error) {
	values := p.values()
	values.Set("holder", holder)
	r := c.newRetrier(maxFirstResponse, report)
	err = c.try(ctx, r, c.callLimit(), http.MethodDelete, "/pause", values, &ended)
	return ended, err
}

// errResumed is the error of waitForHolders when the pause has ended.
var errResumed = errors.New("the pause has ended before the last holder has gone")

// waitForHolders waits until no slot that the target covers has a lease, for as long as it
// takes. It calls held with the leases, at the beginning and when they are others, and report
// when the server does not answer. The error is errResumed if the pause ends meanwhile, or
// that of a call which is not repeated, or ctx's.
func (c *client) waitForHolders(
	ctx context.Context, p pauseTarget, held func([]leaseJSON), report onRetry,
) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	changed := make(chan struct{}, 1)
	go func() {
		for ctx.Err() == nil {
			c.follow(ctx, changed)
			sleep(ctx, maxBackOff)
		}
	}()
	r := c.newRetrier(0, report)
	var before []leaseJSON
	for first := true; ; first = false {
		all, err := c.environments(ctx, p.environment)
		if wait := r.wait(ctx, err); wait != nil {
			return wait
		}
		if err == nil {
			leases, isPaused := p.leasesIn(all)
			sameFence := func(a, b leaseJSON) bool { return a.Fence == b.Fence }
			switch {
			case len(leases) == 0:
				return nil
			case !isPaused:
				return errResumed
			case first || !slices.EqualFunc(leases, before, sameFence):
				held(leases)
			}
			before = leases
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-time.After(maxBackOff):
		}
	}
}

// leasesIn returns the leases on the slots that the target covers, and whether there is a pause
// of exactly the target.
func (p pauseTarget) leasesIn(all environmentsJSON) (leases []leaseJSON, isPaused bool) {
	isPaused = p.environment == "" && all.Pause != nil
	for _, e := range all.Environments {
		for _, pause := range e.Pauses {
			isIts := string(pause.Environment) == p.environment && string(pause.Slot) == p.slot
			isPaused = isPaused || p.environment != "" && isIts
		}
		for _, s := range e.Slots {
			if s.Lease != nil && (p.slot == "" || string(s.Slot) == p.slot) {
				leases = append(leases, *s.Lease)
			}
		}
	}
	return leases, isPaused
}
