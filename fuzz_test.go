package main

import (
	"bufio"
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

// The targets of go test -fuzz: one for each parser, and FuzzHandler for all handlers. In CI
// each runs for a short time. go test -fuzz FuzzHandler runs one until it is stopped.

func FuzzEnvironmentName(f *testing.F) {
	for _, name := range []string{"uat", "team/perf 2", " uat", "a\x00", "\u202euat", "\xff", strings.Repeat("x", 129)} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if checkEnvironment(name) != nil {
			return
		}
		if name == "" || len(name) > maxEnvironment || !utf8.ValidString(name) || strings.TrimSpace(name) != name || strings.ContainsFunc(name, unicode.IsControl) {
			t.Errorf("%q is a name", name)
		}
		// The name is unchanged after a query and after a record.
		q, err := parseQuery(url.Values{"environment": {name}}.Encode())
		if err != nil || q.check(nil) != nil || q.get("environment") != name {
			t.Errorf("%q came over the wire as %q, %v", name, q.get("environment"), err)
		}
		w := encodeLease(name, &lease{slot: name, fence: 1, since: time.Unix(0, 1)})
		if read, l, err := decodeLease(w.key, w.value); err != nil || read != name || l.slot != name {
			t.Errorf("%q is stored as %q, %v", name, read, err)
		}
	})
}

func FuzzQuery(f *testing.F) {
	for _, text := range []string{"environment=uat", "environment=uat&id=12345678&ttl=2h&wait=25s&claim=30s", "a=%zz", "a;b", "a=1&a=2", "=&=", "url=http://x&reason=%0a", "fence=1&force=1&slot=x"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		q, err := parseQuery(text)
		whole, errWhole := url.ParseQuery(text)
		if (err == nil) != (errWhole == nil) {
			t.Fatalf("%q: %v; net/url says %v", text, err, errWhole)
		}
		if err != nil || q.check(nil) != nil {
			return
		}
		if len(q) != len(whole) {
			t.Errorf("%q: %d parameters, net/url finds %d", text, len(q), len(whole))
		}
		for name, values := range whole {
			if value, found := q.find(name); !found || len(values) != 1 || value != values[0] {
				t.Errorf("%q: %q is %q; net/url says %q", text, name, value, values)
			}
		}
		if a, err := q.request("", 0); err == nil {
			if a.id != "" && (len(a.id) < minID || len(a.id) > maxID) || len(a.holder) > maxHolder || len(a.reason) > maxReason || len(a.url) > maxLink {
				t.Errorf("%q is within the limits: %+v", text, a)
			}
			if a.url != "" && !strings.HasPrefix(strings.ToLower(a.url), "http") {
				t.Errorf("%q is a link", a.url)
			}
		}
		q.selector("")
		q.flag("force")
		q.eventFilter(time.Now())
	})
}

func FuzzDuration(f *testing.F) {
	for _, text := range []string{"", "0", "1s", "720h", "-1s", "1e9h", "9223372036854775807ns", "7d", "36500d", "-7d", "1.5h"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		q := query{{"ttl", text}, {"wait", text}}
		if d, found, err := q.ttl("ttl"); err == nil && found && d != 0 && (d < minTTL || d > maxTTL) {
			t.Errorf("%q is a ttl of %v", text, d)
		} else if err == nil && found && d == 0 && strings.ContainsAny(text, "-123456789") {
			t.Errorf("%q lasts for ever", text)
		}
		if d, _, err := q.wait(); err == nil && (d < 0 || d > maxWait) {
			t.Errorf("%q is a wait of %v", text, d)
		}
		if d, err := parseDuration(text); err == nil && d < 0 {
			t.Errorf("%q is an age of %v", text, d)
		}
		var own leaseTTL
		if err := own.Decode(text); err == nil && own != 0 && (time.Duration(own) < minTTL || time.Duration(own) > maxTTL) {
			t.Errorf("%q is configured as %v", text, own)
		}
	})
}

func FuzzEnvironments(f *testing.F) {
	for _, text := range []string{"uat", "uat:blue+green,perf:2,staging", "a:1000", "a:+", ",", "a:b:c", "a: b", "ä:ö+ü"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var e declaredEnvironments
		if e.Decode(text) != nil {
			return
		}
		if len(e.names) == 0 || len(e.names) != len(e.slots) {
			t.Errorf("%q: %d names, %d of them with slots", text, len(e.names), len(e.slots))
		}
		for name, slots := range e.slots {
			seen := map[string]bool{}
			for _, slot := range slots {
				if slot == "" || seen[slot] {
					t.Errorf("%q: %q has the slots %q", text, name, slots)
				}
				seen[slot] = true
			}
			if len(slots) == 0 || len(slots) > maxSlots || checkEnvironment(name) != nil {
				t.Errorf("%q: %q has %d slots", text, name, len(slots))
			}
		}
	})
}

func FuzzHost(f *testing.F) {
	for _, text := range []string{"call-me.example", "call-me.example:80", "https://call-me.example/base/", "[::1]:9000", "user:p@x", "x86_64-conda-linux-gnu", "http://", "a..b", "http://[::1%25eth0]", "::1", "a,b:1, https://c"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var h serverURLs
		if h.Decode(text) != nil {
			return
		}
		for _, base := range h {
			u, err := url.Parse(base)
			if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.Path != "" {
				t.Errorf("%q is the server %q", text, base)
			}
			if _, err := http.NewRequest("GET", base+"/maybe", nil); err != nil {
				t.Errorf("%q: %v", text, err)
			}
		}
		var again serverURLs
		if err := again.Decode(strings.Join(h, ",")); err != nil || !slices.Equal(again, h) {
			t.Errorf("%q is %q, and that is %q, %v", text, h, again, err)
		}
	})
}

func FuzzForwardedFor(f *testing.F) {
	f.Add("10.0.0.0/8", "1.1.1.1, 10.0.0.2")
	f.Add("::/0", "[::1]:80,,x")
	f.Fuzz(func(t *testing.T, trusted, forwarded string) {
		var p proxies
		if p.Decode(trusted) != nil {
			return
		}
		for _, remote := range []string{"10.0.0.1:5", "[fe80::1%eth0]:5", ""} {
			callerAddress(&http.Request{RemoteAddr: remote, Header: http.Header{"X-Forwarded-For": {forwarded}}}, p)
		}
	})
}

// A stored record is read as it was written, and a changed record is refused.
func FuzzStoredRecords(f *testing.F) {
	for _, w := range []write{
		encodeLease("uat", &lease{slot: "uat", request: request{id: "12345678", holder: "h", ttl: time.Hour}, fence: 7, since: time.Unix(1, 0)}),
		encodeWaiter("uat", &waiter{request: request{id: "12345678"}, number: 7, since: time.Unix(1, 0)}),
		encodeEvent(&event{number: 7, kind: eventGranted, at: time.Unix(1, 0), environment: "uat"}),
	} {
		f.Add(w.key, w.value[checksumSize:])
	}
	f.Fuzz(func(t *testing.T, key, fields []byte) {
		sealed := func(bucket string) []byte {
			return encode(bucket, key, func(c *codec) { c.bytes = append(c.bytes, fields...) })
		}
		if name, l, err := decodeLease(key, sealed(leaseBucket)); err == nil {
			w := encodeLease(name, l)
			if name2, l2, err := decodeLease(w.key, w.value); err != nil || name2 != name || !l2.request.equal(l.request) || l2.fence != l.fence || !l2.since.Equal(l.since) {
				t.Errorf("%q %+v became %q %+v, %v", name, l, name2, l2, err)
			}
		}
		if name, p, err := decodeWaiter(key, sealed(queueBucket)); err == nil {
			w := encodeWaiter(name, p)
			if name2, p2, err := decodeWaiter(w.key, w.value); err != nil || name2 != name || !p2.request.equal(p.request) || p2.number != p.number {
				t.Errorf("%q %+v became %q %+v, %v", name, p, name2, p2, err)
			}
		}
		if e, err := decodeEvent(key, sealed(historyBucket)); err == nil {
			w := encodeEvent(e)
			if e2, err := decodeEvent(w.key, w.value); err != nil || e2.number != e.number || e2.environment != e.environment || e2.held != e.held {
				t.Errorf("%+v became %+v, %v", e, e2, err)
			}
		}
		damaged := sealed(leaseBucket)
		damaged[len(damaged)-1] ^= 1
		if _, _, err := decodeLease(key, damaged); err == nil {
			t.Errorf("%q is read though it was changed", damaged)
		}
	})
}

// FuzzHandler sends requests to the handlers. A response never has the status 500 or the key,
// and its body is in the form of the API.
func FuzzHandler(f *testing.F) {
	for _, c := range hostileTable {
		if len(c.send) < 2000 {
			f.Add(expandHostile.Replace(c.send))
		}
	}
	for _, line := range []string{"PUT /maybe?environment=uat&id=12345678&ttl=1h", "DELETE /maybe?environment=uat&holder=h&slot=uat", "POST /maybe?environment=uat&id=abcdefgh&wait=0s",
		"GET /history?environment=uat&since=7d&limit=1&before=9", "GET /?since=7d", "GET /metrics", "GET /environments?environment=uat"} {
		f.Add(line + " HTTP/1.1\r\nHost: x\r\nX-API-KEY: " + testKey + "\r\n\r\n")
	}
	store, err := openStore(filepath.Join(f.TempDir(), "call-me.db"))
	if err != nil {
		f.Fatal(err)
	}
	m := newMetrics()
	var known declaredEnvironments
	k, err := newKeeper(store, known.slotsOf, testLimits, keeperLog{m, quietLog()})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { k.close(); store.close() })
	s := &server{keeper: k, metrics: m, log: quietLog()}
	s.keys.set([]acceptedKey{plainKey(testKey)})
	handler := s.routes()
	f.Fuzz(func(t *testing.T, text string) {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(text)))
		if err != nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond) // the longest wait
		defer cancel()
		w := httptest.NewRecorder()
		r.RemoteAddr = "127.0.0.1:1"
		handler.ServeHTTP(w, r.WithContext(ctx))
		answer := w.Result()
		if answer.StatusCode == http.StatusInternalServerError {
			t.Errorf("%q has the status 500: %s", text, w.Body)
		}
		tellsInJSON(t, answer, w.Body.String())
		if strings.Contains(w.Body.String(), testKey) {
			t.Errorf("%q is answered with the key", text)
		}
	})
}
