package main

// The API of the lock, /maybe: check, request, renew and release.

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// check answers GET /maybe: whether a POST without wait would be granted now. The 2019
// call gets 200 or 403 without a body. Any other call gets 200 with the environment as
// JSON, or errNoSlot with the current leases. It changes nothing.
func (s *server) check(w http.ResponseWriter, r *http.Request) error {
	q, names, err := s.readCall(w, r)
	if err != nil {
		return err
	}
	who, name := callerOf(r), names[0]
	if err := s.checkSeen(who, names); err != nil {
		return err
	}
	open, err := s.keeper.isOpen(name)
	switch {
	case err != nil:
		return s.undeclared(who, name)
	case q.is2019():
		return writeEmpty2019(w, status2019(open, http.StatusOK))
	}
	state := s.keeper.published.Load()
	v, err := s.keeper.viewIn(state, name)
	if err == nil && !open {
		rep := reply{err: errNoSlot, leases: v.leases, pauses: v.pauses, state: state}
		err = replyError{name: name, caller: who, reply: rep}
	}
	if err != nil {
		return err
	}
	j := viewToJSON(v, state, who, time.Now())
	j.Facts = factsToJSON(s.declared().facts, name)
	return writeJSON(w, http.StatusOK, j)
}

// request answers POST /maybe: it requests a slot, and with the parameter wait it waits
// in the queue for one; with take it takes a lease over, and does not wait. The wait ends
// with errKey when the caller's key is removed, and with errGone when the connection is
// closed. A lease that was granted to a caller without an id is taken back if the
// connection is closed by then.
func (s *server) request(w http.ResponseWriter, r *http.Request) error {
	q, names, err := s.readCall(w, r, repeatable...)
	if err != nil {
		return err
	}
	who := callerOf(r)
	req, errRequest := q.request(basicUser(r), who.defaultTTL(s.defaultTTL))
	wait, waits, errWait := q.wait()
	claim, _, errClaim := q.ttl("claim")
	errSeen := s.checkSeen(who, names)
	if err := cmp.Or(errSeen, errRequest, errWait, errClaim, q.setSupersede(&req, waits)); err != nil {
		return err
	}
	take, errTake := takeoverOf(who, q, req)
	if errTake != nil {
		return errTake
	}
	req.origin, req.limits = who.origin(), who.limits()
	waits = waits && take.fence == 0
	c := &call{kind: callRequest, environment: names[0], others: names[1:], request: req,
		wait: waits, claim: claim, take: take}
	if !waits {
		return s.respondRequest(w, q, who, c, s.keeper.ask(c))
	}
	ctx, end := s.keys.watch(r.Context(), who)
	defer end()
	rep := s.keeper.requestSlot(ctx, c, wait)
	switch {
	case len(rep.own) > 0 && req.id == "" && connectionFor(r).hasLeft():
		rep = s.keeper.sendLeave(c)
	case errors.Is(rep.err, errGone) && errors.Is(context.Cause(ctx), errKey):
		rep.err = errKey
	}
	return s.respondRequest(w, q, who, c, rep)
}

// respondRequest writes the keeper's reply to a POST: 201 with the lease, 201 or 403
// without a body for the 2019 call, or it returns the error. While no environments are
// declared, the lease names an older environment with a similar name, if there is one.
func (s *server) respondRequest(w http.ResponseWriter, q query, who caller, c *call, rep reply) error {
	switch {
	case errors.Is(rep.err, errKey):
		return errKey // without the environment and its leases: the key is not valid
	case q.is2019() && (rep.err == nil || errors.Is(rep.err, errNoSlot)):
		return writeEmpty2019(w, status2019(rep.err == nil, http.StatusCreated))
	}
	if rep.err != nil {
		return s.replyError(who, c, rep)
	}
	leases := s.ownLeases(rep)
	if len(leases) > 1 {
		return writeJSON(w, http.StatusCreated, leasesJSON{leases})
	}
	if len(s.declared().names) == 0 {
		leases[0].Similar = untrusted(s.keeper.similar(c.environment, who.sees))
	}
	return writeJSON(w, http.StatusCreated, leases[0])
}

// ownLeases returns the leases of a reply as their owner sees them: with the declared link of
// the environment.
func (s *server) ownLeases(rep reply) []leaseJSON {
	all, facts := make([]leaseJSON, len(rep.own)), s.declared().facts
	for i, l := range rep.own {
		all[i] = leaseToJSON(l.environment, l, time.Now())
		all[i].EnvironmentURL = untrusted(facts[l.environment].url)
	}
	return all
}

// renew answers PUT /maybe: it extends the one lease that id or holder selects, counted
// from the arrival of the call, and may set another ttl. The response is 200 with the
// lease. Without id and holder it is errParameter.
func (s *server) renew(w http.ResponseWriter, r *http.Request) error {
	arrived := time.Now()
	q, names, err := s.readCall(w, r, "environment")
	if err != nil {
		return err
	}
	who := callerOf(r)
	selected, errSelector := q.selector(basicUser(r))
	ttl, hasTTL, errTTL := q.ttl("ttl")
	if err := cmp.Or(s.checkReach(who, names, selected.id), errSelector, errTTL); err != nil {
		return err
	}
	if selected.id == "" && selected.holder == "" {
		return fmt.Errorf("%w: id or holder is required", errParameter)
	}
	if err := checkSeveral(names, selected); err != nil {
		return err
	}
	extend := renewal{selector: who.own(selected), ttl: ttl, hasTTL: hasTTL, at: arrived,
		by: who.origin(), limits: who.limits()}
	c := &call{kind: callRenew, environment: names[0], others: names[1:], renewal: extend}
	rep := s.keeper.ask(c)
	if rep.err != nil {
		return s.replyError(who, c, rep)
	}
	leases := s.ownLeases(rep)
	if len(leases) > 1 {
		return writeJSON(w, http.StatusOK, leasesJSON{leases})
	}
	return writeJSON(w, http.StatusOK, leases[0])
}

// checkSeveral returns errParameter if a call names several environments without an id.
func checkSeveral(names []string, s selector) error {
	if len(names) > 1 && s.id == "" {
		return fmt.Errorf("%w: a call that names several environments needs an id", errParameter)
	}
	return nil
}

// replyError returns the error of a call, with the name of the environment that it is about. Of
// an environment that the caller does not see it says nothing else.
func (s *server) replyError(who caller, c *call, rep reply) error {
	name := cmp.Or(rep.environment, c.environment)
	if errors.Is(rep.err, errUndeclared) {
		for _, n := range append([]string{c.environment}, c.others...) {
			if s.keeper.slots(n) == nil {
				name = n
			}
		}
	}
	if !who.sees(name) {
		rep = reply{err: rep.err, ended: rep.ended}
	}
	return replyError{name: name, caller: who, reply: rep}
}

// release answers DELETE /maybe: it ends a lease, or removes a waiter from the queue; with
// the parameter to it hands the lease over. The response is 204, with the headers of
// setReleased unless the call is that of 2019. Without id, holder and force any other call
// is errParameter. With force, holder names the caller, and does not select a lease; with
// waiter it removes a waiter by its number.
func (s *server) release(w http.ResponseWriter, r *http.Request) error {
	q, names, err := s.readCall(w, r, "environment")
	if err != nil {
		return err
	}
	who := callerOf(r)
	selected, errSelector := q.selector(basicUser(r))
	force, errForce := q.flag("force")
	err = cmp.Or(s.checkReach(who, names, selected.id), errSelector, errForce, mayRelease(who, q, force))
	if err != nil {
		return err
	}
	req := releaseRequest{selector: who.own(selected), is2019: q.is2019(), force: force, origin: who.origin()}
	switch {
	case force && selected.id != "":
		return fmt.Errorf("%w: id and force exclude each other: an id ends its own lease", errParameter)
	case force:
		forcedBy(q, &req)
	case !req.is2019 && selected.id == "" && selected.holder == "":
		return fmt.Errorf("%w: id, holder or force is required", errParameter)
	}
	errTo, errWaiter := s.setHandOver(&req, who, q), q.setRemoval(&req, names)
	err = cmp.Or(errTo, errWaiter, checkSeveral(names, selected), s.checkForced(names[0], req))
	if err != nil {
		return err
	}
	c := &call{kind: callRelease, environment: names[0], others: names[1:], release: req}
	rep := s.keeper.ask(c)
	if rep.err != nil {
		return s.replyError(who, c, rep)
	}
	if req.is2019 {
		return writeEmpty2019(w, http.StatusNoContent)
	}
	setReleased(w, rep)
	return writeEmpty(w, http.StatusNoContent)
}

// mayRelease returns an error if the caller may not end the lease or the waiter of another, or hand
// a lease over, as the call asks.
func mayRelease(who caller, q query, force bool) error {
	_, removes := q.find("waiter")
	_, hands := q.find("to")
	switch {
	case removes:
		return who.may(actionRemove)
	case force:
		return who.may(actionForce)
	case hands:
		return who.may(actionHandOver)
	}
	return nil
}

// checkForced returns errParameter, with the first five slots of the environment, for a
// forced release of a slot that does not exist. Without this check the response would be
// that of a free slot, which hides the misspelt name. An environment without slots and
// leases is not checked here.
func (s *server) checkForced(name string, req releaseRequest) error {
	if !req.force || req.slot == "" {
		return nil
	}
	v, err := s.keeper.view(name)
	if err != nil {
		return nil // the release itself returns the error
	}
	slots := slices.Clone(v.slots)
	for _, l := range v.leases {
		if !slices.Contains(slots, l.slot) {
			slots = append(slots, l.slot)
		}
	}
	if len(slots) == 0 || slices.Contains(slots, req.slot) {
		return nil
	}
	some := strings.Join(slots[:min(len(slots), 5)], ", ")
	return fmt.Errorf("%w: %q is no slot of %q; it has %s", errParameter, req.slot, name, some)
}
