package main

// GET /events: events as they happen, as server-sent events (SSE).

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"
)

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
	ctx, end := s.keys.watch(r.Context(), keySumOf(r))
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
