package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// busyDay fills a database with the events of a busy team for the given number of days, and
// with leases and queues as of now.
func busyDay(t testing.TB, path string, environments, eventsADay, days, waiting int) {
	t.Helper()
	s := mustOpen(t, path)
	defer s.close()
	r := rand.New(rand.NewPCG(1, 2))
	now := time.Now()
	number := uint64(now.UnixMilli()) - 10_000_000
	var records []write
	names := []string{"uat", "staging", "perf", "demo", "payments", "mobile", "search", "team/data", "load", "qa"}
	jobs := []string{"github:acme/shop/run/%d/deploy", "gitlab:acme/billing/job/%d/e2e", "jenkins:nightly/%d", "buildkite:acme/app/%d/tests"}
	for i := range environments {
		name := names[i%len(names)]
		load := []float64{.95, .6, .3, .1, .75, .4, .05, .5}[i%8]
		gap := 24 * time.Hour / time.Duration(max(1, eventsADay/2))
		for at := now.Add(-time.Duration(days) * 24 * time.Hour); at.Before(now.Add(-gap)); at = at.Add(gap) {
			held := time.Duration(float64(gap) * load * (.5 + r.Float64()))
			waited := time.Duration(0)
			if r.Float64() < load {
				waited = time.Duration(float64(gap) * load * r.Float64() / 2)
			}
			kind := eventReleased
			if x := r.Float64(); x < .06 {
				kind = eventExpired
			} else if x < .09 {
				kind = eventForced
			}
			holder := fmt.Sprintf(jobs[r.IntN(len(jobs))], 100+r.IntN(900))
			number += 2
			records = append(records,
				encodeEvent(&event{number: number, kind: eventGranted, at: at, environment: name, slot: name, holder: holder, fence: number, waited: waited}),
				encodeEvent(&event{number: number + 1, kind: kind, at: at.Add(held), environment: name, slot: name, holder: holder, fence: number, waited: waited, held: held}))
		}
		if load > .2 {
			number++
			records = append(records, encodeLease(name, &lease{request: request{id: newID(), holder: fmt.Sprintf(jobs[i%len(jobs)], 77+i), url: "https://ci.example.com/" + name, reason: "release 1." + fmt.Sprint(i)},
				slot: name, fence: number, since: now.Add(-time.Duration(i+3) * time.Minute), ttl: 2 * time.Hour}))
			for j := range waiting * (3 - i) / 6 {
				number++
				records = append(records, encodeWaiter(name, &waiter{request: request{id: newID(), holder: fmt.Sprintf(jobs[j%len(jobs)], 200+j), reason: "tests"}, number: number, since: now.Add(-time.Duration(20-j) * time.Minute)}))
			}
		}
	}
	if err := s.rewrite(number, records); err != nil {
		t.Fatal(err)
	}
}

func TestThePageNeedsTheKeyAndIsLocked(t *testing.T) {
	s := newSite(t, "")
	for _, path := range []string{"/", "/page.css", "/page.js", "/events.js", "/events"} {
		response, err := http.Get(s.url + path)
		if err != nil || response.StatusCode != 401 {
			t.Errorf("%s without a key: %v", path, err)
		}
	}
	r := s.call("GET /").want(t, 200, "<!DOCTYPE html>")
	policy := r.Header.Get("Content-Security-Policy")
	if !strings.Contains(policy, "default-src 'none'") || !strings.Contains(policy, "worker-src 'self'") || strings.Contains(policy, "unsafe") {
		t.Errorf("policy %q", policy)
	}
	if strings.Contains(r.body, " style=") || strings.Contains(r.body, " onclick=") || strings.Contains(r.body, "<script>") {
		t.Error("the page has inline style or script")
	}
}

func TestThePageIsSmallAndQuickWithALongHistory(t *testing.T) {
	path := tempDB(t)
	busyDay(t, path, 8, 180, 7, 12) // 10,000 events
	g := &rig{t: t, path: path, maxWaiters: 100}
	g.open()
	defer g.close()
	if n := len(g.history.events); n < 10_000 {
		t.Fatalf("%d events only", n)
	}
	s := &server{keeper: g.keeper}
	s.keys.set([]string{testKey})
	for _, query := range []string{"", "?since=7d"} {
		r, _ := http.NewRequest("GET", "/"+query, nil)
		var w discard
		if err := s.page(&w, r); err != nil {
			t.Fatal(err)
		}
		if w.size > 200_000 {
			t.Errorf("%q weighs %d bytes", query, w.size)
		}
		t.Logf("%q weighs %d bytes", query, w.size)
	}
}

// A discard is a ResponseWriter that counts the bytes of the body and drops them.
type discard struct {
	size   int
	header http.Header
}

func (d *discard) Header() http.Header {
	if d.header == nil {
		d.header = http.Header{}
	}
	return d.header
}

func (d *discard) WriteHeader(int) {}

func (d *discard) Write(b []byte) (int, error) {
	d.size += len(b)
	return len(b), nil
}

func BenchmarkPage(b *testing.B) {
	path := b.TempDir() + "/call-me.db"
	busyDay(b, path, 8, 180, 7, 12)
	st := mustOpen(b, path)
	defer st.close()
	k, err := newKeeper(st, declaredEnvironments{}.slotsOf, 10, keeperLog{newMetrics(), quietLog()})
	if err != nil {
		b.Fatal(err)
	}
	defer k.close()
	s := &server{keeper: k}
	for _, query := range []string{"", "?since=7d"} {
		b.Run("10000events"+query, func(b *testing.B) {
			r, _ := http.NewRequest("GET", "/"+query, nil)
			for b.Loop() {
				s.page(&discard{}, r)
			}
		})
	}
}

func TestThePageShowsWhatWasUsedTodayThoughItIsFreeNow(t *testing.T) {
	s := newSite(t, "")
	s.call("POST /maybe?environment=uat&holder=ann&id=12345678")
	s.call("DELETE /maybe?environment=uat&id=12345678")
	s.call("DELETE /maybe?environment=never&id=never-known")
	body := s.call("GET /").body
	if !strings.Contains(body, `id="e-uat"`) || !strings.Contains(body, `class="released"`) {
		t.Error("uat has gone from the page")
	}
	if strings.Contains(body, "never") {
		t.Error("an environment that nobody had is on the page")
	}
}

var _ io.Writer = &discard{}

// TestPictures writes the database of a busy week to the folder PICTURES, for the test of the
// same name in the folder tests.
func TestPictures(t *testing.T) {
	folder := os.Getenv("PICTURES")
	if folder == "" {
		t.Skip("PICTURES names no folder")
	}
	file := filepath.Join(folder, "busy.db")
	os.Remove(file)
	busyDay(t, file, 8, 40, 7, 12)
}

func TestManySlotsThatAreHeldForAWeekAreBusy(t *testing.T) {
	now := time.Now()
	from := now.Add(-7 * 24 * time.Hour)
	bars := map[string][]bar{}
	for i := range maxSlots {
		bars[fmt.Sprint("slot-", i)] = []bar{{from: from.Add(-time.Hour), to: now}}
	}
	if st := newStats(nil, bars, maxSlots, from, now); st.Busy != 100 {
		t.Errorf("busy for %d per cent of the time", st.Busy)
	}
}
