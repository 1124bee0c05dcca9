package main

// Tests of the order of the queue, of certain slots, and of requests for several slots.

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

// newTown returns a bench with the environments uat, perf with two slots, and web with the
// slots blue and green.
func newTown(t *testing.T) *bench {
	b := newBench(t, "uat")
	b.others["perf"] = newEnvironment("perf", []string{"perf-1", "perf-2"})
	b.others["web"] = newEnvironment("web", []string{"blue", "green"})
	return b
}

// needsOf reads needs as "uat web=blue".
func needsOf(text string) (needs []need) {
	for _, field := range strings.Fields(text) {
		name, slot, _ := strings.Cut(field, "=")
		needs = append(needs, need{name, slot})
	}
	return needs
}

// postNeeds requests all that text names, with wait, in one batch that serves what it touches.
func (b *bench) postNeeds(id, text string) (r result) {
	needs := needsOf(text)
	q := request{id: id, ttl: time.Minute}
	if len(needs) == 1 {
		q.slot = needs[0].slot
	} else {
		q.needs = needs
	}
	b.stepAll(func(c *batch) { r = b.find(needs[0].environment).request(c, q, true, 0) })
	return r
}

// stepAll applies rules in a batch, and serves what they have touched as the keeper does.
func (b *bench) stepAll(f func(r *batch)) {
	b.step(func(r *batch) {
		f(r)
		for i := 0; i < len(r.touched); i++ {
			r.touched[i].serveQueue(r)
		}
	})
}

// holds returns the leases of an id as "uat web=blue", in the order of environments and slots.
func (b *bench) holds(id string) string {
	var all []string
	for _, name := range []string{"perf", "uat", "web"} {
		for _, l := range b.find(name).matchingLeases(selector{id: id}) {
			all = append(all, name+"="+l.slot)
		}
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func (b *bench) wantHolds(id, want string) {
	b.t.Helper()
	if got := b.holds(id); got != want {
		b.t.Errorf("%s holds %q, want %q", id, got, want)
	}
}

func (b *bench) releaseOf(id, name string, others ...string) (r result) {
	b.stepAll(func(c *batch) {
		r = b.find(name).release(c, releaseRequest{selector: selector{id: id}}, others...)
	})
	return r
}

// Invariant 3: the order is by rank, and a priority passes those that entered within ten
// minutes for each point.
func TestAPriorityPassesThoseThatEnteredShortlyBefore(t *testing.T) {
	b := newBench(t)
	b.must("holder")
	b.queue("long")
	b.now = b.now.Add(11 * time.Minute)
	b.queue("short")
	b.post(request{id: "urgent", priority: 1}, true)
	b.post(request{id: "idle", priority: -1}, true)
	b.queue("last")
	b.want("uat:holder", "long urgent short last idle")
	b.endID("holder")
	b.want("uat:long", "urgent short last idle")
}

// A clock that is set back does not put a newcomer before those that wait.
func TestWaitersStayInOrderWhenTheClockIsSetBack(t *testing.T) {
	b := newBench(t)
	b.must("holder")
	b.now = b.now.Round(0) // by the wall clock
	b.queue("a")
	b.now = b.now.Add(-time.Hour)
	b.queue("b")
	b.want("uat:holder", "a b")
}

func TestANewcomerWithAnEarlierRankTakesAnOffer(t *testing.T) {
	b := newBench(t)
	b.must("holder")
	b.goAway(b.queue("away"))
	b.endID("holder")
	b.want("", "away")
	if r := b.post(request{id: "plain"}, true); len(r.own) > 0 {
		t.Error("a newcomer of the same rank took the offer")
	}
	if r := b.post(request{id: "urgent", priority: 5}, true); len(r.own) != 1 {
		t.Error("the urgent newcomer waits")
	}
	b.want("uat:urgent", "away plain")
}

// A waiter for a certain slot gets that one only, and does not hold up others.
func TestACertainSlotIsWaitedFor(t *testing.T) {
	b := newBench(t, "blue", "green")
	b.must("a")
	b.must("b")
	for _, id := range []string{"for green", "for green too"} {
		b.post(request{id: id, slot: "green"}, true)
	}
	b.queue("any")
	b.endID("a")
	b.want("blue:any green:b", "for green for green too")
	b.endID("b")
	b.want("blue:any green:for green", "for green too")
	b.wantErr(b.post(request{id: "x", slot: "red"}, true), errSlots)
}

// The free slot whose last lease ended the longest ago is given out first, and one that was
// never used before all others.
func TestSlotsWearEvenly(t *testing.T) {
	b := newBench(t, "a", "b", "c")
	var got []string
	for range 7 {
		l := only(b.post(request{id: "x" + strings.Repeat("y", len(got))}, false).own)
		got = append(got, l.slot)
		b.endID(l.id)
	}
	if order := strings.Join(got, " "); order != "a b c a b c a" {
		t.Errorf("the slots were given out in the order %q", order)
	}
}

// A request for several slots gets all at once or nothing, and what it is assigned is kept.
func TestSeveralSlotsAreGrantedAtOnceOrNotAtAll(t *testing.T) {
	b := newTown(t)
	b.postNeeds("first", "uat")
	if r := b.postNeeds("both", "perf perf uat"); r.err != nil || r.waiter == nil || len(r.own) > 0 {
		t.Fatalf("%+v, want a waiter", r)
	}
	b.wantHolds("both", "")
	if r := b.postNeeds("later", "perf"); len(r.own) > 0 {
		t.Error("a slot that is kept was given away")
	}
	if b.find("perf").isOpen("", b.find) {
		t.Error("perf is open although its slots are kept")
	}
	b.releaseOf("first", "uat")
	b.wantHolds("both", "perf=perf-1 perf=perf-2 uat=uat")
	b.wantHolds("later", "")
	if r := b.postNeeds("both", "perf perf uat"); r.err != nil || len(r.own) != 3 {
		t.Errorf("repeated: %+v, want the three leases", r)
	}
	if r := b.postNeeds("both", "perf uat"); !errors.Is(r.err, errDifferent) {
		t.Errorf("the same id with other needs: %v", r.err)
	}
	if r := b.releaseOf("both", "perf", "uat"); r.err != nil || len(r.own) != 3 {
		t.Errorf("released: %+v, want three leases", r)
	}
	b.wantHolds("later", "perf=perf-1")
}

// What was kept goes on to the next when the waiter leaves or is abandoned.
func TestWhatIsKeptIsPassedOn(t *testing.T) {
	for _, how := range []string{"leaves", "is abandoned"} {
		b := newTown(t)
		b.postNeeds("holder", "uat")
		both := b.postNeeds("both", "uat web=blue")
		b.postNeeds("next", "web=blue")
		b.wantHolds("next", "")
		if how == "leaves" {
			b.releaseOf("both", "uat")
		} else {
			b.goAway(both.waiter)
			b.now = b.now.Add(maxAbsence)
			b.stepAll(func(r *batch) { b.e.expire(r) })
		}
		b.wantHolds("next", "web=blue")
		if r := b.postNeeds("both", "uat web=blue"); !errors.Is(r.err, errEnded) {
			t.Errorf("the id of the waiter that %s: %+v", how, r)
		}
	}
}

// A request that has lost one of its leases has ended.
func TestARequestThatHasLostOneOfItsSlotsHasEnded(t *testing.T) {
	b := newTown(t)
	b.postNeeds("both", "uat web")
	b.stepAll(func(r *batch) {
		b.e.release(r, releaseRequest{force: true, by: "root"})
	})
	r := b.postNeeds("both", "uat web")
	if !errors.Is(r.err, errEnded) || r.ended == nil || r.ended.kind != eventForced {
		t.Errorf("repeated: %+v, want that it has ended by force", r)
	}
	b.now = b.now.Add(rememberAge) // the end is forgotten; the other lease would have ended long ago
	if r := b.postNeeds("both", "uat web"); !errors.Is(r.err, errEnded) {
		t.Errorf("an hour later: %+v", r)
	}
	r = b.releaseOf("both", "uat", "web")
	if len(r.own) != 1 || r.own[0].environment != "web" {
		t.Errorf("released: %+v, want the lease that is left", r)
	}
}

// A renewal of several renews all or none, a release ends what lives and names what is lost.
func TestSeveralLeasesAreRenewedAndReleasedTogether(t *testing.T) {
	b := newTown(t)
	b.postNeeds("both", "perf perf uat")
	b.now = b.now.Add(30 * time.Second)
	var r result
	renew := func(ttl time.Duration) {
		q := renewal{selector: selector{id: "both"}, ttl: ttl, hasTTL: ttl != 0, at: b.now}
		b.step(func(c *batch) { r = b.find("perf").renew(c, q, "uat") })
	}
	renew(time.Hour)
	if r.err != nil || len(r.own) != 3 {
		t.Fatalf("renewed: %+v", r)
	}
	for _, l := range r.own {
		if l.ttl != time.Hour || !l.deadline.Equal(b.now.Add(time.Hour)) {
			t.Errorf("%s has ttl %v until %v", l.slot, l.ttl, l.deadline)
		}
	}
	b.stepAll(func(c *batch) { b.e.release(c, releaseRequest{force: true}) })
	b.now = b.now.Add(time.Minute)
	renew(0)
	if !errors.Is(r.err, errNotHeld) || r.ended == nil || r.ended.event.environment != "uat" {
		t.Errorf("renewed after uat was lost: %+v", r)
	}
	for _, l := range b.find("perf").leases {
		if l.deadline.After(b.now.Add(time.Hour - time.Minute)) {
			t.Error("perf was renewed although uat is lost")
		}
	}
	r = b.releaseOf("both", "uat", "perf")
	if !errors.Is(r.err, errNotHeld) || r.ended == nil || r.ended.event.environment != "uat" || len(r.own) != 2 {
		t.Errorf("released: %+v, want two leases and the loss of uat", r)
	}
	if r := b.releaseOf("both", "perf", "uat"); !errors.Is(r.err, errNotHeld) {
		t.Errorf("released again: %+v", r)
	}
	b.wantHolds("both", "")
	b.postNeeds("a", "perf")
	b.postNeeds("b", "perf")
	b.step(func(c *batch) { r = b.find("perf").renew(c, renewal{at: b.now}) })
	if !errors.Is(r.err, errSeveral) || len(r.own) != 2 {
		t.Errorf("a renewal without id of two leases: %+v", r)
	}
}

// A newcomer whose environment is served with it is told its own lease, not that of another.
func TestANewcomerIsToldItsOwnLease(t *testing.T) {
	b := newTown(t)
	b.postNeeds("a", "web=blue")
	b.postNeeds("b", "web=green")
	b.goAway(b.postNeeds("c", "web").waiter)
	b.releaseOf("a", "web")
	var first, second result
	b.step(func(r *batch) {
		first = b.find("web").request(r, request{id: "d", priority: 9}, true, 0)
		second = b.find("web").request(r, request{id: "e", priority: 9}, true, 0)
	})
	if len(first.own) != 1 || first.own[0].id != "d" || len(second.own) != 0 {
		t.Errorf("got %+v and %+v", first, second)
	}
}

// While an environment is not declared, nothing is kept for those that need it and another.
func TestNothingIsKeptWhileAnEnvironmentIsUndeclared(t *testing.T) {
	b := newTown(t)
	b.postNeeds("holder", "uat")
	b.postNeeds("both", "uat web=blue")
	b.postNeeds("next", "web=blue")
	slots := b.e.slots
	declare := func(to []string) {
		b.e.slots = to
		b.stepAll(func(r *batch) {
			for name := range b.e.queueNeeds() {
				r.touched = append(r.touched, b.find(name))
			}
		})
	}
	declare(nil)
	b.wantHolds("next", "web=blue")
	b.wantErr(b.postNeeds("late", "uat web"), errUndeclared)
	declare(slots)
	b.releaseOf("next", "web")
	b.releaseOf("holder", "uat")
	b.wantHolds("both", "uat=uat web=blue")
}

// Invariant 1: a bug that grants a slot with a lease ends the process, and makes no second one.
func TestGrantingAHeldSlotPanics(t *testing.T) {
	b := newBench(t)
	b.must("a")
	defer func() {
		if recover() == nil {
			t.Error("a held slot was granted")
		}
	}()
	b.step(func(r *batch) { b.e.grant(r, request{id: "b"}, "uat", 0, 0) })
}

// The same id with another slot or priority is another request.
func TestSlotAndPriorityAreTerms(t *testing.T) {
	b := newBench(t, "blue", "green")
	b.post(request{id: "a", slot: "blue", priority: 1}, true)
	b.wantErr(b.post(request{id: "a", slot: "green", priority: 1}, true), errDifferent)
	b.wantErr(b.post(request{id: "a", slot: "blue", priority: 2}, true), errDifferent)
	b.wantErr(b.post(request{id: "a", slot: "blue", priority: 1}, true), nil)
}

// Nothing is kept for a waiter whose certain slot is not declared, and nobody can ask for one
// slot twice.
func TestNothingIsKeptWhileACertainSlotIsUndeclared(t *testing.T) {
	b := newTown(t)
	b.postNeeds("holder", "web=blue")
	b.postNeeds("both", "uat web=blue")
	b.postNeeds("next", "uat")
	b.wantHolds("next", "")
	web := b.find("web")
	web.slots = []string{"green"}
	if names := web.queueNeeds(); len(names) != 2 || !names["uat"] || !names["web"] {
		t.Errorf("the queue of web needs %v", names)
	}
	if names := newEnvironment("x", nil).queueNeeds(); len(names) != 0 {
		t.Errorf("no queue needs %v", names)
	}
	b.stepAll(func(r *batch) { r.touched = append(r.touched, b.e) })
	b.wantHolds("next", "uat=uat")
	b.postNeeds("behind", "uat")
	if names := b.e.queueNeeds(); !names["uat"] {
		t.Errorf("the queue of uat needs %v", names)
	}
	web.slots = []string{"blue", "green"}
	b.wantErr(b.postNeeds("twice", "web=blue web=blue"), errSlots)
	var r result
	b.step(func(c *batch) {
		r = b.e.renew(c, renewal{selector: selector{id: "next"}, at: b.now}, "web")
	})
	if r.lost != "web" {
		t.Errorf("lost %q, want web", r.lost)
	}
	alone := newBench(t)
	alone.must("a")
	alone.queue("b")
	if names := alone.e.queueNeeds(); !names["uat"] {
		t.Errorf("a queue needs %v", names)
	}
}
