//go:build unix

package tests

import (
	"context"
	"fmt"
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

// A visit is one browser tab that is logged in. It has the errors and warnings of the
// browser, and the hosts of its requests.
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

func newVisit(t *testing.T, base, user string) *visit {
	t.Helper()
	v := newBrowser(t)
	v.open(base, user)
	return v
}

// How long a browser may take on a machine that runs many other programs.
const (
	pageTime  = 40 * time.Second // for what the page does at once; after 45 s it does without its worker
	eventTime = 18 * time.Second // for what an event tells the page; after 20 s it asks without an event
)

// newBrowser starts a browser with an empty tab.
func newBrowser(t *testing.T) *visit {
	t.Helper()
	profile, err := os.MkdirTemp("", "call-me-chromium") // not t.TempDir: Chromium may write to it later
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(profile) })
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(chromium(t)), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true), chromedp.UserDataDir(profile))
	allocator, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	// chromedp logs events that it does not know as errors: they are dropped.
	ctx, cancel := chromedp.NewContext(allocator, chromedp.WithErrorf(func(string, ...any) {}))
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, 3*time.Minute)
	t.Cleanup(cancel)
	return newTab(t, ctx)
}

// newTab returns a visit that records the errors, warnings and hosts of a tab.
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

// open logs in and opens the page. It logs in with the URL of another file, which is like
// typing the key once: the browser then sends the key for the requests of workers too.
func (v *visit) open(base, user string) {
	v.t.Helper()
	v.do(chromedp.Navigate(withLogin(base, user) + "/page.css"))
	v.do(chromedp.Navigate(base + "/"))
}

// withLogin returns the URL with a user name and the key.
func withLogin(base, user string) string {
	return strings.Replace(base, "://", "://"+url.UserPassword(user, testKey).String()+"@", 1)
}

func (v *visit) do(actions ...chromedp.Action) {
	v.t.Helper()
	if err := chromedp.Run(v.ctx, actions...); err != nil {
		v.t.Fatal(err)
	}
}

// shows waits until the page shows the text.
func (v *visit) shows(text string) {
	v.t.Helper()
	for end := time.Now().Add(eventTime); ; time.Sleep(20 * time.Millisecond) {
		body := v.script("document.body.innerText")
		if strings.Contains(strings.ToLower(body), strings.ToLower(text)) {
			return
		}
		if time.Now().After(end) {
			v.t.Fatalf("never shown: %q, but\n%s", text, body)
		}
	}
}

// script runs a JavaScript expression and returns its value as a string.
func (v *visit) script(code string) (result string) {
	v.t.Helper()
	v.do(chromedp.Evaluate("String("+code+")", &result))
	return result
}

// until waits until a JavaScript expression is true.
func (v *visit) until(code string) {
	v.t.Helper()
	eventually(v.t, code, func() bool { return v.script(code) == "true" })
}

// press clicks a button as soon as it is visible and enabled. A refresh may replace the
// button at any time, so one script finds and clicks it.
func (v *visit) press(selector string) {
	v.t.Helper()
	v.until(fmt.Sprintf("((b) => b?.checkVisibility() && !b.disabled && [b.click()].length === 1)(document.querySelector(%q))", selector))
}

// quiet checks that the browser has reported no error or warning, and has sent requests
// to no other host.
func (v *visit) quiet(base string) {
	v.t.Helper()
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.trouble) > 0 {
		v.t.Errorf("the browser complains: %q", v.trouble)
	}
	if delete(v.hosts, strings.TrimPrefix(base, "http://")); len(v.hosts) > 0 {
		v.t.Errorf("the page asked other hosts: %v", v.hosts)
	}
}

func TestThePageIsLiveAndLetsPeopleAct(t *testing.T) {
	t.Parallel()
	s := newDaemon(t, "CALL_ME_ENVIRONMENTS=uat,perf:2")
	d := newDetour(t, s.base)
	v := newVisit(t, d.url, "ann")
	v.shows("live")
	v.shows("free")

	s.call("POST", "/maybe?environment=uat&id=12345678&holder=github:acme/shop/run/1/deploy&url=https://ci.example.com/1&reason=release+1.4&ttl=2h")
	v.shows("shop #1")
	v.shows("release 1.4")
	s.call("POST", "/maybe?environment=uat&id=waiting-1&holder=next-one&wait=0s")
	v.shows("next-one")

	// A reservation is shown.
	v.openReserve("perf")
	v.do(chromedp.SendKeys(`[name=reason]`, "looking at it", chromedp.ByQuery), chromedp.Click("#dialog form button", chromedp.ByQuery))
	v.shows("looking at it")
	if _, body := s.call("GET", "/environments?environment=perf"); !strings.Contains(body, `"holder":"ann"`) || !strings.Contains(body, `"ttl_seconds":7200`) {
		t.Errorf("reserved: %s", body)
	}

	// A dialog stays open when the page below it changes.
	v.openForce("uat")
	s.call("POST", "/maybe?environment=perf&id=another-1&holder=somebody")
	v.shows("somebody")
	if open, says := v.script(`dialog.open`), v.script(`dialog.querySelector(".subject").textContent + dialog.querySelector("section > p").textContent`); open != "true" ||
		!strings.Contains(says, "github:acme/shop/run/1/deploy") || !strings.Contains(says, "release 1.4") || !strings.Contains(says, "Next in the queue is next-one") {
		t.Errorf("the dialog is open: %s, and says %q", open, says)
	}
	v.do(chromedp.SendKeys(`[name=reason]`, "it hangs", chromedp.ByQuery), chromedp.Click("#dialog form button", chromedp.ByQuery), chromedp.WaitNotVisible("#dialog", chromedp.ByQuery))
	if _, body := s.call("GET", "/history?environment=uat&limit=5"); !strings.Contains(body, `"by":"ann"`) || !strings.Contains(body, `"why":"it hangs"`) {
		t.Errorf("forced: %s", body)
	}

	// A forced release of a lease that has ended does not end another lease.
	s.call("DELETE", "/maybe?environment=uat&id=waiting-1")
	s.call("POST", "/maybe?environment=uat&id=abcdefgh&holder=old")
	v.shows("old")
	v.openForce("uat")
	s.call("DELETE", "/maybe?environment=uat&id=abcdefgh")
	s.call("POST", "/maybe?environment=uat&id=hgfedcba&holder=new")
	v.do(chromedp.Click("#dialog form button", chromedp.ByQuery))
	v.shows("held by new since")
	v.do(chromedp.Click("#dialog [data-close]", chromedp.ByQuery))
	if _, body := s.call("GET", "/environments?environment=uat"); !strings.Contains(body, `"holder":"new"`) {
		t.Error("somebody else's lease was ended")
	}
	// A lost connection is shown, and is made again.
	d.server.CloseClientConnections()
	v.shows("connection lost")
	s.call("POST", "/maybe?environment=perf&id=meanwhile-1&holder=meanwhile&wait=0s")
	v.shows("live")
	v.shows("meanwhile")
	v.mu.Lock()
	v.trouble = nil // the browser reports the refused call and the lost connection as errors
	v.mu.Unlock()

	// A user can extend and release their own lease.
	v.press(`[aria-label^="Extend perf perf-1"]`)
	v.do(chromedp.WaitVisible("#dialog form", chromedp.ByQuery), chromedp.SetValue("[name=ttl]", "8h", chromedp.ByQuery), chromedp.Click("#dialog form button", chromedp.ByQuery))
	v.shows("7h59m left")
	v.press(`button[aria-label^="Release perf perf-1"]`)
	eventually(t, "perf is released", func() bool {
		_, body := s.call("GET", "/environments?environment=perf")
		return !strings.Contains(body, `"holder":"ann"`)
	})
	v.quiet(d.url)
}

func TestHostileNamesAreHarmlessOnThePage(t *testing.T) {
	t.Parallel()
	s := newDaemon(t)
	bad := `"><script>document.title="hacked"</script><img src=x onerror='document.title="hacked"'>&lt;`
	for i, environment := range []string{`<b onclick="x">&"'`, "gnp.exe", "a b/../c"} {
		s.want(201, "POST", "/maybe?"+url.Values{"environment": {environment}, "holder": {bad}, "reason": {bad + "\n\x1b[31m"},
			"url": {"https://x/?q=%22%3E<script>" + fmt.Sprint(i)}, "id": {"12345678"}}.Encode())
	}
	v := newVisit(t, s.base, `<i>&"`)
	v.shows(bad)
	v.shows("live")
	if title, scripts := v.script("document.title"), v.script("document.scripts.length"); !strings.Contains(title, " free – call-me") || scripts != "1" {
		t.Errorf("title %q, %s scripts", title, scripts)
	}
	v.quiet(s.base)
}

// Every text of a caller on the page is in an element with a direction of its own.
func TestNamesOnThePageDoNotTurnTheTextAroundThem(t *testing.T) {
	t.Parallel()
	s := newDaemon(t, "CALL_ME_ENVIRONMENTS=אבג:דהו+זחט,כלם")
	call := func(id, holder, more string) {
		s.call("POST", "/maybe?"+url.Values{"environment": {"אבג"}, "id": {id}, "holder": {holder}, "reason": {"סיבה"}}.Encode()+more)
	}
	v := newBrowser(t)
	v.open(s.base, "ann")
	call("12345678", "עברית", "")
	call("12345679", "עברית", "&url=https://ci.example.com/1")
	call("12345670", "עברית", "&wait=0s")
	call("12345671", "עברית", "&wait=0s&url=https://ci.example.com/1")
	v.shows("סיבה")
	v.press(`.slot [aria-label^="More for "]`)
	v.do(chromedp.WaitVisible("#dialog .links", chromedp.ByQuery))
	s.call("POST", "/maybe?"+url.Values{"environment": {"כלם"}, "id": {"12345678"}, "holder": {"ann"}}.Encode())
	v.shows("you have כלם")
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
	for _, where := range []string{"th[scope=row]", ".slot th", ".who", ".why", ".queue", "#above .mine", "#act-title", ".subject dd"} {
		if v.script(`/[\u0590-\u05ff]/.test(document.querySelector("`+where+` bdi")?.textContent)`) != "true" {
			t.Errorf("%s shows no name", where)
		}
	}
}

// TestPictures writes screenshots of the pages to the folder PICTURES. The test of the same
// name in the folder above writes the database of a busy week there first:
//
//	PICTURES=/tmp/pictures go test -p 1 -run TestPictures . ./tests
func TestPictures(t *testing.T) {
	folder := os.Getenv("PICTURES")
	if folder == "" {
		t.Skip("PICTURES names no folder")
	}
	shoot := func(name, base string, width, height int64, dark bool, path string) {
		v := newVisit(t, base, "ann")
		scheme := map[bool]string{true: "dark", false: "light"}[dark]
		var picture []byte
		v.do(emulation.SetDeviceMetricsOverride(width, height, 1, width < 600),
			emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}),
			chromedp.Navigate(base+path))
		v.shows("live")
		v.do(chromedp.FullScreenshot(&picture, 100))
		if err := os.WriteFile(folder+"/"+name+".png", picture, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	shoot("empty", newDaemon(t).base, 1280, 800, false, "/")
	busy := newDaemon(t, "CALL_ME_DB="+folder+"/busy.db")
	busy.call("POST", "/maybe?environment=demo&holder=ann&reason=showing+it+to+sales&ttl=4h")
	for i, holder := range []string{"github:acme/shop/run/4712/deploy", "bob@laptop", "eve"} {
		busy.call("POST", fmt.Sprintf("/maybe?environment=uat&wait=0s&id=waiting-%d&holder=%s", i, holder))
	}
	shoot("busy", busy.base, 1280, 900, false, "/")
	shoot("busy-dark", busy.base, 1280, 900, true, "/")
	shoot("week", busy.base, 1280, 900, false, "/?since=7d")
	shoot("phone", busy.base, 390, 844, false, "/")
	shoot("one", busy.base, 1280, 900, false, "/?environment=uat")
}
