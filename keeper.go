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
	store    keeperStore
	recovery recoverableStore // the same store; nil if the store is not a recoverableStore
	observer keeperObserver
	limits   keeperLimits

	leftAtStart int // how many of the oldest events the start has left out

	inbox     inbox
	tasks     chan func()   // see betweenBatches
	stopping  chan struct{} // closed by close
	taken     chan error    // gets an error once another server has taken the store
	stopped   chan struct{} // closed when every call has its reply and the store is not used any more
	isHealthy atomic.Bool   // false from a failed commit, or a start on a full disk, until the store recovers

	// published is what is committed, for readers (invariant 2). It is replaced with mu held.
	published atomic.Pointer[publishedState]

	declaration atomic.Pointer[func(environment string) []string] // see slots; replaced with mu held

	// mu guards the fields that follow, the keeper's own fields of calls, and the fields
	// of leases and waiters that are in memory only. Goroutines other than run change
	// none of it but listeners, pending, and leases and calls of a renewal, so run may
	// read all the rest without mu.
	mu           sync.Mutex
	history      *history
	listeners    map[chan struct{}]bool  // notified after each published change
	current      map[string]*environment // with the changes of the batch that is being saved
	everywhere   *environment            // has the pause of all environments, and is none of current
	expiries     expiryQueue             // of the current environments
	waitingCalls map[*waiter][]*call     // the calls that wait for each waiter's grant, newest last
	waitingCount int                     // how many calls wait, of all waiters
	places       placeCounts             // of the current environments
	pending      []*call                 // the first calls of the next batch

	// The fields that follow are used by run only.
	lastNumber      uint64    // the largest number given; it never gets smaller (invariant 5)
	latestEntry     int64     // see batch.newWaiter
	isTickDue       bool      // scanPeriod has passed since the last batch that looked for ended leases
	fileBroken      bool      // the file must be rewritten before anything is saved
	deferred        []*call   // calls for the batch after that
	stillInArray    int       // how many dropped events the array of history.events still has
	diskFull        bool      // new requests are refused until the reserve is back
	cannotSave      bool      // the last save was errNoSpace, and the store is not a recoverableStore
	mustDropHistory bool      // the next commit on the full disk deletes a tenth of the history
	leftOut         []uint64  // the stored events that the start has left out and that are not deleted yet
	nextProbe       time.Time // when the failed store is tried again, at the earliest

	keptCounts map[string]keptCount // of each environment with kept slots, see noteKept
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

	// kept is called with the time for which slots of an environment were kept for
	// requests that need several: one second for each slot and second. The keeper's lock
	// may be held.
	kept(environment string, slotTime time.Duration)

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
// always returns the same: declare replaces it. The error is that of loading. The caller
// closes the keeper before the store.
func newKeeper(
	s keeperStore, slots func(environment string) []string, limits keeperLimits, observer keeperObserver,
) (*keeper, error) {
	k, err := loadKeeper(s, slots, limits, observer)
	if err == nil {
		go k.run()
	}
	return k, err
}

// loadKeeper does what newKeeper does, but does not start the goroutine. The caller calls
// run, or step.
func loadKeeper(
	s keeperStore, slots func(environment string) []string, limits keeperLimits, observer keeperObserver,
) (*keeper, error) {
	k := &keeper{store: s, observer: observer, limits: limits,
		inbox: newInbox(), tasks: make(chan func()),
		stopping: make(chan struct{}), stopped: make(chan struct{}),
		taken:   make(chan error, 1),
		history: newHistory(limits.history), listeners: map[chan struct{}]bool{},
		current: map[string]*environment{}, everywhere: newEnvironment(everywhere, nil),
		waitingCalls: map[*waiter][]*call{}, keptCounts: map[string]keptCount{},
		places: placeCounts{}}
	k.declaration.Store(&slots)
	if err := k.load(); err != nil {
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

// environment returns the current environment of the name. It adds one if there is none.
func (k *keeper) environment(name string) *environment {
	if name == everywhere {
		return k.everywhere
	}
	e := k.current[name]
	if e == nil {
		e = newEnvironment(name, k.slots(name))
		k.current[name] = e
	}
	return e
}

// find returns the current environment of the name; an idle one, which is not kept, if there
// is none.
func (k *keeper) find(name string) *environment {
	if name == everywhere {
		return k.everywhere
	}
	if e := k.current[name]; e != nil {
		return e
	}
	return newEnvironment(name, k.slots(name))
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
		case task := <-k.tasks:
			task()
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
	if ticked {
		k.reportAllKept(now)
	}
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
	if k.cannotSave {
		calls, ticked = k.withoutSpace(calls, ticked)
	}
	b := k.apply(calls, ticked, now)
	var err error
	if b.needsStore() || len(k.leftOut) > 0 && !k.cannotSave {
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

// renewInMemory extends the leases of a renewal and replies to it, if they are committed, the
// batch that is being saved does not change them (invariant 2), and their ttl stays as it is.
// Otherwise it does nothing and returns false. The caller holds mu.
func (k *keeper) renewInMemory(c *call) bool {
	before := k.published.Load()
	var found []*lease
	for _, name := range append([]string{c.environment}, c.others...) {
		e, v := k.current[name], before.find(name)
		if e == nil || v == nil {
			return false
		}
		matching := e.matchingLeases(c.renewal.selector)
		if len(matching) == 0 || len(matching) > 1 && c.renewal.id == "" {
			return false
		}
		for _, l := range matching {
			if !v.has(l) || c.renewal.hasTTL && c.renewal.ttl != l.ttl {
				return false
			}
		}
		found = append(found, matching...)
	}
	renewed := before.copied()
	for _, l := range found {
		l.renew(c.renewal.at, c.renewal.id != "")
		renewed.set(l.environment, renewed.find(l.environment).renewed(l))
	}
	k.published.Store(renewed)
	k.replyTo(c, result{own: found})
	return true
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
