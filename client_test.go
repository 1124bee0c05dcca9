package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// gateway starts a proxy of the site, and returns a client of the proxy and the number of its
// calls. The proxy passes each call to meddle, with its number from 1. If meddle returns true,
// it has replied; otherwise the proxy forwards the call to the site.
func gateway(t *testing.T, s *site, meddle func(w http.ResponseWriter, r *http.Request, call int32) bool) (*client, *atomic.Int32) {
	t.Helper()
	var calls atomic.Int32
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if meddle(w, r, calls.Add(1)) {
			return
		}
		forward, _ := http.NewRequestWithContext(r.Context(), r.Method, s.url+r.URL.String(), r.Body)
		forward.Header = r.Header
		answer, err := http.DefaultTransport.RoundTrip(forward)
		if err != nil {
			return
		}
		defer answer.Body.Close()
		maps.Copy(w.Header(), answer.Header)
		w.WriteHeader(answer.StatusCode)
		io.Copy(w, answer.Body)
	}))
	t.Cleanup(h.Close)
	c := &client{addresses: newAddresses(serverURLs{h.URL}), http: h.Client()}
	key := testKey
	c.key.Store(&key)
	return c, &calls
}

// An eventCounter counts what a client reports while it acquires a slot.
type eventCounter struct{ queuedCount, restartedCount, acquiredCount atomic.Int32 }

func (e *eventCounter) queued(errorJSON)                    { e.queuedCount.Add(1) }
func (e *eventCounter) retrying(error, time.Time)           {}
func (e *eventCounter) restarted(errorJSON)                 { e.restartedCount.Add(1) }
func (e *eventCounter) acquired(grantedJSON, time.Duration) { e.acquiredCount.Add(1) }

func says(status int, kind, body string) func(http.ResponseWriter, *http.Request, int32) bool {
	return func(w http.ResponseWriter, r *http.Request, _ int32) bool {
		w.Header().Set("Content-Type", kind)
		w.WriteHeader(status)
		io.WriteString(w, body)
		return true
	}
}

// foreignAnswers are answers that are not call-me's, or not to the call. Some are hopeless: the
// client gives up at once when no call-me has answered before.
var foreignAnswers = map[string]struct {
	status     int
	kind, body string
	isHopeless bool
}{
	"a page":                     {200, "text/html", "<h1>welcome</h1>", false},
	"a page that refuses":        {403, "text/html", "<h1>no</h1>", false},
	"other JSON":                 {200, "application/json", `{"status":"maintenance"}`, false},
	"other JSON that refuses":    {403, "application/json", `{"kind":"Status","message":"forbidden","code":403}`, false},
	"other JSON with a conflict": {409, "application/json", `{"message":"conflict","code":409}`, false},
	"other JSON that is gone":    {410, "application/json", `{"message":"gone","code":410}`, false},
	"another key":                {401, "application/json", `{"message":"Unauthorized","code":401}`, false},
	"another limit of the rate":  {429, "application/json", `{"message":"slow down","code":429}`, false},
	"a time-out":                 {408, "text/plain", "", false},
	"too early":                  {425, "text/plain", "", false},
	"an error":                   {500, "text/html", "<h1>sorry</h1>", false},
	"a bug of another server":    {500, "application/json", `{"message":"internal error","code":500}`, false},
	"somebody else's lease":      {201, "application/json", `{"environment":"perf","fence":7,"slot":"perf"}`, false},
	"nothing":                    {204, "", "", false},
	"no such page":               {404, "text/html", "<h1>404</h1>", true},
	"a redirect":                 {302, "text/html", "", true},
}

func TestAnUnknownResponseIsNeverASuccess(t *testing.T) {
	for name, c := range foreignAnswers {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := fakeClient(t, func(*http.Request) (*http.Response, error) {
					return fakeResponse(c.status, c.kind, c.body, http.Header{"Location": {"http://login/"}}), nil
				})
				ctx := t.Context()
				var e eventCounter
				start := time.Now()
				_, err := client.acquire(ctx, acquireOptions{environment: "uat", holder: "h", timeout: time.Hour}, &e)
				if troubleOf(err) < foreign || exitCode(err) != exitFailed || e.queuedCount.Load()+e.restartedCount.Load()+e.acquiredCount.Load() != 0 {
					t.Errorf("%v, exit code %d, told %d %d %d", err, exitCode(err), e.queuedCount.Load(), e.restartedCount.Load(), e.acquiredCount.Load())
				}
				if took := time.Since(start); c.isHopeless && took > 0 || !c.isHopeless && took.Round(time.Second) != maxForeign {
					t.Errorf("gave up after %v", took)
				}
				if _, err := client.environments(ctx, "uat"); err == nil {
					t.Error("accepted as a state")
				}
				if _, err := client.renewHeld(ctx, leaseSelector{environment: "uat", holder: "h"}, nil, nil); err == nil {
					t.Error("it is taken for a renewal")
				}
				if _, err := client.release(ctx, leaseSelector{environment: "uat", holder: "h"}, false, "", nil); err == nil {
					t.Error("it is taken for a release")
				}
			})
		})
	}
}

// A server that has answered is waited for, whatever else answers in its place: the request
// keeps its place, and the release is made.
func TestAForeignAnswerMeansAway(t *testing.T) {
	for name, c := range foreignAnswers {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, "")
			s.call("POST /maybe?environment=uat&id=12345678")
			other := says(c.status, c.kind, c.body)
			var away atomic.Bool
			seen := make(chan struct{}, 1)
			client, _ := gateway(t, s, func(w http.ResponseWriter, r *http.Request, n int32) bool {
				if !away.Load() {
					return false
				}
				select {
				case seen <- struct{}{}:
				default:
				}
				return other(w, r, n)
			})
			outage := func() {
				away.Store(true)
				<-seen
				time.Sleep(200 * time.Millisecond)
				away.Store(false)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			go func() {
				for !strings.HasPrefix(s.state(), "12345678 | ") {
					time.Sleep(time.Millisecond)
				}
				away.Store(true)
				s.call("DELETE /maybe?environment=uat&id=12345678")
				outage()
			}()
			var e eventCounter
			g, err := client.acquire(ctx, acquireOptions{environment: "uat", holder: "h", ttl: time.Hour}, &e)
			if err != nil || e.restartedCount.Load() != 0 {
				t.Fatalf("%v, restarted %d times", err, e.restartedCount.Load())
			}
			go outage()
			time.Sleep(50 * time.Millisecond)
			if err := client.endRequest(ctx, "uat", g.id); err != nil {
				t.Errorf("the release: %v", err)
			}
			if got := s.state(); got != "|" {
				t.Errorf("left behind: %s", got)
			}
		})
	}
}

// The release of a job is a process of its own, in which no call-me has answered yet. Its server
// was right when the job requested the slot.
func TestAReleaseWaitsForAServerThatIsAway(t *testing.T) {
	for name, c := range foreignAnswers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, "")
			s.call("POST /maybe?environment=uat&id=12345678&holder=h")
			other, end := says(c.status, c.kind, c.body), time.Now().Add(time.Second)
			client, _ := gateway(t, s, func(w http.ResponseWriter, r *http.Request, n int32) bool {
				return time.Now().Before(end) && other(w, r, n)
			})
			told := 0
			_, err := client.release(t.Context(), leaseSelector{environment: "uat", holder: "h"}, false, "", func(error, time.Time) { told++ })
			if err != nil || s.state() != "|" || told != 1 {
				t.Errorf("%v, %s, told %d times", err, s.state(), told)
			}
		})
	}
}

// Whoever waits for a server that does not run hears when that will end, and every 15 s that it
// goes on.
func TestAServerThatIsAwayFromTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refused := &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
		client := fakeClient(t, func(*http.Request) (*http.Response, error) { return nil, refused })
		start := time.Now()
		var told []time.Duration
		_, err := client.acquire(t.Context(), acquireOptions{environment: "uat", timeout: time.Hour}, listenerFunc(func(_ error, until time.Time) {
			told = append(told, time.Since(start).Round(time.Second))
			if until.Sub(start) != maxFirstResponse {
				t.Errorf("until %v after the start", until.Sub(start))
			}
		}))
		if took := time.Since(start); !errors.Is(err, errUnreachable) || took != maxFirstResponse {
			t.Errorf("%v after %v", err, took)
		}
		if len(told) != 4 || told[0] != 0 || told[3] < 45*time.Second {
			t.Errorf("told after %v", told)
		}
	})
}

// What cannot become right is told at once.
func TestWhatCannotBecomeRightIsNotRepeated(t *testing.T) {
	for name, failure := range map[string]error{
		"an unknown host":       &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "call-me.exmple", IsNotFound: true}},
		"a refused certificate": &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}},
		"no TLS":                http.ErrSchemeMismatch,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				calls := 0
				client := fakeClient(t, func(*http.Request) (*http.Response, error) {
					calls++
					return nil, failure
				})
				start := time.Now()
				_, err := client.acquire(t.Context(), acquireOptions{environment: "uat", timeout: time.Hour}, &eventCounter{})
				if troubleOf(err) != hopeless || calls != 1 || time.Since(start) > 0 {
					t.Errorf("%v after %d calls and %v", err, calls, time.Since(start))
				}
			})
		})
	}
}

// A listenerFunc is an acquireListener that hears of retries only.
type listenerFunc func(error, time.Time)

func (f listenerFunc) queued(errorJSON)                    {}
func (f listenerFunc) retrying(err error, until time.Time) { f(err, until) }
func (f listenerFunc) restarted(errorJSON)                 {}
func (f listenerFunc) acquired(grantedJSON, time.Duration) {}

// fakeClient returns a client of the servers, http://call-me if none is given, whose calls get
// their answers without a network.
func fakeClient(t *testing.T, answer transport, servers ...string) *client {
	t.Helper()
	if len(servers) == 0 {
		servers = []string{"http://call-me"}
	}
	c, err := newClient(clientConfig{Host: servers, KeyConfig: KeyConfig{APIKey: testKey}})
	if err != nil {
		t.Fatal(err)
	}
	c.http.Transport = transport(func(r *http.Request) (*http.Response, error) {
		response, err := answer(r)
		if response != nil {
			response.Request = r
		}
		return response, err
	})
	return c
}

// fakeResponse returns a response that is not call-me's, unless the header says so.
func fakeResponse(status int, kind, body string, header http.Header) *http.Response {
	header = maps.Clone(header)
	if status < 300 || status >= 400 {
		delete(header, "Location")
	}
	if kind != "" {
		header.Set("Content-Type", kind)
	}
	return &http.Response{Status: fmt.Sprint(status, " ", http.StatusText(status)), StatusCode: status, Header: header,
		Body: io.NopCloser(strings.NewReader(body))}
}

func TestAConfirmationMustBeUnderstoodToo(t *testing.T) {
	s := newSite(t, "")
	maintenance := says(200, "application/json", `{"status":"maintenance"}`)
	client, _ := gateway(t, s, func(w http.ResponseWriter, r *http.Request, n int32) bool {
		return r.Method == http.MethodPut && maintenance(w, r, n)
	})
	var e eventCounter
	if _, err := client.acquire(context.Background(), acquireOptions{environment: "uat", holder: "h", ttl: time.Hour, timeout: time.Second}, &e); !errors.Is(err, errNotCallMe) || e.acquiredCount.Load() != 0 {
		t.Errorf("%v, acquired %d times", err, e.acquiredCount.Load())
	}
	if got := s.state(); got != "|" {
		t.Errorf("left behind: %s", got)
	}
}

// A client keeps trying while a gateway that does not reach the server replies 503, in JSON of
// its own.
func TestAGatewayWithoutItsServerIsWaitedFor(t *testing.T) {
	s := newSite(t, "")
	s.call("POST /maybe?environment=uat&id=12345678")
	away := says(503, "application/json; charset=utf-8", `{"message":"failure to get a peer"}`)
	client, _ := gateway(t, s, func(w http.ResponseWriter, r *http.Request, n int32) bool {
		return n > 1 && n < 8 && away(w, r, n)
	})
	go func() {
		for s.state() != "12345678 | " && !strings.HasPrefix(s.state(), "12345678 | ") {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(500 * time.Millisecond)
		s.call("DELETE /maybe?environment=uat&id=12345678")
	}()
	var e eventCounter
	if _, err := client.acquire(context.Background(), acquireOptions{environment: "uat", holder: "h", timeout: time.Minute}, &e); err != nil || e.restartedCount.Load() != 0 {
		t.Errorf("%v", err)
	}
}

func TestAForcedReleaseThatIsRepeatedSparesTheNextHolder(t *testing.T) {
	s := newSite(t, "")
	s.call("POST /maybe?environment=uat&id=12345678&holder=old")
	next := make(chan httpReply, 1)
	go func() { next <- s.call("POST /maybe?environment=uat&id=87654321&holder=next&wait=1m") }()
	for !strings.Contains(s.state(), "87654321") {
		time.Sleep(time.Millisecond)
	}
	deletes := int32(0)
	client, _ := gateway(t, s, func(w http.ResponseWriter, r *http.Request, n int32) bool {
		if r.Method != http.MethodDelete || atomic.AddInt32(&deletes, 1) > 1 {
			return false
		}
		forward, _ := http.NewRequest(r.Method, s.url+r.URL.String(), nil)
		forward.Header = r.Header
		answer, err := http.DefaultTransport.RoundTrip(forward)
		if err == nil {
			answer.Body.Close()
		}
		c, _, _ := w.(http.Hijacker).Hijack() // the response is lost
		c.Close()
		return true
	})
	if _, err := client.release(context.Background(), leaseSelector{environment: "uat", holder: "boss"}, true, "", nil); err != nil {
		t.Errorf("the repeated force: %v", err)
	}
	(<-next).want(t, 201, `"holder":"next"`)
	if got := s.state(); got != "87654321 |" || deletes < 2 {
		t.Errorf("%s after %d calls", got, deletes)
	}
}

// The response to a release says whether it has ended a lease. Where the first response was
// lost, the second one cannot tell.
func TestAReleaseReportsWhetherItEndedALease(t *testing.T) {
	s := newSite(t, "")
	lost := false
	client, _ := gateway(t, s, func(w http.ResponseWriter, r *http.Request, n int32) bool {
		if !lost || r.Method != http.MethodDelete {
			return false
		}
		lost = false
		s.call("DELETE " + r.URL.String())
		c, _, _ := w.(http.Hijacker).Hijack()
		c.Close()
		return true
	})
	release := func() releaseReport {
		t.Helper()
		report, err := client.release(context.Background(), leaseSelector{environment: "uat", holder: "h"}, false, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		return report
	}
	s.call("POST /maybe?environment=uat&id=12345678&holder=h")
	if report := release(); report.fence == 0 || report.endedNothing() {
		t.Errorf("the release of a lease: %+v", report)
	}
	if report := release(); !report.endedNothing() {
		t.Errorf("a release of nothing: %+v", report)
	}
	s.call("POST /maybe?environment=uat&id=87654321&holder=h")
	lost = true
	if report := release(); report.endedNothing() {
		t.Errorf("a release whose first response was lost: %+v", report)
	}
	if header := s.call("DELETE /maybe?environment=uat").Header; header.Get(releasedHeader) != "" {
		t.Errorf("the answer of 2019 has a new header: %v", header)
	}
}

// A forced release of a free slot does not end a lease that is granted while the release is on
// its way.
func TestAForcedReleaseOfAFreeSlotEndsNobody(t *testing.T) {
	s := newSite(t, "")
	client, _ := gateway(t, s, func(w http.ResponseWriter, r *http.Request, n int32) bool {
		if r.Method == http.MethodDelete {
			s.call("POST /maybe?environment=uat&id=87654321&holder=next")
		}
		return false
	})
	if _, err := client.release(context.Background(), leaseSelector{environment: "uat", holder: "boss"}, true, "", nil); err != nil {
		t.Error(err)
	}
	s.call("POST /maybe?environment=uat&id=87654321&holder=next")
	if got := s.state(); got != "87654321 |" {
		t.Error(got)
	}
}

// The client uses HTTP/1.1, because there the next call after a timeout opens a new connection,
// while over a dead HTTP/2 connection the next call times out too.
func TestTheClientHasMoreThanOneConnection(t *testing.T) {
	protocol := make(chan string, 1)
	h := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { protocol <- r.Proto }))
	h.EnableHTTP2 = true
	h.StartTLS()
	defer h.Close()
	authority := filepath.Join(t.TempDir(), "ca.pem")
	os.WriteFile(authority, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: h.Certificate().Raw}), 0o600)
	c, err := newClient(clientConfig{Host: serverURLs{h.URL}, CAFile: authority, KeyConfig: KeyConfig{APIKey: testKey}})
	if err != nil {
		t.Fatal(err)
	}
	go c.environments(context.Background(), "")
	select {
	case got := <-protocol:
		if got != "HTTP/1.1" {
			t.Error(got)
		}
	case <-time.After(5 * time.Second):
		t.Error("no call came")
	}
}

// If the connection of a poll dies unnoticed and that poll is then granted the slot, the next
// poll gets the lease before its claim ends.
func TestADeadPollIsFoundBeforeItsGrantEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var granted, claimed time.Time // when the dead poll is granted the slot, and its claim ends
		c := fakeClient(t, func(r *http.Request) (*http.Response, error) {
			answer := func(status int, body string) (*http.Response, error) {
				return fakeResponse(status, "application/json", body, http.Header{versionHeader: {apiVersion}}), nil
			}
			switch {
			case r.Method == http.MethodPut:
				return answer(200, `{"environment":"uat","slot":"uat","fence":1}`)
			case r.FormValue("wait") == "0s":
				return answer(403, `{"code":403,"message":"no","environment":"uat"}`)
			case granted.IsZero():
				claim, err := time.ParseDuration(r.FormValue("claim"))
				if err != nil {
					t.Error(err)
				}
				granted = time.Now()
				claimed = granted.Add(claim)
				<-r.Context().Done()
				return nil, r.Context().Err()
			case time.Now().After(claimed.Add(-time.Second)):
				t.Errorf("the next poll came after %v, the claim is %v", time.Since(granted), claimed.Sub(granted))
			}
			return answer(201, `{"environment":"uat","slot":"uat","fence":1}`)
		})
		if _, err := c.acquire(t.Context(), acquireOptions{environment: "uat", holder: "ci"}, &eventCounter{}); err != nil {
			t.Error(err)
		}
	})
}

// A transport is a RoundTripper that replies to calls without a network.
type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestAcquireEndsAtItsTimeout(t *testing.T) {
	s := newSite(t, "")
	full := says(503, "application/json", `{"code":503,"message":"the server's disk is full"}`)
	for name, meddle := range map[string]func(http.ResponseWriter, *http.Request, int32) bool{
		"a server that hangs": func(w http.ResponseWriter, r *http.Request, _ int32) bool {
			io.Copy(io.Discard, r.Body) // a server notices a disconnect only after it has read the body
			<-r.Context().Done()
			return true
		},
		"a server that fails": full,
	} {
		t.Run(name, func(t *testing.T) {
			client, _ := gateway(t, s, meddle)
			start := time.Now()
			_, err := client.acquire(context.Background(), acquireOptions{environment: "uat", holder: "h", timeout: time.Second}, &eventCounter{})
			if took := time.Since(start); err == nil || took > time.Second+leaveTime+2*time.Second {
				t.Errorf("%v after %v", err, took)
			}
		})
	}
}

// A server whose disk is full does not say whether a slot is free. A client that waited has waited in
// vain; for one that did not want to wait it is an error like any other.
func TestAServerInTroubleDoesNotSayThatNoSlotIsFree(t *testing.T) {
	for name, c := range map[string]struct {
		options acquireOptions
		code    int
	}{
		"--no-wait":    {acquireOptions{noWait: true}, exitFailed},
		"--timeout 1m": {acquireOptions{timeout: time.Minute}, exitNoSlot},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := fakeClient(t, func(*http.Request) (*http.Response, error) {
					return fakeResponse(503, "application/json", `{"code":503,"message":"the server's disk is full"}`, http.Header{versionHeader: {apiVersion}}), nil
				})
				c.options.environment, c.options.holder = "uat", "h"
				_, err := client.acquire(t.Context(), c.options, &eventCounter{})
				if err == nil || exitCode(err) != c.code || strings.Contains(err.Error(), "free") || !strings.Contains(err.Error(), "disk is full") {
					t.Errorf("%v, exit code %d, want %d", err, exitCode(err), c.code)
				}
			})
		})
	}
}

func TestFollowIgnoresBeats(t *testing.T) {
	beat, change := "event: beat\ndata: {}\n\n", "id: 7\nevent: granted\ndata: {}\n\n"
	for text, want := range map[string]int{": hello\n\n" + beat + beat: 0, change: 1, beat + change + beat: 1, change + beat + change: 2, beat + "data: {}\n\n": 1} {
		c, _ := gateway(t, nil, func(w http.ResponseWriter, r *http.Request, n int32) bool {
			w.Header().Set(versionHeader, apiVersion)
			return says(200, "text/event-stream", text)(w, r, n)
		})
		changed := make(chan struct{}, 10)
		if err := c.follow(t.Context(), changed); !errors.Is(err, errUnreachable) {
			t.Errorf("the end of the stream: %v", err)
		}
		if got := len(changed); got != want {
			t.Errorf("%q: %d changes, want %d", text, got, want)
		}
	}
}

// A poll that ended with its server is repeated soon, however many failures there were before.
func TestAFailureAfterALongPollIsTheFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := (&client{}).newRetrier(0, nil)
		r.client.answered.Store(true)
		pause := func(took time.Duration) time.Duration {
			r.sent = clockNow()
			time.Sleep(took)
			began := time.Now()
			if err := r.wait(t.Context(), errUnreachable); err != nil {
				t.Fatal(err)
			}
			return time.Since(began)
		}
		for range 10 {
			pause(time.Millisecond)
		}
		if got := pause(time.Millisecond); got < maxBackOff/2 {
			t.Errorf("after eleven failures: %v", got)
		}
		if got := pause(maxBackOff/2 + time.Millisecond); got > 100*time.Millisecond {
			t.Errorf("after a long poll: %v", got)
		}
		if got := pause(time.Millisecond); got > 200*time.Millisecond {
			t.Errorf("after the next failure: %v", got)
		}
	})
}
