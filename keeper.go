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
	"log/slog"
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
const tightCalls = 4

// A keeper keeps the environments of one store. How to call it is in keeper_request.go.
type keeper struct {
	store      keeperStore
	recovery   recoverableStore // the same store; nil if it is none
	log        *slog.Logger
	metrics    *metrics
	slots      func(environment string) []string // declared slots; nil: undeclared
	maxWaiters int

	inbox    inbox
	stopping chan struct{} // closed by close
	stopped  chan struct{} // closed when nothing will be answered any more
	healthy  atomic.Bool   // commits succeed

	// For what follows, and for what lives in memory only of leases and places.
	// run alone changes it, but for the queue and that memory, so that run may
	// read what is shown without mu.
	mu           sync.RWMutex
	shown        map[string]*environment // as committed, for readers
	past         *history
	listeners    map[chan struct{}]bool  // told of each change
	environments map[string]*environment // with the changes that are being saved
	agenda       agenda                  // of those environments
	waiting      map[*place][]*call      // who is connected for a place, newest last
	waiters      int
	queue        []*call // what the next round begins with

	// What follows belongs to run.
	last     uint64 // number given
	ticked   bool
	broken   bool    // the file must be written anew before anything is saved
	deferred []*call // until it is
	tight    bool    // the disk is full: nothing new is taken in until the reserve is back
	shrink   bool    // the next commit on the full disk deletes a tenth of the history
	probe    time.Time
}

// newKeeper loads the store and begins to serve it. From this moment every
// lease has its full ttl, and everyone in line is absent. The caller closes
// the keeper before the store.
func newKeeper(s keeperStore, slots func(string) []string, maxWaiters int, m *metrics, log *slog.Logger) (*keeper, error) {
	k, err := loadKeeper(s, slots, maxWaiters, m, log)
	if err == nil {
		go k.run()
	}
	return k, err
}

// loadKeeper leaves it to the caller to run it.
func loadKeeper(s keeperStore, slots func(string) []string, maxWaiters int, m *metrics, log *slog.Logger) (*keeper, error) {
	k := &keeper{store: s, log: log, metrics: m, slots: slots, maxWaiters: maxWaiters,
		inbox: newInbox(), stopping: make(chan struct{}), stopped: make(chan struct{}),
		shown: map[string]*environment{}, past: newHistory(), listeners: map[chan struct{}]bool{},
		environments: map[string]*environment{}, waiting: map[*place][]*call{}}
	if err := k.load(time.Now()); err != nil {
		return nil, err
	}
	k.recovery, _ = s.(recoverableStore)
	k.tight = k.recovery != nil && k.recovery.isTight()
	k.shrink = k.tight
	k.healthy.Store(!k.tight)
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
			k.place(name, change{newLease: l})
		case lineBucket:
			name, p, err := decodePlace(key, value)
			if err != nil {
				return err
			}
			p.absent = now
			k.place(name, change{newPlace: p})
		case historyBucket:
			e, err := decodeEvent(key, value)
			if err != nil {
				return err
			}
			k.past.append(e)
		}
		return nil
	})
	if err != nil {
		return err
	}
	k.last = max(counter, uint64(now.UnixMilli())-1)
	k.past.publish(0, now)
	for _, e := range k.environments {
		k.agenda.addAll(e)
	}
	return nil
}

// place puts what was loaded where it belongs, for the rules and for readers.
func (k *keeper) place(name string, c change) {
	k.environment(k.environments, name).apply(c)
	k.environment(k.shown, name).apply(c)
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
	k.last++
	return k.last
}

func (k *keeper) run() {
	ticker := time.NewTicker(scanPeriod)
	defer ticker.Stop()
	for {
		select {
		case <-k.inbox.wake:
		case <-ticker.C:
			k.ticked = true
		case <-k.stopping:
			k.stop()
			return
		}
		select {
		case <-ticker.C: // it came while the disk worked, and calls did too
			k.ticked = true
		default:
		}
		k.step()
	}
}

// step runs one round on what has arrived, or works on a failed disk.
func (k *keeper) step() {
	k.letCome()
	now, ticked := time.Now(), k.ticked // before anything is taken: a renewal that had arrived by now counts
	k.ticked = false
	calls := k.gather()
	if len(calls) == 0 && !ticked {
		return
	}
	if ticked && (k.broken || k.tight) && time.Now().After(k.probe) {
		k.putBack(calls)
		k.tryDisk()
		return
	}
	if k.tight {
		inOrder(calls)
		k.putBack(calls[min(len(calls), tightCalls):])
		calls = calls[:min(len(calls), tightCalls)]
	}
	if k.broken {
		k.refuse(calls)
		return
	}
	g := k.apply(calls, ticked, now)
	var err error
	if g.stored() {
		err = k.commit(g)
	} else {
		err = k.store.confirm()
	}
	if err != nil {
		k.fail(g, err)
	} else {
		k.publish(g)
	}
}

// letCome lets everybody run who is ready to, for as long as that brings new
// calls: on a busy machine they come along in this round, on an idle one there
// is nobody.
func (k *keeper) letCome() {
	for before, n := -1, k.inbox.count(); n > before; before, n = n, k.inbox.count() {
		runtime.Gosched()
	}
}

// gather returns the calls of the next round.
func (k *keeper) gather() []*call {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.take()
	calls := k.queue
	k.queue = nil
	return calls
}

// take answers the renewals that have arrived and need no store, and puts
// everything else into the next round. The caller holds mu.
func (k *keeper) take() {
	exclusive := k.store.exclusive()
	for _, c := range k.inbox.empty() {
		if c.kind != callRenew || !exclusive || !k.renewNow(c) {
			k.queue = append(k.queue, c)
		}
	}
}

// putBack lets the next round begin with these calls, and be soon.
func (k *keeper) putBack(calls []*call) {
	if len(calls) == 0 {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.queue = slices.Concat(calls, k.queue)
	k.inbox.rouse()
}

// renewNow renews a lease that is committed and not about to change.
func (k *keeper) renewNow(c *call) bool {
	e, shown := k.environments[c.environment], k.shown[c.environment]
	if e == nil || shown == nil {
		return false
	}
	found := e.find(c.renewal.selector)
	if len(found) != 1 || !slices.Contains(shown.leases, found[0]) || c.renewal.hasTTL && c.renewal.ttl != found[0].ttl {
		return false
	}
	found[0].renew(c.renewal.at)
	k.answer(c, outcome{lease: found[0]})
	return true
}

// commit saves a group. On a full disk its history is left out, and the oldest
// tenth of the history goes.
func (k *keeper) commit(g *group) error {
	save := k.store.save
	if g.drop = k.past.surplus(g.now); k.tight {
		g.drop, g.lean, save = 0, true, k.recovery.saveTight
		if k.shrink {
			g.drop = len(k.past.events) / 10
		}
	}
	var writes []write
	for _, c := range g.changes {
		if w, isStored := encodeChange(c); isStored && !(g.lean && c.event != nil) {
			writes = append(writes, w)
		}
	}
	for _, e := range k.past.events[:g.drop] {
		writes = append(writes, deleteEvent(e))
	}
	start := time.Now()
	err := save(k.last, latestWrites(writes))
	k.metrics.committed(time.Since(start), err)
	return err
}

// stop is the end of run: everybody is told to come back.
func (k *keeper) stop() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.queue = append(k.queue, k.inbox.close()...)
	for p := range k.waiting {
		k.answerPlace(p, outcome{err: errStopping})
	}
	for _, c := range k.queue {
		k.answer(c, outcome{err: errStopping})
	}
	close(k.stopped)
}
