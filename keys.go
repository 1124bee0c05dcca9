package main

// Who is let in: the keys, those who wait while their key is taken away, and
// a limit on wrong ones. Reading the keys is config.go's.

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"math"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

const (
	shortKey     = 16     // characters; serve warns about keys that have fewer
	wrongKeys    = 50     // that an address may send at once: a fleet of jobs that all have the old key
	wrongRate    = 1      // further ones a second
	mostThrottle = 10_000 // addresses that are told apart; all others share one limit
)

// A keySum stands for a key.
type keySum [sha256.Size]byte

// keySumOf is that of the key which the call shows, if it shows one.
func keySumOf(r *http.Request) keySum {
	sent, _ := sentKey(r)
	return sha256.Sum256([]byte(sent))
}

// A keyring holds the keys that are let in.
type keyring struct {
	sums atomic.Pointer[[]keySum]

	mu      sync.Mutex
	bearers map[*bearer]bool // who waits
}

// A bearer is a call that waits, and must not outlive its key.
type bearer struct {
	sum    keySum
	refuse context.CancelCauseFunc
}

// set replaces the keys. Calls that wait with one that has gone end at once.
func (k *keyring) set(keys []string) {
	sums := make([]keySum, len(keys))
	for i, key := range keys {
		sums[i] = sha256.Sum256([]byte(key))
	}
	k.sums.Store(&sums)
	k.mu.Lock()
	defer k.mu.Unlock()
	for b := range k.bearers {
		if !k.has(b.sum) {
			b.refuse(errKey)
		}
	}
}

// has compares sums, so that neither the time nor the length of the
// comparison tells anything of a key.
func (k *keyring) has(sum keySum) bool {
	found := 0
	for _, key := range *k.sums.Load() {
		found |= subtle.ConstantTimeCompare(sum[:], key[:])
	}
	return found == 1
}

// lets reports whether the call shows a key.
func (k *keyring) lets(r *http.Request) bool {
	sent, err := sentKey(r)
	return k.has(sha256.Sum256([]byte(sent))) && err == nil
}

// while returns a context that ends with parent, and with the cause errKey
// as soon as the key is taken away. Call end when it is over.
func (k *keyring) while(parent context.Context, key keySum) (ctx context.Context, end func()) {
	ctx, refuse := context.WithCancelCause(parent)
	b := &bearer{key, refuse}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.bearers == nil {
		k.bearers = map[*bearer]bool{}
	}
	if k.bearers[b] = true; !k.has(b.sum) { // it went since the call came in
		refuse(errKey)
	}
	return ctx, func() {
		refuse(nil)
		k.mu.Lock()
		defer k.mu.Unlock()
		delete(k.bearers, b)
	}
}

// keyHeader is X-API-KEY as net/http spells it.
const keyHeader = "X-Api-Key"

// sentKey returns the one key of the call: in X-API-KEY, or the password of
// HTTP Basic. With none or several it is errKey.
func sentKey(r *http.Request) (string, error) {
	headers := r.Header[keyHeader]
	others := r.Header["Authorization"]
	if len(headers) == 1 && len(others) == 0 {
		return headers[0], nil
	}
	_, password, basic := r.BasicAuth()
	switch {
	case len(headers) > 1 || len(others) > 1 || len(headers) == 1 && basic:
		return "", errKey
	case len(headers) == 1:
		return headers[0], nil
	case basic:
		return password, nil
	}
	return "", errKey
}

// showsNoKey tells who has yet to show one, as a browser does first, from
// those who try.
func showsNoKey(r *http.Request) bool {
	return r.Header[keyHeader] == nil && r.Header["Authorization"] == nil
}

// keyed lets nobody through who does not show a key, and no URL that is too long. Who tries wrong ones has
// to wait; a right one is never held up.
func (s *server) keyed(h handler) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if s.keys.lets(r) {
			if len(r.RequestURI) > maxURL {
				return errLongURL
			}
			connectionFor(r).showedKey()
			return h(w, r)
		}
		s.metrics.badKeys.Inc()
		w.Header().Set("Connection", "close")
		if showsNoKey(r) {
			return errKey
		}
		from := s.trusted.address(r)
		wait, first := s.wrong.wait(from, time.Now())
		if wait == 0 {
			return errKey
		}
		if first {
			s.log.Warn("too many wrong keys", "from", from.String())
		}
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
		return errTooMany
	}
}

// A throttle limits how many wrong keys come from one address. Its memory is
// bounded. The zero throttle is ready.
type throttle struct {
	mu     sync.Mutex
	limits map[netip.Prefix]*wrongLimit
	others *wrongLimit
	swept  time.Time
}

type wrongLimit struct {
	*rate.Limiter
	refused bool // the last one
}

// wait takes one try from the address's allowance: 0, or how long it is until
// there is one again. first: the try before this one was allowed.
func (t *throttle) wait(from netip.Addr, now time.Time) (wait time.Duration, first bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.limit(from, now)
	r := l.ReserveN(now, 1)
	if wait = r.DelayFrom(now); wait > 0 {
		r.CancelAt(now)
	}
	first = wait > 0 && !l.refused
	l.refused = wait > 0
	return wait, first
}

// limit returns the one for an address. Of IPv6 the first 64 bits count: whoever
// has one address has all of those.
func (t *throttle) limit(from netip.Addr, now time.Time) *wrongLimit {
	bits := 64
	if from.Is4() {
		bits = 32
	}
	prefix, _ := from.Prefix(bits)
	if l := t.limits[prefix]; l != nil {
		return l
	}
	if t.limits == nil {
		t.limits, t.others = map[netip.Prefix]*wrongLimit{}, newWrongLimit()
	}
	if len(t.limits) >= mostThrottle {
		t.sweep(now)
	}
	if len(t.limits) >= mostThrottle {
		return t.others
	}
	l := newWrongLimit()
	t.limits[prefix] = l
	return l
}

func newWrongLimit() *wrongLimit {
	return &wrongLimit{Limiter: rate.NewLimiter(wrongRate, wrongKeys)}
}

// sweep forgets those whose allowance is full again: they are as good as new.
// Once a second is enough.
func (t *throttle) sweep(now time.Time) {
	if now.Sub(t.swept) < time.Second {
		return
	}
	t.swept = now
	for prefix, l := range t.limits {
		if l.TokensAt(now) >= wrongKeys {
			delete(t.limits, prefix)
		}
	}
}

// proxies are the addresses whose word on where a call comes from is taken.
type proxies []netip.Prefix

// Decode reads 10.0.0.1,192.168.0.0/16.
func (p *proxies) Decode(text string) error {
	*p = nil
	for entry := range strings.SplitSeq(text, ",") {
		entry = strings.TrimSpace(entry)
		prefix, err := netip.ParsePrefix(entry)
		if a, errAddress := netip.ParseAddr(entry); errAddress == nil {
			prefix, err = a.Unmap().Prefix(a.Unmap().BitLen())
		}
		if err != nil {
			return errors.New("no list of addresses such as 10.0.0.1,192.168.0.0/16")
		}
		*p = append(*p, prefix.Masked())
	}
	return nil
}

func (p proxies) has(a netip.Addr) bool {
	for _, prefix := range p {
		if prefix.Contains(a) {
			return true
		}
	}
	return false
}

// address is where a call comes from: the other end of the connection, or,
// where that is a trusted proxy, the last address in X-Forwarded-For that is
// none.
func (p proxies) address(r *http.Request) netip.Addr {
	at, _ := netip.ParseAddrPort(r.RemoteAddr)
	from := at.Addr().Unmap()
	if len(p) == 0 {
		return from
	}
	told := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(told) - 1; i >= 0 && p.has(from); i-- {
		next, err := parseAddress(strings.TrimSpace(told[i]))
		if err != nil {
			break
		}
		from = next
	}
	return from
}

// parseAddress reads an address, with a port or without.
func parseAddress(text string) (netip.Addr, error) {
	if at, err := netip.ParseAddrPort(text); err == nil {
		return at.Addr().Unmap(), nil
	}
	a, err := netip.ParseAddr(text)
	return a.Unmap().WithZone(""), err
}
