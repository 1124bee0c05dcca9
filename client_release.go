package main

// The release of a lease by its holder, as call-me release does it, and what the server
// says of it. run and a request that fails end their own request by its id: endRequest
// and endOnce in client.go.

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// A releaseReport is what a release has ended, as the server reports it.
type releaseReport struct {
	fence   uint64        // of the lease that was ended, the first of several; zero if none was
	isKnown bool          // false if the server did not say, or an earlier attempt may have ended it
	lasts   time.Duration // of a hand-over: how long the new lease lasts; zero if the server did not say
	ttl     time.Duration // the same, or what was asked for where the server did not say
}

// readHeader sets the report from the header of the server's response.
func (r *releaseReport) readHeader(h http.Header) {
	first, _, _ := strings.Cut(h.Get(releasedHeader), ",")
	fence, err := strconv.ParseUint(first, 10, 64)
	text := h.Get(handedForHeader)
	lasts, _ := strconv.ParseFloat(text, 64)
	*r = releaseReport{fence: fence, isKnown: err == nil, lasts: seconds(lasts)}
}

// endedNothing reports whether it is certain that the release has ended no lease.
func (r releaseReport) endedNothing() bool { return r.isKnown && r.fence == 0 }

// release ends the selected lease. With force it ends the lease of any holder, for the reason
// why if that is not empty, and succeeds if the slot is free already. It repeats a call that fails, for up to
// maxFirstResponse, and calls onRetry as a retrier does. Repetition is safe: the server
// recognises a repeated release, and a forced one names the fence of its lease. Errors:
// errNotHeld, errSeveral, *apiError and those of try.
func (c *client) release(
	ctx context.Context, which leaseSelector, force bool, why string, onRetry onRetry,
) (report releaseReport, err error) {
	r := c.newRetrier(maxFirstResponse, onRetry)
	r.insists = true
	values := which.values()
	if force {
		fence, err := c.fenceToForce(ctx, r, which)
		if errors.Is(err, errFree) {
			return releaseReport{isKnown: true}, nil
		}
		if err != nil {
			return report, err
		}
		values.Set("force", "1")
		if why != "" {
			values.Set("reason", why)
		}
		if fence != 0 {
			values.Set("fence", strconv.FormatUint(fence, 10))
		}
	}
	r.repeated = false // reading the state again changes nothing
	err = c.try(ctx, r, c.callLimit(), http.MethodDelete, "/maybe", values, &report)
	if r.repeated && report.fence == 0 {
		report.isKnown = false // an earlier attempt may have ended it, and its response was lost
	}
	var reply *apiError
	if force && r.repeated && errors.As(err, &reply) && reply.Ended != nil &&
		reply.Ended.How == endedByForce && string(reply.Ended.By) == which.holder {
		return report, nil
	}
	return report, err
}

// releaseRequest ends the leases of a request by its id in the environments that are named,
// at least one. It repeats a call that fails as release does. Errors: errNotHeld, *apiError and those of try.
func (c *client) releaseRequest(
	ctx context.Context, environments []string, id string, onRetry onRetry,
) (report releaseReport, err error) {
	r := c.newRetrier(maxFirstResponse, onRetry)
	r.insists = true
	selected := requestSelector(environments[0], id, environments[1:]...)
	err = c.try(ctx, r, c.callLimit(), http.MethodDelete, "/maybe", selected, &report)
	if r.repeated && report.fence == 0 {
		report.isKnown = false
	}
	return report, err
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
	err := c.try(ctx, r, c.callLimit(), http.MethodGet, "/environments", values, &all)
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
