package main

// What a key is limited to, on the client's side: a request for which the user has named no ttl
// takes the one that the key allows, and doctor asks what the key may do.

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"time"
)

// allowedTTL returns the longest ttl that the key allows, if err is the answer to a call that
// asked for a longer one.
func allowedTTL(err error) (time.Duration, bool) {
	var reply *apiError
	if !errors.As(err, &reply) || reply.Limit == nil || reply.Limit.Name != "max-ttl" {
		return 0, false
	}
	allowed := seconds(reply.Limit.Seconds)
	return allowed, allowed > 0
}

// withAllowedTTL returns the options with the longest ttl that the key allows, and whether a
// request with them may succeed where err was the answer. It may not if the user has named the
// ttl, or if that is too short.
func (o acquireOptions) withAllowedTTL(err error) (acquireOptions, bool) {
	allowed, isKnown := allowedTTL(err)
	if !isKnown || !o.anyTTL || allowed < o.leastTTL {
		return o, false
	}
	o.ttl, o.anyTTL = allowed, false
	return o, true
}

// keyOf asks one server what the key may do; nil if it does not say, such as an older one.
func (c *client) keyOf(ctx context.Context, to *address) *keyJSON {
	response, err := c.send(ctx, to, http.MethodGet, "/key", url.Values{})
	if err != nil {
		return nil
	}
	defer response.Body.Close()
	key := &keyJSON{}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxBody))
	isKey := err == nil && response.StatusCode == http.StatusOK && json.Unmarshal(body, key) == nil
	if !isKey || key.Role == "" {
		return nil
	}
	return key
}
