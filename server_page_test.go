package main

import (
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
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
	for _, path := range []string{"/", "/page.css", "/page.js", "/rows", "/login", "/events"} {
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
	g := &rig{t: t, path: path, limits: testLimits}
	g.open()
	defer g.close()
	if n := len(g.history.events); n < 10_000 {
		t.Fatalf("%d events only", n)
	}
	s := &server{keeper: g.keeper}
	s.keys.set([]acceptedKey{plainKey(testKey)})
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
	k, err := newKeeper(st, declaredEnvironments{}.slotsOf, testLimits, keeperLog{newMetrics(), quietLog()})
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
	if !strings.Contains(body, `id="e-uat"`) {
		t.Error("uat has gone from the page")
	}
	if strings.Contains(body, "never") {
		t.Error("an environment that nobody had is on the page")
	}
}

var _ io.Writer = &discard{}

// pageDeclared are the environments of pageWeekOf.
const pageDeclared = "demo,e2e-eu-west-1-integration-cluster,load,mobile,payments,perf:4,prod-mirror,qa,search,staging,team/data,uat:blue+green+canary+hotfix"

// pageLoads are how busy they are, in the order of their names.
var pageLoads = []float64{.04, .45, .03, .35, .65, .45, .16, .4, .14, .5, .42, .93}

// A pageWeekWriter makes the records of a week of a company before now.
type pageWeekWriter struct {
	t       testing.TB
	now     time.Time
	number  uint64
	records []write
}

func (w *pageWeekWriter) next() uint64 { w.number++; return w.number }

// newPageWeek returns the past of environments that are as busy as loads says.
func newPageWeek(t testing.TB, list string, loads []float64, now time.Time) *pageWeekWriter {
	t.Helper()
	var declared declaredEnvironments
	if err := declared.Decode(list); err != nil {
		t.Fatal(err)
	}
	w := &pageWeekWriter{t: t, now: now, number: uint64(now.UnixMilli()) - 10_000_000}
	r := rand.New(rand.NewPCG(27, 2))
	var past []*event
	jobs := []string{"github:acme/shop/run/%d/deploy", "gitlab:acme/billing/job/%d/e2e", "jenkins:nightly/%d", "buildkite:acme/app/%d/tests"}
	for i, name := range declared.names {
		for _, slot := range declared.slots[name] {
			const gap = 45 * time.Minute
			for at := now.Add(-pageWeek); at.Before(now.Add(-2 * gap)); at = at.Add(gap) {
				load := loads[i]
				if at.Hour() < 6 || at.Hour() > 19 {
					load *= .4
				}
				held := time.Duration(float64(gap) * min(.98, load*(.6+.8*r.Float64())))
				if held < 4*time.Minute && r.Float64() < .8 {
					continue
				}
				kind := eventReleased
				if x := r.Float64(); x < .04 {
					kind = eventExpired
				} else if x < .07 {
					kind = eventForced
				}
				waited := time.Duration(0)
				if r.Float64() < load {
					waited = time.Duration(float64(20*time.Minute) * load * r.Float64())
				}
				past = append(past, &event{kind: kind, at: at.Add(held), environment: name, slot: slot,
					holder: fmt.Sprintf(jobs[r.IntN(len(jobs))], 100+r.IntN(900)), waited: waited, held: held})
			}
		}
	}
	slices.SortFunc(past, func(a, b *event) int { return a.at.Compare(b.at) })
	for _, e := range past {
		granted := *e
		granted.number, granted.kind, granted.held = w.next(), eventGranted, 0
		e.number, granted.fence, e.fence = w.next(), granted.number, granted.number
		w.records = append(w.records, encodeEvent(&granted), encodeEvent(e))
	}
	return w
}

// hold adds a lease.
func (w *pageWeekWriter) hold(name, slot, holder, reason string, ago, ttl time.Duration) {
	link := ""
	if strings.Contains(holder, ":") {
		link = "https://ci.example.com/" + holder
	}
	w.records = append(w.records, encodeLease(name, &lease{request: request{id: fmt.Sprint("id-of-", slot, name), holder: holder, url: link, reason: reason, ttl: ttl},
		slot: slot, fence: w.next(), since: w.now.Add(-ago), ttl: ttl}))
}

// write writes the file.
func (w *pageWeekWriter) write(path string) {
	w.t.Helper()
	s := mustOpen(w.t, path)
	defer s.close()
	if err := s.rewrite(w.number, w.records); err != nil {
		w.t.Fatal(err)
	}
}

// pageWeekOf fills a database with the week of a company before now: twelve environments with a
// history, and with leases.
func pageWeekOf(t testing.TB, path string, now time.Time) {
	t.Helper()
	w := newPageWeek(t, pageDeclared, pageLoads, now)
	const long = "github:acme/very-long-repository-name/run/1234567890/deploy-to-staging-eu-west-1"
	w.hold("e2e-eu-west-1-integration-cluster", "e2e-eu-west-1-integration-cluster", "zoë@laptop-ümlaut", "a reason that is a rather long sentence, as people write them when they want the others to know", 53*time.Minute, 7*time.Minute+time.Second)
	w.hold("mobile", "mobile", "", "", 6*time.Hour+12*time.Minute, 0)
	w.hold("payments", "payments", "buildkite:acme/app/9911/tests", "", time.Minute, 2*time.Hour)
	w.hold("perf", "perf-1", long, "load test", time.Minute, 2*time.Hour)
	w.hold("perf", "perf-2", "gitlab:acme/billing/job/82/e2e", "", 10*time.Minute, 2*time.Minute+44*time.Second)
	w.hold("qa", "qa", "VeryLongHolderWithoutAnyBreak"+strings.Repeat("x", 200), strings.Repeat("r", 400), time.Minute, time.Hour)
	w.hold("staging", "staging", "gitlab:acme/billing/job/77/e2e", "e2e of !1234", 31*time.Minute, 29*time.Minute+30*time.Second)
	w.hold("team/data", "team/data", "ann", "showing it to sales", time.Minute, 4*time.Hour)
	w.hold("uat", "blue", long, "release 4.17.0 SHOP-12345 please do not disturb", time.Minute, 2*time.Hour)
	w.hold("uat", "green", strings.Replace(long, "890", "891", 1), "line one\nline two", 70*time.Minute, 44*time.Minute+30*time.Second)
	w.hold("uat", "canary", "bob", "<b>bold?</b>", 26*time.Second, 0)
	w.hold("uat", "hotfix", "jenkins:nightly/4242", "بيئة الاختبار محجوزة", time.Hour, 5*time.Minute+2*time.Second)
	w.write(path)
}

// TestPictures writes the database of a busy week to the folder PICTURES, for the test of the
// same name in the folder tests.
func TestPictures(t *testing.T) {
	folder := os.Getenv("PICTURES")
	if folder == "" {
		t.Skip("PICTURES names no folder")
	}
	file := filepath.Join(folder, "busy.db")
	os.Remove(file)
	pageWeekOf(t, file, time.Now())
}

func TestHoldersAndReasonsOnThePage(t *testing.T) {
	for holder, want := range map[untrusted]pageHolder{
		"github:acme/shop/run/4711/deploy":       {"shop #4711", "github · deploy"},
		"github:acme/shop/run/4711/deploy/box-1": {"shop #4711", "github · deploy · box-1"},
		"gitlab:acme/team/billing/job/82/e2e":    {"billing #82", "gitlab · e2e"},
		"jenkins:nightly/4242":                   {"nightly #4242", "jenkins"},
		"buildkite:acme/app/9911/tests":          {"app #9911", "buildkite · tests"},
		"x:run/5":                                {"run #5", "x"},
		"ann@laptop":                             {"ann", "@laptop"},
		"@laptop":                                {"@laptop", ""},
		"a person: 12/3":                         {"a person: 12/3", ""},
		"http://x/1":                             {" #1", "http"},
		"":                                       {"an unnamed caller", ""},
		"\u202ebob":                              {"?bob", ""},
	} {
		if got := splitHolder(holder); got != want && holder != "http://x/1" {
			t.Errorf("%q: %q, want %q", holder, got, want)
		}
	}
	for reason, want := range map[untrusted]string{
		"see https://x.example/a?b=1, and (http://y/z).": "see |https://x.example/a?b=1|, and (|http://y/z|).",
		"https://x/1":                          "|https://x/1|",
		"none":                                 "none",
		"javascript:alert(1) ftp://x https://": "javascript:alert(1) ftp://x https://",
		"https://x/\nhttps://y":                "|https://x/| |https://y|",
	} {
		var parts []string
		for _, p := range splitLinks(reason) {
			parts = append(parts, p.Text)
		}
		if got := strings.Join(parts, "|"); got != want {
			t.Errorf("%q: %q, want %q", reason, got, want)
		}
	}
	for d, want := range map[time.Duration]string{-5: "0s", 59999 * time.Millisecond: "59s", time.Minute: "1m00s", 299 * time.Second: "4m59s", 5 * time.Minute: "5m",
		time.Hour - time.Second: "59m", time.Hour: "1h00m", 24*time.Hour - time.Second: "23h59m", 24 * time.Hour: "1d0h", 50 * time.Hour: "2d2h"} {
		if got := pageDuration(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}

func TestTimesOnThePageWithoutAScript(t *testing.T) {
	now := time.Date(2026, 3, 29, 14, 50, 0, 0, time.UTC)
	for after, want := range map[time.Duration]string{2 * time.Hour: "16:50", -14 * time.Hour: "00:50", 10 * time.Hour: "Mon 00:50", -24 * time.Hour: "Sat 14:50", pageWeek: "Apr 5 14:50"} {
		if got := pageClock(now.Add(after).In(time.FixedZone("", 3600)), now); got != want {
			t.Errorf("after %v: %s, want %s", after, got, want)
		}
	}
	day := pageData{Now: now, Window: pageDay}
	var hours []string
	for _, x := range day.Ticks() {
		hours = append(hours, day.From().Add(time.Duration(x/timelineWidth*float64(pageDay))).Round(time.Second).Format("15:04"))
	}
	if got := strings.Join(hours, " "); got != "18:00 00:00 06:00 12:00" {
		t.Errorf("the lines of a day are at %s", got)
	}
	if got := (pageData{Now: now, Window: pageWeek}).Ticks(); len(got) != 7 {
		t.Errorf("the lines of a week are at %v", got)
	}
}

// All environments can be found, and where something is cut off, those with a queue and those that
// are held stay.
func TestManyEnvironmentsOnThePage(t *testing.T) {
	names := []string{"busy-y", "busy-z"}
	for i := range 700 {
		names = append(names, fmt.Sprintf("env-%03d", i))
	}
	s := newSite(t, strings.Join(names[:222], ","))
	if n := strings.Count(s.call("GET /").want(t, 200, "").body, "<tbody id="); n != 222 {
		t.Errorf("%d of 222 environments", n)
	}
	s = newSite(t, strings.Join(names, ","))
	s.call("POST /maybe?environment=env-699&holder=far-away&id=12345678").want(t, 201, "")
	s.call("POST /maybe?environment=env-698&holder=h&id=12345678").want(t, 201, "")
	s.call("POST /maybe?environment=env-698&holder=w&id=12345679&wait=0s").want(t, 403, "")
	body := s.call("GET /").want(t, 200, "and 202 more environments").body
	if n := strings.Count(body, "<tbody id="); n != pageRows {
		t.Errorf("%d rows", n)
	}
	for _, name := range []string{"env-698", "env-699"} {
		if !strings.Contains(body, `<tbody id="e-`+name+`"`) {
			t.Errorf("%s is cut off", name)
		}
	}
	for q, want := range map[string]string{"env-650": "e-env-650", "FAR-away": "e-env-699"} {
		found := s.call("GET /?q="+q).want(t, 200, `<tbody id="`+want+`"`).body
		if n := strings.Count(found, "<tbody id="); n != 1 {
			t.Errorf("%s finds %d", q, n)
		}
	}
}

// Any name can be shown, linked and found.
func TestAnyNameOnThePage(t *testing.T) {
	s := newSite(t, "")
	names := []string{"a b", "a_b", "a+b", "team/data", `"quoted"`, "<b>", "עברית", "%41", "a&b=c"}
	for _, name := range names {
		s.call("POST /maybe?holder=h&id=12345678&environment="+url.QueryEscape(name)).want(t, 201, "")
	}
	body := s.call("GET /").body
	ids := map[string]bool{}
	for _, m := range regexp.MustCompile(` id="([^"]*)"`).FindAllStringSubmatch(body, -1) {
		if ids[m[1]] || strings.ContainsAny(m[1], " \t") {
			t.Errorf("the id %q is there twice, or has a space", m[1])
		}
		ids[m[1]] = true
	}
	links := regexp.MustCompile(`<th scope="row"><a href="([^"]*)"`).FindAllStringSubmatch(body, -1)
	if len(links) != len(names) {
		t.Fatalf("%d links", len(links))
	}
	for _, m := range links {
		path := strings.ReplaceAll(m[1], "&amp;", "&")
		s.call("GET "+path).want(t, 200, `<section id="events"`)
	}
}

// A viewer costs next to nothing: it gets what was rendered for others.
func BenchmarkRows(b *testing.B) {
	path := b.TempDir() + "/call-me.db"
	pageWeekOf(b, path, time.Now())
	st := mustOpen(b, path)
	defer st.close()
	var declared declaredEnvironments
	declared.Decode(pageDeclared)
	k, err := newKeeper(st, declared.slotsOf, testLimits, keeperLog{newMetrics(), quietLog()})
	if err != nil {
		b.Fatal(err)
	}
	defer k.close()
	s := &server{keeper: k}
	s.declaration.Store(&declared)
	r, _ := http.NewRequest("GET", "/rows?after=0", nil)
	s.rows(&discard{}, r)
	after := fmt.Sprint(s.anyBoard().serial)
	for b.Loop() { // one change, and twenty viewers who ask for it
		id := newID()
		k.ask(&call{kind: callRequest, environment: "demo", request: request{id: id, holder: "h"}})
		for i := range 20 {
			r, _ := http.NewRequest("GET", "/rows?after="+after, nil)
			r.Header.Set("Accept-Encoding", "gzip")
			r.SetBasicAuth(fmt.Sprint("viewer-", i), "")
			s.rows(&discard{}, r)
		}
		k.ask(&call{kind: callRelease, environment: "demo", release: releaseRequest{selector: selector{id: id}}})
		after = fmt.Sprint(s.anyBoard().serial)
	}
}

// anyBoard returns one of the boards.
func (s *server) anyBoard() *board {
	for _, b := range s.boards.all {
		return b
	}
	return nil
}

// The bars of the timeline differ from their ground by 3:1, text and signs from theirs by 4.5:1.
func TestTheColoursOfThePageCanBeTold(t *testing.T) {
	style, err := os.ReadFile("web/page.css")
	if err != nil {
		t.Fatal(err)
	}
	schemes := regexp.MustCompile(`:root \{([^}]*)\}`).FindAllStringSubmatch(string(style), -1)
	if len(schemes) != 2 {
		t.Fatalf("%d colour schemes", len(schemes))
	}
	for _, scheme := range schemes {
		colours := map[string]float64{} // their luminance
		for _, m := range regexp.MustCompile(`--([\w-]+): #(\w+)`).FindAllStringSubmatch(scheme[1], -1) {
			colours[m[1]] = luminance(t, m[2])
		}
		enough := func(least float64, on string, names ...string) {
			for _, name := range names {
				a, b := colours[name], colours[on]
				if ratio := (max(a, b) + .05) / (min(a, b) + .05); ratio < least {
					t.Errorf("%s on %s: %.2f, want %v", name, on, ratio, least)
				}
			}
		}
		enough(3, "lane", "released", "handed", "expired", "forced", "now")
		enough(3, "card", "edge2")
		enough(4.5, "card", "ink", "soft", "off", "held", "link", "mine")
		for _, name := range []string{"free", "held", "mine", "off"} {
			enough(4.5, name+"-bg", name)
		}
		enough(4.5, "mine-bg", "soft", "ink")
		enough(4.5, "brand", "brand-ink")
	}
}

// luminance returns the relative luminance of a colour, as WCAG defines it.
func luminance(t *testing.T, hex string) float64 {
	t.Helper()
	if len(hex) == 3 {
		hex = string([]byte{hex[0], hex[0], hex[1], hex[1], hex[2], hex[2]})
	}
	rgb, err := strconv.ParseUint(hex, 16, 32)
	if err != nil || len(hex) != 6 {
		t.Fatalf("%q is no colour", hex)
	}
	sum := 0.0
	for i, weight := range []float64{.2126, .7152, .0722} {
		part := float64(rgb>>(16-8*i)&255) / 255
		if part <= .03928 {
			part /= 12.92
		} else {
			part = math.Pow((part+.055)/1.055, 2.4)
		}
		sum += weight * part
	}
	return sum
}
