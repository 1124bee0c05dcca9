package main

// The token of a job (OpenID Connect), which a client sends in place of a key: getting it, and
// getting it anew before it ends. config_token.go has where it comes from.

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os/exec"
	"strings"
	"sync"
	"time"
)

const (
	tokenTime    = 10 * time.Second // for one answer of what gives tokens
	exchangeTime = 2 * time.Second  // the same, as long as there is a token
	tokenTries   = 3                // before the first token; a later one may be had with the next call
	tokenPeriod  = 10 * time.Second // after a failed attempt to get a token anew, to the next one
	tokenMargin  = time.Minute      // by which a token is had anew before it ends
	maxToken     = 64 << 10         // bytes of a token, or of an answer that has one
)

// A tokenSource gets the tokens of one client. Several goroutines may use it.
type tokenSource struct {
	place    tokenPlace
	audience string
	file     string
	onNew    func(token string) // is called with each new token, unless it is nil

	mu      sync.Mutex
	token   string
	renewAt time.Time // when the token is to be had anew; zero: when the server refuses it
}

// newTokenSource returns the source of the configured token; nil if a key is configured.
func newTokenSource(c clientConfig) (*tokenSource, error) {
	place, err := c.tokenPlace()
	if err != nil || place == noToken {
		return nil, err
	}
	return &tokenSource{place: place, audience: c.OIDCAudience, file: c.TokenFile,
		token: strings.TrimSpace(c.IDToken)}, nil
}

// lastToken returns the token that the client has; empty without one.
func (c *client) lastToken() string {
	if c.tokens == nil {
		return ""
	}
	c.tokens.mu.Lock()
	defer c.tokens.mu.Unlock()
	return c.tokens.token
}

// onToken has report called with each new token, from the goroutine that has got it, and with the
// one that there is. It does nothing without tokens.
func (c *client) onToken(report func(token string)) {
	if c.tokens == nil {
		return
	}
	c.tokens.mu.Lock()
	defer c.tokens.mu.Unlock()
	c.tokens.onNew = report
	if c.tokens.token != "" {
		report(c.tokens.token)
	}
}

// canRenew reports whether the token can be had anew.
func (t *tokenSource) canRenew() bool { return t.place != tokenInVariable }

// current returns the token. It gets one if there is none yet, or if it ends soon; if that fails,
// it returns the one that there is, with which a server accepts calls by the id of a request.
// The error is a tokenError.
func (t *tokenSource) current(ctx context.Context) (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	isDue := t.place == tokenInFile || !t.renewAt.IsZero() && time.Now().After(t.renewAt)
	switch {
	case t.token == "":
		err := t.get(ctx, tokenTries)
		return t.token, err
	case isDue && t.canRenew() && t.exchange(ctx) != nil:
		t.renewAt = time.Now().Add(tokenPeriod) // the one that there is may still do
	}
	return t.token, nil
}

// exchange gets a token in place of one that ends soon. It takes exchangeTime at most: the call
// that waits for it could go with the old one. The caller holds mu.
func (t *tokenSource) exchange(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, exchangeTime)
	defer cancel()
	return t.get(ctx, 1)
}

// renew gets another token, and reports whether it has got one. It is called when the server has
// refused the current one.
func (t *tokenSource) renew(ctx context.Context) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	before := t.token
	return t.canRenew() && t.get(ctx, 1) == nil && t.token != before
}

// A tokenError is why there is no token.
type tokenError struct {
	source string
	err    error
}

// Error names where the token was to come from.
func (e tokenError) Error() string { return fmt.Sprintf("no token from %s: %v", e.source, e.err) }

// Unwrap returns the reason.
func (e tokenError) Unwrap() error { return e.err }

// get gets a token, with a number of tries. The caller holds mu.
func (t *tokenSource) get(ctx context.Context, tries int) error {
	var token string
	var err error
	for try := range tries {
		if try > 0 && sleep(ctx, time.Duration(try)*time.Second) != nil {
			break
		}
		token, err = t.ask(ctx)
		if err == nil || ctx.Err() != nil || t.place == tokenInFile {
			break
		}
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return tokenError{t.place.source(), err}
	case strings.ContainsFunc(token, isNoTokenCharacter) || token == "":
		return tokenError{t.place.source(), errors.New("what it gives is no token")}
	}
	isNew := token != t.token
	t.token, t.renewAt = token, renewalOf(token, time.Now())
	if isNew && t.onNew != nil {
		t.onNew(token)
	}
	return nil
}

// isNoTokenCharacter reports whether a character cannot be part of a token.
func isNoTokenCharacter(r rune) bool { return r <= ' ' || r > '~' }

// renewalOf returns when a token of this moment is to be had anew: tokenMargin before its end, but
// not before half of its time. It is zero if the token does not say when it ends.
func renewalOf(token string, now time.Time) time.Time {
	end := endOfToken(token)
	if end.IsZero() {
		return end
	}
	lasts := end.Sub(now)
	return now.Add(max(lasts-tokenMargin, lasts/2))
}

// endOfToken returns when a token ends, as it says; zero if it does not say that. Nothing is
// verified.
func endOfToken(token string) time.Time {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return time.Time{}
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return time.Time{}
	}
	var claims struct {
		End float64 `json:"exp"`
	}
	if json.Unmarshal(payload, &claims) != nil || claims.End <= 0 || claims.End > 1e11 {
		return time.Time{}
	}
	return time.Unix(int64(claims.End), 0)
}

// ask asks for a token once. No error has anything of a token.
func (t *tokenSource) ask(ctx context.Context) (string, error) {
	limited, cancel := context.WithTimeout(ctx, tokenTime)
	defer cancel()
	switch t.place {
	case tokenInFile:
		text, err := readTextFile(t.file, maxToken, "tokens")
		return strings.TrimSpace(text), err
	case tokenFromGitHub:
		return t.askGitHub(limited)
	case tokenFromBuildkite:
		// #nosec G204 -- the audience is one argument
		command := exec.CommandContext(limited, "buildkite-agent", "oidc", "request-token",
			"--audience", t.audience)
		command.WaitDelay = time.Second
		out, err := command.Output()
		return strings.TrimSpace(string(out)), err
	}
	return t.token, nil
}

// askGitHub asks the service of GitHub Actions for a token.
func (t *tokenSource) askGitHub(ctx context.Context) (string, error) {
	address, key := githubTokenRequest()
	u, err := url.Parse(address)
	if err != nil {
		return "", fmt.Errorf("%s is no URL", githubTokenURL)
	}
	q := u.Query()
	q.Set("audience", t.audience)
	u.RawQuery = q.Encode()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return "", fmt.Errorf("%s is no URL", githubTokenURL)
	}
	request.Header.Set("Authorization", "Bearer "+key)
	request.Header.Set("Accept", "application/json")
	request.Header.Set("User-Agent", "call-me")
	answer, err := http.DefaultTransport.RoundTrip(request) // which follows no redirect
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxToken))
	if err != nil {
		return "", err
	}
	if answer.StatusCode != http.StatusOK {
		return "", fmt.Errorf("it answers with status %d", answer.StatusCode)
	}
	var reply struct{ Value string }
	if json.Unmarshal(body, &reply) != nil {
		return "", errors.New("its answer is no JSON")
	}
	return reply.Value, nil
}
