package tests

// A porcupine model of the rules of the lock, as a client sees them. porcupine searches
// for an order of all calls in which each reply is the one that the rules give. The model
// is written from the documented promises, and shares no code with lock.go.
//
// A call without a reply has taken effect or has not. The model follows both cases, so
// its state is a set of worlds. In each world, every lease and every waiter has the
// earliest and the latest time at which it may end. A call with wait is two steps: it
// enters the queue, and it gets its reply.

import (
	"cmp"
	"fmt"
	"hash/maphash"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// absence is how long a waiter stays in the queue without a connection.
const absence = 10 * time.Second

// An askKind is the kind of a call, or of a step that is no call.
type askKind int

const (
	askNow    askKind = iota // POST with an id, without wait
	askWait                  // POST with an id and wait
	askNoID                  // POST with wait, without an id
	renewID                  // PUT
	endID                    // DELETE by id
	endHolder                // DELETE by holder
	endForced                // DELETE by force, of one fence
	plainAsk                 // the calls of 2019
	plainLook
	plainEnd
	look // GET /environments

	// The steps that are no calls.
	told  // the reply to an askNow or askWait has the lease that its request owns
	enter // an askWait or askNoID enters the queue
	start // the server was killed and started
)

var kindNames = []string{"POST", "POST wait", "POST wait without id", "PUT", "DELETE id", "DELETE holder", "DELETE force", "plain POST",
	"plain GET", "plain DELETE", "GET", "told", "enter", "start"}

// An entry is a call as its caller saw it. Its times count from the start of the attack.
type entry struct {
	kind        askKind
	environment string
	name        string // the holder; the id is derived from it
	wait        time.Duration
	ttl, claim  time.Duration // those of a POST; ttl of a PUT: the new ttl, zero if none
	fence       uint64        // of endForced
	far         bool          // the call went through the bad network, which may deliver it much later
	sent, heard time.Duration
	status      int // zero if no reply was received
	lease       leaseJSON
	how         string // with 409 and 410: how the request ended
	view        environmentJSON
}

// A restart is the end of one server process and the start of the next.
type restart struct{ killed, started, ready time.Duration }

// A step is one operation of the model. Its position in the order is a moment between
// from and to.
type step struct {
	kind     askKind
	who      int // the number of the name
	from, to time.Duration
	known    bool
	yes      bool
	how      string
	noID     bool
	fence    uint64        // the fence of the name's lease; zero if it was never seen
	previous uint64        // the fence of the grant before that one
	slot     string        // the slot of the name's lease; empty if it was never seen
	ttl      time.Duration // the ttl of the lease that begins; with renewID: the new ttl, zero if it stays
	lasts    window        // when the lease or the waiter that begins may end
	started  window        // with start: when the server started
	leases   []int         // with look: the names that have leases
	plain    int           // with look: the number of leases without a holder
	line     []int         // with look: the names in the queue
	after    []int         // with enter: the names that must have entered before
	late     time.Duration
	eclipsed bool // with askWait: a newer connection of the same id may have come and gone meanwhile
	text     string
}

// A window is the earliest and the latest moment of something that happened or may happen.
type window struct{ from, to time.Duration }

var noWindow = window{forever, forever}

func (s window) plus(d, late time.Duration) window {
	if d == 0 {
		return noWindow
	}
	s.from += d
	if s.to < forever {
		s.to += d + late
	}
	return s
}

// A world is one possible state of one environment. It is never changed.
type world struct {
	slots  []string
	leases []held
	line   []queued
	fence  uint64 // the largest fence that was granted
	ended  *ended
	sum    uint64        // a hash of ended
	now    time.Duration // the present is not before it
}

type held struct {
	who  int // -1 if the lease has no name
	slot string
	ttl  time.Duration
	ends window
}

type queued struct {
	who             int
	noID            bool
	gone            bool // its caller may have hung up: it may end, or be granted and undone, at any time
	slot            string
	ttl             time.Duration // the ttl of the lease that it may become, if gone
	fence, previous uint64
	ends            window
}

type ended struct {
	who  int
	how  string
	next *ended
}

func (w *world) howEnded(who int) string {
	for e := w.ended; e != nil; e = e.next {
		if e.who == who {
			return e.how
		}
	}
	return ""
}

func (w *world) leaseOf(who int) int {
	return slices.IndexFunc(w.leases, func(l held) bool { return l.who == who })
}

func (w *world) placeOf(who int) int {
	return slices.IndexFunc(w.line, func(p queued) bool { return p.who == who })
}

func (w *world) free() int { return max(0, len(w.slots)-len(w.leases)) }

func (w *world) end(who int, how string) {
	w.ended = &ended{who, how, w.ended}
	w.sum += maphash.Comparable(modelSeed, ended{who: who, how: how})
}

var modelSeed = maphash.MakeSeed()

// endLease returns a copy of the world without the lease at i.
func (w world) endLease(i int, how string) *world {
	if who := w.leases[i].who; who >= 0 {
		w.end(who, how)
	}
	w.leases = slices.Delete(slices.Clone(w.leases), i, i+1)
	return &w
}

func (w world) endPlace(i int, how string) *world {
	if p := w.line[i]; !p.noID {
		w.end(p.who, how)
	}
	w.line = slices.Delete(slices.Clone(w.line), i, i+1)
	return &w
}

// grant returns the world with a lease for s, or nil if the rules, or what was seen of
// the lease, do not allow it.
func (w world) grant(s *step, who int) *world {
	taken := slices.ContainsFunc(w.leases, func(l held) bool { return s.slot != "" && l.slot == s.slot })
	if taken || w.free() == 0 || s.fence != 0 && s.previous != w.fence || s.slot != "" && !slices.Contains(w.slots, s.slot) {
		return nil
	}
	w.fence = max(w.fence, s.fence)
	w.leases = append(slices.Clone(w.leases), held{who, s.slot, s.ttl, s.lasts})
	return &w
}

// take returns the world after the step, whether the reply is yes, and if not, how the
// request has ended. next is nil if the step is impossible.
func (w *world) take(s *step) (next *world, yes bool, how string) {
	lease, place := w.leaseOf(s.who), w.placeOf(s.who)
	switch s.kind {
	case enter:
		next := w.enter(s, lease, place)
		return next, next != nil, ""
	case askWait, askNoID:
		switch {
		case lease >= 0:
			return w, true, ""
		case place >= 0 && s.eclipsed:
			return w, false, "" // the waiter was disconnected, so it got no free slot
		case place >= 0 && place < w.free():
			after := *w
			after.line = slices.Delete(slices.Clone(w.line), place, place+1)
			return after.grant(s, s.who), true, ""
		case place >= 0 && s.kind == askNoID:
			return w.endPlace(place, "left"), false, ""
		case place >= 0:
			return w, false, ""
		}
		if how := w.howEnded(s.who); how != "" {
			return w, false, how
		}
		return nil, false, "" // the request has not entered the queue yet
	case told:
		return w, lease >= 0, ""
	case askNow:
		switch how := w.howEnded(s.who); {
		case lease >= 0:
			return w, true, ""
		case how != "":
			return w, false, how
		case w.free() > 0 && len(w.line) == 0:
			return w.grant(s, s.who), true, ""
		}
		return w, false, ""
	case renewID:
		if lease < 0 {
			return w, false, ""
		}
		after := *w
		after.leases = slices.Clone(w.leases)
		l := &after.leases[lease]
		if s.ttl > 0 {
			l.ttl = s.ttl
		}
		l.ends = window{s.from, s.to}.plus(l.ttl, s.late)
		return &after, true, ""
	case endID, endHolder, endForced:
		return w.endNamed(s, lease, place)
	case plainAsk:
		if w.free() > 0 && len(w.line) == 0 {
			return w.grant(s, -1), true, ""
		}
		return w, false, ""
	case plainLook:
		return w, w.free() > 0 && len(w.line) == 0, ""
	case plainEnd:
		if i := w.leaseOf(-1); i >= 0 {
			return w.endLease(i, ""), true, ""
		}
		return w, len(w.leases) == 0, ""
	case look:
		return w, w.looksLike(s), ""
	case start:
		after := *w
		after.leases, after.line = slices.Clone(w.leases), slices.Clone(w.line)
		after.line = slices.DeleteFunc(after.line, func(p queued) bool { return p.noID })
		for i, l := range after.leases {
			after.leases[i].ends = s.started.plus(l.ttl, s.late)
		}
		for i := range after.line {
			after.line[i].ends = s.started.plus(absence, s.late)
		}
		return &after, true, ""
	}
	panic("unknown step")
}

// enter returns the world with the name at the end of the queue. It returns nil if a name
// that is known to be ahead has not entered yet: later steps would exclude that order
// too, but only after a long search.
func (w *world) enter(s *step, lease, place int) *world {
	if lease >= 0 || w.howEnded(s.who) != "" {
		return w
	}
	after := *w
	after.line = slices.Clone(w.line)
	if place >= 0 {
		after.line[place].ends = s.lasts
		return &after
	}
	for _, who := range s.after {
		if w.placeOf(who) < 0 && w.leaseOf(who) < 0 && w.howEnded(who) == "" {
			return nil
		}
	}
	after.line = append(after.line, queued{s.who, s.noID, s.noID && !s.known, s.slot, s.ttl, s.fence, s.previous, s.lasts})
	return &after
}

// endNamed is take for a release by id, by holder or by force.
func (w *world) endNamed(s *step, lease, place int) (next *world, yes bool, how string) {
	if lease >= 0 {
		return w.endLease(lease, map[bool]string{true: "forced", false: "released"}[s.kind == endForced]), true, ""
	}
	how = w.howEnded(s.who)
	switch {
	case s.kind == endForced:
		return w, false, how
	case how == "expired" || how == "forced":
		return w, false, how
	case s.kind == endHolder:
		return w, how == "released" || len(w.leases) == 0, ""
	case place >= 0:
		return w.endPlace(place, "left"), true, ""
	case how == "":
		after := *w
		after.end(s.who, "closed")
		return &after, true, ""
	}
	return w, true, ""
}

func (w *world) looksLike(s *step) bool {
	plain := 0
	for _, l := range w.leases {
		if l.who < 0 {
			plain++
		} else if !slices.Contains(s.leases, l.who) {
			return false
		}
	}
	return plain == s.plain && len(w.leases) == len(s.leases)+plain &&
		slices.EqualFunc(w.line, s.line, func(p queued, who int) bool { return p.who == who })
}

// passTime returns the worlds that this one can have become by the time of the step. In
// each, time has ended what it must, and some of what it may. There is none if the world
// is later than the step.
func (w *world) passTime(s *step) []*world {
	if w.now > s.to {
		return nil
	}
	all := []*world{w}
	for _, l := range w.leases {
		if l.ends.from < forever && l.ends.from <= s.to {
			for _, v := range all {
				v = v.endLease(v.leaseOf(l.who), "expired")
				v.now = max(v.now, l.ends.from)
				all = append(all, v)
			}
		}
	}
	for _, p := range w.line {
		if p.ends.from < forever && p.ends.from <= s.to {
			for _, v := range all {
				v = v.endPlace(v.placeOf(p.who), "abandoned")
				v.now = max(v.now, p.ends.from)
				all = append(all, v)
			}
		}
	}
	for i := 0; i < len(all); i++ {
		for place, p := range all[i].line {
			if p.gone && place < all[i].free() {
				v := *all[i]
				v.line = slices.Delete(slices.Clone(v.line), place, place+1)
				if granted := v.grant(&step{fence: p.fence, previous: p.previous, slot: p.slot, ttl: p.ttl, lasts: window{p.ends.from, forever}}, p.who); granted != nil {
					all = append(all, granted)
				}
			}
		}
	}
	return slices.DeleteFunc(all, func(v *world) bool {
		return slices.ContainsFunc(v.leases, func(l held) bool { return l.ends.to < s.from }) ||
			slices.ContainsFunc(v.line, func(p queued) bool { return p.ends.to < s.from })
	})
}

// step returns the worlds that this one can have become after the step. There is none if
// the rules do not give the reply that was received.
func (w *world) step(s *step) (all []*world) {
	for _, v := range w.passTime(s) {
		next, yes, how := v.take(s)
		switch {
		case s.known && (next == nil || yes != s.yes || !yes && s.how != how && s.how != "any"):
		case s.known:
			all = append(all, next)
		case next == nil || next == v:
			all = append(all, v)
		default:
			all = append(all, v, next) // without the effect of the call, and with it
		}
	}
	return all
}

func (w *world) equal(v *world) bool {
	return w == v || w.fence == v.fence && w.sum == v.sum && w.now == v.now && slices.Equal(w.leases, v.leases) && slices.Equal(w.line, v.line)
}

func (w *world) hash() uint64 {
	var h maphash.Hash
	h.SetSeed(modelSeed)
	maphash.WriteComparable(&h, [2]uint64{w.fence, w.sum})
	for _, l := range w.leases {
		maphash.WriteComparable(&h, l)
	}
	for _, p := range w.line {
		maphash.WriteComparable(&h, p)
	}
	return h.Sum64()
}

// worlds are all possible states of one environment, each once.
type worlds []*world

func (all worlds) step(s *step) worlds {
	var next worlds
	for _, w := range all {
		for _, v := range w.step(s) {
			if !slices.ContainsFunc(next, v.equal) {
				next = append(next, v)
			}
		}
	}
	slices.SortFunc(next, func(v, w *world) int { return cmp.Compare(v.hash(), w.hash()) })
	return next
}

func (all worlds) hash() (sum uint64) {
	for _, w := range all {
		sum += w.hash()
	}
	return sum
}

func (all worlds) String() string {
	var b strings.Builder
	for _, w := range all {
		for _, l := range w.leases {
			fmt.Fprintf(&b, "[%d %s %v] ", l.who, l.slot, l.ends)
		}
		for _, p := range w.line {
			fmt.Fprintf(&b, "%d ", p.who)
		}
		b.WriteString("/ ")
	}
	return b.String()
}

func porcupineModel(slots []string) porcupine.Model {
	return porcupine.Model{
		Init: func() any { return worlds{{slots: slots}} },
		Step: func(state, input, _ any) (bool, any) {
			next := state.(worlds).step(input.(*step))
			return len(next) > 0, next
		},
		Equal:             func(a, b any) bool { return slices.EqualFunc(a.(worlds), b.(worlds), (*world).equal) },
		Hash:              func(state any) uint64 { return state.(worlds).hash() },
		DescribeOperation: func(input, _ any) string { return input.(*step).text },
		DescribeState:     func(state any) string { return state.(worlds).String() },
	}
}

const forever = time.Duration(math.MaxInt64)

// A person is what all entries together show of one name.
type person struct {
	number  int
	fence   uint64
	slot    string
	entries []entry
	seen    time.Duration // when its lease was first known to exist
	inLine  time.Duration // when it was first known to be in the queue, or granted
	refused time.Duration // the latest moment at which it was in the queue for certain, without a lease
	ended   time.Duration // when its request is first known to be over
	lapses  bool          // its waiter may end by absence before that
}

// A transcript is what happened to one environment. operations turns it into steps.
type transcript struct {
	entries  []entry
	restarts []restart
	slots    []string
	late     time.Duration // how much later than its ttl a lease, or than its absence a waiter, may end

	strict   bool // the grants are assumed to be in the order of the queue
	people   map[string]*person
	ahead    map[int][]int     // the names that were certainly ahead of each name in the queue
	previous map[uint64]uint64 // the fence before each fence
	all      []porcupine.Operation
}

// operations returns the steps. The error is that of two replies that contradict each
// other in any order.
func (t *transcript) operations() ([]porcupine.Operation, error) {
	t.people, t.ahead, t.previous, t.all = map[string]*person{}, map[int][]int{}, map[uint64]uint64{}, nil
	for _, e := range t.entries {
		if err := t.learn(e); err != nil {
			return nil, err
		}
	}
	t.order()
	for _, p := range t.people {
		t.addRequest(p)
	}
	for _, e := range t.entries {
		if err := t.add(e); err != nil {
			return nil, err
		}
	}
	for _, r := range t.restarts {
		t.put(step{kind: start, who: -1, known: true, yes: true, from: r.killed, to: r.ready, started: window{r.started, r.ready}})
	}
	return t.all, nil
}

func (t *transcript) person(name string) *person {
	p := t.people[name]
	if p == nil {
		p = &person{number: len(t.people), ended: forever, seen: forever, inLine: forever}
		t.people[name] = p
	}
	return p
}

// learn adds what an entry shows of any name to the people. The error is that of a name
// with two different leases.
func (t *transcript) learn(e entry) error {
	leases := []leaseJSON{}
	if e.lease.Fence != 0 {
		leases = append(leases, e.lease)
	}
	for _, s := range e.view.Slots {
		if s.Lease != nil && s.Lease.Holder != "" {
			leases = append(leases, *s.Lease)
		}
	}
	for _, l := range leases {
		p := t.person(string(l.Holder))
		if p.fence != 0 && (p.fence != l.Fence || p.slot != string(l.Slot)) {
			return fmt.Errorf("%s had %s with fence %d, and %s with fence %d", l.Holder, p.slot, p.fence, l.Slot, l.Fence)
		}
		p.fence, p.slot, p.seen, p.inLine = l.Fence, string(l.Slot), min(p.seen, e.heard), min(p.inLine, e.heard)
	}
	for _, place := range e.view.Queue {
		p := t.person(string(place.Holder))
		p.inLine = min(p.inLine, e.heard)
	}
	if e.name == "" {
		return nil
	}
	p := t.person(e.name)
	p.entries = append(p.entries, e)
	switch {
	case (e.kind == askNow || e.kind == askWait) && e.status == 410, e.kind == endID && (e.status == 204 || e.status == 409):
		p.ended = min(p.ended, e.heard)
	case e.kind == askWait && e.status == 403:
		p.inLine, p.refused = min(p.inLine, e.heard), max(p.refused, e.sent+e.wait)
	}
	return nil
}

// order computes previous and ahead. The fences give the order of the grants, and looks
// give the order of the queue. With one slot, or if no waiter was passed over for being
// disconnected, the grants give the order of the queue too.
func (t *transcript) order() {
	var granted []*person
	waits := func(p *person) bool {
		return slices.ContainsFunc(p.entries, func(e entry) bool { return e.kind == askWait })
	}
	for _, p := range t.people {
		if p.fence != 0 {
			granted = append(granted, p)
		}
	}
	slices.SortFunc(granted, func(p, q *person) int { return cmp.Compare(p.fence, q.fence) })
	var before, waited *person
	for _, p := range granted {
		if before != nil {
			t.previous[p.fence] = before.fence
		}
		before = p
		if !waits(p) {
			continue
		}
		if waited != nil && (t.strict || len(t.slots) == 1) {
			t.ahead[p.number] = append(t.ahead[p.number], waited.number)
		}
		waited = p
	}
	for _, e := range t.entries {
		var last *person
		for _, place := range e.view.Queue {
			p := t.person(string(place.Holder))
			if last != nil && !slices.Contains(t.ahead[p.number], last.number) {
				t.ahead[p.number] = append(t.ahead[p.number], last.number)
			}
			if waits(p) {
				last = p
			}
		}
	}
}

// put adds a step.
func (t *transcript) put(s step) {
	s.late, s.previous = t.late, t.previous[s.fence]
	if s.kind == enter {
		s.after = t.ahead[s.who]
	}
	s.text = fmt.Sprintf("%s %d", kindNames[s.kind], s.who)
	switch {
	case !s.known:
		s.text += " ?"
	case s.kind == look:
		s.text += fmt.Sprintf(" leases %v + %d line %v", s.leases, s.plain, s.line)
	case s.kind < told:
		s.text += fmt.Sprintf(" %v %s", s.yes, s.how)
	}
	t.all = append(t.all, porcupine.Operation{ClientId: s.who + 1, Input: &s, Call: int64(s.from), Return: int64(s.to)})
}

// known reports whether a call had a reply other than 503 (outcome unknown).
func (e entry) known() bool { return e.status > 0 && e.status != 503 }

// until returns the time from which a call of unknown outcome can have no effect any
// more: the end of its request, or the end of the process that it was sent to, unless the
// network may deliver it later.
func (t *transcript) until(e entry, p *person) time.Duration {
	end := p.ended
	for _, r := range t.restarts {
		if !e.far && r.ready > e.sent {
			end = min(end, r.ready)
		}
	}
	return end
}

// first returns when the first of these calls was sent, and until when the last of them
// can have taken effect. Its from is forever if there is none.
func (t *transcript) first(p *person, which func(entry) bool) window {
	all := window{forever, 0}
	for _, e := range p.entries {
		if which(e) {
			all.from = min(all.from, e.sent)
			if e.known() {
				all.to = max(all.to, e.heard)
			} else {
				all.to = max(all.to, t.until(e, p))
			}
		}
	}
	return all
}

// addRequest adds the steps that all calls of one request have made together. Calls with
// the same id are the same request: one of them has entered the queue, one was granted,
// and one has ended the request. The steps do not depend on which call it was.
func (t *transcript) addRequest(p *person) {
	t.addUnheardEnds(p, endID)
	t.addUnheardEnds(p, endHolder)
	waits := t.first(p, func(e entry) bool { return e.kind == askWait })
	kind, asks := askWait, waits
	if waits.from == forever {
		kind, asks = askNow, t.first(p, func(e entry) bool { return e.kind == askNow })
	}
	if asks.from == forever {
		return // the request has no id, or is known from looks only
	}
	p.lapses = asks.from+absence < p.ended
	if kind == askWait && !p.lapses {
		s := step{kind: enter, who: p.number, fence: p.fence, from: waits.from, to: min(p.inLine, p.ended, waits.to), known: p.inLine != forever, yes: true, lasts: noWindow}
		if s.from < s.to {
			t.put(s)
		}
	}
	s := step{kind: kind, who: p.number, fence: p.fence, slot: p.slot, from: max(asks.from, p.refused), to: min(p.seen, p.ended)}
	if p.fence != 0 {
		s.known, s.yes = true, true
	} else {
		unheard := t.first(p, func(e entry) bool { return e.kind == kind && !e.known() })
		s.from, s.to = unheard.from, min(unheard.to, p.ended)
	}
	if s.from >= s.to {
		return
	}
	for _, e := range p.entries {
		if e.kind == kind {
			s.ttl, s.lasts = e.ttl, e.lasts(window{s.from, p.seen}, t.late)
			break
		}
	}
	t.put(s)
}

// lasts returns the earliest and the latest end of a lease that was granted within the
// window.
func (e entry) lasts(granted window, late time.Duration) window {
	if e.claim > 0 && (e.ttl == 0 || e.claim < e.ttl) {
		return granted.plus(e.claim, late)
	}
	return granted.plus(e.ttl, late)
}

// addUnheardEnds adds one step for all releases of the kind without a reply. If others had
// the reply yes, the step is before the first of these replies, and its reply is yes. No
// step is added if one had the reply no: then none had an effect.
func (t *transcript) addUnheardEnds(p *person, kind askKind) {
	unheard := t.first(p, func(e entry) bool { return e.kind == kind && !e.known() })
	s := step{kind: kind, who: p.number, fence: p.fence, slot: p.slot, from: unheard.from, to: min(unheard.to, p.ended)}
	for _, e := range p.entries {
		if e.kind != kind || !e.known() {
			continue
		}
		if e.status != 204 {
			return
		}
		if !s.known || e.heard < s.to {
			s.known, s.yes, s.to = true, true, e.heard
		}
	}
	if s.from < s.to {
		t.put(s)
	}
}

// answers has the status of yes, and that of no, of each kind.
var answers = map[askKind]struct{ yes, no int }{askNow: {201, 403}, askWait: {201, 403}, askNoID: {201, 403}, renewID: {200, 409},
	endID: {204, 409}, endHolder: {204, 409}, endForced: {204, 409}, plainAsk: {201, 403}, plainLook: {200, 403}, plainEnd: {204, 409}, look: {200, 0}}

// add adds the step of one call, with the reply that must have been right at one moment
// of the call. The error is that of a status that no rule gives.
func (t *transcript) add(e entry) error {
	p := &person{number: -1, ended: forever}
	if e.name != "" {
		p = t.person(e.name)
	}
	s := step{kind: e.kind, who: p.number, fence: p.fence, slot: p.slot, ttl: e.ttl, from: e.sent, to: e.heard, lasts: noWindow}
	switch {
	case e.status == answers[e.kind].yes:
		s.known, s.yes = true, true
	case e.status == answers[e.kind].no && e.status != 0:
		s.known, s.how = true, e.how
		if e.kind == renewID || e.kind == endHolder || e.kind == endForced || e.kind == plainEnd {
			s.how = "any" // the reply has the end of another lease, or none
		}
	case e.status == 410 && (e.kind == askNow || e.kind == askWait):
		s.known, s.how = true, e.how
	case e.known():
		return fmt.Errorf("%s of %q was answered %d", kindNames[e.kind], e.name, e.status)
	default:
		s.to = t.until(e, p)
	}
	if e.kind == askWait && p.lapses || e.kind == askNoID {
		t.addPresence(e, s)
	}
	switch {
	case e.kind == look && s.known:
		t.readView(&s, e.view)
	case e.kind == look || e.kind == plainLook && !s.known:
		return nil
	case e.kind == askNoID && !s.known:
		return nil
	case e.kind == askWait && e.status == 403:
		s.from += e.wait // the server refuses it at the end of its wait
		s.eclipsed = slices.ContainsFunc(p.entries, e.mayBeEclipsedBy)
	case e.kind == askNoID:
		s.lasts = e.lasts(window{s.from, s.to}, t.late)
	case (e.kind == askNow || e.kind == askWait) && s.yes:
		s.kind = told // addRequest has added the grant
	case !s.known && (e.kind == askNow || e.kind == askWait || e.kind == endID || e.kind == endHolder):
		return nil // addRequest has added these too
	}
	if s.from < s.to {
		t.put(s)
	}
	return nil
}

// mayBeEclipsedBy reports whether the other call, of the same id, may have arrived after
// this one, and its connection may have ended first. The newest of several connections
// decides whether the waiter is connected.
func (e entry) mayBeEclipsedBy(other entry) bool {
	over := other.heard > e.sent && other.heard < e.heard
	return other.kind == askWait && other.sent < e.heard && (!other.known() || over)
}

// addPresence adds the step in which a call enters the queue or connects its waiter, with
// the time until which the waiter stays there without another call.
func (t *transcript) addPresence(e entry, s step) {
	in := step{kind: enter, who: s.who, from: s.from, to: s.to, known: s.known, yes: true, noID: e.kind == askNoID, slot: s.slot, ttl: e.ttl, fence: s.fence, lasts: noWindow}
	switch {
	case in.noID && !s.known:
		in.lasts = window{e.sent, forever}
	case in.noID:
	case e.status == 403:
		in.lasts = window{e.sent + e.wait + absence, e.heard + absence + t.late}
	default:
		in.lasts = window{e.sent + absence, forever}
	}
	if in.from < in.to {
		t.put(in)
	}
}

func (t *transcript) readView(s *step, v environmentJSON) {
	for _, slot := range v.Slots {
		switch {
		case slot.Lease == nil:
		case slot.Lease.Holder == "":
			s.plain++
		default:
			s.leases = append(s.leases, t.person(string(slot.Lease.Holder)).number)
		}
	}
	for _, p := range v.Queue {
		s.line = append(s.line, t.person(string(p.Holder)).number)
	}
}

// The model keeps a lease whose grant had no reply for its full ttl after a restart, and
// no longer.
func TestTheModelEndsALeaseWithoutAReplyAfterARestart(t *testing.T) {
	t.Parallel()
	const s = time.Second
	seen := func(at time.Duration, holders ...string) entry {
		e := entry{kind: look, sent: at, heard: at + s/100, status: 200, view: environmentJSON{Slots: []slotJSON{{}}}}
		for _, h := range holders {
			e.view.Slots[0].Lease = &leaseJSON{Holder: h, Slot: "a", Fence: 7}
		}
		return e
	}
	asked := entry{kind: askNoID, name: "lonely", wait: s / 5, ttl: s, sent: s / 10, heard: forever}
	for free, right := range map[time.Duration]bool{3 * s / 2: false, 5 * s / 2: true} {
		tr := transcript{slots: []string{"a"}, late: s / 10, restarts: []restart{{killed: s, started: s, ready: 11 * s / 10}},
			entries: []entry{asked, seen(s/2, "lonely"), seen(6*s/5, "lonely"), seen(free)}}
		if wrong := tr.judge(); (wrong == "") != right {
			t.Errorf("free %v after the start: %q", free-s, wrong)
		}
	}
}
