package main

// An issuer of tokens: where its keys are, the keys, and the signatures. go-oidc fetches and keeps
// the keys, and verifies the signatures. Only this file imports it.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
)

const (
	issuerTime  = 5 * time.Second // for one answer of an issuer
	fetchPeriod = time.Minute     // between two fetches of the keys of an issuer
	maxIssuer   = 1 << 20         // bytes of an answer of an issuer
)

// signatures are the algorithms with which tokens may be signed: those with a public key.
var signatures = []string{oidc.RS256, oidc.RS384, oidc.RS512, oidc.ES256, oidc.ES384, oidc.ES512,
	oidc.PS256, oidc.PS384, oidc.PS512, oidc.EdDSA}

// errIssuer is the error of a token whose issuer gives no keys.
var errIssuer = fmt.Errorf("%w: the issuer of the token does not answer", errUnavailable)

// An issuer is a CI system that signs tokens. Nothing is asked of it before a token of it comes.
// Several goroutines may use it.
type issuer struct {
	url       string
	discovery *limitedFetch // where the keys are
	keys      *limitedFetch

	mu       sync.Mutex
	verifier *oidc.IDTokenVerifier // nil until the issuer has said where its keys are
}

// newIssuer returns the issuer with a URL. It makes no call.
func newIssuer(url string) *issuer {
	return &issuer{url: url, discovery: &limitedFetch{}, keys: &limitedFetch{}}
}

// verify returns the claims of a token that the issuer has signed; audience and times are not
// checked. The error is errIssuer if the issuer had to be asked for its keys and did not answer.
func (i *issuer) verify(ctx context.Context, token string) (tokenClaims, error) {
	verifier, err := i.discover()
	if err != nil {
		return nil, errIssuer
	}
	verified, err := verifier.Verify(ctx, token)
	switch {
	case err != nil && i.keys.hasFailed():
		return nil, errIssuer
	case err != nil:
		return nil, errors.New("it is not signed by its issuer")
	}
	var payload json.RawMessage
	if err := verified.Claims(&payload); err != nil {
		return nil, err
	}
	return decodeClaims(payload)
}

// discover returns the verifier of the issuer's signatures. It asks the issuer where its keys
// are, unless it has said so before. Others that ask meanwhile wait for this answer.
func (i *issuer) discover() (*oidc.IDTokenVerifier, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.verifier != nil {
		return i.verifier, nil
	}
	provider, err := oidc.NewProvider(i.discovery.context(), i.url)
	if err != nil {
		return nil, err
	}
	var where struct {
		Keys string `json:"jwks_uri"`
	}
	if err := provider.Claims(&where); err != nil {
		return nil, err
	}
	i.verifier = oidc.NewVerifier(i.url, oidc.NewRemoteKeySet(i.keys.context(), where.Keys), &oidc.Config{
		SkipClientIDCheck: true, SkipExpiryCheck: true, SupportedSigningAlgs: signatures})
	return i.verifier, nil
}

// A limitedFetch is an http.RoundTripper that makes one call in each fetchPeriod, and rejects all
// others: whoever sends tokens with made-up names of keys must not make the server call the
// issuer each time.
type limitedFetch struct {
	mu     sync.Mutex
	last   time.Time // of the last call; zero if there was none
	failed bool      // it was not answered with 200
}

// context returns a context with which go-oidc makes its calls by this fetch. A call ends after
// issuerTime. Redirects are not followed.
func (f *limitedFetch) context() context.Context {
	noRedirect := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	c := &http.Client{Transport: f, Timeout: issuerTime, CheckRedirect: noRedirect}
	return oidc.ClientContext(context.Background(), c)
}

// hasFailed reports whether the last call was not answered with 200.
func (f *limitedFetch) hasFailed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.failed
}

// RoundTrip implements http.RoundTripper. An answer has maxIssuer bytes at most; what is longer is
// cut.
func (f *limitedFetch) RoundTrip(r *http.Request) (*http.Response, error) {
	f.mu.Lock()
	isEarly := !f.last.IsZero() && time.Since(f.last) < fetchPeriod
	if !isEarly {
		f.last, f.failed = time.Now(), true // until it is answered
	}
	f.mu.Unlock()
	if isEarly {
		return nil, errors.New("it was asked less than a minute ago")
	}
	answer, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failed = answer.StatusCode != http.StatusOK
	answer.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(answer.Body, maxIssuer), answer.Body}
	return answer, nil
}
