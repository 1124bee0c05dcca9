package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// quickScript has every kind of answer that a quick call can get, each line
// "METHOD query" with a form where there is one.
var quickScript = []string{
	"GET environment=uat", "POST environment=uat", "GET environment=uat", "POST environment=uat", "DELETE environment=uat", "DELETE environment=uat",
	"POST environment=uat&id=request-1&holder=ann&ttl=2h&reason=%C3%A9+%26&url=https://ci/1",
	"POST environment=uat&id=request-1&holder=ann&ttl=2h&reason=%C3%A9+%26&url=https://ci/1",
	"POST environment=uat&id=request-1&holder=bob", "POST environment=uat&id=request-2&holder=bob",
	"POST environment=uat&id=request-2&wait=0s", "GET environment=uat&holder=ann", "PUT environment=uat&id=request-1", "PUT environment=uat&id=request-1&ttl=3h",
	"PUT environment=uat&id=request-9", "DELETE environment=uat&holder=bob", "DELETE environment=uat", "DELETE environment=uat&id=request-2",
	"DELETE environment=uat&id=request-1", "DELETE environment=uat&id=request-1", "POST environment=uat&id=request-1",
	"POST environment=form holder=ann&ttl=1h", "PUT environment=form holder=ann", "DELETE environment=form holder=ann", "POST environment=form a;b",
	"GET ", "GET environment=", "GET environment=%zz", "GET environment=a&environment=b", "POST enviroment=uat", "POST environment=uat&ttl=1ms",
	"DELETE environment=uat&holder=ann&force=1", "DELETE environment=uat&force=perhaps", "GET environment=%0A", "GET environment=" + testKey,
}

// sendLine sends a line of quickScript and returns the bytes of the answer, but
// for what is new each time.
func sendLine(t *testing.T, c net.Conn, answers *bufio.Reader, line string, headers string) string {
	t.Helper()
	method, query, _ := strings.Cut(line, " ")
	query, form, _ := strings.Cut(query, " ")
	if form != "" {
		headers += fmt.Sprintf("Content-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n", len(form))
	}
	fmt.Fprintf(c, "%s /maybe?%s HTTP/1.1\r\nHost: call-me\r\n%s\r\n%s", method, query, headers, form)
	var all bytes.Buffer
	answer, err := http.ReadResponse(bufio.NewReader(io.TeeReader(onlyBuffered{answers}, &all)), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	io.Copy(io.Discard, answer.Body)
	return changing.ReplaceAllString(all.String(), "$1 …")
}

var changing = regexp.MustCompile(`(Date:|Content-Length:|"fence":|"[a-z_]+":|at|since) ?("?\d{4}-\d\d-\d\dT[\d:.]+Z"?|\d+\.\d+|\d{10,}|\d{3}\b|\w{3}, \d\d [^\r]+)`)

// onlyBuffered reads no further than what has arrived: one answer.
type onlyBuffered struct{ *bufio.Reader }

func (b onlyBuffered) Read(p []byte) (int, error) {
	b.Peek(1)
	return b.Reader.Read(p[:min(len(p), max(1, b.Buffered()))])
}

// A header that is not on the list of quick calls sends the same call through
// net/http.
func TestAQuickCallIsAnsweredAsByNetHTTP(t *testing.T) {
	quick, slow := newSite(t, ""), newSite(t, "")
	for name, headers := range map[string]string{
		"with a key":  "X-API-KEY: " + testKey + "\r\n",
		"a wrong one": "X-API-KEY: wrong\r\nUser-Agent: curl/8\r\nAccept: */*\r\n",
		"none":        "Accept-Encoding: gzip\r\nConnection: keep-alive\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			var one, other *rawLine
			for _, line := range quickScript {
				if one == nil || name != "with a key" { // else each call is the next one of its connection
					one, other = quick.dial(), slow.dial()
				}
				got := sendLine(t, one, one.answer, line, headers)
				want := sendLine(t, other, other.answer, line, headers+"X-Other: 1\r\n")
				if got != want {
					t.Errorf("%s:\n%q\nnet/http answers\n%q", line, got, want)
				}
				if strings.Contains(want, "Connection: close") {
					if n, err := one.answer.Read(make([]byte, 1)); err != io.EOF {
						t.Errorf("%s: the connection stays open: %d, %v", line, n, err)
					}
					one = nil
				}
			}
		})
	}
}

// One call may come in pieces, several in one, and one of another kind among
// them.
func TestAConnectionBringsCallsOfBothKindsInAnyPieces(t *testing.T) {
	s := newSite(t, "")
	call := func(method, path, more string) string {
		return method + " " + path + " HTTP/1.1\r\nHost: call-me\r\nX-API-KEY: " + testKey + "\r\n" + more + "\r\n"
	}
	all := call("POST", "/maybe?environment=uat", "") + call("GET", "/maybe?environment=uat", "") +
		call("DELETE", "/maybe?environment=uat", "") + call("GET", "/healthz", "") +
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

// The end of the connection arrives right behind the call, before its commit
// can be done.
func TestAGrantToSomebodyWhoHasLeftIsTakenBack(t *testing.T) {
	s := newSite(t, "")
	for n := range 10 {
		l := s.dial()
		l.send("POST /maybe?environment=uat")
		l.Close()
		eventually(t, "the grant is taken back", func() bool {
			happened := s.call("GET /history").body
			return strings.Count(happened, `"granted"`) == n+1 && strings.Count(happened, `"released"`) == n+1
		})
		s.call("GET /maybe?environment=uat").want(t, 200, "")
	}
}

func TestHungUpTellsWhoHasLeft(t *testing.T) {
	if !noticesLeaving {
		t.Skip("here net/http notices it")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for name, c := range map[string]struct {
		do   func(*net.TCPConn)
		left bool
	}{
		"who waits":              {func(*net.TCPConn) {}, false},
		"who sends on":           {func(c *net.TCPConn) { c.Write([]byte("x")) }, false},
		"who closes":             {func(c *net.TCPConn) { c.Close() }, true},
		"who ends its direction": {func(c *net.TCPConn) { c.CloseWrite() }, true},
		"who breaks off":         {func(c *net.TCPConn) { c.SetLinger(0); c.Close() }, true},
	} {
		t.Run(name, func(t *testing.T) {
			caller, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer caller.Close()
			conn, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			e := &entrance{Conn: conn, outer: conn}
			conn.SetReadDeadline(time.Unix(1, 0)) // however long the answer has taken
			c.do(caller.(*net.TCPConn))
			if c.left {
				eventually(t, "it is noticed", e.hungUp)
			}
			if got := e.hungUp(); got != c.left {
				t.Errorf("left: %v", got)
			}
		})
	}
}

// A pipeListener is one to which connections come that are made in memory, so
// that their time can be a test's.
type pipeListener chan net.Conn

func (l pipeListener) Accept() (net.Conn, error) {
	if c, open := <-l; open {
		return c, nil
	}
	return nil, net.ErrClosed
}

func (l pipeListener) Close() error   { close(l); return nil }
func (l pipeListener) Addr() net.Addr { return nil }

func TestAConnectionThatIsAttendedToHasItsTimes(t *testing.T) {
	half := "GET /maybe?environment=uat HTTP/1.1\r\nHost: call-me\r\n"
	rest := "X-API-KEY: " + testKey + "\r\n\r\n"
	for name, c := range map[string]struct {
		say  func(io.Writer)
		want time.Duration // until it is cut off
	}{
		"who says nothing":            {func(io.Writer) {}, headerTime},
		"who begins a call":           {func(w io.Writer) { io.WriteString(w, half) }, headerTime},
		"who begins byte by byte":     {func(w io.Writer) { trickle(w, half) }, headerTime},
		"who makes a call":            {func(w io.Writer) { io.WriteString(w, half+rest) }, idleTime},
		"who begins a second one":     {func(w io.Writer) { io.WriteString(w, half+rest+half) }, headerTime},
		"who begins one after a rest": {func(w io.Writer) { io.WriteString(w, half+rest); time.Sleep(time.Minute); io.WriteString(w, half) }, time.Minute + headerTime},
		"who makes one after another": {func(w io.Writer) {
			io.WriteString(w, half)
			for range 600 {
				time.Sleep(100 * time.Millisecond)
				io.WriteString(w, rest+half)
			}
		}, time.Minute + headerTime},
		"who makes one in a while": {func(w io.Writer) {
			for range 10 {
				io.WriteString(w, half+rest)
				time.Sleep(idleTime - 2*deadlineSlack)
			}
		}, 10*(idleTime-2*deadlineSlack) + 2*deadlineSlack},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newRig(t, "")
				s := &server{keeper: g.keeper, declared: g.declared, metrics: g.metrics, log: quietLog()}
				s.keys.set([]string{testKey})
				callers := make(pipeListener)
				f := newFront(newDoor(callers, nil, 10, quietLog()), s)
				ours, theirs := net.Pipe()
				callers <- theirs
				start := time.Now()
				var saying sync.WaitGroup
				saying.Go(func() { c.say(ours) })
				answers, _ := io.ReadAll(ours)
				if took := time.Since(start); took > c.want || took < c.want-deadlineSlack {
					t.Errorf("cut off after %v, want %v; it was told %q", took, c.want, answers[:min(len(answers), 200)])
				}
				saying.Wait()
				f.Close()
				s.outside.Wait()
				g.close()
			})
		})
	}
}

// trickle sends a byte a second.
func trickle(w io.Writer, text string) {
	for i := range len(text) {
		io.WriteString(w, text[i:i+1])
		time.Sleep(time.Second)
	}
}

// somewhere stands in for the handlers of quick calls.
var somewhere = quickHandlers{"GET": {"GET", http.NotFoundHandler()}, "POST": {"POST", http.NotFoundHandler()},
	"PUT": {"PUT", http.NotFoundHandler()}, "DELETE": {"DELETE", http.NotFoundHandler()}}

// readAsByNetHTTP reports what is wrong with how the server reads a call by
// itself: what it takes for a quick call must be one to net/http too, and say
// the same. quick: it is one.
func readAsByNetHTTP(b []byte) (quick bool, wrong error) {
	b = b[:min(len(b), quickSize)]
	var q quickCall
	if q.read(b, somewhere) != whole {
		return false, nil
	}
	got := http.Request{URL: &url.URL{Path: quickPath}, Header: http.Header{"Content-Type": {"of the call before"}, keyHeader: {"too"}}}
	q.fill(&got, new(bytes.Reader))
	body, _ := io.ReadAll(got.Body)
	want, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(b[:q.size])))
	if err != nil {
		return true, fmt.Errorf("%q: %w", b, err)
	}
	wantBody, err := io.ReadAll(want.Body)
	same := err == nil && got.Method == want.Method && got.URL.Path == want.URL.Path && got.URL.RawQuery == want.URL.RawQuery &&
		got.ContentLength == want.ContentLength && bytes.Equal(body, wantBody) && want.ProtoAtLeast(1, 1) && !want.Close &&
		len(want.TransferEncoding) == 0 && want.Host != "" &&
		fmt.Sprint(got.Header[keyHeader], got.Header["Content-Type"]) == fmt.Sprint(want.Header[keyHeader], want.Header["Content-Type"])
	if !same {
		return true, fmt.Errorf("%q is read as\n%+v %q\nand by net/http as\n%+v %q", b, &got, body, want, wantBody)
	}
	for header := range want.Header {
		switch header {
		case keyHeader, "Content-Type", "Content-Length", "Connection", "User-Agent", "Accept", "Accept-Encoding":
		default:
			return true, fmt.Errorf("%q has a header of %q", b, header)
		}
	}
	for n := range q.size {
		if what := new(quickCall).read(b[:n], somewhere); what == whole || what == other && n < q.size-len(body) {
			return true, fmt.Errorf("%q is %d, and the beginning of %q", b[:n], what, b)
		}
	}
	return true, nil
}

func FuzzQuickCall(f *testing.F) {
	for _, c := range hostileTable {
		f.Add([]byte(expandHostile.Replace(c.send)))
	}
	for _, text := range []string{"POST /maybe?a=b#c HTTP/1.1\r\nHost: x\r\n\r\n", "GET /maybe HTTP/1.1\r\nhOST: [::1]:1\r\nx-api-key: a b \r\nCONTENT-length: 2\r\n\r\nab",
		"PUT /maybe?? HTTP/1.1\r\nHost: x\r\nContent-Length: 00\r\nContent-Length: 0\r\n\r\n", "DELETE /maybe?a HTTP/1.1\r\nHost: x\r\nAccept: a\r\n b\r\n\r\n"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := readAsByNetHTTP(b); err != nil {
			t.Error(err)
		}
	})
}

// text makes a call as it is sent, which could be a quick one but for what is
// odd about it.
func (m monkey) text() string {
	end := func() string { return m.rarely("\r\n", "\n", "\r", "\r\n\r\n", "\r\n ", "", " \r\n", "\t\r\n") }
	space := func() string { return m.rarely(" ", "  ", "\t", "") }
	text := m.rarely(m.of("GET", "POST", "PUT", "DELETE"), "get", "HEAD", "FROB", "") + space() +
		m.rarely("/maybe?", "/maybe", "/maybe?#", "/maybe??", "//maybe?", "*", "http://x/maybe?", "/MAYBE?", "/%6daybe?") + m.rarely("environment=uat", m.query()) + space() +
		m.rarely("HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "http/1.1", "HTTP/1.10", "") + end()
	headers := []string{"Host:" + space() + m.rarely("call-me:8000", "[::1]", "a b", "", "\x80", "x/y")}
	for range m.IntN(5) {
		headers = append(headers, m.of("X-API-KEY", "x-api-key", "Content-Type", "User-Agent", "Accept", "Accept-Encoding", m.rarely("Accept", "Content-Length", "Host", "Transfer-Encoding",
			"Connection", "Expect", "Origin", "Authorization", "Upgrade", "Content-Length ", " Accept", "X-Forwarded-For", "", "Trailer"))+
			m.rarely(":", " :", "", "::")+space()+m.of("a", "gzip, br", "keep-alive", "close", "chunked", "0", "3", "+3", "100-continue", m.rarely("*/*", m.bytes(5), "a\r", "a\x00", "")))
	}
	m.Shuffle(len(headers), func(i, j int) { headers[i], headers[j] = headers[j], headers[i] })
	for _, h := range headers {
		text += h + end()
	}
	return text + "\r\n" + m.rarely("", "abc", "GET / HTTP/1.1\r\n\r\n")
}

// rarely is mostly the first.
func (m monkey) rarely(mostly string, others ...string) string {
	if m.IntN(12) > 0 {
		return mostly
	}
	return m.of(others...)
}
