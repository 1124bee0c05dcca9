package main

// The way to a server: connections, proxies of the machine, and what errors of the network
// and answers that are not call-me's mean.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"
)

// vanishTime is how long the client waits for any sign of life of the machine at the other
// end of a connection: when nothing was sent, and when what was sent is not acknowledged.
const vanishTime = 11 * time.Second

// newDialer returns a dialer for one of a number of servers. It notices within vanishTime
// that the machine of the server has vanished, on Linux also while it has not acknowledged a
// request. If there are several servers, a connection must be made within 2 s, otherwise
// within 5 s.
func newDialer(servers int) *net.Dialer {
	d := &net.Dialer{
		Timeout: 5 * time.Second,
		// The idle time, and the probes without a reply: vanishTime together.
		KeepAliveConfig: net.KeepAliveConfig{
			Enable: true, Idle: 5 * time.Second, Interval: 2 * time.Second, Count: 3,
		},
		Control: limitUnacknowledged,
	}
	if servers > 1 {
		d.Timeout = 2 * time.Second
	}
	return d
}

// wayError returns the error of a call without a response: errUnreachable, errUnknownHost,
// errProxy, errUntrusted, errPlain or errSecure, each with a hint where the remedy is known;
// ctx's if ctx was cancelled. It names the proxy if there is one.
func (c *client) wayError(ctx context.Context, to *address, request *http.Request, err error) error {
	if ctx.Err() == context.Canceled {
		return ctx.Err()
	}
	if err := trustError(to.base, err); err != nil {
		return err
	}
	reason := netErrorText(err)
	if proxy, variable := proxyOf(request); proxy != "" {
		hint := "to call the server without the proxy: NO_PROXY=" + request.URL.Hostname()
		var op *net.OpError
		isNetwork := errors.As(err, &op) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, io.EOF)
		if request.URL.Scheme == "https" && !isNetwork { // the proxy's answer to CONNECT
			return withHint(fmt.Errorf("%w %s: %s (%s=%s)", errProxy, to.base, reason, variable, proxy), hint)
		}
		return withHint(fmt.Errorf("%w %s through the proxy %s (%s): %s",
			errUnreachable, to.base, proxy, variable, reason), hint)
	}
	var dns *net.DNSError
	if errors.As(err, &dns) && dns.IsNotFound {
		return withHint(fmt.Errorf("%w %s", errUnknownHost, dns.Name), "check HOST, it has "+to.base)
	}
	err = fmt.Errorf("%w %s: %s", errUnreachable, to.base, reason)
	if reason == refusedText {
		return withHint(err, "does the server run, and is its port the one in HOST?")
	}
	return err
}

// refusedText is the netErrorText of a connection that was refused.
const refusedText = "nothing listens there"

// netErrorText returns the text of an error of net/http for people: without the method, the
// URL and the names of system calls.
func netErrorText(err error) string {
	var timeout net.Error
	var system syscall.Errno
	var outer *url.Error
	var op *net.OpError
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "no answer in time"
	case errors.Is(err, syscall.ECONNREFUSED):
		return refusedText
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the connection was closed"
	case errors.As(err, &system):
		return system.Error()
	case errors.As(err, &op):
		return op.Err.Error()
	case errors.As(err, &outer):
		return outer.Err.Error()
	}
	return err.Error()
}

// proxyOf returns the proxy that a request goes through, without its user and password,
// and the variable that names it; both empty if there is none.
func proxyOf(request *http.Request) (proxy, variable string) {
	found, err := http.ProxyFromEnvironment(request)
	if err != nil || found == nil {
		return "", ""
	}
	upper := strings.ToUpper(request.URL.Scheme) + "_PROXY"
	for _, name := range []string{upper, strings.ToLower(upper)} {
		if os.Getenv(name) != "" {
			return found.Host, name
		}
	}
	return found.Host, upper
}

// foreignError returns the error of a response that is not call-me's: errUnreachable for a
// proxy without a server behind it, errSecure, errRedirected, errVersion1, errNoSuchPage or
// errNotCallMe, each with a hint.
func (c *client) foreignError(ctx context.Context, to *address, response *http.Response, body []byte) error {
	status := response.StatusCode
	if status >= 502 && status <= 504 || status >= 520 && status <= 530 { // the latter are Cloudflare's
		err := fmt.Errorf("%w %s: a proxy answers %s", errUnreachable, to.base, response.Status)
		return c.proxyHint(err, response)
	}
	if isPlainToTLS(response, body) {
		return secureError(to.base)
	}
	if target, err := response.Location(); err == nil {
		err := fmt.Errorf("%s %w to %s", to.base, errRedirected, target.Scheme+"://"+target.Host)
		if target.Host == "" || target.Path != response.Request.URL.Path {
			return withHint(err, "check HOST; a proxy or another program may answer there")
		}
		return withHint(err, "HOST="+target.Scheme+"://"+target.Host)
	}
	if c.isVersion1(ctx, to, response, body) {
		return withHint(fmt.Errorf("%s %w", to.base, errVersion1),
			"start `call-me serve` of this version in its place, on its call-me.db; its clients can stay")
	}
	kind := errNotCallMe
	if status == http.StatusNotFound {
		kind = errNoSuchPage
	}
	return c.proxyHint(fmt.Errorf("%s %w: %s", to.base, kind, responseText(response)), response)
}

// proxyHint returns err with a hint: where the answer may come from.
func (c *client) proxyHint(err error, response *http.Response) error {
	if proxy, variable := proxyOf(response.Request); proxy != "" {
		return withHint(err, fmt.Sprintf("the call went through the proxy %s (%s); without it: NO_PROXY=%s",
			proxy, variable, response.Request.URL.Hostname()))
	}
	if errors.Is(err, errUnreachable) {
		return err
	}
	return withHint(err, "check HOST; a proxy or another program may answer there")
}

// responseText returns the status of a response, and the type of its body if it has one.
func responseText(response *http.Response) string {
	if kind := response.Header.Get("Content-Type"); kind != "" {
		return response.Status + " (" + kind + ")"
	}
	return response.Status
}

// isVersion1 reports whether the response is that of a call-me of 2019. That answers calls
// that it does not know with 404, 405 or 415, and describes itself at /swagger.json.
func (c *client) isVersion1(ctx context.Context, to *address, response *http.Response, body []byte) bool {
	var reply errorJSON
	if json.Unmarshal(body, &reply) != nil || reply.Code != response.StatusCode {
		return false
	}
	request, err := c.newRequest(ctx, to.base, http.MethodGet, "/swagger.json", url.Values{})
	if err != nil {
		return false
	}
	description, err := c.http.Do(request)
	if err != nil {
		return false
	}
	defer description.Body.Close()
	var swagger struct{ Info struct{ Title string } }
	err = json.NewDecoder(io.LimitReader(description.Body, maxBody)).Decode(&swagger)
	return err == nil && swagger.Info.Title == "call-me"
}
