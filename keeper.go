package main

// The keeper: one goroutine that changes the environments. It takes what has
// arrived, applies the rules, saves the changes, and then publishes and answers
// them. Meanwhile the next calls arrive, and renewals that need no disk are
// answered by whoever brings them. Leases and absences end when the keeper looks
// at them, four times a second: keeper_expiry.go knows which are due.
//
// A keeper can be closed and made anew inside a process: what it knows comes
// from the store.

import (
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// scanPeriod is how often leases and absences that are due are looked at. Together with
// one commit it must stay below the second that the rules promise.
const scanPeriod = 250 * time.Millisecond

// probePeriod is how often a server whose disk has failed tries it again.
const probePeriod = time.Second

// tightCalls is how many calls go into one commit on a full disk, which must
// make do with the reserve.
const fullDiskCalls = 4

// A keeper keeps the environments of one store. How to call it is in keeper_request.go.
type keeper struct {
	store      keeperStore
	recovery   recoverableStore // the same store; nil if it is none
	observer   keeperObserver
	slots      func(environment string) []string // declared slots; nil: undeclared
	maxWaiters int

	inbox     inbox
	stopping  chan struct{} // closed by close
	taken     chan error    // gets the error when another server has taken the store: nothing is granted any more
	stopped   chan struct{} // closed when nothing will be answered any more
	isHealthy atomic.Bool   // commits succeed

	// For what follows, and for what lives in memory only of leases and places.
	// run alone changes it, but for the queue and that memory, so that run may
	// read what is shown without mu.
	mu           sync.RWMutex
	published    map[string]*environment // as committed, for readers
	history      *history
	listeners    map[chan struct{}]bool  // told of each change
	current      map[string]*environment // with the changes that are being saved
	expiries     expiryQueue             // of those environments
	waitingCalls map[*waiter][]*call     // who is connected for a place, newest last
	waitingCount int
	pending      []*call // what the next round begins with

	// What follows belongs to run.
	lastNumber      uint64 // number given
	isTickDue       bool
	fileBroken      bool    // the file must be written anew before anything is saved
	deferred        []*call // until it is
	diskFull        bool    // the disk is full: nothing new is taken in until the reserve is back
	mustDropHistory bool    // the next commit on the full disk deletes a tenth of the history
	nextCheck       time.Time
	nextProbe       time.Time
}

// A keeperObserver is notified of what a keeper does. The keeper's goroutine waits
// for each call: no method may block.
type keeperObserver interface {
	// saved is called after each save, with its duration and its error.
	saved(took time.Duration, err error)

	// published is called with the events of a batch before its callers are answered,
	// while the keeper's lock is held.
	published(events []*event)

	// answered is called once the callers of a batch have been answered, without the
	// lock. at is when the batch was published.
	answered(at time.Time, changes []change, refused []refusedRenewal)

	// failed is called when saving begins to fail, recovered when it works again.
	failed(err error)
	recovered()
}

// A refusedRenewal is a renewal that extended no lease, and why.
type refusedRenewal struct {
	environment string
	renewal     renewal
	err         error
}

// newKeeper loads the store and begins to serve it. From this moment every
// lease has its full ttl, and everyone in the queue is absent. The caller closes
// the keeper before the store.
func newKeeper(s keeperStore, slots func(string) []string, maxWaiters int, o keeperObserver) (*keeper, error) {
	k, err := loadKeeper(s, slots, maxWaiters, o)
	if err == nil {
		go k.run()
	}
	return k, err
}

// loadKeeper leaves it to the caller to run it.
func loadKeeper(s keeperStore, slots func(string) []string, maxWaiters int, o keeperObserver) (*keeper, error) {
	k := &keeper{store: s, observer: o, slots: slots, maxWaiters: maxWaiters,
		inbox: newInbox(), stopping: make(chan struct{}), taken: make(chan error, 1), stopped: make(chan struct{}),
		published: map[string]*environment{}, history: newHistory(), listeners: map[chan struct{}]bool{},
		current: map[string]*environment{}, waitingCalls: map[*waiter][]*call{}}
	if err := k.load(time.Now()); err != nil {
		return nil, err
	}
	k.recovery, _ = s.(recoverableStore)
	k.diskFull = k.recovery != nil && k.recovery.isReserveMissing()
	k.mustDropHistory = k.diskFull
	k.isHealthy.Store(!k.diskFull)
	return k, nil
}

// close answers everyone with errStopping, once what is being committed has
// been answered, and returns when the store is no longer used.
func (k *keeper) close() {
	close(k.stopping)
	<-k.stopped
}

func (k *keeper) load(now time.Time) error {
	counter, err := k.store.load(func(bucket string, key, value []byte) error {
		switch bucket {
		case leaseBucket:
			name, l, err := decodeLease(key, value)
			if err != nil {
				return err
			}
			l.start(now)
			k.addLoaded(name, change{newLease: l})
		case queueBucket:
			name, p, err := decodeWaiter(key, value)
			if err != nil {
				return err
			}
			p.disconnectedAt = now
			k.addLoaded(name, change{newWaiter: p})
		case historyBucket:
			e, err := decodeEvent(key, value)
			if err != nil {
				return err
			}
			k.history.append(e)
		}
		return nil
	})
	if err != nil {
		return err
	}
	k.lastNumber = max(counter, uint64(now.UnixMilli())-1)
	k.history.publish(0, now)
	for _, e := range k.current {
		k.expiries.addEnvironment(e)
	}
	return nil
}

// place puts what was loaded where it belongs, for the rules and for readers.
func (k *keeper) addLoaded(name string, c change) {
	k.environment(k.current, name).apply(c)
	k.environment(k.published, name).apply(c)
}

func (k *keeper) environment(in map[string]*environment, name string) *environment {
	e := in[name]
	if e == nil {
		e = newEnvironment(name, k.slots(name))
		in[name] = e
	}
	return e
}

func (k *keeper) next() uint64 {
	k.lastNumber++
	return k.lastNumber
}

func (k *keeper) run() {
	ticker := time.NewTicker(scanPeriod)
	defer ticker.Stop()
	for {
		select {
		case <-k.inbox.wake:
		case <-ticker.C:
			k.isTickDue = true
		case <-k.stopping:
			k.stop()
			return
		}
		select {
		case <-ticker.C: // it came while the disk worked, and calls did too
			k.isTickDue = true
		default:
		}
		k.step()
	}
}

// step runs one round on what has arrived, or works on a failed disk.
func (k *keeper) step() {
	k.yieldToCallers()
	now, ticked := time.Now(), k.isTickDue // before anything is taken: a renewal that had arrived by now counts
	k.isTickDue = false
	calls := k.nextCalls()
	if len(calls) == 0 && !ticked {
		return
	}
	if ticked {
		k.checkStore(now)
	}
	if ticked && (k.fileBroken || k.diskFull) && time.Now().After(k.nextProbe) {
		k.requeue(calls)
		k.probeStore()
		return
	}
	if k.diskFull {
		inOrder(calls)
		k.requeue(calls[min(len(calls), fullDiskCalls):])
		calls = calls[:min(len(calls), fullDiskCalls)]
	}
	if k.fileBroken {
		k.refuseCalls(calls)
		return
	}
	g := k.apply(calls, ticked, now)
	var err error
	if g.needsStore() {
		err = k.commit(g)
	} else {
		err = k.store.confirm()
	}
	if err != nil {
		k.failBatch(g, err)
	} else {
		k.publish(g)
	}
}

// letCome lets everybody run who is ready to, for as long as that brings new
// calls: on a busy machine they come along in this round, on an idle one there
// is nobody.
func (k *keeper) yieldToCallers() {
	for before, n := -1, k.inbox.count(); n > before; before, n = n, k.inbox.count() {
		runtime.Gosched()
	}
}

// gather returns the calls of the next round.
func (k *keeper) nextCalls() []*call {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.drainInbox()
	calls := k.pending
	k.pending = nil
	return calls
}

// take answers the renewals that have arrived and need no store, and puts
// everything else into the next round. The caller holds mu.
func (k *keeper) drainInbox() {
	exclusive := k.store.exclusive()
	for _, c := range k.inbox.takeAll() {
		if c.kind != callRenew || !exclusive || !k.renewInMemory(c) {
			k.pending = append(k.pending, c)
		}
	}
}

// putBack lets the next round begin with these calls, and be soon.
func (k *keeper) requeue(calls []*call) {
	if len(calls) == 0 {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.pending = slices.Concat(calls, k.pending)
	k.inbox.wakeUp()
}

// renewNow renews a lease that is committed and not about to change.
func (k *keeper) renewInMemory(c *call) bool {
	e, shown := k.current[c.environment], k.published[c.environment]
	if e == nil || shown == nil {
		return false
	}
	found := e.find(c.renewal.selector)
	if len(found) != 1 || !slices.Contains(shown.leases, found[0]) || c.renewal.hasTTL && c.renewal.ttl != found[0].ttl {
		return false
	}
	found[0].renew(c.renewal.at)
	k.replyTo(c, result{lease: found[0]})
	return true
}

// commit saves a group. On a full disk its history is left out, and the oldest
// tenth of the history goes.
func (k *keeper) commit(g *callBatch) error {
	save := k.store.save
	if g.droppedEvents = k.history.surplus(g.now); k.diskFull {
		g.droppedEvents, g.withoutHistory, save = 0, true, k.recovery.saveOnFullDisk
		if k.mustDropHistory {
			g.droppedEvents = len(k.history.events) / 10
		}
	}
	var writes []write
	for _, c := range g.changes {
		if w, isStored := encodeChange(c); isStored && !(g.withoutHistory && c.event != nil) {
			writes = append(writes, w)
		}
	}
	for _, e := range k.history.events[:g.droppedEvents] {
		writes = append(writes, deleteEvent(e))
	}
	start := time.Now()
	err := save(k.lastNumber, latestWrites(writes))
	k.observer.saved(time.Since(start), err)
	return err
}

// stop is the end of run: everybody is told to come back.
func (k *keeper) stop() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.pending = append(k.pending, k.inbox.close()...)
	for p := range k.waitingCalls {
		k.replyToWaiter(p, result{err: errStopping})
	}
	for _, c := range k.pending {
		k.replyTo(c, result{err: errStopping})
	}
	close(k.stopped)
}
