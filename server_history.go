package main

// What has happened, for those who look: GET /history and GET /events. The
// ring itself is lock_history.go's.

import (
	"fmt"
	"net/http"
	"strconv"
	"time"
)

const (
	heartbeat = 15 * time.Second // for proxies that cut silent connections, and to tell a dead one
)

func eventToJSON(e *event) eventJSON {
	return eventJSON{Number: e.number, At: wireTime(e.at), Event: untrusted(e.kind.String()), Environment: untrusted(e.environment),
		Slot: untrusted(e.slot), Holder: untrusted(e.holder), URL: untrusted(e.url), Reason: untrusted(e.reason), Fence: e.fence,
		WaitedSeconds: e.waited.Seconds(), HeldSeconds: e.held.Seconds(), By: untrusted(e.by), From: untrusted(e.from)}
}

// history answers a page of events, newest first.
func (s *server) history(w http.ResponseWriter, r *http.Request) error {
	q, err := readQuery(w, r)
	if err != nil {
		return err
	}
	b, err := q.eventFilter(time.Now())
	if err != nil {
		return err
	}
	found, more := s.keeper.events(b)
	page := historyJSON{Events: make([]eventJSON, len(found))}
	for i, e := range found {
		page.Events[i] = eventToJSON(e)
	}
	if more {
		page.Next = found[len(found)-1].number
	}
	return writeJSON(w, http.StatusOK, page)
}

// lookBack reads which events are asked for.
func (q query) eventFilter(now time.Time) (b eventFilter, err error) {
	b = eventFilter{environment: q.get("environment"), holder: q.get("holder"), limit: defaultPage}
	if b.environment != "" {
		if err := checkEnvironment(b.environment); err != nil {
			return b, err
		}
	}
	if err := checkText("holder", b.holder, maxHolder); err != nil {
		return b, err
	}
	if text := q.get("since"); text != "" {
		d, err := parseAge(text)
		if err != nil {
			return b, fmt.Errorf("%w: since must be a duration such as 24h or 7d", errParameter)
		}
		b.since = now.Add(-d)
	}
	if text := q.get("limit"); text != "" {
		if b.limit, err = strconv.Atoi(text); err != nil || b.limit < 1 || b.limit > largestPage {
			return b, fmt.Errorf("%w: limit must be 1 to %d", errParameter, largestPage)
		}
	}
	if text := q.get("before"); text != "" {
		if b.before, err = strconv.ParseUint(text, 10, 64); err != nil {
			return b, fmt.Errorf("%w: before must be the number of an event", errParameter)
		}
	}
	return b, nil
}
