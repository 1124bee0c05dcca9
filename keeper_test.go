package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/bbolt"
)

// A rig is a keeper on a real file. A test can close it and open it again.
type rig struct {
	*keeper
	t        *testing.T
	store    *store
	wrap     func(*store) keeperStore // makes the keeper's store; nil: the store itself
	path     string
	declared declaredEnvironments
	limits   keeperLimits
	handler  slog.Handler // of the log; open sets it to that of the test if it is nil
	metrics  *metrics
	observer keeperObserver
	ids      int // how many fill has used
}

// testLimits are the limits of keepers in tests.
var testLimits = keeperLimits{waiters: 1000, history: 64e6}

func newRig(t *testing.T, declared string) *rig {
	g := &rig{t: t, path: filepath.Join(t.TempDir(), "call-me.db"), limits: testLimits}
	if declared != "" {
		if err := g.declared.Decode(declared); err != nil {
			t.Fatal(err)
		}
	}
	g.open()
	t.Cleanup(func() {
		select {
		case <-g.keeper.stopped:
		default:
			t.Error("a keeper was left running: it may log when the test has ended")
		}
	})
	return g
}

func (g *rig) open() {
	g.t.Helper()
	s, err := openStore(g.path)
	if err != nil {
		g.t.Fatal(err)
	}
	if g.handler == nil {
		g.handler = slog.NewTextHandler(g.t.Output(), nil)
	}
	seen := keeperStore(s)
	if g.wrap != nil {
		seen = g.wrap(s)
	}
	g.store = s
	g.metrics = newMetrics()
	g.observer = keeperLog{g.metrics, slog.New(g.handler)}
	if g.keeper, err = newKeeper(seen, g.declared.slotsOf, g.limits, g.observer); err != nil {
		g.t.Fatal(err)
	}
}

func (g *rig) close() {
	g.t.Helper()
	g.keeper.close()
	if err := g.store.close(); err != nil {
		g.t.Error(err)
	}
}

func (g *rig) restart() {
	g.t.Helper()
	g.close()
	g.open()
}

// inBubble runs a test on a rig in a bubble of testing/synctest, which has its own clock.
func inBubble(t *testing.T, declared string, f func(t *testing.T, g *rig)) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, declared)
		defer func() { g.close() }()
		f(t, g)
	})
}

// An asker is a caller that requests a slot on another goroutine.
type asker struct {
	id     string
	leave  func()
	answer chan reply
}

func (g *rig) asks(id string, wait time.Duration) *asker {
	ctx, cancel := context.WithCancel(context.Background())
	a := &asker{id, func() { cancel(); synctest.Wait() }, make(chan reply, 1)}
	c := &call{kind: callRequest, environment: "uat", request: request{id: id}, wait: wait > 0}
	go func() { a.answer <- g.requestSlot(ctx, c, wait) }()
	synctest.Wait()
	return a
}

// now returns the reply that the asker has got, and false if it has none yet.
func (a *asker) now() (reply, bool) {
	synctest.Wait()
	select {
	case got := <-a.answer:
		return got, true
	default:
		return reply{}, false
	}
}

func (a *asker) wantLease(t *testing.T) leaseView {
	t.Helper()
	got, answered := a.now()
	if !answered || got.err != nil || len(got.own) == 0 {
		t.Fatalf("%q: answered %v, %v, want a lease", a.id, answered, got.err)
	}
	return got.own[0]
}

func (a *asker) wantErr(t *testing.T, err error) reply {
	t.Helper()
	got, answered := a.now()
	if !answered || !errors.Is(got.err, err) {
		t.Fatalf("%q: answered %v, %v, want %v", a.id, answered, got.err, err)
	}
	return got
}

func (a *asker) wantNothing(t *testing.T) {
	t.Helper()
	if got, answered := a.now(); answered {
		t.Fatalf("%q was answered %v", a.id, got.err)
	}
}

func (g *rig) take(id string, ttl time.Duration) reply {
	return g.requestSlot(context.Background(), &call{kind: callRequest, environment: "uat", request: request{id: id, ttl: ttl}}, 0)
}

func (g *rig) mustTake(id string, ttl time.Duration) leaseView {
	g.t.Helper()
	a := g.take(id, ttl)
	if a.err != nil {
		g.t.Fatalf("%s: %v", id, a.err)
	}
	return a.own[0]
}

func (g *rig) free(id string) error {
	return g.ask(&call{kind: callRelease, environment: "uat", release: releaseRequest{selector: selector{id: id}}}).err
}

func (g *rig) extend(id string) error {
	return g.ask(&call{kind: callRenew, environment: "uat", renewal: renewal{selector: selector{id: id}, at: time.Now()}}).err
}

// state returns the ids of the published leases, then "|", then the ids in the queue. It
// returns the text of the error if there is one.
func (g *rig) state() string {
	v, err := g.view("uat")
	if err != nil {
		return err.Error()
	}
	var words []string
	for _, l := range v.leases {
		words = append(words, l.id)
	}
	words = append(words, "|")
	for _, p := range v.queue {
		words = append(words, p.id)
	}
	return strings.Join(words, " ")
}

func (g *rig) want(state string) {
	g.t.Helper()
	synctest.Wait()
	if got := g.state(); got != state {
		g.t.Errorf("state is %q, want %q", got, state)
	}
}

// Invariant 3: each release grants the slot to one waiter, in the order of the queue.
func TestOneReleaseWakesOneWaiterInOrder(t *testing.T) {
	inBubble(t, "", func(t *testing.T, g *rig) {
		g.mustTake("first", 0)
		var line []*asker
		for i := range 50 {
			line = append(line, g.asks(fmt.Sprint("waiter", i), time.Hour))
		}
		holder, last := "first", uint64(0)
		for i, a := range line {
			if err := g.free(holder); err != nil {
				t.Fatal(err)
			}
			l := a.wantLease(t)
			if l.fence <= last {
				t.Errorf("fence %d after %d", l.fence, last)
			}
			for _, behind := range line[i+1:] {
				behind.wantNothing(t)
			}
			holder, last = a.id, l.fence
		}
	})
}

// Invariant 3: after a restart the waiters are in the queue in the same order.
func TestTheQueueSurvivesARestartInItsOrder(t *testing.T) {
	inBubble(t, "", func(t *testing.T, g *rig) {
		g.mustTake("holder", 0)
		before := []*asker{}
		for i := range 5 {
			before = append(before, g.asks(fmt.Sprint("w", i), time.Hour))
		}
		g.restart()
		for _, a := range before {
			a.wantErr(t, errStopping)
		}
		g.want("holder | w0 w1 w2 w3 w4")
		g.free("holder") // w0 is disconnected: the slot stays free for it
		g.want(" | w0 w1 w2 w3 w4"[1:])
		time.Sleep(5 * time.Second)
		w1 := g.asks("w1", time.Hour)
		w3 := g.asks("w3", time.Hour)
		w0 := g.asks("w0", time.Hour)
		w0.wantLease(t)
		w1.wantNothing(t)
		time.Sleep(6 * time.Second) // w2 and w4 have been disconnected for 10 s since the start
		g.want("w0 | w1 w3")
		g.free("w0")
		w1.wantLease(t)
		g.free("w1")
		w3.wantLease(t)
	})
}

func TestAfterAStartEveryoneIsAbsentFromThatMoment(t *testing.T) {
	inBubble(t, "", func(t *testing.T, g *rig) {
		g.mustTake("holder", 0)
		g.asks("w", time.Hour)
		g.close()
		time.Sleep(time.Hour) // the server is stopped for much longer than maxAbsence
		g.open()
		g.want("holder | w")
		time.Sleep(maxAbsence - time.Second)
		g.want("holder | w")
		time.Sleep(2 * time.Second)
		g.want("holder |")
	})
}

// Invariant 4: a start gives every lease its full ttl.
func TestAStartGivesEveryLeaseItsFullTTL(t *testing.T) {
	inBubble(t, "", func(t *testing.T, g *rig) {
		g.mustTake("holder", time.Minute)
		time.Sleep(50 * time.Second)
		g.close()
		time.Sleep(time.Hour)
		g.open()
		time.Sleep(time.Minute - time.Millisecond)
		g.want("holder |")
		time.Sleep(time.Second)
		g.want("|")
	})
}

// A slowlyLoaded takes longer to load than the leases last.
type slowlyLoaded struct{ *store }

func (s slowlyLoaded) load(each func(bucket string, key, value []byte) error) (counter uint64, err error) {
	time.Sleep(2 * time.Minute)
	return s.store.load(each)
}

// Nobody is answered while the store loads. What a start gives leases and waiters begins after that.
func TestASlowStartGivesFullTimes(t *testing.T) {
	inBubble(t, "", func(t *testing.T, g *rig) {
		g.mustTake("holder", time.Minute)
		g.asks("waiter", time.Hour)
		g.close()
		g.wrap = func(s *store) keeperStore { return slowlyLoaded{s} }
		g.open()
		time.Sleep(maxAbsence - time.Second)
		g.want("holder | waiter")
		time.Sleep(3 * time.Second)
		g.want("holder |")
	})
}

// Invariant 4: a lease ends not before its ttl, and at most a second after it.
func TestALeaseEndsNeverBeforeItsTTLAndAtMostASecondAfter(t *testing.T) {
	inBubble(t, "", func(t *testing.T, g *rig) {
		for ttl := time.Second; ttl < 3*time.Second; ttl += 37 * time.Millisecond {
			start := time.Now()
			g.mustTake("holder"+ttl.String(), ttl)
			next := g.asks("next"+ttl.String(), time.Hour)
			time.Sleep(ttl - time.Millisecond)
			next.wantNothing(t)
			got := <-next.answer
			if late := time.Since(start) - ttl; len(got.own) == 0 || late > time.Second {
				t.Errorf("ttl %v: %v, %v late", ttl, got.err, late)
			}
			g.free(next.id)
		}
	})
}

func TestRenewalsKeepALeaseForDaysWithoutTheDisk(t *testing.T) {
	inBubble(t, "", func(t *testing.T, g *rig) {
		g.mustTake("holder", 2*time.Minute)
		before, _ := os.ReadFile(g.path)
		for range 24 * 60 {
			time.Sleep(time.Minute)
			if err := g.extend("holder"); err != nil {
				t.Fatal(err)
			}
		}
		if after, _ := os.ReadFile(g.path); !bytes.Equal(before, after) {
			t.Error("a renewal was written")
		}
		time.Sleep(2*time.Minute + time.Second)
		if err := g.extend("holder"); !errors.Is(err, errNotHeld) {
			t.Errorf("renewing after the end: %v", err)
		}
	})
}

// Invariant 2: a renewal that changes the ttl is in the store before it has its reply.
func TestARenewalThatChangesTheTTLIsOnTheDisk(t *testing.T) {
	inBubble(t, "", func(t *testing.T, g *rig) {
		g.mustTake("holder", time.Minute)
		a := g.ask(&call{kind: callRenew, environment: "uat", renewal: renewal{selector: selector{id: "holder"}, ttl: time.Hour, hasTTL: true, at: time.Now()}})
		if a.err != nil || a.own[0].ttl != time.Hour {
			t.Fatalf("%+v", a)
		}
		g.restart()
		time.Sleep(time.Hour - time.Second)
		g.want("holder |")
		time.Sleep(2 * time.Second)
		g.want("|")
	})
}

func TestAClaimIsKeptInMemoryOnly(t *testing.T) {
	inBubble(t, "", func(t *testing.T, g *rig) {
		claim := func(id string) {
			a := g.requestSlot(context.Background(), &call{kind: callRequest, environment: "uat", request: request{id: id, ttl: time.Hour}, claim: 30 * time.Second}, 0)
			if a.err != nil {
				t.Fatal(a.err)
			}
		}
		claim("unclaimed")
		time.Sleep(31 * time.Second)
		g.want("|")
		claim("claimed")
		if err := g.extend("claimed"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		g.want("claimed |")
		g.free("claimed")
		claim("restarted")
		g.restart()
		time.Sleep(time.Minute)
		g.want("restarted |")
	})
}

func TestAWaiterGrantedFromTheQueueMustClaimToo(t *testing.T) {
	inBubble(t, "", func(t *testing.T, g *rig) {
		g.mustTake("holder", 0)
		go g.requestSlot(context.Background(), &call{kind: callRequest, environment: "uat", request: request{id: "w"}, wait: true, claim: 30 * time.Second}, time.Hour)
		g.want("holder | w")
		time.Sleep(time.Hour / 2)
		g.free("holder")
		g.want("w |")
		time.Sleep(31 * time.Second)
		g.want("|")
	})
}

func TestAWaiterWithoutAnIDEndsWithItsConnectionAndIsNeverWritten(t *testing.T) {
	inBubble(t, "", func(t *testing.T, g *rig) {
		g.mustTake("holder", 0)
		nameless, named := g.asks("", time.Hour), g.asks("named", time.Hour)
		g.want("holder |  named")
		var keys []string
		g.store.load(func(bucket string, key, _ []byte) error {
			if bucket == queueBucket {
				keys = append(keys, string(key))
			}
			return nil
		})
		if len(keys) != 1 {
			t.Errorf("%d waiters are stored, want the one with an id", len(keys))
		}
		nameless.leave()
		g.want("holder | named")
		g.free("holder")
		named.wantLease(t)
	})
}

func TestAGrantWhoseCallerHadLeftIsUndone(t *testing.T) {
	inBubble(t, "", func(t *testing.T, g *rig) {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		a := g.requestSlot(ctx, &call{kind: callRequest, environment: "uat", wait: true}, time.Minute)
		synctest.Wait()
		if !errors.Is(a.err, errGone) {
			t.Errorf("the reply after the caller left: %v", a.err)
		}
		g.want("|")
		if open, _ := g.keeper.isOpen("uat"); !open {
			t.Error("the slot is not free again")
		}
	})
}

func TestAConnectionThatEndsAtOnceLeavesNoWaiter(t *testing.T) {
	inBubble(t, "", func(t *testing.T, g *rig) {
		g.mustTake("holder", 0)
		for i := range 200 {
			id := map[bool]string{true: "", false: fmt.Sprint("id", i)}[i%2 == 0]
			ctx, cancel := context.WithCancel(context.Background())
			go g.requestSlot(ctx, &call{kind: callRequest, environment: "uat", request: request{id: id}, wait: true}, time.Hour)
			cancel()
		}
		synctest.Wait()
		time.Sleep(maxAbsence + time.Second)
		g.want("holder |")
		if g.waitingCount != 0 || len(g.waitingCalls) != 0 {
			t.Errorf("%d waiters are counted, %d places have some", g.waitingCount, len(g.waitingCalls))
		}
	})
}

func TestAWaiterThatLeavesIsPassedOver(t *testing.T) {
	inBubble(t, "", func(t *testing.T, g *rig) {
		g.mustTake("holder", 0)
		gone, next := g.asks("gone", time.Hour), g.asks("next", time.Hour)
		gone.leave()
		g.free("holder")
		next.wantNothing(t) // the slot stays free for gone until maxAbsence has passed
		time.Sleep(maxAbsence + time.Second)
		next.wantLease(t)
	})
}

func TestTheNewestConnectionOfAnIDCounts(t *testing.T) {
	inBubble(t, "", func(t *testing.T, g *rig) {
		g.mustTake("holder", 0)
		older, newer := g.asks("w", time.Hour), g.asks("w", 2*time.Hour)
		next := g.asks("next", 2*time.Hour)
		older.leave()
		g.free("holder")
		newer.wantLease(t)
		g.free("w")
		next.wantLease(t)

		older, newer = g.asks("v", time.Hour), g.asks("v", 2*time.Hour)
		newer.leave()
		time.Sleep(maxAbsence + time.Second)
		older.wantErr(t, errEnded) // a proxy may keep a dead connection open: only the newest counts
		g.want("next |")
	})
}

// After a request without wait, an older connection of the id still does not count: a proxy
// may keep it open for a long time.
func TestALookDoesNotMakeAnOlderConnectionCount(t *testing.T) {
	inBubble(t, "", func(t *testing.T, g *rig) {
		g.mustTake("holder", 0)
		older, newer := g.asks("w", time.Hour), g.asks("w", time.Hour)
		newer.leave()
		time.Sleep(maxAbsence / 2)
		if a := g.take("w", 0); !errors.Is(a.err, errNoSlot) {
			t.Errorf("a look of somebody in the queue: %v", a.err)
		}
		g.free("holder")
		g.want("| w") // the slot is kept free for w, and not granted to the older connection
		time.Sleep(maxAbsence - time.Second)
		g.want("| w") // the request without wait has restarted maxAbsence
		time.Sleep(2 * time.Second)
		older.wantErr(t, errEnded)
		g.want("|")
	})
}

func TestADuplicateOfAWaitingRequestGetsTheSameAnswer(t *testing.T) {
	inBubble(t, "", func(t *testing.T, g *rig) {
		g.mustTake("holder", 0)
		var same []*asker
		for range 100 {
			same = append(same, g.asks("w", time.Hour))
		}
		g.want("holder | w")
		g.free("holder")
		fence := same[0].wantLease(t).fence
		for _, a := range same[1:] {
			if got := a.wantLease(t).fence; got != fence {
				t.Fatalf("fences %d and %d for one id", fence, got)
			}
		}
		g.want("w |")
	})
}

func TestACallEndsWithItsWaiter(t *testing.T) {
	inBubble(t, "", func(t *testing.T, g *rig) {
		g.mustTake("holder", 0)
		g.asks("w0", time.Hour)
		a := g.asks("w1", 25*time.Second)
		time.Sleep(25*time.Second - time.Millisecond)
		a.wantNothing(t)
		time.Sleep(time.Millisecond)
		if got := a.wantErr(t, errNoSlot); got.position != 2 || len(got.leases) != 1 || got.leases[0].id != "holder" {
			t.Errorf("position %d, held by %v", got.position, got.leases)
		}
		g.want("holder | w0 w1")
		if got := g.take("w1", 0); !errors.Is(got.err, errNoSlot) || got.position != 2 {
			t.Errorf("a look without wait: %v, position %d", got.err, got.position)
		}
		g.want("holder | w0 w1")
	})
}

func TestAZeroWaitEntersTheQueue(t *testing.T) {
	inBubble(t, "", func(t *testing.T, g *rig) {
		g.mustTake("holder", 0)
		a := g.requestSlot(context.Background(), &call{kind: callRequest, environment: "uat", request: request{id: "w"}, wait: true}, 0)
		if !errors.Is(a.err, errNoSlot) || a.position != 1 {
			t.Errorf("%v, position %d", a.err, a.position)
		}
		g.want("holder | w")
	})
}

func TestTooManyWaitersAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, "")
		defer func() { g.close() }()
		g.close()
		g.limits.waiters = 2
		g.open()
		g.mustTake("holder", 0)
		first := g.asks("a", time.Hour)
		g.asks("b", time.Hour)
		g.asks("c", time.Hour).wantErr(t, errBusy)
		first.leave()
		g.asks("d", time.Hour).wantNothing(t)
		g.want("holder | a b d")
	})
}

func TestStoppingAnswersEveryWaiter(t *testing.T) {
	inBubble(t, "", func(t *testing.T, g *rig) {
		g.mustTake("holder", 0)
		var all []*asker
		for i := range 100 {
			all = append(all, g.asks(fmt.Sprint(i), time.Hour))
		}
		g.restart()
		for _, a := range all {
			a.wantErr(t, errStopping)
		}
	})
}

func TestSlotsAreDeclared(t *testing.T) {
	inBubble(t, "uat:blue+green,perf:2", func(t *testing.T, g *rig) {
		if got := g.mustTake("a", 0).slot + " " + g.mustTake("b", 0).slot; got != "blue green" {
			t.Errorf("granted %s", got)
		}
		if a := g.take("c", 0); !errors.Is(a.err, errNoSlot) || len(a.leases) != 2 {
			t.Errorf("the third got %v, held by %v", a.err, a.leases)
		}
		if a := g.ask(&call{kind: callRequest, environment: "prod", request: request{}}); !errors.Is(a.err, errUndeclared) {
			t.Errorf("an undeclared one: %v", a.err)
		}
	})
}

func TestTheDeclarationMayChangeUnderLeases(t *testing.T) {
	inBubble(t, "uat:blue+green", func(t *testing.T, g *rig) {
		g.mustTake("a", 0)
		g.mustTake("b", 0)
		g.close()
		g.declared = declaredEnvironments{}
		g.declared.Decode("perf")
		g.open()
		g.want("a b |")
		if err := g.extend("a"); err != nil {
			t.Errorf("renewing where it is not declared any more: %v", err)
		}
		if err := g.free("a"); err != nil {
			t.Errorf("releasing there: %v", err)
		}
		if a := g.take("c", 0); !errors.Is(a.err, errUndeclared) {
			t.Errorf("requesting there: %v", a.err)
		}
		g.free("b")
		if err := g.free("never"); !errors.Is(err, errUndeclared) {
			t.Errorf("when nothing is left there: %v", err)
		}
	})
}

func TestAnEnvironmentWithoutLeaseAndQueueCostsNothing(t *testing.T) {
	inBubble(t, "", func(t *testing.T, g *rig) {
		for i := range 100 {
			name := fmt.Sprint("env", i)
			g.ask(&call{kind: callRequest, environment: name, request: request{id: "a"}})
			g.ask(&call{kind: callRelease, environment: name, release: releaseRequest{selector: selector{id: "a"}}})
			g.ask(&call{kind: callRelease, environment: name, release: releaseRequest{is2019: true}})
			g.ask(&call{kind: callRenew, environment: name, renewal: renewal{selector: selector{id: "a"}}})
		}
		synctest.Wait()
		if len(g.current) != 0 || g.published.Load().count != 0 {
			t.Errorf("%d and %d environments are in memory", len(g.current), g.published.Load().count)
		}
	})
}

// Invariant 5: fences grow across a restart, also if the clock was set back.
func TestNumbersGrowAcrossRestartsAndClocksThatGoBack(t *testing.T) {
	inBubble(t, "", func(t *testing.T, g *rig) {
		last := g.mustTake("a", 0).fence
		if now := uint64(time.Now().UnixMilli()); last < now {
			t.Errorf("fence %d is below the time %d", last, now)
		}
		g.free("a")
		g.lastNumber += 1 << 40 // as if the clock had been far ahead when the server started
		ahead := g.mustTake("b", 0).fence
		g.restart()
		g.free("b")
		if next := g.mustTake("c", 0).fence; next <= ahead || next >= 1<<53 {
			t.Errorf("fence %d after %d", next, ahead)
		}
	})
}

// Invariant 7: an ended request stays ended after a restart.
func TestEndedRequestsAreRememberedAcrossARestart(t *testing.T) {
	inBubble(t, "", func(t *testing.T, g *rig) {
		g.mustTake("a", 0)
		g.free("a")
		g.free("never seen")
		g.restart()
		for _, id := range []string{"a", "never seen"} {
			if a := g.take(id, 0); !errors.Is(a.err, errEnded) {
				t.Errorf("%s after the restart: %v", id, a.err)
			}
		}
		if err := g.free("a"); err != nil {
			t.Errorf("releasing again after the restart: %v", err)
		}
	})
}

// The rules of one batch are applied in this order: renewals, releases, expiries, requests.
func TestABatchTakesRenewalsThenReleasesThenExpiriesThenRequests(t *testing.T) {
	inBubble(t, "", func(t *testing.T, g *rig) {
		g.mustTake("renewed", time.Minute)
		now := time.Now()
		k := g.keeper
		calls := []*call{
			{kind: callRequest, environment: "uat", request: request{id: "next"}, reply: make(chan reply, 1)},
			{kind: callRenew, environment: "uat", renewal: renewal{selector: selector{id: "renewed"}, at: now}, reply: make(chan reply, 1)},
		}
		g.keeper.close() // from here on this goroutine does the work of run
		time.Sleep(time.Minute + time.Second)
		r := k.apply(calls, true, time.Now())
		if got := k.current["uat"].leases; len(got) != 1 || got[0].id != "next" {
			t.Errorf("a renewal that had arrived a minute before kept %v", got)
		}
		r.undo()
		calls[0].renewal.at = time.Now() // apply has sorted calls: the renewal is the first
		k.apply(calls, true, time.Now())
		if got := k.current["uat"].leases; len(got) != 1 || got[0].id != "renewed" {
			t.Errorf("a renewal that came with the expiry lost: %v", got)
		}
		calls = append(calls, &call{kind: callRelease, environment: "uat", release: releaseRequest{selector: selector{id: "renewed"}}})
		k.apply(calls, true, time.Now())
		if got := k.current["uat"].leases; len(got) != 1 || got[0].id != "next" {
			t.Errorf("a request did not see the release of its batch: %v", got)
		}
		g.open2()
	})
}

// open2 closes the store of a closed keeper, and opens the rig again.
func (g *rig) open2() {
	g.store.close()
	g.open()
}

// While a commit takes a second, renewals succeed, readers see the committed state only, and
// no lease expires. The test holds bbolt's write lock in the place of a slow disk.
func TestRenewalsAndReadersDoNotWaitForASlowDisk(t *testing.T) {
	g := newRig(t, "")
	defer g.close()
	g.mustTake("holder", 400*time.Millisecond)
	slow, err := g.store.db.Begin(true)
	if err != nil {
		t.Fatal(err)
	}
	stuck := make(chan reply, 1)
	go func() {
		stuck <- g.ask(&call{kind: callRequest, environment: "other", request: request{id: "other"}})
	}()
	for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if err := g.extend("holder"); err != nil {
			t.Fatalf("renewing while the disk is slow: %v", err)
		}
		v, _ := g.view("uat")
		if len(v.leases) != 1 {
			t.Fatal("a reader does not see the lease")
		}
		if v, _ := g.view("other"); len(v.leases) != 0 {
			t.Fatal("a reader sees what is not committed")
		}
	}
	select {
	case a := <-stuck:
		t.Errorf("granted before it was stored: %+v", a)
	default:
	}
	slow.Rollback()
	if a := <-stuck; a.err != nil {
		t.Error(a.err)
	}
}

// Invariant 6: a failed commit is undone and reported as unknown, and the file is rewritten
// from memory. The test closes bbolt, so that the commit fails as on a broken disk.
func TestAFailedCommitIsUndoneAndTheFileIsRewritten(t *testing.T) {
	inBubble(t, "uat:2", func(t *testing.T, g *rig) {
		g.mustTake("a", time.Hour)
		g.mustTake("b", time.Hour)
		waiter := g.asks("w", time.Hour)
		g.store.db.Close()
		if err := g.free("a"); !errors.Is(err, errUnknown) {
			t.Fatalf("a release that could not be stored: %v", err)
		}
		waiter.wantNothing(t) // the slot of a is not free
		g.want("a b | w")
		if !g.isHealthy.Load() {
			t.Error("the file was not written anew")
		}
		if err := g.free("a"); err != nil {
			t.Fatal(err)
		}
		waiter.wantLease(t)
		g.restart()
		g.want("b w |")
		if err := g.free("a"); err != nil {
			t.Errorf("the history was lost: %v", err)
		}
	})
}

func TestAnExpiryThatCouldNotBeStoredIsTriedAgain(t *testing.T) {
	inBubble(t, "", func(t *testing.T, g *rig) {
		g.mustTake("a", 10*time.Second)
		waiter := g.asks("w", time.Hour)
		g.store.db.Close()
		time.Sleep(10*time.Second + 2*scanPeriod)
		waiter.wantLease(t)
		g.want("w |")
	})
}

// Invariant 6: until the file has been rewritten, nothing is granted, and no lease or waiter
// is lost.
func TestUntilTheFileIsRewrittenNothingIsGrantedOrLost(t *testing.T) {
	inBubble(t, "", func(t *testing.T, g *rig) {
		g.mustTake("a", 10*time.Second)
		waiter := g.asks("w", time.Hour)
		gone := g.asks("gone", time.Hour)
		folder := filepath.Dir(g.path)
		if err := os.Rename(folder, folder+"-away"); err != nil {
			t.Fatal(err)
		}
		g.store.db.Close()
		g.free("a")
		synctest.Wait() // it may still be noting the failure that it has answered
		if g.isHealthy.Load() {
			t.Error("the server says that it is healthy")
		}
		gone.leave()
		time.Sleep(time.Minute)
		if err := g.take("x", 0).err; !errors.Is(err, errUnknown) {
			t.Errorf("a request meanwhile: %v", err)
		}
		if err := g.extend("a"); err != nil {
			t.Errorf("a renewal meanwhile: %v", err)
		}
		g.want("a | w gone")
		os.Rename(folder+"-away", folder)
		time.Sleep(2 * time.Second)
		if !g.isHealthy.Load() {
			t.Fatal("it did not recover")
		}
		g.want("a | w gone") // w is still connected, gone has 10 s from now
		time.Sleep(maxAbsence + time.Second)
		waiter.wantLease(t)
		g.restart()
		g.want("w |")
	})
}

// limit sets the size in bytes up to which bbolt may grow the file; zero is no limit. It
// calls the keeper once, which orders the change before the keeper's next commit.
func (g *rig) limit(size int) {
	synctest.Wait()
	g.store.db.MaxSize = size
	g.extend("nobody")
}

// On a full disk releases succeed and new requests get errFull. The test limits the size of
// the file, so that bbolt fails as on a full disk.
func TestOnAFullDiskReleasesWork(t *testing.T) {
	inBubble(t, "", func(t *testing.T, g *rig) {
		for i := range 300 {
			g.ask(&call{kind: callRequest, environment: fmt.Sprint("env", i), request: request{id: "aaaaaaaa", reason: strings.Repeat("x", 500)}})
		}
		waiter := g.asks("w", time.Hour)
		waiter.wantLease(t)
		synctest.Wait()
		size := 0
		g.store.db.View(func(tx *bbolt.Tx) error { size = int(tx.Size()); return nil })
		g.limit(size)
		refused := 0
		for i := range 300 {
			a := g.ask(&call{kind: callRequest, environment: fmt.Sprint("more", i), request: request{id: "bbbbbbbb", reason: strings.Repeat("x", 1000)}})
			if a.err != nil && !errors.Is(a.err, errFull) {
				t.Fatal(a.err)
			}
			if a.err != nil {
				refused++
			}
		}
		if refused == 0 {
			t.Fatal("the disk was never full")
		}
		for i := range 300 {
			name := fmt.Sprint("env", i)
			if a := g.ask(&call{kind: callRelease, environment: name, release: releaseRequest{selector: selector{id: "aaaaaaaa"}}}); a.err != nil {
				t.Fatalf("release %d: %v", i, a.err)
			}
		}
		g.limit(0)
		time.Sleep(2 * time.Second)
		if !g.isHealthy.Load() {
			t.Error("it did not recover")
		}
		g.mustTake("w", 0)
		g.restart()
		g.want("w |")
	})
}

// Invariant 1: concurrent callers never have more leases than there are slots.
func TestManyAtOnceAgreeOnWhoHasTheSlot(t *testing.T) {
	g := newRig(t, "uat:3")
	defer g.close()
	var mu sync.Mutex
	have, most, fences := 0, 0, []uint64{}
	var all sync.WaitGroup
	for w := range 16 {
		all.Go(func() {
			for i := range 20 {
				id := fmt.Sprint("worker", w, "-", i)
				a := g.requestSlot(context.Background(), &call{kind: callRequest, environment: "uat", request: request{id: id}, wait: true}, time.Minute)
				if a.err != nil {
					t.Error(a.err)
					return
				}
				mu.Lock()
				have++
				most = max(most, have)
				fences = append(fences, a.own[0].fence)
				mu.Unlock()
				mu.Lock()
				have--
				mu.Unlock()
				if err := g.free(id); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	slices.Sort(fences)
	if most > 3 || len(slices.Compact(fences)) != 16*20 {
		t.Errorf("%d had a slot at once, %d different fences", most, len(fences))
	}
}

func TestAWaiterIsNotRefusedWhenTooManyWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, "")
		defer func() { g.close() }()
		g.close()
		g.limits.waiters = 3
		g.open()
		g.mustTake("holder", 0)
		first := g.asks("first", 25*time.Second)
		g.asks("second", time.Hour)
		g.asks("third", time.Hour)
		time.Sleep(25 * time.Second)
		first.wantErr(t, errNoSlot)
		g.asks("newcomer", time.Hour).wantNothing(t)
		again := g.asks("first", 25*time.Second)
		again.wantNothing(t)
		g.asks("holder", time.Second).wantLease(t)
		g.asks("one too many", time.Second).wantErr(t, errBusy)
		g.free("holder")
		again.wantLease(t)
	})
}

func TestAWaiterWithoutAnIDWhoseTimeEndsWhileTheDiskIsBrokenLeavesNothing(t *testing.T) {
	inBubble(t, "", func(t *testing.T, g *rig) {
		g.mustTake("a", 0)
		w := g.asks("", 3*time.Second)
		folder := filepath.Dir(g.path)
		os.Rename(folder, folder+"-away")
		g.store.db.Close()
		g.free("a")
		time.Sleep(4 * time.Second)
		w.wantErr(t, errUnknown)
		os.Rename(folder+"-away", folder)
		time.Sleep(2 * time.Second)
		g.free("a")
		g.want("|")
		g.mustTake("b", 0)
	})
}

// A poll that has its reply is not applied again after its batch has failed: here the poll
// of a waiter and its end are in one batch, which finds no space.
func TestACallThatHasItsReplyIsNotAppliedAgain(t *testing.T) {
	g := newRig(t, "")
	defer func() { g.store.close() }()
	g.mustTake("holder", 0)
	poll := func() *call {
		return &call{kind: callRequest, environment: "uat", request: request{id: "victim"}, wait: true, reply: make(chan reply, 1)}
	}
	g.requestSlot(context.Background(), &call{kind: callRequest, environment: "uat", request: request{id: "victim"}, wait: true}, 0)
	g.keeper.close() // from here on this goroutine does the work of run
	k, c := g.keeper, poll()
	group := k.apply([]*call{c, {kind: callGiveUp, environment: "uat", other: c}, {kind: callRequest, environment: "uat", request: request{id: "other"}, wait: true, reply: make(chan reply, 1)}}, false, time.Now())
	k.undoBatch(group, true)
	for _, again := range k.pending {
		if again == c {
			t.Error("the answered call is in the queue again")
		}
	}
	k.apply(k.pending, false, time.Now())
	if p := k.current["uat"].waitersByID["victim"]; p == nil || p.connected.Load() {
		t.Errorf("the disconnected waiter is %+v", p)
	}
}

// A slowStore waits for the duration before each save.
type slowStore struct {
	recoverableStore
	time.Duration
}

func (s slowStore) save(counter uint64, writes []write, ends []int) error {
	time.Sleep(s.Duration)
	return s.recoverableStore.save(counter, writes, ends)
}

// slow opens the rig again, with a store that takes d longer for each save.
func (g *rig) slow(d time.Duration) {
	g.close()
	g.wrap = func(s *store) keeperStore { return slowStore{s, d} }
	g.open()
}

// A sharedStore is a store that another server may take over. After that, save and confirm
// return errTakenOver. It is not a recoverableStore.
type sharedStore struct {
	keeperStore
	takenOver *bool
	confirmed *int
}

var errTakenOver = errors.New("another server has taken over")

func (s sharedStore) save(counter uint64, writes []write, ends []int) error {
	if *s.takenOver {
		return errTakenOver
	}
	return s.keeperStore.save(counter, writes, ends)
}

func (s sharedStore) confirm() error {
	*s.confirmed++
	if *s.takenOver {
		return errTakenOver
	}
	return nil
}

func (s sharedStore) exclusive() bool { return false }

// On a shared store, a renewal has its reply only after confirm, and after another server
// has taken over, nothing is granted, renewed or ended.
func TestAKeeperWhoseStoreWasTakenOverPromisesNothing(t *testing.T) {
	inBubble(t, "", func(t *testing.T, g *rig) {
		g.close()
		takenOver, confirmed := false, 0
		g.wrap = func(s *store) keeperStore { return sharedStore{s, &takenOver, &confirmed} }
		g.open()
		g.mustTake("a", time.Minute)
		before := confirmed
		if err := g.extend("a"); err != nil || confirmed == before {
			t.Errorf("a renewal: %v, confirmed %d times", err, confirmed-before)
		}
		synctest.Wait()
		takenOver = true
		for range 2 {
			if err := g.extend("a"); !errors.Is(err, errUnknown) {
				t.Errorf("a renewal after the store was taken over: %v", err)
			}
			if err := g.free("a"); !errors.Is(err, errUnknown) {
				t.Errorf("a release: %v", err)
			}
			if err := g.take("b", 0).err; !errors.Is(err, errUnknown) {
				t.Errorf("a request: %v", err)
			}
			time.Sleep(time.Hour)
		}
		g.want("a |")
		if g.isHealthy.Load() {
			t.Error("it says that it is healthy")
		}
	})
}

// A lease ends at most a scan period and two commits late, also while calls arrive all the
// time and each commit takes 150 ms: the first commit delays the scan, and the second saves
// the expiry.
func TestExpiryIsNotLateWhileCallsComeAllTheTime(t *testing.T) {
	inBubble(t, "", func(t *testing.T, g *rig) {
		g.mustTake("first", 0)
		g.free("first")
		const commit = 150 * time.Millisecond
		g.slow(commit)
		var busy sync.WaitGroup
		stop := make(chan struct{})
		for i := range 4 {
			busy.Go(func() {
				for n := 0; ; n++ {
					select {
					case <-stop:
						return
					default:
					}
					name, id := fmt.Sprint("busy", i), fmt.Sprint(n)
					g.ask(&call{kind: callRequest, environment: name, request: request{id: id}})
					g.ask(&call{kind: callRelease, environment: name, release: releaseRequest{selector: selector{id: id}}})
				}
			})
			time.Sleep(40 * time.Millisecond)
		}
		for i := range 100 {
			id := fmt.Sprint("holder", i)
			a := g.take(id, time.Second)
			if a.err != nil {
				t.Error(a.err)
				break
			}
			<-g.asks(id+"-next", time.Hour).answer
			if late := time.Since(a.own[0].deadline); late < 0 || late > scanPeriod+2*commit {
				t.Errorf("the next one had the slot %v after the deadline", late)
			}
			g.free(id + "-next")
		}
		close(stop)
		busy.Wait()
	})
}

// A poll in a batch that fails keeps waiting until its own wait has passed, and its caller
// can still leave. The batch also has a request for another environment, which gets errUnknown.
func TestAPollThatSharesAFailedCommitWaitsOn(t *testing.T) {
	inBubble(t, "", func(t *testing.T, g *rig) {
		g.mustTake("holder", 0)
		w := g.asks("w", time.Hour)
		w.leave()
		w.now()
		g.keeper.close()
		g.store.close()
		s, err := openStore(g.path)
		if err != nil {
			t.Fatal(err)
		}
		g.store = s
		if g.keeper, err = loadKeeper(s, g.declared.slotsOf, g.limits, keeperLog{g.metrics, slog.New(g.handler)}); err != nil {
			t.Fatal(err)
		}
		poll := func(ctx context.Context, wait time.Duration, others bool) <-chan reply {
			told := make(chan reply, 2)
			go func() {
				told <- g.requestSlot(ctx, &call{kind: callRequest, environment: "uat", request: request{id: "w"}, wait: true}, wait)
			}()
			if others {
				go func() { told <- g.ask(&call{kind: callRequest, environment: "other", request: request{id: "o"}}) }()
			}
			synctest.Wait()
			return told
		}
		ctx, leave := context.WithCancel(context.Background())
		told := poll(ctx, 5*time.Second, true)
		s.db.Close()
		g.keeper.step()
		if a := <-told; !errors.Is(a.err, errUnknown) {
			t.Errorf("the request was told %v", a.err)
		}
		go g.keeper.run()
		began := time.Now()
		if a := <-told; !errors.Is(a.err, errNoSlot) || time.Since(began) != 5*time.Second {
			t.Errorf("after %v the poll was told %v", time.Since(began), a.err)
		}
		leave()
		time.Sleep(maxAbsence + time.Second)
		g.want("holder |")
	})
}

// A caller that leaves during a commit gets errGone at once, and no lease.
func TestACallerThatLeavesBeforeTheCommitGetsNoLease(t *testing.T) {
	inBubble(t, "", func(t *testing.T, g *rig) {
		g.mustTake("first", 0)
		g.free("first")
		g.slow(time.Minute)
		go g.ask(&call{kind: callRequest, environment: "other", request: request{id: "slow"}})
		synctest.Wait()
		w, began := g.asks("w", time.Hour), time.Now()
		synctest.Wait()
		w.leave()
		w.wantErr(t, errGone)
		if time.Since(began) > 0 {
			t.Errorf("it got its reply after %v", time.Since(began))
		}
		time.Sleep(5 * time.Minute)
		g.want("|")
	})
}

func TestARenewalThatHadArrivedIsNotLostToAScan(t *testing.T) {
	g := newRig(t, "")
	defer g.close()
	g.mustTake("a", time.Second)
	renewed := make(chan error, 1)
	time.Sleep(700 * time.Millisecond)
	g.mu.Lock() // the keeper cannot publish
	time.Sleep(150 * time.Millisecond)
	go func() { renewed <- g.extend("a") }()
	time.Sleep(350 * time.Millisecond)
	g.mu.Unlock()
	if err := <-renewed; err != nil {
		t.Errorf("a renewal that came in time: %v", err)
	}
}

// Invariant 7: on a full disk an ended request stays ended.
func TestAFullDiskDoesNotForgetEndedRequests(t *testing.T) {
	inBubble(t, "", func(t *testing.T, g *rig) {
		g.mustTake("duplicate", 0)
		g.free("duplicate")
		for i := range 100 {
			g.ask(&call{kind: callRequest, environment: fmt.Sprint("env", i), request: request{id: "aaaaaaaa"}})
		}
		size := 0
		g.store.db.View(func(tx *bbolt.Tx) error { size = int(tx.Size()); return nil })
		g.limit(size)
		for i := range 100 {
			g.ask(&call{kind: callRequest, environment: fmt.Sprint("more", i), request: request{id: "bbbbbbbb", reason: strings.Repeat("x", 1000)}})
		}
		remembered := func() (events, loose int) {
			synctest.Wait()
			g.mu.Lock()
			defer g.mu.Unlock()
			return len(g.history.events), len(g.history.ends)
		}
		before, _ := remembered()
		for i := range 30 {
			if a := g.ask(&call{kind: callRelease, environment: fmt.Sprint("env", i), release: releaseRequest{selector: selector{id: "aaaaaaaa"}}}); a.err != nil {
				t.Fatal(a.err)
			}
		}
		if after, _ := remembered(); after < before*8/10 {
			t.Errorf("of %d events %d are left", before, after)
		}
		g.limit(0)
		time.Sleep(3 * time.Second)
		for _, id := range []string{"duplicate"} {
			if err := g.take(id, 0).err; !errors.Is(err, errEnded) {
				t.Errorf("a duplicate of an ended request: %v", err)
			}
		}
		if a := g.ask(&call{kind: callRequest, environment: "env3", request: request{id: "aaaaaaaa"}}); !errors.Is(a.err, errEnded) {
			t.Errorf("a duplicate of one that ended on the full disk: %v", a.err)
		}
		time.Sleep(rememberAge)
		for i := range 40 { // each forgets two
			g.mustTake(fmt.Sprint("later", i), 0)
			g.free(fmt.Sprint("later", i))
		}
		if _, n := remembered(); n != 40 {
			t.Errorf("%d ends are remembered, want those of the last 40 leases", n)
		}
	})
}

func TestAServerThatStartsOnAFullDiskIsUnhealthy(t *testing.T) {
	inBubble(t, "", func(t *testing.T, g *rig) {
		g.store.db.Update(dropReserve)
		g.keeper.close()
		g.store.close()
		s := mustOpen(t, g.path)
		s.db.MaxSize = 1
		k, err := newKeeper(s, g.declared.slotsOf, testLimits, g.observer)
		if err != nil {
			t.Fatal(err)
		}
		g.keeper = k
		if g.isHealthy.Load() || !errors.Is(g.take("x", 0).err, errFull) {
			t.Error("it says that it is healthy, or takes requests")
		}
		g.store = s
		g.limit(0)
		time.Sleep(3 * time.Second)
		if !g.isHealthy.Load() {
			t.Error("it did not recover")
		}
		g.mustTake("x", 0)
	})
}

func TestARepeatedReleaseIsKnownAlsoWhereNothingIsDeclaredAnyMore(t *testing.T) {
	inBubble(t, "uat", func(t *testing.T, g *rig) {
		g.mustTake("a", 0)
		g.close()
		g.declared = declaredEnvironments{}
		g.declared.Decode("perf")
		g.open()
		for range 2 {
			if err := g.free("a"); err != nil {
				t.Error(err)
			}
		}
		if err := g.free("b"); !errors.Is(err, errUndeclared) {
			t.Error(err)
		}
	})
}

func TestReadersMayLookWhileTheFileIsRewritten(t *testing.T) {
	g := newRig(t, "")
	defer g.close()
	g.mustTake("a", time.Hour)
	g.free("a")
	g.mustTake("b", time.Hour)
	stop := make(chan bool)
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				g.view("uat")
				events, _ := g.eventsAfter(0)
				for _, e := range events {
					eventToJSON(e)
				}
			}
		})
	}
	for range 5 { // with -race: encoding must not write to what readers read
		g.snapshot()
	}
	close(stop)
	readers.Wait()
}
