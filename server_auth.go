package main

// Who is let in: the keys, those who wait while their key is taken away, and
// a limit on wrong ones. Reading the keys is config.go's.

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

const (
	shortKey  = 16 // characters; serve warns about keys that have fewer
	wrongKeys = 50 // that may come at once: a fleet of jobs that all have the old key
	wrongRate = 1  // further ones a second
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

	mu   sync.Mutex
	uses map[*keyUse]bool // who waits
}

// A bearer is a call that waits, and must not outlive its key.
type keyUse struct {
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
	for b := range k.uses {
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
func (k *keyring) accepts(r *http.Request) bool {
	sent, err := sentKey(r)
	return k.has(sha256.Sum256([]byte(sent))) && err == nil
}

// while returns a context that ends with parent, and with the cause errKey
// as soon as the key is taken away. Call end when it is over.
func (k *keyring) watch(parent context.Context, key keySum) (ctx context.Context, end func()) {
	ctx, refuse := context.WithCancelCause(parent)
	b := &keyUse{key, refuse}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.uses == nil {
		k.uses = map[*keyUse]bool{}
	}
	if k.uses[b] = true; !k.has(b.sum) { // it went since the call came in
		refuse(errKey)
	}
	return ctx, func() {
		refuse(nil)
		k.mu.Lock()
		defer k.mu.Unlock()
		delete(k.uses, b)
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
func sendsNoKey(r *http.Request) bool {
	return r.Header[keyHeader] == nil && r.Header["Authorization"] == nil
}

// keyed rejects calls that do not show a key, and URLs that are too long. Calls
// with a wrong key are limited; a right one is never held up.
func (s *server) withKey(h handler) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if s.keys.accepts(r) {
			if len(r.RequestURI) > maxURL {
				return errLongURL
			}
			connectionFor(r).showedKey()
			return h(w, r)
		}
		s.metrics.badKeys.Inc()
		w.Header().Set("Connection", "close")
		if sendsNoKey(r) {
			return errKey
		}
		allowed, first := s.wrong.allow(time.Now())
		if allowed {
			return errKey
		}
		if first {
			s.log.Warn("too many wrong keys", "from", callerAddress(r, s.trusted).String())
		}
		w.Header().Set("Retry-After", "1") // as wrongRate
		return errTooMany
	}
}

// A wrongKeyLimit limits the calls with a wrong key, of all addresses together.
// The zero value is ready to use.
type wrongKeyLimit struct {
	mu      sync.Mutex
	limiter *rate.Limiter
	logged  bool // that too many have come; until the whole allowance is back
}

// allow takes one call from the allowance. Of calls that are not allowed, first
// is true for one only until the whole allowance is back.
func (l *wrongKeyLimit) allow(now time.Time) (allowed, first bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.limiter == nil {
		l.limiter = rate.NewLimiter(wrongRate, wrongKeys)
	}
	if l.limiter.TokensAt(now) >= wrongKeys {
		l.logged = false
	}
	if l.limiter.AllowN(now, 1) {
		return true, false
	}
	first = !l.logged
	l.logged = true
	return false, first
}

// callerAddress returns the address that a call comes from: the other end of the
// connection or, where that is a trusted proxy, the last address in X-Forwarded-For
// that is none.
func callerAddress(r *http.Request, trusted proxies) netip.Addr {
	at, _ := netip.ParseAddrPort(r.RemoteAddr)
	from := at.Addr().Unmap()
	if len(trusted) == 0 {
		return from
	}
	told := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(told) - 1; i >= 0 && trusted.has(from); i-- {
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
