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
	name   string // of the environment; empty if the command takes none
	holder string
	jobURL string // URL of the holder's job; empty if it has none
	client *client
	report func(format string, args ...any) // prints a line for people
}

// acquireOptions returns the options of a request by this session. The ttl is the
// configured one, or defaultTTL.
func (s *session) acquireOptions() acquireOptions {
	o := acquireOptions{environment: s.name, holder: s.holder, url: s.jobURL, ttl: defaultTTL,
		reason: tidyReason(s.config.Reason), timeout: time.Duration(s.config.Timeout)}
	if s.config.TTL.chosen != nil {
		o.ttl = *s.config.TTL.chosen
	}
	return o
}

// renew renews the selected lease with the ttl, or with its own ttl if ttl is nil. It does
// not change the ttl of a lease that a run around this process holds, because that run
// renews the lease in time for its own ttl. In that case it reports a line. Its errors
// are those of renewHeld.
func (s *session) renew(
	ctx context.Context, which leaseSelector, ttl *time.Duration, onRetry func(error),
) (leaseJSON, error) {
	if os.Getenv(runTagsVariable) == "" || ttl == nil {
		return s.client.renewHeld(ctx, which, ttl, onRetry)
	}
	lease, err := s.client.renewHeld(ctx, which, nil, onRetry)
	if err != nil {
		return lease, err
	}
	if isFenceOfRun(lease.Fence) {
		s.report("call-me: run renews %s, with its own ttl", lease.Slot)
		return lease, nil
	}
	which.fence = lease.Fence
	return s.client.renewHeld(ctx, which, ttl, onRetry)
}

// leaseSelector selects the session's lease in its environment: by the holder, by the
// configured fence if there is one, and by the slot unless it is empty.
func (s *session) leaseSelector(slot string) leaseSelector {
	return leaseSelector{environment: s.name, holder: s.holder, fence: uint64(s.config.Fence), slot: slot}
}

// reportRetry reports that a failed call is repeated.
func (s *session) reportRetry(err error) { s.report("%s; trying again", printable(err.Error())) }

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
	for _, l := range reply.HeldBy {
		if l.Holder != "" && string(l.Holder) == asked.holder {
			again := "call-me request " + quote(asked.environment) + " --again"
			return withHint(err, "that is you; to go on with the slot: "+again)
		}
	}
	if asked.noWait {
		return withHint(err, "without --no-wait, request waits in the queue for it")
	}
	return withHint(err, fmt.Sprintf("the time-out of %s has passed; a longer one: --timeout %s",
		durationText(asked.timeout), durationText(2*asked.timeout)))
}

// hintNotHeld adds a hint for a caller who does not hold the slot. It returns err
// unchanged if it is not errNotHeld, or if the server names no holder.
func hintNotHeld(err error, which leaseSelector) error {
	var reply *apiError
	if !errors.As(err, &reply) || !errors.Is(err, errNotHeld) || len(reply.HeldBy) == 0 {
		return err
	}
	if which.fence != 0 {
		return withHint(err, "you asked for the lease with the fence "+strconv.FormatUint(which.fence, 10)+
			", by --fence or CALL_ME_FENCE; it is over, or another holder's")
	}
	text := "to end it whoever has it: call-me release " + quote(which.environment) + " --force"
	holder := reply.HeldBy[0].Holder.String()
	isPrintable := untrusted(holder) == reply.HeldBy[0].Holder // else the hint would name another holder
	if isPrintable && holder != "" && holder != which.holder {
		setBoth := fmt.Sprintf("you are %s; if it is yours, from another job, set in both:\n", which.holder)
		text = setBoth + fmt.Sprintf("  CALL_ME_HOLDER=%s\n%s", quote(holder), text)
	}
	return withHint(err, text)
}
