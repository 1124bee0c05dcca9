package main

import (
	"context"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
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
		w.Header().Set("Content-Type", answer.Header.Get("Content-Type"))
		w.WriteHeader(answer.StatusCode)
		io.Copy(w, answer.Body)
	}))
	t.Cleanup(h.Close)
	c := &client{base: h.URL, http: h.Client()}
	key := testKey
	c.key.Store(&key)
	return c, &calls
}

// An eventCounter counts what a client reports while it acquires a slot.
type eventCounter struct{ queuedCount, restartedCount, acquiredCount atomic.Int32 }

func (e *eventCounter) queued(errorJSON)                  { e.queuedCount.Add(1) }
func (e *eventCounter) retrying(error)                    {}
func (e *eventCounter) restarted(errorJSON)               { e.restartedCount.Add(1) }
func (e *eventCounter) acquired(leaseJSON, time.Duration) { e.acquiredCount.Add(1) }

func says(status int, kind, body string) func(http.ResponseWriter, *http.Request, int32) bool {
	return func(w http.ResponseWriter, r *http.Request, _ int32) bool {
		w.Header().Set("Content-Type", kind)
		w.WriteHeader(status)
		io.WriteString(w, body)
		return true
	}
}

func TestAnUnknownResponseIsNeverASuccess(t *testing.T) {
	s := newSite(t, "")
	for name, c := range map[string]struct {
		status     int
		kind, body string
	}{
		"a page":                     {200, "text/html", "<h1>welcome</h1>"},
		"a page that refuses":        {403, "text/html", "<h1>no</h1>"},
		"other JSON":                 {200, "application/json", `{"status":"maintenance"}`},
		"other JSON that refuses":    {403, "application/json", `{"kind":"Status","message":"forbidden","code":403}`},
		"other JSON with a conflict": {409, "application/json", `{"message":"conflict","code":409}`},
		"other JSON that is gone":    {410, "application/json", `{"message":"gone","code":410}`},
		"somebody else's lease":      {201, "application/json", `{"environment":"perf","fence":7,"slot":"perf"}`},
		"a redirect":                 {302, "text/html", ""},
		"nothing":                    {204, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			client, calls := gateway(t, s, says(c.status, c.kind, c.body))
			var e eventCounter
			_, err := client.acquire(context.Background(), acquireOptions{environment: "uat", holder: "h"}, &e)
			if !errors.Is(err, errNotCallMe) || exitCode(err) != exitFailed || e.queuedCount.Load()+e.restartedCount.Load()+e.acquiredCount.Load() != 0 {
				t.Errorf("%v, exit code %d, told %d %d %d", err, exitCode(err), e.queuedCount.Load(), e.restartedCount.Load(), e.acquiredCount.Load())
			}
			if n := calls.Load(); n < maxForeignResponses || n > maxForeignResponses+1 { // one more call leaves the queue
				t.Errorf("%d calls", n)
			}
			if _, err := client.environments(context.Background(), "uat"); err == nil {
				t.Error("accepted as a state")
			}
			if _, err := client.renewHeld(context.Background(), leaseSelector{environment: "uat", holder: "h"}, nil, func(error) {}); err == nil {
				t.Error("it is taken for a renewal")
			}
		})
	}
}

func TestAConfirmationMustBeUnderstoodToo(t *testing.T) {
	s := newSite(t, "")
	maintenance := says(200, "application/json", `{"status":"maintenance"}`)
	client, _ := gateway(t, s, func(w http.ResponseWriter, r *http.Request, n int32) bool {
		return r.Method == http.MethodPut && maintenance(w, r, n)
	})
	var e eventCounter
	if _, err := client.acquire(context.Background(), acquireOptions{environment: "uat", holder: "h", ttl: time.Hour}, &e); !errors.Is(err, errNotCallMe) || e.acquiredCount.Load() != 0 {
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
	if err := client.release(context.Background(), leaseSelector{environment: "uat", holder: "boss"}, true, func(error) {}); err != nil {
		t.Errorf("the repeated force: %v", err)
	}
	(<-next).want(t, 201, `"holder":"next"`)
	if got := s.state(); got != "87654321 |" || deletes < 2 {
		t.Errorf("%s after %d calls", got, deletes)
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
	if err := client.release(context.Background(), leaseSelector{environment: "uat", holder: "boss"}, true, func(error) {}); err != nil {
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
	c, err := newClient(clientConfig{Host: serverURL(h.URL), CAFile: authority, KeyConfig: KeyConfig{APIKey: testKey}})
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
		c, err := newClient(clientConfig{Host: "http://call-me", KeyConfig: KeyConfig{APIKey: testKey}})
		if err != nil {
			t.Fatal(err)
		}
		var granted, claimed time.Time // when the dead poll is granted the slot, and its claim ends
		c.http.Transport = transport(func(r *http.Request) (*http.Response, error) {
			answer := func(status int, body string) (*http.Response, error) {
				return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader(body)), Header: http.Header{"Content-Type": {"application/json"}}}, nil
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

func TestFollowIgnoresBeats(t *testing.T) {
	beat, change := "event: beat\ndata: {}\n\n", "id: 7\nevent: granted\ndata: {}\n\n"
	for text, want := range map[string]int{": hello\n\n" + beat + beat: 0, change: 1, beat + change + beat: 1, change + beat + change: 2, beat + "data: {}\n\n": 1} {
		c, _ := gateway(t, nil, says(200, "text/event-stream", text))
		changed := make(chan struct{}, 10)
		if err := c.follow(t.Context(), changed); !errors.Is(err, errUnreachable) {
			t.Errorf("the end of the stream: %v", err)
		}
		if got := len(changed); got != want {
			t.Errorf("%q: %d changes, want %d", text, got, want)
		}
	}
}
