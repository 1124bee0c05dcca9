package main

// One HTTP call to a server, and the meaning of call-me's response.
//
// Not here: the way to the server and the answers of others (client_way.go), which server
// is called (client_address.go), and when a call is repeated (client_retry.go).

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// A client makes calls to the servers of HOST. Several goroutines may use it at once.
type client struct {
	addresses []*address   // at least one
	current   atomic.Int32 // the index of the address that the next call tries first
	answered  atomic.Bool  // a call-me has answered a call of this client
	keys      KeyConfig
	caFile    string                 // empty for the system's authorities
	key       atomic.Pointer[string] // nil if the calls need none, or have a token
	tokens    *tokenSource           // nil with a key
	http      *http.Client
}

// newClient returns a client for the servers in the configuration. It reads the CA file
// and the key, and makes no call; a token is had with the first call. It uses HTTP/1 only and
// follows no redirects. Errors: errUsage, or an error of reading the key.
func newClient(c clientConfig) (*client, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DialContext = newDialer(len(c.Host)).DialContext
	trust, err := clientTLS(c.CAFile)
	if err != nil {
		return nil, err
	}
	transport.TLSClientConfig = trust
	transport.Protocols = onlyHTTP1()
	transport.ForceAttemptHTTP2 = false
	created := &client{addresses: newAddresses(c.Host), keys: c.KeyConfig, caFile: c.CAFile}
	created.http = &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	created.tokens, err = newTokenSource(c)
	if err != nil || created.tokens != nil {
		return created, err
	}
	return created, created.readKey()
}

// readKey reads the key from the configuration or its file. It may be called again,
// since the operator may change the key. After an error the client keeps its key.
func (c *client) readKey() error {
	key, err := c.keys.sentKey()
	if err == nil {
		c.key.Store(&key)
	}
	return err
}

// hasNewKey reads the key again, or gets another token, and reports whether it has changed.
func (c *client) hasNewKey(ctx context.Context) bool {
	if c.tokens != nil {
		return c.tokens.renew(ctx)
	}
	before := c.key.Load()
	return c.readKey() == nil && *c.key.Load() != *before
}

// refusesKey reports whether the server rejected the key. A server that gets many wrong
// keys responds to them with errTooMany instead of errKey.
func refusesKey(err error) bool { return errors.Is(err, errKey) || errors.Is(err, errTooMany) }

// An apiError is the JSON body of an error response of the server. It unwraps to the
// error that the table of errors.go has for its status.
type apiError struct {
	errorJSON
}

// Error returns the server's message.
func (e *apiError) Error() string { return e.Message.String() }

// Unwrap returns the error of endedByOthers, errForbidden if the key may not do this, else that
// of the status; nil for a status that the table does not have.
func (e *apiError) Unwrap() error {
	if err := e.endedByOthers(); err != nil {
		return err
	}
	if e.isForbidden() {
		return errForbidden
	}
	return failureOf(e.Code)
}

// do makes one call and decodes the JSON response into the given value; nil and a
// *releaseReport expect a response without a body. While a server is away it makes the call
// to the next one, until each has had one (turn). each is the time limit for one server. It reads 64 MiB of a
// response at most. Errors: *apiError, a keyError, those of send, and ctx's if ctx was
// cancelled. A ctx whose deadline has passed gives errUnreachable.
func (c *client) do(
	ctx context.Context, each time.Duration, method, path string, values url.Values, into any,
) error {
	return c.turn(ctx, func(to *address) error {
		limited, cancel := context.WithTimeout(ctx, each)
		defer cancel()
		if err := c.identify(limited, to, method, values); err != nil {
			return err
		}
		response, err := c.send(limited, to, method, path, values)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		body, err := io.ReadAll(io.LimitReader(response.Body, 64<<20))
		if err != nil {
			return c.wayError(limited, to, response.Request, err)
		}
		return c.parseResponse(to, response, body, environmentsIn(values), into)
	})
}

// identify makes sure, before a DELETE, that the server is a call-me of this version. One
// of 2019 would free the slot whoever has it. If none has answered at the address yet,
// identify asks for the state of the environment. Errors: those of send.
func (c *client) identify(ctx context.Context, to *address, method string, values url.Values) error {
	if method != http.MethodDelete || to.isKnown.Load() {
		return nil
	}
	response, err := c.send(ctx, to, http.MethodGet, "/environments",
		url.Values{"environment": {values.Get("environment")}})
	if err != nil {
		return err
	}
	defer response.Body.Close()
	io.Copy(io.Discard, io.LimitReader(response.Body, maxBody)) // the connection can be used again
	return nil
}

// send makes one call to the server at the address. It returns the response if it is
// call-me's own, whatever its status. The caller must close its body. Errors: those of
// wayError and of foreignError, and ctx's if ctx was cancelled.
func (c *client) send(
	ctx context.Context, to *address, method, path string, values url.Values,
) (*http.Response, error) {
	request, err := c.newRequest(ctx, to.base, method, path, values)
	if err != nil {
		return nil, err
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, c.wayError(ctx, to, request, err)
	}
	if response.Header.Get(versionHeader) == "" {
		defer response.Body.Close()
		body, _ := io.ReadAll(io.LimitReader(response.Body, maxBody))
		return nil, c.foreignError(ctx, to, response, body)
	}
	to.isKnown.Store(true)
	c.answered.Store(true)
	return response, nil
}

// newRequest returns a request with the values and the key. For POST and PUT the
// environment is in the URL, so that a proxy's log shows it, and the other values are a
// form in the body. For other methods all values are in the URL.
func (c *client) newRequest(
	ctx context.Context, base, method, path string, values url.Values,
) (*http.Request, error) {
	inURL, body := values, ""
	if method == http.MethodPost || method == http.MethodPut {
		form := maps.Clone(values)
		delete(form, "environment")
		inURL, body = url.Values{"environment": values["environment"]}, form.Encode()
	}
	target := base + path + "?" + inURL.Encode()
	request, err := http.NewRequestWithContext(ctx, method, target, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if key := c.key.Load(); key != nil {
		request.Header.Set("X-API-KEY", *key)
	}
	if c.tokens != nil {
		token, err := c.tokens.current(ctx)
		if err != nil {
			return nil, err
		}
		request.Header.Set("Authorization", "Bearer "+token)
	}
	request.Header.Set("Accept", "application/json")
	request.Header.Set("User-Agent", "call-me")
	return request, nil
}

// A checkedBody is a response body that can be distinguished from other JSON. isFor
// reports whether it is a response of call-me about the environment.
type checkedBody interface{ isFor(environment string) bool }

// environmentsIn returns the environments that the parameters of a call name; an empty name
// if there are none.
func environmentsIn(values url.Values) []string {
	if names := values["environment"]; len(names) > 0 {
		return names
	}
	return []string{""}
}

// parseResponse decodes the response of a call-me server into the given value and
// returns nil, or returns the error that the response means. It never takes an unknown
// response for a success or for "in the queue": a success is about all of the environments,
// an error about one of them. Errors: *apiError, a keyError if the server rejects the key,
// and errNotCallMe.
func (c *client) parseResponse(
	from *address, response *http.Response, body []byte, environments []string, into any,
) error {
	status := response.StatusCode
	report, isReport := into.(*releaseReport)
	switch {
	case status == http.StatusNoContent && into == nil:
		return nil
	case status == http.StatusNoContent && isReport:
		report.readHeader(response.Header)
		return nil
	case status < 300 && isJSON(response) && into != nil:
		err := json.Unmarshal(body, into)
		checked, ok := into.(checkedBody)
		isMissing := func(name string) bool { return !checked.isFor(name) }
		if err == nil && (!ok || !slices.ContainsFunc(environments, isMissing)) {
			return nil
		}
	case status >= 400 && isJSON(response):
		reply := &apiError{}
		err := json.Unmarshal(body, &reply.errorJSON)
		named := status == http.StatusForbidden || status == http.StatusConflict || status == http.StatusGone
		isOurs := !named || reply.isForbidden() || slices.ContainsFunc(environments, reply.isFor)
		if err == nil && reply.Code == status && reply.Message != "" && isOurs {
			return c.nameKey(from, reply)
		}
	}
	return fmt.Errorf("%s %w: %s", from.base, errNotCallMe, responseText(response))
}

// isJSON reports whether the body of a response is JSON.
func isJSON(response *http.Response) bool {
	return strings.HasPrefix(response.Header.Get("Content-Type"), "application/json")
}

// A keyError is the answer of a server that rejects the key.
type keyError struct {
	*apiError
	base     string
	variable string // that has the key, or the name of its file; or where the token comes from
	isToken  bool
}

// Error names the server and the variable, and why a token is refused.
func (e keyError) Error() string {
	text := fmt.Sprintf("%s refuses the key in %s", e.base, e.variable)
	if e.isToken {
		text = fmt.Sprintf("%s refuses the token from %s: %s", e.base, e.variable, e.Message)
	}
	if errors.Is(e.apiError, errTooMany) {
		text += ", and there were too many wrong keys; it answers one a second"
	}
	return text
}

// Unwrap returns the answer.
func (e keyError) Unwrap() error { return e.apiError }

// nameKey returns the answer as a keyError, with a hint, if it rejects the key; otherwise
// the answer itself.
func (c *client) nameKey(from *address, reply *apiError) error {
	if !refusesKey(reply) {
		return reply
	}
	if c.tokens != nil {
		return withHint(keyError{reply, from.base, c.keyVariable(), true},
			"compare issuer, audience and claims with the file of CALL_ME_OIDC_FILE of that server")
	}
	return withHint(keyError{reply, from.base, c.keyVariable(), false},
		"compare it with the API_KEY of that server, or the file of its API_KEY_FILE")
}
