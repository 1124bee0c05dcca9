package main

// A session: what every client command begins with, and the hints that its errors
// get.

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// A session is what every client command begins with: its configuration, the
// environment it is about, and a client.
type session struct {
	config clientConfig
	name   string
	holder string
	link   string
	client *client
	report func(format string, args ...any) // prints a line for people
}

func (s *session) acquireOptions() acquireOptions {
	a := acquireOptions{environment: s.name, holder: s.holder, url: s.link, reason: tidyReason(s.config.Reason), ttl: defaultTTL,
		timeout: time.Duration(s.config.Timeout)}
	if s.config.TTL.chosen != nil {
		a.ttl = *s.config.TTL.chosen
	}
	return a
}

// renew renews a lease, with a ttl unless that is nil. What runs under run does
// not change the ttl of a run around it, which renews in time for its own.
func (s *session) renew(ctx context.Context, which leaseSelector, ttl *time.Duration, tell func(error)) (leaseJSON, error) {
	if os.Getenv(runTagsVariable) == "" || ttl == nil {
		return s.client.renewHeld(ctx, which, ttl, tell)
	}
	lease, err := s.client.renewHeld(ctx, which, nil, tell)
	if err != nil {
		return lease, err
	}
	if isFenceOfRun(lease.Fence) {
		s.report("call-me: run renews %s, with its own ttl", lease.Slot)
		return lease, nil
	}
	which.fence = lease.Fence
	return s.client.renewHeld(ctx, which, ttl, tell)
}

// holding is the lease that the caller means.
func (s *session) leaseSelector(slot string) leaseSelector {
	return leaseSelector{environment: s.name, holder: s.holder, fence: uint64(s.config.Fence), slot: slot}
}

func (s *session) reportRetry(err error) { s.report("%s; trying again", printable(err.Error())) }

// defaultTTL is how long the lease of request lasts, unless it is renewed.
const defaultTTL = 2 * time.Hour

// runTagsVariable has the tags of all runs around a process, which its children
// inherit.
const runTagsVariable = "CALL_ME_RUNS"

// isFenceOfRun reports whether a fence is that of a run around this process.
func isFenceOfRun(fence uint64) bool {
	return strings.Contains(os.Getenv(runTagsVariable), fmt.Sprintf("(%d-", fence))
}

// explainNoSlot adds a hint for a caller who did not get a slot.
func explainNoSlot(err error, asked acquireOptions) error {
	var refused *apiError
	if !errors.Is(err, errNoSlot) || !errors.As(err, &refused) {
		return err
	}
	for _, l := range refused.HeldBy {
		if l.Holder != "" && string(l.Holder) == asked.holder {
			return hint(err, "that is you; to go on with the slot: call-me request "+quote(asked.environment)+" --again")
		}
	}
	if asked.noWait {
		return hint(err, "without --no-wait, request waits in the queue for it")
	}
	return hint(err, fmt.Sprintf("the time-out of %s has passed; a longer one: --timeout %s", durationText(asked.timeout), durationText(2*asked.timeout)))
}

// explainNotHeld adds a hint for a caller who does not hold the slot.
func explainNotHeld(err error, which leaseSelector) error {
	var refused *apiError
	if !errors.As(err, &refused) || !errors.Is(err, errNotHeld) || len(refused.HeldBy) == 0 {
		return err
	}
	if which.fence != 0 {
		return hint(err, "you asked for the lease with the fence "+strconv.FormatUint(which.fence, 10)+", by --fence or CALL_ME_FENCE; it is over, or another holder's")
	}
	text := "to end it whoever has it: call-me release " + quote(which.environment) + " --force"
	holder := refused.HeldBy[0].Holder.String()
	isItsName := untrusted(holder) == refused.HeldBy[0].Holder // else no variable can be set to it
	if isItsName && holder != "" && holder != which.holder {
		text = fmt.Sprintf("you are %s; if it is yours, from another job, set in both:\n  CALL_ME_HOLDER=%s\n%s", which.holder, quote(holder), text)
	}
	return hint(err, text)
}
