package main

// What has happened, for those who look: GET /history and GET /events. The
// ring itself is lock_history.go's.

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	defaultPage = 100              // events of one answer
	largestPage = 1000             // at the most
	heartbeat   = 15 * time.Second // for proxies that cut silent connections, and to tell a dead one
)

// eventJSON is one event as everyone may see it.
type eventJSON struct {
	Number        uint64    `json:"number"`
	At            time.Time `json:"at"`
	Event         foreign   `json:"event"` // granted, released, expired, forced, left, lapsed
	Environment   foreign   `json:"environment"`
	Slot          foreign   `json:"slot,omitempty"`
	Holder        foreign   `json:"holder,omitempty"`
	URL           foreign   `json:"url,omitempty"`
	Reason        foreign   `json:"reason,omitempty"`
	Fence         uint64    `json:"fence,omitempty"`
	WaitedSeconds float64   `json:"waited_seconds"`
	HeldSeconds   float64   `json:"held_seconds"`   // of an ended lease
	By            foreign   `json:"by,omitempty"`   // forced: who
	From          foreign   `json:"from,omitempty"` // forced: from which address
}

// historyJSON is a page of the history, newest first.
type historyJSON struct {
	Events []eventJSON `json:"events"`
	// Next is what to give as before= for the next page; absent: there is none.
	Next uint64 `json:"next,omitempty"`
}

func (h *historyJSON) ours(string) bool { return h.Events != nil }

func eventToJSON(e *event) eventJSON {
	return eventJSON{Number: e.number, At: wireTime(e.at), Event: foreign(e.kind.String()), Environment: foreign(e.environment),
		Slot: foreign(e.slot), Holder: foreign(e.holder), URL: foreign(e.url), Reason: foreign(e.reason), Fence: e.fence,
		WaitedSeconds: e.waited.Seconds(), HeldSeconds: e.held.Seconds(), By: foreign(e.by), From: foreign(e.from)}
}

// A lookBack says which events are asked for.
type lookBack struct {
	environment, holder string    // empty: all
	since               time.Time // zero: from the beginning
	before              uint64    // numbers below this only; 0: all
	limit               int
}

// events returns what has happened, newest first, and whether there are more.
func (k *keeper) events(b lookBack) (found []*event, more bool) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	for _, e := range slices.Backward(k.past.events) {
		switch {
		case e.at.Before(b.since):
			return found, false
		case e.kind == usedUp, b.before != 0 && e.number >= b.before,
			b.environment != "" && e.environment != b.environment, b.holder != "" && e.holder != b.holder:
		case len(found) == b.limit:
			return found, true
		default:
			found = append(found, e)
		}
	}
	return found, false
}

// eventsAfter returns the events with larger numbers, oldest first, and the
// largest number there is.
func (k *keeper) eventsAfter(number uint64) (found []*event, last uint64) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	all := k.past.events
	for len(all) > 0 && all[len(all)-1].number > number {
		all = all[:len(all)-1]
	}
	newer := k.past.events[len(all):]
	for _, e := range newer {
		if e.kind != usedUp {
			found = append(found, e)
		}
	}
	if len(newer) > 0 {
		number = newer[len(newer)-1].number
	}
	return found, number
}

// listen returns a channel that gets a value after each published change,
// one for many where its reader is slow, and a function that ends that.
func (k *keeper) listen() (changed <-chan struct{}, stop func()) {
	c := make(chan struct{}, 1)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.listeners[c] = true
	return c, func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		delete(k.listeners, c)
	}
}

// history answers a page of events, newest first.
func (s *server) history(w http.ResponseWriter, r *http.Request) error {
	q, err := readQuery(w, r)
	if err != nil {
		return err
	}
	b, err := q.lookBack(time.Now())
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

// events sends events as they happen, and "change" when only the line has
// changed; with an environment, the events of that one. A listener that comes
// back with Last-Event-ID misses nothing that the history still has.
func (s *server) events(w http.ResponseWriter, r *http.Request) error {
	q, err := readQuery(w, r)
	if err != nil {
		return err
	}
	of, one := q.find("environment")
	if one {
		if err := checkEnvironment(of); err != nil {
			return err
		}
	}
	ctx, end := s.keys.while(r.Context(), keySumOf(r))
	defer end()
	changed, stop := s.keeper.listen()
	defer stop()
	_, last := s.keeper.eventsAfter(0)
	if id, err := strconv.ParseUint(r.Header.Get("Last-Event-ID"), 10, 64); err == nil {
		last = min(last, id) // with a larger one nothing would ever be new
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx would keep the events to itself
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead { // there is no end to wait for
		return nil
	}
	s.stream(ctx, w, changed, last, of)
	return nil
}

// stream writes until the reader leaves or the server stops. Of: the
// environment; empty: all.
func (s *server) stream(ctx context.Context, w http.ResponseWriter, changed <-chan struct{}, last uint64, of string) {
	control := http.NewResponseController(w)
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	text := ": this is call-me\n\n"
	for {
		control.SetWriteDeadline(time.Now().Add(answerTime))
		if _, err := w.Write([]byte(text)); err != nil || control.Flush() != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-s.keeper.stopped:
			return
		case <-beat.C:
			text = "event: beat\ndata: {}\n\n"
		case <-changed:
			var found []*event
			found, last = s.keeper.eventsAfter(last)
			text = eventText(found, of)
		}
	}
}

// eventText tells of the events of one environment; of the others only that
// something has changed.
func eventText(events []*event, of string) string {
	if of != "" {
		events = slices.DeleteFunc(events, func(e *event) bool { return e.environment != of })
	}
	if len(events) == 0 {
		return "event: change\ndata: {}\n\n"
	}
	var b bytes.Buffer
	for _, e := range events {
		line, _ := json.Marshal(eventToJSON(e))
		fmt.Fprintf(&b, "id: %d\nevent: %s\ndata: %s\n\n", e.number, e.kind, line)
	}
	return b.String()
}

// lookBack reads which events are asked for.
func (q query) lookBack(now time.Time) (b lookBack, err error) {
	b = lookBack{environment: q.get("environment"), holder: q.get("holder"), limit: defaultPage}
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

// parseAge reads a duration that may be in days: 7d.
func parseAge(text string) (time.Duration, error) {
	if days, found := strings.CutSuffix(text, "d"); found {
		n, err := strconv.Atoi(days)
		if err != nil || n < 0 || n > 36500 {
			return 0, errParameter
		}
		return time.Duration(n) * 24 * time.Hour, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, errParameter
	}
	return d, nil
}
