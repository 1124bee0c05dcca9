package main

// The servers of a client: which of them a call goes to, and what a failed call says about
// the server. docs/design.md has the rules in "A server that is away".

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"
)

// The errors of a call that are not in the table of errors.go. Each is trouble with the
// server or with the way to it.
var (
	errUnreachable = errors.New("cannot reach")
	errNotCallMe   = errors.New("does not answer as call-me")
	errProxy       = errors.New("the proxy refuses")
	errUnknownHost = errors.New("there is no host")
	errRedirected  = errors.New("redirects")
	errVersion1    = errors.New("is a call-me of version 1, which this client cannot use")

	// errNoSuchPage is the errNotCallMe of a response with status 404.
	errNoSuchPage = fmt.Errorf("%w", errNotCallMe)
)

// An address is a server of HOST.
type address struct {
	base    string      // its URL, without a slash at its end
	isKnown atomic.Bool // a call-me has answered there
}

// newAddresses returns the addresses of the URLs, in their order.
func newAddresses(urls serverURLs) []*address {
	var all []*address
	for _, base := range urls {
		all = append(all, &address{base: base})
	}
	return all
}

// urls returns the addresses of the client in the order in which the next call tries them.
func (c *client) urls() serverURLs {
	var all serverURLs
	first := int(c.current.Load())
	for i := range c.addresses {
		all = append(all, c.addresses[(first+i)%len(c.addresses)].base)
	}
	return all
}

// callLimit returns how long the response to a call that does not wait may take. It is
// shorter if there is another address: a call with a limit of callTime tries two.
func (c *client) callLimit() time.Duration {
	if len(c.addresses) > 1 {
		return callTime / 2
	}
	return callTime
}

// turn calls attempt with the address that has answered last. While the server there is
// away, it calls attempt with the next address, until each had its attempt or ctx ends. The
// next turn begins with the address that has answered in this one. Errors: that of attempt,
// or an awayError if there are several addresses and all are away.
func (c *client) turn(ctx context.Context, attempt func(*address) error) error {
	first, n := c.current.Load(), int32(len(c.addresses)) // #nosec G115 -- HOST has few addresses
	var failed awayError
	for i := range n {
		at := (first + i) % n
		err := attempt(c.addresses[at])
		if troubleOf(err) == noTrouble {
			c.current.Store(at)
			return err
		}
		c.current.CompareAndSwap(at, (at+1)%n)
		failed = append(failed, err)
		if n == 1 || ctx.Err() != nil {
			return err
		}
	}
	return failed
}

// An awayError has the error of each address, all of which are away.
type awayError []error

// Error returns the errors in one line.
func (e awayError) Error() string {
	var texts []string
	for _, err := range e {
		texts = append(texts, err.Error())
	}
	return strings.Join(texts, "; ")
}

// Unwrap returns the errors, so that errors.Is and errors.As find each.
func (e awayError) Unwrap() []error { return e }

// A trouble is what a failed call says about the server.
type trouble int

const (
	noTrouble   trouble = iota // it has answered; or the call has not failed, or was not made
	failing                    // it has answered that it fails: a bug, which may be over at the next call
	unreachable                // there is no answer, or it answers that it cannot serve now
	foreign                    // the answer is not call-me's
	hopeless                   // the address or its server is not the right one
)

// troubleOf returns the trouble that an error of a call means. Of an awayError it is the
// least trouble of an address.
func troubleOf(err error) trouble {
	if all, several := err.(awayError); several {
		least := hopeless
		for _, one := range all {
			least = min(least, troubleOf(one))
		}
		return least
	}
	for _, kind := range []struct {
		err error
		is  trouble
	}{
		{errInternal, failing},
		{errUnreachable, unreachable}, {errUnavailable, unreachable},
		{errNoSuchPage, hopeless},
		{errNotCallMe, foreign}, {errProxy, foreign},
		{errUnknownHost, hopeless}, {errRedirected, hopeless}, {errVersion1, hopeless},
		{errUntrusted, hopeless}, {errPlain, hopeless}, {errSecure, hopeless},
	} {
		if errors.Is(err, kind.err) {
			return kind.is
		}
	}
	return noTrouble
}
