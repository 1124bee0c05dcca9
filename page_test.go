package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	cdpruntime "github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// busyDay fills a database with what a busy team does: events of so many
// days, and leases and lines as of now.
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
			kind := released
			if x := r.Float64(); x < .06 {
				kind = expired
			} else if x < .09 {
				kind = forced
			}
			holder := fmt.Sprintf(jobs[r.IntN(len(jobs))], 100+r.IntN(900))
			number += 2
			records = append(records,
				encodeEvent(&event{number: number, kind: granted, at: at, environment: name, slot: name, holder: holder, fence: number, waited: waited}),
				encodeEvent(&event{number: number + 1, kind: kind, at: at.Add(held), environment: name, slot: name, holder: holder, fence: number, waited: waited, held: held}))
		}
		if load > .2 {
			number++
			records = append(records, encodeLease(name, &lease{request: request{id: newID(), holder: fmt.Sprintf(jobs[i%len(jobs)], 77+i), url: "https://ci.example.com/" + name, reason: "release 1." + fmt.Sprint(i)},
				slot: name, fence: number, since: now.Add(-time.Duration(i+3) * time.Minute), ttl: 2 * time.Hour}))
			for j := range waiting * (3 - i) / 6 {
				number++
				records = append(records, encodePlace(name, &place{request: request{id: newID(), holder: fmt.Sprintf(jobs[j%len(jobs)], 200+j), reason: "tests"}, number: number, since: now.Add(-time.Duration(20-j) * time.Minute)}))
			}
		}
	}
	if err := s.rewrite(number, records); err != nil {
		t.Fatal(err)
	}
}

// A visit is one browser tab that is logged in, and what it complains about.
type visit struct {
	t       *testing.T
	ctx     context.Context
	mu      sync.Mutex
	trouble []string
	hosts   map[string]bool
}

func chromium(t *testing.T) string {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	missing(t, "Chromium (Debian: chromium)")
	return ""
}

func newVisit(t *testing.T, s *site, user string) *visit {
	t.Helper()
	v := newBrowser(t)
	v.open(s.url, user)
	return v
}

// newBrowser starts a browser with an empty tab.
func newBrowser(t *testing.T) *visit {
	t.Helper()
	profile, err := os.MkdirTemp("", "call-me-chromium") // not t.TempDir: Chromium may write to it after its end
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(profile) })
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(chromium(t)), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true), chromedp.UserDataDir(profile))
	allocator, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	ctx, cancel := chromedp.NewContext(allocator, chromedp.WithErrorf(func(string, ...any) {})) // it complains of events that it does not know
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, 3*time.Minute)
	t.Cleanup(cancel)
	return newTab(t, ctx)
}

// newTab notes what a tab asks for and complains about.
func newTab(t *testing.T, ctx context.Context) *visit {
	t.Helper()
	v := &visit{t: t, ctx: ctx, hosts: map[string]bool{}}
	chromedp.ListenTarget(ctx, func(e any) {
		v.mu.Lock()
		defer v.mu.Unlock()
		switch e := e.(type) {
		case *network.EventRequestWillBeSent:
			if u, err := url.Parse(e.Request.URL); err == nil && u.Scheme != "data" {
				v.hosts[u.Host] = true
			}
		case *log.EventEntryAdded:
			v.trouble = append(v.trouble, e.Entry.Text+" "+e.Entry.URL)
		case *cdpruntime.EventExceptionThrown:
			v.trouble = append(v.trouble, e.ExceptionDetails.Error())
		case *cdpruntime.EventConsoleAPICalled:
			if e.Type == "error" || e.Type == "warning" {
				v.trouble = append(v.trouble, fmt.Sprint("console ", e.Type))
			}
		}
	})
	v.do(network.Enable(), log.Enable())
	return v
}

// open logs in, as somebody does who types the key once, and opens the page.
// The browser then sends the key for its workers, too.
func (v *visit) open(base, user string) {
	v.t.Helper()
	v.do(chromedp.Navigate(withLogin(base, user) + "/page.css"))
	v.do(chromedp.Navigate(base + "/"))
}

// withLogin is a URL with a user name and the key.
func withLogin(base, user string) string {
	return strings.Replace(base, "://", "://"+url.UserPassword(user, testKey).String()+"@", 1)
}

func (v *visit) do(actions ...chromedp.Action) {
	v.t.Helper()
	if err := chromedp.Run(v.ctx, actions...); err != nil {
		v.t.Fatal(err)
	}
}

// shows waits until the page says something.
func (v *visit) shows(text string) {
	v.t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		body := v.script("document.body.innerText")
		if strings.Contains(strings.ToLower(body), strings.ToLower(text)) {
			return
		}
		if time.Now().After(end) {
			v.t.Fatalf("never shown: %q, but\n%s", text, body)
		}
	}
}

// script runs JavaScript and returns what it says.
func (v *visit) script(code string) (result string) {
	v.t.Helper()
	v.do(chromedp.Evaluate("String("+code+")", &result))
	return result
}

// until waits until JavaScript says true.
func (v *visit) until(code string) {
	v.t.Helper()
	eventually(v.t, code, func() bool { return v.script(code) == "true" })
}

// press clicks a button as soon as one can. A refresh may replace the button at
// any time, so the page itself looks for it.
func (v *visit) press(selector string) {
	v.t.Helper()
	v.until(fmt.Sprintf("((b) => b?.checkVisibility() && !b.disabled && [b.click()].length === 1)(document.querySelector(%q))", selector))
}

func (v *visit) quiet(s *site) {
	v.t.Helper()
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.trouble) > 0 {
		v.t.Errorf("the browser complains: %q", v.trouble)
	}
	if delete(v.hosts, strings.TrimPrefix(s.url, "http://")); len(v.hosts) > 0 {
		v.t.Errorf("the page asked other hosts: %v", v.hosts)
	}
}

func TestThePageIsLiveAndLetsPeopleAct(t *testing.T) {
	s := newSite(t, "uat,perf:2")
	v := newVisit(t, s, "ann")
	v.shows("live")
	v.shows("free")

	s.call("POST /maybe?environment=uat&id=12345678&holder=github:acme/shop/run/1/deploy&url=https://ci.example.com/1&reason=release+1.4&ttl=2h")
	v.shows("github:acme/shop/run/1/deploy")
	v.shows("release 1.4")
	s.call("POST /maybe?environment=uat&id=waiting-1&holder=next-one&wait=0s")
	v.shows("next-one")

	// reserve
	v.do(chromedp.Click("#reserve-open", chromedp.ByQuery), chromedp.SendKeys(`[name=environment]`, "perf", chromedp.ByQuery),
		chromedp.SendKeys(`[name=reason]`, "looking at it", chromedp.ByQuery), chromedp.Click("#reserve [type=submit]", chromedp.ByQuery))
	v.shows("looking at it")
	if body := s.call("GET /environments?environment=perf").body; !strings.Contains(body, `"holder":"ann"`) || !strings.Contains(body, `"ttl_seconds":7200`) {
		t.Errorf("reserved: %s", body)
	}

	// a dialog stays open while the page changes under it
	v.press("[data-act=force]")
	v.do(chromedp.WaitVisible("#confirm", chromedp.ByQuery))
	s.call("POST /maybe?environment=perf&id=another-1&holder=somebody")
	v.shows("somebody")
	if open, says := v.script(`document.getElementById("confirm").open`), v.script(`document.getElementById("confirm-holder").textContent`); open != "true" || says != "github:acme/shop/run/1/deploy" {
		t.Errorf("the dialog is open: %s, and names %q", open, says)
	}
	v.do(chromedp.Click("#confirm [type=submit]", chromedp.ByQuery))
	v.shows("forced")
	for s.historyOf("environment=uat&limit=1").Events[0].By != "ann" {
		time.Sleep(10 * time.Millisecond)
	}

	// a force of a lease that is over ends nobody else's
	s.call("DELETE /maybe?environment=uat&id=waiting-1")
	s.call("POST /maybe?environment=uat&id=abcdefgh&holder=old")
	v.shows("old")
	v.press("[data-environment=uat][data-act=force]")
	v.do(chromedp.WaitVisible("#confirm", chromedp.ByQuery))
	s.call("DELETE /maybe?environment=uat&id=abcdefgh")
	s.call("POST /maybe?environment=uat&id=hgfedcba&holder=new")
	v.do(chromedp.Click("#confirm [type=submit]", chromedp.ByQuery))
	v.shows("held by new since")
	v.do(chromedp.Click("#confirm [data-close]", chromedp.ByQuery))
	if !strings.Contains(s.call("GET /environments?environment=uat").body, `"holder":"new"`) {
		t.Error("somebody else's lease was ended")
	}
	// a connection that is lost is told, and found again
	s.http.CloseClientConnections()
	v.shows("connection lost")
	s.call("POST /maybe?environment=perf&id=meanwhile-1&holder=meanwhile&wait=0s")
	v.shows("live")
	v.shows("meanwhile")
	v.mu.Lock()
	v.trouble = nil // the browser itself notes the refusal and the lost connection
	v.mu.Unlock()

	// what was used today is shown, though nobody has it
	v.do(chromedp.Reload())
	v.shows("median wait")

	// release one's own
	v.press("[data-act=release]")
	for strings.Contains(s.call("GET /environments?environment=perf").body, `"holder":"ann"`) {
		time.Sleep(10 * time.Millisecond)
	}
	v.quiet(s)
}

func TestHostileNamesAreHarmlessOnThePage(t *testing.T) {
	s := newSite(t, "")
	bad := `"><script>document.title="hacked"</script><img src=x onerror='document.title="hacked"'>&lt;`
	for i, environment := range []string{`<b onclick="x">&"'`, "gnp.exe", "a b/../c"} {
		r, _ := http.NewRequest("POST", s.url+"/maybe", strings.NewReader(url.Values{"environment": {environment}, "holder": {bad}, "reason": {bad + "\n\x1b[31m"},
			"url": {"https://x/?q=%22%3E<script>" + fmt.Sprint(i)}, "id": {"12345678"}}.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		s.send(r).want(t, 201, "")
	}
	v := newVisit(t, s, `<i>&"`)
	v.shows(bad)
	v.shows("live")
	if title, scripts := v.script("document.title"), v.script("document.scripts.length"); title != "call-me" || scripts != "2" {
		t.Errorf("title %q, %s scripts", title, scripts)
	}
	v.quiet(s)
}

// Every text of somebody else's stands in an element of its own direction.
func TestNamesOnThePageDoNotTurnTheTextAroundThem(t *testing.T) {
	s := newSite(t, "אבג:דהו+זחט,כלם")
	call := func(id, holder, more string) {
		s.call("POST /maybe?" + url.Values{"environment": {"אבג"}, "id": {id}, "holder": {holder}, "reason": {"סיבה"}}.Encode() + more)
	}
	call("12345678", "עברית", "")
	call("12345679", "עברית", "&url=https://ci.example.com/1")
	call("12345670", "עברית", "&wait=0s")
	call("12345671", "עברית", "&wait=0s&url=https://ci.example.com/1")
	v := newBrowser(t)
	v.open(s.url, "ann")
	v.shows("סיבה")
	v.press("[data-act=force]")
	v.do(chromedp.WaitVisible("#confirm", chromedp.ByQuery))
	v.script(`confirmation.querySelector("form").requestSubmit()`)
	v.do(chromedp.WaitNotVisible("#confirm", chromedp.ByQuery))
	s.call("POST /maybe?" + url.Values{"environment": {"כלם"}, "id": {"12345678"}, "holder": {"ann"}}.Encode())
	v.until(`document.querySelector("[data-act=release]")?.checkVisibility()`)
	s.call("DELETE /maybe?" + url.Values{"environment": {"כלם"}, "id": {"12345678"}}.Encode())
	bare := v.script(`(() => {
		const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
		while (walker.nextNode()) {
			const around = walker.currentNode.parentElement;
			if (/[\u0590-\u05ff]/.test(walker.currentNode.data) && !around.closest("bdi, title")) found.push(around.outerHTML);
		}
		return found.join("\n");
	})()`)
	if bare != "" {
		t.Errorf("not isolated:\n%s", bare)
	}
	if titles := v.script(`Array.from(document.querySelectorAll("title")).filter(e => /[\u0590-\u05ff]/.test(e.textContent)).every(e => /^\u2068[^:]*\u2069:/.test(e.textContent))`); titles != "true" {
		t.Error("a holder in a tooltip is not isolated")
	}
	for _, where := range []string{"h2", ".name", ".holder", ".line .holder", ".line .reason", "figcaption", "#confirm-holder", "#confirm-slot"} {
		if v.script(`/[\u0590-\u05ff]/.test(document.querySelector("`+where+` bdi")?.textContent)`) != "true" {
			t.Errorf("%s shows no name", where)
		}
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
	if n := len(g.past.events); n < 10_000 {
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

// discard is a ResponseWriter that counts.
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

var _ io.Writer = &discard{}

func BenchmarkPage(b *testing.B) {
	path := b.TempDir() + "/call-me.db"
	busyDay(b, path, 8, 180, 7, 12)
	st := mustOpen(b, path)
	defer st.close()
	k, err := newKeeper(st, environments{}.of, 10, newMetrics(), quietLog())
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

// With PICTURES=folder the pages are photographed, to be looked at.
func TestPictures(t *testing.T) {
	folder := os.Getenv("PICTURES")
	if folder == "" {
		t.Skip("PICTURES names no folder")
	}
	shoot := func(name string, s *site, width, height int64, dark bool, path string) {
		v := newVisit(t, s, "ann")
		scheme := map[bool]string{true: "dark", false: "light"}[dark]
		var picture []byte
		v.do(emulation.SetDeviceMetricsOverride(width, height, 1, width < 600),
			emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}),
			chromedp.Navigate(s.url+path))
		v.shows("live")
		v.do(chromedp.FullScreenshot(&picture, 100))
		if err := os.WriteFile(folder+"/"+name+".png", picture, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	shoot("empty", newSite(t, ""), 1280, 800, false, "/")
	path := tempDB(t)
	busyDay(t, path, 8, 40, 7, 12)
	g := &rig{t: t, path: path, maxWaiters: 100}
	g.open()
	busy := siteOf(t, g)
	busy.call("POST /maybe?environment=demo&holder=ann&reason=showing+it+to+sales&ttl=4h")
	shoot("busy", busy, 1280, 900, false, "/")
	shoot("busy-dark", busy, 1280, 900, true, "/")
	shoot("week", busy, 1280, 900, false, "/?since=7d")
	shoot("phone", busy, 390, 844, false, "/")
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
