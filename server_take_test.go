package main

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestATakeoverOverHTTP(t *testing.T) {
	s := newSite(t, "")
	old := s.call("POST /maybe?environment=uat&id=old-id-01&holder=bob&reason=nightly").want(t, 201, "").lease(t)
	s.call("POST /maybe?environment=uat&id=waiting-1&holder=eve&wait=1ms").want(t, 403, "")
	s.call("POST /maybe?environment=uat&id=waiting-2&holder=ann&wait=1ms").want(t, 403, "")
	take := fmt.Sprint("POST /maybe?environment=uat&id=new-id-01&holder=ann&reason=urgent&wait=25s&take=", old.Fence)
	l := s.call(take).want(t, 201, "").lease(t)
	if l.Fence <= old.Fence || l.Holder != "ann" || l.Slot != "uat" {
		t.Errorf("the lease is %+v", l)
	}
	if again := s.call(take).want(t, 201, "").lease(t); again.Fence != l.Fence {
		t.Errorf("repeated: %+v", again)
	}
	s.call(fmt.Sprint("POST /maybe?environment=uat&id=third-id-1&holder=carl&take=", old.Fence)).want(t, 409,
		`the lease on \"uat\" is over; it was taken over by ann (urgent) at 2`).want(t, 409, `held by ann since 2`)
	ended := `"ended":{"how":"taken"`
	s.call("PUT /maybe?environment=uat&id=old-id-01").want(t, 409, ended).want(t, 409, `"slot":"uat","by":"ann","why":"urgent"}`)
	s.call("DELETE /maybe?environment=uat&id=old-id-01").want(t, 409, ended)
	s.call("POST /maybe?environment=uat&id=old-id-01&holder=bob&reason=nightly").want(t, 410, ended)
	s.call("POST /maybe?environment=uat&id=waiting-2&holder=ann&wait=1ms").want(t, 410, `"how":"left"`)
	e := s.historyOf("").Events
	if e[1].Event != "granted" || e[2].Event != "taken" || e[2].Holder != "bob" || e[2].By != "ann" || e[2].Why != "urgent" ||
		e[2].Reason != "nightly" || e[2].From != "127.0.0.1" || e[2].Fence != old.Fence {
		t.Errorf("the history is %+v", e[:3])
	}
	for _, wrong := range []string{"take=7", "take=&id=12345678", "take=0&id=12345678", "take=x&id=12345678", "take=7&id=12345678&environment=perf"} {
		s.call("POST /maybe?environment=uat&"+wrong).want(t, 422, "")
	}
	s.call("POST /maybe?environment=nobody&take=7&id=12345678").want(t, 409, `the lease on \"nobody\" is over`)
}

// What one process granted, another one must still know after a start.
func TestWhatHasChangedHandsIsStored(t *testing.T) {
	inBubble(t, "uat", func(t *testing.T, g *rig) {
		first := g.asks("first-id", 0).wantLease(t)
		g.keeper.ask(&call{kind: callRequest, environment: "uat", request: request{id: "second-id", holder: "ann", reason: "urgent"},
			take: takeover{first.fence, "10.0.0.9"}})
		g.keeper.ask(&call{kind: callRelease, environment: "uat", release: releaseRequest{selector: selector{id: "second-id"}, to: "eve", why: "try it"}})
		g.restart()
		v, _ := g.keeper.view("uat")
		if len(v.leases) != 1 || v.leases[0].holder != "eve" || v.leases[0].id != "" || v.leases[0].reason != "try it" {
			t.Errorf("the leases are %+v", v.leases)
		}
		for id, want := range map[string]string{"first-id": "was taken over by ann (urgent)", "second-id": "was handed to eve (try it)"} {
			r := g.keeper.ask(&call{kind: callRenew, environment: "uat", renewal: renewal{selector: selector{id: id}, at: time.Now()}})
			if r.ended == nil || endText(r.ended) != want {
				t.Errorf("%s: %+v", id, r.ended)
			}
		}
	})
}

func TestAHandOverOverHTTP(t *testing.T) {
	s := newSite(t, "")
	old := s.call("POST /maybe?environment=uat&id=old-id-01&holder=job&url=https://ci/1&ttl=1m").want(t, 201, "").lease(t)
	s.call("POST /maybe?environment=uat&id=waiting-1&holder=bob&wait=1ms").want(t, 403, "")
	hand := "DELETE /maybe?environment=uat&id=old-id-01&to=ann&ttl=2h&reason=please+test"
	r := s.call(hand).want(t, 204, "")
	l := s.call("PUT /maybe?environment=uat&holder=ann").want(t, 200, "").lease(t)
	if r.Header.Get("Call-Me-Released") != fmt.Sprint(old.Fence) || r.Header.Get("Call-Me-Handed") != fmt.Sprint(l.Fence) {
		t.Errorf("the header is %v, the new lease %+v", r.Header, l)
	}
	if l.Fence <= old.Fence || l.TTLSeconds != 7200 || l.Reason != "please test" || l.URL != "https://ci/1" || l.Renewed {
		t.Errorf("the lease is %+v", l)
	}
	for range 2 {
		r := s.call("DELETE /maybe?environment=uat&id=old-id-01").want(t, 204, "")
		again := s.call(hand).want(t, 204, "")
		if r.Header.Get("Call-Me-Released") != "0" || again.Header.Get("Call-Me-Released") != "0" || again.Header["Call-Me-Handed"] != nil {
			t.Errorf("repeated: %v, %v", r.Header, again.Header)
		}
	}
	s.call("PUT /maybe?environment=uat&id=old-id-01").want(t, 409, "it was handed to ann (please test) at 2").want(t, 409, `"how":"handed"`).want(t, 409, `"to":"ann","why":"please test"}`)
	s.call("POST /maybe?environment=uat&id=old-id-01&holder=job&url=https://ci/1&ttl=1m").want(t, 410, "handed to ann")
	s.call("DELETE /maybe?environment=uat&id=waiting-1&to=ann").want(t, 409, "")
	if e := s.historyOf("").Events[1]; e.Event != "handed" || e.To != "ann" || e.Why != "please test" || e.Holder != "job" || e.Fence != old.Fence {
		t.Errorf("the event is %+v", e)
	}
	s.call("DELETE /maybe?environment=uat&holder=ann&to=bob").want(t, 204, "")
	if l := s.call("PUT /maybe?environment=uat&holder=bob").want(t, 200, "").lease(t); l.TTLSeconds != 0 {
		t.Errorf("without a ttl: %+v", l)
	}
	for _, wrong := range []string{"id=12345678&to=", "to=ann", "holder=bob&to=ann&ttl=x", "force=1&to=ann", "holder=bob&to=::add-mask::x", "holder=bob&to=" + strings.Repeat("x", 257)} {
		s.call("DELETE /maybe?environment=uat&"+wrong).want(t, 422, "")
	}
}

// endings has, for each way in which a request of id "a" and holder "job" ends, what brings
// it about. Afterwards "other" has the slot.
var endings = map[string]func(b *bench){
	"released":   func(b *bench) { b.endID("a") },
	"expired":    func(b *bench) { b.pass(time.Minute) },
	"forced":     func(b *bench) { b.end(releaseRequest{force: true, by: "root"}) },
	"taken":      func(b *bench) { b.take(request{id: "c", holder: "other"}, b.e.leases[0].fence) },
	"handed":     func(b *bench) { b.hand(releaseRequest{selector: selector{id: "a"}, to: "other"}) },
	"superseded": func(b *bench) { b.post(request{id: "n", holder: "new", supersede: "k"}, true) },
	"removed":    func(b *bench) { b.remove(b.e.waitersByID["a"].number) },
	"left":       func(b *bench) { b.endID("a") },
	"abandoned": func(b *bench) {
		b.goAway(b.e.waitersByID["a"])
		b.pass(maxAbsence)
	},
}

// The table in docs/design.md of what the old names of a request do is right.
func TestTheTableOfWhatOldNamesDo(t *testing.T) {
	text, err := os.ReadFile("docs/design.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(text), "| ended as |")
	table, _, _ = strings.Cut(table, "\n\n")
	lines := strings.Split(table, "\n")
	if columns := strings.Trim(lines[0], " |"); !found || columns != "POST id | PUT id | PUT holder | PUT holder, fence | DELETE id | DELETE holder | DELETE holder, fence | DELETE force, fence" {
		t.Fatalf("the columns are %q", columns)
	}
	done := map[string]bool{}
	for _, line := range lines[2:] {
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		how := cells[0]
		if endings[how] == nil {
			t.Errorf("%s is not tried here", how)
			continue
		}
		done[how] = true
		t.Run(how, func(t *testing.T) {
			if got := strings.Join(oldNames(t, how, cells[4] != ""), "|"); got != strings.Join(cells[1:], "|") {
				t.Errorf("it is %s, the table has %s", got, strings.Join(cells[1:], "|"))
			}
		})
	}
	if len(done) != len(endings) {
		t.Errorf("the table has %v", done)
	}
}

// oldNames returns the row of a way to end.
func oldNames(t *testing.T, how string, held bool) (row []string) {
	b := newBench(t)
	q := request{id: "a", holder: "job", ttl: time.Minute, supersede: "k"}
	fence := uint64(0)
	if held {
		fence = only(b.post(q, false).own).fence
	} else {
		b.must("b")
		b.post(q, true)
	}
	endings[how](b)
	b.post(request{id: "other", holder: "other"}, false) // where it is free
	if len(b.e.leases) != 1 {
		t.Fatalf("%d leases", len(b.e.leases))
	}
	before := b.e.leases[0]
	cell := func(success int, o result) {
		status := success
		if o.err != nil {
			status = statusOf(o.err)
		}
		row = append(row, fmt.Sprint(status))
	}
	names := []selector{{id: "a"}, {holder: "job"}, {holder: "job", fence: fence}}
	if !held {
		names = names[:2]
	}
	cell(201, b.post(q, true))
	for _, s := range names {
		cell(200, b.extend(renewal{selector: s}))
	}
	if !held {
		row = append(row, "")
	}
	for _, s := range names {
		cell(204, b.end(releaseRequest{selector: s}))
	}
	if held {
		cell(204, b.end(releaseRequest{selector: selector{fence: fence}, force: true}))
	} else {
		row = append(row, "", "")
	}
	if len(b.e.leases) != 1 || b.e.leases[0] != before {
		t.Errorf("an old name has changed the lease: %+v", b.e.leases)
	}
	return row
}

// The metrics, the log and the page know leases that changed hands.
func TestLeasesThatChangeHandsAreShown(t *testing.T) {
	var log lockedBuffer
	g := &rig{t: t, path: filepath.Join(t.TempDir(), "call-me.db"), limits: testLimits, handler: slog.NewTextHandler(&log, nil)}
	g.open()
	s := siteOf(t, g)
	old := s.call("POST /maybe?environment=uat&id=old-id-01&holder=bob").want(t, 201, "").lease(t)
	s.call(fmt.Sprint("POST /maybe?environment=uat&id=new-id-01&holder=ann&reason=urgent&take=", old.Fence)).want(t, 201, "")
	s.call("DELETE /maybe?environment=uat&holder=ann&to=eve&reason=try").want(t, 204, "")
	s.call("GET /metrics").want(t, 200, `callme_leases_ended_total{environment="uat",how="taken"} 1`).want(t, 200,
		`callme_leases_ended_total{environment="uat",how="handed"} 1`).want(t, 200, `callme_hold_seconds_count{environment="uat"} 2`)
	s.call("GET /?environment=uat").want(t, 200, "<td>taken</td>").want(t, 200, "<bdi>ann</bdi> <span class=\"why\" dir=\"auto\"><bdi>urgent</bdi>").want(t, 200, "<td>handed</td>").want(t, 200, "to <bdi>eve</bdi>")
	for _, line := range []string{"msg=taken environment=uat slot=uat holder=bob", " by=ann from=127.0.0.1 why=urgent fence=", "msg=handed environment=uat slot=uat holder=ann", " to=eve why=try fence="} {
		// The keeper logs after it has replied.
		for end := time.Now().Add(5 * time.Second); !strings.Contains(log.String(), line) && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		if !strings.Contains(log.String(), line) {
			t.Errorf("the log has no %q:\n%s", line, log.String())
		}
	}
}
