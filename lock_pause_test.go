package main

// Tests of pauses: what they cover, who changes them, and how they end.

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// pauseOn pauses or resumes an environment, or everywhere, in a batch that serves what it
// touches.
func (b *bench) pauseOn(name string, q pauseRequest) (r result) {
	b.stepAll(func(c *batch) { r = b.find(name).pause(c, q) })
	return r
}

// passAll lets the time pass on all environments.
func (b *bench) passAll(d time.Duration) {
	b.now = b.now.Add(d)
	b.stepAll(func(r *batch) {
		for _, name := range []string{everywhere, "perf", "uat", "web"} {
			b.find(name).expire(r)
		}
	})
}

// Holders keep and renew a paused slot, waiters stay, and nobody new gets it. The batch of
// the resume grants it.
func TestAPausedSlotIsGivenToNobody(t *testing.T) {
	b := newBench(t)
	b.must("a")
	b.queue("b")
	b.pauseOn("uat", pauseRequest{by: "ann"})
	b.wantErr(b.extend(renewal{selector: selector{id: "a"}}), nil)
	b.want("uat:a", "b")
	b.endID("a")
	b.want("", "b")
	b.wantErr(b.post(request{id: "c"}, false), errNoSlot)
	if b.e.isOpen("", b.find) {
		t.Error("a paused environment is open")
	}
	b.queue("d")
	r := b.pauseOn("uat", pauseRequest{resume: true, by: "bob"})
	if r.pause == nil || r.pause.by != "ann" {
		t.Errorf("resumed %+v, want the pause of ann", r.pause)
	}
	b.want("uat:b", "d")
	b.wantErr(b.pauseOn("uat", pauseRequest{resume: true}), nil)
}

// A pause of one slot leaves the others, and a waiter for a certain slot waits for it.
func TestAPauseOfASlotLeavesTheOthers(t *testing.T) {
	b := newBench(t, "blue", "green")
	b.pauseOn("uat", pauseRequest{slot: "blue"})
	b.must("a")
	b.want("green:a", "")
	b.wantErr(b.post(request{id: "b", slot: "blue"}, true), nil)
	b.endID("a")
	b.want("", "b")
	b.must("c")
	b.want("green:c", "b")
	b.wantErr(b.pauseOn("uat", pauseRequest{slot: "red"}), errSlots)
	b.wantErr(b.pauseOn("nowhere", pauseRequest{}), errUndeclared)
	if b.e.pauseOf("blue", b.find) == nil || b.e.pauseOf("green", b.find) != nil {
		t.Error("it is blue that is paused, and not green")
	}
}

// A lease on a slot that is not declared uses up a declared one, of which the paused ones are
// the first.
func TestAPausedSlotIsUsedUpFirst(t *testing.T) {
	b := newBench(t, "red")
	b.must("a")
	b.e.slots = []string{"blue", "green"}
	b.pauseOn("uat", pauseRequest{slot: "blue"})
	b.must("b")
	b.want("green:b red:a", "")
}

// The pause of all covers environments that come later, and a resume ends exactly the one
// that it names.
func TestThePauseOfAllCoversWhatComesLater(t *testing.T) {
	b := newTown(t)
	b.pauseOn(everywhere, pauseRequest{by: "ann"})
	b.pauseOn("uat", pauseRequest{by: "bob"})
	b.others["new"] = newEnvironment("new", []string{"new"})
	if p := b.find("new").pauseOf("new", b.find); p == nil || p.by != "ann" {
		t.Errorf("new is paused by %+v, want the pause of all", p)
	}
	b.queue("a")
	b.postNeeds("b", "web")
	b.pauseOn("uat", pauseRequest{resume: true})
	b.wantHolds("a", "")
	b.pauseOn("uat", pauseRequest{by: "bob"})
	b.pauseOn(everywhere, pauseRequest{resume: true})
	b.wantHolds("a", "")
	b.wantHolds("b", "web=blue")
	b.pauseOn("uat", pauseRequest{resume: true})
	b.wantHolds("a", "uat=uat")
}

// Who has made a pause changes it; another needs force. Since is when it began by its caller.
func TestAPauseIsChangedByItsCallerOrByForce(t *testing.T) {
	b := newBench(t)
	began := b.now
	b.pauseOn("uat", pauseRequest{by: "ann", length: time.Minute})
	b.now = b.now.Add(time.Second)
	r := b.pauseOn("uat", pauseRequest{by: "bob", reason: "mine"})
	b.wantErr(r, errPaused)
	if r.pause == nil || r.pause.by != "ann" {
		t.Errorf("the refusal names %+v, want ann", r.pause)
	}
	p := b.pauseOn("uat", pauseRequest{by: "ann", length: time.Hour, reason: "upgrade"}).pause
	if !p.since.Equal(began) || !p.until.Equal(b.now.Add(time.Hour)) || p.reason != "upgrade" || len(b.e.pauses) != 1 {
		t.Errorf("changed: %+v", p)
	}
	p = b.pauseOn("uat", pauseRequest{by: "bob", force: true}).pause
	if p == nil || p.by != "bob" || !p.since.Equal(b.now) || !p.until.IsZero() {
		t.Errorf("by force: %+v", p)
	}
}

// A pause with a length ends by itself, not a moment earlier, and the queue is served.
func TestAPauseEndsByTime(t *testing.T) {
	for _, name := range []string{"uat", everywhere} {
		b := newTown(t)
		b.pauseOn(name, pauseRequest{by: "ann", length: time.Minute})
		b.queue("a")
		b.passAll(time.Minute - 1)
		b.want("", "a")
		b.passAll(1)
		b.want("uat:a", "")
		last := b.past.events[len(b.past.events)-2]
		if last.kind != eventResumed || last.by != "" || last.from != "" || last.held != time.Minute {
			t.Errorf("the event of the end is %+v", last)
		}
		b.pauseOn(name, pauseRequest{by: "ann"})
		b.passAll(1000 * time.Hour)
		if len(b.find(name).pauses) != 1 {
			t.Error("a pause without a length has ended")
		}
	}
}

// After a start the wall clock says when a pause ends, but never later than its length from
// the start.
func TestAPauseAfterAStart(t *testing.T) {
	start := time.Now()
	for _, c := range []struct{ length, stored, want time.Duration }{
		{time.Hour, 20 * time.Minute, 20 * time.Minute},
		{time.Hour, -time.Minute, -time.Minute},
		{time.Hour, 5 * time.Hour, time.Hour}, // the clock was set back meanwhile
	} {
		p := (&pause{length: c.length, until: start.Add(c.stored).Round(0)}).restart(start)
		if got := p.until.Sub(start); got != c.want {
			t.Errorf("%v of %v are left: it ends after %v, want %v", c.stored, c.length, got, c.want)
		}
	}
	forever := &pause{}
	if forever.restart(start) != forever || forever.isOver(start) {
		t.Error("a pause without a length has got an end")
	}
}

// A waiter of which one slot is paused keeps nothing and retains its rank; all its
// environments are served in the batch of the pause, and of its end.
func TestAWaiterOfAPausedSlotKeepsNothing(t *testing.T) {
	b := newTown(t)
	b.postNeeds("u", "uat")
	b.postNeeds("both", "uat web=blue") // keeps blue
	b.postNeeds("single", "web=blue")
	b.wantHolds("single", "")
	b.pauseOn("uat", pauseRequest{})
	b.wantHolds("single", "web=blue")
	b.releaseOf("u", "uat")
	b.wantHolds("both", "")
	b.postNeeds("later", "uat")
	b.pauseOn("uat", pauseRequest{resume: true})
	b.wantHolds("later", "") // uat is kept for both, which was first
	b.releaseOf("single", "web")
	b.wantHolds("both", "uat=uat web=blue")
}

// The same for a certain slot, for too few slots that are not paused, and for all.
func TestAWaiterKeepsNothingWhateverIsPaused(t *testing.T) {
	for _, c := range []struct{ name, slot, held, needs string }{
		{"web", "blue", "web=blue", "uat web=blue"},
		{"perf", "perf-1", "perf=perf-1", "perf perf uat"},
		{"perf", "", "perf=perf-1", "perf=perf-1 uat"},
	} {
		b := newTown(t)
		b.postNeeds("holder", c.held)
		b.postNeeds("several", c.needs) // keeps uat
		b.postNeeds("single", "uat")
		b.wantHolds("single", "")
		b.pauseOn(c.name, pauseRequest{slot: c.slot, length: time.Second})
		b.wantHolds("single", "uat=uat")
		b.passAll(time.Second)
		b.releaseOf("single", "uat")
		b.wantHolds("several", "")
		name, _, _ := strings.Cut(c.held, "=")
		b.releaseOf("holder", name)
		if b.holds("several") == "" {
			t.Errorf("%+v: it has got nothing after the pause", c)
		}
	}
}

// Who waits for a paused slot loses its place as ever when nobody asks for it any more.
func TestAbsencesGoOnWhilePaused(t *testing.T) {
	b := newBench(t)
	b.pauseOn("uat", pauseRequest{})
	b.goAway(b.queue("a"))
	b.pass(maxAbsence)
	b.want("", "")
}

// A pause keeps its environment, and its events end no request.
func TestAPausedEnvironmentIsNotIdle(t *testing.T) {
	b := newBench(t)
	b.pauseOn("uat", pauseRequest{by: "ann", reason: "upgrade", origin: origin{from: "10.0.0.1:1"}})
	if b.e.isIdle() {
		t.Error("a paused environment is idle")
	}
	b.pauseOn("uat", pauseRequest{resume: true, by: "bob", origin: origin{from: "10.0.0.2:1"}})
	if !b.e.isIdle() {
		t.Error("an environment without a pause is not idle")
	}
	var all []event
	for _, e := range b.past.events {
		all = append(all, event{kind: e.kind, environment: e.environment, reason: e.reason, by: e.by, origin: origin{from: e.from}})
	}
	want := []event{{kind: eventPaused, environment: "uat", reason: "upgrade", by: "ann", origin: origin{from: "10.0.0.1:1"}},
		{kind: eventResumed, environment: "uat", reason: "upgrade", by: "bob", origin: origin{from: "10.0.0.2:1"}}}
	if !slices.Equal(all, want) || len(b.past.ends) != 0 {
		t.Errorf("events %+v and %d ends, want %+v", all, len(b.past.ends), want)
	}
}

// A paused slot is not taken over from its holder, who keeps it.
func TestAPausedSlotIsNotTakenOver(t *testing.T) {
	b := newBench(t)
	held := b.must("a")
	b.pauseOn("uat", pauseRequest{by: "ann"})
	var r result
	b.step(func(c *batch) { r = b.e.take(c, request{id: "b"}, takeover{fence: held.fence}, 0) })
	b.wantErr(r, errPaused)
	if r.pause == nil || r.pause.by != "ann" {
		t.Errorf("the refusal has the pause %+v, want that of ann", r.pause)
	}
	b.want("uat:a", "")
}
