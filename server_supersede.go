package main

// Newest wins and the removal of a waiter: their parameters, and what is said of those that
// have ended so. The rules are in lock_supersede.go.

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// setSupersede sets the key of a request, by the parameter supersede, and its first number, by
// first: that of the client's first request, if it begins anew. waits is true if the call
// waits in the queue. The error is errParameter.
func (q query) setSupersede(req *request, waits bool) error {
	key, found := q.find("supersede")
	text, hasFirst := q.find("first")
	first, err := strconv.ParseUint(text, 10, 64)
	_, takes := q.find("take")
	switch {
	case !found && hasFirst:
		return fmt.Errorf("%w: first needs supersede", errParameter)
	case !found:
		return nil
	case key == "":
		return fmt.Errorf("%w: supersede is empty, and would mean none", errParameter)
	case req.id == "" || !waits:
		return fmt.Errorf("%w: supersede needs an id and wait", errParameter)
	case takes:
		return fmt.Errorf("%w: supersede and take exclude each other", errParameter)
	case hasFirst && (err != nil || first == 0):
		return fmt.Errorf("%w: first must be a number that the server gave to this job before", errParameter)
	}
	req.supersede, req.first = key, first
	return checkText("supersede", key, maxSupersede)
}

// setRemoval makes a forced release the removal of a waiter, if the call has the parameter
// waiter: its number. The error is errParameter.
func (q query) setRemoval(req *releaseRequest, names []string) error {
	text, found := q.find("waiter")
	if !found {
		return nil
	}
	number, err := strconv.ParseUint(text, 10, 64)
	switch {
	case err != nil || number == 0:
		return fmt.Errorf("%w: waiter must be the number that GET /environments shows", errParameter)
	case !req.force:
		return fmt.Errorf("%w: waiter needs force=1; a request ends itself by its id", errParameter)
	case req.fence != 0 || req.slot != "":
		return fmt.Errorf("%w: a waiter has neither fence nor slot", errParameter)
	case len(names) > 1:
		return fmt.Errorf("%w: name one of the environments that it waits for; it leaves all", errParameter)
	}
	req.waiter = number
	return nil
}

// endedByOthers returns one line for people whose request somebody else has ended while it
// waited, or who named no waiter; empty for any other reply.
func (r replyError) endedByOthers() string {
	if errors.Is(r.err, errNotWaiting) {
		return fmt.Sprintf("no request with this number waits for %q: it has its slot, or has ended", r.name)
	}
	if !errors.Is(r.err, errEnded) || r.ended == nil {
		return ""
	}
	at := wireTime(r.ended.at).Format(time.RFC3339)
	switch r.ended.kind {
	case eventSuperseded, eventRemoved:
		return fmt.Sprintf("this request %s at %s%s", endText(r.ended), at, linkOfEnd(r.ended))
	}
	return ""
}

// supersededText returns how a waiter was superseded or removed, as endText does.
func supersededText(end *requestEnd) string {
	how := "was removed from the queue"
	if end.kind == eventSuperseded {
		how = "was superseded"
	}
	if end.event == nil {
		return how
	}
	return how + " by " + cmp.Or(end.event.by, "an unnamed caller") + inBrackets(end.event.why)
}

// linkOfEnd returns, after a colon, the link of the job that has ended a request; empty if
// it has none.
func linkOfEnd(end *requestEnd) string {
	if end.event == nil || end.event.byURL == "" {
		return ""
	}
	return ": " + end.event.byURL
}

// forcedBy sets who ends the lease or the waiter of another, and why: the caller's name, which
// selects no lease, and its reason.
func forcedBy(q query, req *releaseRequest) {
	req.by, req.holder = req.holder, ""
	req.why = tidyReason(q.get("reason"))
}
