package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

// What a leader has read from memory is not sent once the newest proof of its leadership is too
// old, whatever has happened to the answer until then.
func TestAnAnswerIsNotSentOnceTheProofIsOld(t *testing.T) {
	s := &server{metrics: newMetrics(), log: quietLog()}
	c := &cluster{base: s}
	term := &etcdTerm{candidate: &candidate{times: newEtcdTimes(8 * time.Second)}}
	now := time.Now()
	term.renewed.Store(&now)
	term.ctx, term.stop = context.WithCancelCause(t.Context())
	l, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &httptest.Server{Listener: newLimitedListener(l, 100), Config: s.http(c)}
	h.Start()
	defer h.Close()
	becomeOld := func() { term.prove(time.Now().Add(-term.times.gate)) }
	long := make([]byte, 100_000)
	for name, r := range map[string]struct {
		answer func(w http.ResponseWriter)
		isSent bool // as a whole, with 200
	}{
		"in time":                  {func(w http.ResponseWriter) { w.Write(long) }, true},
		"old before the header":    {func(w http.ResponseWriter) { becomeOld(); w.Write(long) }, false},
		"old before the body":      {func(w http.ResponseWriter) { w.WriteHeader(200); becomeOld(); w.Write(long) }, false},
		"old before it is written": {func(w http.ResponseWriter) { io.WriteString(w, "short"); becomeOld() }, false},
		"old in the middle": {func(w http.ResponseWriter) {
			w.Write(long)
			http.NewResponseController(w).Flush()
			becomeOld()
			w.Write(long)
		}, false},
	} {
		for range 2 { // on a connection that a call before it has used, too
			term.prove(time.Now())
			answer := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { r.answer(w) })
			c.lead.Store(&leadership{term: term, server: s, handler: answer})
			got := 0
			if response, err := h.Client().Get(h.URL); err == nil {
				if _, err := io.ReadAll(response.Body); err == nil {
					got = response.StatusCode
				}
				response.Body.Close()
			}
			if (got == http.StatusOK) != r.isSent {
				t.Errorf("%s: the status is %d", name, got)
			}
		}
	}
}

// A deadlineRecorder notes the last write deadline.
type deadlineRecorder struct {
	httptest.ResponseRecorder
	at time.Time
}

func (d *deadlineRecorder) SetWriteDeadline(at time.Time) error {
	d.at = at
	return nil
}

// standBy returns a server that passes calls on to a leader.
func standBy(t *testing.T, leader string) *cluster {
	s := &server{metrics: newMetrics(), log: quietLog()}
	s.keys.set([]acceptedKey{plainKey("a-key-of-16-bytes")})
	c := &cluster{base: s, transport: newPassTransport(nil)}
	c.info.Store(&leaderInfo{URL: "http://standby.example"})
	c.follow(etcdMeta{term: 1, leader: &leaderInfo{URL: leader}})
	t.Cleanup(func() { c.follow(etcdMeta{}) })
	return c
}

// A standby does not wait for ever for a client that does not read what is passed on.
func TestWhatIsPassedOnIsWrittenWithADeadline(t *testing.T) {
	leader := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "an answer")
	}))
	defer leader.Close()
	c := standBy(t, leader.URL)
	call := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/environments", nil)
	call.Header.Set("X-API-KEY", "a-key-of-16-bytes")
	w := &deadlineRecorder{ResponseRecorder: *httptest.NewRecorder()}
	if err := c.pass(w, call); err != nil {
		t.Fatal(err)
	}
	if w.Body.String() != "an answer" || time.Until(w.at) > writeTime || time.Until(w.at) < writeTime/2 {
		t.Errorf("%q is written until %v", w.Body, w.at)
	}
}

// A call that a leader may have taken is not sent to it a second time, whatever its headers say.
func TestWhatIsPassedOnIsSentOnce(t *testing.T) {
	var calls atomic.Int32
	leader := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/maybe" {
			return
		}
		calls.Add(1)
		connection, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			connection.Close() // without an answer, as a leader that is killed
		}
	}))
	defer leader.Close()
	c := standBy(t, leader.URL)
	for _, name := range idempotencyKeys {
		for _, path := range []string{"/environments", "/maybe"} { // the first leaves a connection to be used again
			method := http.MethodGet
			if path == "/maybe" {
				method = http.MethodPost
			}
			call := httptest.NewRequestWithContext(t.Context(), method, path, nil)
			call.Header.Set("X-API-KEY", "a-key-of-16-bytes")
			call.Header.Set(name, "any")
			if err := c.pass(httptest.NewRecorder(), call); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := int(calls.Load()); got != len(idempotencyKeys) {
		t.Errorf("%d calls were sent, of %d", got, len(idempotencyKeys))
	}
}
