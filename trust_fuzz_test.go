package main

// Random input for the parsers and the handlers: parameters, bodies, headers and stored bytes
// that are nearly valid. Nothing may panic, what is accepted must be within the limits, and
// no response may have the status 500. The targets of go test -fuzz are in fuzz_test.go.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// parse parses a query as the handlers do. The error is what was accepted and must not be.
func parse(encoded string) error {
	q, err := parseQuery(encoded)
	if err != nil {
		return nil
	}
	if q.check(nil) != nil {
		return nil
	}
	names, errName := q.environments()
	for _, name := range names {
		if errName == nil && (len(name) > 128 || !utf8.ValidString(name) || strings.ContainsAny(name, "\x00\n\r\x1b\u0085") || name != strings.TrimSpace(name)) {
			return fmt.Errorf("the environment %q was accepted", name)
		}
	}
	asked, err := q.request("somebody", 0)
	if id := asked.id; err == nil && id != "" && (len(id) < 8 || len(id) > 128) {
		return fmt.Errorf("the id %q was accepted", id)
	}
	if err == nil && (asked.ttl != 0 && asked.ttl < time.Second || asked.ttl > 720*time.Hour || len(asked.holder) > 256 || len(asked.reason) > 1024) {
		return fmt.Errorf("%+v was accepted", asked)
	}
	if link := strings.ToLower(asked.url); err == nil && link != "" && !strings.HasPrefix(link, "http://") && !strings.HasPrefix(link, "https://") {
		return fmt.Errorf("the link %q was accepted", asked.url)
	}
	if s, err := q.selector(""); err == nil && s.id == "" && q.get("id") != "" {
		return errors.New("an id was lost")
	}
	if wait, _, err := q.wait(); err == nil && (wait < 0 || wait > 5*time.Minute) {
		return fmt.Errorf("a wait of %v was accepted", wait)
	}
	if claim, _, err := q.ttl("claim"); err == nil && (claim < 0 || claim > 720*time.Hour) {
		return fmt.Errorf("a claim of %v was accepted", claim)
	}
	q.flag("force")
	for _, name := range names {
		nearest(name, []string{"uat", "perf"})
	}
	return nil
}

// decodeAny decodes stored bytes as each kind of record. The error is not nil if a record that
// was decoded is encoded as other bytes.
func decodeAny(key, value []byte) error {
	name, l, err := decodeLease(key, value)
	if err == nil && !bytes.Equal(encodeLease(name, l).value, value) {
		return fmt.Errorf("the lease %q %x was read as %+v", key, value, l)
	}
	if err != nil && !errors.Is(err, errDamaged) {
		return err
	}
	name, p, err := decodeWaiter(key, value)
	if err == nil && !bytes.Equal(encodeWaiter(name, p).value, value) {
		return fmt.Errorf("the place %q %x was read as %+v", key, value, p)
	}
	e, err := decodeEvent(key, value)
	if err == nil && !bytes.Equal(encodeEvent(e).value, value) {
		return fmt.Errorf("the event %q %x was read as %+v", key, value, e)
	}
	return nil
}

// A monkey makes random input that is nearly valid.
type monkey struct{ *rand.Rand }

func (m monkey) of(s ...string) string { return s[m.IntN(len(s))] }

func (m monkey) bytes(most int) string {
	b := make([]byte, m.IntN(most+1))
	for i := range b {
		b[i] = byte(m.Uint32())
	}
	return string(b)
}

func (m monkey) value() string {
	switch m.IntN(12) {
	case 0:
		return m.bytes(20)
	case 1:
		return strings.Repeat(m.of("a", "ä", "\u202e", " ", "\x00", "%", "0"), 1+m.IntN(300))
	case 2:
		return m.of("", " ", "0", "-1", "1", "18446744073709551615", "18446744073709551616", "1e3", "true", "NaN", "null")
	case 3:
		return m.of("1s", "1h", "-1h", "0s", "999999h", "1ns", "2562047h47m16.854775807s", "1", "1x", "1h1h")
	case 4:
		return m.of("https://ci/1", "http://", "javascript:alert(1)", "HTTPS://X", "//x", "http://[::1", "https://x/\n")
	case 5:
		return m.of("12345678", "id-of-a-request", "id-of-another", "1234567", strings.Repeat("i", 128), strings.Repeat("i", 129))
	case 6:
		return m.of("uat\n", " uat", "uat ", "..", "a/b", "../../etc", "uat\x1b[2J", "\xff\xfe", "<script>", "Ünïcode")
	}
	return m.of("uat", "perf", "ann", "bob", "blue")
}

func (m monkey) query() string {
	var all []string
	for range m.IntN(6) {
		name, value := m.of(parameters...), m.value()
		switch m.IntN(20) {
		case 0:
			all = append(all, name+"="+value) // not escaped
		case 1:
			all = append(all, m.bytes(10))
		case 2:
			all = append(all, m.of("enviroment", "%zz", ";", "key", "=")+"="+url.QueryEscape(value))
		default:
			all = append(all, name+"="+url.QueryEscape(value))
		}
	}
	if m.IntN(3) > 0 {
		all = append(all, "environment="+m.of("uat", "perf", "a", "b"))
	}
	return strings.Join(all, m.of("&", "&", "&", "&&", ";"))
}

// request makes a request that net/http would pass to a handler.
func (m monkey) request(ctx context.Context) *http.Request {
	query := strings.Map(func(r rune) rune {
		if r <= ' ' || r == 0x7f || r == utf8.RuneError {
			return '.'
		}
		return r
	}, m.query())
	for _, slow := range []string{"wait=1h", "wait=999999h", "wait=1s", "wait=256"} {
		query = strings.ReplaceAll(query, slow, "wait=0s")
	}
	path := m.of("/maybe", "/maybe", "/maybe", "/maybe", "/environments", "/history", "/events", "/healthz", "/", "/metrics", "/openapi.yaml", "/page.js", "/maybe/", "//maybe", "/nothing", "/..")
	body := io.Reader(http.NoBody)
	kind := ""
	switch m.IntN(6) {
	case 0:
		body, kind = strings.NewReader(m.query()), "application/x-www-form-urlencoded"
	case 1:
		body, kind = strings.NewReader(m.bytes(200)), m.of("application/json", "multipart/form-data; boundary=x", "multipart/form-data", "x/y; =", "application/x-www-form-urlencoded")
	}
	r := httptest.NewRequestWithContext(ctx, m.of("GET", "POST", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS", "FROB"), path, body)
	r.URL.RawQuery = query
	r.RequestURI = path + "?" + query
	switch m.IntN(20) {
	case 0:
		r.Header.Set("X-API-KEY", m.value())
	case 1:
		r.SetBasicAuth(m.value(), testKey)
	case 2:
		r.Header["X-Api-Key"] = []string{testKey, testKey}
	default:
		r.Header.Set("X-API-KEY", testKey)
	}
	if kind != "" {
		r.Header.Set("Content-Type", kind)
	}
	for _, name := range []string{"Origin", "Sec-Fetch-Site", "X-Forwarded-For", "Accept", "Last-Event-ID", "If-None-Match"} {
		if m.IntN(15) == 0 {
			r.Header.Set(name, strings.Map(func(r rune) rune { return max(r, ' ') }, m.value()))
		}
	}
	return r
}

var goodCodes = []int{200, 201, 204, 304, 400, 401, 403, 404, 405, 409, 410, 413, 414, 422, 429, 503}

func TestTrustFuzz(t *testing.T) {
	started, spend := time.Now(), budget(3*time.Second)
	m := monkey{rand.New(rand.NewPCG(*seed, 7))}
	parsers, handlers, crashes := 0, 0, 0
	for ; time.Since(started) < spend/3 && crashes == 0; parsers++ {
		func() {
			defer func() {
				if p := recover(); p != nil {
					crashes++
					t.Errorf("a parser panics: %v", p)
				}
			}()
			q := m.query()
			if err := parse(q); err != nil {
				crashes++
				t.Errorf("%q: %v", q, err)
			}
			w := sampleWrites(1)[parsers%3]
			value := slices.Clone(w.value)
			for range m.IntN(4) {
				value[m.IntN(len(value))] = byte(m.Uint32())
			}
			if err := decodeAny(w.key, value[:len(value)-m.IntN(2)*m.IntN(len(value))]); err != nil {
				crashes++
				t.Error(err)
			}
		}()
	}
	g := &rig{t: t, path: fastFolder(t) + "/call-me.db", limits: testLimits}
	g.open()
	defer g.close()
	s := &server{keeper: g.keeper, metrics: g.metrics, log: slog.New(slog.DiscardHandler)}
	s.keys.set([]acceptedKey{plainKey(testKey)})
	routes := s.routes()
	for ; time.Since(started) < spend && crashes == 0; handlers++ {
		ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		r := m.request(ctx)
		w := httptest.NewRecorder()
		routes.ServeHTTP(w, r)
		cancel()
		if !slices.Contains(goodCodes, w.Code) {
			crashes++
			t.Errorf("%s %s: %d %s", r.Method, r.RequestURI, w.Code, w.Body)
		}
		if strings.Contains(w.Body.String(), testKey) {
			crashes++
			t.Errorf("%s %s: the key is in the answer", r.Method, r.RequestURI)
		}
	}
	record(t, "fuzz", started, map[string]int{"parser executions": parsers, "handler executions": handlers, "crashes": crashes})
}
