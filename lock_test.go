package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

// A bench is one environment with a history, and a clock that the test sets.
type bench struct {
	t    *testing.T
	e    *environment
	now  time.Time
	past *history
	last uint64
	all  []change // of all steps

	others map[string]*environment // besides e
	entry  int64                   // see batch.newWaiter

	longest time.Duration // see batch.longestHold
	places  placeCounts
}

// testHistory is the limit of a history in tests, in bytes.
const testHistory = 64_000_000

func newBench(t *testing.T, slots ...string) *bench {
	if len(slots) == 0 {
		slots = []string{"uat"}
	}
	return &bench{t: t, e: newEnvironment("uat", slots), now: time.Now(), past: newHistory(testHistory),
		last: 100, others: map[string]*environment{}, places: placeCounts{}}
}

// batch returns an empty batch.
func (b *bench) batch() *batch {
	return &batch{now: b.now, history: b.past, environment: b.find, latestEntry: &b.entry,
		longestHold: b.longest, places: b.places, queues: b.queues, next: func() uint64 { b.last++; return b.last }}
}

// queues returns the environments that have a queue.
func (b *bench) queues() (all []*environment) {
	for _, e := range append(slices.Collect(maps.Values(b.others)), b.e) {
		if len(e.queue) > 0 {
			all = append(all, e)
		}
	}
	return all
}

// find returns the environment of the name; one without slots if there is none.
func (b *bench) find(name string) *environment {
	if name == b.e.name {
		return b.e
	}
	if b.others[name] == nil {
		b.others[name] = newEnvironment(name, nil)
	}
	return b.others[name]
}

// step applies rules in one batch and publishes it.
func (b *bench) step(f func(r *batch)) *batch {
	r := b.batch()
	f(r)
	b.past.publish(trim{})
	b.all = append(b.all, r.changes...)
	return r
}

func (b *bench) post(q request, wait bool) (o result) {
	b.step(func(r *batch) { o = b.e.request(r, q, wait, 0) })
	return o
}

// ask requests a slot for an id, with wait.
func (b *bench) ask(id string) result { return b.post(request{id: id, holder: "h-" + id}, true) }

func (b *bench) must(id string) *lease {
	b.t.Helper()
	o := b.ask(id)
	if o.err != nil || only(o.own) == nil {
		b.t.Fatalf("request %s: %+v, want a lease", id, o)
	}
	return only(o.own)
}

func (b *bench) queue(id string) *waiter {
	b.t.Helper()
	o := b.ask(id)
	if o.err != nil || only(o.own) != nil || o.waiter == nil {
		b.t.Fatalf("request %s: %+v, want a place in the queue", id, o)
	}
	return o.waiter
}

func (b *bench) end(d releaseRequest) (o result) {
	b.step(func(r *batch) {
		o = b.e.release(r, d)
		b.e.serveQueue(r)
	})
	return o
}

func (b *bench) endID(id string) result { return b.end(releaseRequest{selector: selector{id: id}}) }

func (b *bench) extend(q renewal) (o result) {
	q.at = b.now
	b.step(func(r *batch) { o = b.e.renew(r, q) })
	return o
}

func (b *bench) pass(d time.Duration) {
	b.now = b.now.Add(d)
	b.step(func(r *batch) {
		b.e.expire(r)
		b.e.serveQueue(r)
	})
}

func (b *bench) goAway(p *waiter) {
	p.connected.Store(false)
	p.disconnectedAt = b.now
}

func (b *bench) wantErr(o result, err error) {
	b.t.Helper()
	if !errors.Is(o.err, err) || (err == nil) != (o.err == nil) {
		b.t.Errorf("got error %v, want %v", o.err, err)
	}
}

// want fails the test unless the leases, as "slot:id" in sorted order, and the ids in the
// queue are these.
func (b *bench) want(leases, line string) {
	b.t.Helper()
	var have, waiting []string
	for _, l := range b.e.leases {
		have = append(have, l.slot+":"+l.id)
	}
	for _, p := range b.e.queue {
		waiting = append(waiting, p.id)
	}
	slices.Sort(have)
	if got := strings.Join(have, " "); got != leases {
		b.t.Errorf("leases are %q, want %q", got, leases)
	}
	if got := strings.Join(waiting, " "); got != line {
		b.t.Errorf("the queue is %q, want %q", got, line)
	}
}

func (b *bench) events() string {
	var names []string
	for _, e := range b.past.events {
		names = append(names, e.kind.String()+":"+e.id)
	}
	return strings.Join(names, " ")
}

// picture returns the whole state of the environment and its history as text. The text has
// the addresses of the values, so that a copy of a value differs from it.
func (b *bench) picture() string {
	s := fmt.Sprint(b.past.size, len(b.past.ends), len(b.past.events), len(b.past.appended))
	var ends []string
	for name, end := range b.past.index {
		if isRecent(end, b.now) { // older ends have no effect
			ends = append(ends, fmt.Sprintf(" %x=%p", name, end))
		}
	}
	s += strings.Join(slices.Sorted(slices.Values(ends)), "")
	for _, l := range b.e.leases {
		s += fmt.Sprintf(" %p%v", l, *l)
	}
	for _, p := range b.e.queue {
		s += fmt.Sprintf(" %p%v", p, p)
	}
	for _, p := range slices.Concat(b.find(everywhere).pauses, b.e.pauses) {
		s += fmt.Sprintf(" %p%v", p, *p)
	}
	for _, id := range slices.Sorted(maps.Keys(b.e.waitersByID)) {
		s += fmt.Sprintf(" %s=%p", id, b.e.waitersByID[id])
	}
	return s
}

// Invariant 1: a slot never has two leases.
func TestASlotNeverHasTwoLeases(t *testing.T) {
	b := newBench(t, "blue", "green")
	b.must("a")
	b.must("b")
	b.want("blue:a green:b", "")
	b.wantErr(b.post(request{id: "c"}, false), errNoSlot)
	b.queue("d")
	b.want("blue:a green:b", "d")
	b.endID("a")
	b.want("blue:d green:b", "")
}

// Invariant 3: waiters are granted the slot in the order in which they came.
func TestTheQueueIsServedInItsOrder(t *testing.T) {
	b := newBench(t)
	b.must("a")
	for _, id := range []string{"b", "c", "d"} {
		b.queue(id)
	}
	for _, next := range []string{"b", "c", "d"} {
		b.endID(b.e.leases[0].id)
		b.want("uat:"+next, strings.TrimSpace(strings.Join(map[string][]string{"b": {"c", "d"}, "c": {"d"}}[next], " ")))
	}
}

// Invariant 3: a caller without wait is granted a slot only if the queue is empty.
func TestACallerWithoutWaitIsGrantedOnlyWhenNobodyIsInTheQueue(t *testing.T) {
	b := newBench(t)
	b.must("a")
	b.goAway(b.queue("b"))
	b.endID("a")
	b.want("", "b")
	b.wantErr(b.post(request{}, false), errNoSlot)
	if b.e.isOpen("", b.find) {
		t.Error("a GET would say that a slot is free")
	}
	b.wantErr(b.post(request{id: "c-no-wait"}, false), errNoSlot)
	b.want("", "b") // the request did not enter the queue
	b.endID("b")
	if o := b.post(request{}, false); only(o.own) == nil {
		t.Errorf("with nobody in the queue: %+v", o)
	}
}

func TestAnAbsentWaiterKeepsItsOfferUntilItPollsAgain(t *testing.T) {
	b := newBench(t)
	b.must("a")
	b.goAway(b.queue("b"))
	b.queue("c")
	b.endID("a")
	b.want("", "b c")
	b.pass(maxAbsence - time.Second)
	b.want("", "b c")
	if o := b.ask("b"); only(o.own) == nil {
		t.Fatalf("the absent waiter polled again and got %+v", o)
	}
	b.want("uat:b", "c")
}

func TestAnAbsenceOf10sEndsTheWait(t *testing.T) {
	b := newBench(t)
	b.must("a")
	gone := b.queue("b")
	b.queue("c")
	b.goAway(gone)
	b.pass(maxAbsence - time.Millisecond)
	b.want("uat:a", "b c")
	b.pass(time.Millisecond)
	b.want("uat:a", "c")
	b.wantErr(b.ask("b"), errEnded)
	if o := b.ask("b"); o.ended == nil || o.ended.kind != eventAbandoned {
		t.Errorf("the abandoned request got %+v", o)
	}
}

func TestTheNextFreeSlotGoesToTheNextInTheQueue(t *testing.T) {
	b := newBench(t, "blue", "green")
	b.must("a")
	b.must("b")
	b.goAway(b.queue("c"))
	b.queue("d")
	b.endID("a") // the slot is kept free for c, which is disconnected
	b.want("green:b", "c d")
	b.endID("b")
	b.want("green:d", "c")
}

func TestANewWaiterDoesNotGetASlotKeptForADisconnectedOne(t *testing.T) {
	b := newBench(t, "blue", "green")
	b.must("a")
	b.must("b")
	b.goAway(b.queue("c"))
	b.endID("a")
	b.queue("d") // one slot is free, and it is kept for c
	b.want("green:b", "c d")
}

func TestAnIDIsOneRequest(t *testing.T) {
	b := newBench(t)
	first := b.must("a")
	fence, deadline := first.fence, first.deadline
	b.now = b.now.Add(time.Minute)
	if o := b.ask("a"); only(o.own) != first || only(o.own).fence != fence || only(o.own).deadline != deadline {
		t.Errorf("the same id got %+v", o)
	}
	p := b.queue("b")
	b.queue("c")
	b.goAway(p)
	if o := b.ask("b"); o.waiter != p || !p.connected.Load() {
		t.Errorf("polling again gave %+v", o)
	}
	b.want("uat:a", "b c")
}

func TestTheSameIDWithOtherTermsIsRefused(t *testing.T) {
	terms := request{id: "a", holder: "h", url: "http://x/", reason: "r", ttl: time.Hour}
	other := []func(*request){
		func(q *request) { q.holder = "other" },
		func(q *request) { q.url = "http://y/" },
		func(q *request) { q.reason = "other" },
		func(q *request) { q.ttl = time.Minute },
	}
	b := newBench(t)
	b.post(terms, true)
	waiting := terms
	waiting.id = "b"
	b.post(waiting, true)
	for i, change := range other {
		for _, q := range []request{terms, waiting} {
			change(&q)
			if o := b.post(q, true); !errors.Is(o.err, errDifferent) {
				t.Errorf("change %d of %s: %+v", i, q.id, o)
			}
		}
	}
	b.want("uat:a", "b")
}

func TestARenewedTTLDoesNotMakeARepeatedRequestDifferent(t *testing.T) {
	b := newBench(t)
	q := request{id: "a", ttl: time.Minute}
	b.post(q, false)
	b.extend(renewal{selector: selector{id: "a"}, ttl: time.Hour, hasTTL: true})
	if o := b.post(q, false); o.err != nil || only(o.own).ttl != time.Hour {
		t.Errorf("the repeated request got %+v", o)
	}
}

// Invariant 7: a request with an ended id gets errEnded, and how the id ended.
func TestAnEndedIDIsRefusedWithHowItEnded(t *testing.T) {
	ends := map[eventKind]func(b *bench){
		eventReleased: func(b *bench) { b.endID("a") },
		eventExpired:  func(b *bench) { b.pass(time.Minute) },
		eventForced:   func(b *bench) { b.end(releaseRequest{force: true, by: "bob"}) },
	}
	for kind, end := range ends {
		t.Run(kind.String(), func(t *testing.T) {
			b := newBench(t)
			q := request{id: "a", ttl: time.Minute}
			b.post(q, false)
			end(b)
			if o := b.post(q, true); !errors.Is(o.err, errEnded) || o.ended == nil || o.ended.kind != kind {
				t.Errorf("got %+v", o)
			}
			b.want("", "")
		})
	}
}

func TestAReleaseThatOvertakesItsRequestClosesTheID(t *testing.T) {
	b := newBench(t)
	b.wantErr(b.endID("early"), nil)
	o := b.ask("early")
	b.wantErr(o, errEnded)
	if o.ended == nil || o.ended.kind != eventClosed {
		t.Errorf("got %+v", o.ended)
	}
	b.want("", "")
}

func TestEndedRequestsAreRememberedForAnHour(t *testing.T) {
	b := newBench(t)
	b.must("a")
	b.endID("a")
	b.now = b.now.Add(rememberAge - time.Second)
	b.wantErr(b.ask("a"), errEnded)
	b.now = b.now.Add(time.Second)
	b.must("a")
}

func TestARepeatedReleaseIsGrantedAlsoAfterTheNextGrant(t *testing.T) {
	for name, d := range map[string]releaseRequest{
		"by id":              {selector: selector{id: "a"}},
		"by holder":          {selector: selector{holder: "h-a"}},
		"by holder and slot": {selector: selector{holder: "h-a", slot: "uat"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.must("a")
			b.queue("b")
			b.wantErr(b.end(d), nil)
			b.wantErr(b.end(d), nil)
			b.want("uat:b", "")
		})
	}
}

// For a holder of several leases, the repeated release of a slot gets the result of that
// slot, in any order of the ends.
func TestARepeatedReleaseIsThatOfItsSlot(t *testing.T) {
	b := newBench(t, "blue", "green")
	b.post(request{id: "a", holder: "h"}, false)
	b.post(request{id: "b", holder: "h", ttl: time.Minute}, false)
	blue, green := releaseRequest{selector: selector{holder: "h", slot: "blue"}}, releaseRequest{selector: selector{holder: "h", slot: "green"}}
	b.wantErr(b.end(blue), nil)
	b.pass(time.Minute)
	b.must("c")
	b.wantErr(b.end(blue), nil)
	o := b.end(green)
	b.wantErr(o, errNotHeld)
	if o.ended == nil || o.ended.kind != eventExpired {
		t.Errorf("got %+v", o.ended)
	}
	b.want("blue:c", "")
}

func TestAReleaseOfALeaseThatTimeOrForceEndedIsRefused(t *testing.T) {
	for name, end := range map[string]func(b *bench){
		"expired": func(b *bench) { b.pass(time.Minute) },
		"forced":  func(b *bench) { b.end(releaseRequest{force: true}) },
	} {
		for by, d := range map[string]releaseRequest{"id": {selector: selector{id: "a"}}, "holder": {selector: selector{holder: "h"}}} {
			t.Run(name+" by "+by, func(t *testing.T) {
				b := newBench(t)
				b.post(request{id: "a", holder: "h", ttl: time.Minute}, false)
				end(b)
				o := b.end(d)
				b.wantErr(o, errNotHeld)
				if o.ended == nil || o.ended.kind.String() != name {
					t.Errorf("got %+v", o.ended)
				}
			})
		}
	}
}

func TestACallerCannotReleaseTheLeaseOfAnother(t *testing.T) {
	b := newBench(t)
	a := b.must("a")
	for name, d := range map[string]releaseRequest{
		"another holder":             {selector: selector{holder: "h-b"}},
		"another holder, its fence":  {selector: selector{holder: "h-b", fence: a.fence}},
		"its holder, another fence":  {selector: selector{holder: "h-a", fence: a.fence + 1}},
		"its holder, another slot":   {selector: selector{holder: "h-a", slot: "blue"}},
		"the 2019 call":              {is2019: true},
		"the 2019 call of a user":    {selector: selector{holder: "h-b"}, is2019: true},
		"force with another fence":   {selector: selector{fence: a.fence + 1}, force: true},
		"its holder, fence and slot": {selector: selector{holder: "h-a", fence: 7, slot: "uat"}},
	} {
		if o := b.end(d); !errors.Is(o.err, errNotHeld) {
			t.Errorf("%s: %+v", name, o)
		}
	}
	b.wantErr(b.endID("some other id"), nil) // the release closes the id that it names
	b.want("uat:a", "")
}

func TestTheCallOf2019FreesALeaseWithoutAHolder(t *testing.T) {
	b := newBench(t)
	b.wantErr(b.end(releaseRequest{is2019: true}), nil) // the slot is free
	b.post(request{}, false)
	b.wantErr(b.end(releaseRequest{is2019: true}), nil)
	b.want("", "")
}

func TestTheCallOf2019SparesALeaseThatHasAnID(t *testing.T) {
	b := newBench(t)
	b.post(request{id: "a"}, false)
	b.wantErr(b.end(releaseRequest{is2019: true}), errNotHeld)
	b.want("uat:a", "")
	b.wantErr(b.endID("a"), nil)
	b.want("", "")
}

func TestTheCallOf2019ByAUserFreesTheUsersLease(t *testing.T) {
	b := newBench(t, "blue", "green", "red")
	b.post(request{}, false)
	b.post(request{id: "a", holder: "ann"}, false)
	b.post(request{id: "b", holder: "bob"}, false)
	b.end(releaseRequest{selector: selector{holder: "ann"}, is2019: true})
	b.want("blue: red:b", "")
	// ann has no lease any more: the lease without a holder ends.
	b.end(releaseRequest{selector: selector{holder: "ann"}, is2019: true})
	b.want("red:b", "")
}

func TestSeveralLeasesOfOneHolderMustBeNamed(t *testing.T) {
	b := newBench(t, "blue", "green")
	b.post(request{id: "a", holder: "h"}, false)
	second := only(b.post(request{id: "b", holder: "h"}, false).own)
	for name, o := range map[string]result{
		"release": b.end(releaseRequest{selector: selector{holder: "h"}}),
		"renewal": b.extend(renewal{selector: selector{holder: "h"}}),
		"force":   b.end(releaseRequest{force: true}),
	} {
		if b.wantErr(o, errSeveral); len(o.own) != 2 {
			t.Errorf("%s lists %v", name, o.own)
		}
	}
	b.wantErr(b.end(releaseRequest{selector: selector{holder: "h", slot: "blue"}}), nil)
	b.want("green:b", "")
	b.wantErr(b.end(releaseRequest{selector: selector{holder: "h", fence: second.fence}}), nil)
	b.want("", "")
}

func TestForceEndsTheLeaseOfAnyHolderAndIsRemembered(t *testing.T) {
	b := newBench(t)
	a := b.must("a")
	b.queue("b")
	b.wantErr(b.end(releaseRequest{selector: selector{fence: a.fence}, force: true, by: "ann", origin: origin{from: "10.0.0.1:5"}}), nil)
	b.want("uat:b", "")
	last := b.past.events[len(b.past.events)-2]
	if last.kind != eventForced || last.by != "ann" || last.from != "10.0.0.1:5" || last.fence != a.fence {
		t.Errorf("the history says %+v", last)
	}
	// The lease has ended.
	b.wantErr(b.end(releaseRequest{selector: selector{fence: a.fence}, force: true}), errNotHeld)
	b.want("uat:b", "")
}

func TestAReleaseByIDLeavesTheQueue(t *testing.T) {
	b := newBench(t)
	b.must("a")
	b.queue("b")
	b.queue("c")
	b.wantErr(b.endID("b"), nil)
	b.want("uat:a", "c")
	// A release without id removes no waiter.
	b.wantErr(b.end(releaseRequest{selector: selector{holder: "h-c"}}), errNotHeld)
	b.want("uat:a", "c")
}

func TestALeaseLastsItsTTLFromTheLastRenewal(t *testing.T) {
	b := newBench(t)
	b.post(request{id: "a", ttl: time.Minute}, false)
	b.pass(time.Minute - 1)
	b.want("uat:a", "")
	b.wantErr(b.extend(renewal{selector: selector{id: "a"}}), nil)
	b.pass(time.Minute - 1)
	b.want("uat:a", "")
	b.pass(1)
	b.want("", "")
	b.wantErr(b.extend(renewal{selector: selector{id: "a"}}), errNotHeld)
}

func TestALeaseWithoutATTLLastsUntilItIsReleased(t *testing.T) {
	b := newBench(t)
	b.must("a")
	b.pass(50 * 365 * 24 * time.Hour)
	b.want("uat:a", "")
}

func TestARenewalNeverTakesTimeAway(t *testing.T) {
	b := newBench(t)
	l := only(b.post(request{id: "a", ttl: time.Minute}, false).own)
	b.now = b.now.Add(30 * time.Second)
	b.extend(renewal{selector: selector{id: "a"}})
	deadline := l.deadline
	l.renew(b.now.Add(-20*time.Second), true) // arrived before the last renewal, is applied after it
	if l.deadline != deadline {
		t.Errorf("the deadline moved by %v", l.deadline.Sub(deadline))
	}
	l.claim = time.Second // it had one, and is confirmed
	l.renew(b.now.Add(-20*time.Second), true)
	if l.deadline != deadline {
		t.Errorf("after a claim the deadline moved by %v", l.deadline.Sub(deadline))
	}
}

// A renewal with the ttl that the lease has is in memory only.
func TestARenewalWithTheSameTTLIsNotStored(t *testing.T) {
	b := newBench(t)
	b.post(request{id: "a", ttl: time.Minute}, false)
	for ttl, want := range map[time.Duration]int{time.Minute: 0, time.Hour: 1} {
		r := b.batch()
		b.e.renew(r, renewal{selector: selector{id: "a"}, ttl: ttl, hasTTL: true, at: b.now})
		if len(r.changes) != want {
			t.Errorf("with a ttl of %v there are %d changes, want %d", ttl, len(r.changes), want)
		}
		r.undo()
	}
}

// A lease is kept when its id renews it again after the confirmation. Its holder may renew it
// by hand at any time.
func TestALeaseIsKeptByItsID(t *testing.T) {
	b := newBench(t, "uat")
	l := b.must("a")
	byID, byHolder := renewal{selector: selector{id: "a"}}, renewal{selector: selector{holder: "h-a"}}
	for i, step := range []struct {
		q    renewal
		want bool
	}{{byHolder, false}, {byHolder, false}, {byID, true}, {byHolder, true}} {
		b.extend(step.q)
		if l.kept != step.want {
			t.Errorf("after renewal %d it is kept: %v", i, l.kept)
		}
	}
	b.endID("a")
	l = b.must("b")
	b.extend(renewal{selector: selector{id: "b"}})
	if l.kept {
		t.Error("a confirmation keeps the lease")
	}
	b.extend(renewal{selector: selector{id: "b"}})
	if !l.kept {
		t.Error("a second renewal does not keep it")
	}
}

func TestARenewalCanChangeTheTTL(t *testing.T) {
	b := newBench(t)
	b.post(request{id: "a", holder: "h", ttl: time.Hour}, false)
	b.wantErr(b.extend(renewal{selector: selector{holder: "h"}, ttl: time.Minute, hasTTL: true}), nil)
	b.pass(time.Minute - 1)
	b.want("uat:a", "")
	b.extend(renewal{selector: selector{id: "a"}, ttl: 0, hasTTL: true})
	b.pass(time.Hour)
	b.want("uat:a", "")
}

func TestAnUnclaimedLeaseEndsAfterItsClaim(t *testing.T) {
	claim := 30 * time.Second
	ask := func(b *bench, id string, ttl time.Duration) {
		b.step(func(r *batch) { b.e.request(r, request{id: id, ttl: ttl}, false, claim) })
	}
	for _, ttl := range []time.Duration{0, time.Hour} {
		b := newBench(t)
		ask(b, "a", ttl)
		b.pass(claim - 1)
		b.want("uat:a", "")
		b.pass(1)
		b.want("", "")

		ask(b, "b", ttl)
		b.extend(renewal{selector: selector{id: "b"}})
		b.pass(time.Hour - 1)
		b.want("uat:b", "")
	}
	b := newBench(t)
	ask(b, "c", time.Second) // the ttl is shorter than the claim
	b.pass(time.Second)
	b.want("", "")
}

func TestARenewalGrantsNothing(t *testing.T) {
	b := newBench(t)
	b.wantErr(b.extend(renewal{selector: selector{id: "never"}}), errNotHeld)
	b.must("a")
	b.queue("b")
	b.wantErr(b.extend(renewal{selector: selector{id: "b"}}), errNotHeld)
	b.want("uat:a", "b")
}

func TestFreeIsDeclaredSlotsLessLiveLeases(t *testing.T) {
	b := newBench(t, "uat")
	b.must("a")
	b.e.slots = []string{"blue", "green"} // the declaration changed while the lease is live
	if free := b.e.freeSlots(b.e.slots); len(free) != 1 {
		t.Errorf("%d free, want 1", len(free))
	}
	b.must("b")
	b.want("blue:b uat:a", "")
	b.queue("c")
	b.e.slots = nil // the environment is not declared any more
	b.endID("a")
	b.want("blue:b", "c")
	b.wantErr(b.extend(renewal{selector: selector{id: "b"}}), nil)
	b.endID("b")
	b.want("", "c")
}

func TestARemovedWaiterHasNoPosition(t *testing.T) {
	b := newBench(t)
	b.must("a")
	gone, next := b.queue("b"), b.queue("c")
	b.endID("b")
	if before, after := b.e.position(gone), b.e.position(next); before != 0 || after != 1 {
		t.Errorf("positions %d and %d", before, after)
	}
}

func TestNoIDOwnsNoLease(t *testing.T) {
	b := newBench(t)
	b.post(request{}, false)
	if l := b.e.leaseByID(""); l != nil {
		t.Errorf("a caller without an id owns %+v", l)
	}
}

// Invariant 5: each fence is larger than the one before.
func TestFencesOnlyGrow(t *testing.T) {
	b := newBench(t, "blue", "green")
	last := uint64(0)
	for i := range 50 {
		l := b.must(fmt.Sprint("id", i))
		if l.fence <= last {
			t.Fatalf("fence %d after %d", l.fence, last)
		}
		last = l.fence
		b.endID(l.id)
	}
}

func TestEveryChangeIsAnEvent(t *testing.T) {
	b := newBench(t)
	b.post(request{id: "a", ttl: time.Minute}, false)
	b.queue("b")
	b.queue("c")
	gone := b.queue("d")
	b.endID("c")
	b.goAway(gone)
	b.pass(10 * time.Second)
	b.pass(50 * time.Second)
	b.end(releaseRequest{force: true})
	want := "granted:a left:c abandoned:d expired:a granted:b forced:b"
	if got := b.events(); got != want {
		t.Errorf("the history is\n%s, want\n%s", got, want)
	}
	grant, end := b.past.events[4], b.past.events[5]
	if grant.number != grant.fence || grant.waited != time.Minute || end.fence != grant.fence || end.number <= grant.number {
		t.Errorf("grant %+v, end %+v", grant, end)
	}
}

// Undo restores every value that the batch has changed, in the environment and in the
// history.
func TestUndoPutsBackWhatWasThere(t *testing.T) {
	b := newBench(t, "blue", "green")
	b.post(request{id: "a", holder: "h", ttl: time.Minute}, false)
	b.must("b")
	b.queue("c")
	b.post(request{}, true) // a waiter without an id
	b.queue("d")
	b.post(request{id: "z", holder: "h"}, false)
	b.end(releaseRequest{selector: selector{id: "z"}})
	before := b.picture()
	r := b.batch()
	b.e.renew(r, renewal{selector: selector{id: "a"}, ttl: time.Hour, hasTTL: true, at: b.now})
	b.e.release(r, releaseRequest{selector: selector{id: "a"}})
	b.e.release(r, releaseRequest{selector: selector{id: "d"}})
	b.e.release(r, releaseRequest{selector: selector{id: "unknown"}})
	b.e.serveQueue(r)
	b.e.request(r, request{id: "new"}, true, 0)
	b.e.release(r, releaseRequest{selector: selector{id: "b"}})
	b.e.serveQueue(r)
	if len(r.changes) < 12 {
		t.Fatalf("only %d changes", len(r.changes))
	}
	r.undo()
	if after := b.picture(); after != before || len(r.changes)+len(r.handovers) > 0 {
		t.Errorf("before\n%s\nafter\n%s\n%d changes", before, after, len(r.changes))
	}
	b.want("blue:a green:b", "c  d")
	if b.past.endOfID("uat", "a", b.now) != nil || b.past.endOfID("uat", "unknown", b.now) != nil {
		t.Error("an end that was taken back is remembered")
	}
	if end := b.past.endOfID("uat", "z", b.now); end == nil {
		t.Error("an older end was forgotten")
	}
}

func TestTheHistoryIsARing(t *testing.T) {
	h := newHistory(testHistory)
	now := time.Now()
	for i := range historyEvents {
		h.append(&event{number: uint64(i), kind: eventGranted, at: now})
	}
	h.publish(trim{})
	h.append(&event{number: historyEvents, kind: eventGranted, at: now})
	if n := h.surplus(now); n != (trim{events: 1}) {
		t.Errorf("one event too many, %+v to delete", n)
	}
	h.publish(trim{events: 1})
	h.append(&event{number: historyEvents + 1, kind: eventGranted, at: now})
	if n := h.surplus(now.Add(historyAge + 1)); n != (trim{events: 2}) {
		t.Errorf("all are too old, %+v to delete with one that is added", n)
	}
}

// only returns the lease of a list of one, nil if there is none. It panics on several.
func only(leases []*lease) *lease {
	switch len(leases) {
	case 0:
		return nil
	case 1:
		return leases[0]
	}
	panic("there are several leases")
}
