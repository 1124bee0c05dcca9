package main

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// testKey is the API key of all tests. CI sets TEST_KEY to a key of its own, and searches
// everything that the tests print for it.
var testKey = cmp.Or(os.Getenv("TEST_KEY"), "canary-key-of-the-tests")

// leaked is set when the key was found where it must not be: in a response, in the output
// of a process, or in a file.
var leaked atomic.Bool

func seekKey(text string) {
	if strings.Contains(text, testKey) {
		leaked.Store(true)
	}
}

// A searched listener searches for the key in every byte that is sent on its connections.
type searched struct{ net.Listener }

func (l searched) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &searchedConnection{TCPConn: c.(*net.TCPConn)}, nil
}

type searchedConnection struct {
	*net.TCPConn
	last string // the last bytes that were sent, as many as the key has: it may begin in them
}

func (c *searchedConnection) Write(p []byte) (int, error) {
	c.last += string(p)
	seekKey(c.last)
	c.last = c.last[max(0, len(c.last)-len(testKey)):]
	return c.TCPConn.Write(p)
}

// A site is a keeper with its HTTP API, on a port of its own.
type site struct {
	*rig
	url    string
	http   *httptest.Server
	server *server
}

func newSite(t *testing.T, declared string) *site { return siteOf(t, newRig(t, declared)) }

func siteOf(t *testing.T, g *rig) *site {
	s := &server{keeper: g.keeper, metrics: g.metrics, log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	s.declaration.Store(&g.declared)
	s.keys.set([]acceptedKey{plainKey(testKey)})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &httptest.Server{Listener: newLimitedListener(searched{l}, 1000), Config: s.http(s.routes())}
	h.Start()
	t.Cleanup(func() {
		g.close() // before the server: it replies to the calls that wait
		h.Close()
	})
	return &site{g, h.URL, h, s}
}

func quietLog() *slog.Logger { return slog.New(slog.DiscardHandler) }

// An httpReply is a response whose body has been read.
type httpReply struct {
	*http.Response
	body string
}

func (s *site) send(r *http.Request) httpReply {
	s.t.Helper()
	if r.Header.Get("X-API-KEY") == "" && r.Header.Get("Authorization") == "" {
		r.Header.Set("X-API-KEY", testKey)
	}
	response, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	seekKey(string(body) + fmt.Sprint(response.Header))
	described(s.t, r, response, string(body))
	return httpReply{response, string(body)}
}

// call sends one call with the key and returns its response. line is "METHOD /path?query".
func (s *site) call(line string) httpReply {
	s.t.Helper()
	method, path, _ := strings.Cut(line, " ")
	r, err := http.NewRequest(method, s.url+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.send(r)
}

func (r httpReply) want(t *testing.T, status int, inBody string) httpReply {
	t.Helper()
	if r.StatusCode != status || !strings.Contains(r.body, inBody) {
		t.Errorf("got %d %s, want %d with %q", r.StatusCode, r.body, status, inBody)
	}
	return r
}

func (r httpReply) lease(t *testing.T) (l leaseJSON) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.body), &l); err != nil {
		t.Fatalf("%v in %q", err, r.body)
	}
	return l
}

// raw sends the text on a new connection, and returns one response as text, without its
// date. If no response can be read, it returns the text of the error.
func (s *site) raw(text string) string {
	s.t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprint(c, text)
	response, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return err.Error()
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s\n", response.Proto, response.Status)
	body, _ := io.ReadAll(response.Body)
	if response.ContentLength >= 0 && response.StatusCode != http.StatusNoContent {
		fmt.Fprintf(&b, "Content-Length: %d\n", response.ContentLength)
	}
	for name, values := range response.Header {
		if name != "Content-Length" && name != "Date" {
			fmt.Fprintf(&b, "%s: %s\n", name, values)
		}
	}
	return b.String() + string(body)
}

func TestTheAPIOf2019ToTheByte(t *testing.T) {
	s := newSite(t, "")
	const ok, created, forbidden, gone = "HTTP/1.1 200 OK\nContent-Length: 0\n", "HTTP/1.1 201 Created\nContent-Length: 0\n",
		"HTTP/1.1 403 Forbidden\nContent-Length: 0\n", "HTTP/1.1 204 No Content\n"
	steps := []struct{ method, want string }{
		{"GET", ok}, {"POST", created}, {"GET", forbidden}, {"POST", forbidden}, {"DELETE", gone}, {"DELETE", gone}, {"GET", ok},
	}
	for name, header := range map[string]string{
		"curl":            "Accept: */*\r\n",
		"the 2019 client": "Accept: application/json\r\nAccept-Encoding: gzip\r\nUser-Agent: Go-http-client/1.1\r\n",
		"its POST":        "Accept: application/json\r\nContent-Type: application/json\r\n",
		"a page":          "Accept: text/html\r\nContent-Type: text/plain\r\n",
		"an empty form":   "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 0\r\n",
		"another body":    "Content-Type: application/json\r\nContent-Length: 2\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			body := ""
			if name == "another body" {
				body = "{}"
			}
			for i, step := range steps {
				got := s.raw(step.method + " /maybe?environment=uat HTTP/1.1\r\nHost: call-me.example\r\nX-Api-Key: " + testKey + "\r\n" + header + "\r\n" + body)
				if got != step.want {
					t.Errorf("step %d, %s:\n%swant:\n%s", i, step.method, got, step.want)
				}
			}
		})
	}
	t.Run("all headers", func(t *testing.T) {
		c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "GET /maybe?environment=uat HTTP/1.1\r\nHost: x\r\nX-API-KEY: %s\r\nConnection: close\r\n\r\n", testKey)
		text, _ := io.ReadAll(c)
		want := regexp.MustCompile(`^HTTP/1.1 200 OK\r\nDate: [^\r]+\r\nContent-Length: 0\r\nConnection: close\r\n\r\n$`)
		if !want.Match(text) {
			t.Errorf("%q", text)
		}
	})
}

func TestHEADWorksWhereverGETDoes(t *testing.T) {
	s := newSite(t, "")
	for _, path := range []string{"/maybe?environment=uat", "/environments", "/healthz"} {
		if r := s.call("HEAD " + path); r.StatusCode != 200 || r.body != "" {
			t.Errorf("%s: %d %q", path, r.StatusCode, r.body)
		}
	}
	s.call("POST /maybe?environment=uat")
	s.call("HEAD /maybe?environment=uat").want(t, 403, "")
}

func TestEveryCallNeedsTheKey(t *testing.T) {
	bodies := map[string]bool{}
	for _, header := range []http.Header{
		{"X-Api-Key": {""}},
		{"X-Api-Key": {"wrong"}},
		{"X-Api-Key": {testKey + "x"}},
		{"X-Api-Key": {testKey[:5]}},
		{"X-Api-Key": {testKey, "wrong"}},
		{"X-Api-Key": {testKey}, "Authorization": {"Basic " + base64.StdEncoding.EncodeToString([]byte("ann:wrong"))}},
		{"Authorization": {"Basic " + base64.StdEncoding.EncodeToString([]byte(testKey+":"))}},
		{"X-Api-Key": {strings.Repeat("x", 10000)}},
		{"Authorization": {"Bearer " + testKey}},
		{"Authorization": {"Basic xxx"}},
	} {
		s := newSite(t, "") // each server has its own limit of wrong keys
		for _, line := range []string{"GET /maybe?environment=uat", "POST /maybe?environment=uat", "PUT /maybe", "DELETE /maybe?environment=uat", "GET /environments", "GET /nowhere", "PATCH /maybe", "GET /maybe?environment=uat&api_key=" + testKey} {
			method, path, _ := strings.Cut(line, " ")
			r, _ := http.NewRequest(method, s.url+path, nil)
			r.Header = header.Clone()
			response, err := http.DefaultTransport.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(response.Body)
			response.Body.Close()
			bodies[string(body)] = true
			if response.StatusCode != 401 || !strings.HasPrefix(response.Header.Get("WWW-Authenticate"), "Basic") {
				t.Errorf("%s with %v: %d", line, header, response.StatusCode)
			}
		}
	}
	if len(bodies) != 1 {
		t.Errorf("401 has several bodies: %v", bodies)
	}
	s := newSite(t, "")
	r, _ := http.NewRequest("POST", s.url+"/maybe?environment=uat", nil)
	r.Header.Set(keyHeader, testKey)
	r.SetBasicAuth("ann", testKey) // both are right: that is said, and is no wrong key
	twice, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	twice.Body.Close()
	if twice.StatusCode != 400 {
		t.Errorf("the key in two headers: %d", twice.StatusCode)
	}
	r.Header.Del(keyHeader)
	r.SetBasicAuth("ann", testKey)
	s.send(r).want(t, 201, "")
	s.call("GET /environments").want(t, 200, `"holder":"ann"`)
	response, err := http.Get(s.url + "/healthz")
	if err != nil || response.StatusCode != 200 {
		t.Errorf("healthz without a key: %v", err)
	}
}

func TestARequestIsAnsweredWithItsLease(t *testing.T) {
	s := newSite(t, "")
	before := time.Now()
	l := s.call("POST /maybe?environment=uat&id=12345678&holder=ci&url=https://ci/1&reason=tests&ttl=90s").want(t, 201, "").lease(t)
	if l.Environment != "uat" || l.Slot != "uat" || l.Holder != "ci" || l.URL != "https://ci/1" || l.Reason != "tests" || l.TTLSeconds != 90 || l.Fence == 0 {
		t.Errorf("%+v", l)
	}
	if l.Until == nil || l.Until.Sub(before) < 89*time.Second || l.Until.Sub(l.Since) > 92*time.Second {
		t.Errorf("from %v until %v", l.Since, l.Until)
	}
	again := s.call("POST /maybe?environment=uat&id=12345678&holder=ci&url=https://ci/1&reason=tests&ttl=90s").want(t, 201, "").lease(t)
	if again.Fence != l.Fence {
		t.Errorf("the same id got fences %d and %d", l.Fence, again.Fence)
	}
	s.call("POST /maybe?environment=uat&id=12345678&holder=other&ttl=90s").want(t, 422, "other terms")
	s.call("POST /maybe?environment=uat&holder=other").want(t, 403, "held by ci since")
	s.call("GET /maybe?environment=uat&id=12345678").want(t, 403, `"held_by":[{"environment":"uat","slot":"uat","holder":"ci"`)
	all := s.call("GET /environments?environment=uat").want(t, 200, `"holder":"ci"`)
	if strings.Contains(all.body, "12345678") || strings.Contains(s.call("GET /maybe?environment=uat&holder=x").body, "12345678") {
		t.Error("a request id is shown")
	}
	s.call("PUT /maybe?environment=uat&id=12345678").want(t, 200, `"ttl_seconds":90`)
	if l := s.call("PUT /maybe?environment=uat&holder=ci&ttl=1h").want(t, 200, "").lease(t); l.TTLSeconds != 3600 {
		t.Errorf("%+v", l)
	}
	s.call("PUT /maybe?environment=uat&holder=other").want(t, 409, "held by ci")
	s.call("DELETE /maybe?environment=uat").want(t, 409, "held by ci")
	s.call("DELETE /maybe?environment=uat&holder=other").want(t, 409, "held by ci")
	s.call("DELETE /maybe?environment=uat&id=12345678").want(t, 204, "")
	s.call("DELETE /maybe?environment=uat&id=12345678").want(t, 204, "")
	s.call("PUT /maybe?environment=uat&id=12345678").want(t, 409, "was released")
	s.call("POST /maybe?environment=uat&id=12345678&holder=ci&url=https://ci/1&reason=tests&ttl=90s").want(t, 410, `"how":"released"`)
	s.call("POST /maybe?environment=uat&ttl=0").want(t, 201, `"ttl_seconds":0`)
	s.call("DELETE /maybe?environment=uat&force=1&holder=boss").want(t, 204, "")
	s.call("GET /maybe?environment=uat").want(t, 200, "")
}

func TestWaitHoldsTheRequestOpen(t *testing.T) {
	s := newSite(t, "")
	s.call("POST /maybe?environment=uat&id=12345678")
	s.call("POST /maybe?environment=uat&id=waiting-1&wait=0s").want(t, 403, `"position":1`)
	answers := make(chan httpReply, 1)
	// A wait of more than 5 min is shortened to 5 min.
	go func() { answers <- s.call("POST /maybe?environment=uat&id=waiting-2&wait=1h&ttl=1h") }()
	for s.state() != "12345678 | waiting-1 waiting-2" {
		time.Sleep(time.Millisecond)
	}
	s.call("GET /environments?environment=uat").want(t, 200, `"position":2`)
	s.call("DELETE /maybe?environment=uat&id=waiting-1").want(t, 204, "")
	s.call("DELETE /maybe?environment=uat&id=12345678").want(t, 204, "")
	(<-answers).want(t, 201, `"waited_seconds"`)
}

func TestAWaiterThatDisconnectsLosesItsPosition(t *testing.T) {
	s := newSite(t, "")
	s.call("POST /maybe?environment=uat&id=12345678")
	for _, request := range []string{
		"POST /maybe?environment=uat&wait=1m HTTP/1.1\r\nHost: x\r\nX-API-KEY: " + testKey + "\r\n\r\n",
		"POST /maybe?environment=uat HTTP/1.1\r\nHost: x\r\nX-API-KEY: " + testKey + "\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 7\r\n\r\nwait=1m",
	} {
		c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(c, request)
		for s.state() != "12345678 | " {
			time.Sleep(time.Millisecond)
		}
		c.Close()
		for s.state() != "12345678 |" {
			time.Sleep(time.Millisecond)
		}
	}
}

func TestParametersMayStandInAForm(t *testing.T) {
	s := newSite(t, "")
	form := url.Values{"environment": {"uat"}, "holder": {"a form"}}
	r, _ := http.NewRequest("POST", s.url+"/maybe", strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	s.send(r).want(t, 201, `"holder":"a form"`)

	var body bytes.Buffer
	parts := multipart.NewWriter(&body)
	parts.WriteField("holder", "a form")
	parts.Close()
	r, _ = http.NewRequest("DELETE", s.url+"/maybe?environment=uat", &body)
	r.Header.Set("Content-Type", parts.FormDataContentType())
	s.send(r).want(t, 204, "")
}

func TestInvalidRequestsGetTheirError(t *testing.T) {
	s := newSite(t, "uat:2,staging")
	long := func(n int) string { return strings.Repeat("x", n) }
	for _, c := range []struct {
		line   string
		status int
		says   string
	}{
		{"GET /maybe", 422, "environment is required"},
		{"GET /maybe?environment=", 422, "environment is required"},
		{"GET /maybe?environment=uat&environment=uat", 400, "repeated"},
		{"GET /maybe?environment=%zz", 400, "invalid URL escape"},
		{"GET /maybe?environment=uat;holder=x", 400, "semicolon"},
		{"GET /maybe?environment=%ff", 422, "UTF-8"},
		{"GET /maybe?environment=a%0ab", 422, "control"},
		{"GET /maybe?environment=a%00b", 422, "control"},
		{"GET /maybe?environment=%20uat", 422, "space"},
		{"GET /maybe?environment=uat%20", 422, "space"},
		{"GET /maybe?environment=" + long(129), 422, "128"},
		{"GET /maybe?environment=" + long(9000), 414, "too long"},
		{"GET /maybe?environment=uta", 404, `did you mean \"uat\"`},
		{"POST /maybe?environment=prod", 404, "this server has uat, staging"},
		{"DELETE /maybe?environment=prod", 404, "this server has uat, staging"},
		{"PUT /maybe?environment=prod&id=12345678", 404, "this server has uat, staging"},
		{"GET /environments?environment=prod", 404, "this server has uat, staging"},
		{"GET /environments?environment=uat&x=1", 422, "unknown"},
		{"POST /maybe?environment=uat&hodler=x", 422, `did you mean \"holder\"`},
		{"POST /maybe?environment=uat&id=1234567", 422, "8 to 128"},
		{"POST /maybe?environment=uat&id=" + long(129), 422, "8 to 128"},
		{"POST /maybe?environment=uat&id=1234567%0a", 422, "printable"},
		{"POST /maybe?environment=uat&id=1234567%c3%a4", 422, "printable"},
		{"POST /maybe?environment=uat&holder=" + long(257), 422, "256"},
		{"POST /maybe?environment=uat&url=javascript:alert(1)", 422, "http"},
		{"POST /maybe?environment=uat&url=/x", 422, "http"},
		{"POST /maybe?environment=uat&ttl=1", 422, "duration"},
		{"POST /maybe?environment=uat&ttl=999ms", 422, "from 1s"},
		{"POST /maybe?environment=uat&ttl=721h", 422, "720h"},
		{"POST /maybe?environment=uat&ttl=-1h", 422, "duration"},
		{"POST /maybe?environment=uat&wait=-1s", 422, "duration"},
		{"POST /maybe?environment=uat&wait=soon", 422, "duration"},
		{"POST /maybe?environment=uat&claim=soon", 422, "claim"},
		{"PUT /maybe?environment=uat", 422, "id or holder"},
		{"DELETE /maybe?environment=uat&slot=uat-1", 422, "id, holder or force"},
		{"DELETE /maybe?environment=uat&force=maybe", 422, "force"},
		{"DELETE /maybe?environment=uat&force=1&id=12345678", 422, "exclude"},
		{"DELETE /maybe?environment=uat&holder=x&fence=first", 422, "fence"},
		{"DELETE /maybe?environment=uat&force=1&fence=1", 409, "no slot"},
		{"GET /nowhere", 404, "not found"},
		{"POST /", 405, "not allowed"},
		{"PATCH /maybe?environment=uat", 405, "not allowed"},
		{"POST /environments", 405, "not allowed"},
	} {
		r := s.call(c.line).want(t, c.status, c.says)
		var body errorJSON
		if json.Unmarshal([]byte(r.body), &body) != nil || body.Code != c.status || body.Message == "" || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%.60s: the body is %q", c.line, r.body)
		}
	}
	if allow := s.call("PATCH /maybe").Header.Get("Allow"); allow != "DELETE, GET, HEAD, POST, PUT" {
		t.Errorf("Allow: %s", allow)
	}
	if got := s.state(); got != "|" {
		t.Errorf("something took effect: %s", got)
	}
}

func TestBoundariesThatAreAllowed(t *testing.T) {
	s := newSite(t, "")
	for i, q := range []string{
		"environment=" + strings.Repeat("x", 128),
		"environment=team/perf%202&holder=" + strings.Repeat("h", 256) + "&reason=" + strings.Repeat("r", 1024),
		"environment=..&id=" + strings.Repeat("i", 128) + "&ttl=720h",
		"environment=%c3%bcat&id=12345678&ttl=1s",
		"environment=%F0%9F%90%B3&url=http://x/" + strings.Repeat("u", 2000),
		"environment=plus&holder=a%0ab%1b[31m",
	} {
		if r := s.call("POST /maybe?" + q); r.StatusCode != 201 {
			t.Errorf("%d: %d %s", i, r.StatusCode, r.body)
		}
	}
}

func TestABodyHasItsLimit(t *testing.T) {
	s := newSite(t, "")
	for _, c := range []struct {
		size, status int
	}{{maxBody - 100, 201}, {maxBody + 1, 413}, {10 << 20, 413}} {
		r, _ := http.NewRequest("POST", s.url+"/maybe?environment=uat"+fmt.Sprint(c.size), strings.NewReader(strings.Repeat("x", c.size)))
		r.Header.Set("Content-Type", "text/plain")
		s.send(r).want(t, c.status, "")
	}
	big, _ := http.NewRequest("GET", s.url+"/maybe?environment=uat", nil)
	big.Header.Set("X-Filler", strings.Repeat("x", 2<<20))
	big.Header.Set("X-API-KEY", testKey)
	if response, err := http.DefaultTransport.RoundTrip(big); err == nil && response.StatusCode != 431 {
		t.Errorf("a header of 2 MB: %d", response.StatusCode)
	}
}

func TestAFormOfAnotherSiteIsRefused(t *testing.T) {
	s := newSite(t, "")
	for _, header := range []http.Header{{"Sec-Fetch-Site": {"cross-site"}}, {"Origin": {"https://evil.example"}}} {
		r, _ := http.NewRequest("POST", s.url+"/maybe?environment=uat", nil)
		r.Header = header
		s.send(r).want(t, 400, "another site")
	}
	if got := s.state(); got != "|" {
		t.Errorf("something took effect: %s", got)
	}
}

// A call that costs the server much, or shows much, is rejected from a page of another site,
// and accepted from the server's own pages and from programs.
func TestAnImageOfAnotherSiteIsRefused(t *testing.T) {
	s := newSite(t, "")
	for _, path := range []string{"/backup", "/events", "/metrics", "/history"} {
		for site, want := range map[string]int{"cross-site": 400, "same-origin": 200, "none": 200, "": 200} {
			r, _ := http.NewRequest("HEAD", s.url+path, nil)
			if site != "" {
				r.Header.Set("Sec-Fetch-Site", site)
			}
			r.Header.Set("X-API-KEY", testKey)
			response, err := http.DefaultTransport.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			response.Body.Close()
			if response.StatusCode != want {
				t.Errorf("%s from %q: %d, want %d", path, site, response.StatusCode, want)
			}
		}
	}
}

func TestTheStateOfAllEnvironments(t *testing.T) {
	s := newSite(t, "uat:blue+green,staging")
	s.call("POST /maybe?environment=uat&id=12345678&holder=h&ttl=1h")
	s.call("POST /maybe?environment=staging&id=12345678")
	s.call("POST /maybe?environment=staging&id=waiting-1&holder=w&reason=r&wait=0s")
	var all environmentsJSON
	if err := json.Unmarshal([]byte(s.call("GET /environments").body), &all); err != nil {
		t.Fatal(err)
	}
	if len(all.Environments) != 2 || all.Environments[0].Environment != "staging" || all.Environments[1].Free != 1 {
		t.Fatalf("%+v", all)
	}
	uat, line := all.Environments[1].Slots, all.Environments[0].Queue
	if len(uat) != 2 || uat[0].Slot != "blue" || uat[0].Lease == nil || uat[1].Lease != nil {
		t.Errorf("slots %+v", uat)
	}
	if len(line) != 1 || line[0].Position != 1 || line[0].Holder != "w" || line[0].Reason != "r" || line[0].Connected {
		t.Errorf("queue %+v", line)
	}
}

func TestABrokenServerSaysSoAndAPanicIsABug(t *testing.T) {
	s := newSite(t, "")
	s.isHealthy.Store(false)
	if r := s.call("GET /healthz").want(t, 503, `"code":503`); r.Header.Get("Retry-After") == "" {
		t.Error("503 without Retry-After")
	}
	s.isHealthy.Store(true)
	broken := (&server{metrics: newMetrics(), log: slog.New(slog.NewTextHandler(t.Output(), nil))}).handle("/", func(http.ResponseWriter, *http.Request) error { panic("secret") })
	w := httptest.NewRecorder()
	broken.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	if w.Code != 500 || strings.TrimSpace(w.Body.String()) != `{"code":500,"message":"internal error"}` {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
