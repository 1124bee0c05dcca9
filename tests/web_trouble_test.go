//go:build unix

package tests

// The page in a browser, while the server, the connection or the key fails, and with many
// tabs and many events. The page says "live" only while it shows the current state.

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/fetch"
	cdppage "github.com/chromedp/cdproto/page"
	cdptarget "github.com/chromedp/cdproto/target"
	"github.com/chromedp/chromedp"
)

// browserSlack is how much later than the script's timers a browser may act, on a machine
// that runs other programs too.
const browserSlack = 300 * time.Millisecond

// A detour is a reverse proxy in front of a server. It records the time of each call. A
// test can reply to some of the calls itself.
type detour struct {
	url    string
	server *httptest.Server
	open   atomic.Int32 // the number of open event streams
	mu     sync.Mutex
	calls  map[string][]time.Time
	take   func(w http.ResponseWriter, r *http.Request) (taken bool)
}

func newDetour(t *testing.T, target string) *detour {
	d := &detour{calls: map[string][]time.Time{}}
	to, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	through := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(to)
		r.Out.Host = r.In.Host
	}}
	through.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) }
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := r.Method + " " + r.URL.Path
		d.mu.Lock()
		d.calls[name] = append(d.calls[name], time.Now())
		take := d.take
		d.mu.Unlock()
		if r.URL.Path == "/events" {
			d.open.Add(1)
			defer d.open.Add(-1)
		}
		if take == nil || !take(w, r) {
			through.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(func() {
		h.CloseClientConnections()
		h.Close()
	})
	d.url, d.server = h.URL, h
	return d
}

// when passes each call to take first, until when is called again. If take returns false,
// the call goes to the server. With nil all calls do.
func (d *detour) when(take func(w http.ResponseWriter, r *http.Request) bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.take = take
}

// streams returns the number of open event streams.
func (d *detour) streams() int { return int(d.open.Load()) }

// times returns the times of all calls so far with a method and path, such as "GET /".
func (d *detour) times(call string) []time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.calls[call])
}

// unanswered returns a take function that holds a call until the browser cancels it.
func unanswered(call string) func(http.ResponseWriter, *http.Request) bool {
	return func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method+" "+r.URL.Path != call {
			return false
		}
		io.Copy(io.Discard, r.Body) // else the server does not see that the browser leaves
		<-r.Context().Done()
		return true
	}
}

// answered returns a take function that replies to a call with a status and a text.
func answered(call string, status int, text string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method+" "+r.URL.Path != call {
			return false
		}
		w.WriteHeader(status)
		fmt.Fprint(w, text)
		return true
	}
}

// connection returns the page's text about its connection.
func (v *visit) connection() string {
	v.t.Helper()
	return v.script(`document.getElementById("connection")?.textContent`) // undefined while another page loads
}

// says waits until the page's text about its connection contains the text, and returns
// how long that took.
func (v *visit) says(text string, within time.Duration) time.Duration {
	v.t.Helper()
	started := time.Now()
	for {
		now := v.connection()
		took := time.Since(started)
		if strings.Contains(now, text) {
			return took
		}
		if took > within {
			v.t.Fatalf("after %v the page does not say %q, but %q", took, text, now)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// tab opens another tab, in a window of its own or in the background of this window. It
// returns the tab and a function that closes it.
func (v *visit) tab(ownWindow bool) (tab *visit, shut func()) {
	v.t.Helper()
	var id cdptarget.ID
	v.do(chromedp.ActionFunc(func(ctx context.Context) (err error) {
		id, err = cdptarget.CreateTarget("about:blank").WithNewWindow(ownWindow).WithBackground(!ownWindow).Do(ctx)
		return err
	}))
	ctx, cancel := chromedp.NewContext(v.ctx, chromedp.WithTargetID(id))
	v.t.Cleanup(cancel)
	return newTab(v.t, ctx), cancel
}

// front shows this tab and hides the other tabs of its window.
func (v *visit) front() {
	v.t.Helper()
	v.do(chromedp.ActionFunc(func(ctx context.Context) error {
		return cdptarget.ActivateTarget(chromedp.FromContext(ctx).Target.TargetID).Do(ctx)
	}))
}

// before makes this tab run a script before the scripts of each page that it opens.
func (v *visit) before(script string) {
	v.t.Helper()
	v.do(chromedp.ActionFunc(func(ctx context.Context) error {
		_, err := cdppage.AddScriptToEvaluateOnNewDocument(script).Do(ctx)
		return err
	}))
}

const noSharedWorker = `delete window.SharedWorker`

// both runs a test with a SharedWorker and without one.
func both(t *testing.T, f func(t *testing.T, prepare func(*visit))) {
	t.Run("with a SharedWorker", func(t *testing.T) {
		t.Parallel()
		f(t, func(*visit) {})
	})
	t.Run("without SharedWorkers", func(t *testing.T) {
		t.Parallel()
		f(t, func(v *visit) { v.before(noSharedWorker) })
	})
}

func TestThePageRefreshesOnceASecondHoweverManyEventsCome(t *testing.T) {
	length := 8 * time.Second
	if leftOut(t, "8 s of events instead of 4") {
		length = 4 * time.Second
	}
	for _, rate := range []int{20, 50} {
		t.Run(fmt.Sprint(rate, " events a second"), func(t *testing.T) {
			t.Parallel()
			s := newDaemon(t, "CALL_ME_ENVIRONMENTS=uat,perf")
			d := newDetour(t, s.base)
			v := newBrowser(t)
			v.open(d.url, "ann")
			v.says("live", pageTime)
			eventually(t, "the page is quiet for a second", func() bool {
				calls := d.times("GET /rows")
				return time.Since(calls[len(calls)-1]) > 1500*time.Millisecond
			})
			before := len(d.times("GET /rows"))
			var events []time.Time
			ticker := time.NewTicker(time.Second / time.Duration(rate))
			defer ticker.Stop()
			for end := time.Now().Add(length); time.Now().Before(end); <-ticker.C {
				method := []string{"POST", "DELETE"}[len(events)%2]
				s.call(method, "/maybe?environment=uat&holder=h&id=1234567-"+fmt.Sprint(len(events)/2))
				events = append(events, time.Now())
			}
			s.call("POST", "/maybe?environment=perf&holder=the-last-one&id=the-last-one")
			events = append(events, time.Now())
			v.shows("the-last-one")
			refreshes := d.times("GET /rows")[before:]
			if first := refreshes[0].Sub(events[0]); first > 150*time.Millisecond+browserSlack {
				t.Errorf("the first event after a quiet second was shown after %v", first)
			}
			for i, at := range refreshes[1:] {
				if gap := at.Sub(refreshes[i]); gap < time.Second-browserSlack { // the first of the two may arrive late
					t.Errorf("two refreshes within %v", gap)
				}
			}
			if span := refreshes[len(refreshes)-1].Sub(refreshes[0]); span < time.Duration(len(refreshes)-1)*time.Second-browserSlack {
				t.Errorf("%d refreshes within %v", len(refreshes), span)
			}
			for _, at := range events {
				next, _ := slices.BinarySearchFunc(refreshes, at, time.Time.Compare)
				if next == len(refreshes) || refreshes[next].Sub(at) > 1200*time.Millisecond+browserSlack {
					t.Fatalf("an event %v after the first was shown late; refreshes: %v", at.Sub(events[0]), len(refreshes))
				}
			}
			v.says("live", time.Second)
		})
	}
}

func TestThePageWorksInTenHiddenTabs(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, prepare func(*visit)) {
		s := newDaemon(t, "CALL_ME_ENVIRONMENTS=uat")
		d := newDetour(t, s.base)
		first := newBrowser(t)
		prepare(first)
		first.open(d.url, "ann")
		tabs := []*visit{first}
		for range 9 {
			tab, _ := first.tab(false)
			prepare(tab)
			tab.do(chromedp.Navigate(d.url + "/"))
			tabs = append(tabs, tab)
		}
		blank, _ := first.tab(false)
		for i, tab := range tabs {
			tab.front()
			tab.says("live", pageTime)
			s.want(201, "POST", fmt.Sprintf("/maybe?environment=uat&id=12345678-%d&holder=holder-%[1]d", i))
			tab.shows(fmt.Sprint("holder-", i))
			s.call("DELETE", fmt.Sprintf("/maybe?environment=uat&id=12345678-%d", i))
			if n := d.streams(); n > 2 { // the stream of the previous tab may still be ending
				t.Errorf("with %d tabs in front so far there are %d streams", i+1, n)
			}
		}
		eventually(t, "the visible tab has a stream", func() bool { return d.streams() == 1 })
		blank.front()
		eventually(t, "hidden tabs have none", func() bool { return d.streams() == 0 })
		if says := first.connection(); !strings.Contains(says, "paused, as of") {
			t.Errorf("a hidden tab says %q", says)
		}
		s.call("POST", "/maybe?environment=uat&id=12345678&holder=meanwhile")
		first.front()
		first.shows("meanwhile")
		first.says("live", pageTime)
	})
}

func TestThePageWorksInTenWindows(t *testing.T) {
	t.Parallel()
	s := newDaemon(t, "CALL_ME_ENVIRONMENTS=uat")
	d := newDetour(t, s.base)
	first := newBrowser(t)
	first.open(d.url, "ann")
	blank, _ := first.tab(false) // in the same window
	windows := []*visit{first}
	var shut []func()
	for range 9 {
		window, end := first.tab(true)
		window.do(chromedp.Navigate(d.url + "/"))
		windows, shut = append(windows, window), append(shut, end)
	}
	for _, w := range windows {
		w.says("live", pageTime)
	}
	s.call("POST", "/maybe?environment=uat&id=12345678&holder=github:acme")
	for _, w := range windows {
		w.shows("github:acme")
	}
	if n := d.streams(); n != 1 {
		t.Errorf("ten windows have %d streams", n)
	}
	for _, end := range shut {
		end()
	}
	blank.front()
	eventually(t, "closed windows keep no stream", func() bool { return d.streams() == 0 })
	first.front()
	first.says("live", pageTime)
}

func TestAPageThatIsLeftKeepsNoStream(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, prepare func(*visit)) {
		s := newDaemon(t, "CALL_ME_ENVIRONMENTS=uat")
		d := newDetour(t, s.base)
		v := newBrowser(t)
		prepare(v)
		v.open(d.url, "ann")
		v.says("live", pageTime)
		v.do(chromedp.Click(`.window a[href="/?since=7d"]`, chromedp.ByQuery), chromedp.WaitVisible(`.window a[href="/?since=7d"][aria-current]`, chromedp.ByQuery))
		v.says("live", pageTime)
		eventually(t, "the page before has no stream", func() bool { return d.streams() == 1 })
		s.call("POST", "/maybe?environment=uat&id=12345678&holder=in-the-week")
		v.shows("in-the-week")
		if v.script("document.querySelectorAll('#ticks line').length") != "7" {
			t.Error("the refresh shows another time")
		}
		window, shut := v.tab(true)
		prepare(window)
		window.do(chromedp.Navigate(d.url + "/"))
		window.says("live", pageTime)
		v.do(chromedp.Navigate("about:blank"))
		window.shows("in-the-week")
		eventually(t, "the window has a stream", func() bool { return d.streams() == 1 })
		shut()
		eventually(t, "there is no stream", func() bool { return d.streams() == 0 })
	})
}

func TestThePageSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	s := newDaemon(t, "CALL_ME_ENVIRONMENTS=uat")
	d := newDetour(t, s.base)
	v := newBrowser(t)
	v.open(d.url, "ann")
	v.says("live", pageTime)
	for i, c := range []struct {
		take func(http.ResponseWriter, *http.Request) bool
		want string
	}{
		{unanswered("GET /rows"), "the server does not answer, trying again; as of"},
		{answered("GET /rows", 500, `{"code":500,"message":"internal error"}`), "the server answers 500, internal error, trying again; as of"},
		{answered("GET /rows", 503, `{"code":503,"message":"storing fails"}`), "the server answers 503, storing fails, trying again"},
		{answered("GET /rows", 502, `<h1>Bad gateway</h1>`), "the server answers 502, trying again"},
		{answered("GET /rows", 200, `<h1>Who are you?</h1>`), "the answer is not the status page, trying again"},
		{func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) }, "connection lost, trying again; as of"},
	} {
		d.when(c.take)
		id := fmt.Sprint("12345678-", i)
		s.call("POST", "/maybe?environment=uat&holder=h&id="+id) // an event, to refresh
		v.says(c.want, pageTime)
		if class := v.script("state.className"); class != "state off" {
			t.Errorf("%s has the class %q", c.want, class)
		}
		d.when(nil)
		s.call("DELETE", "/maybe?environment=uat&id="+id)
		v.says("live", pageTime)
		v.shows("free")
	}
}

func TestThePageSaysThatTheKeyWasRemoved(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, prepare func(*visit)) {
		file := filepath.Join(t.TempDir(), "keys")
		write := func(text string) {
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		const newKey = "the-new-key-of-this-test"
		write(testKey)
		daemon := newDaemon(t, "API_KEY=", "API_KEY_FILE="+file, "CALL_ME_ENVIRONMENTS=uat")
		v := newBrowser(t)
		prepare(v)
		v.open(daemon.base, "ann")
		v.says("live", pageTime)
		var asked atomic.Int32 // for a login
		chromedp.ListenTarget(v.ctx, func(e any) {
			switch e := e.(type) {
			case *fetch.EventRequestPaused:
				go chromedp.Run(v.ctx, fetch.ContinueRequest(e.RequestID))
			case *fetch.EventAuthRequired:
				asked.Add(1)
				answer := &fetch.AuthChallengeResponse{Response: fetch.AuthChallengeResponseResponseProvideCredentials, Username: "ann", Password: newKey}
				go chromedp.Run(v.ctx, fetch.ContinueWithAuth(e.RequestID, answer))
			}
		})
		v.do(fetch.Enable().WithHandleAuthRequests(true))
		write(newKey)
		daemon.cmd.Process.Signal(syscall.SIGHUP)
		v.says("the key is not accepted any more, as of", pageTime)
		time.Sleep(4 * time.Second) // longer than a stream waits before it tries again
		if n := asked.Load(); n != 0 {
			t.Errorf("the browser asked for a login %d times", n)
		}
		// An action on the page reports it too.
		v.press(`[aria-label="Reserve uat…"]`)
		v.until(`document.querySelector("tr.problem")?.textContent === "the key is not accepted any more: log in again"`)
		v.do(chromedp.Click("#again", chromedp.ByQuery))
		v.says("live", pageTime)
		if asked.Load() == 0 {
			t.Error("the browser did not ask for the new key")
		}
	})
}

func TestThePageWorksWithCredentialsInItsURL(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, prepare func(*visit)) {
		s := newDaemon(t, "CALL_ME_ENVIRONMENTS=uat")
		v := newBrowser(t)
		prepare(v)
		v.do(chromedp.Navigate(withLogin(s.base, "tv") + "/"))
		v.says("live", pageTime)
		s.call("POST", "/maybe?environment=uat&id=12345678&holder=github:acme")
		v.shows("github:acme")
		s.call("DELETE", "/maybe?environment=uat&id=12345678")
		v.shows("free")
		v.openReserve("uat")
		v.do(chromedp.Click("#dialog form button", chromedp.ByQuery))
		v.shows("you have uat")
		if _, body := s.call("GET", "/environments?environment=uat"); !strings.Contains(body, `"holder":"tv"`) {
			t.Errorf("reserved: %s", body)
		}
		v.quiet(s.base)
	})
}

// openReserve opens the dialog of a reservation.
func (v *visit) openReserve(environment string) {
	v.t.Helper()
	v.press(fmt.Sprintf(`[aria-label="Reserve %s…"]`, environment))
	v.do(chromedp.WaitVisible("#dialog form", chromedp.ByQuery))
}

// openForce opens the dialog of a forced release of the only slot of an environment.
func (v *visit) openForce(environment string) {
	v.t.Helper()
	v.press(fmt.Sprintf(`[aria-label^="More for %s, held by "]`, environment))
	v.press(`#dialog [aria-label^="Force release "]`)
	v.do(chromedp.WaitVisible("#dialog form", chromedp.ByQuery))
}

func TestTwoClicksOnReserveAreOneRequest(t *testing.T) {
	t.Parallel()
	s := newDaemon(t, "CALL_ME_ENVIRONMENTS=perf:3")
	d := newDetour(t, s.base)
	twice := make(chan struct{})
	d.when(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == "POST" {
			<-twice
		}
		return false
	})
	v := newBrowser(t)
	v.open(d.url, "ann")
	v.openReserve("perf")
	v.do(chromedp.Click("#dialog form button", chromedp.ByQuery), chromedp.Click("#dialog form button", chromedp.ByQuery))
	close(twice)
	v.shows("you have perf")
	if disabled := v.script(`document.querySelector("#dialog form button").disabled`); disabled != "false" {
		t.Error("the button stays disabled")
	}
	if _, body := s.call("GET", "/environments?environment=perf"); strings.Count(body, `"holder":"ann"`) != 1 || len(d.times("POST /act")) != 1 {
		t.Errorf("%d calls: %s", len(d.times("POST /act")), body)
	}
}

func TestReserveWithoutAnAnswerCanBeSentAgain(t *testing.T) {
	t.Parallel()
	s := newDaemon(t, "CALL_ME_ENVIRONMENTS=perf:3")
	d := newDetour(t, s.base)
	d.when(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != "POST" {
			return false
		}
		sent, err := http.NewRequest("POST", s.base+"/act", r.Body) // it arrives, and its reply is lost
		if err != nil {
			t.Error(err)
			return false
		}
		sent.Header = r.Header.Clone()
		if answer, err := s.http.Do(sent); err != nil || answer.StatusCode != 200 {
			t.Error(answer, err)
		}
		<-r.Context().Done()
		return true
	})
	v := newBrowser(t)
	v.open(d.url, "ann")
	v.openReserve("perf")
	v.do(chromedp.Click("#dialog form button", chromedp.ByQuery))
	v.shows("the server does not answer; try again")
	if disabled := v.script(`document.querySelector("#dialog form button").disabled`); disabled != "false" {
		t.Fatal("the button stays disabled")
	}
	d.when(nil)
	v.do(chromedp.Click("#dialog form button", chromedp.ByQuery), chromedp.WaitNotVisible("#dialog", chromedp.ByQuery))
	if _, body := s.call("GET", "/environments?environment=perf"); strings.Count(body, `"holder":"ann"`) != 1 {
		t.Errorf("reserved twice: %s", body)
	}
	v.openReserve("perf") // another dialog is another request
	v.do(chromedp.Click("#dialog form button", chromedp.ByQuery), chromedp.WaitNotVisible("#dialog", chromedp.ByQuery))
	if _, body := s.call("GET", "/environments?environment=perf"); strings.Count(body, `"holder":"ann"`) != 2 {
		t.Errorf("the second reservation: %s", body)
	}
}

// A dialog that is opened again immediately after it was closed works. The browser reports
// the end of a dialog late: on a busy machine after the next one was opened.
func TestADialogThatIsOpenedAgainAtOnceWorks(t *testing.T) {
	t.Parallel()
	s := newDaemon(t, "CALL_ME_ENVIRONMENTS=uat")
	v := newBrowser(t)
	v.open(s.base, "ann")
	v.openReserve("uat")
	v.script(`[document.querySelector("#dialog [data-close]").click(), document.querySelector("#e-uat [data-act]").click()]`)
	v.until(`document.getElementById("dialog").open`)
	v.do(chromedp.Click("#dialog form button", chromedp.ByQuery))
	v.shows("you have uat")
	v.quiet(s.base)
}

// pageAlert selects the element outside of the dialogs in which the page shows errors.
const pageAlert = `tr.problem [role=alert]`

func TestARefusalIsShownThoughItsDialogWasClosed(t *testing.T) {
	t.Parallel()
	s := newDaemon(t, "CALL_ME_ENVIRONMENTS=uat,perf")
	d := newDetour(t, s.base)
	answer := make(chan bool)
	d.when(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != "POST" {
			return false
		}
		<-answer
		return answered("POST /act", 503, `{"code":503,"message":"storing fails"}`)(w, r)
	})
	v := newBrowser(t)
	v.open(d.url, "ann")
	v.openReserve("uat")
	v.do(chromedp.Click("#dialog form button", chromedp.ByQuery), chromedp.Click("#dialog [data-close]", chromedp.ByQuery))
	v.openReserve("perf")
	answer <- true
	v.do(chromedp.WaitVisible(pageAlert, chromedp.ByQuery))
	if open, says := v.script(`dialog.open`), v.script(`document.querySelector("#e-uat `+pageAlert+`")?.textContent`); open != "true" || says != "storing fails" {
		t.Errorf("the next dialog is open: %s; the page says %q", open, says)
	}
}

func TestAReleaseThatFailsIsShown(t *testing.T) {
	t.Parallel()
	s := newDaemon(t, "CALL_ME_ENVIRONMENTS=uat:blue+green,perf")
	d := newDetour(t, s.base)
	s.call("POST", "/maybe?environment=uat&id=12345678&holder=ann")
	v := newBrowser(t)
	v.open(d.url, "ann")
	v.says("live", pageTime)
	const release = `#e-uat button[aria-label^="Release uat blue"]`
	for _, c := range []struct {
		take func(http.ResponseWriter, *http.Request) bool
		want string
	}{
		{answered("POST /act", 503, `{"code":503,"message":"storing fails"}`), "storing fails"},
		{answered("POST /act", 502, "bad gateway"), "the server answers 502"},
		{unanswered("POST /act"), "the server does not answer; try again"},
	} {
		d.when(c.take)
		v.press(release)
		v.shows(c.want)
		var says string
		v.do(chromedp.WaitVisible(pageAlert, chromedp.ByQuery), chromedp.Text(pageAlert, &says, chromedp.ByQuery))
		if says != c.want {
			t.Errorf("the page says %q, want %q", says, c.want)
		}
	}
	d.when(nil)
	v.press(release)
	v.until(`document.querySelector("#e-uat form") === null`)
	if says := v.script(`document.querySelector("` + pageAlert + `")?.textContent`); says != "undefined" {
		t.Errorf("after the release the page says %q", says)
	}
}

func TestAForcedReleaseThatFailsIsShown(t *testing.T) {
	t.Parallel()
	s := newDaemon(t, "CALL_ME_ENVIRONMENTS=uat")
	d := newDetour(t, s.base)
	s.call("POST", "/maybe?environment=uat&id=12345678&holder=github:acme")
	v := newBrowser(t)
	v.open(d.url, "ann")
	v.openForce("uat")
	for _, c := range []struct {
		take func(http.ResponseWriter, *http.Request) bool
		want string
	}{
		{answered("POST /act", 500, `{"code":500,"message":"internal error"}`), "internal error"},
		{unanswered("POST /act"), "the server does not answer; try again"},
	} {
		d.when(c.take)
		v.do(chromedp.Click("#dialog form button", chromedp.ByQuery))
		v.shows(c.want)
		v.do(chromedp.WaitEnabled("#dialog form button", chromedp.ByQuery))
	}
	d.when(nil)
	v.do(chromedp.Click("#dialog form button", chromedp.ByQuery), chromedp.WaitNotVisible("#dialog", chromedp.ByQuery))
	v.shows("free")
}

// The tests from here on take up to 50 s each, and sleep for nearly all of that time. They
// are last because go test starts the last of the parallel tests first.

// The page keeps refreshing without an event after any failure.
func TestThePageRefreshesAgainByItselfAfterAFailure(t *testing.T) {
	t.Parallel()
	s := newDaemon(t, "CALL_ME_ENVIRONMENTS=uat")
	d := newDetour(t, s.base)
	v := newBrowser(t)
	v.open(d.url, "ann")
	v.says("live", pageTime)
	d.when(unanswered("GET /rows"))
	s.call("POST", "/maybe?environment=uat&holder=shown-after-all&id=12345678")
	v.says("the server does not answer", pageTime)
	d.when(nil)
	v.says("live", 35*time.Second)
	v.shows("shown-after-all")
}

// The page reports a stream that is dead while everything else works, and does not report
// one that has no events.
func TestThePageReportsADeadStreamButNotAnIdleOne(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, prepare func(*visit)) {
		s := newDaemon(t, "CALL_ME_ENVIRONMENTS=uat")
		silent := newDetour(t, s.base)
		silent.when(func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path != "/events" {
				return false
			}
			w.Header().Set("Content-Type", "text/event-stream")
			fmt.Fprint(w, ": nothing more will come\n\n")
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			return true
		})
		quiet := newBrowser(t)
		prepare(quiet)
		quiet.open(s.base, "ann")
		quiet.says("live", pageTime)
		quiet.script(`(window.said = [], new MutationObserver(() => said.push(document.getElementById("connection").textContent))
			.observe(document.getElementById("connection"), { childList: true }))`)
		v, _ := quiet.tab(true)
		prepare(v)
		v.open(silent.url, "ann")
		v.says("live", pageTime)
		if took := v.says("connection lost, trying again; as of", 43*time.Second); took < 35*time.Second {
			t.Errorf("lost after %v", took)
		}
		if calls := len(silent.times("GET /rows")); calls < 2 {
			t.Errorf("%d refreshes while the stream was silent", calls)
		}
		v.says("live", 20*time.Second) // by the next stream
		if said := quiet.script("said.join()"); said != "" {
			t.Errorf("with a beat each 15 s the page said %q", said)
		}
	})
}

// The page works if its worker cannot be loaded, or dies.
func TestThePageWorksWithoutItsWorker(t *testing.T) {
	t.Parallel()
	t.Run("that cannot be loaded", func(t *testing.T) {
		t.Parallel()
		s := newDaemon(t, "CALL_ME_ENVIRONMENTS=uat")
		d := newDetour(t, s.base)
		d.when(func(w http.ResponseWriter, r *http.Request) bool {
			return r.Header.Get("Sec-Fetch-Dest") == "sharedworker" && answered("GET /page.js", 500, "")(w, r)
		})
		v := newBrowser(t)
		v.open(d.url, "ann")
		v.says("live", pageTime)
		s.call("POST", "/maybe?environment=uat&id=12345678&holder=github:acme")
		v.shows("github:acme")
	})
	t.Run("that dies", func(t *testing.T) {
		t.Parallel()
		s := newDaemon(t, "CALL_ME_ENVIRONMENTS=uat")
		d := newDetour(t, s.base)
		v := newBrowser(t)
		v.open(d.url, "ann")
		v.says("live", pageTime)
		v.do(chromedp.ActionFunc(func(ctx context.Context) error {
			targets, err := cdptarget.GetTargets().WithFilter(cdptarget.Filter{{Type: "shared_worker"}}).Do(ctx)
			if err != nil || len(targets) != 1 {
				return fmt.Errorf("%d workers, %w", len(targets), err)
			}
			return cdptarget.CloseTarget(targets[0].TargetID).Do(cdp.WithExecutor(ctx, chromedp.FromContext(ctx).Browser))
		}))
		eventually(t, "the worker's stream has ended", func() bool { return d.streams() == 0 })
		for end := time.Now().Add(50 * time.Second); d.streams() == 0; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("the page has no stream of its own")
			}
		}
		s.call("POST", "/maybe?environment=uat&id=12345678&holder=github:acme")
		v.shows("github:acme")
		v.says("live", pageTime)
	})
}

func TestATabThatCrashesKeepsNoStream(t *testing.T) {
	t.Parallel()
	s := newDaemon(t, "CALL_ME_ENVIRONMENTS=uat")
	d := newDetour(t, s.base)
	v := newBrowser(t)
	v.open(d.url, "ann")
	blank, _ := v.tab(false)
	window, _ := v.tab(true)
	window.do(chromedp.Navigate(d.url + "/"))
	window.says("live", pageTime)
	blank.front() // a hidden tab keeps the worker alive
	v.says("paused", pageTime)
	go chromedp.Run(window.ctx, cdppage.Crash()) // it never returns
	eventually(t, "the stream is kept while the tab may only be slow", func() bool { return d.streams() == 1 })
	for end := time.Now().Add(50 * time.Second); d.streams() > 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the stream is kept for ever")
		}
	}
	blank.do(chromedp.Navigate(d.url + "/"))
	blank.says("live", pageTime)
}

func TestThePageNoticesAServerThatIsStopped(t *testing.T) {
	t.Parallel()
	daemon := newDaemon(t, "CALL_ME_ENVIRONMENTS=uat")
	v := newBrowser(t)
	v.open(daemon.base, "ann")
	v.says("live", pageTime)
	daemon.cmd.Process.Signal(syscall.SIGSTOP)
	took := v.says("the server does not answer, trying again; as of", 30*time.Second)
	t.Logf("after %v", took)
	time.Sleep(max(0, 45*time.Second-took)) // after 45 s the page must not be live
	if says := v.connection(); strings.Contains(says, "live") || !strings.Contains(says, "trying again") {
		t.Errorf("after 45 s the page says %q", says)
	}
	if v.script(`document.body.classList.contains("lost") && /^..:..:..$/.test(asof.textContent)`) != "true" {
		t.Error("the rows are not grey, or of no time")
	}
	daemon.cmd.Process.Signal(syscall.SIGCONT)
	v.says("live", 20*time.Second)
	v.until(`!document.body.classList.contains("lost")`)
	daemon.call("POST", "/maybe?environment=uat&id=12345678&holder=back-again")
	v.shows("back-again")
}
