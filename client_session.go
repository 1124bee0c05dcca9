package main

// A session: the configuration and the client of one client command, and the hints that
// are added to its errors.

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// A session is what every client command starts with.
type session struct {
	config clientConfig
	name   string     // of the environment, the first of several; empty if the command takes none
	needs  []slotNeed // what the command line names: each environment, with a slot if --slot has one
	holder string
	jobURL string // URL of the holder's job; empty if it has none
	client *client
	report func(format string, args ...any) // prints a line for people
}

// acquireOptions returns the options of a request by this session. The ttl is the
// configured one, or defaultTTL.
func (s *session) acquireOptions() acquireOptions {
	o := acquireOptions{environment: s.name, holder: s.holder, url: s.jobURL, ttl: defaultTTL,
		reason: tidyReason(s.config.Reason), priority: int(s.config.Priority),
		maxHold: time.Duration(s.config.MaxHold), timeout: time.Duration(s.config.Timeout),
		anyTTL: s.config.TTL.chosen == nil}
	if s.config.TTL.chosen != nil {
		o.ttl = *s.config.TTL.chosen
	}
	if len(s.config.Host) > 0 {
		o.server = s.config.Host[0]
	}
	if len(s.needs) > 1 {
		o.needs = s.needs
	} else if len(s.needs) == 1 {
		o.slot = s.needs[0].slot
	}
	return o
}

// renew renews the selected lease with the ttl, or with its own ttl if ttl is nil. It does
// not change the ttl of a lease that a run around this process holds, because that run
// renews the lease in time for its own ttl. In that case it reports a line. Its errors
// are those of renewHeld.
func (s *session) renew(
	ctx context.Context, which leaseSelector, ttl *time.Duration, report onRetry,
) (leaseJSON, error) {
	if os.Getenv(runTagsVariable) == "" || ttl == nil {
		return s.client.renewHeld(ctx, which, ttl, report)
	}
	lease, err := s.client.renewHeld(ctx, which, nil, report)
	if err != nil {
		return lease, err
	}
	if isFenceOfRun(lease.Fence) {
		s.report("call-me: run renews %s, with its own ttl", lease.Slot)
		return lease, nil
	}
	which.fence = lease.Fence
	return s.client.renewHeld(ctx, which, ttl, report)
}

// limitFence sets the fence of the configuration to that which counts for the session's
// environments: within run it is that of the only environment that run has, or that of the
// one among several. For several there is none.
func (s *session) limitFence() {
	held := os.Getenv("CALL_ME_ENVIRONMENT")
	switch {
	case len(s.needs) > 1 || held != "" && held != s.name:
		s.config.Fence = 0
	case s.config.Fence == 0 && held == "":
		s.config.Fence = fenceNumber(fenceOfRun(os.Getenv, s.name))
	}
}

// leaseSelectors selects the session's leases in its environments: each by the holder, by the
// configured fence if there is one, and by the slot if one is named.
func (s *session) leaseSelectors() []leaseSelector {
	var all []leaseSelector
	for _, n := range s.needs {
		all = append(all, leaseSelector{environment: n.environment, holder: s.holder,
			fence: uint64(s.config.Fence), slot: n.slot})
	}
	return all
}

// reportRetry reports that a failed call is repeated.
func (s *session) reportRetry(err error, until time.Time) { s.report("%s", retryText(err, until)) }

// defaultTTL is how long the lease of a request lasts, unless it is renewed.
const defaultTTL = 2 * time.Hour

// isFenceOfRun reports whether the fence is that of a run around this process. A tag
// begins with the fence: "(FENCE-RANDOM)".
func isFenceOfRun(fence uint64) bool {
	return strings.Contains(os.Getenv(runTagsVariable), fmt.Sprintf("(%d-", fence))
}

// hintNoSlot adds a hint for a caller who did not get a slot. It returns an err that
// is not errNoSlot from the server unchanged.
func hintNoSlot(err error, asked acquireOptions) error {
	var reply *apiError
	if !errors.Is(err, errNoSlot) || !errors.As(err, &reply) {
		return err
	}
	environment := asked.words()
	for _, l := range reply.HeldBy {
		isNamesake := l.Holder != "" && string(l.Holder) == asked.holder
		switch {
		case isFenceOfRun(l.Fence):
			return withHint(err, "that is you: this command runs within a call-me run that has the slot")
		case asked.isOwn(l) && (asked.forRun || asked.needs != nil):
			return withHint(err, "that is you, by an earlier request; first give it back: call-me release "+
				quote(l.Environment.String()))
		case asked.isOwn(l):
			return withHint(err,
				"that is you; to go on with the slot: call-me request "+environment+" --again")
		case isNamesake && !asked.forRun && asked.needs == nil:
			return withHint(err, "held by another process of yours; "+
				"to go on with its slot: call-me request "+environment+" --again")
		}
	}
	if asked.noWait {
		return withHint(err, "without --no-wait, request waits in the queue for it")
	}
	gaveUp := fmt.Sprintf("gave up after %s (--timeout or CALL_ME_TIMEOUT)", durationText(asked.timeout))
	if reply.Position > 0 {
		gaveUp += "; you were " + queuePosition(reply.Position)
	}
	return withHint(err, gaveUp)
}

// hintNotWaiting adds a hint for a caller who named no waiter. It returns err unchanged if it is
// not errNotWaiting.
func hintNotWaiting(err error, environment string) error {
	if !errors.Is(err, errNotWaiting) {
		return err
	}
	return withHint(err, "who waits: call-me status "+quote(environment)+
		"; what became of it: call-me history "+quote(environment))
}

// hintNotHeld adds a hint for a caller who does not hold the slot. It returns err
// unchanged if it is not errNotHeld.
func hintNotHeld(err error, which leaseSelector) error {
	var reply *apiError
	if !errors.As(err, &reply) || !errors.Is(err, errNotHeld) {
		return err
	}
	if reply.Ended != nil && reply.Ended.How == endedByTakeover {
		return withHint(err, "to wait until you get it again: call-me request "+quote(which.environment))
	}
	if len(reply.HeldBy) == 0 && which.fence == 0 {
		return withHint(err, "to take a slot: call-me request "+quote(which.environment))
	}
	if which.fence != 0 {
		return withHint(err, "you asked for the lease with the fence "+strconv.FormatUint(which.fence, 10)+
			", by --fence or CALL_ME_FENCE; it is over, or another holder's")
	}
	text := "if that job is dead, end its lease: call-me release " + quote(which.environment) + " --force"
	holder := reply.HeldBy[0].Holder.String()
	isPrintable := untrusted(holder) == reply.HeldBy[0].Holder // else the hint would name another holder
	if isPrintable && holder != "" && holder != which.holder {
		text = fmt.Sprintf("you are %s, and %s has the slot; if that was an earlier job of your own,\n"+
			"set CALL_ME_HOLDER to the same value in both jobs\n%s", which.holder, holder, text)
	}
	return withHint(err, text)
}
