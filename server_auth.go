package main

// Authentication: the accepted keys, the calls that wait while their key is removed, the
// limit on calls with a wrong key, and the address of a client. config_keys.go reads them.

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

const (
	wrongKeyBurst = 50 // wrong keys that are allowed at once: many jobs may have the old key
	wrongRate     = 1  // wrong keys a second that are allowed after that
)

// A keySum is the SHA-256 sum of a key.
type keySum [sha256.Size]byte

// keySumOf returns the sum of a key.
func keySumOf(key string) keySum { return sha256.Sum256([]byte(key)) }

// A keyring holds the accepted keys. It is safe for concurrent use once set has been called.
// No key itself is kept, but its sum.
type keyring struct {
	keys atomic.Pointer[[]acceptedKey]

	mu   sync.Mutex
	uses map[*keyUse]bool // the calls that watch their key
}

// A keyUse is a call that waits or sends events, and ends when its key is removed.
type keyUse struct {
	sum    keySum
	cancel context.CancelCauseFunc
}

// set replaces the keys. Contexts of watch end with errKey if their key is removed.
func (k *keyring) set(keys []acceptedKey) {
	k.keys.Store(&keys)
	k.mu.Lock()
	defer k.mu.Unlock()
	for u := range k.uses {
		if _, found := k.find(u.sum); !found {
			u.cancel(errKey)
		}
	}
}

// find returns the accepted key with this sum, and whether there is one. It compares sums in
// constant time, so that its duration depends neither on the text nor on the length of a key.
func (k *keyring) find(sum keySum) (found acceptedKey, isAccepted bool) {
	keys, at := *k.keys.Load(), -1
	for i := range keys {
		isEqual := subtle.ConstantTimeCompare(sum[:], keys[i].sum[:])
		at = subtle.ConstantTimeSelect(isEqual, i, at)
	}
	if at < 0 {
		return acceptedKey{}, false
	}
	return keys[at], true
}

// now returns the caller as its key is now: with other rights if the keys were read again
// meanwhile, and without any, so that it sees nothing, if the key is not accepted any more. A
// caller without a key is returned as it is.
func (k *keyring) now(c caller) caller {
	if c.key == (keySum{}) {
		return c
	}
	key, _ := k.find(c.key)
	return newCaller(key, c.address)
}

// watch returns a context that ends with parent, and with the cause errKey when set
// removes the key of the caller. A key that is already removed ends it at once. That of a
// caller without a key ends with parent only. end is called when the context is no longer used.
func (k *keyring) watch(parent context.Context, c caller) (ctx context.Context, end func()) {
	ctx, refuse := context.WithCancelCause(parent)
	if c.key == (keySum{}) {
		return ctx, func() { refuse(nil) }
	}
	u := &keyUse{c.key, refuse}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.uses == nil {
		k.uses = map[*keyUse]bool{}
	}
	k.uses[u] = true
	if _, found := k.find(u.sum); !found { // removed since withKey accepted it
		refuse(errKey)
	}
	return ctx, func() {
		refuse(nil)
		k.mu.Lock()
		defer k.mu.Unlock()
		delete(k.uses, u)
	}
}

// keyHeader is X-API-KEY in the canonical form of net/http, for direct use of the map.
const keyHeader = "X-Api-Key"

// sentKey returns the one key of the call: the value of X-API-KEY, or the password of
// HTTP Basic. It returns errKey if there is none, or more than one. An Authorization
// header of another scheme is ignored beside X-API-KEY.
func sentKey(r *http.Request) (string, error) {
	headers := r.Header[keyHeader]
	others := r.Header["Authorization"] // r.BasicAuth reads only the first one
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

// becomesHolder reports whether the user name of HTTP Basic may be stored, as a holder.
func becomesHolder(r *http.Request) bool {
	return r.Method == http.MethodPost || r.Method == http.MethodDelete || r.URL.Path == "/pause"
}

// hasSecretOf reports whether a parameter, or the name that becomes a holder, contains the key or
// the token of the call.
func (q query) hasSecretOf(r *http.Request) bool {
	key, _ := sentKey(r)
	return q.contains(key) || q.contains(sentToken(r)) ||
		becomesHolder(r) && (query{{"", basicUser(r)}}).contains(key)
}

// sendsNoKey reports whether the call has no header that may hold a key, as the first
// call of a browser. Such a call does not count as a wrong key.
func sendsNoKey(r *http.Request) bool {
	return r.Header[keyHeader] == nil && r.Header["Authorization"] == nil
}

// errTwoKeys is the error of a call that sends an accepted key in more than one header. A
// caller without a key never gets it.
var errTwoKeys = fmt.Errorf("%w: the key is sent twice; use X-API-KEY or HTTP Basic, not both", errMalformed)

// acceptsEach reports whether the call sends several keys, and each of them is accepted.
func (k *keyring) acceptsEach(r *http.Request) bool {
	sent := slices.Clone(r.Header[keyHeader])
	for _, value := range r.Header["Authorization"] {
		other := http.Request{Header: http.Header{"Authorization": {value}}}
		if _, password, basic := other.BasicAuth(); basic {
			sent = append(sent, password)
		}
	}
	isWrong := func(key string) bool {
		_, found := k.find(keySumOf(key))
		return !found
	}
	return len(sent) > 1 && !slices.ContainsFunc(sent, isWrong)
}

// withKey returns a handler for calls whose role is enough for an action. It calls h, with the
// caller in the context of the request, if the call has an accepted key; see may for one whose
// role is not enough. A URL of more than maxURL bytes is errLongURL.
//
// A call that sends accepted keys in several headers gets errTwoKeys. Other calls get errKey,
// and errTooMany once there are too many wrong keys; their connection is closed. An accepted
// key is never limited.
func (s *server) withKey(a action, h handler) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		c, err := s.authenticate(r)
		switch {
		case errors.Is(err, errUnavailable):
			return err
		case err != nil:
			return s.rejectKey(w, r, err)
		case c.hasEnded && !slices.Contains(actionsByID, a):
			return s.rejectKey(w, r, refusedToken(errTokenEnded))
		}
		s.metrics.called(c.label)
		if len(r.RequestURI) > maxURL {
			return errLongURL
		}
		connectionFor(r).showedKey()
		if err := c.may(a); err != nil {
			return err
		}
		return h(w, withCaller(r, c))
	}
}

// rejectKey returns the error of a call without an accepted key, and counts the call. It is
// reason, which is errKey, unless the call gets another one.
func (s *server) rejectKey(w http.ResponseWriter, r *http.Request, reason error) error {
	s.metrics.badKeys.Inc()
	w.Header().Set("Connection", "close")
	if s.keys.acceptsEach(r) {
		return errTwoKeys
	}
	if sendsNoKey(r) {
		return reason
	}
	allowed, first := s.wrongKeys.allow(time.Now())
	if allowed {
		return reason
	}
	if first {
		s.log.Warn("too many wrong keys", "from", callerAddress(r, s.trustedProxies).String())
	}
	w.Header().Set("Retry-After", "1") // in seconds, as wrongRate
	return errTooMany
}

// A wrongKeyLimit limits the calls with a wrong key, from all addresses together:
// wrongKeys at once, and wrongRate a second. The zero value is ready to use. It is safe
// for concurrent use.
type wrongKeyLimit struct {
	mu      sync.Mutex
	limiter *rate.Limiter
	logged  bool // a call was rejected since the limit was last unused
}

// allow reports whether a call at this time is within the limit, and counts it. first is
// true for the first call that is not allowed, and then not again until wrongKeys calls
// are allowed at once again: the caller logs once.
func (l *wrongKeyLimit) allow(now time.Time) (allowed, first bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.limiter == nil {
		l.limiter = rate.NewLimiter(wrongRate, wrongKeyBurst)
	}
	if l.limiter.TokensAt(now) >= wrongKeyBurst {
		l.logged = false
	}
	if l.limiter.AllowN(now, 1) {
		return true, false
	}
	first = !l.logged
	l.logged = true
	return false, first
}

// callerAddress returns the address that a call comes from, without a port. That is the
// other end of the connection. If it is a trusted proxy, it is the last address in
// X-Forwarded-For that is not a trusted proxy, or the first one if all of them are. An
// address that cannot be parsed ends the search; the trusted proxy after it is returned.
// The zero Addr is returned if the address of the other end cannot be parsed.
func callerAddress(r *http.Request, trusted proxies) netip.Addr {
	at, _ := netip.ParseAddrPort(r.RemoteAddr)
	from := at.Addr().Unmap().WithZone("")
	if len(trusted) == 0 {
		return from
	}
	forwarded := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for _, text := range slices.Backward(forwarded) {
		if !trusted.has(from) {
			break
		}
		next, err := parseAddress(strings.TrimSpace(text))
		if err != nil {
			break
		}
		from = next
	}
	return from
}

// parseAddress parses an IP address with a port or without, and drops the port. An IPv4
// address in IPv6 form becomes IPv4. A zone is dropped: it may be any text.
func parseAddress(text string) (netip.Addr, error) {
	if at, err := netip.ParseAddrPort(text); err == nil {
		return at.Addr().Unmap().WithZone(""), nil
	}
	a, err := netip.ParseAddr(text)
	return a.Unmap().WithZone(""), err
}

var errOtherSite = fmt.Errorf("%w: a page of another site may not call this", errMalformed)

// notFromOtherSites rejects calls that a page of another site makes a browser send, for
// instance as an image: with the login of this site they would cost the server a copy of
// its file. A client that is no browser sends no Sec-Fetch-Site.
func notFromOtherSites(h handler) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if r.Header.Get("Sec-Fetch-Site") == "cross-site" {
			return errOtherSite
		}
		return h(w, r)
	}
}
