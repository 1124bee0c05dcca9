package main

import (
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// someViews returns n environments of every shape: free, held, with slots that are not
// declared, with a queue, and one that is larger than a piece.
func someViews(n int) (views []*view) {
	now := time.Now()
	for i := range n {
		name := fmt.Sprintf("environment-%06d <&>\"\u202e", i)
		v := &view{name: name, slots: []string{name, "blue", "green"}}
		leases, waiters := i%4, i%3
		if i%50 == 7 {
			leases, waiters = 200, 300
		}
		if i%5 == 0 {
			v.slots = nil
		}
		for j := range leases {
			l := &lease{request: request{id: "secret", holder: strings.Repeat("h", j%200), url: "https://ci.example/?a=1&b=2"},
				slot: fmt.Sprint("slot", j), fence: uint64(j + 1), since: now}
			if j == 0 {
				l.slot = "green"
			}
			v.leases = append(v.leases, leaseView{lease: l, deadline: now.Add(time.Hour)})
		}
		for j := range waiters {
			v.queue = append(v.queue, &waiter{request: request{id: "secret", reason: "::set-output name=a::b"}, number: uint64(j), since: now})
		}
		views = append(views, v)
	}
	return views
}

func wholeAnswer(t *testing.T, a *environmentsAnswer) string {
	t.Helper()
	all := environmentsJSON{Environments: []environmentJSON{}}
	for _, p := range pausesToJSON(a.state.pauses, a.now) {
		all.Pause = &p
	}
	for _, v := range a.views {
		j := viewToJSON(v, a.state, a.caller, a.now)
		j.Facts = factsToJSON(a.facts, v.name)
		all.Environments = append(all.Environments, j)
	}
	text, err := encodeJSON(all)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// The pieces of an answer are together what json makes of the whole, for each of its readers,
// however far one is behind the others.
func TestThePiecesAreTheWholeAnswer(t *testing.T) {
	for _, n := range []int{0, 1, 2, 8, 500} {
		now := time.Now()
		a := &environmentsAnswer{views: someViews(n), now: now, state: &publishedState{},
			facts: map[string]environmentFacts{}}
		if n > 0 {
			a.facts[a.views[0].name] = environmentFacts{url: "https://uat.example/?a=1&b=2", note: "\"<>"}
		}
		if n > 1 {
			a.state.pauses = []*pause{{by: "ann", since: now}}
		}
		want := wholeAnswer(t, a)
		r := &renderer{}
		read := func() (text string, pieces int) {
			for at := (place{}); ; pieces++ {
				p, err := a.piece(r, at)
				if err != nil {
					t.Fatal(err)
				}
				text += string(p.text)
				if p.isLast {
					return text, pieces + 1
				}
				at = p.next
			}
		}
		var others sync.WaitGroup
		for range 3 {
			others.Go(func() {
				if got, _ := read(); got != want {
					t.Errorf("%d environments: a reader beside others got %d bytes, want %d", n, len(got), len(want))
				}
			})
		}
		others.Wait()
		got, pieces := read()
		if got != want {
			t.Errorf("%d environments: got\n%.3000s\nwant\n%.3000s", n, got, want)
		}
		if enough := len(want) / pieceSize / 3; pieces <= enough {
			t.Errorf("%d bytes in %d pieces", len(want), pieces)
		}
		if strings.Contains(got, "secret") {
			t.Error("an id is in the answer")
		}
	}
}

// A caller gets no answer that is older than its call, and callers at the same time share one.
func TestASharedAnswerIsNotOlderThanTheCall(t *testing.T) {
	r := &renderer{}
	var written, rendered, asked atomic.Int64
	for range 50 {
		var callers sync.WaitGroup
		r.turn.Lock()
		for range 8 {
			callers.Go(func() {
				mine := written.Add(1)
				asked.Add(1)
				got, err := sharedAnswer(r, "key", func() (int64, error) {
					rendered.Add(1)
					return written.Load(), nil
				})
				if err != nil || got < mine {
					t.Errorf("got %d, %v, after writing %d", got, err, mine)
				}
			})
		}
		for range 20 {
			runtime.Gosched()
		}
		r.turn.Unlock()
		callers.Wait()
	}
	if rendered.Load() > asked.Load()/2 {
		t.Errorf("%d renderings for %d callers", rendered.Load(), asked.Load())
	}
	if len(r.next) != 0 {
		t.Errorf("%d renderings are kept", len(r.next))
	}
}

// A caller whose rendering has begun does not share it with those who come later.
func TestARenderingThatHasBegunIsNotShared(t *testing.T) {
	r := &renderer{}
	begun, finish := make(chan bool), make(chan bool)
	first := make(chan string, 1)
	go func() {
		text, _ := sharedAnswer(r, "key", func() (string, error) { close(begun); <-finish; return "old", nil })
		first <- text
	}()
	<-begun
	second := make(chan string, 1)
	go func() {
		text, _ := sharedAnswer(r, "key", func() (string, error) { return "new", nil })
		second <- text
	}()
	close(finish)
	if got := [2]string{<-first, <-second}; got != [2]string{"old", "new"} {
		t.Errorf("got %q", got)
	}
}

// A rendering that panics leaves nobody waiting, and the next one works.
func TestAPanicWhileRenderingStopsNobody(t *testing.T) {
	r := &renderer{}
	func() {
		defer func() { recover() }()
		sharedAnswer(r, "key", func() (string, error) { panic("a bug") })
	}()
	if got, err := sharedAnswer(r, "key", func() (string, error) { return "fine", nil }); got != "fine" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// An answer whose rendering fails in the middle does not look complete: the connection is
// aborted. If it fails at the beginning, the answer is an error.
func TestAnAnswerThatFailsHalfWayIsNotComplete(t *testing.T) {
	s := newSite(t, "")
	bad := &view{name: "bad", leases: []leaseView{{lease: &lease{slot: "bad", fence: 1, since: time.Date(20_000, 1, 1, 0, 0, 0, 0, time.UTC)}}}}
	publish := func(views ...*view) {
		s.keeper.mu.Lock()
		defer s.keeper.mu.Unlock()
		s.keeper.published.Store(&publishedState{blocks: [][]*view{views}, count: len(views)})
	}
	get := func() (*http.Response, error) {
		r, _ := http.NewRequest(http.MethodGet, s.url+"/environments", nil)
		r.Header.Set("X-API-KEY", testKey)
		response, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		_, err = io.ReadAll(response.Body)
		return response, err
	}
	publish(bad)
	if response, err := get(); response.StatusCode != 500 || err != nil {
		t.Errorf("%s, %v", response.Status, err)
	}
	publish(append(someViews(500), bad)...)
	if response, err := get(); response.StatusCode != 200 || err == nil {
		t.Errorf("%s: the answer ended as if it were complete", response.Status)
	}
	s.call("GET /healthz").want(t, 200, "ok")
}
