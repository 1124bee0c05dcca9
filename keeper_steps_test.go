package main

// The steps of a batch: a store that saves a batch in parts may stop after any of them.

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// A steppedStore is a store in memory that looks at its records after each step of a save. Its
// next saves fail with err if that is not nil.
type steppedStore struct {
	records map[string]write
	look    func(records map[string]write)
	largest int // the number of writes in a step
	saves   int
	err     error
}

func (s *steppedStore) load(each func(bucket string, key, value []byte) error) (uint64, error) {
	for _, bucket := range recordBuckets {
		for _, w := range s.records {
			if w.bucket == bucket {
				if err := each(w.bucket, w.key, w.value); err != nil {
					return 0, err
				}
			}
		}
	}
	return 0, nil
}

func (s *steppedStore) save(_ uint64, writes []write, ends []int) error {
	if s.err != nil {
		return s.err
	}
	s.saves++
	from := 0
	for _, end := range append(slices.Clone(ends), len(writes)) {
		for _, w := range writes[from:end] {
			if w.value == nil {
				delete(s.records, w.bucket+string(w.key))
			} else {
				s.records[w.bucket+string(w.key)] = w
			}
		}
		s.largest = max(s.largest, end-from)
		from = end
		if s.look != nil {
			s.look(s.records)
		}
	}
	return nil
}

func (s *steppedStore) confirm() error  { return nil }
func (s *steppedStore) exclusive() bool { return false }
func (s *steppedStore) close() error    { return nil }

// partlyThere returns the first request that has some of what it asked for but not all, or that was
// in the queue and is nowhere; or that should have what another has lost.
func partlyThere(records map[string]write, ids map[string]int, inQueue map[string]bool) string {
	leases, waiters, ended := map[string]int{}, map[string]int{}, map[string]bool{}
	newer := map[string]string{} // who has taken the place of whom
	handed, toBob := 0, 0
	for _, w := range records {
		switch w.bucket {
		case leaseBucket:
			_, l, _ := decodeLease(w.key, w.value)
			leases[l.id]++
		case queueBucket:
			_, p, _ := decodeWaiter(w.key, w.value)
			waiters[p.id]++
		case historyBucket:
			switch e, _ := decodeEvent(w.key, w.value); e.kind {
			case eventGranted:
				if e.holder == "bob" {
					toBob++
				}
			case eventHanded:
				handed++
				ended[e.id] = true
			case eventSuperseded, eventTaken:
				newer[e.by] = e.id
				ended[e.id] = true
			default:
				ended[e.id] = true
			}
		}
	}
	if handed != toBob {
		return fmt.Sprintf("%d leases are handed over, and bob has got %d", handed, toBob)
	}
	for id := range inQueue {
		if leases[id]+waiters[id] == 0 && !ended[id] {
			return id + " was in the queue, and is nowhere"
		}
	}
	for id, older := range newer {
		if leases[id]+waiters[id] == 0 && !ended[id] {
			return fmt.Sprintf("%s ended for %s, which is nowhere", older, id)
		}
	}
	for id, needs := range ids {
		l, w := leases[id], waiters[id]
		isWhole := l == needs && w == 0 || l == 0 && w == needs || l == 0 && w == 0 && ended[id]
		if l+w > 0 && !isWhole && !ended[id] || l > 0 && w > 0 {
			return fmt.Sprintf("%s has %d leases and %d places of %d", id, l, w, needs)
		}
	}
	return ""
}

// After each step of a batch every request has all of what it asked for, or waits for all of it,
// or has ended.
func TestNoStepOfABatchIsHalf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var declared declaredEnvironments
		if err := declared.Decode("a:8,b:8,c:8"); err != nil {
			t.Fatal(err)
		}
		random, ids, inQueue := rand.New(rand.NewPCG(1, 2)), map[string]int{}, map[string]bool{}
		s := &steppedStore{records: map[string]write{}}
		k, err := loadKeeper(s, declared.slotsOf, testLimits, keeperLog{newMetrics(), quietLog()})
		if err != nil {
			t.Fatal(err)
		}
		most, steps := 0, 0
		s.look = func(records map[string]write) {
			steps++
			if what := partlyThere(records, ids, inQueue); what != "" {
				t.Fatal(what)
			}
		}
		for round := range 40 {
			var calls []*call
			for range 1 + random.IntN(24) {
				calls = append(calls, randomStepCall(random, k, ids, round))
			}
			for _, c := range calls {
				c.reply = make(chan reply, 1)
				k.inbox.put(c)
			}
			time.Sleep(time.Second)
			k.isTickDue = true
			k.step()
			clear(inQueue)
			for v := range k.published.Load().all() {
				for _, w := range v.queue {
					inQueue[w.id] = true
				}
			}
			most = max(most, len(inQueue))
		}
		if most < 5 || s.largest < 6 || s.largest > 3*len("abc") || steps < 2*s.saves {
			t.Errorf("%d steps in %d saves, the largest of %d writes; up to %d waiters", steps, s.saves, s.largest, most)
		}
	})
}

// randomStepCall returns a call of any kind, and adds the id of a request to ids.
func randomStepCall(random *rand.Rand, k *keeper, ids map[string]int, round int) *call {
	all := []string{"a", "b", "c"}
	names := all[:1+random.IntN(3)]
	if len(names) == 1 {
		names = []string{all[random.IntN(3)]}
	}
	var known []string
	var held []*lease
	for v := range k.published.Load().all() {
		for _, l := range v.leases {
			known, held = append(known, l.id), append(held, l.lease)
		}
	}
	slices.Sort(known)
	slices.SortFunc(held, byFence)
	id := fmt.Sprintf("id-%d-%d", round, random.Uint64())
	q := request{id: id, holder: id, ttl: time.Minute}
	switch n := random.IntN(20); {
	case n < 5 && len(held) > 0:
		l := held[random.IntN(len(held))]
		return &call{kind: callRelease, environment: all[0], others: all[1:], release: releaseRequest{selector: selector{id: l.id}}}
	case n < 7 && len(held) > 0:
		l := held[random.IntN(len(held))]
		return &call{kind: callRelease, environment: l.environment, release: releaseRequest{selector: selector{fence: l.fence}, to: "bob"}}
	case n < 8 && len(held) > 0:
		l := held[random.IntN(len(held))]
		ids[id] = 1
		return &call{kind: callRequest, environment: l.environment, request: q, take: takeover{fence: l.fence}}
	case n == 8:
		return &call{kind: callPause, environment: everywhere, pause: pauseRequest{resume: random.IntN(3) > 0, by: "ann"}}
	}
	if len(names) > 1 {
		for _, name := range names {
			q.needs = append(q.needs, need{environment: name})
		}
	}
	if random.IntN(3) == 0 {
		q.supersede = "branch"
	}
	ids[id] = len(names)
	return &call{kind: callRequest, environment: names[0], others: names[1:], request: q, wait: true}
}

// Without space, a store that has no reserve refuses what must be saved, and nothing else:
// renewals go on, also beside other calls, nobody loses a place, and once there is space the
// next calls are saved.
func TestWithoutSpaceRenewalsGoOn(t *testing.T) {
	t.Run("nothing to delete", func(t *testing.T) { testWithoutSpace(t, nil) })
	t.Run("events to delete", func(t *testing.T) { testWithoutSpace(t, make([]uint64, 5*maxLeftOut)) })
}

// testWithoutSpace is TestWithoutSpaceRenewalsGoOn with a start that has left out some events.
func testWithoutSpace(t *testing.T, leftOut []uint64) {
	synctest.Test(t, func(t *testing.T) {
		s := &steppedStore{records: map[string]write{}}
		var declared declaredEnvironments
		k, err := newKeeper(s, declared.slotsOf, testLimits, keeperLog{newMetrics(), quietLog()})
		if err != nil {
			t.Fatal(err)
		}
		defer k.close()
		request := func(id string) error {
			q := request{id: id, ttl: 10 * time.Second}
			return k.ask(&call{kind: callRequest, environment: "uat", request: q}).err
		}
		renew := func(id string) error {
			extend := renewal{selector: selector{id: id}, at: time.Now()}
			return k.ask(&call{kind: callRenew, environment: "uat", renewal: extend}).err
		}
		if err := request("first"); err != nil {
			t.Fatal(err)
		}
		k.betweenBatches(func() { s.err, k.leftOut = fmt.Errorf("%w: quota", errNoSpace), leftOut })
		time.Sleep(2 * scanPeriod) // the first batch that cannot delete them fails as a whole
		for range 20 {
			refused := make(chan error, 1)
			go func() { refused <- request("other") }()
			if err := renew("first"); err != nil {
				t.Fatalf("a renewal: %v", err)
			}
			if err := <-refused; !errors.Is(err, errUnknown) && !errors.Is(err, errNoSlot) {
				t.Fatalf("a request: %v", err)
			}
			time.Sleep(time.Second)
		}
		if k.isHealthy.Load() {
			release := &call{kind: callRelease, environment: "uat", release: releaseRequest{selector: selector{id: "first"}}}
			if err := k.ask(release).err; !errors.Is(err, errUnknown) {
				t.Errorf("a release: %v", err)
			}
		}
		time.Sleep(time.Minute) // the lease of first should end, and that cannot be saved
		// Unknown if it is in one batch with the end, else the slot is held still.
		if err := request("second"); !errors.Is(err, errUnknown) && !errors.Is(err, errNoSlot) {
			t.Errorf("a request for a slot whose end is not saved: %v", err)
		}
		if k.isHealthy.Load() {
			t.Error("it says that it is healthy")
		}
		k.betweenBatches(func() { s.err = nil })
		time.Sleep(2 * scanPeriod)
		if err := request("second"); err != nil || !k.isHealthy.Load() {
			t.Errorf("with space again: %v, healthy: %v", err, k.isHealthy.Load())
		}
	})
}

// The waiters of a takeover stay longer without a connection than those that have left.
func TestTheFirstAbsenceMayBeLonger(t *testing.T) {
	inBubble(t, "", func(t *testing.T, g *rig) {
		g.mustTake("holder", 0)
		g.asks("waiter", time.Hour)
		g.limits.absence = 20 * time.Second
		g.restart()
		time.Sleep(29 * time.Second)
		g.want("holder | waiter")
		g.asks("waiter", time.Hour).leave()
		time.Sleep(maxAbsence + time.Second)
		g.want("holder |")
	})
}
