package main

import (
	"compress/gzip"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"
)

// browse sends one call in the name of a user of a browser. line is "METHOD /path?query".
func (s *site) browse(user, line string, headers ...string) httpReply {
	s.t.Helper()
	h := http.Header{"Authorization": {"Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+testKey))}}
	for i := 0; i < len(headers); i += 2 {
		h.Set(headers[i], headers[i+1])
	}
	return s.with(h, line)
}

// act sends a form of the page, and fails the test unless the browser is sent back to a place.
func (s *site) act(user, form, back string) {
	s.t.Helper()
	if r := s.browse(user, "POST /act?"+form); r.StatusCode != http.StatusSeeOther || r.Header.Get("Location") != back {
		s.t.Errorf("%s: %d to %q, %s", form, r.StatusCode, r.Header.Get("Location"), r.body)
	}
}

// formOf returns the fields of the form that a link of the page leads to.
func (s *site) formOf(user, link string) url.Values {
	s.t.Helper()
	page := s.browse(user, "GET "+link).want(s.t, 200, `<section id="act"`).body
	form := page[strings.Index(page, `<form method="post" action="/act"`):]
	form = form[:strings.Index(form, "</form>")]
	fields := url.Values{}
	for _, m := range regexp.MustCompile(`<input type="hidden" name="(\w+)" value="([^"]*)">`).FindAllStringSubmatch(form, -1) {
		fields.Set(m[1], m[2])
	}
	return fields
}

// All that people do on the page works by its links and forms alone.
func TestTheFormsOfThePage(t *testing.T) {
	s := newSite(t, "uat,perf:blue+green")
	const one = "/?environment=uat"
	reserve := s.formOf("ann", "/?environment=uat&act=reserve")
	reserve.Set("ttl", "1h")
	reserve.Set("reason", "looking")
	for range 2 { // twice is once
		s.act("ann", reserve.Encode(), one)
	}
	s.call("GET /environments?environment=uat").want(t, 200, `"holder":"ann","reason":"looking"`).want(t, 200, `"ttl_seconds":3600`)
	own := s.browse("ann", "GET /").want(t, 200, "you have <a href").want(t, 200, `aria-label="Release uat, held by ann"`).body
	fence := regexp.MustCompile(`name="fence" value="(\d+)"`).FindStringSubmatch(own)[1]
	if other := s.browse("bob", "GET /").body; strings.Contains(other, `aria-label="Release `) || !strings.Contains(other, `aria-label="Wait in the queue of uat…"`) {
		t.Error("bob can release what ann has")
	}

	extend := s.formOf("ann", "/?environment=uat&act=extend&fence="+fence)
	extend.Set("ttl", "4h")
	s.act("ann", extend.Encode(), one)
	s.call("GET /environments?environment=uat").want(t, 200, `"ttl_seconds":14400`)

	s.act("bob", "act=pause&environment=uat&for=2h&reason=upgrade", "/")
	s.browse("ann", "GET /").want(t, 200, "is paused by bob")
	s.browse("ann", "POST /act?act=pause&environment=uat&for=1h").want(t, 409, "is paused by bob")
	s.act("ann", "act=resume&environment=uat", "/")
	s.act("ann", "act=pause&all=1&for=1h", "/")
	s.browse("ann", "GET /").want(t, 200, "Every environment is paused")
	s.act("ann", "act=resume&all=1", "/")
	s.act("ann", "act=pause&environment=perf&slot=blue&for=1h&back=environment", "/?environment=perf")
	s.act("ann", "act=resume&environment=perf&slot=blue", "/")

	// What is over is told on the page, and ends nothing of others.
	s.act("ann", "act=release&environment=uat&fence="+fence, "/")
	s.call("POST /maybe?environment=uat&id=12345678&holder=eve&url=https://ci.example/7&reason=deploy").want(t, 201, "")
	for _, form := range []string{"act=extend&ttl=1h", "act=force", "act=take&id=12345679"} {
		r := s.browse("ann", "POST /act?environment=uat&fence="+fence+"&"+form).want(t, 409, "<!DOCTYPE html>")
		if !strings.Contains(r.body, "<bdi>uat: ") {
			t.Errorf("%s: nothing is said", form)
		}
	}
	s.browse("ann", "POST /act?act=leave&environment=uat&waiter=7").want(t, 409, "no request with this number waits")
	s.browse("ann", "GET /?environment=uat&act=force&fence="+fence).want(t, 409, "the lease is over")
	s.call("GET /environments?environment=uat").want(t, 200, `"holder":"eve"`)

	// The form says whose it is, why, with the link, and who is next.
	s.call("POST /maybe?environment=uat&id=waiting-1&holder=next-one&wait=0s")
	now := s.call("GET /maybe?environment=uat&reason=x")
	fence = regexp.MustCompile(`"fence":(\d+)`).FindStringSubmatch(now.body)[1]
	for _, text := range []string{`<a href="https://ci.example/7" rel="noreferrer"><bdi>eve</bdi></a>`, "deploy", "Next in the queue is <bdi>next-one</bdi>"} {
		s.browse("ann", "GET /?environment=uat&act=force&fence="+fence).want(t, 200, text)
	}
	take := s.formOf("ann", "/?environment=uat&act=take&fence="+fence)
	s.act("ann", take.Encode(), one)
	s.call("GET /environments?environment=uat").want(t, 200, `"holder":"ann"`)
	number := regexp.MustCompile(`act=remove&amp;waiter=(\d+)`).FindStringSubmatch(s.browse("ann", "GET "+one).body)[1]
	remove := s.formOf("ann", "/?environment=uat&act=remove&waiter="+number)
	s.act("ann", remove.Encode()+"&reason=gone", one)
	s.call("GET /history?environment=uat&limit=1").want(t, 200, `"event":"removed"`).want(t, 200, `"why":"gone"`)
	force := s.formOf("bob", "/?environment=uat&act=force&fence="+regexp.MustCompile(`"fence":(\d+)`).FindStringSubmatch(s.call("GET /environments").body)[1])
	s.act("bob", force.Encode()+"&reason=late", one)
	s.call("GET /history?environment=uat&limit=1").want(t, 200, `"event":"forced"`).want(t, 200, `"by":"bob"`)
	s.act("ann", s.formOf("ann", "/?environment=perf&act=reserve").Encode()+"&slot=green&ttl=1h", "/?environment=perf")
	s.call("GET /environments?environment=perf").want(t, 200, `{"slot":"green","lease":{`)
}

func TestThePageIsToLookAtWithoutAName(t *testing.T) {
	s := newSite(t, "uat")
	s.browse("", "GET /").want(t, 200, `you look only: <a href="/login">`).want(t, 200, `<body class=" look"`)
	s.browse("", "POST /act?act=reserve&environment=uat&id=12345678").want(t, 422, "log in with a name")
	s.browse("", "GET /login").want(t, 401, "")
	s.browse("ann", "GET /login?holder=ann").want(t, 401, "")
	if r := s.browse("eve", "GET /login?holder=ann"); r.StatusCode != 303 || r.Header.Get("Location") != "/" {
		t.Errorf("%d %v", r.StatusCode, r.Header)
	}
	if page := s.browse("", "GET /?environment=uat&act=reserve").body; strings.Contains(page, `id="act"`) {
		t.Error("a form is shown")
	}
}

func TestTheFormsAreGuarded(t *testing.T) {
	s := newSite(t, "uat")
	for _, headers := range [][]string{{"Origin", "https://evil.example"}, {"Sec-Fetch-Site", "cross-site"}} {
		s.browse("ann", "POST /act?act=reserve&environment=uat&id=12345678", headers...).want(t, 400, "a page of another site may not call this")
	}
	for line, status := range map[string]int{"act=reserve&id=12345678": 422, "act=none&environment=uat": 422, "act=force&environment=uat": 422, "act=extend&environment=uat&fence=x": 422,
		"act=remove&environment=uat": 422, "act=reserve&environment=never&id=12345678": 404, "act=leave&environment=never": 404, "act=reserve&environment=%00": 422} {
		if r := s.browse("ann", "POST /act?"+line, "X-Requested-With", "call-me"); r.StatusCode != status {
			t.Errorf("%s: %d %s", line, r.StatusCode, r.body)
		}
	}
	s.browse("ann", "POST /act?act=reserve&environment=uat&id=12345678", "X-Requested-With", "call-me").want(t, 200, `{"done":"uat is yours"}`)
	s.browse("ann", "POST /act?act=reserve&environment=uat&id=12345679", "X-Requested-With", "call-me").want(t, 403, `"message":"no free slot`)
	s.call("GET /act").want(t, 405, "")
}

// Who waits on the page stays in the queue while the page is looked at, also after a start of the
// server, and has five minutes to keep the slot.
func TestWaitingOnThePage(t *testing.T) {
	g := newRig(t, "uat")
	s := siteOf(t, g)
	s.call("POST /maybe?environment=uat&id=12345678&holder=eve").want(t, 201, "")
	wait := s.formOf("ann", "/?environment=uat&act=wait")
	wait.Set("ttl", "1h")
	s.browse("ann", "POST /act?"+wait.Encode(), "X-Requested-With", "call-me").want(t, 200, `{"done":"you are next in the queue of uat"}`)
	isConnected := func() bool { return s.server.keeper.published.Load().find("uat").queue[0].connected.Load() }
	within(t, "the server waits for ann", isConnected)
	s.browse("ann", "GET /").want(t, 200, `<span data-waits>you are next in the queue of`).want(t, 200, `http-equiv="refresh"`).want(t, 200, ">Leave the queue</button>")
	if page := s.browse("bob", "GET /").body; strings.Contains(page, "data-waits") || strings.Contains(page, "Leave the queue") {
		t.Error("bob waits, too")
	}
	s.call("DELETE /maybe?environment=uat&id=12345678").want(t, 204, "")
	page := s.browse("ann", "GET /").want(t, 200, `<span data-claim="uat">`).want(t, 200, ">Keep it</button>").body
	if strings.Contains(page, "data-waits") || strings.Contains(s.browse("bob", "GET /").body, "data-claim") {
		t.Error("the wait does not end, or is bob's")
	}
	l := s.server.keeper.published.Load().find("uat").leases[0]
	if left := time.Until(l.deadline); left > pageClaim || left < pageClaim-time.Minute {
		t.Errorf("it is kept for %v", left)
	}
	s.act("ann", fmt.Sprintf("act=extend&environment=uat&ttl=1h&fence=%d", l.fence), "/")
	if left := time.Until(s.server.keeper.published.Load().find("uat").leases[0].deadline); left < 59*time.Minute {
		t.Errorf("what was kept lasts for %v", left)
	}
	if page := s.browse("ann", "GET /").body; strings.Contains(page, "data-claim") {
		t.Error("it must be kept again")
	}
	bobs := s.formOf("bob", "/?environment=uat&act=wait")
	s.browse("bob", "POST /act?"+bobs.Encode()).want(t, 303, "")
	number := s.server.keeper.published.Load().find("uat").queue[0].number
	s.browse("ann", fmt.Sprintf("POST /act?act=leave&environment=uat&waiter=%d", number)).want(t, 409, "no request with this number waits")
	s.act("bob", fmt.Sprintf("act=leave&environment=uat&waiter=%d", number), "/")
	s.call("GET /history?limit=1").want(t, 200, `"event":"left"`)
}

// The place in the queue ends when nobody looks any more.
func TestNobodyWaitsWhoDoesNotLook(t *testing.T) {
	var a attendance
	now := time.Now()
	if !a.look("uat", "page-1", now.Add(-pageLookTime-time.Second)) || a.look("uat", "page-1", now) {
		t.Error("the first look is not the new one")
	}
	if a.end("uat", "page-1", false) {
		t.Error("it ends while somebody looks")
	}
	a.look("uat", "page-1", now.Add(-pageLookTime-time.Second))
	if !a.end("uat", "page-1", false) || !a.look("uat", "page-1", now) {
		t.Error("it does not end")
	}
	if !a.end("uat", "page-1", true) {
		t.Error("it does not end though it must")
	}
}

// within waits until a condition is true.
func within(t *testing.T, what string, isTrue func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !isTrue(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 5 s: %s", what)
		}
	}
}

// rowsOf returns what has changed after a serial number, the new number, and the compressed size.
func (s *site) rowsOf(user string, after, more string) (body, serial string, size int) {
	s.t.Helper()
	r := s.browse(user, "GET /rows?after="+after+more, "Accept-Encoding", "gzip")
	size = len(r.body)
	body = r.body
	if r.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(strings.NewReader(r.body))
		if err != nil {
			s.t.Fatal(err)
		}
		text, _ := io.ReadAll(z)
		body = string(text)
	}
	return body, regexp.MustCompile(`data-serial="(\d+)"`).FindStringSubmatch(body)[1], size
}

func TestOnlyRowsThatChangeAreSent(t *testing.T) {
	path := tempDB(t)
	pageWeekOf(t, path, time.Now())
	g := &rig{t: t, path: path, limits: testLimits}
	if err := g.declared.Decode(pageDeclared); err != nil {
		t.Fatal(err)
	}
	g.open()
	s := siteOf(t, g)
	all, serial, _ := s.rowsOf("ann", "0", "")
	if n := strings.Count(all, "<tbody"); n != 12 {
		t.Fatalf("%d rows at first", n)
	}
	none, same, _ := s.rowsOf("ann", serial, "")
	if strings.Contains(none, "<tbody") || same != serial || !strings.Contains(none, `data-order=""`) {
		t.Errorf("without a change: %s", none)
	}
	s.call("POST /maybe?environment=demo&id=12345678&holder=github:acme/shop/run/4711/deploy&reason=release+4.17.1&ttl=2h&url=https://ci.example/4711").want(t, 201, "")
	for _, user := range []string{"ann", "bob"} {
		body, next, size := s.rowsOf(user, serial, "")
		if strings.Count(body, "<tbody") != 1 || !strings.Contains(body, `id="e-demo"`) || next == serial {
			t.Errorf("%s gets %s", user, body)
		}
		if size > 3000 {
			t.Errorf("%s gets %d bytes", user, size)
		}
		t.Logf("a changed row: %d bytes", size)
	}
	rendered := s.pageBoard().rows["demo"].rendered
	s.rowsOf("eve", serial, "")
	if !s.pageBoard().rows["demo"].rendered.Equal(rendered) {
		t.Error("a row is rendered again for the next viewer")
	}
	_, serial, _ = s.rowsOf("ann", "0", "")
	past, _, size := s.rowsOf("ann", serial, "&past=1")
	if n := strings.Count(past, `<div id="c-`); n != 12 || strings.Contains(past, "<tbody") {
		t.Errorf("%d charts", n)
	}
	t.Logf("the past of twelve environments: %d bytes", size)
	// A server whose clock was set back has smaller numbers than the page.
	if again, _, _ := s.rowsOf("ann", "9000000000000000", ""); strings.Count(again, "<tbody") != 12 {
		t.Error("the page is never brought up to date")
	}
}

func TestAssetsAreSentOnce(t *testing.T) {
	s := newSite(t, "")
	for _, path := range []string{"/page.css", "/page.js"} {
		r := s.browse("ann", "GET "+path, "Accept-Encoding", "gzip").want(t, 200, "")
		tag := r.Header.Get("ETag")
		if tag == "" || r.Header.Get("Content-Encoding") != "gzip" || r.Header.Get("Cache-Control") != "private, no-cache" {
			t.Errorf("%s: %v", path, r.Header)
		}
		s.browse("ann", "GET "+path, "If-None-Match", tag).want(t, 304, "")
		s.browse("ann", "GET "+path, "If-None-Match", `"another"`, "Accept-Encoding", "identity").want(t, 200, "")
	}
	// A page with the id of a request is not compressed.
	if r := s.browse("ann", "GET /?environment=uat&act=reserve", "Accept-Encoding", "gzip"); r.Header.Get("Content-Encoding") != "" {
		t.Error("a page with a form is compressed")
	}
}

// pageBoard returns the board of those who see everything.
func (s *site) pageBoard() *board {
	s.t.Helper()
	if len(s.server.boards.all) != 1 {
		s.t.Fatalf("%d boards", len(s.server.boards.all))
	}
	for _, b := range s.server.boards.all {
		return b
	}
	return nil
}
