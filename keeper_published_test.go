package main

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// namesOf returns the names of a state in the order of all.
func namesOf(s *publishedState) (names []string) {
	for v := range s.all() {
		names = append(names, v.name)
	}
	return names
}

// A published state has what was set, in the order of the names, and a copy that is changed
// leaves it as it is.
func TestAPublishedStateStaysAsItIs(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	state, model := newPublishedState(nil, nil, nil), map[string]*view{}
	type kept struct {
		state *publishedState
		names []string
	}
	var before []kept
	for round := range 300 {
		next := state.copied()
		for range 1 + random.IntN(100) {
			name := fmt.Sprint("environment-", random.IntN(3000))
			switch {
			case round >= 200 || random.IntN(3) == 0: // at the end it empties itself
				next.set(name, nil)
				delete(model, name)
			default:
				model[name] = &view{name: name}
				next.set(name, model[name])
			}
		}
		if round%40 == 0 {
			before = append(before, kept{state, namesOf(state)})
		}
		state = next
		if want := slices.Sorted(maps.Keys(model)); !slices.Equal(namesOf(state), want) || state.count != len(want) {
			t.Fatalf("round %d: %d environments, want %d", round, state.count, len(want))
		}
		for name, v := range model {
			if state.find(name) != v {
				t.Fatalf("round %d: %q is not found", round, name)
			}
		}
		for i, block := range state.blocks {
			if len(block) == 0 || len(block) > maxBlock {
				t.Fatalf("round %d: block %d has %d environments", round, i, len(block))
			}
		}
		if state.find("environment") != nil || state.find("z") != nil {
			t.Fatal("it has an environment that was never set")
		}
	}
	for _, k := range before {
		if !slices.Equal(namesOf(k.state), k.names) {
			t.Error("an older state has changed")
		}
	}
	for name := range model {
		state = state.copied()
		state.set(name, nil)
	}
	if len(state.blocks) != 0 || state.count != 0 {
		t.Errorf("%d blocks and %d environments are left of nothing", len(state.blocks), state.count)
	}
}

// A state that a reader has taken is that of one commit, whatever happens afterwards.
func TestAReaderSeesOneCommit(t *testing.T) {
	inBubble(t, "", func(t *testing.T, g *rig) {
		g.mustTake("a", time.Hour)
		w := g.asks("b", time.Hour)
		synctest.Wait()
		taken := g.published.Load()
		v := taken.find("uat")
		until := v.leases[0].deadline
		time.Sleep(time.Minute)
		if err := g.extend("a"); err != nil {
			t.Fatal(err)
		}
		if now, _ := g.view("uat"); !now.leases[0].deadline.After(until) {
			t.Error("a renewal is not seen")
		}
		if err := g.free("a"); err != nil {
			t.Fatal(err)
		}
		if r := <-w.answer; r.err != nil {
			t.Fatal(r.err)
		}
		g.want("b |")
		if v != taken.find("uat") || len(v.leases) != 1 || v.leases[0].id != "a" || v.leases[0].deadline != until ||
			len(v.queue) != 1 || v.queue[0].id != "b" || len(taken.history) != 1 {
			t.Errorf("the state that was taken is now %v, %d events", v, len(taken.history))
		}
	})
}

// With -race: readers look at everything that they may while leases are granted, renewed and
// ended, waiters come and go, and the history drops events.
func TestReadersNeedNoLock(t *testing.T) {
	g := newRig(t, "")
	defer g.close()
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				for v := range g.published.Load().all() {
					viewToJSON(v, &publishedState{}, newCaller(plainKey("key"), ""), time.Now())
				}
				events, _ := g.events(eventFilter{limit: 1000})
				for _, e := range events {
					eventToJSON(e)
				}
			}
		})
	}
	ask := func(id string, wait time.Duration) <-chan reply {
		answer := make(chan reply, 1)
		c := &call{kind: callRequest, environment: "uat", request: request{id: id}, wait: true}
		go func() { answer <- g.requestSlot(t.Context(), c, wait) }()
		return answer
	}
	for i := range 20 {
		id, next := fmt.Sprint("holder", i), fmt.Sprint("next", i)
		g.mustTake(id, time.Hour)
		waiting := ask(next, 5*time.Millisecond)
		g.extend(id)
		if r := <-waiting; r.err == nil {
			t.Error("a slot was granted twice")
		}
		waiting = ask(next, time.Minute)
		g.free(id)
		if r := <-waiting; r.err != nil {
			t.Error(r.err)
		}
		g.free(next)
		g.mu.Lock()
		g.history.drop(trim{events: min(2, len(g.history.events))})
		g.mu.Unlock()
	}
	close(stop)
	readers.Wait()
}
