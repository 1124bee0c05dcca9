package main

// OpenID Connect: a CI system signs a token for each job, and the server verifies who the job
// is. config_oidc.go has whom the server trusts, server_issuer.go verifies the signatures.

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/time/rate"
)

const (
	clockSkew   = time.Minute    // by which the clocks of issuer and server may differ
	maxEnded    = 24 * time.Hour // for which a token that has ended is good for calls by id
	maxVerified = 200            // bytes of the verified beginning of a holder
)

// A tokenVerifier verifies tokens by the entries of a file. It is never changed. Several
// goroutines may use it.
type tokenVerifier struct {
	entries []oidcEntry
	issuers map[string]*issuer // by their URLs
	logged  *rate.Limiter      // of lines in the log about refused tokens, which anybody can send
}

// newTokenVerifier returns a verifier. The issuers that before has too keep their keys; before
// may be nil. It makes no call.
func newTokenVerifier(entries []oidcEntry, before *tokenVerifier) *tokenVerifier {
	v := &tokenVerifier{entries: entries, issuers: map[string]*issuer{}, logged: rate.NewLimiter(1, 20)}
	for _, e := range entries {
		if before != nil && before.issuers[e.issuer] != nil {
			v.issuers[e.issuer] = before.issuers[e.issuer]
		} else if v.issuers[e.issuer] == nil {
			v.issuers[e.issuer] = newIssuer(e.issuer)
		}
	}
	return v
}

// bearerPrefix is the beginning of the Authorization header with a token.
const bearerPrefix = "Bearer "

// sentToken returns the token of a call that sends one and no key; empty for any other call.
func sentToken(r *http.Request) string {
	headers := r.Header["Authorization"]
	if len(headers) != 1 || r.Header[keyHeader] != nil {
		return ""
	}
	scheme, token, _ := strings.Cut(headers[0], " ")
	if !strings.EqualFold(scheme, strings.TrimSpace(bearerPrefix)) {
		return ""
	}
	return strings.TrimSpace(token)
}

// A tokenClaims is what a token says.
type tokenClaims map[string]any

// parseClaims returns the claims of a token, which are not verified.
func parseClaims(token string) (tokenClaims, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, errors.New("it is no token of three parts")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return nil, errors.New("it is no token in base64")
	}
	return decodeClaims(payload)
}

// decodeClaims returns the claims in JSON.
func decodeClaims(payload []byte) (claims tokenClaims, err error) {
	d := json.NewDecoder(strings.NewReader(string(payload)))
	d.UseNumber()
	if err := d.Decode(&claims); err != nil || claims == nil {
		return nil, errors.New("it has no claims")
	}
	return claims, nil
}

// text returns a claim that is a text, a number or a bool, as a text.
func (c tokenClaims) text(name string) (value string, found bool) {
	switch v := c[name].(type) {
	case string:
		return v, true
	case json.Number:
		return v.String(), true
	case bool:
		return fmt.Sprint(v), true
	}
	return "", false
}

// time returns a claim that is a time; zero if it is none.
func (c tokenClaims) time(name string) time.Time {
	n, isNumber := c[name].(json.Number)
	if !isNumber {
		return time.Time{}
	}
	seconds, err := n.Float64()
	if err != nil || seconds <= 0 || seconds > 1e11 {
		return time.Time{}
	}
	return time.Unix(int64(seconds), 0)
}

// isFor reports whether the token is for an audience.
func (c tokenClaims) isFor(audience string) bool {
	switch v := c["aud"].(type) {
	case string:
		return v == audience
	case []any:
		return slices.Contains(v, any(audience))
	}
	return false
}

// entryFor returns the first entry that the claims match, whether they are verified or not.
func (v *tokenVerifier) entryFor(c tokenClaims) (oidcEntry, error) {
	issuer, _ := c.text("iss")
	if v.issuers[issuer] == nil {
		return oidcEntry{}, errors.New("its issuer is not trusted")
	}
	reason := errors.New("it is for another audience")
	for _, e := range v.entries {
		if e.issuer != issuer || !c.isFor(e.audience) {
			continue
		}
		reason = errors.New("no entry of the server matches its claims")
		if c.match(e) {
			return e, nil
		}
	}
	return oidcEntry{}, reason
}

// match reports whether the claims have the values that an entry wants.
func (c tokenClaims) match(e oidcEntry) bool {
	for name, values := range e.match {
		value, found := c.text(name)
		if !found || !slices.Contains(values, value) {
			return false
		}
	}
	return true
}

// verify returns the caller that a token stands for. A token that has ended within maxEnded
// makes a caller with hasEnded. Tokens that no entry matches are rejected without a call to an
// issuer. The error is errIssuer, or says what is wrong with the token.
func (v *tokenVerifier) verify(ctx context.Context, token string) (caller, error) {
	unverified, err := parseClaims(token)
	if err != nil {
		return caller{}, err
	}
	e, err := v.entryFor(unverified)
	if err != nil {
		return caller{}, err
	}
	claims, err := v.issuers[e.issuer].verify(ctx, token)
	if err != nil {
		return caller{}, err
	}
	c := caller{rights: e.rights, label: e.label(), until: claims.time("exp").Add(clockSkew)}
	now := time.Now()
	switch {
	case claims.time("exp").IsZero():
		return caller{}, errors.New("it has no end")
	case claims["nbf"] != nil && claims.time("nbf").After(now.Add(clockSkew)):
		return caller{}, errors.New("it is not valid yet")
	case claims["iat"] != nil && claims.time("iat").After(now.Add(clockSkew)):
		return caller{}, errors.New("it was issued in the future")
	case now.Sub(c.until) > maxEnded:
		return caller{}, errTokenEnded
	}
	c.hasEnded = now.After(c.until)
	if c.name, err = e.name.expand(claims.text); err != nil {
		return caller{}, err
	}
	if c.verified, err = e.holder.expand(claims.text); err != nil {
		return caller{}, err
	}
	if !nameText.MatchString(c.name) {
		return caller{}, fmt.Errorf("entry %d makes a name of it that no key can have", e.number)
	}
	if len(c.verified) > maxVerified || checkHolder(c.verified) != nil {
		return caller{}, fmt.Errorf("entry %d makes a holder of it that no request can have", e.number)
	}
	return c, nil
}

// errTokenEnded is the error of a token that has ended.
var errTokenEnded = errors.New("it has ended")

// actionsByID are the actions that a call by the id of a request may do with a token that has
// ended.
var actionsByID = []action{actionRequest, actionRenew, actionRelease}

// mayContinue returns nil if the token of the caller has not ended, or if the call is by the id of
// a request that the same caller has in each of the environments, waiting, with a lease, or ended
// within rememberAge: whoever knows the id has made the request. Otherwise it is errKey, also for
// a call that takes over the lease of somebody else.
func (s *server) mayContinue(c caller, q query, environments []string) error {
	if !c.hasEnded {
		return nil
	}
	if _, takes := q.find("take"); takes {
		return refusedToken(errTokenEnded)
	}
	for _, name := range environments {
		if !s.keeper.isRequestOf(name, q.get("id"), c.origin()) {
			return refusedToken(errTokenEnded)
		}
	}
	return nil
}

// setVerified makes the holder that a call names begin with what its token proves. A holder that
// does so already stays as it is. It does nothing without a verified beginning.
func (q query) setVerified(verified string) {
	for i := range q {
		if q[i].name == "holder" && verified != "" && q[i].value != "" {
			q[i].value = holderBehind(verified, q[i].value)
		}
	}
}

// holderBehind returns the holder with a verified beginning. What is sent is behind it, after a
// slash, without the parts with which both begin: for github:acme/shop/run/7 and
// github:acme/shop/test it is github:acme/shop/run/7/test. It is cut, with a sum at its end, if the
// holder would be too long. What is too long by itself stays so.
func holderBehind(verified, sent string) string {
	if sent == verified || strings.HasPrefix(sent, verified+"/") {
		return sent
	}
	same := 0 // the end of the parts that are the same
	for i := 0; i < min(len(sent), len(verified)) && sent[i] == verified[i]; i++ {
		if sent[i] == '/' || sent[i] == ':' {
			same = i + 1
		}
	}
	own := sent[same:]
	full := verified + "/" + own
	switch {
	case own == "":
		return verified
	case len(full) > maxHolder && len(sent) <= maxHolder:
		return verified + "/" + shortenHolder(own, maxHolder-len(verified)-1)
	}
	return full
}
