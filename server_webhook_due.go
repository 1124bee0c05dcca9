package main

// Which events receivers of webhooks are told of: those of the history that are wanted, a long
// wait, and a lease that ends soon. It reads published states and has neither a clock nor a
// goroutine.

import (
	"maps"
	"slices"
	"strings"
	"time"
)

const (
	waitingPeriod = time.Hour   // between two notices of a long wait for one environment
	confirmTime   = time.Minute // a client renews its lease once within this time, to confirm it
)

// A notice is what receivers are told.
type notice struct {
	name  string // one of webhookNames
	event noticeJSON
}

// noticeJSON is the event of a notice as receivers get it. That of a long wait and that of a
// lease that ends soon are events of no history: waiting, with the number of the waiter, and
// expiring, with the fence of the lease.
type noticeJSON struct {
	eventJSON
	Waiting int        `json:"waiting,omitempty"` // of a long wait: how many requests wait
	HeldBy  untrusted  `json:"held_by,omitempty"` // of a long wait: the holder of the first slot
	Until   *time.Time `json:"until,omitempty"`   // of a lease: when it ends unless it is renewed
}

// noticeRules decide what is due. One goroutine uses them.
type noticeRules struct {
	events webhookEvents

	waits  map[string]time.Time // when the last notice of a long wait was due, by environment
	ending map[uint64]bool      // the fences of the leases that end soon, of which a notice was due
}

// newNoticeRules returns the rules for a state at a start: what is past its threshold in it
// counts as told.
func newNoticeRules(events webhookEvents, s *publishedState, now time.Time) *noticeRules {
	r := &noticeRules{events: events, waits: map[string]time.Time{}, ending: map[uint64]bool{}}
	r.due(s, now)
	return r
}

// ofEvent returns the notice of an event of the history; false if it is not wanted.
func (r *noticeRules) ofEvent(e *event) (n notice, isWanted bool) {
	name := e.kind.String()
	if e.kind == eventHanded && strings.HasPrefix(e.why, keptPrefix) && r.events.has(webhookKept) {
		name = webhookKept
	}
	return notice{name, noticeJSON{eventJSON: eventToJSON(e)}}, r.events.has(name)
}

// keptPrefix is the beginning of the reason with which run --keep-on-failure hands a slot over.
const keptPrefix = "kept: "

// due returns the notices of long waits and of leases that end soon, which it returns once.
func (r *noticeRules) due(s *publishedState, now time.Time) []notice {
	if !r.events.has(webhookWaiting) && !r.events.has(webhookExpiring) {
		return nil
	}
	isPast := func(_ string, told time.Time) bool { return now.Sub(told) >= waitingPeriod }
	maps.DeleteFunc(r.waits, isPast)
	var notices []notice
	before := r.ending
	r.ending = map[uint64]bool{}
	for v := range s.all() {
		if w := r.longWait(v, now); w != nil {
			r.waits[v.name] = now
			notices = append(notices, waitingNotice(v, w, now))
		}
		for _, l := range v.leases {
			if !r.endsSoon(l, now) {
				continue
			}
			r.ending[l.fence] = true
			if !before[l.fence] {
				notices = append(notices, expiringNotice(l, now))
			}
		}
	}
	return notices
}

// longWait returns who has waited longest for an environment, if that is a long wait of which
// no notice was due within waitingPeriod; else nil.
func (r *noticeRules) longWait(v *view, now time.Time) *waiter {
	if !r.events.has(webhookWaiting) || len(v.queue) == 0 {
		return nil
	}
	_, isTold := r.waits[v.name]
	first := slices.MinFunc(v.queue, func(a, b *waiter) int { return a.since.Compare(b.since) })
	if isTold || now.Sub(first.since) < r.events[webhookWaiting] {
		return nil
	}
	return first
}

// endsSoon reports whether a lease is longer than the threshold, ends within it, and nobody
// renews it. A new lease is given confirmTime to be renewed, but not more than half of its ttl;
// one that was renewed before is given that half.
func (r *noticeRules) endsSoon(l leaseView, now time.Time) bool {
	threshold := r.events[webhookExpiring]
	if threshold == 0 || l.deadline.IsZero() || l.ttl <= threshold {
		return false
	}
	first := l.since.Add(l.ttl) // its end without a renewal
	if l.deadline.Before(first) && !l.deadline.Equal(l.limit) {
		return false // it is claimed: the client has not confirmed yet that it has the lease
	}
	patience := min(confirmTime, l.ttl/2)
	if l.kept || l.deadline.Sub(first) > confirmTime {
		patience = l.ttl / 2
	}
	return l.deadline.Sub(now) <= min(threshold, l.ttl-patience)
}

// waitingNotice returns the notice of a long wait for an environment.
func waitingNotice(v *view, w *waiter, now time.Time) notice {
	j := noticeJSON{Waiting: len(v.queue), eventJSON: eventJSON{
		Number: w.number, At: wireTime(now), Event: webhookWaiting,
		Environment: untrusted(v.name), Slot: untrusted(w.slot),
		Holder: untrusted(w.holder), URL: untrusted(w.url), Reason: untrusted(w.reason),
		Key: untrusted(w.key), Verified: untrusted(w.verified),
		WaitedSeconds: now.Sub(w.since).Seconds(),
	}}
	if len(v.leases) > 0 {
		j.HeldBy = untrusted(v.leases[0].holder)
	}
	return notice{webhookWaiting, j}
}

// expiringNotice returns the notice of a lease that ends soon.
func expiringNotice(l leaseView, now time.Time) notice {
	until := wireTime(now.Add(l.deadline.Sub(now)))
	return notice{webhookExpiring, noticeJSON{Until: &until, eventJSON: eventJSON{
		At: wireTime(now), Event: webhookExpiring,
		Environment: untrusted(l.environment), Slot: untrusted(l.slot),
		Holder: untrusted(l.holder), URL: untrusted(l.url), Reason: untrusted(l.reason),
		Key: untrusted(l.key), Verified: untrusted(l.verified),
		Fence: l.fence, WaitedSeconds: l.waited.Seconds(), HeldSeconds: now.Sub(l.since).Seconds(),
	}}}
}
