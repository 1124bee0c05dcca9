package tests

// What the callers of an attack saw, and how it becomes the steps of the model in
// trust_steps_test.go.

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// An entry is a call as its caller saw it. Its times count from the start of the attack.
type entry struct {
	kind        askKind
	environment string // empty if it is a pause of all
	beside      string // the second environment of a request for two; empty if it names one
	slot        string // the certain slot of environment, or with a pause the slot; empty if none
	besideSlot  string // that of beside
	name        string // the holder; the id is derived from it
	wait        time.Duration
	ttl, claim  time.Duration // those of a POST; ttl of a PUT: the new ttl, zero if none; of a pause: its length
	priority    int
	key         string // of newest wins; empty if none
	first       uint64 // the first number of a client that begins anew
	fence       uint64 // of endForced, and of the lease that takeID takes over
	waiter      uint64 // of removeForced
	other       string // with takeID: the holder of that lease; with handID: the new holder; with a pause: who pauses
	force       bool   // of a pause
	far         bool   // the call went through the bad network, which may deliver it much later
	sent, heard time.Duration
	status      int // zero if no reply was received
	leases      []leaseJSON
	number      uint64 // with 403: that of the waiter
	how         string // with 409 and 410: how the request ended
	view        environmentJSON
}

// all returns the environments that the call names.
func (e entry) all() []string {
	switch {
	case e.environment == "":
		return nil
	case e.beside == "":
		return []string{e.environment}
	}
	return []string{e.environment, e.beside}
}

// asks reports whether the call is a request with an id.
func (e entry) asks() bool { return e.kind == askNow || e.kind == askWait || e.kind == takeID }

// pauses reports whether the call is about a pause.
func (e entry) pauses() bool { return e.kind == pauseSlots || e.kind == resumeSlots }

// known reports whether a call had a reply other than 503 (outcome unknown).
func (e entry) known() bool { return e.status > 0 && e.status != 503 }

// A restart is the end of one server process and the start of the next.
type restart struct{ killed, started, ready time.Duration }

// A person is what all entries together show of one name.
type person struct {
	number  int
	leases  map[string]leaseJSON // by their environments
	terms   *terms               // nil if it has requested nothing by an id
	waiter  uint64               // its number in the queue; zero if it was never seen
	entries []entry
	seen    time.Duration // when a lease of it was first known to exist
	inLine  time.Duration // when it was first known to be in the queue, granted, or ended by others there
	refused time.Duration // the latest moment at which it was in the queue for certain, without a lease
	ended   time.Duration // when its request is first known to be granted nothing any more
	over    time.Duration // when nothing is left of it
	lapses  bool          // its waiter may end by absence before that
}

// A transcript is what happened to one setting. operations turns it into steps.
type transcript struct {
	*setting
	entries  []entry
	restarts []restart
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
	if err := t.order(); err != nil {
		return nil, err
	}
	t.compareFirsts()
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
		p = &person{number: len(t.people), leases: map[string]leaseJSON{}, ended: forever, over: forever, seen: forever, inLine: forever}
		t.people[name] = p
	}
	return p
}

// learn adds what an entry shows of any name to the people. The error is that of a name
// with two different leases or numbers.
func (t *transcript) learn(e entry) error {
	leases := slices.Clone(e.leases)
	for _, s := range e.view.Slots {
		if s.Lease != nil && s.Lease.Holder != "" {
			leases = append(leases, *s.Lease)
		}
	}
	for _, l := range leases {
		if l.Holder == "" {
			continue
		}
		p := t.person(l.Holder)
		if old, found := p.leases[l.Environment]; found && (old.Fence != l.Fence || old.Slot != l.Slot) {
			return fmt.Errorf("%s had %s with fence %d, and %s with fence %d", l.Holder, old.Slot, old.Fence, l.Slot, l.Fence)
		}
		p.leases[l.Environment] = l
		p.seen, p.inLine = min(p.seen, e.heard), min(p.inLine, e.heard)
	}
	for _, place := range e.view.Queue {
		p := t.person(place.Holder)
		p.inLine = min(p.inLine, e.heard)
		if err := p.learnNumber(place.Number); err != nil {
			return err
		}
	}
	if e.name == "" {
		return nil
	}
	p := t.person(e.name)
	p.entries = append(p.entries, e)
	if p.terms == nil && (e.asks() || e.kind == askNoID) {
		p.terms = t.termsOf(e)
	}
	t.learnEnd(p, e)
	if e.kind == askWait && e.status == 403 {
		p.inLine, p.refused = min(p.inLine, e.heard), max(p.refused, e.sent+e.wait)
		return p.learnNumber(e.number)
	}
	return nil
}

// learnEnd adds what an entry of a name shows of the end of its request.
func (t *transcript) learnEnd(p *person, e entry) {
	isEnd := e.kind == endID && (e.status == 204 || e.status == 409)
	switch {
	case e.asks() && e.status == 410, isEnd, e.kind == handID && e.status == 204:
		p.ended = min(p.ended, e.heard)
	}
	if p.terms == nil || len(p.terms.needs) < 2 {
		p.over = p.ended
	} else if isEnd && e.beside != "" {
		p.over = min(p.over, e.heard)
	}
	if e.asks() && e.status == 410 && slices.Contains([]string{"superseded", "removed", "abandoned"}, e.how) {
		p.inLine = min(p.inLine, e.heard)
	}
}

func (p *person) learnNumber(number uint64) error {
	if p.waiter != 0 && number != 0 && p.waiter != number {
		return fmt.Errorf("name %d had the numbers %d and %d in the queue", p.number, p.waiter, number)
	}
	p.waiter = cmp.Or(p.waiter, number)
	return nil
}

// termsOf returns what a request asks for.
func (t *transcript) termsOf(e entry) *terms {
	asked := &terms{priority: e.priority, noID: e.kind == askNoID}
	for i, name := range e.all() {
		asked.needs = append(asked.needs, need{slices.Index(t.environments, name), t.number([]string{e.slot, e.besideSlot}[i])})
	}
	if e.key != "" {
		asked.key = fmt.Sprint(e.key, asked.needs)
	}
	return asked
}

// order computes previous and ahead. The fences give the order of the grants, and looks
// and the numbers give the order of the queue. With one slot, or if no waiter was passed over
// for being disconnected, the grants give the order of the queue too, where all are equal.
// The error is that of a number which two names had.
func (t *transcript) order() error {
	t.orderGrants()
	for _, e := range t.entries {
		var last *person
		for _, place := range e.view.Queue {
			p := t.person(place.Holder)
			if last != nil && p.terms != nil && last.terms.priority <= p.terms.priority {
				t.addAhead(p, last)
			}
			if p.terms != nil && !p.terms.noID && p.terms.key == "" {
				last = p
			}
		}
	}
	var numbered []*person
	for _, p := range t.people {
		if p.waiter != 0 && p.terms != nil && !p.terms.noID {
			numbered = append(numbered, p)
		}
	}
	slices.SortFunc(numbered, func(p, q *person) int { return cmp.Compare(p.waiter, q.waiter) })
	for i := 1; i < len(numbered); i++ {
		if numbered[i].waiter == numbered[i-1].waiter {
			return fmt.Errorf("the names %d and %d had the number %d", numbered[i-1].number, numbered[i].number, numbered[i].waiter)
		}
		t.addAhead(numbered[i], numbered[i-1])
	}
	return nil
}

func (t *transcript) addAhead(p, before *person) {
	if !slices.Contains(t.ahead[p.number], before.number) {
		t.ahead[p.number] = append(t.ahead[p.number], before.number)
	}
}

func (t *transcript) orderGrants() {
	type grant struct {
		fence uint64
		*person
	}
	var granted []grant
	for _, p := range t.people {
		for _, l := range p.leases {
			granted = append(granted, grant{l.Fence, p})
		}
	}
	slices.SortFunc(granted, func(p, q grant) int { return cmp.Compare(p.fence, q.fence) })
	var waited *person
	for i, g := range granted {
		if i > 0 {
			t.previous[g.fence] = granted[i-1].fence
		}
		isWait := func(e entry) bool { return e.kind == askWait }
		if !slices.ContainsFunc(g.entries, isWait) {
			continue
		}
		if waited != nil && t.isPlain() && (t.strict || len(t.slots) == 1) {
			t.addAhead(g.person, waited)
		}
		waited = g.person
	}
}

// isPlain reports whether the setting has one environment, and all of its requests are alike.
func (t *transcript) isPlain() bool { return !slices.Contains(newRules, t.environments[0]) }

// compareFirsts finds for each request that begins anew which others with its key have a larger
// first number, or may have one.
func (t *transcript) compareFirsts() {
	type sight struct {
		at     time.Duration
		number uint64
	}
	var sights []sight
	for _, e := range t.entries {
		for _, l := range e.leases {
			sights = append(sights, sight{e.heard, l.Fence})
		}
		sights = append(sights, sight{e.heard, e.number})
	}
	first := func(p *person) (least, most uint64) {
		begun := forever
		for _, e := range p.entries {
			if e.first != 0 {
				return e.first, e.first
			}
			begun = min(begun, e.sent)
		}
		if p.waiter != 0 {
			return p.waiter, p.waiter
		}
		for _, s := range sights {
			if s.at < begun {
				least = max(least, s.number+1)
			}
		}
		most = 1 << 63
		for _, l := range p.leases {
			most = min(most, l.Fence)
		}
		return least, most
	}
	for _, p := range t.people {
		if p.terms == nil || p.terms.key == "" || !slices.ContainsFunc(p.entries, func(e entry) bool { return e.first != 0 }) {
			continue
		}
		own, _ := first(p)
		for _, q := range t.people {
			if q == p || q.terms == nil || q.terms.key != p.terms.key {
				continue
			}
			switch least, most := first(q); {
			case least > own:
				p.terms.newer = append(p.terms.newer, q.number)
			case most > own:
				p.terms.perhaps = append(p.terms.perhaps, q.number)
			}
		}
	}
}

// put adds a step.
func (t *transcript) put(s step) {
	s.late = t.late
	if s.kind == enter {
		s.after = t.ahead[s.who]
	}
	s.text = fmt.Sprintf("%s %d", kindNames[s.kind], s.who)
	switch {
	case !s.known:
		s.text += " ?"
	case s.kind == look:
		s.text += fmt.Sprintf(" %+v", *s.view)
	case s.kind == pauseSlots || s.kind == resumeSlots:
		s.text += fmt.Sprintf(" %q by %s %v", s.pause.target, s.pause.by, s.yes)
	case s.kind < told:
		s.text += fmt.Sprintf(" %v %s", s.yes, s.how)
	}
	t.all = append(t.all, porcupine.Operation{ClientId: s.who + 1, Input: &s, Call: int64(s.from), Return: int64(s.to)})
}

// seenOf returns what was seen of the leases of a person in the environments of the call, in
// the order of these.
func (t *transcript) seenOf(p *person, environments []string) (all []seenLease) {
	for _, name := range environments {
		l := p.leases[name]
		all = append(all, seenLease{t.number(l.Slot), l.Fence, t.previous[l.Fence]})
	}
	return all
}

// until returns the time from which a call of unknown outcome can have no effect any
// more: the end of its request, or the end of the process that it was sent to, unless the
// network may deliver it later.
func (t *transcript) until(e entry, p *person) time.Duration {
	end := p.over
	if e.asks() {
		end = p.ended
	}
	for _, r := range t.restarts {
		if !e.far && r.ready > e.sent {
			end = min(end, r.ready)
		}
	}
	if end == forever && !e.far && e.status == 503 && (e.pauses() || e.kind == removeForced) {
		return e.heard // only a start can bring it back
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
		kind, asks = takeID, t.first(p, func(e entry) bool { return e.kind == takeID })
	}
	if asks.from == forever {
		kind, asks = askNow, t.first(p, func(e entry) bool { return e.kind == askNow })
	}
	if asks.from == forever {
		return // the request has no id, or is known from looks only
	}
	i := slices.IndexFunc(p.entries, func(e entry) bool { return e.kind == kind })
	e := p.entries[i]
	s := step{kind: kind, who: p.number, terms: p.terms, envs: t.numbers(e.all()), seen: t.seenOf(p, e.all()),
		ttl: e.ttl, other: -1, from: max(asks.from, p.refused), to: min(p.seen, p.ended)}
	p.lapses = asks.from+absence < p.ended
	if kind == askWait && !p.lapses {
		in := s
		in.kind, in.from, in.to, in.known, in.yes, in.lasts = enter, waits.from, min(p.inLine, p.ended, waits.to), p.inLine != forever, true, noWindow
		in.granted = e.lasts(window{in.from, min(in.to, p.seen)}, t.late)
		if in.from < in.to {
			t.put(in)
		}
	}
	if len(p.leases) > 0 {
		s.known, s.yes = true, true
	} else {
		unheard := t.first(p, func(e entry) bool { return e.kind == kind && !e.known() })
		s.from, s.to = unheard.from, min(unheard.to, p.ended)
	}
	if s.from >= s.to {
		return
	}
	s.lasts = e.lasts(window{s.from, p.seen}, t.late)
	if kind == takeID {
		s.other = t.person(e.other).number
	}
	t.put(s)
}

// numbers returns the numbers of environments.
func (t *transcript) numbers(names []string) (all []int) {
	for _, name := range names {
		all = append(all, slices.Index(t.environments, name))
	}
	return all
}

// lasts returns the earliest and the latest end of a lease that was granted within the
// window.
func (e entry) lasts(granted window, late time.Duration) window {
	if e.claim > 0 && (e.ttl == 0 || e.claim < e.ttl) {
		return granted.plus(e.claim, late)
	}
	return granted.plus(e.ttl, late)
}

// isPartial reports whether a call names only one of the environments of the request.
func (p *person) isPartial(e entry) bool {
	return p.terms != nil && len(p.terms.needs) > 1 && e.beside == ""
}

// addUnheardEnds adds one step for all releases of the kind without a reply, besides those of
// a part of the request. If others had the reply yes, the step is before the first of these
// replies, and its reply is yes. No step is added if one had the reply no, and the request is
// for one slot: then none had an effect.
func (t *transcript) addUnheardEnds(p *person, kind askKind) {
	isOne := func(e entry) bool { return e.kind == kind && !p.isPartial(e) }
	unheard := t.first(p, func(e entry) bool { return isOne(e) && !e.known() })
	s := step{kind: kind, who: p.number, terms: p.terms, from: unheard.from, to: min(unheard.to, p.over)}
	for _, e := range p.entries {
		if !isOne(e) {
			continue
		}
		s.envs = t.numbers(e.all())
		switch {
		case !e.known():
		case e.status != 204 && len(s.envs) > 1:
			s.known, s.to = false, unheard.to
		case e.status != 204:
			return
		case !s.known || e.heard < s.to:
			s.known, s.yes, s.to = true, true, e.heard
		}
	}
	if s.from < s.to {
		t.put(s)
	}
}

// answers has the status of yes, and that of no, of each kind.
var answers = map[askKind]struct{ yes, no int }{askNow: {201, 403}, askWait: {201, 403}, askNoID: {201, 403}, renewID: {200, 409},
	takeID: {201, 409}, handID: {204, 409}, endID: {204, 409}, endHolder: {204, 409}, endForced: {204, 409}, removeForced: {204, 409},
	pauseSlots: {200, 409}, resumeSlots: {200, 0}, plainAsk: {201, 403}, plainLook: {200, 403}, plainEnd: {204, 409}, look: {200, 0}}

// tellsHow has the kinds whose reply no has how the request of its caller ended.
var tellsHow = []askKind{askNow, askWait, askNoID, endID}

// add adds the step of one call, with the reply that must have been right at one moment
// of the call. The error is that of a status that no rule gives.
func (t *transcript) add(e entry) error {
	p := &person{number: -1, ended: forever, over: forever}
	if e.name != "" {
		p = t.person(e.name)
	}
	s := step{kind: e.kind, who: p.number, terms: p.terms, envs: t.numbers(e.all()), seen: t.seenOf(p, e.all()),
		ttl: e.ttl, from: e.sent, to: e.heard, lasts: noWindow}
	switch {
	case e.status == answers[e.kind].yes:
		s.known, s.yes = true, true
	case e.status == answers[e.kind].no && e.status != 0 && slices.Contains(tellsHow, e.kind):
		s.known, s.how = true, e.how
	case e.status == answers[e.kind].no && e.status != 0:
		s.known, s.how = true, "any" // the reply has the end of another lease, or none
	case e.status == 410 && (e.asks() || e.kind == askNoID):
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
		s.view = t.readView(e.view)
	case e.kind == look || e.kind == plainLook && !s.known:
		return nil
	case e.kind == askNoID && !s.known:
		return nil
	case e.pauses():
		s.pause, s.force = paused{target: target(e.environment, e.slot), by: e.other}, e.force
		s.lasts = window{s.from, s.to}.plus(e.ttl, t.late)
		s.lasts.from -= clockError
	case e.kind == askWait && e.status == 403:
		s.from += e.wait // the server refuses it at the end of its wait
		s.eclipsed = slices.ContainsFunc(p.entries, e.mayBeEclipsedBy)
	case e.kind == askNoID:
		s.lasts = e.lasts(window{s.from, s.to}, t.late)
	case e.kind == handID:
		next := t.person(e.other)
		s.other, s.seen, s.lasts = next.number, t.seenOf(next, e.all()), e.lasts(window{s.from, s.to}, t.late)
	case e.asks() && s.yes:
		s.kind = told // addRequest has added the grant
	case e.kind == takeID && s.known:
		s.other = t.person(e.other).number
	case !s.known && (e.asks() || (e.kind == endID || e.kind == endHolder) && !p.isPartial(e)):
		return nil // addRequest has added these too
	}
	if s.from < s.to {
		t.put(s)
	}
	return nil
}

// clockError is how much earlier than its length after a start a pause may end: what is stored
// of its end is a wall clock.
const clockError = 10 * time.Millisecond

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
	in := s
	in.kind, in.yes, in.lasts, in.granted = enter, true, noWindow, e.lasts(window{s.from, s.to}, t.late)
	switch {
	case in.terms.noID && !s.known:
		in.lasts, in.granted = window{e.sent, forever}, window{e.sent, forever}
	case in.terms.noID:
	case e.status == 403:
		in.lasts = window{e.sent + e.wait + absence, e.heard + absence + t.late}
	default:
		in.lasts = window{e.sent + absence, forever}
	}
	if in.from < in.to {
		t.put(in)
	}
}

func (t *transcript) readView(v environmentJSON) *viewed {
	seen := &viewed{}
	for _, slot := range v.Slots {
		has, kept := free, free
		switch {
		case slot.Lease != nil && slot.Lease.Holder == "":
			has = -1
		case slot.Lease != nil:
			has = t.person(slot.Lease.Holder).number
		case slot.Kept != nil:
			kept = t.person(slot.Kept.Holder).number
		}
		seen.leases, seen.kept = append(seen.leases, has), append(seen.kept, kept)
	}
	for _, p := range v.Queue {
		seen.line = append(seen.line, t.person(p.Holder).number)
	}
	for _, p := range v.Pauses {
		seen.pauses = append(seen.pauses, paused{target: target(p.Environment, p.Slot), by: p.By})
	}
	slices.SortFunc(seen.pauses, func(p, q paused) int { return strings.Compare(p.target, q.target) })
	return seen
}
