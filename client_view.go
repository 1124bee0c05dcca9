package main

// What the client reads of the history. The state is read in client_state.go.

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
)

// history returns all events of an environment, or of all environments if the name is
// empty, the newest first. since is how far to look back, such as 24h or 7d. history
// reads as many pages as there are. If the server goes away after the first one, it waits
// for it for callTime. After an error it returns the events read so far, and an error of
// try.
func (c *client) history(ctx context.Context, environment, since string) (historyJSON, error) {
	all := historyJSON{Events: []eventJSON{}}
	values := url.Values{"since": {since}, "limit": {strconv.Itoa(maxPage)}}
	if environment != "" {
		values.Set("environment", environment)
	}
	for {
		page := historyJSON{}
		r := c.newRetrier(callTime, nil)
		r.once = true
		if err := c.try(ctx, r, c.callLimit(), http.MethodGet, "/history", values, &page); err != nil {
			return all, err
		}
		all.Events = append(all.Events, page.Events...)
		if page.Next == 0 {
			return all, nil
		}
		values.Set("before", strconv.FormatUint(page.Next, 10))
	}
}

// historyTime is how long the server keeps its history.
const historyTime = "720h"

// checkKnown returns an error if the server knows nothing of an environment: it is not
// declared, nobody has a slot of it or waits for one, and nothing has happened to it for
// as long as the server keeps its history. The error has the most similar known
// name. A call that fails is no reason for an error.
func (c *client) checkKnown(ctx context.Context, name string) error {
	events := func(values url.Values) (names []string) {
		page := historyJSON{}
		values.Set("since", historyTime)
		if err := c.do(ctx, c.callLimit(), http.MethodGet, "/history", values, &page); err != nil {
			return nil
		}
		for _, e := range page.Events {
			names = append(names, string(e.Environment))
		}
		return names
	}
	all, err := c.environments(ctx, "")
	if err != nil {
		return nil
	}
	var known []string
	for _, e := range all.Environments {
		known = append(known, string(e.Environment))
	}
	known = append(known, events(url.Values{"environment": {name}})...)
	if slices.Contains(known, name) {
		return nil
	}
	known = append(known, events(url.Values{"limit": {strconv.Itoa(maxPage)}})...)
	return fmt.Errorf("%q was never used on this server%s", name, didYouMean(name, known))
}

// knows reports whether the server knows each of the environments, as checkKnown does. It
// repeats a call that fails, for up to maxFirstResponse, and is false if none succeeds.
func (c *client) knows(ctx context.Context, names []string) bool {
	r := c.newRetrier(maxFirstResponse, nil)
	all := environmentsJSON{}
	if c.try(ctx, r, c.callLimit(), http.MethodGet, "/environments", url.Values{}, &all) != nil {
		return false
	}
	for _, name := range names {
		isNamed := func(e environmentJSON) bool { return string(e.Environment) == name }
		if slices.ContainsFunc(all.Environments, isNamed) {
			continue
		}
		page := historyJSON{}
		values := url.Values{"environment": {name}, "since": {historyTime}}
		err := c.try(ctx, r, c.callLimit(), http.MethodGet, "/history", values, &page)
		isOf := func(e eventJSON) bool { return string(e.Environment) == name } // others are of all
		if err != nil || !slices.ContainsFunc(page.Events, isOf) {
			return false
		}
	}
	return true
}
