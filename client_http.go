package main

// One HTTP call to the server, and the meaning of its response.
//
// Not here: when a call is repeated, which is in client_retry.go.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
)

// The errors of a call that are not in the table of errors.go.
var (
	errUnreachable = errors.New("cannot reach")
	errNotCallMe   = errors.New("this is not call-me's answer")
)

// A client makes calls to one server. Several goroutines may use it at once.
type client struct {
	base   string // URL of the server, without a slash at its end
	keys   KeyConfig
	caFile string                 // empty for the system's authorities
	key    atomic.Pointer[string] // nil if the calls need none
	http   *http.Client
}

// newClient returns a client for the server in the configuration. It reads the CA file
// and the key, and makes no call. It uses HTTP/1 only and follows no redirects. Errors:
// errUsage, or an error of reading the key.
func newClient(c clientConfig) (*client, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DialContext = (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}).DialContext
	trust, err := clientTLS(c.CAFile)
	if err != nil {
		return nil, err
	}
	transport.TLSClientConfig = trust
	transport.Protocols = onlyHTTP1()
	transport.ForceAttemptHTTP2 = false
	created := &client{base: string(c.Host), keys: c.KeyConfig, caFile: c.CAFile, http: &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	return created, created.readKey()
}

// readKey reads the key from the configuration or its file. It may be called again,
// since the operator may change the key. After an error the client keeps its key.
func (c *client) readKey() error {
	keys, err := c.keys.keys()
	if err == nil {
		c.key.Store(&keys[0])
	}
	return err
}

// hasNewKey reads the key again, and reports whether it has changed.
func (c *client) hasNewKey() bool {
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

// Unwrap returns the error of the status, or nil for a status that the table does not have.
func (e *apiError) Unwrap() error { return failureOf(e.Code) }

// do makes one call and decodes the JSON response into the given value; nil expects a
// response without a body. It reads 64 MiB of a response at most. Errors: *apiError,
// errUnreachable, errNotCallMe, errUntrusted, errPlain, errSecure, and ctx's if ctx was
// cancelled. A ctx whose deadline has passed gives errUnreachable.
func (c *client) do(ctx context.Context, method, path string, values url.Values, into any) error {
	request, err := c.newRequest(ctx, method, path, values)
	if err != nil {
		return err
	}
	response, err := c.http.Do(request)
	if err != nil {
		if ctx.Err() == context.Canceled {
			return ctx.Err()
		}
		if err := trustError(c.base, err); err != nil {
			return err
		}
		if errors.Is(err, io.EOF) && method == http.MethodDelete && c.meetsTLS(ctx) {
			return secureError(c.base)
		}
		return fmt.Errorf("%w %s: %w", errUnreachable, c.base, plainNetError(err))
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 64<<20))
	if err != nil {
		return fmt.Errorf("%w %s: %w", errUnreachable, c.base, plainNetError(err))
	}
	if isPlainToTLS(response, body) {
		return secureError(c.base)
	}
	return parseResponse(response, body, values.Get("environment"), into)
}

// meetsTLS reports whether the server expects TLS on the port of a plain HTTP client. It
// makes a GET call, to which net/http responds with a sentence that says so. After a
// DELETE net/http closes the connection without a response.
func (c *client) meetsTLS(ctx context.Context) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+"/healthz", nil)
	if err != nil {
		return false
	}
	response, err := c.http.Do(request)
	if err != nil {
		return false
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(response.Body, maxBody))
	return isPlainToTLS(response, body)
}

// newRequest returns a request with the values and the key. For POST and PUT the
// environment is in the URL, so that a proxy's log shows it, and the other values are a
// form in the body. For other methods all values are in the URL.
func (c *client) newRequest(
	ctx context.Context, method, path string, values url.Values,
) (*http.Request, error) {
	inURL, body := url.Values{}, ""
	if method == http.MethodPost || method == http.MethodPut {
		inURL.Set("environment", values.Get("environment"))
		values.Del("environment")
		body = values.Encode()
		values.Set("environment", inURL.Get("environment"))
	} else {
		inURL = values
	}
	target := c.base + path + "?" + inURL.Encode()
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
	request.Header.Set("Accept", "application/json")
	request.Header.Set("User-Agent", "call-me")
	return request, nil
}

// plainNetError returns err without the method and the URL that net/http prepends. It
// returns "no answer in time" for a deadline that has passed.
func plainNetError(err error) error {
	var outer *url.Error
	if errors.As(err, &outer) {
		err = outer.Err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return errors.New("no answer in time")
	}
	return err
}

// A checkedBody is a response body that can be distinguished from other JSON. isFor
// reports whether it is a response of call-me about the environment.
type checkedBody interface{ isFor(environment string) bool }

// parseResponse decodes the response of a call-me server into the given value and
// returns nil, or returns the error that the response means. It distinguishes call-me's
// responses from those of other programs at the same address. It never takes an unknown
// response for a success or for "in the queue". Errors: *apiError, errUnreachable for a
// proxy without a server behind it, and errNotCallMe.
func parseResponse(response *http.Response, body []byte, environment string, into any) error {
	status := response.StatusCode
	isJSON := strings.HasPrefix(response.Header.Get("Content-Type"), "application/json")
	switch {
	case status == http.StatusNoContent && into == nil:
		return nil
	case status < 300 && isJSON && into != nil:
		err := json.Unmarshal(body, into)
		checked, ok := into.(checkedBody)
		if err == nil && (!ok || checked.isFor(environment)) {
			return nil
		}
	case status >= 400 && isJSON:
		reply := &apiError{}
		err := json.Unmarshal(body, &reply.errorJSON)
		named := status == http.StatusForbidden || status == http.StatusConflict || status == http.StatusGone
		if err == nil && reply.Code == status && reply.Message != "" && (!named || reply.isFor(environment)) {
			return reply
		}
	}
	switch status {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return fmt.Errorf("%w the server: a proxy answers %s", errUnreachable, response.Status)
	}
	what := response.Header.Get("Content-Type")
	if to := response.Header.Get("Location"); to != "" {
		what = "to " + to
	}
	err := fmt.Errorf("%w: %s (%s)", errNotCallMe, response.Status, what)
	return withHint(err, "check HOST; a proxy or another program may stand there")
}
