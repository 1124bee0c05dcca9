package main

// GET /events: new events as they happen, as server-sent events (SSE). The JSON of an
// event and the past events are in server_history.go.

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

// heartbeat is the time between two beats of GET /events. They keep proxies from closing a
// silent connection, and let both ends notice a dead one.
const heartbeat = 15 * time.Second

// events answers GET /events: it sends the events of one environment, or of all, until the
// client leaves, its key is removed, or the server stops. When only a queue or another
// environment has changed, it sends a "change" without data; none if that is an environment
// which the key does not see. A client that connects again
// with Last-Event-ID also gets the later events that are still in the history.
func (s *server) events(w http.ResponseWriter, r *http.Request) error {
	q, err := readQuery(w, r)
	if err != nil {
		return err
	}
	environment, found := q.find("environment")
	if found {
		if err := checkEnvironment(environment); err != nil {
			return err
		}
	}
	who := callerOf(r)
	if err := s.checkSeen(who, []string{environment}); err != nil {
		return err
	}
	ctx, end := s.keys.watch(r.Context(), who)
	defer end()
	if until := callerOf(r).until; !until.IsZero() {
		limited, cancel := context.WithDeadline(ctx, until)
		defer cancel()
		ctx = limited
	}
	changed, stop := s.keeper.listen()
	defer stop()
	last := s.keeper.lastEvent()
	if id, err := strconv.ParseUint(r.Header.Get("Last-Event-ID"), 10, 64); err == nil {
		last = min(last, id) // after a larger number no event would be new
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx would buffer the events
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead { // the body of a GET does not end by itself
		return nil
	}
	state := s.keeper.published.Load()
	s.stream(ctx, w, changed, func() string {
		var found []*event
		found, last = s.keeper.eventsAfter(last)
		before, now := state, s.keys.now(who)
		state = s.keeper.published.Load()
		isWanted := func(e *event) bool {
			return isAbout(e, environment) && now.sees(e.environment)
		}
		isUnseen := now.isLimited() && !state.differsFor(before, now.sees)
		if text := eventText(found, isWanted); text != "" || isUnseen {
			return text
		}
		return "event: change\ndata: {}\n\n"
	})
	return nil
}

// stream writes what next returns whenever changed has a value, unless it is empty, and a beat
// every heartbeat. It returns when ctx ends, when the keeper has stopped, or when a write fails or
// takes longer than writeTime.
func (s *server) stream(
	ctx context.Context, w http.ResponseWriter, changed <-chan struct{}, next func() string,
) {
	control := http.NewResponseController(w)
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	text := ": this is call-me\n\n"
	for {
		control.SetWriteDeadline(time.Now().Add(writeTime))
		if _, err := w.Write([]byte(text)); err != nil {
			return
		}
		if err := control.Flush(); err != nil {
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
			text = next()
		}
	}
}

// eventText returns the events for which isWanted is true in the format of server-sent events. It
// overwrites the slice.
func eventText(events []*event, isWanted func(*event) bool) string {
	events = slices.DeleteFunc(events, func(e *event) bool { return !isWanted(e) })
	var b bytes.Buffer
	for _, e := range events {
		data, _ := json.Marshal(eventToJSON(e))
		fmt.Fprintf(&b, "id: %d\nevent: %s\ndata: %s\n\n", e.number, e.kind, data)
	}
	return b.String()
}
