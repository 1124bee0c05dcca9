package main

// Tests of the parameters of a request that say what it needs: several environments, certain
// slots, a priority.

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// held returns the leases of an answer to a request for several slots, as "uat=uat web=blue".
func (r httpReply) held(t *testing.T) string {
	t.Helper()
	var all leasesJSON
	if err := json.Unmarshal([]byte(r.body), &all); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, l := range all.Leases {
		if l.Fence == 0 {
			t.Errorf("%+v has no fence", l)
		}
		names = append(names, string(l.Environment+"="+l.Slot))
	}
	return strings.Join(names, " ")
}

func TestARequestForSeveralSlots(t *testing.T) {
	s := newSite(t, "uat,perf:2,web:blue+green")
	const both = "environment=web&slot=green&environment=uat&slot=&id=12345678"
	r := s.call("POST /maybe?"+both+"&ttl=1m").want(t, 201, "")
	if got := r.held(t); got != "uat=uat web=green" {
		t.Errorf("granted %q", got)
	}
	if got := s.call("POST /maybe?environment=uat&slot=&slot=green&environment=web&id=12345678&ttl=1m").want(t, 201, "").held(t); got != "uat=uat web=green" {
		t.Errorf("in another order the same id is told %q", got)
	}
	s.call("POST /maybe?environment=uat&id=12345678&ttl=1m").want(t, 422, "")
	s.call("PUT /maybe?environment=web&environment=uat&id=12345678&ttl=2m").want(t, 200, "")
	if got := s.call("PUT /maybe?environment=uat&environment=web&id=12345678").want(t, 200, "").held(t); got != "uat=uat web=green" {
		t.Errorf("renewed %q", got)
	}
	s.call("PUT /maybe?environment=perf&environment=uat&environment=web&id=12345678").want(t, 409, "")
	s.call("DELETE /maybe?environment=uat&force=1&holder=root").want(t, 204, "")
	s.call("PUT /maybe?environment=uat&environment=web&id=12345678").want(t, 409, "").names(t, "uat")
	s.call("POST /maybe?"+both+"&ttl=1m").want(t, 410, "")
	s.call("DELETE /maybe?environment=web&environment=uat&id=12345678").want(t, 409, "").names(t, "uat")
	s.call("GET /maybe?environment=web").want(t, 200, "")
	s.call("POST /maybe?environment=perf&environment=perf&id=abcdefgh").want(t, 201, "")
	s.call("GET /maybe?environment=perf").want(t, 403, "")
}

// names fails the test unless the error is about the environment.
func (r httpReply) names(t *testing.T, environment string) {
	t.Helper()
	var e errorJSON
	if err := json.Unmarshal([]byte(r.body), &e); err != nil || string(e.Environment) != environment {
		t.Errorf("the error %s, %v is not about %s", r.body, err, environment)
	}
}

// A request that waits for several slots is told about the one in which it is furthest behind.
func TestAWaiterForSeveralSlotsIsToldWhatItWaitsFor(t *testing.T) {
	s := newSite(t, "uat,perf")
	s.call("POST /maybe?environment=perf&id=11111111&holder=ann").want(t, 201, "")
	s.call("POST /maybe?environment=perf&id=22222222&holder=bob&wait=1ms").want(t, 403, "")
	r := s.call("POST /maybe?environment=uat&environment=perf&id=33333333&holder=eve&wait=1ms").want(t, 403, "")
	r.names(t, "perf")
	var e errorJSON
	json.Unmarshal([]byte(r.body), &e)
	if e.Position != 2 || len(e.HeldBy) != 1 || e.HeldBy[0].Holder != "ann" {
		t.Errorf("it is told %s", r.body)
	}
	s.call("GET /maybe?environment=uat").want(t, 403, "") // kept for eve
	body := s.call("GET /environments?environment=uat").want(t, 200, "").body
	var all environmentsJSON
	if err := json.Unmarshal([]byte(body), &all); err != nil {
		t.Fatal(err)
	}
	if w := all.Environments[0].Queue[0]; len(w.Needs) != 2 || w.Needs[0].Environment != "perf" || w.Needs[1].Environment != "uat" {
		t.Errorf("the waiter of uat needs %+v", w.Needs)
	}
	s.call("DELETE /maybe?environment=perf&id=33333333").want(t, 204, "")
	s.call("GET /maybe?environment=uat").want(t, 200, "")
}

// Who looks, and who is refused, is told for whom a free slot is kept and what that request
// still waits for, or that it is offered to a caller who is away.
func TestAKeptSlotIsShown(t *testing.T) {
	s := newSite(t, "uat,perf,web:2")
	s.call("POST /maybe?environment=perf&id=11111111&holder=ann").want(t, 201, "")
	s.call("POST /maybe?environment=uat&environment=perf&environment=web&id=33333333&holder=eve&wait=1ms").want(t, 403,
		`"waits_for":[{"environment":"perf","position":1,"held_by":[{"environment":"perf",`)
	const kept = `"holder":"eve","position":1,"waits_for":[{"environment":"perf"}]}`
	s.call("GET /environments?environment=uat").want(t, 200, `{"slot":"uat","lease":null,"kept":{`+kept)
	s.call("GET /environments").want(t, 200, `{"slot":"web-1","lease":null,"kept":{`+kept)
	s.call("GET /environments").want(t, 200, `{"slot":"web-2","lease":null}`)
	s.call("GET /maybe?environment=uat&reason=x").want(t, 403, `"kept":[{"slot":"uat",`+kept+`]`)
	s.call("POST /maybe?environment=uat&id=44444444&holder=bob").want(t, 403, `no free slot on \"uat\"; uat is kept for eve, which waits for perf"`)
	s.call("POST /maybe?environment=uat&id=44444444&holder=bob").want(t, 403, `"kept":[{"slot":"uat",`+kept+`]`)
	s.call("POST /maybe?environment=uat&environment=web&id=55555555&holder=joe&wait=1ms").want(t, 403,
		`"waits_for":[{"environment":"uat","position":2,"kept":[{"slot":"uat",`+kept+`]}]`)
	s.call("GET /").want(t, 200, "kept for <bdi>eve</bdi>")
	s.call("DELETE /maybe?environment=perf&id=11111111").want(t, 204, "")
	offered := s.call("GET /environments?environment=uat").want(t, 200, `"kept":{"holder":"eve","position":1}`)
	if strings.Contains(offered.body, "waits_for") {
		t.Errorf("eve, who is away, waits for nothing else: %s", offered.body)
	}
	s.call("POST /maybe?environment=uat&environment=perf&environment=web&id=33333333&holder=eve&wait=1ms").want(t, 201, "")
	s.call("POST /maybe?environment=perf&environment=perf&id=66666666").want(t, 422, "")
	s.call("DELETE /maybe?environment=uat&environment=perf&environment=web&id=33333333").want(t, 204, "")
	s.call("POST /maybe?environment=web&id=77777777").want(t, 201, "") // of the two of web one is joe's
	r := s.call("POST /maybe?environment=web&environment=web&id=88888888&wait=1ms").want(t, 403, `"waits_for":[{"environment":"web","position":2,`)
	if strings.Count(r.body, `"kept"`) != 2 { // joe's, and none of its own
		t.Errorf("it is told %s", r.body)
	}
}

func TestAPriorityIsShownAndPasses(t *testing.T) {
	s := newSite(t, "uat")
	s.call("POST /maybe?environment=uat&id=11111111").want(t, 201, "")
	s.call("POST /maybe?environment=uat&id=22222222&wait=1ms").want(t, 403, "")
	s.call("POST /maybe?environment=uat&id=33333333&wait=1ms&priority=10&slot=uat").want(t, 403, "")
	var all environmentsJSON
	json.Unmarshal([]byte(s.call("GET /environments").want(t, 200, "").body), &all)
	if q := all.Environments[0].Queue; len(q) != 2 || q[0].Priority != 10 || len(q[0].Needs) != 1 || q[0].Needs[0].Slot != "uat" || q[1].Priority != 0 {
		t.Errorf("the queue is %+v", q)
	}
	s.call("DELETE /maybe?environment=uat&id=11111111").want(t, 204, "")
	l := s.call("POST /maybe?environment=uat&id=33333333&wait=5s&priority=10&slot=uat").want(t, 201, "").lease(t)
	if l.Priority != 10 || l.Since.Before(time.Now().Add(-time.Minute)) {
		t.Errorf("the lease is %+v", l)
	}
}

func TestNeedsThatCannotBe(t *testing.T) {
	s := newSite(t, "uat,perf:2,web:blue+green")
	for call, status := range map[string]int{
		"environment=uat&environment=perf":                                     422, // no id
		"environment=uat&environment=uat&id=12345678":                          422, // it has one
		"environment=uat&environment=prod&id=12345678":                         404,
		"environment=web&slot=red&id=12345678":                                 422,
		"environment=web&environment=web&slot=blue&slot=blue&id=12345678":      422,
		"environment=web&environment=uat&slot=blue&id=12345678":                422,
		"environment=web&slot=blue&slot=green":                                 422,
		"environment=uat&priority=101":                                         422,
		"environment=uat&priority=high":                                        422,
		"environment=uat&id=12345678&id=12345678":                              400,
		strings.Repeat("environment=perf&", 9) + "id=12345678":                 422,
		"environment=uat&environment=perf&slot=&slot=perf-2&id=12345678&wait=": 201,
	} {
		s.call("POST /maybe?"+call).want(t, status, "")
	}
	s.call("PUT /maybe?environment=uat&environment=perf&holder=ann").want(t, 422, "")
	s.call("DELETE /maybe?environment=uat&environment=perf&holder=ann").want(t, 422, "")
	s.call("GET /maybe?environment=uat&environment=perf").want(t, 400, "")
	s.call("GET /environments?environment=uat&environment=perf").want(t, 400, "")
}

// What a request needs, and its rank, survive a restart.
func TestNeedsSurviveARestart(t *testing.T) {
	s := newSite(t, "uat,perf")
	s.call("POST /maybe?environment=perf&id=11111111").want(t, 201, "")
	s.call("POST /maybe?environment=uat&environment=perf&id=22222222&wait=1ms").want(t, 403, "")
	s.call("POST /maybe?environment=perf&id=33333333&wait=1ms&priority=5").want(t, 403, "")
	s.restart()
	s.server.keeper = s.keeper
	var all environmentsJSON
	json.Unmarshal([]byte(s.call("GET /environments").want(t, 200, "").body), &all)
	perf, uat := all.Environments[0], all.Environments[1]
	if len(perf.Queue) != 2 || perf.Queue[0].Priority != 5 || len(perf.Queue[1].Needs) != 2 || len(uat.Queue) != 1 {
		t.Errorf("after a restart perf is %+v, uat %+v", perf, uat)
	}
	s.call("POST /maybe?environment=uat&environment=perf&id=22222222&wait=1ms").want(t, 403, "")
	s.call("DELETE /maybe?environment=uat&id=22222222").want(t, 204, "")
	json.Unmarshal([]byte(s.call("GET /environments").want(t, 200, "").body), &all)
	if n := len(all.Environments[0].Queue) + len(all.Environments[1].Queue); n != 1 {
		t.Errorf("%d waiters are left, want 1", n)
	}
}
