package main

// A model of the rules of the lock, written from the design and not from lock.go: plain
// lists that are searched from end to end. rapid generates scripts of requests, renewals,
// releases and passing time. After each step the rules and the model must have the same
// results and the same state.

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// A rulebook is the model of one environment.
type rulebook struct {
	now    time.Time
	slots  []string
	leases []modelLease // in the order of their grants
	line   []modelPlace
	ends   []modelEnd // in the order of time
	log    []string   // the history of the last step
}

type modelLease struct {
	request
	slot         string
	fence        uint64 // zero until adopt or settle copies it from the real lease
	since, until time.Time
	waited, ttl  time.Duration
	claim        time.Duration // zero if the lease is claimed, or need not be
}

type modelPlace struct {
	request
	claim   time.Duration
	present bool
	since   time.Time
	absent  time.Time
}

type modelEnd struct {
	id, holder, slot string // slot is empty for the end of a waiter
	fence            uint64
	how              string
	at               time.Time
}

// A modelAnswer is the result that the model expects.
type modelAnswer struct {
	err   error
	slot  string // of the lease; empty if none
	id    string // of the lease's request
	line  int    // the position in the queue; zero if none
	ended string // how the request ended; empty if it has not
}

func (a modelAnswer) String() string {
	return fmt.Sprintf("%v, slot %q of %q, place %d, ended %q", a.err, a.slot, a.id, a.line, a.ended)
}

func (m *rulebook) free() int { return max(0, len(m.slots)-len(m.leases)) }

// matching returns the indices of the leases that the selector matches.
func (m *rulebook) matching(s selector) (found []int) {
	for i, l := range m.leases {
		switch {
		case s.id != "" && s.id != l.id, s.holder != "" && s.holder != l.holder, s.fence != 0 && s.fence != l.fence, s.slot != "" && s.slot != l.slot:
		default:
			found = append(found, i)
		}
	}
	return found
}

// inLine returns the index of the waiter with the id in the queue, -1 if there is none.
func (m *rulebook) inLine(id string) int {
	return slices.IndexFunc(m.line, func(p modelPlace) bool { return id != "" && p.id == id })
}

// endOf returns the latest end that is less than an hour old and for which fits is true.
func (m *rulebook) endOf(fits func(modelEnd) bool) (modelEnd, bool) {
	for _, e := range slices.Backward(m.ends) {
		if fits(e) && m.now.Sub(e.at) < time.Hour {
			return e, true
		}
	}
	return modelEnd{}, false
}

func (m *rulebook) endOfID(id string) (modelEnd, bool) {
	return m.endOf(func(e modelEnd) bool { return e.id == id })
}

// endOfLease returns the latest end of a lease that the selector of a release or renewal
// without id matches. A selector with only a slot matches none.
func (m *rulebook) endOfLease(s selector) (modelEnd, bool) {
	if s.holder == "" && s.fence == 0 {
		return modelEnd{}, false
	}
	return m.endOf(func(e modelEnd) bool {
		return e.slot != "" && (s.holder == "" || s.holder == e.holder) && (s.fence == 0 || s.fence == e.fence) && (s.slot == "" || s.slot == e.slot)
	})
}

func (m *rulebook) grant(q request, claim time.Duration, waited time.Duration) modelAnswer {
	taken := map[string]bool{}
	for _, l := range m.leases {
		taken[l.slot] = true
	}
	slot := m.slots[slices.IndexFunc(m.slots, func(s string) bool { return !taken[s] })]
	l := modelLease{request: q, slot: slot, since: m.now, waited: waited, ttl: q.ttl}
	if q.ttl > 0 {
		l.until = m.now.Add(q.ttl)
	}
	if claim > 0 && (q.ttl == 0 || claim < q.ttl) {
		l.until = m.now.Add(claim)
	}
	l.claim = claim
	m.leases = append(m.leases, l)
	m.write("granted", q, slot, waited, "")
	return modelAnswer{slot: slot, id: q.id}
}

// offer grants the free slots to the waiters, in the order of the queue. A disconnected
// waiter uses up a slot without a grant: the slot stays free.
func (m *rulebook) offer() {
	for i, offers := 0, m.free(); offers > 0 && i < len(m.line); offers-- {
		p := m.line[i]
		if !p.present {
			i++
			continue
		}
		m.line = slices.Delete(m.line, i, i+1)
		m.grant(p.request, p.claim, m.now.Sub(p.since))
	}
}

func (m *rulebook) post(q request, wait bool, claim time.Duration) modelAnswer {
	if q.id != "" {
		if found := m.matching(selector{id: q.id}); len(found) > 0 {
			if m.leases[found[0]].request != q {
				return modelAnswer{err: errDifferent}
			}
			return modelAnswer{slot: m.leases[found[0]].slot, id: q.id}
		}
		if i := m.inLine(q.id); i >= 0 {
			if m.line[i].request != q {
				return modelAnswer{err: errDifferent}
			}
			m.line[i].present, m.line[i].claim = true, claim
			m.offer()
			if i := m.inLine(q.id); i >= 0 {
				return modelAnswer{line: i + 1}
			}
			return modelAnswer{slot: m.leases[m.matching(selector{id: q.id})[0]].slot, id: q.id}
		}
		if e, ok := m.endOfID(q.id); ok {
			return modelAnswer{err: errEnded, ended: e.how}
		}
	}
	due := 0 // free slots that are kept for waiters
	if len(m.line) > 0 {
		due = min(m.free(), len(m.line))
		if !wait {
			due = m.free()
		}
	}
	switch {
	case m.free() > due:
		return m.grant(q, claim, 0)
	case !wait:
		return modelAnswer{err: errNoSlot}
	}
	m.line = append(m.line, modelPlace{request: q, claim: claim, present: true, since: m.now})
	return modelAnswer{line: len(m.line)}
}

func (m *rulebook) put(r renewal) modelAnswer {
	found := m.matching(r.selector)
	if len(found) == 0 {
		var e modelEnd
		if r.id != "" {
			e, _ = m.endOf(func(e modelEnd) bool {
				return e.id == r.id && (r.holder == "" || r.holder == e.holder) && (r.slot == "" || r.slot == e.slot)
			})
		} else {
			e, _ = m.endOfLease(r.selector)
		}
		return modelAnswer{err: errNotHeld, ended: e.how}
	}
	if len(found) > 1 {
		return modelAnswer{err: errSeveral}
	}
	l := &m.leases[found[0]]
	unclaimed := l.claim > 0
	l.claim = 0
	end := r.at.Add(l.ttl)
	if r.hasTTL && r.ttl != l.ttl {
		l.ttl = r.ttl
		end, unclaimed = r.at.Add(l.ttl), true
	}
	switch {
	case l.ttl == 0:
		l.until = time.Time{}
	case unclaimed || l.until.Before(end): // a renewal never makes the end earlier
		l.until = end
	}
	return modelAnswer{slot: l.slot, id: l.id}
}

func (m *rulebook) end(i int, how string, d releaseRequest) modelAnswer {
	l := m.leases[i]
	m.leases = slices.Delete(m.leases, i, i+1)
	m.ends = append(m.ends, modelEnd{l.id, l.holder, l.slot, l.fence, how, m.now})
	m.write(how, l.request, l.slot, l.waited, fmt.Sprintf("fence %d held %v by %q from %q", l.fence, m.now.Sub(l.since), d.by, d.from))
	return modelAnswer{slot: l.slot, id: l.id}
}

func (m *rulebook) leave(i int, how string) {
	p := m.line[i]
	m.line = slices.Delete(m.line, i, i+1)
	if p.id != "" {
		m.ends = append(m.ends, modelEnd{id: p.id, holder: p.holder, how: how, at: m.now})
		m.write(how, p.request, "", m.now.Sub(p.since), "")
	}
}

func (m *rulebook) deleteID(d releaseRequest) modelAnswer {
	if found := m.matching(selector{id: d.id}); len(found) > 0 {
		return m.end(found[0], "released", releaseRequest{})
	}
	if i := m.inLine(d.id); i >= 0 {
		m.leave(i, "left")
		return modelAnswer{}
	}
	e, ok := m.endOfID(d.id)
	switch {
	case !ok:
		m.ends = append(m.ends, modelEnd{id: d.id, how: "closed", at: m.now})
		m.write("closed", request{id: d.id}, "", 0, "")
	case e.how == "expired", e.how == "forced":
		return modelAnswer{err: errNotHeld, ended: e.how}
	}
	return modelAnswer{}
}

func (m *rulebook) delete(d releaseRequest) modelAnswer {
	if d.id != "" {
		return m.deleteID(d)
	}
	found := m.matching(d.selector)
	if d.is2019 && (d.holder == "" || len(found) == 0) { // the oldest lease with neither holder nor id
		found = nil
		if i := slices.IndexFunc(m.leases, func(l modelLease) bool { return l.holder == "" && l.id == "" }); i >= 0 {
			found = []int{i}
		}
	}
	if len(found) > 1 {
		return modelAnswer{err: errSeveral}
	}
	if len(found) == 1 {
		if d.force {
			return m.end(found[0], "forced", d)
		}
		return m.end(found[0], "released", d)
	}
	e, known := m.endOfLease(d.selector)
	switch {
	case d.isUndo:
		return modelAnswer{}
	case d.force && d.fence == 0:
		return modelAnswer{} // there is no lease to end
	case d.force:
		return modelAnswer{err: errNotHeld, ended: e.how}
	case d.is2019 && len(m.leases) == 0:
		return modelAnswer{}
	case d.is2019:
		return modelAnswer{err: errNotHeld, ended: e.how}
	case known && e.how == "released":
		return modelAnswer{}
	case known:
		return modelAnswer{err: errNotHeld, ended: e.how}
	case len(m.leases) > 0:
		return modelAnswer{err: errNotHeld}
	}
	return modelAnswer{}
}

// write adds an event to the history of the step.
func (m *rulebook) write(how string, q request, slot string, waited time.Duration, end string) {
	m.log = append(m.log, fmt.Sprintf("%v uat %s %q by %q %q %q on %q waited %v %s", m.now, how, q.id, q.holder, q.url, q.reason, slot, waited, end))
}

// scan ends the leases that have expired, and removes the waiters that have been
// disconnected for ten seconds.
func (m *rulebook) scan() {
	for i := 0; i < len(m.leases); {
		if l := m.leases[i]; !l.until.IsZero() && !m.now.Before(l.until) {
			m.end(i, "expired", releaseRequest{})
		} else {
			i++
		}
	}
	for i := 0; i < len(m.line); {
		if p := m.line[i]; !p.present && m.now.Sub(p.absent) >= 10*time.Second {
			m.leave(i, "abandoned")
		} else {
			i++
		}
	}
}

// String returns the state as text. The rules and the keeper must have the same text.
func (m *rulebook) String() string {
	var b strings.Builder
	for _, l := range m.leases {
		fmt.Fprintf(&b, "lease %v slot %q fence %d since %v waited %v ttl %v until %v\n", l.request, l.slot, l.fence, m.ago(l.since), l.waited, l.ttl, m.ago(l.until))
	}
	for i, p := range m.line {
		fmt.Fprintf(&b, "place %d %v since %v present %v\n", i+1, p.request, m.ago(p.since), p.present)
	}
	fmt.Fprintf(&b, "free %d open %v\n", m.free(), m.free() > 0 && len(m.line) == 0)
	return b.String()
}

func (m *rulebook) ago(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return m.now.Sub(t).String()
}

// A duel applies the same steps to the rules and to the model, and compares them.
type duel struct {
	*bench
	m      rulebook
	fences []uint64 // of all leases so far
	events int      // how many events of the rules' history have been compared
	number uint64   // of the last event that has been compared
}

func (d *duel) String() string {
	var b strings.Builder
	for _, l := range d.e.leases {
		fmt.Fprintf(&b, "lease %v slot %q fence %d since %v waited %v ttl %v until %v\n", l.request, l.slot, l.fence, d.m.ago(l.since), l.waited, l.ttl, d.m.ago(l.deadline))
	}
	for _, p := range d.e.queue {
		fmt.Fprintf(&b, "place %d %v since %v present %v\n", d.e.position(p), p.request, d.m.ago(p.since), p.connected)
	}
	fmt.Fprintf(&b, "free %d open %v\n", d.e.freeSlots(), d.e.isOpen())
	return b.String()
}

// adopt copies the fences of new leases from the rules to the model, which cannot know them.
// It fails the test if a fence is not larger than all before.
func (d *duel) adopt(t *rapid.T) {
	for i := range d.m.leases {
		l := &d.m.leases[i]
		if l.fence != 0 {
			continue
		}
		found := d.e.matchingLeases(selector{slot: l.slot})
		if len(found) != 1 {
			t.Fatalf("slot %q has %d leases", l.slot, len(found))
		}
		if l.fence = found[0].fence; len(d.fences) > 0 && l.fence <= d.fences[len(d.fences)-1] {
			t.Fatalf("fence %d after %v", l.fence, d.fences)
		}
		d.fences = append(d.fences, l.fence)
	}
}

// try applies a rule in a batch and undoes the batch, as after a failed commit. It fails the
// test if the state is not as before.
func (d *duel) try(t *rapid.T, rule func(r *batch)) {
	before := d.picture()
	r := &batch{now: d.now, history: d.past, next: func() uint64 { d.last++; return d.last }}
	rule(r)
	r.undo()
	if after := d.picture(); after != before {
		t.Fatalf("before a round that was undone\n%s\nafter\n%s", before, after)
	}
}

// same compares the results and the new events of a step.
func (d *duel) same(t *rapid.T, o result, want modelAnswer) {
	d.adopt(t)
	got := modelAnswer{err: o.err}
	if o.lease != nil {
		got.slot, got.id = o.lease.slot, o.lease.id
	} else if o.waiter != nil {
		got.line = d.e.position(o.waiter)
	}
	if o.ended != nil {
		got.ended = o.ended.kind.String()
	}
	if got != want || !errors.Is(got.err, want.err) {
		t.Fatalf("answered %v\nthe model says %v", got, want)
	}
	if many := len(d.m.leases); errors.Is(o.err, errSeveral) && (len(o.several) < 2 || len(o.several) > many) {
		t.Fatalf("%d leases are listed of %d", len(o.several), many)
	}
	var log []string
	for _, e := range d.past.events[d.events:] {
		end := ""
		if e.kind == eventReleased || e.kind == eventExpired || e.kind == eventForced {
			end = fmt.Sprintf("fence %d held %v by %q from %q", e.fence, e.held, e.by, e.from)
		}
		log = append(log, fmt.Sprintf("%v %s %s %q by %q %q %q on %q waited %v %s", e.at, e.environment, e.kind, e.id, e.holder, e.url, e.reason, e.slot, e.waited, end))
		if e.kind == eventGranted && e.number != e.fence || e.number <= d.number {
			t.Fatalf("event %+v after number %d", e, d.number)
		}
		d.number = e.number
	}
	if !slices.Equal(log, d.m.log) {
		t.Fatalf("the history is\n%q, the model's\n%q", log, d.m.log)
	}
	d.events, d.m.log = len(d.past.events), nil
}

// check compares the states. It fails the test if a waiter is not found by its id.
func (d *duel) check(t *rapid.T) {
	if got, want := d.String(), d.m.String(); got != want {
		t.Fatalf("the state is\n%s, the model's\n%s", got, want)
	}
	named := 0
	for _, p := range d.e.queue {
		if p.id != "" {
			named++
			if d.e.waitersByID[p.id] != p {
				t.Fatalf("%q is not found in the queue", p.id)
			}
		}
	}
	if named != len(d.e.waitersByID) || d.e.isIdle() != (len(d.m.leases)+len(d.m.line) == 0) {
		t.Fatalf("%d places have an id, %d are known; idle %v", named, len(d.e.waitersByID), d.e.isIdle())
	}
}

// The values of the scripts. There are few names, so that the same name is often drawn again.
var (
	someID     = rapid.SampledFrom([]string{"", "a", "b", "c", "d", "ann"}) // ann is also a holder
	someHolder = rapid.SampledFrom([]string{"", "ann", "bob"})
	someSlot   = rapid.SampledFrom([]string{"", "", "", "blue", "green", "red"})
	someTTL    = rapid.SampledFrom([]time.Duration{0, 0, time.Second, 10 * time.Second, time.Minute, 2 * time.Hour})
	someClaim  = rapid.SampledFrom([]time.Duration{0, 0, 5 * time.Second, 30 * time.Second})
	someTime   = rapid.SampledFrom([]time.Duration{1, time.Millisecond, time.Second, 5 * time.Second, 10*time.Second - 1, 10 * time.Second,
		time.Minute, time.Hour - 10*time.Second, time.Hour})
	someSlots = rapid.SampledFrom([][]string{nil, {"blue"}, {"blue", "green"}, {"green", "red"}, {"blue", "green", "red"}})

	someDeclared = rapid.SampledFrom([][]string{{"blue"}, {"blue", "green"}, {"green", "red"}, {"blue", "green", "red"}})
)

func (d *duel) someFence(t *rapid.T) uint64 {
	if len(d.fences) == 0 || rapid.IntRange(0, 3).Draw(t, "whose fence") > 0 {
		return 0
	}
	return rapid.SampledFrom(d.fences).Draw(t, "fence") + uint64(rapid.IntRange(0, 9).Draw(t, "off by")/9)
}

// someRequest draws a request: in most cases the existing one with the id, else a new one.
func (d *duel) someRequest(t *rapid.T) request {
	id := someID.Draw(t, "id")
	same := rapid.IntRange(0, 5).Draw(t, "same") > 0
	if found := d.m.matching(selector{id: id}); id != "" && same && len(found) > 0 {
		return d.m.leases[found[0]].request
	}
	if i := d.m.inLine(id); i >= 0 && same {
		return d.m.line[i].request
	}
	q := request{id: id, holder: someHolder.Draw(t, "holder"), ttl: someTTL.Draw(t, "ttl")}
	if rapid.IntRange(0, 9).Draw(t, "more") == 0 {
		q.url, q.reason = "https://ci/1", "tests"
	}
	return q
}

func (d *duel) postStep(t *rapid.T) {
	q, wait, claim := d.someRequest(t), rapid.Bool().Draw(t, "wait"), someClaim.Draw(t, "claim")
	rule := func(r *batch) result { return d.e.request(r, q, wait, claim) }
	if d.m.inLine(q.id) < 0 {
		d.try(t, func(r *batch) { rule(r) })
	}
	var o result
	d.step(func(r *batch) { o = rule(r) })
	d.same(t, o, d.m.post(q, wait, claim))
}

func (d *duel) putStep(t *rapid.T) {
	q := renewal{selector: selector{id: someID.Draw(t, "id"), holder: someHolder.Draw(t, "holder"), slot: someSlot.Draw(t, "slot")}, at: d.now.Add(-someTime.Draw(t, "under way for"))}
	if q.id == "" {
		q.fence = d.someFence(t)
	}
	if q.hasTTL = rapid.Bool().Draw(t, "with ttl"); q.hasTTL {
		q.ttl = someTTL.Draw(t, "ttl")
	}
	if q.at.Before(d.now.Add(-time.Minute)) {
		q.at = d.now
	}
	var o result
	d.step(func(r *batch) { o = d.e.renew(r, q) })
	d.same(t, o, d.m.put(q))
}

// someDeparture draws a release, of one of the six kinds.
func (d *duel) someDeparture(t *rapid.T) (q releaseRequest) {
	switch rapid.IntRange(0, 5).Draw(t, "kind") {
	case 0, 1:
		q.id = someID.Draw(t, "id")
	case 2:
		q.holder, q.slot, q.fence = rapid.SampledFrom([]string{"ann", "bob"}).Draw(t, "holder"), someSlot.Draw(t, "slot"), d.someFence(t)
	case 3:
		q.force, q.by, q.from = true, "root", "10.0.0.1:1"
		q.slot, q.fence = someSlot.Draw(t, "slot"), d.someFence(t)
	case 4:
		q.holder, q.is2019 = someHolder.Draw(t, "holder"), true
	case 5:
		q.fence, q.isUndo = d.someFence(t), true
	}
	if q.isUndo && q.fence == 0 || q == (releaseRequest{}) {
		q.is2019, q.isUndo = true, false
	}
	return q
}

func (d *duel) deleteStep(t *rapid.T) {
	q := d.someDeparture(t)
	rule := func(r *batch) result {
		o := d.e.release(r, q)
		d.e.serveQueue(r)
		return o
	}
	d.try(t, func(r *batch) { rule(r) })
	var o result
	d.step(func(r *batch) { o = rule(r) })
	want := d.m.delete(q)
	d.m.offer()
	d.same(t, o, want)
}

// someMoment draws how much time passes: half of the time any, else exactly until a lease, an
// absence or the memory of an end is over, or one nanosecond less.
func (d *duel) someMoment(t *rapid.T) time.Duration {
	var moments []time.Duration
	for _, l := range d.m.leases {
		if !l.until.IsZero() {
			moments = append(moments, l.until.Sub(d.now))
		}
	}
	for _, p := range d.m.line {
		if !p.present {
			moments = append(moments, p.absent.Add(10*time.Second).Sub(d.now))
		}
	}
	for _, e := range d.m.ends {
		moments = append(moments, e.at.Add(time.Hour).Sub(d.now))
	}
	moments = slices.DeleteFunc(moments, func(d time.Duration) bool { return d < 1 })
	if len(moments) == 0 || rapid.Bool().Draw(t, "any time") {
		return someTime.Draw(t, "time")
	}
	return rapid.SampledFrom(moments).Draw(t, "until") - time.Duration(rapid.IntRange(0, 1).Draw(t, "less"))
}

func (d *duel) passStep(t *rapid.T) {
	d.now = d.now.Add(d.someMoment(t))
	d.m.now = d.now
	ended := false
	rule := func(r *batch) {
		ended = d.e.expire(r)
		d.e.serveQueue(r)
	}
	d.try(t, rule)
	d.step(rule)
	before := len(d.m.leases) + len(d.m.line)
	d.m.scan()
	if want := len(d.m.leases)+len(d.m.line) < before; ended != want {
		t.Fatalf("tick says that something ended: %v, the model %v", ended, want)
	}
	d.m.offer()
	d.same(t, result{}, modelAnswer{})
}

// goAwayStep disconnects a waiter. A waiter without id leaves the queue.
func (d *duel) goAwayStep(t *rapid.T) {
	if len(d.m.line) == 0 {
		t.Skip("nobody waits")
	}
	i := rapid.IntRange(0, len(d.m.line)-1).Draw(t, "who")
	p := d.e.queue[i]
	if p.id == "" {
		d.step(func(r *batch) { d.e.removeWaiter(r, p, eventLeft) })
		d.m.leave(i, "left")
	} else {
		d.goAway(p)
		d.m.line[i].present, d.m.line[i].absent = false, d.now
	}
	d.same(t, result{}, modelAnswer{})
}

func (d *duel) declareStep(t *rapid.T) {
	if rapid.IntRange(0, 4).Draw(t, "really") > 0 {
		t.Skip("seldom")
	}
	d.e.slots = someSlots.Draw(t, "slots")
	d.m.slots = d.e.slots
}

func TestTheRulesAgreeWithTheModel(t *testing.T) { rapid.Check(t, ruleScript(t)) }

// ruleScript returns a function that runs one script on the rules, without keeper and store.
func ruleScript(t *testing.T) func(*rapid.T) {
	return func(rt *rapid.T) {
		d := &duel{bench: newBench(t, someDeclared.Draw(rt, "slots")...)}
		d.m = rulebook{now: d.now, slots: d.e.slots}
		rt.Repeat(map[string]func(*rapid.T){
			"":        d.check,
			"post":    d.postStep,
			"post 2":  d.postStep,
			"put":     d.putStep,
			"delete":  d.deleteStep,
			"pass":    d.passStep,
			"go away": d.goAwayStep,
			"declare": d.declareStep,
		})
	}
}
