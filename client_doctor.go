package main

// The client of call-me doctor: how each server of HOST is reached, and whether it accepts
// the key.

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// A wayReport says how one server was reached.
type wayReport struct {
	base     string
	proxy    string        // the proxy and the variable that names it; empty without one
	protocol string        // the version of TLS, or "plain HTTP"
	version  string        // the version of the API
	release  string        // which call-me the server is; empty if the key is not accepted
	ahead    time.Duration // the server's clock less the local one, to about a second
	isTimed  bool          // the response had a time
	err      error         // why the server was not reached; nil if it was
	keyErr   error         // why the server does not serve this client; nil if it does
	key      *keyJSON      // what the key may do; nil if the server does not say
}

// examine makes one call to each server of HOST and returns a report of each, in the order
// of HOST. It repeats no call, and waits callTime for each.
func (c *client) examine(ctx context.Context) []wayReport {
	var all []wayReport
	for _, to := range c.addresses {
		all = append(all, c.examineOne(ctx, to))
	}
	return all
}

// examineOne returns the report of one server. It asks for the history with one event,
// which needs the key and has a short response.
func (c *client) examineOne(ctx context.Context, to *address) wayReport {
	limited, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	report := wayReport{base: to.base}
	response, err := c.send(limited, to, http.MethodGet, "/history", url.Values{"limit": {"1"}})
	if err != nil {
		report.err = err
		return report
	}
	defer response.Body.Close()
	if at, err := http.ParseTime(response.Header.Get("Date")); err == nil {
		report.isTimed = true
		report.ahead = time.Until(at.Add(time.Second / 2)) // the header has whole seconds
	}
	if proxy, variable := proxyOf(response.Request); proxy != "" {
		report.proxy = proxy + " (" + variable + ")"
	}
	report.protocol = "plain HTTP"
	if response.TLS != nil {
		report.protocol = tls.VersionName(response.TLS.Version)
	}
	report.version = response.Header.Get(versionHeader)
	report.release, _ = strings.CutPrefix(response.Header.Get("Server"), "call-me ")
	body, err := io.ReadAll(io.LimitReader(response.Body, maxBody))
	if err != nil {
		report.err = c.wayError(limited, to, response.Request, err)
		return report
	}
	report.keyErr = c.parseResponse(to, response, body, []string{""}, &historyJSON{})
	if report.keyErr == nil {
		report.key = c.keyOf(limited, to)
	}
	return report
}

// keyVariable returns the variable that the key is from, or where the token comes from.
func (c *client) keyVariable() string {
	if c.tokens != nil {
		return c.tokens.place.source()
	}
	if c.keys.APIKeyFile != "" {
		return setName(variablePrefix + "_API_KEY_FILE")
	}
	return setName(variablePrefix + "_API_KEY")
}
