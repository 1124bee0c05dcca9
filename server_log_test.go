package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"
)

// A stuckWriter blocks every write until release is closed.
type stuckWriter struct {
	bytes.Buffer
	release chan struct{}
}

func (w *stuckWriter) Write(p []byte) (int, error) {
	<-w.release
	return w.Buffer.Write(p)
}

func TestALogWithoutAReaderNeverBlocksAndCountsDroppedLines(t *testing.T) {
	w := &stuckWriter{release: make(chan struct{})}
	l, flush := newLog(w, logText)
	// The writer may have got up to maxLines before it blocks, and the log keeps as many.
	const lines = 2*maxLines + 5000
	for i := range lines {
		l.Info("line", "n", i) // it must not block
	}
	close(w.release)
	flush()
	l.Info("after the end")
	written := strings.Count(w.String(), "msg=line ")
	dropped := 0
	_, said, _ := strings.Cut(w.String(), `msg="lines were dropped here: nobody has read the log" lines=`)
	fmt.Sscan(said, &dropped)
	if dropped == 0 || written+dropped != lines {
		t.Errorf("%d lines were written, %d said to be dropped, of %d", written, dropped, lines)
	}
	if written > 2*maxLines {
		t.Errorf("%d lines were kept", written)
	}
}

func TestALogThatNobodyEverReadsDoesNotHoldUpTheEnd(t *testing.T) {
	l, flush := newLog(&stuckWriter{release: make(chan struct{})}, logText)
	l.Info("line")
	ended := make(chan struct{})
	go func() { flush(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(10 * flushTime):
		t.Error("flush never returned")
	}
}

func TestTheLogIsInOrderAndCompleteAtItsEnd(t *testing.T) {
	var out bytes.Buffer
	l, flush := newLog(&out, logJSON)
	var all sync.WaitGroup
	for w := range 4 {
		all.Go(func() {
			for i := range 1000 {
				l.With("writer", w).Info("line", "n", i)
			}
		})
	}
	all.Wait()
	flush()
	next, lines := map[int]int{}, strings.Split(strings.TrimSpace(out.String()), "\n")
	for _, line := range lines {
		var got struct{ Writer, N int }
		if err := json.Unmarshal([]byte(line), &got); err != nil || got.N != next[got.Writer] {
			t.Fatalf("%s: %v, want line %d", line, err, next[got.Writer])
		}
		next[got.Writer]++
	}
	if len(lines) != 4000 {
		t.Errorf("%d lines", len(lines))
	}
}

func TestHostileTextCannotBreakALine(t *testing.T) {
	hostile := "a\nmsg=forged\r\x1b[31m\x00\u202etxt\u0085\u2028\u009b2J\xff\" "
	for _, form := range []logForm{logText, logJSON} {
		var out bytes.Buffer
		l, flush := newLog(&out, form)
		l.Info(hostile, "holder", hostile, "error", errors.New(hostile))
		keeperLog{log: l}.event(time.Now(), hostile, &event{environment: hostile, holder: strings.Repeat("€", 200)})
		flush()
		lines := strings.Split(out.String(), "\n")
		if len(lines) != 3 || lines[2] != "" {
			t.Fatalf("%s: want two lines: %q", form, lines)
		}
		for _, text := range lines[:2] {
			if bad := strings.IndexFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }); bad >= 0 {
				t.Errorf("%s: %q at %d is not printable", form, text, bad)
			}
			if form != logJSON {
				continue
			}
			var fields map[string]string
			if err := json.Unmarshal([]byte(text), &fields); err != nil {
				t.Fatal(err)
			}
			for name, value := range fields {
				if len(value) > maxField {
					t.Errorf("%s has %d bytes", name, len(value))
				}
			}
			if got := fields["holder"]; got != spellOut(hostile) && got != strings.Repeat("€", 84)+"…" {
				t.Errorf("holder is %q", got)
			}
		}
	}
}

func TestFieldsAreCutAt256Bytes(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{strings.Repeat("x", 256), strings.Repeat("x", 256)},
		{strings.Repeat("x", 257), strings.Repeat("x", 253) + "…"},
		{strings.Repeat("x", 252) + "€€", strings.Repeat("x", 252) + "…"},
	} {
		var out bytes.Buffer
		l, flush := newLog(&out, logText)
		l.Info("line", "holder", c.text)
		flush()
		if !strings.HasSuffix(out.String(), "holder="+c.want+"\n") {
			t.Errorf("%d bytes became %s", len(c.text), out.String())
		}
	}
}

func TestStrangersCannotFillTheLog(t *testing.T) {
	var out bytes.Buffer
	l, flush := newLog(&out, logText)
	h := log.New(newSlogWriter(l), "", 0)
	for range 1000 {
		h.Print("http: TLS handshake error")
	}
	flush()
	if n := strings.Count(out.String(), "\n"); n < 1 || n > 100 {
		t.Errorf("1,000 complaints made %d lines", n)
	}
}

func TestEveryChangeOfStateIsOneLine(t *testing.T) {
	var out lockedBuffer
	g := newRig(t, "")
	g.close()
	g.handler = slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey || a.Key == slog.LevelKey || a.Key == "fence" {
			return slog.Attr{}
		}
		return a
	}})
	g.open()
	s := siteOf(t, g)
	s.call("POST /maybe?environment=uat&id=12345678&holder=ann")
	s.call("POST /maybe?environment=uat&id=abcdefgh&holder=bob&wait=0s")
	s.call("POST /maybe?environment=uat&id=abcdefgi&holder=eve&wait=0s")
	s.call("POST /maybe?environment=uat&holder=without&wait=0s")
	s.call("PUT /maybe?environment=uat&id=12345678&ttl=1h")
	s.call("PUT /maybe?environment=uat&id=12345678") // no line: it changes nothing that is stored
	s.call("DELETE /maybe?environment=uat&id=abcdefgh")
	s.call("DELETE /maybe?environment=uat&id=abcdefgi")
	s.call("DELETE /maybe?environment=uat&force=1&holder=boss")
	s.call("GET /maybe?environment=uat")
	want := `msg=granted environment=uat slot=uat holder=ann request=` + requestTag("12345678") + ` from=127.0.0.1
msg="in the queue" environment=uat holder=bob request=` + requestTag("abcdefgh") + ` from=127.0.0.1
msg="in the queue" environment=uat holder=eve request=` + requestTag("abcdefgi") + ` from=127.0.0.1
msg="in the queue" environment=uat holder=without from=127.0.0.1
msg="left the queue" environment=uat holder=without from=127.0.0.1
msg=renewed environment=uat slot=uat holder=ann request=` + requestTag("12345678") + ` from=127.0.0.1 ttl=1h0m0s
msg=left environment=uat holder=bob request=` + requestTag("abcdefgh") + ` from=127.0.0.1
msg=left environment=uat holder=eve request=` + requestTag("abcdefgi") + ` from=127.0.0.1
msg=forced environment=uat slot=uat holder=ann request=` + requestTag("12345678") + ` by=boss from=127.0.0.1
`
	// The keeper logs after it has replied.
	for end := time.Now().Add(5 * time.Second); out.String() != want && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if got := out.String(); got != want {
		t.Errorf("the log is\n%swant\n%s", got, want)
	}
}

// A grant to a waiter without an id is logged as a grant only, not also as a waiter that left
// the queue.
func TestAGrantToAWaiterWithoutAnIDIsOneLine(t *testing.T) {
	var out lockedBuffer
	l := keeperLog{log: slog.New(slog.NewTextHandler(&out, nil))}
	l.metrics = newMetrics()
	now := time.Now()
	e := newEnvironment("uat", []string{"uat"})
	number := uint64(0)
	next := func() uint64 { number++; return number }
	find := func(string) *environment { return e }
	held := &batch{now: now, next: next, environment: find, latestEntry: new(int64), history: newHistory(testHistory)}
	e.request(held, request{id: "12345678"}, false, 0)
	e.request(held, request{holder: "without"}, true, 0)
	ended := &batch{now: now, next: next, environment: find, history: held.history}
	e.release(ended, releaseRequest{selector: selector{id: "12345678"}})
	e.serveQueue(ended)
	l.replied(now, ended.changes, nil)
	log := out.String()
	if strings.Contains(log, "left") || strings.Count(log, "msg=") != 2 || !strings.Contains(log, "msg=granted") {
		t.Errorf("the log is\n%s", log)
	}
}

// A blockedHandler is a log handler that blocks until release is closed. It shows that the
// keeper logs after it has replied, and does not hold its lock while it logs.
type blockedHandler struct {
	slog.Handler
	release chan struct{}
}

func (h blockedHandler) Handle(context.Context, slog.Record) error {
	<-h.release
	return nil
}

func TestTheKeeperLogsWithoutItsLock(t *testing.T) {
	release := make(chan struct{})
	g := newRig(t, "")
	g.close()
	g.handler = blockedHandler{slog.NewTextHandler(t.Output(), nil), release}
	g.open()
	defer func() {
		close(release)
		g.close()
	}()
	ask := &call{kind: callRequest, environment: "uat", request: request{id: "12345678"}}
	if a := g.ask(ask); a.err != nil {
		t.Fatal(a.err)
	}
	looked := make(chan error, 1)
	go func() {
		_, err := g.view("uat")
		looked <- err
	}()
	select {
	case err := <-looked:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the keeper holds its lock while it logs")
	}
}

// The tag of a request in the log is salted, so that a reader of the log cannot find an id by
// trying likely ones.
func TestTheLogsNameOfARequestIsSalted(t *testing.T) {
	for _, id := range []string{"12345678", "build-4711"} {
		if plain := fmt.Sprintf("%x", sha256.Sum256([]byte(id)))[:8]; requestTag(id) == plain {
			t.Errorf("%s is %s, as everywhere", id, plain)
		}
	}
	first, again, other := requestTag("12345678"), requestTag("12345678"), requestTag("12345679")
	if first != again || first == other {
		t.Error("requests cannot be told apart")
	}
}

// The log has no command of a CI system, because the CI system of a job reads the log of a
// server that runs in the job.
func TestTheLogHoldsNoCommandOfACISystem(t *testing.T) {
	for _, form := range []logForm{logText, logJSON} {
		for _, a := range agents {
			for _, payload := range a.payloads {
				var out lockedBuffer
				l, flush := newLog(newOutput(&out), form)
				l.Warn(payload, "path", payload, "error", errors.New(payload), "event", &event{environment: payload, holder: payload})
				flush()
				if reader, line := commandIn(out.String()); reader != "" {
					t.Errorf("%s: %s reads a command in %q", form, reader, line)
				}
				if form == logJSON && !json.Valid([]byte(out.String())) {
					t.Errorf("no JSON: %s", out.String())
				}
			}
		}
	}
}
