package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// with sends one call with the given headers only, and returns its response. It adds no key.
func (s *site) with(header http.Header, line string) httpReply {
	s.t.Helper()
	method, path, _ := strings.Cut(line, " ")
	r, _ := http.NewRequest(method, s.url+path, nil)
	r.Header = header
	response, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	described(s.t, r, response, string(body))
	return httpReply{response, string(body)}
}

func TestWrongKeysAreLimitedAndRightOnesAreNot(t *testing.T) {
	s := newSite(t, "")
	counts := map[int]int{}
	for i := range 2 * wrongKeyBurst {
		r := s.with(http.Header{"X-Api-Key": {fmt.Sprint("wrong-", i)}}, "GET /environments")
		if counts[r.StatusCode]++; r.StatusCode == 429 {
			if r.Header.Get("Retry-After") != "1" || r.body != `{"code":429,"message":"too many wrong keys"}`+"\n" {
				t.Fatalf("Retry-After %q, %s", r.Header.Get("Retry-After"), r.body)
			}
		}
		s.call("GET /environments").want(t, 200, "") // the right key, from the same address
	}
	if counts[401] < wrongKeyBurst || counts[429] == 0 || counts[401]+counts[429] != 2*wrongKeyBurst {
		t.Errorf("answers: %v", counts)
	}
	if r := s.with(http.Header{}, "GET /"); r.StatusCode != 401 {
		t.Errorf("a browser that has yet to ask for the key gets %d", r.StatusCode)
	}
}

// A 401 has the header WWW-Authenticate, for which a browser shows a login dialog, unless the
// page's script has made the call: the script itself shows that the key is not accepted.
func TestOnlyPeopleAreAskedForALogin(t *testing.T) {
	s := newSite(t, "")
	for _, c := range []struct {
		header http.Header
		asked  bool
	}{
		{http.Header{"X-Api-Key": {"wrong"}}, true},
		{http.Header{}, true},
		{http.Header{"X-Requested-With": {"XMLHttpRequest"}}, true},
		{http.Header{"Accept": {"text/html,*/*"}}, true},
		{http.Header{"X-Requested-With": {"call-me"}}, false},
		{http.Header{"X-Requested-With": {"call-me"}, "X-Api-Key": {"wrong"}}, false},
	} {
		for _, line := range []string{"GET /", "GET /events", "POST /maybe?environment=uat", "DELETE /maybe?environment=uat"} {
			r := s.with(c.header.Clone(), line).want(t, 401, `"code":401`)
			if asked := r.Header.Get("WWW-Authenticate") != ""; asked != c.asked {
				t.Errorf("%s with %v: asked for a login is %v", line, c.header, asked)
			}
		}
	}
	// An EventSource of a browser cannot send a header such as X-Requested-With.
	stream := http.Header{"Accept": {"text/event-stream"}, "X-Api-Key": {"wrong"}}
	if r := s.with(stream, "GET /events").want(t, 401, ""); r.Header.Get("WWW-Authenticate") != "" {
		t.Error("an event stream asks for a login")
	}
}

// A client also reads its key again after a 429, which a removed key gets when others have
// sent many wrong keys.
func TestAClientReadsItsKeyAgainWhenTooManyWereWrong(t *testing.T) {
	s := newSite(t, "")
	file := filepath.Join(t.TempDir(), "key")
	write := func(key string) {
		if err := os.WriteFile(file, []byte(key), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("the-old-key-of-this-test")
	c, err := newClient(clientConfig{Host: serverURLs{s.url}, KeyConfig: KeyConfig{APIKeyFile: file}})
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for range 2 * wrongKeyBurst {
		if s.with(http.Header{"X-Api-Key": {"wrong"}}, "GET /environments").StatusCode == 429 {
			refused++
		}
	}
	look := func() error {
		p := &retrier{started: time.Now()}
		return c.try(t.Context(), p, callTime, "GET", "/environments", url.Values{}, &environmentsJSON{})
	}
	if err := look(); !errors.Is(err, errTooMany) || refused == 0 {
		t.Errorf("with the old key: %v", err)
	}
	write(testKey)
	if err := look(); err != nil {
		t.Errorf("the key was not read again: %v", err)
	}
}

func TestTheLimitOfWrongKeysComesBackAndIsLoggedOnce(t *testing.T) {
	var l wrongKeyLimit
	now := time.Now()
	burst := func() {
		t.Helper()
		for range wrongKeyBurst {
			if allowed, _ := l.allow(now); !allowed {
				t.Error("fewer than 50 are allowed at once")
			}
		}
		if allowed, first := l.allow(now); allowed || !first {
			t.Errorf("the 51st: allowed is %v, first %v", allowed, first)
		}
	}
	burst()
	for range 3 {
		now = now.Add(time.Second)
		if allowed, _ := l.allow(now); !allowed {
			t.Error("none is allowed after a second")
		}
		if allowed, first := l.allow(now); allowed || first {
			t.Errorf("a second one: allowed is %v, first %v", allowed, first)
		}
	}
	now = now.Add(wrongKeyBurst * time.Second)
	burst()
}

func TestWhereACallComesFrom(t *testing.T) {
	for _, c := range []struct {
		trusted, remote string
		forwarded       []string
		want            string
	}{
		{"", "10.0.0.1:5", []string{"1.1.1.1"}, "10.0.0.1"},
		{"", "[::ffff:10.0.0.1]:5", nil, "10.0.0.1"},
		{"10.0.0.2", "10.0.0.1:5", []string{"1.1.1.1"}, "10.0.0.1"},
		{"10.0.0.1", "10.0.0.1:5", []string{"1.1.1.1"}, "1.1.1.1"},
		{"10.0.0.1", "10.0.0.1:5", []string{"6.6.6.6, 1.1.1.1"}, "1.1.1.1"},
		{"10.0.0.1", "10.0.0.1:5", []string{"6.6.6.6", "1.1.1.1:99"}, "1.1.1.1"},
		{"10.0.0.0/8,192.168.0.1", "10.0.0.1:5", []string{"6.6.6.6, 1.1.1.1, 192.168.0.1,10.1.1.1"}, "1.1.1.1"},
		{"10.0.0.0/8", "10.0.0.1:5", []string{"10.0.0.2"}, "10.0.0.2"},
		{"10.0.0.0/8", "10.0.0.1:5", []string{"nonsense"}, "10.0.0.1"},
		{"10.0.0.0/8", "10.0.0.1:5", nil, "10.0.0.1"},
		{"::1", "[::1]:5", []string{"[2001:db8::1]:99"}, "2001:db8::1"},
		{"10.0.0.1", "@", []string{"1.1.1.1"}, "invalid IP"},
		{"10.0.0.1", "10.0.0.1:5", []string{"[fe80::1%" + strings.Repeat("z", 14_000) + "]:80"}, "fe80::1"},
		{"10.0.0.1", "10.0.0.1:5", []string{"fe80::1%zone"}, "fe80::1"},
		{"fe80::1", "[fe80::1%eth0]:5", []string{"1.1.1.1"}, "1.1.1.1"},
	} {
		var p proxies
		if c.trusted != "" {
			if err := p.Decode(c.trusted); err != nil {
				t.Fatal(err)
			}
		}
		r := &http.Request{RemoteAddr: c.remote, Header: http.Header{"X-Forwarded-For": c.forwarded}}
		if got := callerAddress(r, p).String(); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
	for _, text := range []string{"proxy", "10.0.0.1,", "10.0.0.0/33", "10.0.0.1:80"} {
		if err := new(proxies).Decode(text); err == nil {
			t.Errorf("%q is a list of proxies", text)
		}
	}
}
