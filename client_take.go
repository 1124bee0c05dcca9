package main

// Leases that change hands: a request that takes a lease over from its holder, and the owner
// of a lease who hands it over.

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"
)

// An overError is the answer of a server that a lease which was to be taken over is over. It
// has how that ended, and who has the slots now.
type overError struct{ *apiError }

// Unwrap returns errOver.
func (e overError) Unwrap() error { return errOver }

// takeOver takes over the only lease of the environment, or the one on the slot of the
// options, with a new request, and confirms the new lease. It reads once which lease that
// is, and never takes another one. taken is the lease as it was then. It repeats a call that
// fails for as long as the options allow, or for maxFirstResponse. Errors: those of
// leaseToTake and asOverError, errNotHeld if the new lease has ended before it was confirmed, and
// those of try.
func (c *client) takeOver(
	ctx context.Context, o acquireOptions, listener acquireListener,
) (g grant, taken leaseJSON, err error) {
	limit := o.timeout
	if limit == 0 {
		limit = maxFirstResponse
	}
	r := c.newRetrier(limit, listener.retrying)
	taken, err = c.leaseToTake(ctx, r, o)
	if err != nil {
		return grant{}, taken, err
	}
	id := newID()
	o.slot = ""
	values := o.values(id)
	values.Set("claim", claimTime.String())
	values.Set("take", strconv.FormatUint(taken.Fence, 10))
	o.notes.asked(id)
	var granted grantedJSON
	err = c.try(ctx, r, c.callLimit(), http.MethodPost, "/maybe", values, &granted)
	if allowed, mayBegin := o.withAllowedTTL(err); mayBegin {
		o = allowed
		values.Set("ttl", o.ttl.String())
		err = c.try(ctx, r, c.callLimit(), http.MethodPost, "/maybe", values, &granted)
	}
	if err == nil {
		o.notes.granted(id, granted.all())
		granted, err = c.confirm(ctx, o, id, r)
	} else {
		err = asOverError(err, taken.Fence)
	}
	if err != nil {
		o.notes.refused(id)
		if !errors.Is(err, errOver) && !errors.Is(err, errNoSlot) { // else the server has nothing of it
			c.endOnce(o.environment, id)
		}
		return grant{}, taken, err
	}
	g = grant{grantedJSON: granted, id: id, sent: r.sent, waited: time.Since(r.started)}
	listener.acquired(granted, g.waited)
	return g, taken, nil
}

// asOverError returns an overError for a 409 of a lease that does not live any more, and any
// other error unchanged. A 409 of one that lives says why it cannot be taken over now; its
// error has the message of the server.
func asOverError(err error, fence uint64) error {
	var reply *apiError
	if !errors.As(err, &reply) || !errors.Is(err, errNotHeld) {
		return err
	}
	if slices.ContainsFunc(reply.HeldBy, func(l leaseJSON) bool { return l.Fence == fence }) {
		return fmt.Errorf("%w: %s", errNoSlot, reply.Message)
	}
	return overError{reply}
}

// leaseToTake returns the lease on the slot of the options, or the only one of the
// environment. Errors: errFree without one, errSeveral, with the slots, for more than one,
// errOwnRun for one of a run around this process, and those of try.
func (c *client) leaseToTake(ctx context.Context, r *retrier, o acquireOptions) (leaseJSON, error) {
	held, err := c.heldOn(ctx, r, o.environment, o.slot)
	switch {
	case err != nil:
		return leaseJSON{}, err
	case len(held) == 0:
		label := slotLabel(untrusted(o.environment), untrusted(o.slot))
		return leaseJSON{}, fmt.Errorf("%s is not held: %w", label, errFree)
	case len(held) > 1:
		var slots []string
		for _, l := range held {
			slots = append(slots, l.Slot.String())
		}
		return leaseJSON{}, withHint(fmt.Errorf("%w on %s: %s", errSeveral, o.environment, andText(slots)),
			"name the slot: --take --slot "+quote(slots[0]))
	case isFenceOfRun(held[0].Fence):
		return held[0], withHint(errOwnRun, "to end its lease, end this command")
	}
	return held[0], nil
}

// errOwnRun is the error of a takeover within the run that has the slot: it would end the
// command that asks for it.
var errOwnRun = errors.New("that is you: this command runs within a call-me run that has the slot")

// heldOn reads the leases of an environment, or of one of its slots. Errors: those of try.
func (c *client) heldOn(ctx context.Context, r *retrier, environment, slot string) ([]leaseJSON, error) {
	all := environmentsJSON{}
	values := url.Values{"environment": {environment}}
	err := c.try(ctx, r, c.callLimit(), http.MethodGet, "/environments", values, &all)
	var held []leaseJSON
	for _, e := range all.Environments {
		for _, s := range e.Slots {
			if s.Lease != nil && (slot == "" || string(s.Slot) == slot) {
				held = append(held, *s.Lease)
			}
		}
	}
	return held, err
}

// A handOver is to whom a lease is handed over, and the terms of the new lease.
type handOver struct {
	to     string        // the new holder; empty for a release that is no hand-over
	ttl    time.Duration // zero: until released
	anyTTL bool          // the user has named none: that which the key allows will do
	reason string        // empty: that of the old lease
}

// handOver hands over the leases that the parameters select, and reports as release does: it
// repeats a call that fails for up to maxFirstResponse, or until ctx ends. A lease that was
// handed over before is no error. Errors: errNotHeld, errSeveral, *apiError and those of try.
func (c *client) handOver(
	ctx context.Context, selected url.Values, h handOver, onRetry onRetry,
) (report releaseReport, err error) {
	r := c.newRetrier(maxFirstResponse, onRetry)
	r.insists = true
	selected.Set("to", h.to)
	selected.Set("ttl", h.ttl.String())
	if h.reason != "" {
		selected.Set("reason", tidyReason(h.reason))
	}
	err = c.try(ctx, r, c.callLimit(), http.MethodDelete, "/maybe", selected, &report)
	if allowed, isKnown := allowedTTL(err); isKnown && h.anyTTL {
		h.ttl = allowed
		selected.Set("ttl", h.ttl.String())
		err = c.try(ctx, r, c.callLimit(), http.MethodDelete, "/maybe", selected, &report)
	}
	report.ttl = cmp.Or(report.lasts, h.ttl)
	if r.repeated && report.fence == 0 {
		report.isKnown = false
	}
	return report, err
}

// handOverHeld hands over the selected lease. It reads the fence of that first, so that a
// repeated call cannot hand over the new lease of the same holder. Errors: those of handOver.
func (c *client) handOverHeld(
	ctx context.Context, which leaseSelector, h handOver, onRetry onRetry,
) (releaseReport, error) {
	if which.fence == 0 {
		r := c.newRetrier(maxFirstResponse, onRetry)
		r.insists = true
		held, err := c.heldOn(ctx, r, which.environment, which.slot)
		if err != nil {
			return releaseReport{}, err
		}
		held = slices.DeleteFunc(held, func(l leaseJSON) bool { return string(l.Holder) != which.holder })
		if len(held) == 1 { // else the server says why not
			which.fence = held[0].Fence
		}
	}
	return c.handOver(ctx, which.values(), h, onRetry)
}

// isHandedOver reports whether an error is that of a renewal or a release whose lease was
// handed over to another holder, or kept without its id.
func isHandedOver(err error) bool {
	var reply *apiError
	return errors.As(err, &reply) && errors.Is(err, errNotHeld) && reply.Ended != nil &&
		reply.Ended.How == endedByHandOver
}

// hasLeft reports whether the end of a request that waits is that of a takeover by its own
// holder. Otherwise a request leaves the queue only by its own id, which nobody else knows.
func hasLeft(end *endJSON) bool { return end != nil && end.How == "left" }
