package main

import (
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
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
			if wait, err := strconv.Atoi(r.Header.Get("Retry-After")); err != nil || wait < 1 || wait > 60 || r.body != `{"code":429,"message":"too many wrong keys"}`+"\n" {
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

func TestTheLimitOfWrongKeysIsEachAddresssOwnAndComesBack(t *testing.T) {
	var th throttle
	now := time.Now()
	refused := func(address string) bool {
		wait, _ := th.wait(netip.MustParseAddr(address), now)
		return wait > 0
	}
	exhaust := func(address string) {
		for range wrongKeys {
			refused(address)
		}
	}
	exhaust("10.0.0.1")
	if !refused("10.0.0.1") || refused("10.0.0.2") {
		t.Error("10.0.0.1 sent too many, 10.0.0.2 did not")
	}
	exhaust("2001:db8:0:1::1")
	if !refused("2001:db8:0:1:ffff::2") || refused("2001:db8:0:2::1") {
		t.Error("who has one address of a /64 has all of them")
	}
	if now = now.Add(time.Second); refused("10.0.0.1") || !refused("10.0.0.1") {
		t.Error("one more a second")
	}
	if _, first := th.wait(netip.MustParseAddr("10.0.0.1"), now); first {
		t.Error("it is told twice")
	}
}

func TestTheMemoryOfWrongKeysIsBounded(t *testing.T) {
	var th throttle
	now := time.Now()
	for i := range 10 * mostThrottle {
		th.wait(netip.AddrFrom4([4]byte{1, byte(i >> 16), byte(i >> 8), byte(i)}), now)
	}
	if len(th.limits) > mostThrottle {
		t.Errorf("%d addresses are remembered", len(th.limits))
	}
	if wait, _ := th.wait(netip.MustParseAddr("9.9.9.9"), now); wait == 0 {
		t.Error("those who are too many share one limit, which is used up")
	}
	now = now.Add(time.Minute)
	if wait, _ := th.wait(netip.MustParseAddr("9.9.9.9"), now); wait != 0 || len(th.limits) != 1 {
		t.Errorf("after a minute of rest %d are remembered", len(th.limits))
	}
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
	for key, warned := range map[string]bool{"fifteen-letters": true, "sixteen-letters-": false} {
		d := newDaemon(t, "API_KEY="+key)
		eventually(t, "it serves", func() bool { return strings.Contains(d.log.String(), "msg=serving") })
		if got := strings.Contains(d.log.String(), "a key is short enough to be guessed"); got != warned {
			t.Errorf("%q: warned is %v", key, got)
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
