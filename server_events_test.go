package main

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

func (s *site) historyOf(query string) (h historyJSON) {
	s.t.Helper()
	r := s.call("GET /history?"+query).want(s.t, 200, "")
	if err := json.Unmarshal([]byte(r.body), &h); err != nil {
		s.t.Fatal(err)
	}
	return h
}

func TestTheHistoryHasEveryGrantAndItsEnd(t *testing.T) {
	s := newSite(t, "")
	s.call("POST /maybe?environment=uat&id=12345678&holder=ann&reason=r&url=https://x/1")
	s.call("POST /maybe?environment=uat&id=waiting-1&holder=bob&wait=0s")
	s.call("DELETE /maybe?environment=uat&id=waiting-1")
	s.call("DELETE /maybe?environment=uat&force=1&holder=boss")
	s.call("DELETE /maybe?environment=uat&id=never-known")
	s.call("POST /maybe?environment=perf&holder=ann&id=12345678")
	text := s.call("GET /history").body
	if strings.Contains(text, "12345678") || strings.Contains(text, "never-known") {
		t.Errorf("a request id is shown: %s", text)
	}
	var told []string
	for _, e := range s.historyOf("").Events {
		told = append(told, fmt.Sprint(e.Environment, " ", e.Event, " ", e.Holder, e.By))
	}
	if got := strings.Join(told, ", "); got != "perf granted ann, uat forced annboss, uat left bob, uat granted ann" {
		t.Errorf("the history is %s", got)
	}
	forced := s.historyOf("environment=uat").Events[0]
	if forced.Slot != "uat" || forced.URL != "https://x/1" || forced.Reason != "r" || forced.Fence == 0 || forced.From != "127.0.0.1" {
		t.Errorf("%+v", forced)
	}
	for query, want := range map[string]int{"environment=perf": 1, "holder=ann": 3, "holder=nobody": 0, "since=1h": 4, "since=7d": 4, "since=0s": 0, "limit=2": 2} {
		if got := len(s.historyOf(query).Events); got != want {
			t.Errorf("%s: %d events, want %d", query, got, want)
		}
	}
	for _, query := range []string{"since=soon", "since=-1h", "since=xd", "limit=0", "limit=1001", "before=x"} {
		s.call("GET /history?"+query).want(t, 422, "")
	}
}

func TestTheHistoryComesInPages(t *testing.T) {
	s := newSite(t, "")
	for i := range 25 {
		s.call(fmt.Sprint("POST /maybe?environment=env", i, "&holder=h"))
	}
	seen, before := 0, uint64(0)
	for range 10 {
		page := s.historyOf(fmt.Sprint("limit=10&before=", before))
		for _, e := range page.Events {
			if before != 0 && e.Number >= before {
				t.Fatalf("event %d on the page before %d", e.Number, before)
			}
			seen++
		}
		if before = page.Next; before == 0 {
			break
		}
	}
	if seen != 25 {
		t.Errorf("%d events on all pages", seen)
	}
}

func TestEventsComeAsTheyHappen(t *testing.T) {
	s := newSite(t, "")
	of := ""
	listen := func(lastID string) (next func() string) {
		r, _ := http.NewRequest("GET", s.url+"/events"+of, nil)
		r.Header.Set("X-API-KEY", testKey)
		r.Header.Set("Last-Event-ID", lastID)
		response, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { response.Body.Close() })
		lines := bufio.NewScanner(response.Body)
		lines.Scan() // the greeting: the stream has every event after it
		return func() string {
			var event string
			for lines.Scan() {
				if name, found := strings.CutPrefix(lines.Text(), "event: "); found {
					event = name
				}
				if data, found := strings.CutPrefix(lines.Text(), "data: "); found {
					var e eventJSON
					json.Unmarshal([]byte(data), &e)
					return strings.TrimSpace(event + " " + string(e.Holder))
				}
			}
			return "the end"
		}
	}
	next := listen("")
	expect := func(want string) {
		t.Helper()
		got := make(chan string, 1)
		go func() { got <- next() }()
		select {
		case g := <-got:
			if g != want {
				t.Errorf("read %q, want %q", g, want)
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("no event %q after 5 s", want)
		}
	}
	s.call("POST /maybe?environment=uat&id=12345678&holder=ann")
	expect("granted ann")
	first := s.historyOf("").Events[0].Number
	s.call("POST /maybe?environment=uat&id=waiting-1&holder=bob&wait=0s")
	expect("change")
	s.call("DELETE /maybe?environment=uat&id=12345678")
	expect("released ann")
	again, ahead := listen(fmt.Sprint(first)), listen("18446744073709551615")
	s.call("POST /maybe?environment=perf&holder=carol")
	if got := again(); got != "released ann" {
		t.Errorf("after a reconnect: %q", got)
	}
	if got := ahead(); got != "granted carol" {
		t.Errorf("after a reconnect with a future number: %q", got)
	}

	of = "?environment=perf"
	perf := listen("")
	s.call("POST /maybe?environment=staging&holder=dave")
	s.call("DELETE /maybe?environment=perf&holder=carol")
	got := perf()
	for got == "change" { // changes of other environments
		got = perf()
	}
	if got != "released carol" {
		t.Errorf("the stream of perf: %q", got)
	}
	of = "?environment="
	if got := listen("")(); got != "the end" {
		t.Errorf("the stream of an empty environment: %q", got)
	}
}

// A quiet stream gets a beat as an event, not as a comment, because a script in a browser does
// not see comments.
func TestAQuietStreamOfEventsHasABeat(t *testing.T) {
	inBubble(t, "", func(t *testing.T, g *rig) {
		s := &server{keeper: g.keeper}
		s.keys.set([]acceptedKey{plainKey(testKey)})
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Second)
		defer cancel()
		r := httptest.NewRequestWithContext(ctx, "GET", "/events", nil)
		w := httptest.NewRecorder()
		if err := s.events(w, withCaller(r, newCaller(plainKey(testKey), ""))); err != nil {
			t.Fatal(err)
		}
		beat := "event: beat\ndata: {}\n\n"
		if got := w.Body.String(); got != ": this is call-me\n\n"+beat+beat+beat {
			t.Errorf("50 quiet seconds: %q", got)
		}
	})
}

func TestTheHistoryAsATable(t *testing.T) {
	s := newSite(t, "")
	s.call("POST /maybe?environment=uat&id=12345678&holder=ann&reason=" + url.QueryEscape("=1+1, \"so\"\nand so") + "&url=https://x/1")
	s.call("DELETE /maybe?environment=uat&force=1&holder=boss&reason=late")
	for i := range 150 { // more than a page of JSON
		s.call(fmt.Sprint("DELETE /maybe?environment=perf&id=12345678-", i))
		s.call(fmt.Sprint("POST /maybe?environment=perf&holder=bob&id=12345679-", i))
		s.call(fmt.Sprint("DELETE /maybe?environment=perf&id=12345679-", i))
	}
	for _, r := range []httpReply{s.call("GET /history?format=csv"), s.with(http.Header{"Accept": {"text/csv"}, "X-Api-Key": {testKey}}, "GET /history")} {
		if kind := r.Header.Get("Content-Type"); r.StatusCode != 200 || kind != "text/csv; charset=utf-8" {
			t.Fatalf("%d %s", r.StatusCode, kind)
		}
		rows, err := csv.NewReader(strings.NewReader(r.body)).ReadAll()
		if err != nil || len(rows) != 1+2+300 {
			t.Fatalf("%d rows, %v", len(rows), err)
		}
		forced := rows[len(rows)-2]
		if rows[0][0] != "number" || forced[2] != "forced" || forced[5] != "ann" || forced[7] != `'=1+1, "so" and so` || forced[11] != "boss" || forced[14] != "late" {
			t.Errorf("%q", forced)
		}
	}
	if r := s.call("GET /history?format=csv&environment=uat&limit=1"); strings.Count(r.body, "\n") != 2 {
		t.Errorf("with a limit: %s", r.body)
	}
}
