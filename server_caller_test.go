package main

// Tests of what a caller with a name may do over HTTP. The matrix of all routes, commands and
// roles is in tests/roles_test.go.

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// keysOf sets the keys of the server: testKey, which has no name, and those of the lines.
func (s *site) keysOf(lines ...string) {
	s.t.Helper()
	read, err := parseKeys(strings.Join(lines, "\n"))
	if err != nil {
		s.t.Fatal(err)
	}
	keys := []acceptedKey{plainKey(testKey)}
	for _, l := range read {
		keys = append(keys, l.acceptedKey)
	}
	s.server.keys.set(keys)
}

// as sends one call with a key.
func (s *site) as(key, line string) httpReply {
	s.t.Helper()
	return s.with(http.Header{"X-Api-Key": {key}}, line)
}

// An environment that the key does not see is in no answer, whatever is asked.
func TestAnEnvironmentOfOthersDoesNotExist(t *testing.T) {
	for _, declared := range []string{"uat,perf-1,hidden-prod", ""} {
		s := newSite(t, declared)
		s.keysOf("of-the-shop name=shop environments=uat,perf-*")
		s.call("POST /maybe?environment=hidden-prod&id=in-prod-1&holder=owner")
		s.call("POST /maybe?environment=hidden-prod&id=in-prod-2&holder=other&wait=0s")
		l := s.dial()
		l.send("POST /maybe?environment=uat&environment=hidden-prod&id=needs-both&holder=both&wait=1m")
		s.connected(2) // in two queues
		s.call("POST /maybe?environment=perf-1&id=in-perf-1&holder=ann").want(t, 201, "")
		s.call("DELETE /maybe?environment=perf-1&id=in-perf-1").want(t, 204, "")
		s.call("PUT /pause?environment=hidden-prod&holder=root").want(t, 200, "")
		s.call("DELETE /pause?environment=hidden-prod&holder=root").want(t, 200, "")
		looks := []string{"GET /environments", "GET /environments?environment=uat", "GET /history", "GET /history?limit=1", "GET /", "GET /?since=7d", "GET /?environment=uat", "GET /?q=hidden", "GET /rows", "GET /rows?past=1", "GET /history?format=csv",
			"GET /maybe?environment=uat&id=12345678", "POST /maybe?environment=uat&id=12345678", "POST /maybe?environment=hidden-pro",
			"GET /maybe?environment=hidden-prodd", "POST /maybe?environment=perf-1&id=12345678", "DELETE /maybe?environment=perf-1&id=12345678", "GET /key"}
		for _, line := range looks {
			if r := s.as("of-the-shop", line); strings.Contains(r.body, "hidden-prod\"") || strings.Contains(r.body, "hidden-prod<") ||
				strings.Contains(strings.ReplaceAll(strings.ReplaceAll(r.body, `"hidden-prodd`, ""), `\"hidden-prodd`, ""), "hidden-prod") {
				t.Errorf("declared %q: %s: %s", declared, line, r.body)
			}
		}
		if r := s.as("of-the-shop", "GET /environments"); !strings.Contains(r.body, `"uat"`) || !strings.Contains(r.body, `"needs":[{"environment":"uat"},{"environment":"","other":true}]`) {
			t.Errorf("what is its own: %s", r.body)
		}
		s.as("of-the-shop", "POST /maybe?environment=uat&id=12345678").want(t, 403, "uat is kept for both, which waits for another environment")
		s.as("of-the-shop", "GET /").want(t, 200, "another environment")
		if r := s.as("of-the-shop", "GET /history"); !strings.Contains(r.body, "ann") {
			t.Errorf("the history has not what is its own: %s", r.body)
		}
		for _, line := range []string{"GET /environments?environment=NAME", "GET /history?environment=NAME", "GET /?environment=NAME", "GET /history?environment=NAME&format=csv", "GET /events?environment=NAME", "GET /maybe?environment=NAME",
			"POST /maybe?environment=NAME", "POST /maybe?environment=NAME&id=12345678&wait=1m", "POST /maybe?environment=uat&environment=NAME&id=12345678",
			"PUT /maybe?environment=NAME&id=12345678", "PUT /maybe?environment=NAME&holder=owner", "DELETE /maybe?environment=NAME", "DELETE /maybe?environment=NAME&id=12345678",
			"DELETE /maybe?environment=NAME&holder=owner", "DELETE /maybe?environment=NAME&holder=owner&to=me"} {
			real := s.as("of-the-shop", strings.ReplaceAll(line, "NAME", "hidden-prod")).want(t, 404, "")
			none := s.as("of-the-shop", strings.ReplaceAll(line, "NAME", "hidden-none")).want(t, 404, "")
			if strings.ReplaceAll(real.body, "hidden-prod", "hidden-none") != none.body {
				t.Errorf("%s: %s, and of one that is not there %s", line, real.body, none.body)
			}
		}
		s.as("of-the-shop", "GET /metrics").want(t, 403, `"limit":{"name":"environments","value":"uat,perf-*"}`)
		s.call("GET /environments").want(t, 200, "hidden-prod")
		s.call("DELETE /maybe?environment=uat&environment=hidden-prod&id=needs-both")
	}
}

// The page offers only what the key may do.
func TestThePageOffersWhatTheKeyMayDo(t *testing.T) {
	s := newSite(t, "")
	s.keysOf("of-the-shop name=shop", "of-viewers name=viewers role=view", "of-the-root name=root role=admin")
	for _, c := range []struct{ user, key, class string }{{"ann", "of-the-shop", ` own"`}, {"ann", "of-viewers", ` look"`}, {"ann", "of-the-root", `""`},
		{"ann", testKey, `""`}, {"", testKey, ` look"`}, {"", "of-the-shop", ` look"`}} {
		r, _ := http.NewRequest("GET", s.url+"/", nil)
		r.SetBasicAuth(c.user, c.key)
		if r := s.send(r).want(t, 200, ""); !strings.Contains(r.body, `<body class=`+strings.Replace(c.class, " ", `" `, 1)) && !strings.Contains(r.body, `<body class=`+c.class+` data-viewer`) {
			t.Errorf("%s with %s: %.900s", c.user, c.key, r.body)
		}
	}
}

// A similar name of an environment that the key does not see is not proposed.
func TestASimilarNameOfOthersIsNotProposed(t *testing.T) {
	s := newSite(t, "")
	s.keysOf("of-the-shop name=shop environments=staging,stagimg")
	s.call("POST /maybe?environment=stagin&id=of-others")
	if r := s.as("of-the-shop", "POST /maybe?environment=staging&id=12345678").want(t, 201, ""); strings.Contains(r.body, "similar") {
		t.Errorf("proposed: %s", r.body)
	}
	s.as("of-the-shop", "POST /maybe?environment=stagimg&id=12345678").want(t, 201, `"similar":"staging"`)
}

// Events of other environments are sent to nobody who does not see them, neither new ones nor
// those after Last-Event-ID; also when the environments of the key change meanwhile.
func TestEventsOfOtherEnvironmentsAreNotSent(t *testing.T) {
	s := newSite(t, "")
	s.keysOf("of-the-shop name=shop environments=uat,later")
	s.call("POST /maybe?environment=prod&id=in-prod-1&holder=before")
	s.call("POST /maybe?environment=uat&id=in-uat-1&holder=mine-1")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	r, _ := http.NewRequestWithContext(ctx, "GET", s.url+"/events", nil)
	r.Header = http.Header{"X-Api-Key": {"of-the-shop"}, "Last-Event-Id": {"1"}}
	response, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	var all strings.Builder
	until := func(text string) {
		t.Helper()
		for lines.Scan() {
			fmt.Fprintln(&all, lines.Text())
			if strings.Contains(lines.Text(), text) {
				return
			}
		}
		t.Fatalf("%s was not sent: %v\n%s", text, lines.Err(), all.String())
	}
	s.call("POST /maybe?environment=prod2&id=in-prod-2&holder=then")
	s.call("DELETE /maybe?environment=uat&id=in-uat-1")
	until("mine-1")
	s.keysOf("of-the-shop name=shop environments=later")
	s.call("POST /maybe?environment=uat&id=in-uat-2&holder=after")
	s.call("POST /maybe?environment=later&id=in-later&holder=mine-2")
	until("mine-2")
	for _, name := range []string{"prod", "before", "then", "after", "change"} {
		if strings.Contains(all.String(), name) {
			t.Errorf("%s was sent:\n%s", name, all.String())
		}
	}
}

// A lease outlives the limits and the environments of its key: by its id it is renewed with its
// ttl, and released. The answers say nothing of others.
func TestALeaseOutlivesTheLimitsOfItsKey(t *testing.T) {
	s := newSite(t, "")
	s.keysOf("of-the-shop name=shop max-ttl=4h")
	s.as("of-the-shop", "POST /maybe?environment=uat&id=12345678&holder=ann&ttl=4h").want(t, 201, `"key":"shop"`)
	s.call("POST /maybe?environment=uat&id=87654321&holder=hidden-name&wait=0s")
	s.keysOf("of-the-shop name=shop max-ttl=1m max-hold=1m max-places=1 environments=other")
	for range 2 {
		s.as("of-the-shop", "PUT /maybe?environment=uat&id=12345678&ttl=4h").want(t, 200, `"ttl_seconds":14400`)
		s.as("of-the-shop", "PUT /maybe?environment=uat&id=12345678").want(t, 200, `"ttl_seconds":14400`)
	}
	s.as("of-the-shop", "PUT /maybe?environment=uat&id=12345678&ttl=2h").want(t, 422, `"limit":{"name":"max-ttl","value":"1m","seconds":60}`)
	s.as("of-the-shop", "PUT /maybe?environment=uat&id=12345678&ttl=0").want(t, 422, `the key \"shop\" allows max-ttl=1m`)
	s.as("of-the-shop", "PUT /maybe?environment=uat&holder=ann").want(t, 404, "")
	s.as("of-the-shop", "DELETE /maybe?environment=uat&id=12345678").want(t, 204, "")
	s.as("of-the-shop", "DELETE /maybe?environment=uat&id=12345678").want(t, 204, "") // repeated
	s.call("POST /maybe?environment=uat&id=87654321&holder=hidden-name&wait=0s")
	if r := s.as("of-the-shop", "PUT /maybe?environment=uat&id=12345678").want(t, 409, ""); strings.Contains(r.body, "hidden-name") {
		t.Errorf("who has it now: %s", r.body)
	}
	s.as("of-the-shop", "PUT /maybe?environment=uat&id=unknown-id").want(t, 404, "")
}

// Without a ttl a lease gets the smaller of the server's default and max-ttl.
func TestTheDefaultTTLOfAKey(t *testing.T) {
	s := newSite(t, "")
	for i, c := range []struct {
		preset time.Duration
		most   string
		want   float64
	}{{0, "max-ttl=1h", 3600}, {time.Minute, "max-ttl=1h", 60}, {2 * time.Hour, "max-ttl=1h", 3600}, {time.Hour, "role=job", 3600}, {0, "role=job", 0}} {
		s.server.defaultTTL = c.preset
		s.keysOf("of-the-shop name=shop " + c.most)
		var l leaseJSON
		r := s.as("of-the-shop", fmt.Sprint("POST /maybe?environment=uat&id=request-", i)).want(t, 201, "")
		if err := json.Unmarshal([]byte(r.body), &l); err != nil || l.TTLSeconds != c.want {
			t.Errorf("%v, %s: %s", c.preset, c.most, r.body)
		}
		var handed environmentsJSON
		s.as("of-the-shop", fmt.Sprint("DELETE /maybe?environment=uat&to=ann&id=request-", i)).want(t, 204, "")
		json.Unmarshal([]byte(s.call("GET /environments").body), &handed)
		if l := handed.Environments[0].Slots[0].Lease; l.TTLSeconds != c.want || l.Key != "shop" {
			t.Errorf("%v, %s: handed over as %+v", c.preset, c.most, l)
		}
		s.call("DELETE /maybe?environment=uat&force=1").want(t, 204, "")
	}
}

// What is over a limit is 422 with the limit, the key and no lease of others.
func TestWhatIsOverALimit(t *testing.T) {
	s := newSite(t, "")
	s.keysOf("of-the-shop name=shop max-ttl=1h max-hold=2h max-places=2 max-priority=5")
	for query, want := range map[string]string{
		"ttl=61m":                     `"limit":{"name":"max-ttl","value":"1h","seconds":3600}`,
		"ttl=0":                       `"limit":{"name":"max-ttl","value":"1h","seconds":3600}`,
		"max_hold=3h":                 `"limit":{"name":"max-hold","value":"2h","seconds":7200}`,
		"priority=6":                  `"limit":{"name":"max-priority","value":"5"}`,
		"environment=b&environment=c": `"limit":{"name":"max-places","value":"2"}`,
	} {
		r := s.as("of-the-shop", "POST /maybe?environment=uat&id=12345678&"+query).want(t, 422, want)
		if !strings.Contains(r.body, `"key":"shop"`) || strings.Contains(r.body, "held_by") || !strings.Contains(r.body, `the key \"shop\" allows `) {
			t.Errorf("%s: %s", query, r.body)
		}
	}
	s.as("of-the-shop", "POST /maybe?environment=uat&id=12345678&ttl=1h&max_hold=2h&priority=5").want(t, 201, `"max_hold_seconds":7200`)
	s.as("of-the-shop", "POST /maybe?environment=uat&holder=any&wait=0s").want(t, 403, "no free slot")
	s.as("of-the-shop", "POST /maybe?environment=perf&id=of-another").want(t, 201, "") // the waiter without an id has left
	s.as("of-the-shop", "POST /maybe?environment=uat").want(t, 422, "max-places=2")    // the call of 2019
	s.as("of-the-shop", "DELETE /maybe?environment=uat&id=12345678&to=bob&ttl=2h").want(t, 422, "max-ttl")
}

// A pause of all, a copy and the metrics are about all environments.
func TestWhatIsAboutAllEnvironmentsNeedsAKeyForAll(t *testing.T) {
	s := newSite(t, "")
	s.keysOf("of-the-root name=root role=admin environments=uat")
	for _, line := range []string{"PUT /pause?all=1", "DELETE /pause?all=1", "GET /backup", "GET /metrics"} {
		s.as("of-the-root", line).want(t, 403, `the key \"root\" may not `)
	}
	s.as("of-the-root", "PUT /pause?environment=other").want(t, 404, "")
	s.as("of-the-root", "PUT /pause?environment=uat&holder=ann").want(t, 200, `"key":"root"`)
	s.as("of-the-root", "DELETE /pause?environment=uat&holder=ann").want(t, 200, "")
	s.call("GET /history").want(t, 200, `"by_key":"root"`)
}

// The log, the history and the state have who did what: the key, the address, by whom and why.
func TestWhoDidWhatIsRecorded(t *testing.T) {
	s := newSite(t, "")
	s.keysOf("of-the-shop name=shop", "of-the-root name=root role=admin")
	s.as("of-the-shop", "POST /maybe?environment=uat&id=12345678&holder=ann").want(t, 201, `"key":"shop"`)
	s.as("of-the-shop", "POST /maybe?environment=uat&id=87654321&holder=bob&wait=0s")
	s.call("GET /environments").want(t, 200, `"holder":"bob","key":"shop"`)
	s.as("of-the-root", "DELETE /maybe?environment=uat&force=1&holder=op&reason=stuck").want(t, 204, "")
	s.as("of-the-root", "DELETE /maybe?environment=uat&id=87654321").want(t, 204, "") // knows the id
	var told []string
	for _, e := range s.historyOf("").Events {
		told = append(told, fmt.Sprintf("%s of %s with %s by %s with %s from %s: %s", e.Event, e.Holder, e.Key, e.By, e.ByKey, e.From, e.Why))
	}
	if got, want := strings.Join(told, "\n"), "left of bob with shop by  with root from 127.0.0.1: \n"+
		"forced of ann with shop by op with root from 127.0.0.1: stuck\ngranted of ann with shop by  with  from 127.0.0.1: "; got != want {
		t.Errorf("the history is\n%s, want\n%s", got, want)
	}
	s.call("GET /metrics").want(t, 200, `callme_calls_total{key="shop"} 2`).want(t, 200, `callme_calls_total{key="(none)"} `)
}
