package main

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// redeclare changes the declaration of a keeper that runs.
func (g *rig) redeclare(text string) {
	g.t.Helper()
	g.declared = declaredEnvironments{}
	if err := g.declared.Decode(text); err != nil {
		g.t.Fatal(err)
	}
	g.keeper.declare(g.declared.slotsOf)
}

func TestAddedSlotsAreOfferedToTheQueueAtOnce(t *testing.T) {
	inBubble(t, "uat:blue", func(t *testing.T, g *rig) {
		g.mustTake("a", 0)
		first, second, third := g.asks("b", time.Hour), g.asks("c", time.Hour), g.asks("d", time.Hour)
		g.redeclare("uat:blue+green+red")
		if slots := first.wantLease(t).slot + " " + second.wantLease(t).slot; slots != "green red" {
			t.Errorf("they got %s", slots)
		}
		third.wantNothing(t)
		g.want("a b c | d")
		g.free("a")
		third.wantLease(t)
	})
}

// The lease of a slot that is not declared any more takes the place of a declared one.
func TestARemovedSlotIsNotGrantedAgainAndItsLeaseStands(t *testing.T) {
	inBubble(t, "uat:blue+green", func(t *testing.T, g *rig) {
		g.mustTake("a", 0)
		g.mustTake("b", 0)
		waiter := g.asks("c", time.Hour)
		g.redeclare("uat:green")
		g.free("b") // green is free, but blue's lease counts
		waiter.wantNothing(t)
		g.want("a | c")
		g.free("a")
		if slot := waiter.wantLease(t).slot; slot != "green" {
			t.Errorf("granted %s", slot)
		}
	})
}

func TestTheWaitersOfAnEnvironmentThatGoesAreToldAndItsLeaseStands(t *testing.T) {
	inBubble(t, "uat,perf", func(t *testing.T, g *rig) {
		g.mustTake("a", time.Minute)
		named, unnamed := g.asks("b", time.Hour), g.asks("", time.Hour)
		g.redeclare("perf")
		for _, waiter := range []*asker{named, unnamed} {
			if got := waiter.wantErr(t, errWithdrawn); !errors.Is(got.err, errUndeclared) {
				t.Errorf("%v", got.err)
			}
		}
		g.want("a |")
		if a := g.take("c", 0); !errors.Is(a.err, errUndeclared) {
			t.Errorf("requesting: %v", a.err)
		}
		if open, err := g.isOpen("uat"); open || err != nil {
			t.Errorf("a GET says %v, %v", open, err)
		}
		time.Sleep(50 * time.Second)
		if err := g.extend("a"); err != nil {
			t.Errorf("renewing: %v", err)
		}
		time.Sleep(50 * time.Second)
		g.want("a |")
		if err := g.free("a"); err != nil {
			t.Errorf("releasing: %v", err)
		}
		g.redeclare("uat,perf")
		if a := g.take("b", 0); !errors.Is(a.err, errEnded) || a.ended == nil || a.ended.kind != eventUndeclared {
			t.Errorf("the id that had waited, declared again: %v, %+v", a.err, a.ended)
		}
		g.restart()
		if a := g.take("b", 0); !errors.Is(a.err, errEnded) || a.ended == nil || a.ended.kind != eventUndeclared {
			t.Errorf("after a start: %v, %+v", a.err, a.ended)
		}
	})
}

// The waiters are removed also if the first commit of that fails, and the file then is
// written anew.
func TestWaitersAreToldThoughTheDiskFailsWhenTheirEnvironmentGoes(t *testing.T) {
	inBubble(t, "uat,perf", func(t *testing.T, g *rig) {
		g.mustTake("a", 0)
		waiter := g.asks("b", time.Hour)
		synctest.Wait()
		g.store.db.Close() // the next commit fails
		g.redeclare("perf")
		time.Sleep(3 * time.Second)
		waiter.wantErr(t, errWithdrawn)
		g.want("a |")
		g.restart()
		g.want("a |")
	})
}

// A declaration that has changed while the server was stopped counts from its start.
func TestAtAStartTheWaitersOfAnUndeclaredEnvironmentAreRemoved(t *testing.T) {
	inBubble(t, "uat", func(t *testing.T, g *rig) {
		g.mustTake("a", 0)
		g.asks("b", time.Hour)
		g.close()
		g.declared = declaredEnvironments{}
		g.declared.Decode("perf")
		g.open()
		time.Sleep(time.Second)
		g.want("a |")
	})
}

func TestADeclarationAfterTheKeeperWasClosedDoesNotBlock(t *testing.T) {
	g := newRig(t, "uat")
	g.close()
	g.redeclare("perf")
}
