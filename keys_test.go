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
	"syscall"
	"testing"
	"time"
)

// with sends one call with these headers and no key of its own.
func (s *site) with(header http.Header, line string) reply {
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
	return reply{response, string(body)}
}

func TestWrongKeysAreLimitedAndRightOnesAreNot(t *testing.T) {
	s := newSite(t, "")
	counts := map[int]int{}
	for i := range 2 * wrongKeys {
		r := s.with(http.Header{"X-Api-Key": {fmt.Sprint("wrong-", i)}}, "GET /environments")
		if counts[r.StatusCode]++; r.StatusCode == 429 {
			if r.Header.Get("Retry-After") != "1" || r.body != `{"code":429,"message":"too many wrong keys"}`+"\n" {
				t.Fatalf("Retry-After %q, %s", r.Header.Get("Retry-After"), r.body)
			}
		}
		s.call("GET /environments").want(t, 200, "") // from the same address
	}
	if counts[401] < wrongKeys || counts[429] == 0 || counts[401]+counts[429] != 2*wrongKeys {
		t.Errorf("answers: %v", counts)
	}
	if r := s.with(http.Header{}, "GET /"); r.StatusCode != 401 {
		t.Errorf("a browser that has yet to ask for the key gets %d", r.StatusCode)
	}
}

// A browser asks for a login when it sees WWW-Authenticate. The page's script
// shows by itself that the key is not accepted.
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
	stream := http.Header{"Accept": {"text/event-stream"}, "X-Api-Key": {"wrong"}} // which cannot have a header of its own
	if r := s.with(stream, "GET /events").want(t, 401, ""); r.Header.Get("WWW-Authenticate") != "" {
		t.Error("an event stream asks for a login")
	}
}

// After many wrong keys of others a removed key is answered with 429, and that
// too makes a client read its key again.
func TestAClientReadsItsKeyAgainWhenTooManyWereWrong(t *testing.T) {
	s := newSite(t, "")
	file := filepath.Join(t.TempDir(), "key")
	write := func(key string) {
		if err := os.WriteFile(file, []byte(key), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("the-old-key-of-this-test")
	c, err := newClient(clientConfig{Host: host(s.url), KeyConfig: KeyConfig{APIKeyFile: file}})
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for range 2 * wrongKeys {
		if s.with(http.Header{"X-Api-Key": {"wrong"}}, "GET /environments").StatusCode == 429 {
			refused++
		}
	}
	look := func() error {
		p := &patience{started: time.Now()}
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
		for range wrongKeys {
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
	now = now.Add(wrongKeys * time.Second)
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
	} {
		var p proxies
		if c.trusted != "" {
			if err := p.Decode(c.trusted); err != nil {
				t.Fatal(err)
			}
		}
		r := &http.Request{RemoteAddr: c.remote, Header: http.Header{"X-Forwarded-For": c.forwarded}}
		if got := p.address(r).String(); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
	for _, text := range []string{"proxy", "10.0.0.1,", "10.0.0.0/33", "10.0.0.1:80"} {
		if err := new(proxies).Decode(text); err == nil {
			t.Errorf("%q is a list of proxies", text)
		}
	}
}

func TestKeysAreExchangedWhileTheServerServes(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "keys")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("the-old-key-of-this-test\nthe-other-key-of-this-test\n")
	d := newDaemon(t, "API_KEY=", "API_KEY_FILE="+file)
	d.key = "the-other-key-of-this-test"
	d.call("POST", "/maybe?environment=uat&id=12345678&holder=first")
	client, out := d.client("client", "request", "uat") // with the old key, the first in its file
	if err := client.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan string, 3)
	waits := func(key, path string) {
		r, _ := http.NewRequest(map[bool]string{true: "GET", false: "POST"}[path == "/events"], d.base+path, nil)
		r.Header.Set("X-API-KEY", key)
		response, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			ended <- err.Error()
			return
		}
		body, _ := io.ReadAll(response.Body)
		ended <- fmt.Sprint(key[:9], " ", response.StatusCode, " ", strings.Contains(string(body), `"code":401`))
	}
	go waits("the-old-key-of-this-test", "/maybe?environment=uat&id=waiting-1&wait=1m")
	go waits("the-old-key-of-this-test", "/events")
	go waits("the-other-key-of-this-test", "/maybe?environment=uat&id=waiting-2&wait=1m")
	eventually(t, "all three are in line", func() bool {
		_, body := d.call("GET", "/environments?environment=uat")
		return strings.Count(body, `"connected":true`) == 3
	})
	write("the-new-key-of-this-test\nthe-other-key-of-this-test\n")
	d.cmd.Process.Signal(syscall.SIGHUP)
	eventually(t, "the keys are read again", func() bool { return strings.Contains(d.log.String(), "keys were read again") })
	exchanged := time.Now()
	got := map[string]bool{}
	for range 2 {
		select {
		case told := <-ended:
			got[told] = true
		case <-time.After(20 * time.Second):
		}
	}
	if !got["the-old-k 401 true"] || !got["the-old-k 200 false"] {
		t.Errorf("those who waited with the removed key were told %v", got)
	}
	if took := time.Since(exchanged); took > time.Second {
		t.Errorf("after %v", took)
	}
	for key, want := range map[string]int{"the-old-key-of-this-test": 401, "the-new-key-of-this-test": 200, "the-other-key-of-this-test": 200} {
		d.key = key
		if code, _ := d.call("GET", "/environments"); code != want {
			t.Errorf("%s: %d, want %d", key, code, want)
		}
	}
	d.key = "the-other-key-of-this-test"
	for _, id := range []string{"waiting-1", "waiting-2", "12345678"} {
		if code, body := d.call("DELETE", "/maybe?environment=uat&id="+id); code != 204 {
			t.Fatalf("release of %s: %d %s", id, code, body)
		}
	}
	if err := client.Wait(); err != nil { // it has read its file again
		t.Errorf("%v\n%s", err, out)
	}
	write("")
	d.cmd.Process.Signal(syscall.SIGHUP)
	eventually(t, "the empty file is refused", func() bool { return strings.Contains(d.log.String(), "the keys stay as they were") })
	if code, _ := d.call("GET", "/environments"); code != 200 {
		t.Errorf("an empty key file locked everyone out: %d", code)
	}
	if strings.Contains(d.log.String(), "key-of-this-test") {
		t.Error("a key is in the log")
	}
}

func TestAShortKeyIsWarnedOf(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys")
	for keys, warnings := range map[string]int{"fifteen-letters\nshort\n": 1, "sixteen-letters-\n": 0} {
		if err := os.WriteFile(file, []byte(keys), 0o600); err != nil {
			t.Fatal(err)
		}
		d := newDaemon(t, "API_KEY=", "API_KEY_FILE="+file)
		warned := func() int {
			text := d.log.String()
			n := strings.Count(text, "a key is short enough to be guessed")
			if n != strings.Count(text, "openssl rand -hex 16") {
				t.Errorf("it does not say what helps: %s", text)
			}
			return n
		}
		eventually(t, "it serves", func() bool { return strings.Contains(d.log.String(), "msg=serving") })
		if got := warned(); got != warnings {
			t.Errorf("%q: %d warnings", keys, got)
		}
		d.cmd.Process.Signal(syscall.SIGHUP)
		eventually(t, "the keys are read again", func() bool { return strings.Contains(d.log.String(), "keys were read again") })
		if got := warned(); got != 2*warnings {
			t.Errorf("%q: %d warnings after SIGHUP", keys, got)
		}
	}
}

func TestXForwardedForCountsOnlyFromATrustedProxy(t *testing.T) {
	for trusted, want := range map[string]string{"": `"from":"127.0.0.1"`, "127.0.0.1": `"from":"1.1.1.1"`} {
		d := newDaemon(t, "CALL_ME_TRUSTED_PROXIES="+trusted)
		d.call("POST", "/maybe?environment=uat&id=12345678")
		r, _ := http.NewRequest("DELETE", d.base+"/maybe?environment=uat&force=1", nil)
		r.Header = http.Header{"X-Api-Key": {testKey}, "X-Forwarded-For": {"6.6.6.6, 1.1.1.1"}}
		if response, err := http.DefaultTransport.RoundTrip(r); err != nil || response.StatusCode != 204 {
			t.Fatal(response, err)
		}
		if _, body := d.call("GET", "/history"); !strings.Contains(body, want) {
			t.Errorf("with %q: %s, want %s", trusted, body, want)
		}
	}
}
