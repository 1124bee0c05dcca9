package main

// One call to the server, and what its answer means.

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

// What can go wrong with an answer besides the table of api.go.
var (
	errUnreachable = errors.New("cannot reach")
	errNotCallMe   = errors.New("this is not call-me's answer")
)

// A client speaks to one server. It may be used by several goroutines.
type client struct {
	base   string
	keys   KeyConfig
	caFile string
	key    atomic.Pointer[string]
	http   *http.Client
}

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
	made := &client{base: string(c.Host), keys: c.KeyConfig, caFile: c.CAFile, http: &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	return made, made.readKey()
}

// readKey reads the key, also again: the operator may have changed it.
func (c *client) readKey() error {
	keys, err := c.keys.keys()
	if err == nil {
		c.key.Store(&keys[0])
	}
	return err
}

// hasNewKey reads the key again, and reports whether it is another one.
func (c *client) hasNewKey() bool {
	before := c.key.Load()
	return c.readKey() == nil && *c.key.Load() != *before
}

// refusesKey reports whether an error says that the key is wrong. With many
// wrong keys a server says only that.
func refusesKey(err error) bool { return errors.Is(err, errKey) || errors.Is(err, errTooMany) }

// An apiError is a server's refusal. It is the table's error for its status.
type apiError struct {
	errorJSON
}

func (e *apiError) Error() string { return e.Message.String() }

func (e *apiError) Unwrap() error { return failureOf(e.Code) }

// do makes one call and reads the answer into the given value. Errors are
// *apiError, errUnreachable, errForeign, errUntrusted, errPlain, or ctx's.
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

// meetsTLS asks in plain HTTP whether the server speaks TLS: net/http says so in
// answer to a GET, and closes the connection without a word after a DELETE.
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

// newRequest puts the environment into the URL, where a proxy's log may show
// it, and the rest into a form, unless the method has no body.
func (c *client) newRequest(ctx context.Context, method, path string, values url.Values) (*http.Request, error) {
	inURL, body := url.Values{}, ""
	if method == http.MethodPost || method == http.MethodPut {
		inURL.Set("environment", values.Get("environment"))
		values.Del("environment")
		body = values.Encode()
		values.Set("environment", inURL.Get("environment"))
	} else {
		inURL = values
	}
	request, err := http.NewRequestWithContext(ctx, method, c.base+path+"?"+inURL.Encode(), strings.NewReader(body))
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

// plainNetError drops the method and the URL that net/http puts in front of
// an error, and Go's own words for a time-out.
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

// recognisable is what can be told from any other JSON.
type checkedBody interface{ isFor(environment string) bool }

// understand tells call-me's answers from those of whatever else stands at
// the address. What is not understood is never a yes, and never "in the queue".
func parseResponse(response *http.Response, body []byte, environment string, into any) error {
	status := response.StatusCode
	isJSON := strings.HasPrefix(response.Header.Get("Content-Type"), "application/json")
	switch {
	case status == http.StatusNoContent && into == nil:
		return nil
	case status < 300 && isJSON && into != nil && json.Unmarshal(body, into) == nil:
		if r, ok := into.(checkedBody); !ok || r.isFor(environment) {
			return nil
		}
	case status >= 400 && isJSON:
		refused := &apiError{}
		about := status == http.StatusForbidden || status == http.StatusConflict || status == http.StatusGone
		if json.Unmarshal(body, &refused.errorJSON) == nil && refused.Code == status && refused.Message != "" && (!about || refused.isFor(environment)) {
			return refused
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
	return hint(fmt.Errorf("%w: %s (%s)", errNotCallMe, response.Status, what), "check HOST; a proxy or another program may stand there")
}
