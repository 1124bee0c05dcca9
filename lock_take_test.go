package main

import (
	"testing"
	"time"
)

func (b *bench) take(q request, fence uint64) (o result) {
	b.step(func(r *batch) { o = b.e.take(r, q, takeover{fence, "10.0.0.9"}, 0) })
	return o
}

func (b *bench) hand(q releaseRequest, others ...string) (o result) {
	b.step(func(r *batch) { o = b.e.handOver(r, q, others...) })
	return o
}

func (b *bench) lastEvents(n int) []*event { return b.past.events[len(b.past.events)-n:] }

// Invariants 1, 3 and 5: the slot is never free in between, and the lease is a new one.
func TestATakeoverGrantsTheSlotBeforeTheQueue(t *testing.T) {
	b := newBench(t)
	old := b.must("a")
	b.queue("b")
	var o result
	r := b.step(func(r *batch) {
		o = b.e.take(r, request{id: "c", holder: "ann", reason: "urgent"}, takeover{old.fence, "10.0.0.9"}, 0)
	})
	b.wantErr(o, nil)
	b.want("uat:c", "b")
	if len(r.handovers) > 0 {
		t.Errorf("a waiter was granted the slot: %+v", r.handovers)
	}
	if l := only(o.own); l.fence <= old.fence || l.holder != "ann" || l.waited != 0 {
		t.Errorf("the new lease is %+v", l)
	}
	taken := b.lastEvents(2)[0]
	if taken.kind != eventTaken || taken.id != "a" || taken.by != "ann" || taken.why != "urgent" || taken.from != "10.0.0.9" || taken.reason != "" {
		t.Errorf("the event is %+v", taken)
	}
	b.endID("c")
	b.want("uat:b", "")
}

func TestATakeoverEndsOnlyTheLeaseWithTheFence(t *testing.T) {
	b := newBench(t, "blue", "green")
	blue, green := b.must("a"), b.must("b")
	b.take(request{id: "c", holder: "ann"}, green.fence)
	b.want("blue:a green:c", "")
	for _, fence := range []uint64{green.fence, blue.fence - 1, 0} {
		if fence != 0 {
			b.wantErr(b.take(request{id: "d"}, fence), errOver)
		}
	}
	b.wantErr(b.take(request{id: "d", slot: "green"}, blue.fence), errOver)
	b.want("blue:a green:c", "")
	if o := b.take(request{id: "d"}, green.fence); o.ended == nil || o.ended.kind != eventTaken {
		t.Errorf("the end of the lease is %+v", o.ended)
	}
	b.wantErr(b.take(request{id: "d", slot: "blue"}, blue.fence), nil)
	b.want("blue:d green:c", "")
}

// A repeated call, also a late one, changes nothing.
func TestATakeoverIsOneRequest(t *testing.T) {
	b := newBench(t)
	old := b.must("a")
	q := request{id: "c", holder: "ann"}
	first := only(b.take(q, old.fence).own)
	if again := only(b.take(q, old.fence).own); again != first {
		t.Errorf("repeated: %+v, first %+v", again, first)
	}
	b.wantErr(b.take(request{id: "c", holder: "bob"}, old.fence), errDifferent)
	b.endID("c")
	b.must("d")
	b.wantErr(b.take(q, old.fence), errEnded)
	b.wantErr(b.take(q, b.e.leases[0].fence), errEnded)
	b.want("uat:d", "")
}

// The places of the same holder end, and of nobody else; one of the id itself is granted.
func TestATakeoverEndsThePlacesOfItsHolder(t *testing.T) {
	b := newBench(t)
	old := b.must("a")
	for _, q := range []request{{id: "b", holder: "ann"}, {id: "c", holder: "bob"}, {id: "d", holder: "ann"}, {id: "e", holder: "ann"}} {
		b.post(q, true)
	}
	b.now = b.now.Add(time.Minute)
	var r *batch
	var o result
	r = b.step(func(r *batch) { o = b.e.take(r, request{id: "d", holder: "ann"}, takeover{fence: old.fence}, 0) })
	b.want("uat:d", "c")
	if l := only(o.own); l.waited != time.Minute || len(r.handovers) != 1 || r.handovers[0].waiter.id != "d" || only(r.handovers[0].leases) != l {
		t.Errorf("the lease is %+v, the waiters that were granted %+v", l, r.handovers)
	}
	for _, id := range []string{"b", "e"} {
		o := b.post(request{id: id, holder: "ann"}, true)
		b.wantErr(o, errEnded)
		if o.ended == nil || o.ended.kind != eventLeft {
			t.Errorf("%s ended %+v", id, o.ended)
		}
	}
	b.wantErr(b.take(request{id: "c", holder: "other"}, b.e.leases[0].fence), errDifferent)
	b.want("uat:d", "c")
}

// What was kept for the place of the request itself goes to the next one.
func TestATakeoverByAWaiterLeavesWhatWasKeptForIt(t *testing.T) {
	b := newBench(t, "blue")
	old := b.must("a")
	b.goAway(b.queue("b"))
	b.queue("c")
	b.e.slots = []string{"blue", "green"}
	b.wantErr(b.take(request{id: "b", holder: "h-b"}, old.fence), nil)
	b.want("blue:b green:c", "")
}

// Whoever has no name is not the same as everybody else without one.
func TestATakeoverWithoutAHolderEndsNoPlaces(t *testing.T) {
	b := newBench(t)
	old := b.must("a")
	b.post(request{id: "b"}, true)
	b.wantErr(b.take(request{id: "c"}, old.fence), nil)
	b.want("uat:c", "b")
}

// What was kept for a place that ends goes to others at once, in all its environments.
func TestATakeoverServesTheQueuesOfThePlacesThatEnd(t *testing.T) {
	b := newBench(t)
	b.others["perf"] = newEnvironment("perf", []string{"perf"})
	old := b.must("a")
	b.post(request{id: "both", holder: "ann", needs: []need{{environment: "perf"}, {environment: "uat"}}}, true)
	var o result
	b.step(func(r *batch) { o = b.find("perf").request(r, request{id: "p", holder: "bob"}, true, 0) })
	if o.waiter == nil || len(o.own) > 0 {
		t.Fatalf("perf is not kept: %+v", o)
	}
	b.wantErr(b.take(request{id: "c", holder: "ann"}, old.fence), nil)
	if l := b.find("perf").leaseByID("p"); l == nil || len(b.find("perf").queue) > 0 {
		t.Errorf("perf was kept for a place that has ended: %+v", b.find("perf").leases)
	}
}

// The old id, holder and fence have no power over the lease that was taken over.
func TestTheOldCallsAfterATakeover(t *testing.T) {
	b := newBench(t)
	old := b.must("a")
	b.take(request{id: "c", holder: "ann"}, old.fence)
	b.wantErr(b.ask("a"), errEnded)
	for _, s := range []selector{{id: "a"}, {holder: "h-a"}, {holder: "h-a", fence: old.fence}} {
		o := b.extend(renewal{selector: s})
		b.wantErr(o, errNotHeld)
		if o.ended == nil || o.ended.kind != eventTaken || o.ended.event.by != "ann" {
			t.Errorf("PUT by %+v: %+v", s, o.ended)
		}
		b.wantErr(b.end(releaseRequest{selector: s}), errNotHeld)
		b.wantErr(b.hand(releaseRequest{selector: s, to: "eve"}), errNotHeld)
	}
	b.wantErr(b.end(releaseRequest{selector: selector{fence: old.fence}, force: true}), errNotHeld)
	b.want("uat:c", "")
}

func TestAHandOverIsOneBatch(t *testing.T) {
	b := newBench(t)
	b.post(request{id: "a", holder: "job", url: "https://ci/1", reason: "deploy", ttl: time.Minute, priority: 3, slot: "uat"}, true)
	old := b.e.leases[0]
	b.queue("b")
	b.now = b.now.Add(time.Second)
	o := b.hand(releaseRequest{selector: selector{id: "a"}, to: "ann", ttl: time.Hour, why: "please test"})
	b.wantErr(o, nil)
	b.want("uat:", "b")
	l := only(o.given)
	want := lease{request: request{holder: "ann", url: "https://ci/1", reason: "please test", ttl: time.Hour}, environment: "uat",
		slot: "uat", fence: l.fence, since: b.now, ttl: time.Hour, deadline: b.now.Add(time.Hour)}
	if only(o.own) != old || l.fence <= old.fence || !l.request.equal(want.request) || l.since != want.since || l.ttl != want.ttl ||
		l.deadline != want.deadline || l.slot != "uat" || l.waited != 0 || l.claim != 0 {
		t.Errorf("the new lease is %+v", l)
	}
	handed := b.lastEvents(2)[0]
	if handed.kind != eventHanded || handed.id != "a" || handed.to != "ann" || handed.why != "please test" || handed.reason != "deploy" || handed.held != time.Second {
		t.Errorf("the event is %+v", handed)
	}
	b.wantErr(b.extend(renewal{selector: selector{holder: "ann"}}), nil)
	b.wantErr(b.end(releaseRequest{selector: selector{holder: "ann"}}), nil)
	b.want("uat:b", "")
}

// Without a reason the lease keeps that of the old one, and without a ttl it lasts.
func TestAHandOverWithoutAReason(t *testing.T) {
	b := newBench(t)
	b.post(request{id: "a", holder: "job", reason: "deploy", ttl: time.Minute}, true)
	l := only(b.hand(releaseRequest{selector: selector{holder: "job"}, to: "ann"}).given)
	if l.reason != "deploy" || l.ttl != 0 || !l.deadline.IsZero() {
		t.Errorf("the new lease is %+v", l)
	}
	if handed := b.lastEvents(2)[0]; handed.why != "" {
		t.Errorf("the event has the reason %q", handed.why)
	}
}

// The old id, holder and fence have no power over the lease that was handed over. A second
// clean-up step is harmless, and so is a repeated call.
func TestTheOldCallsAfterAHandOver(t *testing.T) {
	b := newBench(t)
	old := b.must("a")
	b.hand(releaseRequest{selector: selector{id: "a"}, to: "ann"})
	b.wantErr(b.ask("a"), errEnded)
	for _, s := range []selector{{id: "a"}, {holder: "h-a"}, {holder: "h-a", fence: old.fence}} {
		o := b.extend(renewal{selector: s})
		b.wantErr(o, errNotHeld)
		if o.ended == nil || o.ended.kind != eventHanded || o.ended.event.to != "ann" {
			t.Errorf("PUT by %+v: %+v", s, o.ended)
		}
		for _, q := range []releaseRequest{{selector: s}, {selector: s, to: "eve"}} {
			r := b.step(func(r *batch) {
				if q.to != "" {
					o = b.e.handOver(r, q)
				} else {
					o = b.e.release(r, q)
				}
			})
			if b.wantErr(o, nil); len(r.changes) > 0 || len(o.own)+len(o.given) > 0 {
				t.Errorf("DELETE %+v: %+v, %+v", q, o, r.changes)
			}
		}
	}
	b.wantErr(b.end(releaseRequest{selector: selector{fence: old.fence}, force: true}), errNotHeld)
	b.want("uat:", "")
}

// A lease that is kept under the name of its holder is not renewed or released by its id.
func TestALeaseThatIsKept(t *testing.T) {
	b := newBench(t)
	b.must("a")
	kept := only(b.hand(releaseRequest{selector: selector{id: "a"}, to: "h-a", ttl: time.Hour, why: "kept: exit 1"}).given)
	b.wantErr(b.extend(renewal{selector: selector{id: "a"}}), errNotHeld)
	b.wantErr(b.endID("a"), nil)
	b.want("uat:", "")
	b.wantErr(b.extend(renewal{selector: selector{holder: "h-a"}}), nil)
	b.wantErr(b.end(releaseRequest{selector: selector{holder: "h-a", fence: kept.fence}}), nil)
	b.want("", "")
}

// A holder that keeps its slot stays the one that it has proved to be; another one has proved
// nothing.
func TestWhoKeepsASlotStaysVerified(t *testing.T) {
	for to, want := range map[string]string{"ci:shop/7": "ci:shop", "ann": ""} {
		b := newBench(t)
		b.post(request{id: "a", holder: "ci:shop/7", origin: origin{verified: "ci:shop"}}, false)
		b.step(func(r *batch) { b.e.handOver(r, releaseRequest{selector: selector{id: "a"}, to: to}) })
		if l := b.e.leases[0]; l.holder != to || l.verified != want {
			t.Errorf("%s has it, of whom %q is proved, want %q", l.holder, l.verified, want)
		}
	}
}

func TestOnlyWhatIsHeldIsHandedOver(t *testing.T) {
	b := newBench(t, "blue", "green")
	b.must("a")
	b.post(request{id: "x", holder: "h-a"}, true)
	b.queue("b")
	to := func(s selector) releaseRequest { return releaseRequest{selector: s, to: "ann"} }
	b.wantErr(b.hand(to(selector{id: "b"})), errNotHeld)
	b.wantErr(b.hand(to(selector{id: "nobody"})), errNotHeld)
	b.wantErr(b.hand(to(selector{holder: "h-a"})), errSeveral)
	b.want("blue:a green:x", "b")
	b.wantErr(b.hand(to(selector{holder: "h-a", slot: "green"})), nil)
	b.want("blue:a green:", "b")
	b.endID("a")
	b.wantErr(b.hand(to(selector{id: "a"})), errNotHeld)
	b.want("blue:b green:", "")
}

// Leases of several environments are handed over together, or none of them.
func TestLeasesOfSeveralEnvironmentsAreHandedOver(t *testing.T) {
	b := newBench(t)
	b.others["perf"] = newEnvironment("perf", []string{"perf"})
	both := request{id: "a", holder: "job", needs: []need{{environment: "perf"}, {environment: "uat"}}}
	b.post(both, false)
	q := releaseRequest{selector: selector{id: "a"}, to: "ann"}
	o := b.hand(q, "perf")
	if len(o.own) != 2 || len(o.given) != 2 || only(b.find("perf").leases).holder != "ann" || only(b.e.leases).holder != "ann" {
		t.Errorf("handed over: %+v", o)
	}
	if o := b.hand(q, "perf"); o.err != nil || len(o.own) > 0 {
		t.Errorf("repeated: %+v", o)
	}

	b = newBench(t)
	b.others["perf"] = newEnvironment("perf", []string{"perf"})
	b.post(both, false)
	b.step(func(r *batch) { b.find("perf").release(r, releaseRequest{force: true}) })
	if o := b.hand(q, "perf"); o.err != errNotHeld || o.lost != "perf" || b.e.leaseByID("a") == nil {
		t.Errorf("of one that is lost: %+v", o)
	}
	b.wantErr(b.hand(q), nil)
	if o := b.hand(q, "perf"); o.err != errNotHeld || o.lost != "perf" {
		t.Errorf("of one that is lost, and one that was handed over: %+v", o)
	}

	b = newBench(t)
	b.others["perf"] = newEnvironment("perf", []string{"perf"})
	b.post(both, false)
	b.hand(q)
	if o := b.hand(q, "perf"); o.err != nil || len(o.given) != 1 || only(o.given).environment != "perf" {
		t.Errorf("of one that lives, and one that was handed over: %+v", o)
	}
}
