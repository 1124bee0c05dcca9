package tests

// A porcupine model of the rules of the lock, as a client sees them. porcupine searches
// for an order of all calls in which each reply is the one that the rules give. The model
// is written from the documented promises, and shares no code with the product.
//
// A call without a reply has taken effect or has not. The model follows both cases, so
// its state is a set of worlds. In each world, every lease, every waiter and every pause has
// the earliest and the latest time at which it may end. A call with wait is two steps: it
// enters the queue, and it gets its reply.

import (
	"cmp"
	"fmt"
	"hash/maphash"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// absence is how long a waiter stays in the queue without a connection.
const absence = 10 * time.Second

const forever = time.Duration(math.MaxInt64)

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

// A setting is the environments that are checked together, since requests name several of
// them. Environments and slots go by their numbers.
type setting struct {
	environments []string
	slots        []string // of all environments, those of one beside each other
	of           []int    // the environment of each slot
}

const anySlot = -1

// number returns the number of a slot, anySlot for an empty name and for one that is not of
// the setting.
func (g *setting) number(slot string) int { return slices.Index(g.slots, slot) }

// slotsOf returns the numbers of the slots of an environment: the first, and the one after
// the last.
func (g *setting) slotsOf(environment int) (from, to int) {
	from = slices.Index(g.of, environment)
	for to = from; to < len(g.of) && g.of[to] == environment; to++ {
	}
	return from, to
}

// A need is a slot that a request asks for.
type need struct{ environment, slot int }

// terms are what a request asks for. Its newer and perhaps are of a request that begins anew:
// the names with its key that have a larger first number, and those that may have one.
type terms struct {
	needs          []need // in the order of the environments
	priority       int
	key            string // with the needs in it; empty if none
	noID           bool
	newer, perhaps []int
}

// A seenLease is what was seen of a lease: its fence is zero if it was never seen.
type seenLease struct {
	slot            int
	fence, previous uint64 // previous is the fence of the grant before it
}

// A world is one possible state of a setting. It is never changed.
type world struct {
	*setting
	leases []held
	line   []queued // in the order in which they entered
	pauses []paused // in the order of their targets
	worn   []int    // the slots; within an environment in the order in which their last leases ended
	fence  uint64   // the largest fence that was granted
	ended  *ended
	sum    uint64        // a hash of ended
	now    time.Duration // the present is not before it
}

type held struct {
	who   int // -1 if the lease has no name
	slot  int
	terms *terms // nil if it has no id
	ttl   time.Duration
	ends  window
}

type queued struct {
	who   int
	terms *terms
	gone  *step // how it entered, if its caller may have hung up: it may end, or be granted and undone, at any time
	ends  window
}

// A paused is a pause. Its target is empty if it covers all environments, else the name of an
// environment, and for a slot that of the slot after a slash.
type paused struct {
	target, by string
	ends       window
}

type ended struct {
	who, environment int
	how              string
	next             *ended
}

func (w *world) howEnded(who, environment int) string {
	for e := w.ended; e != nil; e = e.next {
		if e.who == who && e.environment == environment {
			return e.how
		}
	}
	return ""
}

// howRequestEnded returns how the request of a name ended in the first environment in which
// it did; empty if it has not.
func (w *world) howRequestEnded(who int, t *terms) string {
	for _, n := range t.needs {
		if how := w.howEnded(who, n.environment); how != "" {
			return how
		}
	}
	return ""
}

func (w *world) leaseOf(who, environment int) int {
	return slices.IndexFunc(w.leases, func(l held) bool { return l.who == who && w.of[l.slot] == environment })
}

// owned returns how many of the leases that a request asks for its name has.
func (w *world) owned(who int, t *terms) (n int) {
	for _, need := range t.needs {
		if w.leaseOf(who, need.environment) >= 0 {
			n++
		}
	}
	return n
}

func (w *world) placeOf(who int) int {
	return slices.IndexFunc(w.line, func(p queued) bool { return p.who == who })
}

func (w *world) countIn(environment int) (n int) {
	for _, l := range w.leases {
		if w.of[l.slot] == environment {
			n++
		}
	}
	return n
}

func (w *world) end(who, environment int, how string) {
	w.ended = &ended{who, environment, how, w.ended}
	w.sum += maphash.Comparable(modelSeed, ended{who: who, environment: environment, how: how})
}

var modelSeed = maphash.MakeSeed()

// endLease returns a copy of the world without the lease at i.
func (w world) endLease(i int, how string) *world {
	l := w.leases[i]
	if l.who >= 0 {
		w.end(l.who, w.of[l.slot], how)
	}
	w.leases = slices.Delete(slices.Clone(w.leases), i, i+1)
	w.worn = slices.Clone(w.worn)
	_, to := w.slotsOf(w.of[l.slot])
	at := slices.Index(w.worn, l.slot)
	copy(w.worn[at:to-1], w.worn[at+1:to])
	w.worn[to-1] = l.slot
	return &w
}

// endPlace returns a copy of the world without the waiter at i. The end of a request without
// id is not remembered, unless somebody has removed it.
func (w world) endPlace(i int, how string) *world {
	if p := w.line[i]; !p.terms.noID || how == "removed" {
		for _, n := range p.terms.needs {
			w.end(p.who, n.environment, how)
		}
	}
	w.line = slices.Delete(slices.Clone(w.line), i, i+1)
	return &w
}

// target returns the name of what a pause covers, see paused.
func target(environment, slot string) string {
	if slot == "" {
		return environment
	}
	return environment + "/" + slot
}

func (w *world) isPaused(slot int) bool {
	if len(w.pauses) == 0 {
		return false
	}
	environment := w.environments[w.of[slot]]
	return slices.ContainsFunc(w.pauses, func(p paused) bool {
		return p.target == "" || p.target == environment || p.target == target(environment, w.slots[slot])
	})
}

// ranked returns the indexes of the waiters in the order of the queue: those with a larger
// priority first. All of an attack is within 10 minutes, which a point of it is worth.
func (w *world) ranked() []int {
	order := make([]int, len(w.line))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(w.line[j].terms.priority, w.line[i].terms.priority) })
	return order
}

// isPassedOver reports whether a waiter for several slots cannot get them all until somebody
// resumes one.
func (w *world) isPassedOver(t *terms) bool {
	if len(t.needs) < 2 || len(w.pauses) == 0 {
		return false
	}
	return slices.ContainsFunc(t.needs, func(n need) bool {
		from, to := w.slotsOf(n.environment)
		for s := from; s < to; s++ {
			if (n.slot == anySlot || n.slot == s) && !w.isPaused(s) {
				return false
			}
		}
		return true
	})
}

// walk gives the free slots to the waiters, in the order of the queue. given has the slots of
// each, by its index; anySlot where it gets none. left are the slots that remain.
func (w *world) walk() (given [][]int, left []int) {
	for _, s := range w.worn {
		if !slices.ContainsFunc(w.leases, func(l held) bool { return l.slot == s }) && !w.isPaused(s) {
			left = append(left, s)
		}
	}
	given = make([][]int, len(w.line))
	for _, i := range w.ranked() {
		t := w.line[i].terms
		if len(left) > 0 && !w.isPassedOver(t) {
			given[i], left = w.pick(t.needs, left)
		}
	}
	return given, left
}

// pick returns the first slots of the list that fill the needs, anySlot where none does, and
// the others.
func (w *world) pick(needs []need, from []int) (picked, left []int) {
	left = slices.Clone(from)
	for _, n := range needs {
		i := slices.IndexFunc(left, func(s int) bool { return w.of[s] == n.environment && (n.slot == anySlot || n.slot == s) })
		if i < 0 {
			picked = append(picked, anySlot)
			continue
		}
		picked = append(picked, left[i])
		left = slices.Delete(left, i, i+1)
	}
	return picked, left
}

func isWhole(slots []int) bool { return len(slots) > 0 && !slices.Contains(slots, anySlot) }

// grant returns the world with leases of the slots, or nil if what was seen of them does not
// allow it.
func (w world) grant(who int, t *terms, slots []int, seen []seenLease, ttl time.Duration, ends window) *world {
	w.leases = slices.Clip(w.leases)
	for i, slot := range slots {
		if i < len(seen) && seen[i].fence != 0 {
			if seen[i].slot != slot || seen[i].previous != w.fence {
				return nil
			}
			w.fence = seen[i].fence
		}
		w.leases = append(w.leases, held{who, slot, t, ttl, ends})
	}
	return &w
}

// grantPlace returns the world in which the waiter at i has what the walk gives it; nil if it
// gives it less than it needs, or if what was seen does not allow it.
func (w *world) grantPlace(i int, seen []seenLease, ttl time.Duration, ends window) (next *world, isDue bool) {
	given, _ := w.walk()
	if !isWhole(given[i]) {
		return nil, false
	}
	p, after := w.line[i], *w
	after.line = slices.Delete(slices.Clone(w.line), i, i+1)
	return after.grant(p.who, p.terms, given[i], seen, ttl, ends), true
}

// passTime returns the worlds that this one can have become by the time of the step. In
// each, time has ended what it must, and some of what it may, in any order. There is none if
// the world is later than the step.
func (w *world) passTime(s *step) []*world {
	if w.now > s.to {
		return nil
	}
	all := worlds{w}
	add := func(v *world, from time.Duration) {
		if v == nil {
			return
		}
		v.now = max(v.now, from)
		if !slices.ContainsFunc(all, v.equal) {
			all = append(all, v)
		}
	}
	for i := 0; i < len(all); i++ {
		v := all[i]
		for j, l := range v.leases {
			if l.ends.from <= s.to && l.ends.from < forever {
				add(v.endLease(j, "expired"), l.ends.from)
			}
		}
		for j, p := range v.line {
			if p.ends.from <= s.to && p.ends.from < forever {
				add(v.endPlace(j, "abandoned"), p.ends.from)
			}
			if p.gone != nil {
				granted, _ := v.grantPlace(j, p.gone.seen, p.gone.ttl, window{p.ends.from, forever})
				add(granted, 0)
			}
		}
		for j, p := range v.pauses {
			if p.ends.from <= s.to && p.ends.from < forever {
				after := *v
				after.pauses = slices.Delete(slices.Clone(v.pauses), j, j+1)
				add(&after, p.ends.from)
			}
		}
	}
	return slices.DeleteFunc(all, func(v *world) bool { return v.isOverdue(s.from) })
}

// isOverdue reports whether time must have ended something before t.
func (w *world) isOverdue(t time.Duration) bool {
	return slices.ContainsFunc(w.leases, func(l held) bool { return l.ends.to < t }) ||
		slices.ContainsFunc(w.line, func(p queued) bool { return p.ends.to < t }) ||
		slices.ContainsFunc(w.pauses, func(p paused) bool { return p.ends.to < t })
}

func (w *world) equal(v *world) bool {
	return w == v || w.fence == v.fence && w.sum == v.sum && w.now == v.now && slices.Equal(w.leases, v.leases) &&
		slices.Equal(w.line, v.line) && slices.Equal(w.pauses, v.pauses) && slices.Equal(w.worn, v.worn)
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
	for _, p := range w.pauses {
		maphash.WriteComparable(&h, p)
	}
	for _, s := range w.worn {
		maphash.WriteComparable(&h, s)
	}
	return h.Sum64()
}

// worlds are all possible states of one setting, each once.
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
			fmt.Fprintf(&b, "[%d %s %v] ", l.who, w.slots[l.slot], l.ends)
		}
		for _, i := range w.ranked() {
			fmt.Fprintf(&b, "%d ", w.line[i].who)
		}
		for _, p := range w.pauses {
			fmt.Fprintf(&b, "paused %q by %s %v ", p.target, p.by, p.ends)
		}
		b.WriteString("/ ")
	}
	return b.String()
}

// begin returns the worlds in which nothing is held or paused. What was used last before is
// not known.
func (g *setting) begin() worlds {
	all := worlds{{setting: g}}
	for e := range g.environments {
		from, to := g.slotsOf(e)
		var next worlds
		for _, order := range orders(from, to) {
			for _, w := range all {
				v := *w
				v.worn = slices.Concat(w.worn, order)
				next = append(next, &v)
			}
		}
		all = next
	}
	return all
}

// orders returns all orders of the numbers from from to before to.
func orders(from, to int) (all [][]int) {
	if from == to {
		return [][]int{nil}
	}
	for _, rest := range orders(from+1, to) {
		for i := range len(rest) + 1 {
			all = append(all, slices.Insert(slices.Clone(rest), i, from))
		}
	}
	return all
}

func porcupineModel(g *setting) porcupine.Model {
	return porcupine.Model{
		Init: func() any { return g.begin() },
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
