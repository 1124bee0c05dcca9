package main

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

// bothOf asks for uat and perf, typed in this order.
var bothOf = acquireOptions{environment: "uat", holder: "h", ttl: time.Hour, timeout: 5 * time.Second,
	needs: []slotNeed{{environment: "uat"}, {environment: "perf", slot: "perf-2"}}}

// The leases are in the order in which they were asked for, and are all confirmed.
func TestAcquireOfSeveralEnvironments(t *testing.T) {
	s := newSite(t, "uat,perf:2")
	c, _ := gateway(t, s, func(http.ResponseWriter, *http.Request, int32) bool { return false })
	g, err := c.acquire(t.Context(), bothOf, &eventCounter{})
	if err != nil || len(g.Leases) != 2 || g.Leases[0].Slot != "uat" || g.Leases[1].Slot != "perf-2" || g.Fence != g.Leases[0].Fence {
		t.Fatalf("%+v, %v", g, err)
	}
	if g.label() != "uat and perf perf-2" {
		t.Errorf("it is called %s", g.label())
	}
	if err := c.endRequest(t.Context(), "perf", g.id, "uat"); err != nil {
		t.Error(err)
	}
	s.call("GET /maybe?environment=uat").want(t, 200, "")
}

// Where one of several leases is lost before it is confirmed, the request begins anew at once:
// it does not wait for what it has left of the first time.
func TestALostConfirmationOfSeveralLeavesNothing(t *testing.T) {
	s := newSite(t, "uat,perf:2")
	puts := 0
	c, _ := gateway(t, s, func(_ http.ResponseWriter, r *http.Request, _ int32) bool {
		if r.Method == http.MethodPut {
			puts++
			if puts == 1 {
				s.call("DELETE /maybe?environment=uat&force=1&holder=boss")
			}
		}
		return false
	})
	var e eventCounter
	g, err := c.acquire(t.Context(), bothOf, &e)
	if err != nil || len(g.Leases) != 2 || e.restartedCount.Load() != 1 {
		t.Errorf("%+v, %v, begun anew %d times", g, err, e.restartedCount.Load())
	}
}

// An answer that has not all that was asked for is none of call-me's.
func TestAnAnswerWithoutOneOfTheLeasesIsNotTaken(t *testing.T) {
	granted := grantedJSON{Leases: []leaseJSON{{Environment: "uat", Slot: "uat", Fence: 1}}}
	if !granted.isFor("uat") || granted.isFor("perf") {
		t.Error("it has a lease on perf")
	}
	s := newSite(t, "uat,perf:2")
	c, _ := gateway(t, s, func(w http.ResponseWriter, r *http.Request, n int32) bool {
		w.Header().Set(versionHeader, apiVersion)
		body := `{"leases":[{"environment":"uat","slot":"uat","fence":1}]}`
		return says(201, "application/json", body)(w, r, n)
	})
	o := bothOf
	o.timeout = time.Second
	if _, err := c.acquire(t.Context(), o, &eventCounter{}); err == nil || !strings.Contains(err.Error(), "call-me") {
		t.Errorf("it is taken: %v", err)
	}
}
