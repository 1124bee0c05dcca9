package main

// GET /history: pages of past events, and the JSON of an event. lock_history.go keeps the
// events, server_events.go sends new ones as they happen.

import (
	"encoding/csv"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// eventToJSON returns an event as everyone may see it, without its id.
func eventToJSON(e *event) eventJSON {
	return eventJSON{
		Number:        e.number,
		At:            wireTime(e.at),
		Event:         untrusted(e.kind.String()),
		Environment:   untrusted(e.environment),
		All:           e.environment == everywhere,
		Slot:          untrusted(e.slot),
		Holder:        untrusted(e.holder),
		Key:           untrusted(e.key),
		Verified:      untrusted(e.verified),
		URL:           untrusted(e.url),
		Reason:        untrusted(e.reason),
		Fence:         e.fence,
		WaitedSeconds: e.waited.Seconds(),
		HeldSeconds:   e.held.Seconds(),
		By:            untrusted(e.by),
		ByKey:         untrusted(e.byKey),
		From:          untrusted(e.from),
		To:            untrusted(e.to),
		Why:           untrusted(e.why),
		ByURL:         untrusted(e.byURL),
	}
}

// history answers GET /history: a page of events, newest first, and the number to give as
// before for the next page, if there is one. The header Server says which call-me it is: in
// this response only, as a client asks for it once.
func (s *server) history(w http.ResponseWriter, r *http.Request) error {
	q, err := readQuery(w, r)
	if err != nil {
		return err
	}
	who := callerOf(r)
	filter, err := q.eventFilter(time.Now())
	if err == nil {
		err = s.checkSeen(who, []string{filter.environment})
	}
	if err != nil {
		return err
	}
	filter.seen = who.sees
	if q.get("format") == "csv" || strings.Contains(r.Header.Get("Accept"), "text/csv") {
		if q.get("limit") == "" {
			filter.limit = historyEvents
		}
		return s.historyTable(w, filter)
	}
	key := "history" + who.scope()
	for _, name := range []string{"environment", "holder", "since", "limit", "before"} {
		key += fmt.Sprintf(" %q", q.get(name))
	}
	encoded, err := sharedAnswer(&s.renderer, key, func() ([]byte, error) {
		return encodeJSON(s.historyPage(filter))
	})
	if err != nil {
		return err
	}
	w.Header().Set("Server", "call-me "+version())
	sendJSON(w, http.StatusOK, encoded)
	return nil
}

// historyTable answers with the events that the filter selects as CSV, newest first. Text that a
// spreadsheet would take for a formula has an apostrophe before it.
func (s *server) historyTable(w http.ResponseWriter, filter eventFilter) error {
	found, _ := s.keeper.events(filter)
	w.Header().Set("Content-Type", "text/csv; charset=utf-8")
	w.Header().Set("Content-Disposition", `attachment; filename="call-me-history.csv"`)
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	control := http.NewResponseController(w)
	table := csv.NewWriter(w)
	table.Write([]string{"number", "at", "event", "environment", "slot", "holder", "url", "reason", "fence",
		"waited_seconds", "held_seconds", "by", "from", "to", "why", "key", "verified_holder", "by_key"})
	for i, e := range found {
		if i%1000 == 0 {
			control.SetWriteDeadline(time.Now().Add(writeTime))
		}
		number := func(n float64) string { return strconv.FormatFloat(n, 'f', -1, 64) }
		table.Write([]string{strconv.FormatUint(e.number, 10), wireTime(e.at).Format(time.RFC3339),
			e.kind.String(), cellText(e.environment), cellText(e.slot), cellText(e.holder), cellText(e.url),
			cellText(e.reason),
			strconv.FormatUint(e.fence, 10), number(e.waited.Seconds()), number(e.held.Seconds()),
			cellText(e.by), cellText(e.from), cellText(e.to), cellText(e.why),
			cellText(e.key), cellText(e.verified), cellText(e.byKey)})
	}
	table.Flush() // its error is that of the connection: the client is gone
	return nil
}

// cellText returns a text for a cell of a table, on one line.
func cellText(text string) string {
	shown := printable(text)
	if shown != "" && strings.ContainsRune("=+-@", rune(shown[0])) {
		return "'" + shown
	}
	return shown
}

// historyPage returns the events that the filter selects.
func (s *server) historyPage(filter eventFilter) historyJSON {
	found, more := s.keeper.events(filter)
	page := historyJSON{Events: make([]eventJSON, len(found))}
	for i, e := range found {
		page.Events[i] = eventToJSON(e)
	}
	if more {
		page.Next = found[len(found)-1].number
	}
	return page
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
		d, err := parseDuration(text)
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
