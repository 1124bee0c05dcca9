package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// A crowd is many waiters in the queues of a few environments, for the benchmark. Each waits in
// a goroutine of its own.
type crowd struct {
	b       *testing.B
	k       *keeper
	names   []string
	leases  []crowdLease
	replies chan crowdReply
	entered int
}

type crowdLease struct{ environment, id string }

type crowdReply struct {
	at  time.Time
	id  string
	own []leaseView
	err error
}

// crowdSlots are the slots of each environment.
var crowdSlots = []string{"blue", "green", "red", "white"}

// newCrowd returns a crowd of which all slots are held.
func newCrowd(b *testing.B) *crowd {
	c := &crowd{b: b, replies: make(chan crowdReply, 100), names: []string{"a", "b", "c", "d", "e"}}
	s, err := openStore(filepath.Join(b.TempDir(), "call-me.db"))
	if err != nil {
		b.Fatal(err)
	}
	slots := func(string) []string { return crowdSlots }
	limits := keeperLimits{waiters: 20_000, history: 64e6}
	c.k, err = newKeeper(s, slots, limits, keeperLog{newMetrics(), quietLog()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		c.k.close()
		s.close()
	})
	for _, name := range c.names {
		for range crowdSlots {
			r := c.k.ask(&call{kind: callRequest, environment: name, request: request{id: newID()}})
			c.hold(r.own)
		}
	}
	return c
}

// hold notes leases that were granted.
func (c *crowd) hold(own []leaseView) {
	for _, l := range own {
		c.leases = append(c.leases, crowdLease{l.environment, l.id})
	}
}

// enter adds a waiter: of ten, one needs a slot of three environments, one a certain slot, and
// the others any slot of one.
func (c *crowd) enter() {
	first := rand.IntN(len(c.names))
	q := request{id: newID()}
	names := []string{c.names[first]}
	switch c.entered % 10 {
	case 0:
		names = append(names, c.names[(first+1)%len(c.names)], c.names[(first+2)%len(c.names)])
		slices.Sort(names)
		for _, name := range names {
			q.needs = append(q.needs, need{environment: name})
		}
	case 1:
		q.slot = crowdSlots[rand.IntN(len(crowdSlots))]
	}
	c.entered++
	asked := &call{kind: callRequest, environment: names[0], others: names[1:], request: q, wait: true}
	go func() {
		r := c.k.requestSlot(context.Background(), asked, time.Hour)
		c.replies <- crowdReply{time.Now(), q.id, r.own, r.err}
	}()
}

// release ends a lease, and returns the replies that this causes, which are grants.
func (c *crowd) release() []crowdReply {
	i := rand.IntN(len(c.leases))
	l := c.leases[i]
	c.leases = slices.Delete(c.leases, i, i+1)
	before := c.k.lastEvent()
	release := releaseRequest{selector: selector{id: l.id}}
	if r := c.k.ask(&call{kind: callRelease, environment: l.environment, release: release}); r.err != nil {
		c.b.Fatal(r.err)
	}
	granted := map[string]bool{}
	events, _ := c.k.eventsAfter(before)
	for _, e := range events {
		if e.kind == eventGranted {
			granted[e.id] = true
		}
	}
	var replies []crowdReply
	for range granted {
		r := <-c.replies
		if r.err != nil || !granted[r.id] {
			c.b.Fatalf("%s was woken, which got nothing: %v", r.id, r.err)
		}
		replies = append(replies, r)
		c.hold(r.own)
	}
	return replies
}

// With 10,000 waiters, a tenth of which need three slots and a tenth a certain one, a release
// wakes only those that it serves. The time of a grant is that from the release until its
// waiter has its reply, with the commit.
func BenchmarkAGrantAmong10000Waiters(b *testing.B) {
	c := newCrowd(b)
	for c.entered < 10_000 {
		c.enter()
	}
	for {
		c.k.mu.Lock()
		waiting := c.k.waitingCount
		c.k.mu.Unlock()
		if waiting == c.entered {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	var times []time.Duration
	woken := 0
	for b.Loop() {
		start := time.Now()
		for _, r := range c.release() {
			times = append(times, r.at.Sub(start))
			woken++
			c.enter()
		}
	}
	select {
	case r := <-c.replies:
		b.Errorf("%s was woken by no release: %v", r.id, r.err)
	default:
	}
	slices.Sort(times)
	if len(times) > 0 {
		b.ReportMetric(float64(times[len(times)/2].Microseconds())/1000, "p50-ms/grant")
		b.ReportMetric(float64(times[len(times)*99/100].Microseconds())/1000, "p99-ms/grant")
	}
	b.ReportMetric(float64(woken)/float64(b.N), "woken/release")
	if woken == 0 && b.N > 100 {
		b.Error(fmt.Sprint("no release has woken anybody in ", b.N))
	}
}
