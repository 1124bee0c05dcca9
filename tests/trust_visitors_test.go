package tests

// The clients of an attack. What they do in the environments with the new rules is in
// trust_visitors_rules_test.go.

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// A visitor is one client. It makes one request after another, and finishes each.
type visitor struct {
	*attack
	random *rand.Rand
	stop   <-chan struct{}
}

func (v *visitor) stopped() bool {
	select {
	case <-v.stop:
		return true
	default:
		return false
	}
}

func (v *visitor) chance(percent int) bool { return v.random.IntN(100) < percent }

func (v *visitor) fate() fate {
	if v.network == nil || v.chance(75) {
		return faithful
	}
	return fates[v.random.IntN(len(fates))]
}

func (v *visitor) rest(most time.Duration) { time.Sleep(time.Duration(v.random.Int64N(int64(most)))) }

// insist repeats a call until it has a reply other than 503 (outcome unknown). With
// fates, the first three tries may go through the bad network.
func (v *visitor) insist(e entry, fates bool) entry {
	for try := 0; ; try++ {
		f := faithful
		if fates && try < 3 {
			f = v.fate()
		}
		if got := v.call(e, f, 0); got.status > 0 && got.status != 503 {
			return got
		}
		if try > 600 || v.failed() {
			v.complain("%s of %q is never answered", kindNames[e.kind], e.name)
			return entry{}
		}
		time.Sleep(time.Duration(5+v.random.IntN(1+min(try, 50))) * time.Millisecond)
	}
}

// busy are the environments that visit uses. Each of the others has two or three callers
// at a time: without more callers, no other call wakes a waiter that the server has
// forgotten, and no other grant hides that a waiter was passed over.
var busy = []string{"a", "b", "c", "m2", "m3"}

// handOver holds a slot for 50 ms while another client waits for it.
func (v *visitor) handOver() {
	first, next := v.pair("quiet")
	next.wait = 300 * time.Millisecond
	if v.insist(first, false).status == 201 {
		v.beside(next, func() {
			time.Sleep(50 * time.Millisecond)
			v.end(first)
		})
	}
	v.end(first)
	v.end(next)
}

// outlive renews a lease once, late, and lets it expire. Another client waits for the
// slot meanwhile, longer than the expiry may take.
func (v *visitor) outlive() {
	first, next := v.pair("still")
	first.ttl, next.wait = time.Second, 3*time.Second+slack
	if v.insist(first, false).status == 201 {
		v.beside(next, func() {
			time.Sleep(700 * time.Millisecond)
			v.insist(first.again(renewID), false)
		})
	}
	v.end(first)
	v.end(next)
}

// passBy requests, without wait, a slot that came free while the next waiter in the queue
// was between two polls.
func (v *visitor) passBy() {
	first, next := v.pair("shy")
	next.wait = time.Millisecond
	passer, _ := v.pair("shy")
	if v.insist(first, false).status == 201 {
		v.insist(next, false)
		v.end(first)
		v.insist(passer, false)
		v.insist(next, false)
	}
	for _, e := range []entry{first, next, passer} {
		v.end(e)
	}
	v.rest(20 * time.Millisecond)
}

func (v *visitor) pair(environment string) (first, next entry) {
	return entry{kind: askNow, environment: environment, name: v.newName()}, entry{kind: askWait, environment: environment, name: v.newName()}
}

func (v *visitor) beside(waits entry, meanwhile func()) {
	var waiting sync.WaitGroup
	waiting.Go(func() { v.call(waits, faithful, 0) })
	meanwhile()
	waiting.Wait()
}

// again returns a further call of the kind for the request of the entry.
func (e entry) again(kind askKind) entry {
	return entry{kind: kind, environment: e.environment, beside: e.beside, name: e.name}
}

func (v *visitor) newName() string { return fmt.Sprintf("%05d", v.names.Add(1)) }

// visit makes one request of a random kind, from its begin to its end.
func (v *visitor) visit() {
	if v.chance(40) {
		v.visitNewRules()
		return
	}
	environment := busy[v.random.IntN(len(busy))]
	e := entry{environment: environment, name: v.newName()}
	switch n := v.random.IntN(100); {
	case n < 50:
		v.waitAndHold(e)
	case n < 65:
		v.tryNow(e)
	case n < 72:
		v.withoutID(e)
	case n < 78:
		v.as2019(e)
	case n < 82:
		v.force(e)
	case n < 88 && v.network != nil:
		v.overtake(e)
	case n < 94:
		v.takeOver(e)
	default:
		v.call(entry{kind: look, environment: environment}, faithful, 0)
		v.rest(5 * time.Millisecond)
	}
}

func (v *visitor) waitAndHold(e entry) {
	e.kind, e.wait = askWait, time.Duration(20+v.random.IntN(400))*time.Millisecond
	if v.chance(40) {
		e.ttl = time.Duration(1+v.random.IntN(2)) * time.Second
	}
	if v.chance(10) {
		e.claim = time.Second
	}
	var twin sync.WaitGroup
	if v.chance(10) { // the same request twice at the same time
		twin.Go(func() { v.call(e, faithful, 0) })
	}
	defer twin.Wait()
	var number uint64
	for !v.stopped() {
		got := v.insist(e, true)
		number = max(number, got.number)
		if got.status == 201 {
			v.hold(e)
			return
		}
		if got.status == 410 || v.chance(15) {
			break
		}
		if v.network != nil && v.chance(1) {
			return // the waiter is still in the queue, and never polls again
		}
	}
	v.end(e)
	if e.key != "" && number != 0 && v.chance(40) && !v.stopped() {
		v.rest(30 * time.Millisecond)
		v.beginAnew(e, number)
	}
}

// hold does what a holder does: it renews and releases the lease, or lets it expire.
func (v *visitor) hold(e entry) {
	for keep := e.ttl > 0 && v.chance(15); keep && !v.stopped(); v.rest(e.ttl / 4) {
		if v.insist(e.again(renewID), true).status != 200 || v.chance(8) {
			break
		}
	}
	for v.chance(60) {
		renewal := e.again(renewID)
		if v.chance(10) {
			renewal.ttl = 2 * time.Second
		}
		v.insist(renewal, true)
		v.rest(10 * time.Millisecond)
	}
	if (e.ttl > 0 || e.claim > 0) && v.chance(25) {
		return // the lease expires
	}
	v.partly(e)
	switch n := v.random.IntN(100); {
	case e.beside != "":
	case n < 20:
		v.insist(e.again(endHolder), true)
	case n < 30:
		v.pass(e)
	}
	v.end(e)
}

// end releases by id. Sometimes it then repeats earlier calls, as delayed messages would.
func (v *visitor) end(e entry) {
	v.insist(e.again(endID), true)
	for _, kind := range []askKind{askNow, renewID, endID} {
		if v.chance(8) {
			late := e
			late.kind, late.wait = kind, 0
			switch {
			case kind != askNow:
				late.ttl, late.claim = 0, 0
			case e.key != "": // a request without wait has none
				late.kind, late.wait = askWait, e.wait
			}
			v.insist(late, false)
		}
	}
}

func (v *visitor) tryNow(e entry) {
	e.kind = askNow
	if v.chance(30) {
		e.ttl = time.Second
	}
	if got := v.insist(e, true); got.status == 201 {
		v.hold(e)
	} else {
		v.end(e)
	}
}

func (v *visitor) withoutID(e entry) {
	e.kind, e.wait, e.ttl = askNoID, time.Duration(20+v.random.IntN(300))*time.Millisecond, time.Second
	f := faithful
	if v.chance(15) {
		f = []fate{severed, hidden}[v.random.IntN(2)]
	}
	if got := v.call(e, f, 0); got.status == 201 {
		v.rest(20 * time.Millisecond)
		v.insist(e.again(endHolder), false)
	}
}

func (v *visitor) as2019(e entry) {
	e.name, e.kind = "", plainLook
	v.call(e, faithful, 0)
	e.kind = plainAsk
	if got := v.call(e, faithful, 0); got.status == 201 || got.status == 0 || got.status == 503 {
		v.rest(10 * time.Millisecond)
		e.kind = plainEnd
		v.insist(e, false)
	}
}

// force ends a lease that another client may have.
func (v *visitor) force(e entry) {
	seen := v.call(entry{kind: look, environment: e.environment}, faithful, 0)
	for _, s := range seen.view.Slots {
		if s.Lease != nil && s.Lease.Holder != "" {
			v.call(entry{kind: endForced, environment: e.environment, name: s.Lease.Holder, fence: s.Lease.Fence}, v.fate(), 0)
			return
		}
	}
}

// takeOver takes over a lease that another client may have.
func (v *visitor) takeOver(e entry) {
	seen := v.call(entry{kind: look, environment: e.environment}, faithful, 0)
	for _, s := range seen.view.Slots {
		if s.Lease == nil || s.Lease.Holder == "" || v.chance(30) {
			continue
		}
		e.kind, e.other, e.fence = takeID, s.Lease.Holder, s.Lease.Fence
		if v.chance(30) {
			e.ttl = time.Second
		}
		if got := v.insist(e, true); got.status == 201 {
			v.hold(e)
		} else {
			v.end(e)
		}
		return
	}
}

// pass hands the lease over to a new holder, who releases it. Sometimes the old id is used again
// while that has it.
func (v *visitor) pass(e entry) {
	to := entry{kind: endHolder, environment: e.environment, name: v.newName()}
	hand := entry{kind: handID, environment: e.environment, name: e.name, other: to.name}
	if v.chance(30) {
		hand.ttl = time.Second
	}
	if v.insist(hand, true).status == 204 {
		for _, kind := range []askKind{renewID, endID, renewID} {
			if v.chance(30) {
				v.insist(e.again(kind), false)
			}
		}
		v.call(entry{kind: look, environment: e.environment}, faithful, 0)
		v.rest(10 * time.Millisecond)
		if hand.ttl == 0 || v.chance(75) {
			v.insist(to, true)
		}
	}
}

// overtake cancels its own request and ends it, while the request is still in the network.
func (v *visitor) overtake(e entry) {
	e.kind, e.wait = askWait, 200*time.Millisecond
	v.call(e, delayed, time.Duration(1+v.random.IntN(20))*time.Millisecond)
	v.end(e)
}
