package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"
)

// A rawLine is a connection to the server on which a test reads and writes every byte itself.
type rawLine struct {
	net.Conn
	t      *testing.T
	answer *bufio.Reader
}

func (s *site) dial() *rawLine {
	s.t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return &rawLine{c, s.t, bufio.NewReader(c)}
}

func (l *rawLine) send(line string, headers ...string) {
	l.t.Helper()
	method, path, _ := strings.Cut(line, " ")
	fmt.Fprintf(l, "%s %s HTTP/1.1\r\nHost: call-me\r\nX-API-KEY: %s\r\n%s\r\n", method, path, testKey, strings.Join(append(headers, ""), "\r\n"))
}

func (l *rawLine) want(status int, inBody string) *http.Response {
	l.t.Helper()
	r, err := http.ReadResponse(l.answer, nil)
	if err != nil {
		l.t.Fatal(err)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != status || !strings.Contains(string(body), inBody) {
		l.t.Errorf("got %d %s (%v), want %d with %q", r.StatusCode, body, err, status, inBody)
	}
	return r
}

// connected waits until the queues of all environments have n connected waiters.
func (s *site) connected(n int) {
	s.t.Helper()
	eventually(s.t, fmt.Sprint(n, " are connected"), func() bool {
		return strings.Count(s.call("GET /environments").body, `"connected":true`) == n
	})
}

func TestAConnectionGoesOnAfterItHasWaited(t *testing.T) {
	s := newSite(t, "")
	s.call("POST /maybe?environment=uat&id=holder-1")
	l := s.dial()
	for i := range 3 { // one poll after the other, on the same connection
		l.send("POST /maybe?environment=uat&id=waiter-1&wait=50ms")
		r := l.want(403, `"position":1`)
		for name, want := range map[string]string{"Content-Type": "application/json", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"} {
			if got := r.Header.Get(name); got != want {
				t.Errorf("poll %d: %s is %q", i, name, got)
			}
		}
		if _, err := http.ParseTime(r.Header.Get("Date")); err != nil || r.Close {
			t.Errorf("poll %d: %v, close %v", i, err, r.Close)
		}
		l.send("GET /maybe?environment=uat")
		l.want(403, "")
	}
	l.send("POST /maybe?environment=uat&id=waiter-1&wait=1m")
	s.connected(1)
	s.call("DELETE /maybe?environment=uat&id=holder-1")
	l.want(201, `"slot":"uat"`)
	l.send("DELETE /maybe?environment=uat&id=waiter-1")
	l.want(204, "")
}

// The server drops the key of a call when it has replied, because the connection may be idle
// for minutes after that.
func TestACallThatWasAnsweredHoldsItsKeyNoLonger(t *testing.T) {
	s := newSite(t, "")
	s.call("POST /maybe?environment=uat&id=holder-1")
	bearers := func() int {
		s.server.keys.mu.Lock()
		defer s.server.keys.mu.Unlock()
		return len(s.server.keys.uses)
	}
	l := s.dial()
	l.send("POST /maybe?environment=uat&id=waiter-1&wait=1m")
	s.connected(1)
	if n := bearers(); n != 1 {
		t.Errorf("%d wait", n)
	}
	s.call("DELETE /maybe?environment=uat&id=holder-1")
	l.want(201, "")
	if n := bearers(); n != 0 {
		t.Errorf("%d wait still", n)
	}
	s.server.keys.set(nil)
	l.send("PUT /maybe?environment=uat&id=waiter-1")
	l.want(401, "")
}

func TestWhatACallerSendsWhileItWaitsIsItsNextCall(t *testing.T) {
	for name, together := range map[string]bool{"in one piece": true, "later": false} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, "")
			s.call("POST /maybe?environment=uat&id=holder-1")
			l := s.dial()
			first, second := "POST /maybe?environment=uat&id=waiter-1&wait=1m", "GET /maybe?environment=other"
			if together {
				fmt.Fprintf(l, "POST /maybe?environment=uat&id=waiter-1&wait=1m HTTP/1.1\r\nHost: a\r\nX-API-KEY: %s\r\n\r\nGET /maybe?environment=other HTTP/1.1\r\nHost: a\r\nX-API-KEY: %s\r\n\r\n", testKey, testKey)
			} else {
				l.send(first)
				s.connected(1)
				l.send(second)
			}
			s.connected(1)
			s.call("DELETE /maybe?environment=uat&id=holder-1")
			l.want(201, "")
			l.want(200, "")
		})
	}
}

func TestConnectionCloseIsHonouredAfterAWait(t *testing.T) {
	s := newSite(t, "")
	s.call("POST /maybe?environment=uat&id=holder-1")
	l := s.dial()
	l.send("POST /maybe?environment=uat&id=waiter-1&wait=1m", "Connection: close")
	s.connected(1)
	s.call("DELETE /maybe?environment=uat&id=holder-1")
	if r := l.want(201, ""); !r.Close {
		t.Error("the answer does not say that it is the last one")
	}
	if n, err := l.answer.ReadByte(); err != io.EOF {
		t.Errorf("read %v, %v", n, err)
	}
}

func TestAnOldCallerWaitsToo(t *testing.T) {
	s := newSite(t, "")
	s.call("POST /maybe?environment=uat&id=holder-1")
	l := s.dial()
	fmt.Fprintf(l, "POST /maybe?environment=uat&id=waiter-1&wait=1m HTTP/1.0\r\nX-API-KEY: %s\r\n\r\n", testKey)
	s.connected(1)
	s.call("DELETE /maybe?environment=uat&id=holder-1")
	l.want(201, `"slot":"uat"`)
}

func TestAStoppingServerAnswersWaitersAndClosesThem(t *testing.T) {
	s := newSite(t, "")
	s.call("POST /maybe?environment=uat&id=holder-1")
	waiting := s.dial()
	waiting.send("POST /maybe?environment=uat&id=waiter-2&wait=1m")
	s.connected(1)
	s.restart()
	if r := waiting.want(503, "stopping"); r.Header.Get("Retry-After") != "1" || !r.Close {
		t.Errorf("the answer: %v", r.Header)
	}
}

// The server reads a call that arrives in several pieces, and several calls that arrive in
// one piece.
func TestAConnectionBringsCallsInAnyPieces(t *testing.T) {
	s := newSite(t, "")
	call := func(method, path, more string) string {
		return method + " " + path + " HTTP/1.1\r\nHost: call-me\r\nX-API-KEY: " + testKey + "\r\n" + more + "\r\n"
	}
	all := call("POST", "/maybe?environment=uat", "") + call("GET", "/maybe?environment=uat", "") +
		call("DELETE", "/maybe?environment=uat", "") + call("GET", "/environments", "") +
		call("GET", "/maybe?environment=uat", "") + call("POST", "/maybe?environment=uat", "Content-Length: 0\r\n")
	want := []int{201, 403, 204, 200, 200, 201}
	for _, size := range []int{1, 7, 100, 1000, len(all)} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			l := s.dial()
			go func() {
				for rest := all; rest != ""; rest = rest[min(size, len(rest)):] {
					io.WriteString(l, rest[:min(size, len(rest))])
				}
			}()
			for _, status := range want {
				l.want(status, "")
			}
			s.call("DELETE /maybe?environment=uat").want(t, 204, "")
		})
	}
}

// A waiter without an id gets no slot after it has closed its end of the connection, even if
// net/http cannot notice that because the waiter has sent more bytes.
func TestAGrantToADisconnectedWaiterIsReleased(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux reports closed connections")
	}
	s := newSite(t, "")
	for more, noticed := range map[string]bool{"": true, "GET /maybe?environment=uat HTTP/1.1\r\n": false} {
		s.call("POST /maybe?environment=uat&id=holder-" + fmt.Sprint(noticed))
		l := s.dial()
		l.send("POST /maybe?environment=uat&wait=1m")
		s.connected(1)
		io.WriteString(l, more)
		l.Close()
		if noticed {
			s.connected(0)
		}
		s.call("DELETE /maybe?environment=uat&id=holder-" + fmt.Sprint(noticed))
		eventually(t, "the slot is free", func() bool { return s.call("GET /maybe?environment=uat").StatusCode == 200 })
	}
}

// A request without wait is granted even if its connection is closed before the response, as
// in 2019.
func TestAPlainRequestIsGrantedWhateverItsConnectionDoes(t *testing.T) {
	s := newSite(t, "")
	l := s.dial()
	l.send("POST /maybe?environment=uat")
	l.Close()
	eventually(t, "the slot is held", func() bool { return s.call("GET /maybe?environment=uat").StatusCode == 403 })
	if happened := s.call("GET /history").body; strings.Contains(happened, `"released"`) {
		t.Errorf("the grant was taken back: %s", happened)
	}
}
