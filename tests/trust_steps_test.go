package tests

// The steps of the model in trust_world_test.go: what each call does to a world, and which
// reply it gets.

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// An askKind is the kind of a call, or of a step that is no call.
type askKind int

const (
	askNow       askKind = iota // POST with an id, without wait
	askWait                     // POST with an id and wait
	askNoID                     // POST with wait, without an id
	renewID                     // PUT
	endID                       // DELETE by id
	endHolder                   // DELETE by holder
	endForced                   // DELETE by force, of one fence
	takeID                      // POST with an id that takes over the lease with a fence
	handID                      // DELETE by id that hands the lease over
	removeForced                // DELETE by force, of a waiter
	pauseSlots                  // PUT /pause
	resumeSlots                 // DELETE /pause
	plainAsk                    // the calls of 2019
	plainLook
	plainEnd
	look // GET /environments

	// The steps that are no calls.
	told  // the reply to an askNow or askWait has the lease that its request owns
	enter // an askWait or askNoID enters the queue
	start // the server was killed and started
)

var kindNames = []string{"POST", "POST wait", "POST wait without id", "PUT", "DELETE id", "DELETE holder", "DELETE force", "POST take", "DELETE to",
	"DELETE waiter", "PUT pause", "DELETE pause", "plain POST", "plain GET", "plain DELETE", "GET", "told", "enter", "start"}

// A step is one operation of the model. Its position in the order is a moment between
// from and to.
type step struct {
	kind     askKind
	who      int   // the number of the name
	other    int   // with takeID: that of the old holder; with handID: that of the new one
	envs     []int // the environments that the call names, at least one unless it is start or of a pause
	terms    *terms
	from, to time.Duration
	known    bool
	yes      bool
	how      string
	seen     []seenLease   // the leases of the name, as terms needs them; with handID: that of the new holder
	ttl      time.Duration // the ttl of the lease that begins; with renewID: the new ttl, zero if it stays
	lasts    window        // when the lease, the waiter or the pause that begins may end
	granted  window        // with enter: when the lease may end, if it is granted at once
	started  window        // with start: when the server started
	pause    paused        // with pauseSlots and resumeSlots
	force    bool          // with pauseSlots
	view     *viewed       // with look
	after    []int         // with enter: the names that must have entered before
	late     time.Duration
	eclipsed bool // with askWait: a newer connection of the same id may have come and gone meanwhile
	text     string
}

// A viewed is what a look shows of an environment.
type viewed struct {
	leases []int // by the slots of the environment: the name that has it, -1 without a name, free if none
	kept   []int // by the slots: the name for which it is kept, free if none
	line   []int
	pauses []paused // without their ends
}

const free = -2

// step returns the worlds that this one can have become after the step. There is none if
// the rules do not give the reply that was received.
func (w *world) step(s *step) (all []*world) {
	doubts := []bool{false}
	if s.kind == enter && len(s.terms.perhaps) > 0 {
		doubts = []bool{false, true}
	}
	for _, v := range w.passTime(s) {
		for _, doubt := range doubts {
			next, yes, how := v.take(s, doubt)
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
	}
	return all
}

// take returns the world after the step, whether the reply is yes, and if not, how the
// request has ended. next is nil if the step is impossible. doubt is whether what may have a
// larger first number has one.
func (w *world) take(s *step, doubt bool) (next *world, yes bool, how string) {
	switch s.kind {
	case enter:
		next := w.enter(s, doubt)
		return next, next != nil, ""
	case askWait, askNoID:
		return w.answerWait(s)
	case told:
		return w, w.owned(s.who, s.terms) == len(s.terms.needs), ""
	case askNow:
		return w.askNow(s)
	case renewID:
		return w.renew(s)
	case endID:
		return w.endRequest(s)
	case endHolder, endForced:
		return w.endLeaseOf(s)
	case takeID, handID:
		return w.changeHands(s)
	case removeForced:
		if i := w.placeOf(s.who); i >= 0 {
			return w.endPlace(i, "removed"), true, ""
		}
		return w, false, ""
	case pauseSlots, resumeSlots:
		return w.changePause(s)
	case plainAsk, plainLook, plainEnd:
		return w.as2019(s)
	case look:
		return w, w.looksLike(s), ""
	case start:
		return w.start(s), true, ""
	}
	panic("unknown step")
}

// enter returns the world with the name at the end of the queue, in the place of the one
// that it supersedes, or with what the queue leaves. It returns nil if a name that is known to be ahead has not entered yet:
// later steps would exclude that order too, but only after a long search.
func (w *world) enter(s *step, doubt bool) *world {
	t := s.terms
	if w.owned(s.who, t) > 0 || w.howRequestEnded(s.who, t) != "" {
		return w
	}
	after := *w
	after.line = slices.Clone(w.line)
	if i := w.placeOf(s.who); i >= 0 {
		after.line[i].ends = s.lasts
		return &after
	}
	for _, who := range s.after {
		if !w.hasCome(who) {
			return nil
		}
	}
	own := queued{who: s.who, terms: t, ends: s.lasts}
	if t.noID && !s.known {
		own.gone = s
	}
	if w.isOld(t, doubt) {
		for _, n := range t.needs {
			after.end(s.who, n.environment, "superseded")
		}
		return &after
	}
	if i := slices.IndexFunc(w.line, func(p queued) bool { return t.key != "" && p.terms.key == t.key }); i >= 0 {
		after = *w.endPlace(i, "superseded")
		after.line = slices.Insert(after.line, i, own)
		return &after
	}
	_, left := w.walk()
	if slots, _ := w.pick(t.needs, left); isWhole(slots) {
		return w.grant(s.who, t, slots, s.seen, s.ttl, s.granted)
	}
	after.line = append(after.line, own)
	return &after
}

// hasCome reports whether a name waits, or has a lease or an end.
func (w *world) hasCome(who int) bool {
	for e := w.ended; e != nil; e = e.next {
		if e.who == who {
			return true
		}
	}
	return w.placeOf(who) >= 0 || slices.ContainsFunc(w.leases, func(l held) bool { return l.who == who })
}

// isOld reports whether a request that begins anew finds a newer one with its key.
func (w *world) isOld(t *terms, doubt bool) bool {
	isNewer := func(who int, other *terms) bool {
		return other != nil && other.key == t.key && (slices.Contains(t.newer, who) || doubt && slices.Contains(t.perhaps, who))
	}
	return t.key != "" && (slices.ContainsFunc(w.line, func(p queued) bool { return isNewer(p.who, p.terms) }) ||
		slices.ContainsFunc(w.leases, func(l held) bool { return isNewer(l.who, l.terms) }))
}

func (w *world) answerWait(s *step) (next *world, yes bool, how string) {
	i, owned := w.placeOf(s.who), w.owned(s.who, s.terms)
	switch {
	case owned == len(s.terms.needs):
		return w, true, ""
	case i >= 0 && s.eclipsed:
		return w, false, "" // the waiter was disconnected, so it got no free slot
	case i >= 0:
		if granted, isDue := w.grantPlace(i, s.seen, s.ttl, s.lasts); isDue {
			return granted, true, ""
		}
		if s.kind == askNoID {
			return w.endPlace(i, "left"), false, ""
		}
		return w, false, ""
	}
	if how := w.howRequestEnded(s.who, s.terms); how != "" {
		return w, false, how
	}
	return nil, false, "" // the request has not entered the queue yet
}

func (w *world) askNow(s *step) (next *world, yes bool, how string) {
	if w.owned(s.who, s.terms) == len(s.terms.needs) {
		return w, true, ""
	}
	if how := w.howRequestEnded(s.who, s.terms); how != "" {
		return w, false, how
	}
	if i := w.placeOf(s.who); i >= 0 {
		if granted, isDue := w.grantPlace(i, s.seen, s.ttl, s.lasts); isDue {
			return granted, true, ""
		}
		return w, false, ""
	}
	_, left := w.walk()
	if slots, _ := w.pick(s.terms.needs, left); isWhole(slots) {
		return w.grant(s.who, s.terms, slots, s.seen, s.ttl, s.lasts), true, ""
	}
	return w, false, ""
}

func (w *world) renew(s *step) (next *world, yes bool, how string) {
	after := *w
	after.leases = slices.Clone(w.leases)
	for _, environment := range s.envs {
		i := w.leaseOf(s.who, environment)
		if i < 0 {
			return w, false, ""
		}
		l := &after.leases[i]
		if s.ttl > 0 {
			l.ttl = s.ttl
		}
		l.ends = window{s.from, s.to}.plus(l.ttl, s.late)
	}
	return &after, true, ""
}

// endRequest ends what lives of the leases of a request in the environments that the call
// names; of one that waits, all.
func (w *world) endRequest(s *step) (next *world, yes bool, how string) {
	next = w
	for _, environment := range s.envs {
		ended := next.howEnded(s.who, environment)
		if i := next.leaseOf(s.who, environment); i >= 0 {
			next = next.endLease(i, "released")
		} else if isTaken(ended) {
			how = cmp.Or(how, ended)
		} else if i := next.placeOf(s.who); i >= 0 && ended == "" {
			next = next.endPlace(i, "left")
		} else if ended == "" {
			after := *next
			after.end(s.who, environment, "closed")
			next = &after
		}
	}
	return next, how == "", how
}

// isTaken reports whether a lease that ended so was not given back by its holder.
func isTaken(how string) bool { return how == "expired" || how == "forced" || how == "taken" }

func (w *world) endLeaseOf(s *step) (next *world, yes bool, how string) {
	how = w.howEnded(s.who, s.envs[0])
	i := w.leaseOf(s.who, s.envs[0])
	switch {
	case i >= 0 && s.kind == endForced:
		return w.endLease(i, "forced"), true, ""
	case i >= 0:
		return w.endLease(i, "released"), true, ""
	case s.kind == endForced || isTaken(how):
		return w, false, how
	}
	return w, how == "released" || how == "handed" || w.countIn(s.envs[0]) == 0, ""
}

func (w *world) changeHands(s *step) (next *world, yes bool, how string) {
	lease := w.leaseOf(s.who, s.envs[0])
	how = w.howEnded(s.who, s.envs[0])
	if s.kind == handID {
		if lease < 0 {
			return w, how == "handed", ""
		}
		return w.pass(s, lease, "handed", s.other, nil), true, ""
	}
	old := w.leaseOf(s.other, s.envs[0])
	switch {
	case lease >= 0:
		return w, true, ""
	case how != "" || old < 0 || w.isPaused(w.leases[old].slot):
		return w, false, how
	}
	return w.pass(s, old, "taken", s.who, s.terms), true, ""
}

// pass returns the world in which the lease at i has ended, and its slot has a lease of
// another name, which s describes.
func (w *world) pass(s *step, i int, how string, who int, t *terms) *world {
	slot := w.leases[i].slot
	return w.endLease(i, how).grant(who, t, []int{slot}, s.seen, s.ttl, s.lasts)
}

func (w *world) changePause(s *step) (next *world, yes bool, how string) {
	after := *w
	after.pauses = slices.Clone(w.pauses)
	i := slices.IndexFunc(w.pauses, func(p paused) bool { return p.target == s.pause.target })
	switch {
	case s.kind == resumeSlots && i < 0:
		return w, true, ""
	case s.kind == resumeSlots:
		after.pauses = slices.Delete(after.pauses, i, i+1)
		return &after, true, ""
	case i >= 0 && w.pauses[i].by != s.pause.by && !s.force:
		return w, false, ""
	case i >= 0:
		after.pauses = slices.Delete(after.pauses, i, i+1)
	}
	began := s.pause
	began.ends = s.lasts
	after.pauses = append(after.pauses, began)
	slices.SortFunc(after.pauses, func(p, q paused) int { return strings.Compare(p.target, q.target) })
	return &after, true, ""
}

func (w *world) as2019(s *step) (next *world, yes bool, how string) {
	if s.kind == plainEnd {
		if i := w.leaseOf(-1, s.envs[0]); i >= 0 {
			return w.endLease(i, ""), true, ""
		}
		return w, w.countIn(s.envs[0]) == 0, ""
	}
	_, left := w.walk()
	slots, _ := w.pick([]need{{s.envs[0], anySlot}}, left)
	if s.kind == plainLook || !isWhole(slots) {
		return w, isWhole(slots), ""
	}
	return w.grant(-1, nil, slots, nil, s.ttl, s.lasts), true, ""
}

// looksLike reports whether the world is what a look shows.
func (w *world) looksLike(s *step) bool {
	e := s.envs[0]
	from, to := w.slotsOf(e)
	leases, kept := make([]int, to-from), make([]int, to-from)
	for i := range leases {
		leases[i], kept[i] = free, free
	}
	for _, l := range w.leases {
		if w.of[l.slot] == e {
			leases[l.slot-from] = l.who
		}
	}
	given, _ := w.walk()
	for i, slots := range given {
		for _, slot := range slots {
			if slot != anySlot && w.of[slot] == e {
				kept[slot-from] = w.line[i].who
			}
		}
	}
	var line []int
	for _, i := range w.ranked() {
		if slices.ContainsFunc(w.line[i].terms.needs, func(n need) bool { return n.environment == e }) {
			line = append(line, w.line[i].who)
		}
	}
	var pauses []paused
	for _, p := range w.pauses {
		if name, _, _ := strings.Cut(p.target, "/"); p.target == "" || name == w.environments[e] {
			pauses = append(pauses, paused{target: p.target, by: p.by})
		}
	}
	return slices.Equal(leases, s.view.leases) && slices.Equal(kept, s.view.kept) &&
		slices.Equal(line, s.view.line) && slices.Equal(pauses, s.view.pauses)
}

// start returns the world after a start of the server: each lease has its full ttl, and a
// pause ends when it would have ended, or at the start if that was meanwhile.
func (w *world) start(s *step) *world {
	after := *w
	after.leases, after.pauses = slices.Clone(w.leases), slices.Clone(w.pauses)
	after.line = slices.DeleteFunc(slices.Clone(w.line), func(p queued) bool { return p.terms.noID })
	for i, l := range after.leases {
		after.leases[i].ends = s.started.plus(l.ttl, s.late)
	}
	for i := range after.line {
		after.line[i].ends = s.started.plus(absence, s.late)
	}
	for i, p := range after.pauses {
		if p.ends.to < forever {
			after.pauses[i].ends.to = max(p.ends.to, s.started.to+s.late)
		}
	}
	return &after
}
