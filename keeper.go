package main

// The keeper: one goroutine that owns the environments. It gathers what has
// arrived, applies the rules, hands the changes to a committer, goes on
// gathering and renewing while the disk works, and publishes and answers
// after the commit. Leases and absences end when it looks at them, four times
// a second: agenda.go knows which are due.
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

// A keeper keeps the environments of one store. How to call it is in call.go.
type keeper struct {
	store      *store
	log        *slog.Logger
	metrics    *metrics
	slots      func(environment string) []string // declared slots; nil: undeclared
	maxWaiters int

	inbox    chan *call
	stopping chan struct{} // closed by close
	stopped  chan struct{} // closed when nothing will be answered any more
	jobs     chan func() error
	results  chan error
	healthy  atomic.Bool // commits succeed

	mu        sync.RWMutex            // for shown, past.events, listeners, and what lives in memory only of leases and places
	shown     map[string]*environment // as committed, for readers
	past      *history
	listeners map[chan struct{}]bool // told of each change

	// What follows belongs to run.
	environments map[string]*environment // with the changes of the group under way
	agenda       agenda                  // of those environments
	waiting      map[*place][]*call      // who is connected for a place, newest last
	waiters      int
	last         uint64 // number given
	queue        []*call
	ticked       bool
	group        *group  // being committed
	working      bool    // the committer is
	writes       []write // the committer's, while it is working: memory for those of a group
	broken       bool    // the file must be written anew before anything is saved
	deferred     []*call // until it is
	tight        bool    // the disk is full: nothing new is taken in until the reserve is back
	shrink       bool    // the next commit on the full disk deletes a tenth of the history
	probe        time.Time
}

// newKeeper loads the store and begins to serve it. From this moment every
// lease has its full ttl, and everyone in line is absent. The caller closes
// the keeper before the store.
func newKeeper(s *store, slots func(string) []string, maxWaiters int, m *metrics, log *slog.Logger) (*keeper, error) {
	k := &keeper{store: s, log: log, metrics: m, slots: slots, maxWaiters: maxWaiters,
		inbox: make(chan *call, 1024), stopping: make(chan struct{}), stopped: make(chan struct{}),
		jobs: make(chan func() error, 1), results: make(chan error, 1),
		shown: map[string]*environment{}, past: newHistory(), listeners: map[chan struct{}]bool{},
		environments: map[string]*environment{}, waiting: map[*place][]*call{}}
	if err := k.load(time.Now()); err != nil {
		return nil, err
	}
	k.tight, k.shrink = !s.reserved, !s.reserved
	k.healthy.Store(s.reserved)
	go k.commitAll()
	go k.run()
	return k, nil
}

// close answers everyone with errStopping, once what is being committed has
// been answered, and returns when the store is no longer used.
func (k *keeper) close() {
	close(k.stopping)
	<-k.stopped
}

func (k *keeper) load(now time.Time) error {
	k.last = max(k.store.header.counter, uint64(now.UnixMilli())-1)
	err := k.store.load(func(bucket string, key, value []byte) error {
		switch bucket {
		case leaseBucket:
			name, l, err := readLease(key, value)
			if err != nil {
				return err
			}
			l.start(now)
			k.place(name, change{newLease: l})
		case lineBucket:
			name, p, err := readPlace(key, value)
			if err != nil {
				return err
			}
			p.absent = now
			k.place(name, change{newPlace: p})
		case historyBucket:
			e, err := readEvent(key, value)
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
	k.past.publish(0, now)
	for _, e := range k.environments {
		k.agenda.addAll(e)
	}
	switch {
	case k.store.old():
		return k.store.rewrite(k.last, k.records())
	case k.store.lacks():
		return k.store.regain(k.last, k.records())
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

// records returns the committed state as the file has it.
func (k *keeper) records() []write {
	var all []write
	for name, e := range k.shown {
		for _, l := range e.leases {
			all = append(all, leaseRecord(name, l))
		}
		for _, p := range e.line {
			if p.kept() {
				all = append(all, placeRecord(name, p))
			}
		}
	}
	for _, e := range k.past.events {
		all = append(all, eventRecord(e))
	}
	return all
}

func (k *keeper) next() uint64 {
	k.last++
	return k.last
}

// commitAll does one job at a time, so that run never waits for the disk.
func (k *keeper) commitAll() {
	for job := range k.jobs {
		k.results <- job()
	}
}

func (k *keeper) submit(job func() error) {
	k.working = true
	k.jobs <- job
}

func (k *keeper) run() {
	ticker := time.NewTicker(scanPeriod)
	defer ticker.Stop()
	for {
		select {
		case c := <-k.inbox:
			k.take(c)
			k.takeWaiting()
		case err := <-k.results:
			k.finish(err)
		case <-ticker.C:
			k.ticked = true
		case <-k.stopping:
			k.stop()
			return
		}
		for !k.working && (len(k.queue) > 0 || k.ticked) {
			k.step()
		}
	}
}

// takeWaiting takes what else has arrived, without waiting for more.
func (k *keeper) takeWaiting() {
	for range cap(k.inbox) {
		select {
		case c := <-k.inbox:
			k.take(c)
		default:
			return
		}
	}
}

// take answers a renewal at once where no disk is needed, and puts everything
// else into the next round.
func (k *keeper) take(c *call) {
	if c.kind != callRenew || !k.renewNow(c) {
		k.queue = append(k.queue, c)
	}
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
	k.mu.Lock()
	defer k.mu.Unlock()
	found[0].renew(c.renewal.at)
	k.answer(c, outcome{lease: found[0]})
	return true
}

// step runs one round on what has gathered, or works on a failed disk.
func (k *keeper) step() {
	k.letCome()
	now := time.Now() // before the inbox is read: a renewal that had arrived by now counts
	k.takeWaiting()
	ticked := k.ticked
	k.ticked = false
	if ticked && (k.broken || k.tight) && time.Now().After(k.probe) {
		k.tryDisk()
		return
	}
	calls := k.queue
	k.queue = nil
	if k.tight {
		inOrder(calls)
		calls, k.queue = calls[:min(len(calls), tightCalls)], calls[min(len(calls), tightCalls):]
	}
	if k.broken {
		k.refuse(calls)
		return
	}
	g := k.apply(calls, ticked, now)
	if g.stored() {
		k.commit(g)
	} else {
		k.publish(g)
	}
}

// letCome lets everybody run who is ready to, for as long as that brings new
// calls: on a busy machine they come along in this group, on an idle one there
// is nobody.
func (k *keeper) letCome() {
	for n := -1; len(k.inbox) > n; {
		n = len(k.inbox)
		runtime.Gosched()
	}
}

// commit hands a group to the committer. On a full disk its history is left
// out, and the oldest tenth of the history goes.
func (k *keeper) commit(g *group) {
	k.group = g
	save := k.store.save
	if g.drop = k.past.surplus(g.now); k.tight {
		g.drop, g.lean, save = 0, true, k.store.saveTight
		if k.shrink {
			g.drop = len(k.past.events) / 10
		}
	}
	counter, dropped := k.last, slices.Clone(k.past.events[:g.drop])
	k.submit(func() error {
		writes := k.writes
		for _, c := range g.changes {
			if c.event == nil || !g.lean {
				writes = c.addTo(writes)
			}
		}
		for _, e := range dropped {
			writes = append(writes, write{historyBucket, eventKey(e.number), nil})
		}
		start := time.Now()
		err := save(counter, writes)
		k.metrics.committed(time.Since(start), err)
		k.writes = emptied(writes)
		return err
	})
}

// finish goes on after the committer: with the group that it saved, or, when
// there was none, after an attempt to revive the disk.
func (k *keeper) finish(err error) {
	g := k.group
	k.group, k.working = nil, false
	switch {
	case g == nil:
		k.diskTried(err)
	case err == nil:
		k.publish(g)
	default:
		k.fail(g, err)
	}
}

// stop is the end of run: what is being committed is finished and answered,
// everything else is told to come back.
func (k *keeper) stop() {
	for k.working {
		k.finish(<-k.results)
	}
	close(k.jobs)
	k.takeWaiting()
	k.mu.Lock()
	defer k.mu.Unlock()
	for p := range k.waiting {
		k.answerPlace(p, outcome{err: errStopping})
	}
	for _, c := range k.queue {
		k.answer(c, outcome{err: errStopping})
	}
	close(k.stopped)
}
