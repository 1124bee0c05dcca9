package main

// Leases that change hands: the parameters of a POST that takes a lease over, and of a DELETE
// that hands one over. The rules are in lock_take.go.

import (
	"cmp"
	"fmt"
	"strconv"
)

// takeoverOf returns the lease that a POST takes over, by the parameter take, its fence; the
// zero takeover if the parameter is missing. The request must have an id and need one slot.
// The error is errParameter, or that of the caller's role.
func takeoverOf(who caller, q query, req request) (takeover, error) {
	text, found := q.find("take")
	if !found {
		return takeover{}, nil
	}
	if err := who.may(actionTake); err != nil {
		return takeover{}, err
	}
	fence, err := strconv.ParseUint(text, 10, 64)
	switch {
	case err != nil || fence == 0:
		return takeover{}, fmt.Errorf("%w: take must be the fence of a lease", errParameter)
	case req.id == "":
		return takeover{}, fmt.Errorf("%w: a call that takes a lease over needs an id", errParameter)
	case len(req.needs) > 0:
		return takeover{}, fmt.Errorf("%w: a call takes over one lease of one environment", errParameter)
	}
	return takeover{fence: fence, from: who.address}, nil
}

// setHandOver makes the release a hand-over, if the call has the parameter to: the new
// holder. ttl and reason are those of the new lease; without a ttl it has the default of
// the caller. The error is errParameter, or a limitError for a ttl that the key does not allow.
func (s *server) setHandOver(req *releaseRequest, who caller, q query) error {
	to, found := q.find("to")
	if !found {
		return nil
	}
	ttl, hasTTL, err := q.ttl("ttl")
	if !hasTTL {
		ttl = who.defaultTTL(s.defaultTTL)
	}
	switch {
	case to == "":
		return fmt.Errorf("%w: to must be the holder to whom you hand the slot", errParameter)
	case req.force:
		return fmt.Errorf("%w: to and force exclude each other; POST with take needs no consent",
			errParameter)
	}
	req.to, req.ttl, req.why = to, ttl, tidyReason(q.get("reason"))
	return cmp.Or(err, checkHolder(to), who.limits().checkTTL(who.name, ttl))
}
