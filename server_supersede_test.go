package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// queue returns the queue of an environment as GET /environments has it.
func (s *site) queue(environment string) []waiterJSON {
	s.t.Helper()
	var all environmentsJSON
	r := s.call("GET /environments?environment="+environment).want(s.t, 200, "")
	if err := json.Unmarshal([]byte(r.body), &all); err != nil {
		s.t.Fatal(err)
	}
	return all.Environments[0].Queue
}

// number returns the number of the caller's request, which waits.
func (r httpReply) number(t *testing.T) uint64 {
	t.Helper()
	var e errorJSON
	if err := json.Unmarshal([]byte(r.want(t, 403, "").body), &e); err != nil || e.Number == 0 {
		t.Fatalf("%s has no number: %v", r.body, err)
	}
	return e.Number
}

func TestNewestWinsOverHTTP(t *testing.T) {
	s := newSite(t, "uat")
	s.call("POST /maybe?environment=uat&id=holder-01&holder=eve")
	const old, newer = "POST /maybe?environment=uat&supersede=shop/main&wait=1ms&id=old-id-01&holder=run1",
		"POST /maybe?environment=uat&supersede=shop/main&wait=1ms&id=new-id-01&holder=run2&url=https://ci/2"
	first := s.call(old).number(t)
	s.call("POST /maybe?environment=uat&wait=1ms&id=between-1").number(t)
	if n := s.call(newer).number(t); n <= first || s.queue("uat")[0].Number != n || s.queue("uat")[0].Holder != "run2" {
		t.Errorf("the queue is %+v", s.queue("uat"))
	}
	told := s.call(old).want(t, 410, `this request was superseded by run2 at 2`).want(t, 410, `Z: https://ci/2","environment":"uat","held_by"`)
	told.want(t, 410, `"ended":{"how":"superseded"`).want(t, 410, `"by":"run2","by_url":"https://ci/2"}`)
	s.call("PUT /maybe?environment=uat&id=old-id-01").want(t, 409, `"how":"superseded"`)
	s.call("DELETE /maybe?environment=uat&id=old-id-01").want(t, 204, "")
	anew := strings.Replace(old, "old-id-01", fmt.Sprint("anew-id-1&first=", first), 1)
	s.call(anew).want(t, 410, "was superseded by run2")
	s.call(anew).want(t, 410, "was superseded by run2")
	if q := s.queue("uat"); len(q) != 2 {
		t.Errorf("the queue is %+v", q)
	}
	if e := s.historyOf("").Events; e[0].Event != "superseded" || e[0].Holder != "run1" || e[0].By != "run2" || e[0].ByURL != "https://ci/2" ||
		e[1].Event != "superseded" || e[1].WaitedSeconds <= 0 {
		t.Errorf("the history is %+v", e[:2])
	}
	for _, wrong := range []string{"supersede=k&id=12345678", "supersede=k&wait=1s", "supersede=&wait=1s&id=12345678", "first=7&wait=1s&id=12345678",
		"supersede=k&wait=1s&id=12345678&first=x", "supersede=k&wait=1s&id=12345678&first=0", "supersede=k&wait=1s&id=12345678&take=7",
		"supersede=" + strings.Repeat("k", 257) + "&wait=1s&id=12345678"} {
		s.call("POST /maybe?environment=uat&"+wrong).want(t, 422, "")
	}
	s.call(strings.Replace(newer, "shop/main", "shop/other", 1)).want(t, 422, "other terms")
}

func TestARemovalOverHTTP(t *testing.T) {
	s := newSite(t, "uat,perf")
	s.call("POST /maybe?environment=uat&id=holder-01&holder=eve")
	const both = "POST /maybe?environment=uat&environment=perf&wait=1ms&id=stuck-id1&holder=run1"
	number := s.call(both).number(t)
	s.call("POST /maybe?environment=perf&id=perf-id-01").want(t, 403, "")
	remove := fmt.Sprint("DELETE /maybe?environment=uat&force=1&holder=ann&reason=stuck&waiter=", number)
	if r := s.call(remove).want(t, 204, ""); r.Header.Get("Call-Me-Released") != "0" {
		t.Errorf("the header is %v", r.Header)
	}
	s.call("POST /maybe?environment=perf&id=perf-id-01").want(t, 201, "")
	s.call(both).want(t, 410, `this request was removed from the queue by ann (stuck) at 2`).want(t, 410, `"how":"removed"`).
		want(t, 410, `"by":"ann","why":"stuck"}`)
	s.call(remove).want(t, 409, `no request with this number waits for \"uat\"`)
	s.call("DELETE /maybe?environment=uat&id=stuck-id1").want(t, 204, "")
	e := s.historyOf("").Events
	if e[1].Event != "removed" || e[1].By != "ann" || e[1].Why != "stuck" || e[1].From != "127.0.0.1" || e[2].Event != "removed" || e[2].Environment == e[1].Environment {
		t.Errorf("the history is %+v", e[:3])
	}
	next := s.call("POST /maybe?environment=uat&wait=1ms&id=next-id-01").number(t)
	s.call("DELETE /maybe?environment=uat&id=holder-01").want(t, 204, "")
	s.call("POST /maybe?environment=uat&wait=1ms&id=next-id-01").want(t, 201, "")
	s.call(fmt.Sprint("DELETE /maybe?environment=uat&force=1&waiter=", next)).want(t, 409, "")
	s.call("GET /maybe?environment=uat").want(t, 403, "")
	s.call("DELETE /maybe?environment=uat&force=1&reason=stale").want(t, 204, "")
	if e := s.historyOf("").Events[0]; e.Event != "forced" || e.Why != "stale" {
		t.Errorf("the history is %+v", e)
	}
	for _, wrong := range []string{"waiter=7", "waiter=7&id=12345678", "waiter=7&holder=ann", "waiter=x&force=1", "waiter=0&force=1", "waiter=7&force=1&fence=7",
		"waiter=7&force=1&slot=uat", "waiter=7&force=1&id=12345678", "waiter=7&force=1&environment=perf"} {
		s.call("DELETE /maybe?environment=uat&"+wrong).want(t, 422, "")
	}
}

// A waiter without id hears of its removal, too.
func TestAWaiterWithoutIDIsToldOfItsRemoval(t *testing.T) {
	s := newSite(t, "uat")
	s.call("POST /maybe?environment=uat&id=holder-01&holder=eve")
	answer := make(chan httpReply, 1)
	go func() { answer <- s.call("POST /maybe?environment=uat&wait=25s&holder=curl") }()
	for len(s.queue("uat")) == 0 {
		time.Sleep(time.Millisecond)
	}
	s.call(fmt.Sprint("DELETE /maybe?environment=uat&force=1&holder=ann&waiter=", s.queue("uat")[0].Number)).want(t, 204, "")
	(<-answer).want(t, 410, "was removed from the queue by ann")
}

// The places, their order and what has ended are stored.
func TestNewestWinsIsStored(t *testing.T) {
	inBubble(t, "uat", func(t *testing.T, g *rig) {
		g.asks("holder-id", 0).wantLease(t)
		ask := func(id, key string, first uint64) reply {
			c := &call{kind: callRequest, environment: "uat", request: request{id: id, holder: id, supersede: key, first: first}, wait: true}
			return g.keeper.requestSlot(t.Context(), c, time.Millisecond)
		}
		old := ask("old-id-01", "main", 0)
		ask("between-1", "", 0)
		newer := ask("new-id-01", "main", 0)
		g.restart()
		if r := ask("old-id-01", "main", 0); r.err != errEnded || r.ended.kind != eventSuperseded || r.ended.event.by != "new-id-01" {
			t.Errorf("the old one is told %+v", r)
		}
		if r := ask("old-again", "main", old.number); r.err != errEnded || r.ended.kind != eventSuperseded {
			t.Errorf("the old one, which begins anew, is told %+v", r)
		}
		v, _ := g.keeper.view("uat")
		if len(v.queue) != 2 || v.queue[0].id != "new-id-01" || v.queue[0].number != newer.number {
			t.Errorf("the queue is %+v", v.queue)
		}
		ask("newest-id", "main", 0)
		g.restart()
		g.keeper.ask(&call{kind: callRelease, environment: "uat", release: releaseRequest{selector: selector{id: "holder-id"}}})
		if r := ask("newest-id", "main", 0); len(r.own) != 1 {
			t.Errorf("the newest is told %+v", r)
		}
		if r := ask("new-again", "main", newer.number); r.err != errEnded || r.ended.kind != eventSuperseded {
			t.Errorf("one that is older than the holder is told %+v", r)
		}
	})
}

// A place that is taken over needs no room among the waiters.
func TestNewestWinsWhereTooManyWait(t *testing.T) {
	inBubble(t, "uat", func(t *testing.T, g *rig) {
		g.keeper.limits.waiters = 1
		g.asks("holder-id", 0).wantLease(t)
		ask := func(id string) chan reply {
			answer := make(chan reply, 1)
			c := &call{kind: callRequest, environment: "uat", request: request{id: id, supersede: "main"}, wait: true}
			go func() { answer <- g.keeper.requestSlot(t.Context(), c, time.Minute) }()
			return answer
		}
		old := ask("old-id-01")
		time.Sleep(time.Second)
		ask("new-id-01")
		if r := <-old; r.err != errEnded {
			t.Errorf("the old one is told %v", r.err)
		}
	})
}
