package main

// The model of the rules (trust_model_rules_test.go) against keeper and store: a real file,
// the clock of a bubble, connections that wait and break, commits that fail, and crashes
// with a new start. The steps of a script are between two scans of the keeper, so that the
// keeper and the model have the same order of events.

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// A modelCall is a call that waits on a connection of its own.
type modelCall struct {
	id     string
	until  time.Time // the end of its wait
	leave  context.CancelFunc
	answer chan reply
	want   *modelAnswer // the reply that it must have got; nil if none yet
	gone   bool
}

// A play applies the same steps to a keeper and to the model, and compares them.
type play struct {
	t        *rapid.T
	k        *keeper
	m        rulebook
	path     string
	copies   int
	slots    []string
	start    time.Time // of the keeper; its scans are counted from here
	calls    []*modelCall
	fences   []uint64
	connects int // how many calls have waited so far
}

// fastFolder returns a temporary folder in memory, where a sync takes microseconds, or on the
// disk if there is no /dev/shm. The tests that use it do not cut the power.
func fastFolder(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "call-me-test")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func (p *play) open() {
	s, err := openStore(p.path)
	if err != nil {
		p.t.Fatal(err)
	}
	if p.k, err = newKeeper(s, declaring(p.slots), testLimits, keeperLog{newMetrics(), slog.New(slog.DiscardHandler)}); err != nil {
		p.t.Fatal(err)
	}
	p.start = time.Now()
	p.m.now = p.start
	p.readEnds()
	time.Sleep(scanPeriod / 2)
	p.m.now = time.Now()
}

// readEnds sets the slots of the ended leases, which a start and a new declaration read from
// the history.
func (p *play) readEnds() {
	p.m.ended = nil
	for _, e := range p.m.ends {
		if e.slot != "" && len(p.slots) > 1 {
			p.m.ended = append(p.m.ended, e.slot)
		}
	}
}

// declaring returns a declaration that gives each environment the slots.
func declaring(slots []string) func(string) []string { return func(string) []string { return slots } }

func (p *play) close() {
	p.k.close()
	p.k.store.close()
}

// settle waits until all goroutines are blocked, and compares the state and the replies.
func (p *play) settle() {
	synctest.Wait()
	p.m.log = nil
	v, err := p.k.view("uat")
	if err != nil {
		p.t.Fatal(err)
	}
	before := p.m.largest()
	for i := range p.m.leases {
		l := &p.m.leases[i]
		if l.fence != 0 {
			continue
		}
		for _, real := range v.leases {
			if real.slot == l.slot {
				l.fence = real.fence
			}
		}
		if len(p.fences) > 0 && l.fence <= p.fences[len(p.fences)-1] {
			p.t.Fatalf("fence %d after %v", l.fence, p.fences)
		}
		p.fences = append(p.fences, l.fence)
		for _, real := range v.leases {
			if real.fence == l.fence {
				if err := p.m.numberLease(l, real.first, before); err != nil {
					p.t.Fatal(err)
				}
			}
		}
	}
	for i := range p.m.line {
		if w := &p.m.line[i]; w.number == 0 && i < len(v.queue) {
			if err := p.m.numberPlace(w, v.queue[i].number, before); err != nil {
				p.t.Fatal(err)
			}
		}
	}
	if got, want := p.view(v), p.m.String(); got != want {
		p.t.Fatalf("the state is\n%s, the model's\n%s", got, want)
	}
	if open, _ := p.k.isOpen("uat"); open != p.m.isOpen() {
		p.t.Fatalf("a GET says %v", open)
	}
	p.heard()
}

// view returns the state that readers see, in the form of rulebook.String.
func (p *play) view(v *view) string {
	var b strings.Builder
	for _, l := range v.leases {
		fmt.Fprintf(&b, "lease %v slot %q fence %d since %v waited %v ttl %v until %v\n", l.request, l.slot, l.fence, p.m.ago(l.since), l.waited, l.ttl, p.m.ago(l.deadline))
	}
	for i, place := range v.queue {
		fmt.Fprintf(&b, "place %d number %d %v since %v present %v\n", i+1, place.number, place.request, p.m.ago(place.since), place.connected.Load())
	}
	e := p.k.find("uat")
	fmt.Fprintf(&b, "free %q open %v %s\n", e.freeSlots(e.slots), e.isOpen("", p.k.find), p.m.pausesOf(v.pauses))
	return b.String()
}

// heard compares the replies that the waiting calls have got.
func (p *play) heard() {
	for _, c := range p.calls {
		select {
		case a := <-c.answer:
			switch {
			case c.gone: // the caller has left; its reply does not matter
			case c.want == nil:
				p.t.Fatalf("%q was told %v", c.id, a.err)
			default:
				p.same(a, *c.want)
			}
			c.gone = true
		default:
			if c.want != nil && !c.gone {
				p.t.Fatalf("%q was not told %v", c.id, *c.want)
			}
		}
	}
	p.calls = slices.DeleteFunc(p.calls, func(c *modelCall) bool { return c.gone })
}

func (p *play) same(a reply, want modelAnswer) {
	got := modelAnswer{err: a.err, line: a.position}
	if a.err == nil && len(a.own) > 0 {
		got.slot, got.id = a.own[0].slot, a.own[0].id
	}
	if a.ended != nil {
		got.ended = a.ended.kind.String()
	}
	if errors.Is(got.err, want.err) {
		got.err = want.err // the same, without the slots that it names
	}
	if got != want {
		p.t.Fatalf("answered %v\nthe model says %v", got, want)
	}
}

// rule applies a rule to the model, and sets the expected replies of the calls whose waiters
// have left the queue.
func (p *play) rule(f func()) {
	before := slices.Clone(p.m.line)
	f()
	for _, place := range before {
		if slices.ContainsFunc(p.m.line, func(q modelPlace) bool { return q.since.Equal(place.since) && q.request.equal(place.request) }) {
			continue
		}
		want := modelAnswer{err: errEnded}
		if p.m.slots == nil {
			want.err = errWithdrawn
		}
		granted := -1 // the newest lease that matches, and that settle has not seen: several calls may have arrived at this moment
		for i, l := range p.m.leases {
			if l.fence == 0 && l.request.equal(place.request) && l.since.Equal(p.m.now) && l.waited == p.m.now.Sub(place.since) {
				granted = i
			}
		}
		if i := granted; i >= 0 {
			want = modelAnswer{slot: p.m.leases[i].slot, id: place.id}
		} else if e, ok := p.m.endOfID(place.id); ok && place.id != "" && p.m.slots != nil {
			want.ended = e.how
		} else if len(p.m.ends) > 0 && place.id == "" && p.m.slots != nil {
			if e := p.m.ends[len(p.m.ends)-1]; e.how == "removed" && e.id == "" && e.at.Equal(p.m.now) {
				want.ended = e.how // others leave by themselves, and get no reply
			}
		}
		for _, c := range p.calls {
			if c.id == place.id && c.want == nil {
				c.want = &want
			}
		}
	}
}

// waits returns the calls of an id that wait, the newest last.
func (p *play) waits(id string) (all []*modelCall) {
	for _, c := range p.calls {
		if c.id == id && c.want == nil && !c.gone {
			all = append(all, c)
		}
	}
	return all
}

// hangUp applies the end of a waiting call's connection to the model. Only the newest
// connection of an id counts. A waiter without id leaves the queue.
func (p *play) hangUp(c *modelCall) {
	i := p.m.inLine(c.id)
	if c.id == "" {
		i = slices.IndexFunc(p.m.line, func(q modelPlace) bool { return q.id == "" })
	}
	all := p.waits(c.id)
	switch {
	case i < 0:
	case c.id == "":
		p.m.leave(i, "left", "")
		p.m.offer()
	case all[len(all)-1] == c:
		p.m.line[i].present, p.m.line[i].absent = false, p.m.now
	}
}

// pass lets the time pass, and applies each scan and each end of a wait to the model.
func (p *play) pass(d time.Duration) {
	end := p.m.now.Add(d)
	for {
		next := p.start.Add((p.m.now.Sub(p.start)/scanPeriod + 1) * scanPeriod)
		for _, c := range p.calls {
			if c.want == nil && !c.until.After(end) && c.until.Before(next) {
				next = c.until
			}
		}
		if next.After(end) {
			break
		}
		p.m.now = next
		if next.Sub(p.start)%scanPeriod == 0 {
			p.rule(func() { p.m.endPauses(true); p.m.scan(); p.m.offer() })
			continue
		}
		for _, c := range slices.Clone(p.calls) {
			if c.want == nil && c.until.Equal(next) {
				position := p.m.inLine(c.id) + 1
				p.hangUp(c)
				c.want = &modelAnswer{err: errNoSlot, line: position}
				c.until = time.Time{}
			}
		}
	}
	p.m.now = end
	time.Sleep(time.Until(end))
	p.settle()
}

// connect requests a slot with wait, on another goroutine.
func (p *play) connect(q request, wait, claim time.Duration) *modelCall {
	ctx, cancel := context.WithCancel(context.Background())
	c := &modelCall{id: q.id, leave: cancel, answer: make(chan reply, 1)}
	go func() {
		c.answer <- p.k.requestSlot(ctx, &call{kind: callRequest, environment: "uat", request: q, wait: true, claim: claim}, wait)
	}()
	return c
}

// stored reports whether a rule would change what is stored. It does not change the model.
func (p *play) stored(f func(m *rulebook)) bool {
	m := p.m
	m.leases, m.line, m.ends, m.log = slices.Clone(m.leases), slices.Clone(m.line), slices.Clone(m.ends), nil
	m.pauses = slices.Clone(m.pauses)
	ids := func(m rulebook) (all string) {
		for _, l := range m.leases {
			all += fmt.Sprint(l.request, l.slot, l.ttl, l.since)
		}
		for _, q := range m.line {
			if q.id != "" {
				all += fmt.Sprint(q.request, q.since)
			}
		}
		return all
	}
	before := ids(m)
	f(&m)
	return len(m.log) > 0 || ids(m) != before
}

// breakDisk closes bbolt in one of eight cases, if the rule would be stored. The next commit
// then fails, and the keeper rewrites the file at once. It reports whether it did so.
func (p *play) breakDisk(t *rapid.T, f func(m *rulebook)) bool {
	if rapid.IntRange(0, 7).Draw(t, "disk") > 0 || !p.stored(f) {
		return false
	}
	synctest.Wait()
	p.k.store.(*store).db.Close()
	return true
}

// recovered applies a failed commit to the model: the disconnected waiters have ten seconds
// from now on.
func (p *play) recovered() {
	for i := range p.m.line {
		if !p.m.line[i].present {
			p.m.line[i].absent = p.m.now
		}
	}
}

func (p *play) someRequest(t *rapid.T) request { return (&duel{m: p.m}).someRequest(t) }

func (p *play) waitStep(t *rapid.T) {
	q, claim := p.someRequest(t), someClaim.Draw(t, "claim")
	wait := rapid.SampledFrom([]time.Duration{time.Second, 25 * time.Second, time.Hour}).Draw(t, "wait")
	wait += time.Duration(p.connects%100) * time.Millisecond // no two waits end at the same time
	p.connects++
	if q.id == "" && len(p.waits("")) > 0 {
		t.Skip("one without an id is enough: they cannot be told apart")
	}
	if p.m.inLine(q.id) < 0 && p.breakDisk(t, func(m *rulebook) { m.post(q, true, claim) }) {
		c := p.connect(q, wait, claim)
		c.want = &modelAnswer{err: errUnknown}
		p.calls = append(p.calls, c)
		p.recovered()
		p.settle()
		return
	}
	c := p.connect(q, wait, claim)
	var want modelAnswer
	p.rule(func() { want = p.m.post(q, true, claim) })
	if want.line == 0 {
		c.want = &want
	}
	c.until = p.m.now.Add(wait)
	p.calls = append(p.calls, c)
	p.settle()
}

func (p *play) takeStep(t *rapid.T) {
	q, claim := p.someRequest(t), someClaim.Draw(t, "claim")
	if q.supersede != "" {
		t.Skip("the server refuses a key without wait")
	}
	ask := func() reply {
		return p.k.requestSlot(context.Background(), &call{kind: callRequest, environment: "uat", request: q, claim: claim}, 0)
	}
	if p.m.inLine(q.id) < 0 && p.breakDisk(t, func(m *rulebook) { m.post(q, false, claim) }) {
		p.same(ask(), modelAnswer{err: errUnknown})
		p.recovered()
		p.settle()
		return
	}
	a := ask()
	before := p.m.inLine(q.id)
	var was modelPlace
	if before >= 0 {
		was = p.m.line[before]
	}
	var want modelAnswer
	p.rule(func() { want = p.m.post(q, false, claim) })
	if i := p.m.inLine(q.id); i >= 0 && want.err == nil { // without wait it does not connect the waiter
		want.err = errNoSlot
		if p.m.line[i].present = was.present; !was.present {
			p.m.line[i].absent = p.m.now
		}
	}
	p.same(a, want)
	p.settle()
}

func (p *play) putStep(t *rapid.T) {
	q := renewal{selector: selector{id: someID.Draw(t, "id"), holder: someHolder.Draw(t, "holder"), slot: someSlot.Draw(t, "slot")}, at: time.Now()}
	if q.hasTTL = rapid.Bool().Draw(t, "with ttl"); q.hasTTL {
		q.ttl = someTTL.Draw(t, "ttl")
	}
	ask := func() reply { return p.k.ask(&call{kind: callRenew, environment: "uat", renewal: q}) }
	if p.breakDisk(t, func(m *rulebook) { m.put(q) }) {
		p.same(ask(), modelAnswer{err: errUnknown})
		p.recovered()
	} else {
		a := ask()
		p.same(a, p.m.put(q))
	}
	p.settle()
}

func (p *play) deleteStep(t *rapid.T) {
	q := (&duel{m: p.m, fences: p.fences}).someDeparture(t)
	rule := func(m *rulebook) (a modelAnswer) {
		a = m.delete(q)
		m.offer()
		return a
	}
	ask := func() reply { return p.k.ask(&call{kind: callRelease, environment: "uat", release: q}) }
	if p.breakDisk(t, func(m *rulebook) { rule(m) }) {
		p.same(ask(), modelAnswer{err: errUnknown})
		p.recovered()
	} else {
		a := ask()
		var want modelAnswer
		p.rule(func() { want = rule(&p.m) })
		p.same(a, want)
	}
	p.settle()
}

func (p *play) takeOverStep(t *rapid.T) {
	d := &duel{m: p.m}
	q, claim, fence := d.someRequest(t), someClaim.Draw(t, "claim"), d.someTakeover(t)
	if q.id == "" {
		t.Skip("it needs an id")
	}
	ask := func() reply {
		return p.k.ask(&call{kind: callRequest, environment: "uat", request: q, claim: claim, take: takeover{fence, "10.0.0.9"}})
	}
	if p.breakDisk(t, func(m *rulebook) { m.take(q, fence, claim) }) {
		p.same(ask(), modelAnswer{err: errUnknown})
		p.recovered()
	} else {
		a := ask()
		var want modelAnswer
		p.rule(func() { want = p.m.take(q, fence, claim) })
		p.same(a, want)
	}
	p.settle()
}

func (p *play) handOverStep(t *rapid.T) {
	q := (&duel{m: p.m, fences: p.fences}).someHandOver(t)
	ask := func() reply { return p.k.ask(&call{kind: callRelease, environment: "uat", release: q}) }
	if p.breakDisk(t, func(m *rulebook) { m.hand(q) }) {
		p.same(ask(), modelAnswer{err: errUnknown})
		p.recovered()
	} else {
		a := ask()
		var want modelAnswer
		p.rule(func() { want = p.m.hand(q) })
		p.same(a, want)
	}
	p.settle()
}

func (p *play) pauseStep(t *rapid.T) {
	c := someCommand(t)
	if c.resume && len(p.m.pauses) == 0 {
		c.resume = false
	}
	name, q := c.call()
	ask := func() reply { return p.k.ask(&call{kind: callPause, environment: name, pause: q}) }
	if p.breakDisk(t, func(m *rulebook) { m.pause(c) }) {
		p.same(ask(), modelAnswer{err: errUnknown})
		p.recovered()
	} else {
		a := ask()
		var want modelAnswer
		p.rule(func() {
			want, _ = p.m.pause(c)
			p.m.offer()
		})
		p.same(a, want)
	}
	p.settle()
}

func (p *play) passStep(t *rapid.T) {
	d := rapid.SampledFrom([]time.Duration{1, 1, 1, 2, 4, 4, 20, 20, 39, 40, 40, 41, 120, 240, 241, 3 * 3600}).Draw(t, "quarters") * scanPeriod
	p.pass(d)
}

func (p *play) hangUpStep(t *rapid.T) {
	all := slices.DeleteFunc(slices.Clone(p.calls), func(c *modelCall) bool { return c.want != nil })
	if len(all) == 0 {
		t.Skip("nobody waits")
	}
	c := rapid.SampledFrom(all).Draw(t, "who")
	p.rule(func() {
		p.hangUp(c)
		c.want, c.gone = &modelAnswer{}, true
	})
	c.leave()
	synctest.Wait()
	<-c.answer
	p.settle()
	p.calls = slices.DeleteFunc(p.calls, func(x *modelCall) bool { return x == c })
}

// declareStep changes the declaration while the keeper runs. In one case of two, nothing is
// declared at first: all waiters are removed, the leases stand.
func (p *play) declareStep(t *rapid.T) {
	if rapid.IntRange(0, 2).Draw(t, "really") > 0 {
		t.Skip("seldom")
	}
	withdraws, slots := rapid.Bool().Draw(t, "withdraw"), someDeclared.Draw(t, "slots")
	declare := func(slots []string) {
		p.rule(func() {
			p.slots, p.m.slots = slots, slots
			p.readEnds()
			p.m.endPauses(true)
			p.m.scan()
			p.m.offer()
		})
		p.k.declare(declaring(slots))
	}
	if withdraws {
		declare(nil)
		if len(p.m.leases) > 0 { // else the environment is unknown now
			p.settle()
		}
		synctest.Wait()
		p.heard()
	}
	declare(slots)
	p.settle()
}

// crashStep copies the file as kill -9 would leave it, stops the keeper, and starts another
// one on the copy.
func (p *play) crashStep(t *rapid.T) {
	if rapid.IntRange(0, 2).Draw(t, "really") > 0 {
		t.Skip("seldom")
	}
	// All values are drawn first: rapid may abandon a step where it draws.
	down := rapid.SampledFrom([]time.Duration{0, time.Second, 3 * time.Hour}).Draw(t, "down for")
	slots := p.slots
	if rapid.IntRange(0, 3).Draw(t, "declare") == 0 {
		slots = someDeclared.Draw(t, "slots")
	}
	synctest.Wait()
	file, err := os.ReadFile(p.path)
	if err != nil {
		t.Fatal(err)
	}
	p.close()
	synctest.Wait()
	for _, c := range p.calls {
		if a := <-c.answer; !errors.Is(a.err, errStopping) {
			t.Fatalf("%q was told %v by a server that stops", c.id, a.err)
		}
	}
	p.calls = nil
	p.copies++
	p.path = fmt.Sprintf("%s-%d", p.path[:strings.LastIndex(p.path, "-")], p.copies)
	if err := os.WriteFile(p.path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	time.Sleep(down)
	p.slots = slots
	begin := time.Now()
	p.m.slots = p.slots
	for i := range p.m.leases {
		l := &p.m.leases[i]
		l.claim, l.until = 0, time.Time{}
		if l.ttl > 0 {
			l.until = begin.Add(l.ttl)
		}
		if !l.last.IsZero() && l.last.Before(begin) {
			l.last = begin
		}
		if l.ttl == 0 {
			l.until = l.last
		}
	}
	for i, old := range p.m.pauses {
		if old.length > 0 && old.until.After(begin.Add(old.length)) {
			p.m.pauses[i].until = begin.Add(old.length)
		}
	}
	p.m.line = slices.DeleteFunc(p.m.line, func(q modelPlace) bool { return q.id == "" })
	for i := range p.m.line {
		p.m.line[i].present, p.m.line[i].absent = false, begin
	}
	p.open()
	p.settle()
}

// keeperScript returns a function that runs one script in a bubble, with its file in a folder
// of its own.
func keeperScript(folder string) func(*rapid.T) {
	return func(t *rapid.T) {
		dir, err := os.MkdirTemp(folder, "")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		rapid.SyncTest(t, func(t *rapid.T) {
			p := &play{t: t, path: filepath.Join(dir, "db-0"), slots: someDeclared.Draw(t, "slots")}
			p.m.slots = p.slots
			p.open()
			defer p.close()
			t.Repeat(map[string]func(*rapid.T){
				"wait":      p.waitStep,
				"wait 2":    p.waitStep,
				"take":      p.takeStep,
				"put":       p.putStep,
				"delete":    p.deleteStep,
				"pause":     p.pauseStep,
				"pass":      p.passStep,
				"hang up":   p.hangUpStep,
				"declare":   p.declareStep,
				"crash":     p.crashStep,
				"take over": p.takeOverStep,
				"hand over": p.handOverStep,
			})
		})
	}
}

// setFlag sets a flag of rapid for one test.
func setFlag(t *testing.T, name, value string) {
	f := flag.Lookup(name)
	before := f.Value.String()
	t.Cleanup(func() { f.Value.Set(before) })
	if err := f.Value.Set(value); err != nil {
		t.Fatal(err)
	}
}

// scripts runs scripts until the time spend has passed since time0. It returns how many, and
// false if one has failed.
func scripts(t *testing.T, time0 time.Time, spend time.Duration, chance *rand.Rand, script func(*rapid.T)) (n int, ok bool) {
	for time.Since(time0) < spend {
		setFlag(t, "rapid.seed", fmt.Sprint(chance.Uint64N(1<<62)+1))
		ok := t.Run("script", func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				n++
				script(t)
			})
		})
		if !ok {
			return n, false
		}
	}
	return n, true
}

// The model agrees with the rules, and with keeper and store, in scripts of 50 steps on average.
// Each of the two has half of the time.
func TestTrustModels(t *testing.T) {
	started := time.Now()
	setFlag(t, "rapid.steps", "50")
	setFlag(t, "rapid.checks", "50")
	chance := rand.New(rand.NewPCG(*seed, 1))
	spend := budget(4 * time.Second)
	rules, rulesOK := scripts(t, started, spend/2, chance, ruleScript(t))
	stored, storedOK := scripts(t, started, spend, chance, keeperScript(fastFolder(t)))
	divergences := map[bool]int{false: 1}
	record(t, "models", started, map[string]int{"scripts": rules + stored, "on keeper and store, with crashes": stored,
		"divergences": divergences[rulesOK] + divergences[storedOK]})
}
