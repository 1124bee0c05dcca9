//go:build unix

package tests

// What the page shows and how: times, the filter, small and large screens, without scripts, and
// what stays as it is while the page is brought up to date.

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// A row that changes is brought up to date in place: what has the focus keeps it, and a row in
// which text is selected changes when it is not selected any more.
func TestAnUpdateKeepsFocusAndSelection(t *testing.T) {
	t.Parallel()
	s := newDaemon(t, "CALL_ME_ENVIRONMENTS=uat,perf")
	s.call("POST", "/maybe?environment=uat&id=12345678&holder=eve&reason=to+be+copied&url=https://ci.example/1")
	v := newVisit(t, s.base, "ann")
	v.shows("to be copied")
	v.script(`document.querySelector("#e-uat .who a").focus()`)
	v.script(`(window.perf = document.querySelector("#e-perf .pill"), window.link = document.activeElement)`)
	s.call("POST", "/maybe?environment=uat&id=waiting-1&holder=next-one&wait=0s")
	v.shows("next-one")
	if v.script(`document.activeElement === link && link.isConnected`) != "true" {
		t.Error("the focus is lost")
	}
	v.script(`getSelection().selectAllChildren(document.querySelector("#e-uat .why"))`)
	s.call("DELETE", "/maybe?environment=uat&id=waiting-1")
	s.call("POST", "/maybe?environment=perf&id=12345678&holder=another")
	v.shows("another")
	if now := v.script(`getSelection().toString() + document.getElementById("e-uat").className + document.querySelector("#e-uat .queue b").textContent`); now != "to be copiedstale1" {
		t.Errorf("with a selection: %q", now)
	}
	v.script(`getSelection().removeAllRanges()`)
	v.until(`!document.querySelector("#e-uat .queue b") && document.getElementById("e-uat").className === ""`)
	if v.script(`perf.isConnected`) != "true" {
		t.Error("a row is replaced though it need not be")
	}
	v.quiet(s.base)
}

func TestTimesAreTheReaders(t *testing.T) {
	t.Parallel()
	s := newDaemon(t, "CALL_ME_ENVIRONMENTS=uat")
	for i, c := range []struct {
		zone   string
		offset time.Duration
	}{{"Asia/Tehran", 3*time.Hour + 30*time.Minute}, {"Pacific/Honolulu", -10 * time.Hour}} {
		id := fmt.Sprint("12345678-", i)
		s.want(201, "POST", "/maybe?environment=uat&holder=eve&ttl=90m&id="+id)
		v := newBrowser(t)
		v.do(emulation.SetTimezoneOverride(c.zone), emulation.SetLocaleOverride().WithLocale("en-US"))
		v.open(s.base, "ann")
		v.says("live", pageTime)
		until := time.Now().Add(90 * time.Minute).UTC().Add(c.offset)
		shown := v.script(`document.querySelector("#e-uat .until time").textContent`)
		isShown := false
		for _, at := range []time.Time{until, until.Add(-time.Minute)} {
			isShown = isShown || strings.HasSuffix(shown, at.Format("15:04"))
		}
		if !isShown {
			t.Errorf("%s: until %q, want %s", c.zone, shown, until.Format("15:04"))
		}
		if zone := v.script(`document.getElementById("zone").textContent`); !strings.Contains(zone, c.zone) {
			t.Errorf("the zone is %q", zone)
		}
		// The lines of the timeline are at even hours of the reader.
		hours := v.script(`Array.from(document.querySelectorAll("#ticks line")).map((l) => {
			const at = new Date(Date.now() - 86400000 * (1 - l.getAttribute("x1") / 2000) + 30000);
			return at.getMinutes() === 0 ? at.getHours() : at.toString();
		}).sort((a, b) => a - b).join()`)
		if hours != "0,6,12,18" {
			t.Errorf("%s: the lines are at %s", c.zone, hours)
		}
		s.call("DELETE", "/maybe?environment=uat&id="+id)
	}
	v := newVisit(t, s.base, "ann")
	for ms, want := range map[string]string{"-5": "0s", "59999": "59s", "60000": "1m00s", "299000": "4m59s", "300000": "5m", "3599999": "59m", "3600000": "1h00m", "86399999": "23h59m", "86400000": "1d0h", "180000000": "2d2h"} {
		if got := v.script("duration(" + ms + ")"); got != want { // as pageDuration of the server
			t.Errorf("%s ms are %s, want %s", ms, got, want)
		}
	}
}

func TestTheFilterOfThePage(t *testing.T) {
	t.Parallel()
	s := newDaemon(t, "CALL_ME_ENVIRONMENTS=uat,perf,demo,team/data")
	s.call("POST", "/maybe?environment=uat&id=12345678&holder=github:acme/shop/run/4711/deploy&reason=Release")
	s.call("POST", "/maybe?environment=perf&id=12345678&holder=ann")
	v := newVisit(t, s.base, "ann")
	v.says("live", pageTime)
	shown := func(want string) {
		t.Helper()
		v.until(fmt.Sprintf(`Array.from(document.querySelectorAll("#table tbody")).filter((r) => r.checkVisibility()).map((r) => r.id).join() === %q`, want))
	}
	shown("e-demo,e-perf,e-team%2Fdata,e-uat")
	v.do(chromedp.KeyEvent("/"))
	v.until(`document.activeElement.name === "q"`)
	v.do(chromedp.KeyEvent("reLEASE"))
	shown("e-uat")
	if at := v.script("location.search"); at != "?q=reLEASE" {
		t.Errorf("the address has %q", at)
	}
	s.call("POST", "/maybe?environment=demo&id=12345678&holder=bob") // a refresh does not show it
	v.until(`document.querySelector("#counts [data-show=held] b").textContent === "3"`)
	shown("e-uat")
	v.script(`[document.querySelector("[name=q]").value = "", document.querySelector("[name=q]").dispatchEvent(new Event("input", { bubbles: true }))]`)
	v.press("#counts [data-show=mine]")
	shown("e-perf")
	v.do(chromedp.Reload())
	shown("e-perf")
	v.press("#counts [data-show='']")
	shown("e-demo,e-perf,e-team%2Fdata,e-uat")
	v.press("#counts [data-show=free]")
	shown("e-team%2Fdata")
	s.call("DELETE", "/maybe?environment=uat&id=12345678")
	shown("e-team%2Fdata,e-uat")
}

// All of it works without scripts.
func TestThePageWithoutScripts(t *testing.T) {
	t.Parallel()
	s := newDaemon(t, "CALL_ME_ENVIRONMENTS=uat,perf")
	v := newBrowser(t)
	v.do(chromedp.Navigate(withLogin(s.base, "ann")+"/page.css"), emulation.SetScriptExecutionDisabled(true), chromedp.Navigate(s.base+"/"))
	text := func() (text string) {
		v.do(chromedp.Text("body", &text, chromedp.ByQuery))
		return text
	}
	click := func(selector, then string) {
		v.do(chromedp.WaitVisible(selector, chromedp.ByQuery), chromedp.Click(selector, chromedp.ByQuery), chromedp.WaitVisible(then, chromedp.ByQuery))
	}
	click(`[aria-label="Reserve uat…"]`, "#act form")
	v.do(chromedp.SendKeys("#act [name=reason]", "by hand", chromedp.ByQuery))
	click("#act form button", `[aria-label="Release uat, held by ann"]`)
	if shown := text(); !strings.Contains(shown, "by hand") || !strings.Contains(shown, "you have uat until ") {
		t.Errorf("after the reservation: %s", shown)
	}
	v.do(chromedp.Navigate(s.base + "/?show=mine"))
	if shown := text(); strings.Contains(shown, "perf") || !strings.Contains(shown, "yours") {
		t.Errorf("of mine: %s", shown)
	}
	click(`[aria-label="Release uat, held by ann"]`, `[aria-label="Reserve uat…"]`)
	s.call("POST", "/maybe?environment=perf&id=12345678&holder=eve")
	v.do(chromedp.Navigate(s.base + "/"))
	click(`[aria-label="Wait in the queue of perf…"]`, "#act form")
	click("#act form button", `button[aria-label="Leave the queue of perf"]`)
	s.call("DELETE", "/maybe?environment=perf&id=12345678")
	v.do(chromedp.Navigate(s.base + "/"))
	click(`.strip button[aria-label="Keep perf perf"], .strip button[aria-label^="Keep perf"]`, `[aria-label="Release perf, held by ann"]`)
	if _, body := s.call("GET", "/environments?environment=perf"); !strings.Contains(body, `"holder":"ann"`) || !strings.Contains(body, `"ttl_seconds":7200`) {
		t.Errorf("kept: %s", body)
	}
}

// Who waits is told by the title, the icon and a notification, in a hidden tab too.
func TestWhoWaitsOnThePageIsTold(t *testing.T) {
	t.Parallel()
	s := newDaemon(t, "CALL_ME_ENVIRONMENTS=uat,perf")
	s.call("POST", "/maybe?environment=uat&id=12345678&holder=eve")
	d := newDetour(t, s.base)
	v := newBrowser(t)
	v.open(d.url, "ann")
	v.do(browser.GrantPermissions([]browser.PermissionType{browser.PermissionTypeNotifications}).WithOrigin(d.url))
	v.script(`Notification = new Proxy(Notification, { construct(real, what) { told = [what[0], what[1].tag].join(); return new real(...what) } }), told = ""`)
	v.press(`[aria-label="Wait in the queue of uat…"]`)
	v.do(chromedp.WaitVisible("#dialog form", chromedp.ByQuery), chromedp.Click("#dialog form button", chromedp.ByQuery))
	v.shows("you are next in the queue of uat")
	if done := v.script(`document.getElementById("done").textContent`); done != "you are next in the queue of uat" {
		t.Errorf("announced: %q", done)
	}
	before := v.script("icon.href")
	other, _ := v.tab(false)
	other.front()
	v.until("document.hidden")
	eventually(t, "the hidden page hears of its slot", func() bool { return d.streams() == 1 })
	s.call("DELETE", "/maybe?environment=uat&id=12345678")
	v.until(`document.title === "● uat is yours"`)
	if now := v.script("icon.href"); now == before {
		t.Error("the icon is the same")
	}
	if done := v.script(`document.getElementById("done").textContent`); !strings.Contains(done, "uat is yours: keep it") {
		t.Errorf("announced: %q", done)
	}
	if told := v.script("told"); !strings.HasPrefix(told, "uat is yours: keep it") || !strings.HasSuffix(told, ",uat") {
		t.Errorf("the notification: %q", told)
	}
	eventually(t, "a hidden page that waits no more has no stream", func() bool { return d.streams() == 0 })
	v.front()
	v.press(`.strip [aria-label="Keep uat, held by ann"]`)
	v.until(`!document.title.startsWith("●")`)
	v.shows("1h59m left")
	if now := v.script("icon.href"); now != before {
		t.Error("the icon stays")
	}
}

// What does not work is said at its row, while the server is away, and of a lease that is over.
func TestWhatDoesNotWorkIsSaidAtItsRow(t *testing.T) {
	t.Parallel()
	s := newDaemon(t, "CALL_ME_ENVIRONMENTS=uat,perf")
	d := newDetour(t, s.base)
	s.call("POST", "/maybe?environment=uat&id=12345678&holder=ann&ttl=1h")
	v := newBrowser(t)
	v.open(d.url, "ann")
	v.says("live", pageTime)
	d.when(func(w http.ResponseWriter, r *http.Request) bool { // the page does not hear of the end
		return r.URL.Path == "/rows" && unanswered("GET /rows")(w, r)
	})
	s.call("DELETE", "/maybe?environment=uat&force=1")
	s.call("POST", "/maybe?environment=uat&id=12345679&holder=eve")
	v.press(`[aria-label^="Release uat"]`)
	v.until(`document.querySelector("#e-uat ` + pageAlert + `")?.textContent.startsWith("you hold no slot on \"uat\"; it was released by force")`)
	v.press(`[aria-label^="Extend uat"]`)
	v.until(`document.querySelector("#e-uat ` + pageAlert + `")?.textContent.includes("the lease is over")`)
	if _, body := s.call("GET", "/environments?environment=uat"); !strings.Contains(body, `"holder":"eve"`) {
		t.Errorf("eve has lost it: %s", body)
	}
	d.when(func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) })
	v.press(`[aria-label="Reserve perf…"]`)
	v.until(`document.querySelector("#e-perf ` + pageAlert + `")?.textContent === "connection lost"`)
}

// On no screen the page is wider than that, and what can be pressed is large enough for a finger
// on a small one.
func TestThePageFitsSmallScreens(t *testing.T) {
	t.Parallel()
	s := newDaemon(t, "CALL_ME_ENVIRONMENTS=uat:blue+green,e2e-eu-west-1-integration-cluster,team/data,demo")
	long := strings.Repeat("x", 200)
	s.call("POST", "/maybe?environment=uat&id=12345678&holder=github:acme/"+long+"/run/1/deploy&reason="+long+"&ttl=3m&url=https://ci.example/1")
	s.call("POST", "/maybe?environment=uat&id=12345679&holder="+long)
	s.call("POST", "/maybe?environment=uat&id=waiting-1&wait=0s&holder="+long)
	s.call("POST", "/maybe?environment=e2e-eu-west-1-integration-cluster&id=12345679&holder=ann&reason="+long)
	v := newVisit(t, s.base, "ann")
	for _, width := range []int64{1280, 1100, 1000, 800, 640, 390, 320} { // 640 is 1280 at 200 %
		for _, path := range []string{"/", "/?environment=uat", "/?environment=uat&act=more&slot=blue", "/?view=tv"} {
			v.do(emulation.SetDeviceMetricsOverride(width, 800, 1, width < 600), chromedp.Navigate(s.base+path))
			v.says("live", pageTime)
			if wide := v.script("document.documentElement.scrollWidth"); wide != fmt.Sprint(width) {
				t.Errorf("%s is %s wide on a screen of %d", path, wide, width)
			}
			if small := v.script(`Array.from(document.querySelectorAll("button, .button")).filter((b) => b.checkVisibility() && b.getBoundingClientRect().height < ` + map[bool]string{true: "34", false: "22"}[width < 600] + `).map((b) => b.outerHTML).join()`); small != "" {
				t.Errorf("%s on a screen of %d: too low: %s", path, width, small)
			}
		}
	}
}

// On paper there is nothing to press, and every row with who has it. With the colours of a reader
// who has chosen their own, states keep an outline and bars their pattern.
func TestThePageOnPaperAndInForcedColours(t *testing.T) {
	t.Parallel()
	s := newDaemon(t, "CALL_ME_ENVIRONMENTS=uat:blue+green,perf,demo")
	s.call("POST", "/maybe?environment=uat&id=12345678&holder=eve&ttl=2h")
	s.call("POST", "/maybe?environment=demo&id=12345679&holder=bob&ttl=2h")
	v := newVisit(t, s.base, "ann")
	v.says("live", pageTime)
	for _, path := range []string{"/", "/?environment=uat"} {
		v.do(emulation.SetDeviceMetricsOverride(794, 1123, 1, false), // A4
			emulation.SetEmulatedMedia().WithMedia("print"), chromedp.Navigate(s.base+path))
		v.says("live", pageTime)
		if shown := v.script(`Array.from(document.querySelectorAll("button, .button, input")).filter((e) => e.checkVisibility()).length`); shown != "0" {
			t.Errorf("%s on paper has %s things to press", path, shown)
		}
		if wide := v.script("document.documentElement.scrollWidth"); wide != "794" {
			t.Errorf("%s is %s wide on paper", path, wide)
		}
		if text := v.script("document.body.innerText"); !strings.Contains(text, "eve") || !strings.Contains(text, "1h59m left") {
			t.Errorf("%s on paper: %s", path, text)
		}
	}
	v.do(emulation.SetDeviceMetricsOverride(1280, 800, 1, false), emulation.SetEmulatedMedia().
		WithFeatures([]*emulation.MediaFeature{{Name: "forced-colors", Value: "active"}}), chromedp.Navigate(s.base+"/"))
	v.says("live", pageTime)
	if v.script(`matchMedia("(forced-colors: active)").matches`) != "true" {
		t.Fatal("Chromium does not force colours")
	}
	bare := `Array.from(document.querySelectorAll(".pill, .button, .chips a")).filter((e) => e.checkVisibility() && getComputedStyle(e).borderTopStyle !== "solid").length`
	if n := v.script(bare); n != "0" {
		t.Errorf("%s states and buttons have no outline", n)
	}
	for _, how := range []string{"handed", "expired", "forced", "held"} { // in the legend, with the classes of bars
		style := `getComputedStyle(document.querySelector("path.` + how + `")).fill`
		if fill := v.script(style); !strings.HasPrefix(fill, `url("#is-`+how+`")`) {
			t.Errorf("a bar that is %s has %s", how, fill)
		}
		if v.script(`document.querySelectorAll("pattern#is-`+how+` .mark").length`) != "1" {
			t.Errorf("no pattern for %s", how)
		}
	}
}

func TestTheViewForAScreenOnTheWall(t *testing.T) {
	t.Parallel()
	s := newDaemon(t, "CALL_ME_ENVIRONMENTS=uat,perf,demo")
	v := newBrowser(t)
	v.do(emulation.SetDeviceMetricsOverride(1920, 1080, 1, false), chromedp.Navigate(withLogin(s.base, "tv")+"/?view=tv"))
	v.says("live", pageTime)
	s.call("POST", "/maybe?environment=uat&id=12345678&holder=eve&ttl=2h")
	v.shows("1h59m left")
	if shown := v.script(`Array.from(document.querySelectorAll("button, .button, input, svg.lane")).filter((e) => e.checkVisibility()).length`); shown != "0" {
		t.Errorf("%s things to press", shown)
	}
	if size := v.script(`parseFloat(getComputedStyle(document.querySelector("#e-uat .pill")).fontSize) >= 24`); size != "true" {
		t.Error("the text is small")
	}
	v.quiet(s.base)
}

// Each thing that can be pressed has a name of its own, and all can be reached with the keyboard.
func TestNamesAndKeysOfThePage(t *testing.T) {
	t.Parallel()
	s := newDaemon(t, "CALL_ME_ENVIRONMENTS=uat:blue+green,perf,demo,web:2")
	for i, path := range []string{"uat&holder=eve", "uat&holder=bob", "perf&holder=ann", "web&holder=ann", "uat&holder=joe&wait=0s"} {
		s.call("POST", fmt.Sprint("/maybe?id=12345678-", i, "&environment=", path))
	}
	v := newVisit(t, s.base, "ann")
	v.says("live", pageTime)
	for _, path := range []string{"/", "/?environment=uat"} {
		v.do(chromedp.Navigate(s.base + path))
		v.says("live", pageTime)
		twice := v.script(`Array.from(document.querySelectorAll("main button, main .button")).map((b) => b.ariaLabel || b.textContent).filter((n, i, all) => !n || all.indexOf(n) !== i).join("; ")`)
		if twice != "" {
			t.Errorf("%s: names that are there twice: %s", path, twice)
		}
	}
	v.do(chromedp.Navigate(s.base + "/"))
	v.says("live", pageTime)
	v.script(`document.querySelector('[aria-label="More for uat blue, held by eve"]').focus()`)
	v.do(chromedp.KeyEvent("\r"))
	v.until(`document.getElementById("dialog").open && document.activeElement.closest("#dialog") !== null`)
	v.until(`document.querySelector('#dialog [aria-label="Force release uat blue, held by eve…"]') !== null`)
	v.script(`document.querySelector('#dialog [aria-label="Force release uat blue, held by eve…"]').focus()`)
	v.do(chromedp.KeyEvent("\r"))
	v.until(`document.activeElement.name === "reason"`)
	v.do(chromedp.KeyEvent("\x1b"))
	v.until(`!document.getElementById("dialog").open && document.activeElement.ariaLabel === "More for uat blue, held by eve"`)
}
