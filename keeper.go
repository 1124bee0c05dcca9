package main

// The keeper: one goroutine that changes the environments. It takes the calls that have
// arrived as one batch, applies the rules, saves the changes, publishes them and replies
// to the calls. Meanwhile the next calls arrive. Renewals that need no store are replied
// to by the goroutine that brings them. Leases end, and disconnected waiters are removed,
// when the keeper looks for them, four times a second: keeper_expiry.go has which
// environments are due.
//
// A keeper can be closed and created again inside a process: its whole state is loaded from
// the store.
//
// Not here: the life of one batch (keeper_batch.go), how calls are made
// (keeper_request.go), what readers see (keeper_view.go), and what happens when the disk
// fails (keeper_recovery.go).

import (
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// scanPeriod is how often the keeper looks for leases and waiters that time has ended. It
// must stay below the second of invariant 4.
const scanPeriod = 250 * time.Millisecond

// probePeriod is how often a keeper whose store has failed tries it again.
const probePeriod = time.Second

// fullDiskCalls is the largest number of calls in one batch on a full disk: the reserve of
// the store has space for a small commit only.
const fullDiskCalls = 4

// A keeper has the environments of one store. Other goroutines call only the functions of
// keeper_request.go and keeper_view.go, close and isHealthy.
type keeper struct {
	store      keeperStore
	recovery   recoverableStore // the same store; nil if the store is not a recoverableStore
	observer   keeperObserver
	slots      func(environment string) []string // returns the declared slots; nil if undeclared
	maxWaiters int                               // with so many calls waiting, a new one gets errBusy

	inbox     inbox
	stopping  chan struct{} // closed by close
	taken     chan error    // gets an error once another server has taken the store
	stopped   chan struct{} // closed when every call has its reply and the store is not used any more
	isHealthy atomic.Bool   // false from a failed commit, or a start on a full disk, until the store recovers

	// mu guards the fields that follow, the keeper's own fields of calls, and the fields
	// of leases and waiters that are in memory only. Goroutines other than run change
	// none of it but listeners, pending, and leases and calls of a renewal, so run may
	// read all the rest without mu.
	mu           sync.RWMutex
	published    map[string]*environment // as committed, for readers (invariant 2)
	history      *history
	listeners    map[chan struct{}]bool  // notified after each published change
	current      map[string]*environment // with the changes of the batch that is being saved
	expiries     expiryQueue             // of the current environments
	waitingCalls map[*waiter][]*call     // the calls that wait for each waiter's grant, newest last
	waitingCount int                     // how many calls wait, of all waiters
	pending      []*call                 // the first calls of the next batch

	// The fields that follow are used by run only.
	lastNumber      uint64    // the largest number given; it never gets smaller (invariant 5)
	isTickDue       bool      // scanPeriod has passed since the last batch that looked for ended leases
	fileBroken      bool      // the file must be rewritten before anything is saved
	deferred        []*call   // calls for the batch after that
	diskFull        bool      // new requests are refused until the reserve is back
	mustDropHistory bool      // the next commit on the full disk deletes a tenth of the history
	nextProbe       time.Time // when the failed store is tried again, at the earliest
}

// A keeperObserver is notified of what a keeper does. The keeper's goroutine calls the
// methods and waits for them: no method may block.
type keeperObserver interface {
	// saved is called after each save, with its duration and its error; nil for none.
	saved(took time.Duration, err error)

	// published is called with the events of a committed batch before its calls get
	// their replies, while the keeper's lock is held: it must not call the keeper.
	published(events []*event)

	// replied is called once the calls of a batch have their replies, without the
	// lock. at is when the batch was published.
	replied(at time.Time, changes []change, refused []refusedRenewal)

	// failed is called when saving begins to fail, with the first error.
	failed(err error)

	// recovered is called when saving works again.
	recovered()
}

// A refusedRenewal is a renewal that extended no lease, and why.
type refusedRenewal struct {
	environment string
	renewal     renewal
	err         error
}

// newKeeper loads the store and starts the keeper. From this moment every lease has its
// full ttl (invariant 4), and every waiter is disconnected. slots returns the declared
// slots of an environment, nil if it is undeclared; it is called from any goroutine, and
// always returns the same. The error is that of loading. The caller closes the keeper
// before the store.
func newKeeper(
	s keeperStore, slots func(environment string) []string, maxWaiters int, observer keeperObserver,
) (*keeper, error) {
	k, err := loadKeeper(s, slots, maxWaiters, observer)
	if err == nil {
		go k.run()
	}
	return k, err
}

// loadKeeper does what newKeeper does, but does not start the goroutine. The caller calls
// run, or step.
func loadKeeper(
	s keeperStore, slots func(environment string) []string, maxWaiters int, observer keeperObserver,
) (*keeper, error) {
	k := &keeper{store: s, observer: observer, slots: slots, maxWaiters: maxWaiters,
		inbox: newInbox(), stopping: make(chan struct{}), stopped: make(chan struct{}),
		taken:     make(chan error, 1),
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

// close stops the keeper. The batch that is being saved is finished first; every other
// call gets errStopping. It returns when the store is no longer used, and must be called
// only once.
func (k *keeper) close() {
	close(k.stopping)
	<-k.stopped
}

// load reads the records into current, published and history. The error is that of the
// store or of the first record that cannot be decoded; the keeper is not usable then.
func (k *keeper) load(now time.Time) error {
	counter, err := k.store.load(func(bucket string, key, value []byte) error {
		switch bucket {
		case leaseBucket:
			name, l, err := decodeLease(key, value)
			if err != nil {
				return err
			}
			l.start(now) // invariant 4: the full ttl, however long the server was stopped
			k.addLoaded(name, change{newLease: l})
		case queueBucket:
			name, w, err := decodeWaiter(key, value)
			if err != nil {
				return err
			}
			w.disconnectedAt = now
			k.addLoaded(name, change{newWaiter: w})
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
	// Invariant 5: a restored copy of the store has an old counter, the clock is past it.
	k.lastNumber = max(counter, uint64(now.UnixMilli())-1)
	k.history.publish(0, now)
	for _, e := range k.current {
		k.expiries.addEnvironment(e)
	}
	return nil
}

// addLoaded applies a loaded lease or waiter to both copies of the state.
func (k *keeper) addLoaded(name string, c change) {
	k.environment(k.current, name).apply(c)
	k.environment(k.published, name).apply(c)
}

// environment returns the environment of the name in a copy of the state, current or
// published. It adds one if there is none.
func (k *keeper) environment(in map[string]*environment, name string) *environment {
	e := in[name]
	if e == nil {
		e = newEnvironment(name, k.slots(name))
		in[name] = e
	}
	return e
}

// next returns a number that is larger than any before it.
func (k *keeper) next() uint64 {
	k.lastNumber++
	return k.lastNumber
}

// run is the keeper's goroutine. It ends after close.
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
		case <-ticker.C: // select picks at random: calls must not keep the tick waiting
			k.isTickDue = true
		default:
		}
		k.step()
	}
}

// step applies, saves and publishes one batch of the calls that have arrived, or probes a
// failed store. It does nothing if no call has arrived and no tick is due.
func (k *keeper) step() {
	k.yieldToCallers()
	// The time of the batch is read before its calls are taken: a renewal that arrived
	// before a deadline that has passed by then is among them (invariant 4).
	now, ticked := time.Now(), k.isTickDue
	k.isTickDue = false
	calls := k.nextCalls()
	if len(calls) == 0 && !ticked {
		return
	}
	if ticked && (k.fileBroken || k.diskFull) && time.Now().After(k.nextProbe) {
		k.requeue(calls)
		k.probeStore()
		return
	}
	if k.diskFull {
		sortCalls(calls)
		k.requeue(calls[min(len(calls), fullDiskCalls):])
		calls = calls[:min(len(calls), fullDiskCalls)]
	}
	if k.fileBroken {
		k.refuseCalls(calls)
		return
	}
	b := k.apply(calls, ticked, now)
	var err error
	if b.needsStore() {
		err = k.commit(b)
	} else { // invariant 2: the state may be reported only if this server still has the store
		err = k.store.confirm()
	}
	if err != nil {
		k.failBatch(b, err)
	} else {
		k.publish(b)
	}
}

// yieldToCallers lets other goroutines run for as long as that brings new calls. On a busy
// machine these calls become a part of this batch; on an idle one it returns at once.
func (k *keeper) yieldToCallers() {
	for before, n := -1, k.inbox.count(); n > before; before, n = n, k.inbox.count() {
		runtime.Gosched()
	}
}

// nextCalls returns the calls of the next batch, which are no longer pending.
func (k *keeper) nextCalls() []*call {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.drainInbox()
	calls := k.pending
	k.pending = nil
	return calls
}

// drainInbox replies to the renewals that have arrived and need no store, and adds every
// other call to the pending ones. The caller holds mu.
func (k *keeper) drainInbox() {
	exclusive := k.store.exclusive()
	for _, c := range k.inbox.takeAll() {
		if c.kind != callRenew || !exclusive || !k.renewInMemory(c) {
			k.pending = append(k.pending, c)
		}
	}
}

// requeue puts calls before the pending ones and wakes the keeper, so that the next batch
// begins with them. Without calls it does nothing.
func (k *keeper) requeue(calls []*call) {
	if len(calls) == 0 {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.pending = slices.Concat(calls, k.pending)
	k.inbox.wakeUp()
}

// renewInMemory extends a lease and replies to the renewal, if the lease is committed, the
// batch that is being saved does not change it (invariant 2), and the ttl stays as it is.
// Otherwise it does nothing and returns false. The caller holds mu.
func (k *keeper) renewInMemory(c *call) bool {
	e, published := k.current[c.environment], k.published[c.environment]
	if e == nil || published == nil {
		return false
	}
	found := e.matchingLeases(c.renewal.selector)
	if len(found) != 1 || !slices.Contains(published.leases, found[0]) {
		return false
	}
	if c.renewal.hasTTL && c.renewal.ttl != found[0].ttl {
		return false
	}
	found[0].renew(c.renewal.at)
	k.replyTo(c, result{lease: found[0]})
	return true
}

// commit saves the changes of a batch in one transaction, and deletes the oldest events if
// the history is too long. On a full disk the events of the batch are not saved, and the
// first commit that succeeds deletes the oldest tenth of the history. The error is that of
// save.
func (k *keeper) commit(b *callBatch) error {
	save := k.store.save
	b.droppedEvents = k.history.surplus(b.now)
	if k.diskFull {
		save = k.recovery.saveOnFullDisk
		b.withoutHistory = true
		b.droppedEvents = 0
		if k.mustDropHistory {
			b.droppedEvents = len(k.history.events) / 10
		}
	}
	var writes []write
	for _, c := range b.changes {
		if w, isStored := encodeChange(c); isStored && !(b.withoutHistory && c.event != nil) {
			writes = append(writes, w)
		}
	}
	for _, e := range k.history.events[:b.droppedEvents] {
		writes = append(writes, deleteEvent(e))
	}
	start := time.Now()
	err := save(k.lastNumber, latestWrites(writes))
	k.observer.saved(time.Since(start), err)
	return err
}

// stop replies errStopping to every call that waits or has not been applied, and closes
// the inbox and stopped. It is the end of run.
func (k *keeper) stop() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.pending = append(k.pending, k.inbox.close()...)
	for w := range k.waitingCalls {
		k.replyToWaiter(w, result{err: errStopping})
	}
	for _, c := range k.pending {
		k.replyTo(c, result{err: errStopping})
	}
	close(k.stopped)
}
