package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// A farm is some servers without a network. Each answers by its own function, which may be
// exchanged. It notes the calls.
type farm struct {
	answers map[string]transport
	calls   []string // method, host and path of each
}

func (f *farm) client(t *testing.T, servers ...string) *client {
	return fakeClient(t, func(r *http.Request) (*http.Response, error) {
		if r.URL.Path != "/swagger.json" { // which only tells a call-me of 2019
			f.calls = append(f.calls, r.Method+" "+r.URL.Host+r.URL.Path)
		}
		return f.answers[r.URL.Host](r)
	}, servers...)
}

// taken returns the calls since the last time.
func (f *farm) taken() string {
	calls := strings.Join(f.calls, ", ")
	f.calls = nil
	return calls
}

func works(r *http.Request) (*http.Response, error) {
	own := http.Header{versionHeader: {apiVersion}}
	switch {
	case r.Method == http.MethodDelete:
		return fakeResponse(204, "", "", own), nil
	case r.URL.Path == "/environments":
		return fakeResponse(200, "application/json", `{"environments":[]}`, own), nil
	}
	return fakeResponse(200, "application/json", `{"environment":"uat","slot":"uat","fence":1}`, own), nil
}

func refuses(*http.Request) (*http.Response, error) {
	return nil, &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
}

func hangs(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

func answersWith(status int, kind, body string, header http.Header) transport {
	return func(*http.Request) (*http.Response, error) { return fakeResponse(status, kind, body, header), nil }
}

var twoServers = []string{"http://a", "http://b"}

// The next server of HOST is asked, at once and in the same attempt, when one is away.
func TestTheNextServerIsAskedWhenOneIsAway(t *testing.T) {
	for name, away := range map[string]transport{
		"refused":          refuses,
		"silent":           hangs,
		"an unknown host":  func(*http.Request) (*http.Response, error) { return nil, &net.DNSError{Name: "a", IsNotFound: true} },
		"503":              answersWith(503, "application/json", `{"code":503,"message":"stopping"}`, http.Header{versionHeader: {apiVersion}}),
		"a proxy's 502":    answersWith(502, "text/html", "", http.Header{}),
		"a page":           answersWith(200, "text/html", "<h1>hello</h1>", http.Header{}),
		"somebody's 404":   answersWith(404, "application/json", `{"code":404,"message":"not found"}`, http.Header{}),
		"another redirect": answersWith(302, "text/html", "", http.Header{"Location": {"http://login/"}}),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &farm{answers: map[string]transport{"a": away, "b": works}}
				c := f.client(t, twoServers...)
				start := time.Now()
				if _, err := c.environments(t.Context(), ""); err != nil {
					t.Fatal(err)
				}
				if got := f.taken(); got != "GET a/environments, GET b/environments" || time.Since(start) > callTime/2 {
					t.Errorf("%s, after %v", got, time.Since(start))
				}
				if urls := c.urls(); !slices.Equal(urls, serverURLs{"http://b", "http://a"}) {
					t.Errorf("for the watchdog: %v", urls)
				}

				// The client stays with the one that answers, until that is away.
				f.answers["a"] = works
				if _, err := c.renewHeld(t.Context(), leaseSelector{environment: "uat"}, nil, nil); err != nil || f.taken() != "PUT b/maybe" {
					t.Error(err)
				}
				f.answers["b"] = away
				if _, err := c.release(t.Context(), leaseSelector{environment: "uat"}, false, "", nil); err != nil {
					t.Error(err)
				}
				want := "DELETE b/maybe, GET a/environments, DELETE a/maybe"
				if name == "503" { // it is a call-me's
					want = "DELETE b/maybe, DELETE a/maybe"
				}
				if got := f.taken(); got != want {
					t.Errorf("the release: %s, want %s", got, want)
				}
			})
		})
	}
}

// An answer of call-me is an answer, also one that refuses.
func TestARefusalIsNoReasonToAskTheNextServer(t *testing.T) {
	own := http.Header{versionHeader: {apiVersion}}
	for _, a := range []transport{
		answersWith(401, "application/json", `{"code":401,"message":"missing or wrong API key"}`, own),
		answersWith(409, "application/json", `{"code":409,"message":"no","environment":"uat"}`, own),
		answersWith(404, "application/json", `{"code":404,"message":"no such environment"}`, own),
	} {
		f := &farm{answers: map[string]transport{"a": a, "b": works}}
		if _, err := f.client(t, twoServers...).renewHeld(t.Context(), leaseSelector{environment: "uat"}, nil, nil); err == nil || f.taken() != "PUT a/maybe" {
			t.Error(err)
		}
	}
}

// The pause comes after a whole turn, and the time that is tried depends on the server with the
// least trouble.
func TestAllServersAreAway(t *testing.T) {
	unknown := func(*http.Request) (*http.Response, error) {
		return nil, &net.DNSError{Name: "b", IsNotFound: true}
	}
	for name, c := range map[string]struct {
		a, b transport
		want time.Duration
		text string
	}{
		"one may come":       {refuses, unknown, maxFirstResponse, "cannot reach http://a: nothing listens there; there is no host b"},
		"one may be right":   {unknown, answersWith(403, "text/html", "", http.Header{}), maxForeign, "there is no host b; http://b does not answer as call-me: 403 Forbidden (text/html)"},
		"none can be right":  {unknown, answersWith(404, "", "", http.Header{}), 0, "there is no host b; http://b does not answer as call-me: 404 Not Found"},
		"both are in a turn": {refuses, refuses, maxFirstResponse, "cannot reach http://a: nothing listens there; cannot reach http://b: nothing listens there"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &farm{answers: map[string]transport{"a": c.a, "b": c.b}}
				start := time.Now()
				client := f.client(t, twoServers...)
				_, err := client.acquire(t.Context(), acquireOptions{environment: "uat", timeout: time.Hour}, &eventCounter{})
				if took := time.Since(start); err == nil || err.Error() != c.text || took != c.want {
					t.Errorf("%v, after %v; want %s, after %v", err, took, c.text, c.want)
				}
				if got := f.taken(); !strings.HasPrefix(got, "POST a/maybe, POST b/maybe") {
					t.Error(got)
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		var times []time.Time
		note := func(r *http.Request) (*http.Response, error) {
			times = append(times, time.Now())
			return refuses(r)
		}
		f := &farm{answers: map[string]transport{"a": note, "b": note}}
		f.client(t, twoServers...).acquire(t.Context(), acquireOptions{environment: "uat"}, &eventCounter{})
		for i := 0; i+1 < len(times)-2; i += 2 { // the last two calls leave the queue
			isLast := times[i].Sub(times[0]) == maxFirstResponse // the pause before it ends then
			if times[i] != times[i+1] || i > 0 && !isLast && times[i].Sub(times[i-1]) < 50*time.Millisecond {
				t.Fatalf("call %d: %v, %v", i, times[i], times[i+1])
			}
		}
	})
}

// A poll that hangs at a server does not lose the grant: the poll at the next one comes before
// its claim ends.
func TestAPollThatHangsIsRepeatedAtTheNextServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		own := http.Header{versionHeader: {apiVersion}}
		polls := 0
		hangsLater := func(r *http.Request) (*http.Response, error) {
			if polls++; polls > 1 {
				return hangs(r)
			}
			return fakeResponse(403, "application/json", `{"code":403,"message":"no","environment":"uat"}`, own), nil
		}
		f := &farm{answers: map[string]transport{"a": hangsLater, "b": works}}
		start := time.Now()
		_, err := f.client(t, twoServers...).acquire(t.Context(), acquireOptions{environment: "uat"}, &eventCounter{})
		if took := time.Since(start); err != nil || took >= claimTime {
			t.Errorf("%v after %v", err, took)
		}
	})
}

// A call-me of 2019 is told in one line, by each command, and its DELETE, which would free the
// slot whoever has it, is not called.
func TestACallMeOf2019(t *testing.T) {
	old := func(r *http.Request) (*http.Response, error) { // as the program of 2019 answers
		const kind = "application/json"
		switch {
		case r.URL.Path == "/swagger.json":
			return fakeResponse(200, kind, `{"swagger":"2.0","info":{"title":"call-me","version":"0.1.0"}}`, http.Header{}), nil
		case r.URL.Path != "/maybe":
			return fakeResponse(404, kind, `{"code":404,"message":"path `+r.URL.Path+` was not found"}`, http.Header{}), nil
		case r.Method == http.MethodPut:
			return fakeResponse(405, kind, `{"code":405,"message":"method PUT is not allowed, but [GET,DELETE,POST] are"}`, http.Header{}), nil
		case r.Method == http.MethodPost && r.ContentLength > 0:
			return fakeResponse(415, kind, `{"code":415,"message":"unsupported media type \"application/x-www-form-urlencoded\", only [application/json] are allowed"}`, http.Header{}), nil
		case r.Method == http.MethodDelete:
			t.Error("the slot is freed, whoever has it")
		}
		return fakeResponse(204, "", "", http.Header{}), nil
	}
	uat := leaseSelector{environment: "uat", holder: "h"}
	for name, command := range map[string]func(context.Context, *client) error{
		"request": func(ctx context.Context, c *client) error {
			_, err := c.acquire(ctx, acquireOptions{environment: "uat"}, &eventCounter{})
			return err
		},
		"release":       func(ctx context.Context, c *client) error { _, err := c.release(ctx, uat, false, "", nil); return err },
		"force":         func(ctx context.Context, c *client) error { _, err := c.release(ctx, uat, true, "", nil); return err },
		"renew":         func(ctx context.Context, c *client) error { _, err := c.renewHeld(ctx, uat, nil, nil); return err },
		"status":        func(ctx context.Context, c *client) error { _, err := c.environments(ctx, ""); return err },
		"history":       func(ctx context.Context, c *client) error { _, err := c.history(ctx, "", "1h"); return err },
		"the watchdog":  func(ctx context.Context, c *client) error { return c.endRequest(ctx, "uat", newID()) },
		"an interrupt":  func(ctx context.Context, c *client) error { c.endOnce("uat", newID()); return errVersion1 },
		"status --wait": func(ctx context.Context, c *client) error { return c.follow(ctx, make(chan struct{})) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &farm{answers: map[string]transport{"old": old}}
				err := command(t.Context(), f.client(t, "http://old"))
				if !errors.Is(err, errVersion1) {
					t.Error(err)
				}
				var hint hinted
				if name == "release" && (err.Error() != "http://old is a call-me of version 1, which this client cannot use" || !errors.As(err, &hint)) {
					t.Errorf("%v, hint %s", err, hint.hint)
				}
			})
		})
	}
}

// What a redirect to HTTPS tells is what to set.
func TestARedirectToHTTPSNamesTheServer(t *testing.T) {
	for to, want := range map[string]string{
		"https://a/environments?": "HOST=https://a",
		"https://login/?from=a":   "check HOST; a proxy or another program may answer there",
	} {
		f := &farm{answers: map[string]transport{"a": answersWith(308, "text/html", "", http.Header{"Location": {to}})}}
		_, err := f.client(t, "http://a").environments(t.Context(), "")
		var hint hinted
		if !errors.Is(err, errRedirected) || !errors.As(err, &hint) || hint.hint != want {
			t.Errorf("%v, hint %q, want %q", err, hint.hint, want)
		}
	}
}
