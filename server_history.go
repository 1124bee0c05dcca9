package main

// GET /history: pages of past events, and the JSON of an event. lock_history.go keeps the
// events, server_events.go sends new ones as they happen.

import (
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// eventToJSON returns an event as everyone may see it, without its id.
func eventToJSON(e *event) eventJSON {
	return eventJSON{
		Number:        e.number,
		At:            wireTime(e.at),
		Event:         untrusted(e.kind.String()),
		Environment:   untrusted(e.environment),
		Slot:          untrusted(e.slot),
		Holder:        untrusted(e.holder),
		URL:           untrusted(e.url),
		Reason:        untrusted(e.reason),
		Fence:         e.fence,
		WaitedSeconds: e.waited.Seconds(),
		HeldSeconds:   e.held.Seconds(),
		By:            untrusted(e.by),
		From:          untrusted(e.from),
	}
}

// history answers GET /history: a page of events, newest first, and the number to give as
// before for the next page, if there is one.
func (s *server) history(w http.ResponseWriter, r *http.Request) error {
	q, err := readQuery(w, r)
	if err != nil {
		return err
	}
	filter, err := q.eventFilter(time.Now())
	if err != nil {
		return err
	}
	found, more := s.keeper.events(filter)
	page := historyJSON{Events: make([]eventJSON, len(found))}
	for i, e := range found {
		page.Events[i] = eventToJSON(e)
	}
	if more {
		page.Next = found[len(found)-1].number
	}
	return writeJSON(w, http.StatusOK, page)
}

// eventFilter returns the filter of the events that the call selects by environment,
// holder, since, limit and before. since is an age, counted back from now. The limit is
// 1 to maxPage, and defaultPage if it is missing or empty. Its error is errParameter.
func (q query) eventFilter(now time.Time) (f eventFilter, err error) {
	f = eventFilter{environment: q.get("environment"), holder: q.get("holder"), limit: defaultPage}
	if f.environment != "" {
		if err := checkEnvironment(f.environment); err != nil {
			return f, err
		}
	}
	if err := checkText("holder", f.holder, maxHolder); err != nil {
		return f, err
	}
	if text := q.get("since"); text != "" {
		d, err := parseAge(text)
		if err != nil {
			return f, fmt.Errorf("%w: since must be a duration such as 24h or 7d", errParameter)
		}
		f.since = now.Add(-d)
	}
	if text := q.get("limit"); text != "" {
		f.limit, err = strconv.Atoi(text)
		if err != nil || f.limit < 1 || f.limit > maxPage {
			return f, fmt.Errorf("%w: limit must be 1 to %d", errParameter, maxPage)
		}
	}
	if text := q.get("before"); text != "" {
		f.before, err = strconv.ParseUint(text, 10, 64)
		if err != nil {
			return f, fmt.Errorf("%w: before must be the number of an event", errParameter)
		}
	}
	return f, nil
}
