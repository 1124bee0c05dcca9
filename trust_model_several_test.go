package main

// A model of requests for several slots, written from the design: it knows only which
// slots are held, who waits for what, and the order of the waiters. After each step the
// rules must have the same leases and the same queues in each environment. What a request
// for one slot does besides is in trust_model_rules_test.go.

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// A townModel is the model of several environments.
type townModel struct {
	slots   map[string][]string          // of each environment
	ended   map[string][]string          // of each environment: the slots of ended leases, the last one last
	held    map[string]map[string]string // environment, slot: the id that has it, or the holder without an id
	order   []string                     // the slots that were granted, the last one last
	waiting []townWaiter                 // in the order of their ranks
	paused  map[string]bool              // "all", an environment, or an environment and a slot
	now     time.Time
	ids     map[string]request // all that were ever used, with their terms
	firsts  map[string]uint64  // of each id with a key: its first number
	turns   int
}

type townWaiter struct {
	id      string
	holder  string
	needs   []need
	rank    time.Time
	turn    int // its order among those of one rank
	present bool
	key     string
	entered time.Time
}

// names are the environments that may be needed.
var townNames = []string{"perf", "uat", "web"}

// available returns the slots of an environment that are not paused.
func (m *townModel) available(name string) (available []string) {
	for _, s := range m.slots[name] {
		if !m.paused["all"] && !m.paused[name] && !m.paused[name+" "+s] {
			available = append(available, s)
		}
	}
	return available
}

// lacks reports whether some of what is needed is paused or undeclared.
func (m *townModel) lacks(needs []need) bool {
	for _, name := range townNames {
		count := 0
		for _, n := range needs {
			switch {
			case n.environment != name:
			case n.slot != "" && !slices.Contains(m.available(name), n.slot):
				return true
			default:
				count++
			}
		}
		if count > len(m.available(name)) {
			return true
		}
	}
	return false
}

// free returns those slots of an environment that are free, in the order in which they are
// given out.
func (m *townModel) free(name string, slots []string) []string {
	var free []string
	for _, s := range slots {
		if m.held[name][s] == "" {
			free = append(free, s)
		}
	}
	last := func(s string) int { // -1 if it never had a lease
		for i, e := range slices.Backward(m.ended[name]) {
			if e == s {
				return i
			}
		}
		return -1
	}
	slices.SortStableFunc(free, func(a, b string) int { return cmp.Compare(last(a), last(b)) })
	return free[:min(len(free), max(0, len(m.slots[name])-len(m.held[name])))]
}

// canBeFulfilled reports whether all that a request needs exists.
func (m *townModel) canBeFulfilled(needs []need) bool {
	count := map[string]int{}
	for _, n := range needs {
		count[n.environment]++
		if count[n.environment] > len(m.slots[n.environment]) || n.slot != "" && !slices.Contains(m.slots[n.environment], n.slot) {
			return false
		}
	}
	return true
}

// walk gives the free slots of an environment to the waiters: those of each, and those left.
// A waiter of which something cannot come free gets none.
func (m *townModel) walk(name string) (given map[string][]string, left []string) {
	given, left = map[string][]string{}, m.free(name, m.available(name))
	for _, w := range m.waiting {
		if len(w.needs) > 1 && m.lacks(w.needs) {
			continue
		}
		var got []string
		for _, certain := range []bool{true, false} { // its certain slots first
			for _, n := range slices.Backward(w.needs) {
				i := slices.IndexFunc(left, func(s string) bool { return n.slot == "" || n.slot == s })
				if n.environment == name && (n.slot != "") == certain && i >= 0 {
					got = append(got, left[i])
					left = slices.Delete(left, i, i+1)
				}
			}
		}
		given[w.id] = got
	}
	return given, left
}

// offer grants waiters until none is connected and has all that it needs.
func (m *townModel) offer() {
	for again := true; again; {
		again = false
		for i, w := range m.waiting {
			all := map[string][]string{}
			count := 0
			for _, name := range townNames {
				given, _ := m.walk(name)
				all[name] = given[w.id]
				count += len(given[w.id])
			}
			if w.present && count == len(w.needs) {
				m.waiting = slices.Delete(m.waiting, i, i+1)
				m.grant(w.id, all)
				again = true
				break
			}
		}
	}
}

func (m *townModel) grant(id string, slots map[string][]string) {
	for name, list := range slots {
		for _, s := range list {
			m.held[name][s] = id
			m.order = append(slices.DeleteFunc(m.order, func(o string) bool { return o == s }), s)
		}
	}
}

// post is a request with a new id. It returns the error that the rules must return.
func (m *townModel) post(q request, needs []need, wait bool) error {
	for _, name := range townNames {
		there := slices.DeleteFunc(slices.Clone(needs), func(n need) bool { return n.environment != name })
		switch {
		case len(there) > 0 && len(m.slots[name]) == 0:
			return errUndeclared
		case !m.canBeFulfilled(there):
			return errSlots
		}
	}
	all := map[string][]string{}
	w := townWaiter{id: q.id, holder: q.holder, needs: needs, turn: m.turns + 1, present: true, key: q.supersede, entered: m.now}
	isOpen := true
	if q.supersede != "" {
		older, isNewest := m.newest(q, needs)
		if !isNewest {
			return errEnded
		}
		if older >= 0 {
			w.turn, w.entered, isOpen = m.waiting[older].turn, m.waiting[older].entered, false
			m.waiting = slices.Delete(m.waiting, older, older+1)
		}
	}
	isNew := w.turn > m.turns
	for _, name := range townNames {
		_, left := m.walk(name)
		for _, certain := range []bool{true, false} {
			for _, n := range slices.Backward(needs) {
				if n.environment != name || (n.slot != "") != certain {
					continue
				}
				i := slices.IndexFunc(left, func(s string) bool { return n.slot == "" || n.slot == s })
				if i < 0 {
					isOpen = false
					continue
				}
				all[name] = append(all[name], left[i])
				left = slices.Delete(left, i, i+1)
			}
		}
	}
	switch {
	case isOpen:
		m.grant(q.id, all)
		return nil
	case !wait:
		return errNoSlot
	}
	if isNew {
		m.turns++
	}
	w.rank = w.entered.Add(-10 * time.Minute * time.Duration(q.priority))
	i := slices.IndexFunc(m.waiting, func(x townWaiter) bool {
		return x.rank.After(w.rank) || x.rank.Equal(w.rank) && x.turn > w.turn
	})
	if i < 0 {
		i = len(m.waiting)
	}
	m.waiting = slices.Insert(m.waiting, i, w)
	m.offer()
	return nil
}

// newest returns the index of the waiter whose place a request with a key takes, -1 if there
// is none, and whether no newer request with the key waits or holds.
func (m *townModel) newest(q request, needs []need) (older int, ok bool) {
	older = slices.IndexFunc(m.waiting, func(w townWaiter) bool { return w.key == q.supersede && slices.Equal(w.needs, needs) })
	isNewer := func(id string) bool {
		p := m.ids[id]
		return q.first != 0 && p.supersede == q.supersede && p.slot == q.slot && slices.Equal(p.needs, q.needs) &&
			(len(p.needs) > 0 || m.of(id) == needs[0].environment) && m.firsts[id] > q.first
	}
	if older >= 0 && isNewer(m.waiting[older].id) {
		return -1, false
	}
	for _, slots := range m.held {
		for _, id := range slots {
			if isNewer(id) {
				return -1, false
			}
		}
	}
	return older, true
}

// of returns an environment that the id has, or waits for.
func (m *townModel) of(id string) string {
	for name, slots := range m.held {
		for _, other := range slots {
			if other == id {
				return name
			}
		}
	}
	for _, w := range m.waiting {
		if w.id == id {
			return w.needs[0].environment
		}
	}
	return ""
}

// end ends what the id has in an environment, or its waiting.
func (m *townModel) end(id, name string) {
	for _, s := range m.order {
		if m.held[name][s] == id {
			delete(m.held[name], s)
			if len(m.slots[name]) > 1 {
				m.ended[name] = append(m.ended[name], s)
			}
		}
	}
	m.waiting = slices.DeleteFunc(m.waiting, func(w townWaiter) bool {
		return w.id == id && slices.ContainsFunc(w.needs, func(n need) bool { return n.environment == name })
	})
	m.offer()
}

// take gives the slot of a lease to a request with a new id, and ends the places of its holder.
func (m *townModel) take(q request, name, slot string) {
	m.pass(name, slot, q.id)
	m.waiting = slices.DeleteFunc(m.waiting, func(w townWaiter) bool {
		return q.holder != "" && w.holder == q.holder && slices.ContainsFunc(w.needs, func(n need) bool { return n.environment == name })
	})
	m.offer()
}

// hand gives what somebody has in an environment to a holder without an id.
func (m *townModel) hand(who, name, to string) {
	for _, s := range slices.Clone(m.order) {
		if m.held[name][s] == who {
			m.pass(name, s, to)
		}
	}
}

// pass ends a lease and grants its slot to somebody else.
func (m *townModel) pass(name, slot, who string) {
	if len(m.slots[name]) > 1 {
		m.ended[name] = append(m.ended[name], slot)
	}
	m.grant(who, map[string][]string{name: {slot}})
}

func (m *townModel) String() string {
	var b strings.Builder
	for _, name := range townNames {
		fmt.Fprintf(&b, "%s %q held %v free %q waiting", name, m.slots[name], m.held[name], m.free(name, m.slots[name]))
		for _, w := range m.waiting {
			if slices.ContainsFunc(w.needs, func(n need) bool { return n.environment == name }) {
				fmt.Fprintf(&b, " %s(%v)", w.id, w.present)
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}

// A town applies the same steps to the rules and to the model.
type town struct {
	*bench
	m    townModel
	next int // the next id
}

func (d *town) String() string {
	var b strings.Builder
	for _, name := range townNames {
		e, held := d.find(name), map[string]string{}
		for _, l := range e.leases {
			held[l.slot] = cmp.Or(l.id, l.holder)
		}
		fmt.Fprintf(&b, "%s %q held %v free %q waiting", name, e.slots, held, e.freeSlots(e.slots))
		for _, w := range e.queue {
			fmt.Fprintf(&b, " %s(%v)", w.id, w.connected.Load())
		}
		b.WriteString("\n")
	}
	return b.String()
}

// apply applies a rule and serves what it has touched, as the keeper does. Half of the times
// it first does so in a batch that is undone, after which nothing may have changed.
func (d *town) apply(t *rapid.T, rule func(r *batch)) {
	all := func(r *batch) {
		rule(r)
		for i := 0; i < len(r.touched); i++ {
			r.touched[i].serveQueue(r)
		}
	}
	if rapid.Bool().Draw(t, "in vain first") {
		before, connected := d.String(), map[*waiter]bool{}
		for _, name := range townNames {
			for _, w := range d.find(name).queue {
				connected[w] = w.connected.Load()
			}
		}
		r := d.batch()
		all(r)
		r.undo()
		for w, c := range connected {
			w.connected.Store(c)
		}
		if after := d.String(); after != before {
			t.Fatalf("before a batch that was undone\n%s\nafter\n%s", before, after)
		}
	}
	d.step(all)
}

func (d *town) someNeeds(t *rapid.T) []need {
	var needs []need
	for range rapid.IntRange(1, 4).Draw(t, "needs") {
		n := need{environment: rapid.SampledFrom(townNames).Draw(t, "environment")}
		if rapid.IntRange(0, 3).Draw(t, "certain") == 0 {
			n.slot = rapid.SampledFrom([]string{"perf-1", "perf-2", "uat", "blue", "green"}).Draw(t, "slot")
		}
		needs = append(needs, n)
	}
	slices.SortFunc(needs, func(a, b need) int {
		return cmp.Or(cmp.Compare(a.environment, b.environment), cmp.Compare(a.slot, b.slot))
	})
	for i := 1; i < len(needs); i++ {
		if needs[i] == needs[i-1] && needs[i].slot != "" {
			needs[i].slot = ""
		}
	}
	slices.SortFunc(needs, func(a, b need) int {
		return cmp.Or(cmp.Compare(a.environment, b.environment), cmp.Compare(a.slot, b.slot))
	})
	return needs
}

func (d *town) postStep(t *rapid.T) {
	needs, wait := d.someNeeds(t), rapid.IntRange(0, 3).Draw(t, "wait") > 0
	q := request{id: fmt.Sprint("id", d.next), holder: rapid.SampledFrom([]string{"", "ann", "bob"}).Draw(t, "holder"),
		priority: rapid.SampledFrom([]int{0, 0, 0, 3, -2}).Draw(t, "priority")}
	d.next++
	if len(needs) == 1 {
		q.slot = needs[0].slot
	} else {
		q.needs = needs
	}
	d.someKey(t, &q, &needs, &wait)
	var r result
	d.apply(t, func(b *batch) { r = d.find(needs[0].environment).request(b, q, wait, 0) })
	if want := d.m.post(q, needs, wait); !errors.Is(r.err, want) {
		t.Fatalf("%v: error %v, the model's %v", q, r.err, want)
	}
	d.m.ids[q.id] = q
	if q.supersede != "" && r.err == nil {
		d.noteFirst(t, q, needs[0].environment)
	}
	if len(r.own) > 0 {
		again := d.find(needs[0].environment)
		var second result
		d.step(func(b *batch) { second = again.request(b, q, wait, 0) })
		if !slices.Equal(second.own, r.own) {
			t.Fatalf("%v repeated: %v, first %v", q, second, r)
		}
	}
}

// someKey makes every second request one with a key; most of them with the needs of an earlier
// one, and some with an earlier first number, as one that begins anew.
func (d *town) someKey(t *rapid.T, q *request, needs *[]need, wait *bool) {
	if rapid.Bool().Draw(t, "without a key") {
		return
	}
	q.supersede, *wait = rapid.SampledFrom([]string{"main", "main", "other"}).Draw(t, "key"), true
	if len(d.m.waiting) > 0 && rapid.IntRange(0, 3).Draw(t, "same needs") > 0 {
		other := rapid.SampledFrom(d.m.waiting).Draw(t, "as")
		q.slot, q.needs, *needs = d.m.ids[other.id].slot, d.m.ids[other.id].needs, other.needs
	}
	if len(d.m.firsts) > 0 && rapid.IntRange(0, 3).Draw(t, "anew") == 0 {
		q.first = rapid.SampledFrom(slices.Sorted(maps.Values(d.m.firsts))).Draw(t, "first")
	}
}

// noteFirst copies the first number of a request from the rules, which is new unless the
// request began with one. All its leases and waiters have the same.
func (d *town) noteFirst(t *rapid.T, q request, name string) {
	want := q.first
	for _, n := range townNames {
		for _, l := range d.find(n).matchingLeases(selector{id: q.id}) {
			if want == 0 {
				want = l.first
			}
			if l.first != want || l.first > l.fence {
				t.Fatalf("a lease of %s has the first number %d, want %d", q.id, l.first, want)
			}
		}
	}
	if w := d.find(name).waitersByID[q.id]; w != nil {
		if q.first == 0 {
			want = w.number
		}
		if w.first != want {
			t.Fatalf("the waiter %s has the first number %d, want %d", q.id, w.first, want)
		}
	}
	for id, first := range d.m.firsts {
		if q.first == 0 && first >= want {
			t.Fatalf("%s has the first number %d, and %s before it %d", q.id, want, id, first)
		}
	}
	d.m.firsts[q.id] = want
}

// removeStep removes a waiter by its number, or one that is no more, which ends nothing.
func (d *town) removeStep(t *rapid.T) {
	name := rapid.SampledFrom(townNames).Draw(t, "environment")
	number := d.last + 1
	if queue := d.find(name).queue; len(queue) > 0 && rapid.IntRange(0, 3).Draw(t, "waits") > 0 {
		number = rapid.SampledFrom(queue).Draw(t, "who").number
	} else if len(d.m.firsts) > 0 {
		number = rapid.SampledFrom(slices.Sorted(maps.Values(d.m.firsts))).Draw(t, "number")
	}
	id := ""
	for _, w := range d.find(name).queue {
		if w.number == number {
			id = w.id
		}
	}
	var r result
	d.apply(t, func(b *batch) { r = d.find(name).release(b, releaseRequest{waiter: number, force: true}) })
	if (id == "") != errors.Is(r.err, errNotWaiting) {
		t.Fatalf("removing %d, of %q, on %s: %v", number, id, name, r.err)
	}
	if id != "" {
		d.m.waiting = slices.DeleteFunc(d.m.waiting, func(w townWaiter) bool { return w.id == id })
		d.m.offer()
	}
}

// someID draws an id that has leases or waits, or the holder of a lease without an id, and
// one of its environments.
func (d *town) someID(t *rapid.T) (id, environment string) {
	var all []string
	for _, name := range townNames {
		for _, l := range d.find(name).leases {
			all = append(all, cmp.Or(l.id, l.holder)+" "+name)
		}
		for _, w := range d.find(name).queue {
			all = append(all, w.id+" "+name)
		}
	}
	if len(all) == 0 {
		t.Skip("nobody is there")
	}
	id, environment, _ = strings.Cut(rapid.SampledFrom(all).Draw(t, "id"), " ")
	return id, environment
}

func (d *town) deleteStep(t *rapid.T) {
	id, name := d.someID(t)
	which := d.selectorOf(t, id, name)
	var r result
	d.apply(t, func(b *batch) {
		r = d.find(name).release(b, releaseRequest{selector: which})
	})
	d.m.end(id, name)
	if r.err != nil {
		t.Fatalf("releasing %s on %s: %v", id, name, r.err)
	}
}

// selectorOf selects the leases of an id, or of a holder to whom one was handed over.
func (d *town) selectorOf(t *rapid.T, who, name string) selector {
	if len(d.find(name).matchingLeases(selector{holder: who})) > 1 {
		t.Skip("the slot must be named")
	}
	if strings.HasPrefix(who, "to") {
		return selector{holder: who}
	}
	return selector{id: who}
}

func (d *town) takeOverStep(t *rapid.T) {
	var all []*lease
	for _, name := range townNames {
		all = append(all, d.find(name).leases...)
	}
	if len(all) == 0 {
		t.Skip("nothing is held")
	}
	l := rapid.SampledFrom(all).Draw(t, "lease")
	q := request{id: fmt.Sprint("id", d.next), holder: rapid.SampledFrom([]string{"", "ann", "bob"}).Draw(t, "holder")}
	d.next++
	d.m.ids[q.id] = q
	var r result
	d.apply(t, func(b *batch) { r = d.find(l.environment).take(b, q, takeover{fence: l.fence}, 0) })
	if !slices.Contains(d.m.available(l.environment), l.slot) {
		if !errors.Is(r.err, errPaused) || r.pause == nil {
			t.Fatalf("taking over the paused %s of %s: %+v", l.slot, l.environment, r)
		}
		return
	}
	d.m.take(q, l.environment, l.slot)
	if r.err != nil || only(r.own).slot != l.slot {
		t.Fatalf("taking over %s of %s: %+v", l.slot, l.environment, r)
	}
}

func (d *town) handOverStep(t *rapid.T) {
	who, name := d.someID(t)
	q := releaseRequest{selector: d.selectorOf(t, who, name), to: fmt.Sprint("to", d.next)}
	d.next++
	var r result
	d.apply(t, func(b *batch) { r = d.find(name).handOver(b, q) })
	holds := slices.Contains(slices.Collect(maps.Values(d.m.held[name])), who)
	d.m.hand(who, name, q.to)
	if (r.err == nil) != holds {
		t.Fatalf("handing over what %s has of %s: %+v", who, name, r)
	}
}

// pollStep repeats a request that waits: it is connected again.
func (d *town) pollStep(t *rapid.T) {
	id, name := d.someID(t)
	i := slices.IndexFunc(d.m.waiting, func(w townWaiter) bool { return w.id == id })
	if i < 0 {
		t.Skip("it does not wait")
	}
	d.apply(t, func(b *batch) { d.find(name).request(b, d.m.ids[id], true, 0) })
	d.m.waiting[i].present = true
	d.m.offer()
}

func (d *town) goAwayStep(t *rapid.T) {
	id, name := d.someID(t)
	i := slices.IndexFunc(d.m.waiting, func(w townWaiter) bool { return w.id == id })
	if i < 0 {
		t.Skip("it does not wait")
	}
	d.goAway(d.find(name).waitersByID[id])
	d.m.waiting[i].present = false
}

// abandonStep ends the waiters that are disconnected, and those of undeclared environments.
func (d *town) abandonStep(t *rapid.T) {
	d.now = d.now.Add(maxAbsence)
	d.m.now = d.now
	d.apply(t, func(b *batch) {
		for _, name := range townNames {
			d.find(name).expire(b)
		}
	})
	isOver := func(w townWaiter) bool {
		return !w.present || slices.ContainsFunc(w.needs, func(n need) bool { return len(d.m.slots[n.environment]) == 0 })
	}
	d.m.waiting = slices.DeleteFunc(d.m.waiting, isOver)
	d.m.offer()
}

func (d *town) declareStep(t *rapid.T) {
	if rapid.IntRange(0, 3).Draw(t, "really") > 0 {
		t.Skip("seldom")
	}
	all := map[string][][]string{"perf": {nil, {"perf-1"}, {"perf-1", "perf-2"}}, "uat": {nil, {"uat"}},
		"web": {{"blue"}, {"blue", "green"}, {"green"}}}
	name := rapid.SampledFrom(townNames).Draw(t, "environment")
	for _, s := range d.m.slots[name] {
		if d.m.held[name][s] != "" {
			t.Skip("the model knows no leases of undeclared slots")
		}
	}
	slots := rapid.SampledFrom(all[name]).Draw(t, "slots")
	d.find(name).slots = slots
	d.m.slots[name] = slots
	d.step(func(b *batch) {
		for other := range d.find(name).queueNeeds() {
			b.touched = append(b.touched, d.find(other))
		}
		for i := 0; i < len(b.touched); i++ {
			b.touched[i].serveQueue(b)
		}
	})
	d.m.offer()
}

// pauseStep pauses or resumes a slot, an environment, or all.
func (d *town) pauseStep(t *rapid.T) {
	what := rapid.SampledFrom([]string{"all", "perf", "uat", "web", "web blue", "web green", "perf perf-1", "perf perf-2"}).Draw(t, "what")
	name, slot, _ := strings.Cut(what, " ")
	if name == "all" {
		name = everywhere
	}
	q := pauseRequest{slot: slot, resume: d.m.paused[what]}
	var r result
	d.apply(t, func(b *batch) { r = d.find(name).pause(b, q) })
	switch isDeclared := name == everywhere || slices.Contains(d.m.slots[name], slot) || slot == "" && d.m.slots[name] != nil; {
	case q.resume || isDeclared:
		d.m.paused[what] = !q.resume
	default:
		if r.err == nil {
			t.Fatalf("%s is paused, but not declared", what)
		}
	}
	d.m.offer()
}

func (d *town) check(t *rapid.T) {
	if got, want := d.String(), d.m.String(); got != want {
		t.Fatalf("the state is\n%s, the model's\n%s", got, want)
	}
	for _, name := range townNames {
		for _, slot := range append([]string{""}, d.m.slots[name]...) {
			_, left := d.m.walk(name)
			want := len(left) > 0 && (slot == "" || slices.Contains(left, slot))
			if got := d.find(name).isOpen(slot, d.find); got != want {
				t.Fatalf("%s %q is open: %v, the model says %v", name, slot, got, want)
			}
		}
		given, _ := d.m.walk(name)
		assigned, _ := d.find(name).assign(d.find)
		for _, a := range assigned {
			if !slices.Equal(given[a.waiter.id], a.slots) {
				t.Fatalf("%s: %v are kept for %s, the model says %v", name, a.slots, a.waiter.id, given[a.waiter.id])
			}
			delete(given, a.waiter.id)
		}
		for id, slots := range given {
			if len(slots) > 0 {
				t.Fatalf("%s: nothing is kept for %s, the model says %v", name, id, slots)
			}
		}
	}
}

func TestRequestsForSeveralSlotsAgreeWithTheModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		d := &town{bench: newBench(t, "uat")}
		d.others["perf"] = newEnvironment("perf", []string{"perf-1", "perf-2"})
		d.others["web"] = newEnvironment("web", []string{"blue", "green"})
		d.m = townModel{now: d.now, ids: map[string]request{}, firsts: map[string]uint64{}, paused: map[string]bool{}, ended: map[string][]string{},
			slots: map[string][]string{},
			held:  map[string]map[string]string{}}
		for _, name := range townNames {
			d.m.slots[name], d.m.held[name] = d.find(name).slots, map[string]string{}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"":        d.check,
			"post":    d.postStep,
			"post 2":  d.postStep,
			"post 3":  d.postStep,
			"delete":  d.deleteStep,
			"poll":    d.pollStep,
			"go away": d.goAwayStep,
			"remove":  d.removeStep,
			"abandon": d.abandonStep,
			"pause":   d.pauseStep,
			"pause 2": d.pauseStep,
			"declare": d.declareStep,
			"take":    d.takeOverStep,
			"hand":    d.handOverStep,
		})
	})
}
