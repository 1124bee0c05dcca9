package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/bbolt"
)

// openFast closes the keeper, and opens another one on a new file in memory.
func (g *rig) openFast() {
	g.close()
	g.path = fastFolder(g.t) + "/call-me.db"
	g.open()
}

// takeFull takes a slot of uat with texts of the largest size.
func (g *rig) takeFull(id string) reply {
	q := request{id: id, holder: strings.Repeat("h", maxHolder-len(id)) + id, ttl: time.Hour,
		url: "https://ci/" + strings.Repeat("u", maxLink-11), reason: strings.Repeat("r", maxReason)}
	return g.ask(&call{kind: callRequest, environment: "uat", request: q})
}

// cycles takes and frees uat n times, for the ids id-from and so on.
func (g *rig) cycles(from, n int) {
	g.t.Helper()
	for i := range n {
		id := fmt.Sprint("id-", from+i)
		if err := errors.Join(g.takeFull(id).err, g.free(id)); err != nil {
			g.t.Fatal(err)
		}
	}
}

// stored returns how many events and ends the file has, and the bytes of the events.
func (g *rig) stored() (events, ends, size int) {
	g.store.db.View(func(tx *bbolt.Tx) error {
		ends = tx.Bucket([]byte(endBucket)).Inspect().KeyN
		return tx.Bucket([]byte(historyBucket)).ForEach(func(key, value []byte) error {
			events++
			size += len(value)
			return nil
		})
	})
	return events, ends, size
}

// checkStored fails the test unless the file has the events and the ends that the keeper has in
// memory: as many events as the ring, and the ends whose events it does not have.
func (g *rig) checkStored() {
	g.t.Helper()
	synctest.Wait()
	g.betweenBatches(func() {
		events, ends, size := g.stored()
		alone := 0
		for _, end := range g.history.ends {
			if end.event == nil {
				alone++
			}
		}
		if events != len(g.history.events) || ends != alone || size > g.limits.history || g.history.size > g.limits.history {
			g.t.Errorf("stored are %d events of %d bytes and %d ends, in memory %d events and %d ends alone of %d bytes",
				events, size, ends, len(g.history.events), alone, g.history.size)
		}
	})
}

// The history is bounded in bytes in memory and in the file, at each moment, and what has ended
// is refused as before also when only its end is remembered, and after a start.
func TestTheHistoryIsBoundedInBytesInMemoryAndInTheFile(t *testing.T) {
	inBubble(t, "", func(t *testing.T, g *rig) {
		g.limits.history = 200_000
		g.openFast()
		for i := range 8 {
			g.cycles(50*i, 50)
			g.checkStored()
		}
		g.betweenBatches(func() {
			if n := len(g.history.ends); n != 400 {
				t.Errorf("%d ends are remembered", n)
			}
		})
		for range 2 {
			for i := range 400 {
				id := fmt.Sprint("id-", i)
				if a := g.takeFull(id); !errors.Is(a.err, errEnded) || a.ended.kind != eventReleased || i < 350 && a.ended.event != nil || i >= 395 && a.ended.event == nil {
					t.Fatalf("%s again: %v, %+v", id, a.err, a.ended)
				}
				if err := g.free(id); err != nil {
					t.Fatalf("%s is released again: %v", id, err)
				}
			}
			g.restart()
			g.checkStored()
			if g.leftAtStart != 0 {
				t.Errorf("the start left out %d events", g.leftAtStart)
			}
		}
		time.Sleep(rememberAge)
		g.cycles(1000, 250)
		g.checkStored()
		g.betweenBatches(func() {
			if n := len(g.history.ends); n != 250 {
				t.Errorf("an hour later %d ends are remembered", n)
			}
		})
	})
}

// A countedStore notes the largest save.
type countedStore struct {
	*store
	saves, largest *int
}

func (s countedStore) save(counter uint64, writes []write, ends []int) error {
	*s.saves++
	*s.largest = max(*s.largest, len(writes))
	return s.store.save(counter, writes, ends)
}

// A start with a file over the limit leaves out the oldest events, and deletes them with small
// commits. Leases, waiters and ended requests are loaded.
func TestAStartLeavesOutTheOldestEvents(t *testing.T) {
	inBubble(t, "", func(t *testing.T, g *rig) {
		const n = 1600
		g.openFast()
		g.cycles(0, n)
		g.mustTake("holder", time.Hour)
		g.asks("waiter", time.Hour)
		saves, largest := 0, 0
		g.wrap = func(s *store) keeperStore { return countedStore{s, &saves, &largest} }
		g.close()
		g.limits.history = 1_000_000
		g.open()
		g.want("holder | waiter")
		g.betweenBatches(func() {
			if g.history.size > g.limits.history || g.leftAtStart+len(g.history.events) != 2*n+1 || g.leftAtStart < 2*maxLeftOut {
				t.Errorf("it left out %d events, and has %d of %d bytes", g.leftAtStart, len(g.history.events), g.history.size)
			}
		})
		if a := g.takeFull("id-0"); !errors.Is(a.err, errEnded) {
			t.Errorf("a request that has ended: %v", a.err)
		}
		time.Sleep(4 * scanPeriod)
		g.checkStored()
		if largest > 2*maxLeftOut || saves < 3 {
			t.Errorf("%d commits with up to %d writes", saves, largest)
		}
		before := saves
		time.Sleep(4 * scanPeriod)
		if saves != before {
			t.Error("it goes on to save")
		}
		g.restart()
		if a := g.takeFull("id-0"); g.leftAtStart != 0 || !errors.Is(a.err, errEnded) || a.ended.event != nil {
			t.Errorf("%d were left out again; a request that has ended: %v", g.leftAtStart, a.err)
		}
		g.want("holder | waiter")
	})
}

// A start with little memory has what its leases leave of it for the history.
func TestAStartWithLittleMemoryLoadsLeasesFirst(t *testing.T) {
	inBubble(t, "", func(t *testing.T, g *rig) {
		g.openFast()
		g.cycles(0, 20)
		for i := range 50 {
			g.ask(&call{kind: callRequest, environment: fmt.Sprint("env", i), request: request{id: "12345678", reason: strings.Repeat("r", maxReason)}})
		}
		leases := 50 * (loadedSize + maxReason)
		for memory, isEmpty := range map[int]bool{leases: true, leases + 50_000: false} {
			g.close()
			g.limits.memory = memory
			g.open()
			views := g.views(g.published.Load(), nil)
			if len(views) != 50 || g.leftAtStart == 0 || (len(g.history.events) == 0) != isEmpty || g.history.size+leases > memory && !isEmpty {
				t.Errorf("with %d bytes: %d leases, %d events left out, %d loaded", memory, len(views), g.leftAtStart, len(g.history.events))
			}
		}
	})
}

// On a full disk a start deletes what it leaves out too, and so gets space.
func TestAStartOnAFullDiskDeletesWhatItLeavesOut(t *testing.T) {
	inBubble(t, "", func(t *testing.T, g *rig) {
		g.openFast()
		g.cycles(0, 1000)
		g.close()
		g.limits.history = 500_000
		g.open()
		g.betweenBatches(func() {
			size := 0
			g.store.db.View(func(tx *bbolt.Tx) error { size = int(tx.Size()); return nil })
			g.store.db.MaxSize = size
		})
		time.Sleep(10 * time.Second)
		g.betweenBatches(func() {
			events, _, _ := g.stored()
			if events != len(g.history.events) || len(g.leftOut) != 0 || !g.isHealthy.Load() {
				t.Errorf("the file has %d events, in memory are %d; healthy %v", events, len(g.history.events), g.isHealthy.Load())
			}
		})
		g.cycles(2000, 50)
	})
}

// What a start has left out is also gone from a file that is rewritten, and its ends are not.
func TestARewrittenFileHasTheEndsAlone(t *testing.T) {
	inBubble(t, "", func(t *testing.T, g *rig) {
		g.openFast()
		g.cycles(0, 200)
		g.close()
		g.limits.history = 200_000
		g.open()
		counter, records := g.snapshot()
		if err := g.store.rewrite(counter, records); err != nil {
			t.Fatal(err)
		}
		g.checkStored()
		g.restart()
		g.checkStored()
		for i := range 200 {
			if a := g.takeFull(fmt.Sprint("id-", i)); !errors.Is(a.err, errEnded) {
				t.Fatalf("%d: %v", i, a.err)
			}
		}
	})
}

// The answers about a request of which only the end is remembered say how and when it ended.
func TestAnswersAboutAnEndWithoutItsEvent(t *testing.T) {
	g := newRig(t, "")
	g.close()
	g.limits.history = 1
	g.open()
	s := siteOf(t, g)
	s.call("POST /maybe?environment=uat&id=released-1&holder=ann").want(t, 201, "")
	s.call("DELETE /maybe?environment=uat&id=released-1").want(t, 204, "")
	s.call("POST /maybe?environment=uat&id=forced-01&holder=bob").want(t, 201, "")
	s.call("DELETE /maybe?environment=uat&force=1&holder=root").want(t, 204, "")
	s.call("POST /maybe?environment=uat&id=expired-1&holder=carol&ttl=1s").want(t, 201, "")
	for len(g.views(g.published.Load(), nil)) > 0 {
		time.Sleep(50 * time.Millisecond)
	}
	s.call("POST /maybe?environment=uat&id=present-1&holder=dave").want(t, 201, "")
	if n := len(s.historyOf("").Events); n != 1 {
		t.Fatalf("the history has %d events", n)
	}
	s.call("POST /maybe?environment=uat&id=released-1&holder=ann").want(t, 410, "it was released at 20")
	s.call("DELETE /maybe?environment=uat&id=released-1").want(t, 204, "")
	s.call("DELETE /maybe?environment=uat&holder=ann").want(t, 204, "")
	s.call("DELETE /maybe?environment=uat&holder=ann&slot=uat").want(t, 204, "")
	s.call("POST /maybe?environment=uat&id=forced-01&holder=bob").want(t, 410, "it was released by force at 20")
	s.call("DELETE /maybe?environment=uat&holder=bob").want(t, 409, `"ended":{"how":"forced","at":"20`)
	s.call("PUT /maybe?environment=uat&id=expired-1").want(t, 409, "it expired at 20").want(t, 409, "held by dave")
	s.call("DELETE /maybe?environment=uat&holder=carol").want(t, 409, `"ended":{"how":"expired","at":"20`)
	s.call("DELETE /maybe?environment=uat&holder=nobody").want(t, 409, "held by dave")
}
