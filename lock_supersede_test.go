package main

// Tests of newest wins, and of the removal of a waiter.

import (
	"testing"
	"time"
)

// push requests a slot with the key "main", with wait.
func (b *bench) push(id string, first uint64) result {
	b.t.Helper()
	return b.post(request{id: id, holder: "h-" + id, url: "https://ci/" + id, supersede: "main", first: first}, true)
}

func TestTheNewestTakesThePlaceOfTheOlder(t *testing.T) {
	b := newBench(t)
	b.must("holder")
	b.push("old", 0)
	b.queue("between")
	entered := b.now
	b.now = b.now.Add(time.Hour)
	r := b.push("new", 0)
	b.want("uat:holder", "new between")
	if r.waiter == nil || !r.waiter.since.Equal(entered) || r.waiter.rank != entered.UnixNano() {
		t.Errorf("it waits since %v, with the rank %d", r.waiter.since, r.waiter.rank)
	}
	o := b.push("old", 0)
	b.wantErr(o, errEnded)
	if o.ended == nil || o.ended.kind != eventSuperseded || o.ended.event.by != "h-new" || o.ended.event.byURL != "https://ci/new" {
		t.Errorf("the older is told %+v", o.ended)
	}
	b.push("new", 0)
	b.want("uat:holder", "new between")
	b.endID("holder")
	b.want("uat:new", "between")
	b.wantErr(b.push("old", 0), errEnded)
}

// Pushing often neither gains nor loses, whatever the order is made of: the time is the same for
// all that came in one batch.
func TestPushingOftenNeitherGainsNorLoses(t *testing.T) {
	b := newBench(t)
	b.must("holder")
	b.push("1", 0)
	b.queue("same time")
	for _, id := range []string{"2", "3", "4"} {
		b.push(id, 0)
	}
	b.want("uat:holder", "4 same time")
	b.now = b.now.Add(-time.Hour)
	b.queue("clock set back")
	b.push("5", 0)
	b.want("uat:holder", "5 same time clock set back")
}

// The newer one has its own priority, and counts from when the older entered.
func TestTheNewestHasItsOwnPriority(t *testing.T) {
	b := newBench(t)
	b.must("holder")
	b.post(request{id: "old", supersede: "main", priority: 5}, true)
	b.now = b.now.Add(time.Minute)
	b.queue("between")
	b.post(request{id: "new", supersede: "main", priority: -1}, true)
	b.want("uat:holder", "between new")
	b.now = b.now.Add(20 * time.Minute)
	b.post(request{id: "newer", supersede: "main", priority: 0}, true)
	b.want("uat:holder", "newer between")
}

func TestAHolderIsNeverSuperseded(t *testing.T) {
	b := newBench(t)
	b.push("holder", 0)
	b.push("waits", 0)
	b.want("uat:holder", "waits")
	b.push("newest", 0)
	b.want("uat:holder", "newest")
}

func TestOtherKeysAndOtherNeedsAreNotSuperseded(t *testing.T) {
	b := newTown(t)
	b.must("holder")
	b.push("main", 0)
	b.queue("no key")
	b.post(request{id: "other", supersede: "other"}, true)
	b.post(request{id: "slot", slot: "uat", supersede: "main"}, true)
	both := request{id: "both", needs: needsOf("perf uat"), supersede: "main"}
	b.post(both, true)
	b.want("uat:holder", "main no key other slot both")
	both.id = "both 2"
	b.post(both, true)
	b.want("uat:holder", "main no key other slot both 2")
}

// A request that can never be granted, or does not wait, ends nobody.
func TestAFailedRequestSupersedesNobody(t *testing.T) {
	b := newBench(t)
	b.must("holder")
	b.post(request{id: "old", supersede: "main", slot: "uat"}, true)
	b.wantErr(b.post(request{id: "now", supersede: "main", slot: "uat"}, false), errNoSlot)
	b.e.slots = []string{"blue"}
	b.wantErr(b.post(request{id: "new", supersede: "main", slot: "uat"}, true), errSlots)
	b.want("uat:holder", "old")
}

// An old job whose place was lost does not end a newer one, whether that waits or holds.
func TestAnOldJobThatBeginsAnewIsItselfSuperseded(t *testing.T) {
	b := newBench(t)
	b.must("holder")
	old := b.push("old", 0).waiter
	b.goAway(old)
	b.pass(maxAbsence)
	b.want("uat:holder", "")
	b.push("new", 0)
	for range 2 { // the second is a delayed duplicate
		o := b.push("old again", old.number)
		b.wantErr(o, errEnded)
		if o.ended.kind != eventSuperseded || o.ended.event.by != "h-new" || o.ended.event.byURL != "https://ci/new" {
			t.Errorf("it is told %+v", o.ended)
		}
	}
	b.want("uat:holder", "new")
	b.endID("holder")
	b.want("uat:new", "")
	b.wantErr(b.push("old once more", old.number), errEnded)
	b.endID("new")
	if r := b.push("old at last", old.number); len(r.own) != 1 {
		t.Errorf("nobody newer is there, and it is told %v", r.err)
	}
}

// One that begins anew keeps its first number, and is as old as that.
func TestTheFirstNumberStays(t *testing.T) {
	b := newBench(t)
	b.must("holder")
	one := b.push("one", 0).waiter
	two := b.push("two", 0).waiter
	b.endID("two")
	b.push("one again", one.number)
	r := b.push("two again", two.number) // newer than one, though it came into the queue before
	if r.waiter == nil || r.waiter.first != two.number {
		t.Errorf("it is %+v", r.waiter)
	}
	b.want("uat:holder", "two again")
	if later := b.push("three", b.last+1000); later.waiter.first != later.waiter.number {
		t.Errorf("a first number that was never given counts: %d", later.waiter.first)
	}
}

// When the place of a waiter is taken by one of a lower priority, what was kept for the older
// one is free for the others at once, in all its environments.
func TestWhatWasKeptForTheSupersededIsServed(t *testing.T) {
	b := newTown(t)
	b.must("holder") // of uat
	both := request{id: "old", needs: needsOf("uat web=blue"), supersede: "main"}
	b.post(both, true)
	b.postNeeds("blue", "web=blue")
	both.id, both.priority = "new", -10
	b.stepAll(func(c *batch) { b.e.request(c, both, true, 0) })
	b.wantHolds("blue", "web=blue")
	b.want("uat:holder", "new")
}

// A newer request takes the offer that the older one has, before those behind it.
func TestTheNewestTakesTheOffer(t *testing.T) {
	b := newBench(t)
	b.must("holder")
	b.goAway(b.push("old", 0).waiter)
	b.goAway(b.queue("behind"))
	b.endID("holder")
	b.want("", "old behind")
	if r := b.push("new", 0); len(r.own) != 1 {
		t.Errorf("it is told %v", r.err)
	}
	b.want("uat:new", "behind")
}

func (b *bench) remove(number uint64) result {
	return b.end(releaseRequest{waiter: number, force: true, by: "ann", origin: origin{from: "10.0.0.1"}, why: "stuck"})
}

func TestAWaiterIsRemovedByItsNumber(t *testing.T) {
	b := newBench(t)
	b.must("holder")
	stuck := b.queue("stuck")
	b.queue("behind")
	b.wantErr(b.remove(stuck.number), nil)
	b.want("uat:holder", "behind")
	o := b.ask("stuck")
	b.wantErr(o, errEnded)
	if e := o.ended.event; o.ended.kind != eventRemoved || e.by != "ann" || e.from != "10.0.0.1" || e.why != "stuck" {
		t.Errorf("it is told %+v", e)
	}
	b.wantErr(b.remove(stuck.number), errNotWaiting)
	b.want("uat:holder", "behind")
	b.wantErr(b.endID("stuck"), nil)
}

// A number is never that of another waiter, or of a lease.
func TestTheNumberOfOneWhoWasGrantedRemovesNobody(t *testing.T) {
	b := newBench(t)
	b.must("holder")
	next := b.queue("next")
	b.queue("behind")
	b.endID("holder")
	b.want("uat:next", "behind")
	b.wantErr(b.remove(next.number), errNotWaiting)
	b.wantErr(b.remove(b.e.leases[0].fence), errNotWaiting)
	b.want("uat:next", "behind")
}

func TestARemovedWaiterOfSeveralLeavesAllItsQueues(t *testing.T) {
	b := newTown(t)
	b.must("holder") // of uat
	w := b.postNeeds("both", "uat web=blue").waiter
	b.postNeeds("blue", "web=blue")
	b.stepAll(func(c *batch) { b.e.release(c, releaseRequest{waiter: w.number, force: true}) })
	b.want("uat:holder", "")
	b.wantHolds("blue", "web=blue")
}

// A waiter without id is not stored, but its removal is.
func TestARemovedWaiterWithoutIDIsInTheHistory(t *testing.T) {
	b := newBench(t)
	b.must("holder")
	w := b.post(request{holder: "curl"}, true).waiter
	b.wantErr(b.remove(w.number), nil)
	b.want("uat:holder", "")
	if e := b.past.events[len(b.past.events)-1]; e.kind != eventRemoved || e.holder != "curl" {
		t.Errorf("the last event is %+v", e)
	}
}

func TestARequestWithAnotherKeyIsAnother(t *testing.T) {
	b := newBench(t)
	b.push("a", 0)
	q := request{id: "a", holder: "h-a", url: "https://ci/a", supersede: "other"}
	b.wantErr(b.post(q, true), errDifferent)
}
