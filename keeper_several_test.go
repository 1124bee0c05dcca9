package main

// Tests of calls that name several environments.

import (
	"bytes"
	"context"
	"errors"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// extendBoth renews the leases of an id on uat and perf.
func (g *rig) extendBoth(id string, others ...string) error {
	c := &call{kind: callRenew, environment: "perf", others: others,
		renewal: renewal{selector: selector{id: id}, at: time.Now()}}
	return g.ask(c).err
}

// takeBoth is granted uat and perf.
func (g *rig) takeBoth(id string, ttl, claim time.Duration) {
	g.t.Helper()
	q := request{id: id, ttl: ttl, needs: []need{{environment: "perf"}, {environment: "uat"}}}
	c := &call{kind: callRequest, environment: "perf", others: []string{"uat"}, request: q, claim: claim}
	if a := g.ask(c); a.err != nil || len(a.own) != 2 {
		g.t.Fatalf("%+v", a)
	}
}

// A renewal of several leases is seen in each environment, needs no disk, and renews none if
// one is lost.
func TestARenewalOfSeveralLeases(t *testing.T) {
	inBubble(t, "", func(t *testing.T, g *rig) {
		g.takeBoth("12345678", 2*time.Minute, 30*time.Second)
		before, _ := os.ReadFile(g.path)
		untilOf := func(name string) time.Time {
			v, err := g.view(name)
			if err != nil || len(v.leases) != 1 {
				t.Fatalf("%s has the leases %v, %v", name, v.leases, err)
			}
			return v.leases[0].deadline
		}
		for range 60 {
			if err := g.extendBoth("12345678", "uat"); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"uat", "perf"} {
				if end := time.Now().Add(2 * time.Minute); !untilOf(name).Equal(end) {
					t.Fatalf("%s lasts until %v, want %v", name, untilOf(name), end)
				}
			}
			time.Sleep(time.Minute)
		}
		if after, _ := os.ReadFile(g.path); !bytes.Equal(before, after) {
			t.Error("a renewal was written")
		}
		if err := g.extendBoth("12345678", "web"); !errors.Is(err, errNotHeld) {
			t.Errorf("with an environment that it does not have: %v", err)
		}
		time.Sleep(time.Minute + time.Second)
		g.want("|")
		if err := g.extendBoth("12345678", "uat"); !errors.Is(err, errNotHeld) {
			t.Errorf("after the end: %v", err)
		}
	})
}

// In a batch, after a call that is saved, it is the same.
func TestARenewalOfSeveralLeasesInABatchIsPublished(t *testing.T) {
	inBubble(t, "", func(t *testing.T, g *rig) {
		g.takeBoth("12345678", 2*time.Minute, 30*time.Second)
		time.Sleep(10 * time.Second)
		g.keeper.mu.Lock()
		c := &call{kind: callRenew, environment: "perf", others: []string{"uat"}, reply: make(chan reply, 1),
			renewal: renewal{selector: selector{id: "12345678"}, at: time.Now()}}
		g.keeper.pending = append(g.keeper.pending, c)
		g.keeper.inbox.wakeUp()
		g.keeper.mu.Unlock()
		if a := <-c.reply; a.err != nil || len(a.own) != 2 {
			t.Fatalf("%+v", a)
		}
		for _, name := range []string{"uat", "perf"} {
			if v, _ := g.view(name); !v.leases[0].deadline.Equal(time.Now().Add(2 * time.Minute)) {
				t.Errorf("%s lasts until %v", name, v.leases[0].deadline)
			}
		}
	})
}

// keptTime returns the value of the metric of kept slots of an environment; zero if it has none.
func (g *rig) keptTime(environment string) float64 {
	g.t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(g.metrics.keptTime)
	families, err := registry.Gather()
	if err != nil {
		g.t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if m.GetLabel()[0].GetValue() == environment {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

// The time for which slots are kept for requests that need several is counted while it passes,
// for each slot, across a start, and ends when they are granted or the request leaves.
func TestTheTimeOfKeptSlotsIsCounted(t *testing.T) {
	inBubble(t, "uat,perf,web:2", func(t *testing.T, g *rig) {
		wantTime := func(name string, want float64) {
			t.Helper()
			got := g.keptTime(name)
			if got < want-0.6 || got > want+0.1 {
				t.Errorf("%s: %v slot-seconds, want %v", name, got, want)
			}
		}
		asksAll := func(id string) func() {
			ctx, leave := context.WithCancel(t.Context())
			needs := []need{{environment: "perf"}, {environment: "uat"}, {environment: "web"}, {environment: "web"}}
			c := &call{kind: callRequest, environment: "perf", others: []string{"uat", "web"}, request: request{id: id, needs: needs}, wait: true}
			done := make(chan reply, 1)
			go func() { done <- g.requestSlot(ctx, c, time.Hour) }()
			synctest.Wait()
			return func() { leave(); <-done }
		}
		perf := func(kind callKind) {
			g.ask(&call{kind: kind, environment: "perf", request: request{id: "holder"}, release: releaseRequest{selector: selector{id: "holder"}}})
		}
		perf(callRequest)
		leave := asksAll("all-1234")
		time.Sleep(10 * time.Minute)
		wantTime("uat", 600)
		wantTime("web", 1200)
		wantTime("perf", 0)
		leave()
		time.Sleep(5 * time.Second)
		leave = asksAll("all-1234")
		g.mustWait("single-1")
		time.Sleep(5 * time.Second)
		wantTime("uat", 610)
		perf(callRelease)
		time.Sleep(time.Minute)
		wantTime("uat", 610)
		wantTime("web", 1220)
		leave()
	})
}

// mustWait enters the queue of uat, without a connection that waits.
func (g *rig) mustWait(id string) {
	g.asks(id, time.Millisecond)
	time.Sleep(2 * time.Millisecond)
	synctest.Wait()
}
