package main

import (
	"fmt"
	"testing"
	"time"
)

// However much a batch ends and grants, each of its steps is small, so that a store which saves
// it in parts finds an end.
func TestTheStepsOfABatchAreSmall(t *testing.T) {
	const many = 30
	var slots []string
	for i := range many {
		slots = append(slots, fmt.Sprint("slot", i))
	}
	full := func(b *bench) {
		for i := range many {
			b.post(request{id: fmt.Sprint("holder", i), ttl: time.Minute}, true)
		}
	}
	queued := func(b *bench) {
		full(b)
		for i := range many {
			b.post(request{id: fmt.Sprint("waiter", i), holder: "ann"}, true)
		}
	}
	var others []string
	for i := range many {
		others = append(others, fmt.Sprint("other", i))
	}
	everywhere := func(b *bench) { // one id has leases in many environments
		for _, name := range others {
			b.others[name] = newEnvironment(name, []string{name})
		}
		b.step(func(r *batch) {
			b.e.request(r, request{id: "one", ttl: 2 * time.Hour}, true, 0)
			for _, name := range others {
				b.find(name).request(r, request{id: "one", ttl: 2 * time.Hour}, true, 0)
			}
		})
	}
	one := selector{id: "one"}
	cases := map[string]struct {
		before  func(b *bench)
		rule    func(b *bench, r *batch)
		changes int // of the batch
		largest int // step
	}{
		"leases expire": {full, func(b *bench, r *batch) { b.e.expire(r) }, 2 * many, 2},
		"pauses end": {func(b *bench) {
			for _, s := range slots {
				b.pauseOn("uat", pauseRequest{slot: s, length: time.Minute})
			}
		}, func(b *bench, r *batch) { b.e.expire(r) }, 2 * many, 2},
		"waiters are abandoned": {func(b *bench) {
			queued(b)
			for _, w := range b.e.queue {
				b.goAway(w)
			}
			for _, l := range b.e.leases {
				l.deadline = time.Time{}
			}
		}, func(b *bench, r *batch) { b.e.expire(r) }, 2 * many, 2},
		"a queue is served": {func(b *bench) {
			queued(b)
			b.step(func(r *batch) {
				for i := range many {
					b.e.release(r, releaseRequest{selector: selector{id: fmt.Sprint("holder", i)}})
				}
			})
		}, func(b *bench, r *batch) { b.e.serveQueue(r) }, 3 * many, 3},
		"ids are closed": {full, func(b *bench, r *batch) {
			b.e.release(r, releaseRequest{selector: selector{id: "unknown"}}, others...)
		}, 1 + many, 1},
		"leases get another ttl": {everywhere, func(b *bench, r *batch) {
			b.e.renew(r, renewal{selector: one, at: b.now, hasTTL: true, ttl: time.Hour}, others...)
		}, 1 + many, 1},
		"slots are handed over": {everywhere, func(b *bench, r *batch) {
			b.e.handOver(r, releaseRequest{selector: one, to: "ann", ttl: time.Hour}, others...)
		}, 4 * (1 + many), 4},
		"the places of a holder end": {queued, func(b *bench, r *batch) {
			b.e.take(r, request{id: "taker", holder: "ann"}, takeover{fence: b.e.leases[0].fence}, 0)
		}, 4 + 2*many, 4},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, slots...)
			c.before(b)
			b.now = b.now.Add(time.Hour)
			r := b.step(func(r *batch) { c.rule(b, r) })
			largest, from := 0, 0
			for _, end := range append(r.ends, len(r.changes)) {
				largest, from = max(largest, end-from), end
			}
			if len(r.changes) != c.changes || largest != c.largest {
				t.Errorf("%d changes, the largest step has %d; want %d and %d", len(r.changes), largest, c.changes, c.largest)
			}
		})
	}
}
