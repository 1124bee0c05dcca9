package main

// The ends of leases in simulated time: thousands of leases over months, with renewals that
// stop, new ttls and restarts of the server. The keeper's events have the time of each end.
// It must not be before the lease's ttl, and at most a second after it.

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// A tenant holds one lease after another, in an environment of its own.
type tenant struct {
	name     string
	earliest time.Time // when the lease may end; zero if it has none
	ttl      time.Duration
	round    int
}

func (n *tenant) id() string { return fmt.Sprint("tenant-", n.name, "-", n.round) }

// A calendar is a keeper, its tenants, and the counts of what was observed.
type calendar struct {
	t       *testing.T
	k       *keeper
	path    string
	chance  *rand.Rand
	tenants map[string]*tenant // by environment
	counted uint64             // the number of the last event that look has read
	ends    int
	early   int
	late    int
	leased  time.Duration // the sum for all leases
}

func (c *calendar) open() {
	s, err := openStore(c.path)
	if err != nil {
		c.t.Fatal(err)
	}
	one := func(name string) []string { return []string{name} }
	if c.k, err = newKeeper(s, one, testLimits, keeperLog{newMetrics(), slog.New(slog.DiscardHandler)}); err != nil {
		c.t.Fatal(err)
	}
}

func (c *calendar) close() {
	c.k.close()
	c.k.store.close()
}

// someTTL returns a random ttl from a second to a month. Seconds, minutes, hours and days are
// equally likely.
func (c *calendar) someTTL() time.Duration {
	scale := []time.Duration{time.Second, time.Minute, time.Hour, 24 * time.Hour}[c.chance.IntN(4)]
	return scale + time.Duration(c.chance.Int64N(int64(30*scale)))
}

func (c *calendar) take(n *tenant) {
	n.round++
	n.ttl = c.someTTL()
	a := c.k.requestSlot(context.Background(), &call{kind: callRequest, environment: n.name, request: request{id: n.id(), ttl: n.ttl}}, 0)
	if a.err != nil {
		c.t.Fatalf("%s: %v", n.name, a.err)
	}
	n.earliest = time.Now().Add(n.ttl)
}

// renew renews the tenant's lease, in one of four cases with another ttl.
func (c *calendar) renew(n *tenant) {
	r := renewal{selector: selector{id: n.id()}, at: time.Now()}
	ttl := n.ttl
	if c.chance.IntN(4) == 0 {
		ttl = c.someTTL()
		r.ttl, r.hasTTL = ttl, true
	}
	over := !r.at.Before(n.earliest)
	switch a := c.k.ask(&call{kind: callRenew, environment: n.name, renewal: r}); {
	case a.err == nil: // a lease can be renewed after its end, until the scan has ended it
		end := r.at.Add(ttl)
		if ttl != n.ttl || end.After(n.earliest) {
			n.earliest = end
		}
		n.ttl = ttl
	case !errors.Is(a.err, errNotHeld) || !over:
		c.t.Errorf("%s: a renewal %v before the end: %v", n.name, time.Until(n.earliest), a.err)
		c.early++
	}
}

// look reads the keeper's new events, and checks the time of every end. It also checks that no
// lease is live more than a second after its end.
func (c *calendar) look() {
	var events []*event
	events, c.counted = c.k.eventsAfter(c.counted)
	for _, e := range events {
		if e.kind != eventExpired {
			continue
		}
		n := c.tenants[e.environment]
		c.ends++
		switch late := e.at.Sub(n.earliest); {
		case n.earliest.IsZero(), late < 0:
			c.t.Errorf("%s ended %v early", n.name, -late)
			c.early++
		case late > time.Second:
			c.t.Errorf("%s ended %v late", n.name, late)
			c.late++
		}
		n.earliest = time.Time{}
	}
	for _, n := range c.tenants {
		if now := time.Now(); !n.earliest.IsZero() && now.Sub(n.earliest) > time.Second {
			c.t.Errorf("%s lives on, %v late", n.name, now.Sub(n.earliest))
			c.late++
			n.earliest = time.Time{}
		}
	}
}

// restart stops the keeper for the time down and starts it again. Every live lease then has its
// full ttl.
func (c *calendar) restart(down time.Duration) {
	c.look()
	c.close()
	time.Sleep(down)
	c.open()
	for _, n := range c.tenants {
		if !n.earliest.IsZero() {
			n.earliest = time.Now().Add(n.ttl)
		}
	}
}

// live lets tenants request and renew leases at random, and restarts the keeper now and then,
// until the time span has passed or an end was early or late.
func (c *calendar) live(span time.Duration) {
	names := []string{}
	for name := range c.tenants {
		names = append(names, name)
	}
	for begin := time.Now(); time.Since(begin) < span && c.early+c.late == 0; {
		pause := time.Duration(c.chance.Int64N(int64(2 * time.Minute)))
		time.Sleep(pause)
		synctest.Wait()
		c.look()
		for _, n := range c.tenants {
			if !n.earliest.IsZero() {
				c.leased += pause
			}
		}
		for range 1 + c.chance.IntN(len(names)/20) {
			n := c.tenants[names[c.chance.IntN(len(names))]]
			switch {
			case n.earliest.IsZero():
				c.take(n)
			case c.chance.IntN(3) > 0:
				c.renew(n)
			}
		}
		if c.chance.IntN(2000) == 0 {
			c.restart(c.someTTL())
		}
	}
}

// Invariant 4: no lease ends before its ttl, or more than a second after it.
func TestTrustTime(t *testing.T) {
	started, spend := time.Now(), budget(3*time.Second)
	folder, days, ends, early, late := fastFolder(t), 0, 0, 0, 0
	span := time.Hour
	if long > 0 {
		span = 6 * time.Hour
	}
	for run := uint64(0); time.Since(started) < spend && early+late == 0; run++ {
		synctest.Test(t, func(t *testing.T) {
			c := &calendar{t: t, path: filepath.Join(folder, fmt.Sprint(run)), chance: rand.New(rand.NewPCG(*seed, run)), tenants: map[string]*tenant{}}
			for i := range 400 {
				name := fmt.Sprint("env", i)
				c.tenants[name] = &tenant{name: name}
			}
			c.open()
			defer func() { c.close() }()
			c.live(span)
			days, ends, early, late = days+int(c.leased/(24*time.Hour)), ends+c.ends, early+c.early, late+c.late
		})
	}
	record(t, "time", started, map[string]int{"simulated days": days, "leases that ended": ends, "early": early, "late": late})
}
